//! Providers configured by environment variables, under the names that the providers' own tools
//! use.

use crate::provider::{KeyHeader, ModelError, ProviderConfig, Secret};

impl ProviderConfig {
    /// Configures the clouds that have a key in the environment; `variable` reads a variable.
    ///
    /// - `OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, `GEMINI_API_KEY`: one provider each
    /// - `AZURE_OPENAI_ENDPOINT` with `AZURE_OPENAI_DEPLOYMENTS` (comma-separated) and
    ///   `AZURE_OPENAI_API_KEY`, or `AZURE_OPENAI_AD_TOKEN` for an Entra token; with
    ///   `AZURE_OPENAI_API_VERSION` by Azure's classic URLs
    /// - `OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL` (without `/v1`), `GEMINI_BASE_URL`: other servers,
    ///   as in the providers' SDKs
    ///
    /// # Errors
    /// `request.invalid`: Azure's endpoint is set without its deployments.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Self>, ModelError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let key = |name: &str| variable(name).map(Secret::new);
        let mut providers = Vec::new();
        // Anthropic's SDK appends `/v1` to its base URL itself; the others' variables include the
        // version.
        let with_base_url = |config: Self, name: &str, end: &str| match variable(name) {
            Some(url) => Self { base_url: format!("{}{end}", url.trim_end_matches('/')), ..config },
            None => config,
        };
        let openai = key("OPENAI_API_KEY").map(Self::for_openai);
        providers.extend(openai.map(|config| with_base_url(config, "OPENAI_BASE_URL", "")));
        let anthropic = key("ANTHROPIC_API_KEY").map(Self::for_anthropic);
        providers
            .extend(anthropic.map(|config| with_base_url(config, "ANTHROPIC_BASE_URL", "/v1")));
        let gemini = key("GEMINI_API_KEY").map(Self::for_gemini);
        providers.extend(gemini.map(|config| with_base_url(config, "GEMINI_BASE_URL", "")));
        if let Some(endpoint) = variable("AZURE_OPENAI_ENDPOINT") {
            let deployments = variable("AZURE_OPENAI_DEPLOYMENTS").ok_or_else(|| {
                let message = "AZURE_OPENAI_ENDPOINT is set: AZURE_OPENAI_DEPLOYMENTS must name \
                    its deployments, with commas between";
                ModelError::new("request.invalid", false, message)
            })?;
            let deployments: Vec<&str> = deployments.split(',').map(str::trim).collect();
            let version = variable("AZURE_OPENAI_API_VERSION");
            let token = key("AZURE_OPENAI_AD_TOKEN");
            let key_header = if token.is_some() { KeyHeader::Bearer } else { KeyHeader::ApiKey };
            let key_variable =
                if token.is_some() { "AZURE_OPENAI_AD_TOKEN" } else { "AZURE_OPENAI_API_KEY" };
            let key = token.or_else(|| key("AZURE_OPENAI_API_KEY"));
            // An empty key keeps the provider in the catalogue, so that calls say which variable is
            // missing.
            let key = key.unwrap_or_else(|| Secret::new(""));
            let azure = Self::for_azure(key, &endpoint, version.as_deref(), &deployments);
            let api_key_env = Some(key_variable.to_owned());
            providers.push(Self { key_header, api_key_env, ..azure });
        }
        Ok(providers)
    }
}

#[cfg(test)]
mod tests {
    use crate::provider::{KeyHeader, ProviderApi, ProviderConfig};

    fn found(variables: &[(&str, &str)]) -> Vec<ProviderConfig> {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        ProviderConfig::from_environment(find).unwrap()
    }

    #[test]
    fn each_key_makes_its_provider_and_no_key_makes_none() {
        assert!(found(&[("OPENAI_API_KEY", " "), ("GEMINI_API_KEY", "")]).is_empty());
        let all = [("OPENAI_API_KEY", "a"), ("ANTHROPIC_API_KEY", "b"), ("GEMINI_API_KEY", "c")];
        let names: Vec<_> = found(&all).into_iter().map(|config| config.name).collect();
        assert_eq!(names, ["openai", "anthropic", "gemini"]);
        let led = [all[1], ("ANTHROPIC_BASE_URL", "http://127.0.0.1:1/")];
        assert_eq!(found(&led)[0].base_url, "http://127.0.0.1:1/v1");
    }

    #[test]
    fn azure_takes_a_key_or_a_token_and_needs_its_deployments() {
        let base = [
            ("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com/"),
            ("AZURE_OPENAI_DEPLOYMENTS", "one, two"),
            ("AZURE_OPENAI_AD_TOKEN", "eyJ0"),
            ("AZURE_OPENAI_API_VERSION", "2024-10-21"),
        ];
        let classic = &found(&base)[0];
        assert_eq!(classic.api, ProviderApi::AzureClassic { api_version: "2024-10-21".into() });
        assert_eq!((classic.key_header, classic.models.len()), (KeyHeader::Bearer, 2));
        let keyed = [base[0], base[1], ("AZURE_OPENAI_API_KEY", "k")];
        let v1 = &found(&keyed)[0];
        assert_eq!((v1.api.clone(), v1.key_header), (ProviderApi::OpenAiChat, KeyHeader::ApiKey));
        assert_eq!(v1.base_url, "https://r.openai.azure.com/openai/v1");
        let only = |name: &str| (name == base[0].0).then(|| base[0].1.to_owned());
        assert!(ProviderConfig::from_environment(only).is_err());
    }
}
