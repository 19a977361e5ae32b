//! Privacy that no request can loosen: of the whole server, and of single tenants.

use std::collections::BTreeMap;

use convergio_domain::chat::Privacy;
use convergio_domain::id::TenantId;

use super::error::ModelError;

/// How far conversations may travel at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrivacyPolicy {
    /// For everybody.
    pub all: Privacy,
    /// For a tenant besides.
    pub tenants: BTreeMap<TenantId, Privacy>,
}

impl PrivacyPolicy {
    /// The policy of a file that names tenants, `{"school": "local"}`, under that of the server.
    ///
    /// # Errors
    /// The text is no such object.
    pub fn from_file(all: Privacy, text: &str) -> Result<Self, ModelError> {
        let tenants = serde_json::from_str(text).map_err(|error| {
            let message = format!(
                "privacy.json: {error}; right is an object of tenants, {{\"school\": \"local\"}}"
            );
            ModelError::new("request.invalid", false, message)
        })?;
        Ok(Self { all, tenants })
    }

    /// What holds for a tenant: the strictest.
    pub fn of(&self, tenant: &TenantId) -> Privacy {
        self.tenants.get(tenant).copied().unwrap_or_default().max(self.all)
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::Privacy;

    use super::PrivacyPolicy;

    #[test]
    fn the_strictest_holds() {
        let policy = PrivacyPolicy::from_file(Privacy::Any, r#"{"school": "local"}"#).unwrap();
        let of = |policy: &PrivacyPolicy, name: &str| policy.of(&name.parse().unwrap());
        assert_eq!(of(&policy, "school"), Privacy::Local);
        assert_eq!(of(&policy, "other"), Privacy::Any);
        let held = PrivacyPolicy { all: Privacy::Local, ..PrivacyPolicy::default() };
        assert_eq!(of(&held, "other"), Privacy::Local);
        let loose = PrivacyPolicy::from_file(Privacy::Local, r#"{"school": "any"}"#).unwrap();
        assert_eq!(of(&loose, "school"), Privacy::Local, "a tenant cannot loosen the server's");
        for wrong in ["[]", r#"{"a": "cloud"}"#, r#"{"": "local"}"#] {
            let error = PrivacyPolicy::from_file(Privacy::Any, wrong).unwrap_err();
            assert!(error.message.contains("privacy.json"), "{error}");
        }
    }
}
