//! Privacy levels that no request can loosen: the server's, and those of single tenants.

use std::collections::BTreeMap;

use convergio_domain::chat::Privacy;
use convergio_domain::id::TenantId;

use crate::provider::ModelError;

/// The privacy levels of the server and of single tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrivacyPolicy {
    /// The level that holds for every tenant.
    pub server_level: Privacy,
    /// Levels of single tenants; they can only tighten the server's.
    pub tenant_levels: BTreeMap<TenantId, Privacy>,
}

impl PrivacyPolicy {
    /// Parses a file of tenants, such as `{"school": "local"}`; `server_level` is the server's.
    ///
    /// # Errors
    /// `request.invalid`: the text is not such an object.
    pub fn from_file(server_level: Privacy, text: &str) -> Result<Self, ModelError> {
        let tenant_levels = serde_json::from_str(text).map_err(|error| {
            let message = format!(
                "privacy.json: {error}; right is an object of tenants, {{\"school\": \"local\"}}"
            );
            ModelError::new("request.invalid", false, message)
        })?;
        Ok(Self { server_level, tenant_levels })
    }

    /// Returns the level of a tenant: the stricter of its own and the server's.
    pub fn level_for(&self, tenant: &TenantId) -> Privacy {
        self.tenant_levels.get(tenant).copied().unwrap_or_default().max(self.server_level)
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::Privacy;

    use super::PrivacyPolicy;

    #[test]
    fn the_strictest_holds() {
        let policy = PrivacyPolicy::from_file(Privacy::Any, r#"{"school": "local"}"#).unwrap();
        let of = |policy: &PrivacyPolicy, name: &str| policy.level_for(&name.parse().unwrap());
        assert_eq!(of(&policy, "school"), Privacy::Local);
        assert_eq!(of(&policy, "other"), Privacy::Any);
        let held = PrivacyPolicy { server_level: Privacy::Local, ..PrivacyPolicy::default() };
        assert_eq!(of(&held, "other"), Privacy::Local);
        let loose = PrivacyPolicy::from_file(Privacy::Local, r#"{"school": "any"}"#).unwrap();
        assert_eq!(of(&loose, "school"), Privacy::Local, "a tenant cannot loosen the server's");
        for wrong in ["[]", r#"{"a": "cloud"}"#, r#"{"": "local"}"#] {
            let error = PrivacyPolicy::from_file(Privacy::Any, wrong).unwrap_err();
            assert!(error.message.contains("privacy.json"), "{error}");
        }
    }
}
