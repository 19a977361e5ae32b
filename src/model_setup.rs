//! The models that this process may ask, and what they cost: from the environment, from the model
//! servers that were found, and from the files of the data folder.

use std::sync::Arc;

use convergio_domain::chat::{ModelLimits, Privacy};
use convergio_domain::metering::{BaseModel, PriceBook};
use convergio_executor::model::{
    Aliases, Detected, ModelCatalog, PrivacyPolicy, ProviderConfig, ProviderFile,
};

use crate::data_dir::DataDir;
use crate::exit;

/// The operator's providers and aliases.
const PROVIDERS: &str = "providers.json";
/// The operator's own prices.
const PRICES: &str = "prices.json";

/// What the executor needs to ask models.
pub(crate) struct ModelSetup {
    /// The models.
    pub(crate) catalog: Arc<ModelCatalog>,
    /// What they cost.
    pub(crate) prices: Arc<PriceBook>,
}

impl ModelSetup {
    /// Reads it: the model servers that were found, those that the environment has keys for, and
    /// those of the data folder's file, which stand for others of the same name.
    pub(crate) fn read(data: &DataDir, found: &[Detected]) -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let mut providers: Vec<ProviderConfig> = found.iter().map(Detected::provider).collect();
        providers.extend(ProviderConfig::from_environment(variable)?);
        let mut aliases = Aliases::default();
        if let Some(text) = read_file(data, PROVIDERS)? {
            let file = ProviderFile::read(&text, data.path(), variable);
            let file = file.map_err(|error| exit::bad_input(error.message))?;
            providers.retain(|known| file.providers.iter().all(|entry| entry.name != known.name));
            providers.extend(file.providers);
            let names: Vec<&str> = providers.iter().map(|known| known.name.as_str()).collect();
            aliases = Aliases::new(file.aliases, &names)
                .map_err(|error| exit::bad_input(error.message))?;
        }
        let prices = Arc::new(prices(data, &providers)?);
        let limits = ModelLimits::parse(convergio_schemas::MODEL_LIMITS)?;
        let catalog = ModelCatalog::new(providers, Arc::clone(&prices))?;
        let catalog = catalog.with_limits(limits).with_aliases(aliases).held_to(privacy(data)?);
        Ok(Self { catalog: Arc::new(catalog), prices })
    }
}

/// The book of the program, and the operator's prices before it.
fn prices(data: &DataDir, providers: &[ProviderConfig]) -> anyhow::Result<PriceBook> {
    let mut book = PriceBook::parse(convergio_schemas::PRICE_BOOK)?;
    if let Some(text) = read_file(data, PRICES)? {
        book = book
            .with_operator_prices(&text)
            .map_err(|error| exit::bad_input(format!("{PRICES}: {error}")))?;
    }
    let base_models = providers.iter().flat_map(|provider| {
        provider.models.iter().filter_map(|model| {
            let (provider, base) = (provider.name.clone(), model.base_model.clone()?);
            Some(BaseModel { provider, model: model.id.clone(), base })
        })
    });
    book.with_base_models(base_models.collect())
        .map_err(|error| exit::bad_input(format!("{PROVIDERS}: {error}")))
}

/// What no request can loosen: `CONVERGIO_PRIVACY` for all, the data folder's file for tenants.
fn privacy(data: &DataDir) -> anyhow::Result<PrivacyPolicy> {
    let all = std::env::var("CONVERGIO_PRIVACY").ok().filter(|text| !text.is_empty());
    let all: Option<Privacy> = all.map(|text| text.parse()).transpose().map_err(exit::bad_input)?;
    let all = all.unwrap_or_default();
    match read_file(data, "privacy.json")? {
        Some(text) => {
            let policy = PrivacyPolicy::from_file(all, &text);
            policy.map_err(|error| exit::bad_input(error.message))
        }
        None => Ok(PrivacyPolicy { all, ..PrivacyPolicy::default() }),
    }
}

/// A file of the operator, if there is one. Whoever wrote it meant it: one that cannot be read is
/// not passed over.
fn read_file(data: &DataDir, name: &str) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(data.path().join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(exit::bad_input(format!("{name} cannot be read: {error}"))),
    }
}
