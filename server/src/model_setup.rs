//! Models that this process may call and their prices: from the environment, from model servers
//! that were detected, and from files of the data folder.

use std::sync::Arc;

use convergio_domain::billing::{BaseModel, PriceBook};
use convergio_domain::chat::{ModelLimitTable, Privacy};
use convergio_executor::catalog::{
    DetectedServer, ModelAliases, ModelCatalog, PrivacyPolicy, ProviderFile,
};
use convergio_executor::provider::ProviderConfig;
use convergio_process::exit;

use crate::config::environment::{PRIVACY_VARIABLE, read_variable};
use crate::data_dir::DataDir;

/// File of the operator's providers and aliases, in the data folder.
const PROVIDERS_FILE: &str = "providers.json";
/// File of the operator's own prices, in the data folder.
const PRICES_FILE: &str = "prices.json";

/// Everything an executor needs to call models.
pub(crate) struct ModelSetup {
    /// Models that can be called, with limits and privacy policy.
    pub(crate) catalog: Arc<ModelCatalog>,
    /// Price book: the built-in prices, overridden by the operator's.
    pub(crate) prices: Arc<PriceBook>,
}

impl ModelSetup {
    /// Reads the setup. Providers of the data folder's file replace detected ones and those of the
    /// environment that have the same name.
    pub(crate) fn read(data: &DataDir, found: &[DetectedServer]) -> anyhow::Result<Self> {
        let mut providers: Vec<ProviderConfig> =
            found.iter().map(DetectedServer::to_provider_config).collect();
        providers.extend(ProviderConfig::from_environment(read_variable)?);
        let mut aliases = ModelAliases::default();
        if let Some(text) = read_operator_file(data, PROVIDERS_FILE)? {
            let file = ProviderFile::read(&text, data.as_path(), read_variable);
            let file = file.map_err(|error| exit::bad_input_error(error.message))?;
            providers
                .retain(|provider| file.providers.iter().all(|entry| entry.name != provider.name));
            providers.extend(file.providers);
            let names: Vec<&str> = providers.iter().map(|known| known.name.as_str()).collect();
            aliases = ModelAliases::new(file.aliases, &names)
                .map_err(|error| exit::bad_input_error(error.message))?;
        }
        let prices = Arc::new(read_prices(data, &providers)?);
        let limits = ModelLimitTable::parse_table(convergio_schemas::MODEL_LIMITS)?;
        let catalog = ModelCatalog::new(providers, Arc::clone(&prices))?;
        let catalog = catalog
            .with_limits(limits)
            .with_aliases(aliases)
            .with_privacy_policy(read_privacy_policy(data)?);
        Ok(Self { catalog: Arc::new(catalog), prices })
    }
}

/// Reads the built-in price book and puts the operator's prices before it.
fn read_prices(data: &DataDir, providers: &[ProviderConfig]) -> anyhow::Result<PriceBook> {
    let mut book = PriceBook::parse_book(convergio_schemas::PRICE_BOOK)?;
    if let Some(text) = read_operator_file(data, PRICES_FILE)? {
        book = book
            .with_operator_prices(&text)
            .map_err(|error| exit::bad_input_error(format!("{PRICES_FILE}: {error}")))?;
    }
    // A model served under another name is priced as its base model.
    let base_models = providers.iter().flat_map(|provider| {
        provider.models.iter().filter_map(|model| {
            let (provider, base) = (provider.name.clone(), model.base_model.clone()?);
            Some(BaseModel { provider, model: model.id.clone(), base })
        })
    });
    book.with_base_models(base_models.collect())
        .map_err(|error| exit::bad_input_error(format!("{PROVIDERS_FILE}: {error}")))
}

/// Reads the privacy policy that no request can loosen: `CONVERGIO_PRIVACY` for all tenants, the
/// data folder's file for single ones.
fn read_privacy_policy(data: &DataDir) -> anyhow::Result<PrivacyPolicy> {
    let all = read_variable(PRIVACY_VARIABLE).filter(|text| !text.is_empty());
    let all: Option<Privacy> =
        all.map(|text| text.parse()).transpose().map_err(exit::bad_input_error)?;
    let all = all.unwrap_or_default();
    match read_operator_file(data, "privacy.json")? {
        Some(text) => {
            let policy = PrivacyPolicy::from_file(all, &text);
            policy.map_err(|error| exit::bad_input_error(error.message))
        }
        None => Ok(PrivacyPolicy { server_level: all, ..PrivacyPolicy::default() }),
    }
}

/// Reads a file of the operator, if there is one. An unreadable file is an error, not a default:
/// ignoring it could send private data to the wrong provider.
fn read_operator_file(data: &DataDir, name: &str) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(data.as_path().join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(exit::bad_input_error(format!("{name} cannot be read: {error}"))),
    }
}
