//! The price book: prices by meter, by the length of the prompt and by the tier of service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::usage::{Meter, Usage};
use crate::money::{Currency, Money};
use crate::time::Timestamp;

/// Most base models that may stand behind one another.
const BASE_MODEL_STEPS_LIMIT: usize = 4;

/// Price of one model from some moment on: money per unit of each meter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The provider's name; `local` covers every model that runs on the tenant's own machines.
    pub provider: String,
    /// The model's name as the provider writes it; `*` covers all of them.
    pub model: String,
    /// Start of validity, in milliseconds since the Unix epoch.
    pub from_ms: Timestamp,
    /// Currency in which the provider bills.
    pub currency: Currency,
    /// Money per token, or per millisecond or character for models billed by them.
    pub per_token: BTreeMap<Meter, Money>,
    /// Prices of calls with longer prompts, which replace those above for the whole call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<PriceTier>,
    /// Prices by service tier, in the provider's word for the tier. An unlisted tier has no price.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, ServicePrice>,
}

/// Price of calls whose prompt is longer than `above_tokens`. A meter not listed keeps the price of
/// the tier below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTier {
    /// Input tokens, of all classes, up to which the tier below holds.
    pub above_tokens: u64,
    /// Money per token of each meter.
    pub per_token: BTreeMap<Meter, Money>,
}

/// Price of a service tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePrice {
    /// Money per token of each meter; a meter not listed has no price.
    pub per_token: BTreeMap<Meter, Money>,
    /// Prices of calls with longer prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<PriceTier>,
}

/// A deployment whose price is that of another model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModel {
    /// Provider of the deployment.
    pub provider: String,
    /// Model name of the deployment.
    pub model: String,
    /// Model whose price it has, as `PROVIDER/MODEL`.
    pub base: String,
}

/// Prices of an operator, which take precedence over the built-in ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorPrices {
    /// Prices that are looked up before the built-in ones.
    #[serde(default)]
    pub prices: Vec<Price>,
    /// Deployments with the price of another model.
    #[serde(default)]
    pub base_models: Vec<BaseModel>,
}

/// An immutable version of all prices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceBook {
    version: String,
    prices: Vec<Price>,
    operator_prices: Vec<Price>,
    /// By provider and name of the deployment.
    base_models: BTreeMap<String, BTreeMap<String, String>>,
}

/// Key of a look-up in the price book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceQuery<'a> {
    /// Name of the provider.
    pub provider: &'a str,
    /// Name of the model, as the provider writes it.
    pub model: &'a str,
    /// True if the model runs on machines of the user or the operator. Without a price of its own
    /// it then has that of `local`.
    pub is_local: bool,
    /// Tier that served the call, in the provider's word; the default one when absent.
    pub service_tier: Option<&'a str>,
    /// Time of the call, which selects the price by its start of validity.
    pub at: Timestamp,
}

/// Price of one model call: the cost of each meter, and the price book's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Currency of all amounts.
    pub currency: Currency,
    /// Exact cost of the whole call: the sum of the lines.
    pub amount: Money,
    /// Exact cost of each meter used.
    pub lines: BTreeMap<Meter, Money>,
    /// Version of the price book: the first 16 hexadecimal digits of BLAKE3 of its file, or of its
    /// file's version and the operator's file.
    pub price: String,
}

/// Error of a file of prices.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// The file is not JSON of the expected form.
    #[error("{0}")]
    Form(#[from] serde_json::Error),
    /// The file contains an impossible price.
    #[error("{0}")]
    Content(String),
}

impl PriceBook {
    /// Parses a price book: a JSON list of [`Price`].
    ///
    /// # Errors
    /// The text is not such a list, or a price in it is invalid; the error names the model.
    pub fn parse_book(json: &str) -> Result<Self, PriceError> {
        let mut prices: Vec<Price> = serde_json::from_str(json)?;
        prices.iter().try_for_each(check_price)?;
        sort_prices(&mut prices);
        let (operator_prices, base_models) = (Vec::new(), BTreeMap::new());
        Ok(Self { version: hash_version(&[json]), prices, operator_prices, base_models })
    }

    /// Returns the book with an operator's prices added: a JSON object of [`OperatorPrices`]. The
    /// result has another version.
    ///
    /// # Errors
    /// As [`PriceBook::parse_book`]; also if a base model leads back to itself.
    pub fn with_operator_prices(&self, json: &str) -> Result<Self, PriceError> {
        // serde reads a struct from a list as well, which would hide a mistaken file.
        let fields: serde_json::Map<String, Value> = serde_json::from_str(json)?;
        let OperatorPrices { prices, base_models } = serde_json::from_value(fields.into())?;
        prices.iter().try_for_each(check_price)?;
        let mut book = self.clone();
        book.version = hash_version(&[&self.version, json]);
        for BaseModel { provider, model, base } in base_models {
            if base.split_once('/').is_none_or(|(left, right)| left.is_empty() || right.is_empty())
            {
                let why = "`base` must be `PROVIDER/MODEL`";
                return Err(PriceError::Content(format!("{provider}/{model}: {why}")));
            }
            book.base_models.entry(provider).or_default().insert(model, base);
        }
        book.operator_prices.extend(prices);
        sort_prices(&mut book.operator_prices);
        book.check_base_models()?;
        Ok(book)
    }

    /// Returns the book with the base models of the providers' configuration file.
    ///
    /// # Errors
    /// As [`PriceBook::with_operator_prices`].
    pub fn with_base_models(&self, base_models: Vec<BaseModel>) -> Result<Self, PriceError> {
        if base_models.is_empty() {
            return Ok(self.clone());
        }
        let operator = OperatorPrices { prices: Vec::new(), base_models };
        self.with_operator_prices(&serde_json::to_string(&operator)?)
    }

    fn check_base_models(&self) -> Result<(), PriceError> {
        let mut names = self.base_models.iter().flat_map(|(provider, models)| {
            models.keys().map(move |model| (provider.as_str(), model.as_str()))
        });
        match names.find(|(provider, model)| self.resolve_base_model(provider, model).is_none()) {
            None => Ok(()),
            Some((provider, model)) => {
                let why = "its base model leads back to it, or over more than four others";
                Err(PriceError::Content(format!("{provider}/{model}: {why}")))
            }
        }
    }

    /// Version of the book, as each [`Charge`] names it.
    pub fn book_version(&self) -> &str {
        &self.version
    }

    /// Returns the name under which a model has its price; `None` if base models form a cycle.
    fn resolve_base_model<'a>(
        &'a self,
        provider: &'a str,
        model: &'a str,
    ) -> Option<(&'a str, &'a str)> {
        let mut name = (provider, model);
        for _ in 0..=BASE_MODEL_STEPS_LIMIT {
            let base = self.base_models.get(name.0).and_then(|models| models.get(name.1));
            match base.and_then(|base| base.split_once('/')) {
                Some(base) => name = base,
                None => return Some(name),
            }
        }
        None
    }

    /// Returns the price of a model at a time. The operator's prices come before the built-in ones,
    /// the exact name before the model that it is a dated snapshot of; the latest valid one counts.
    pub fn find_price(&self, query: PriceQuery<'_>) -> Option<&Price> {
        let (provider, model) = self.resolve_base_model(query.provider, query.model)?;
        let named = |name: &str| self.find_named(provider, name, query.at);
        let local = || query.is_local.then(|| self.find_named("local", "*", query.at)).flatten();
        let snapshot = || named(snapshot_base(model)?);
        named(model).or_else(snapshot).or_else(|| named("*")).or_else(local)
    }

    fn find_named(&self, provider: &str, model: &str, at: Timestamp) -> Option<&Price> {
        let mut lists = [&self.operator_prices, &self.prices].into_iter();
        lists.find_map(|prices| {
            let end = prices.partition_point(|price| price_order(price) <= (provider, model, at));
            let price = prices.get(end.checked_sub(1)?)?;
            (price.provider == provider && price.model == model).then_some(price)
        })
    }

    /// Returns the cost of a call; `None` if the model, the tier that served it, or a meter that it
    /// used has no price.
    pub fn charge_call(&self, query: PriceQuery<'_>, usage: &Usage) -> Option<Charge> {
        let price = self.find_price(query)?;
        let rates = price.rates_for(query.service_tier, usage.tokens_in())?;
        let mut lines = BTreeMap::new();
        for (meter, quantity) in usage.0.iter().filter(|(_, quantity)| **quantity > 0) {
            lines.insert(*meter, rates.get(meter)?.checked_times(*quantity)?);
        }
        let amount = lines.values().copied().sum();
        Some(Charge { currency: price.currency, amount, lines, price: self.version.clone() })
    }
}

impl Price {
    /// Money per unit, for a prompt of this length and a service tier.
    fn rates_for(&self, service_tier: Option<&str>, tokens: u64) -> Option<BTreeMap<Meter, Money>> {
        let (base, tiers) = match service_tier.filter(|tier| !is_default_tier(tier)) {
            None => (&self.per_token, &self.tiers),
            Some(tier) => {
                let service = self.services.get(tier)?;
                (&service.per_token, &service.tiers)
            }
        };
        let mut rates = base.clone();
        for tier in tiers.iter().filter(|tier| tokens > tier.above_tokens) {
            // Tiers are sorted, so that the highest one reached is applied last.
            rates.extend(tier.per_token.iter().map(|(meter, rate)| (*meter, *rate)));
        }
        Some(rates)
    }

    /// Every price that may apply to a prompt of at most `tokens`. A call without a tier may be
    /// served by any, since a project's default is set at the provider.
    pub(super) fn all_rates<'a>(
        &'a self,
        tokens: u64,
        service_tier: Option<&'a str>,
    ) -> impl Iterator<Item = &'a BTreeMap<Meter, Money>> {
        let reached = move |tier: &&'a PriceTier| tokens > tier.above_tokens;
        let usual = std::iter::once(&self.per_token)
            .chain(self.tiers.iter().filter(reached).map(|tier| &tier.per_token));
        let is_meant = move |name: &str| match service_tier {
            None | Some("auto") => true,
            Some(tier) => tier == name,
        };
        let services = self.services.iter().filter(move |(name, _)| is_meant(name));
        let services = services.flat_map(move |(_, service)| {
            let tiers = service.tiers.iter().filter(reached).map(|tier| &tier.per_token);
            std::iter::once(&service.per_token).chain(tiers)
        });
        usual.chain(services)
    }
}

/// Order in which a book keeps its prices, so that a binary search finds the one that holds.
fn price_order(price: &Price) -> (&str, &str, Timestamp) {
    (&price.provider, &price.model, price.from_ms)
}

/// Sorts prices; the sort is stable, so that the last of several with one start holds.
fn sort_prices(prices: &mut [Price]) {
    prices.sort_by(|left, right| price_order(left).cmp(&price_order(right)));
}

/// True if a tier is covered by a price without a tier.
fn is_default_tier(tier: &str) -> bool {
    ["", "auto", "default", "standard", "standard_only", "on_demand"].contains(&tier)
}

/// Returns the model of a dated snapshot: `gpt-4o-2024-08-06`, `claude-sonnet-4-5-20250929`,
/// `claude-haiku-4-5@20251001`.
pub(crate) fn snapshot_base(model: &str) -> Option<&str> {
    let is_digits = |text: &str, count: usize| {
        text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    // Anthropic and Vertex write the date as eight digits, OpenAI as YYYY-MM-DD.
    if let Some((base, date)) = model.rsplit_once(['-', '@'])
        && is_digits(date, 8)
    {
        return Some(base);
    }
    let date = model.len().checked_sub(11).filter(|at| model.is_char_boundary(*at))?;
    let (base, date) = model.split_at(date);
    let mut parts = date.strip_prefix('-')?.split('-');
    let is_date =
        [4, 2, 2].iter().all(|count| parts.next().is_some_and(|it| is_digits(it, *count)));
    is_date.then_some(base)
}

fn hash_version(texts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (place, text) in texts.iter().enumerate() {
        if place > 0 {
            // A separator, so that two texts hash apart from their concatenation.
            hasher.update(&[0]);
        }
        hasher.update(text.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

fn check_price(price: &Price) -> Result<(), PriceError> {
    let name = format!("{}/{}", price.provider, price.model);
    let wrong = |why: String| Err(PriceError::Content(format!("{name}: {why}")));
    if price.provider.is_empty() || price.model.is_empty() {
        return wrong("`provider` and `model` must not be empty".to_owned());
    }
    let services = price.services.values();
    let tiers = [&price.tiers].into_iter().chain(services.clone().map(|service| &service.tiers));
    let tiers: Vec<&Vec<PriceTier>> = tiers.collect();
    for list in &tiers {
        let is_sorted = list.windows(2).all(|pair| pair[0].above_tokens < pair[1].above_tokens);
        if !is_sorted {
            return wrong("its tiers must stand in the order of `above_tokens`".to_owned());
        }
    }
    let rates = [&price.per_token].into_iter().chain(services.map(|service| &service.per_token));
    let rates = rates.chain(tiers.into_iter().flatten().map(|tier| &tier.per_token));
    for (meter, rate) in rates.flatten() {
        if *rate < Money::ZERO {
            return wrong(format!("`{}` must not be below 0", meter.as_str()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{Strategy, any, prop, prop_assert, proptest};
    use serde_json::json;

    use super::{
        Meter, Money, Price, PriceBook, PriceQuery, PriceTier, ServicePrice, Timestamp, Usage,
        snapshot_base,
    };
    use crate::billing::CallBound;
    use crate::money::Currency;

    const AT: Timestamp = Timestamp(10);

    fn query<'a>(provider: &'a str, model: &'a str) -> PriceQuery<'a> {
        PriceQuery { provider, model, is_local: false, service_tier: None, at: AT }
    }

    fn usage(tokens_in: u64, tokens_out: u64) -> Usage {
        Usage([(Meter::InFresh, tokens_in), (Meter::OutText, tokens_out)].into())
    }

    fn book() -> PriceBook {
        let price = json!([{"provider": "p", "model": "m", "from_ms": 0, "currency": "USD",
            "per_token": {"in_fresh": "2", "in_cache_read": "1", "out_text": "10"},
            "tiers": [{"above_tokens": 100, "per_token": {"in_fresh": "4", "out_text": "15"}}],
            "services": {"priority": {"per_token": {"in_fresh": "3", "out_text": "20"}}}}]);
        PriceBook::parse_book(&price.to_string()).expect("a book")
    }

    fn cost(book: &PriceBook, query: PriceQuery<'_>, usage: &Usage) -> Option<String> {
        book.charge_call(query, usage).map(|charge| charge.amount.to_string())
    }

    #[test]
    fn a_longer_prompt_costs_its_tier_whole() {
        let cached = Usage([(Meter::InFresh, 1), (Meter::InCacheRead, 100)].into());
        for (usage, expected) in [(usage(100, 1), "210"), (usage(101, 1), "419"), (cached, "104")] {
            assert_eq!(cost(&book(), query("p", "m"), &usage), Some(expected.to_owned()));
        }
    }

    #[test]
    fn a_call_costs_what_served_it() {
        let served = |tier| {
            let query = PriceQuery { service_tier: Some(tier), ..query("p", "m") };
            cost(&book(), query, &usage(1, 1))
        };
        assert_eq!(served("default"), Some("12".into()));
        assert_eq!(served("priority"), Some("23".into()));
        assert_eq!(served("flex"), None);
    }

    #[test]
    fn snapshots_have_the_price_of_their_model() {
        for (name, base) in [
            ("gpt-4o-2024-08-06", Some("gpt-4o")),
            ("claude-sonnet-4-5-20250929", Some("claude-sonnet-4-5")),
            ("claude-haiku-4-5@20251001", Some("claude-haiku-4-5")),
            ("gpt-4o", None),
            ("gpt-4-0613", None),
            ("é-2024-08-06", Some("é")),
            ("2024-08-06", None),
            ("", None),
        ] {
            assert_eq!(snapshot_base(name), base, "{name}");
        }
        assert_eq!(cost(&book(), query("p", "m-2026-01-01"), &usage(1, 0)), Some("2".into()));
    }

    #[test]
    fn an_operators_price_comes_first_and_changes_the_version() {
        let own = json!({"prices": [{"provider": "p", "model": "m", "from_ms": 0,
            "currency": "USD", "per_token": {"in_fresh": "7", "out_text": "0"}}],
            "base_models": [{"provider": "azure", "model": "mine", "base": "p/m"}]});
        let (book, version) = (book(), book().book_version().to_owned());
        let book = book.with_operator_prices(&own.to_string()).expect("prices");
        assert_ne!(book.book_version(), version);
        assert_eq!(cost(&book, query("p", "m"), &usage(1, 0)), Some("7".into()));
        assert_eq!(cost(&book, query("azure", "mine"), &usage(1, 0)), Some("7".into()));
        assert_eq!(cost(&book, query("azure", "other"), &usage(1, 0)), None);
    }

    #[test]
    fn what_is_left_buys_so_much_of_an_answer() {
        let output = |left: i128| {
            let left = Money::from_scaled(left * 1_000_000_000_000_000);
            book().affordable_output_tokens(query("p", "m"), 10, left)
        };
        // The prompt costs 30 at most, a token of the answer 20: served by priority.
        assert_eq!(
            (output(29), output(30), output(49), output(50)),
            (Some(0), Some(0), Some(0), Some(1))
        );
        assert_eq!(output(1_030), Some(50));
    }

    #[test]
    fn mistakes_of_an_operator_are_named() {
        let price = |more: serde_json::Value| {
            let mut price = json!({"provider": "p", "model": "m", "from_ms": 0,
                "currency": "USD", "per_token": {"in_fresh": "1"}});
            price
                .as_object_mut()
                .expect("an object")
                .extend(more.as_object().expect("an object").clone());
            json!({"prices": [price]})
        };
        let circle = json!({"base_models": [{"provider": "a", "model": "x", "base": "b/y"},
            {"provider": "b", "model": "y", "base": "a/x"}]});
        for (file, word) in [
            (price(json!({"per_token": {"in_fresh": "-1"}})), "in_fresh"),
            (price(json!({"provider": ""})), "provider"),
            (price(json!({"colour": 1})), "colour"),
            (
                price(json!({"tiers": [{"above_tokens": 2, "per_token": {}},
                    {"above_tokens": 1, "per_token": {}}]})),
                "above_tokens",
            ),
            (json!({"base_models": [{"provider": "a", "model": "x", "base": "y"}]}), "a/x"),
            (circle, "leads back"),
            (json!([]), "a map"),
        ] {
            let error = book().with_operator_prices(&file.to_string()).expect_err("a mistake");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    fn rates() -> impl Strategy<Value = BTreeMap<Meter, Money>> {
        let inputs = [Meter::InFresh, Meter::InCacheRead, Meter::InCacheWrite1h, Meter::InAudio];
        let outputs = [Meter::OutText, Meter::OutReasoning, Meter::OutAudio];
        let meters = [&inputs[..], &outputs[..]].concat();
        prop::collection::vec(0..1000_i128, meters.len()).prop_map(move |rates| {
            let rates = rates.into_iter().map(|rate| Money::from_scaled(rate * 1_000_000));
            meters.iter().copied().zip(rates).collect()
        })
    }

    proptest! {
        /// Whatever classes the tokens are of, whatever tier they fall into and whoever serves
        /// them: the bound is not exceeded.
        #[test]
        fn no_call_costs_more_than_its_worst_case(
            base in rates(), tier in rates(), service in rates(), above in 0..500_u64,
            input in 0..1000_u64, output in 0..1000_u64, split in any::<[u16; 7]>(),
            served in any::<Option<bool>>(),
        ) {
            let tiers = vec![PriceTier { above_tokens: above, per_token: tier }];
            let service = ServicePrice { per_token: service, tiers: tiers.clone() };
            let price = Price { provider: "p".into(), model: "m".into(), from_ms: Timestamp(0),
                currency: Currency::Usd, per_token: base, tiers,
                services: [("priority".to_owned(), service)].into() };
            let book = PriceBook { version: String::new(), prices: vec![price],
                operator_prices: Vec::new(), base_models: BTreeMap::default() };
            let mut used = Usage::default();
            let (mut left_in, mut left_out) = (input, output);
            let meters = [Meter::InFresh, Meter::InCacheRead, Meter::InCacheWrite1h,
                Meter::InAudio, Meter::OutText, Meter::OutReasoning, Meter::OutAudio];
            for (meter, part) in meters.into_iter().zip(split) {
                let left = if meter.is_input() { &mut left_in } else { &mut left_out };
                let tokens = u64::from(part) % (*left + 1);
                *left -= tokens;
                used.0.insert(meter, tokens);
            }
            let tier = served.map(|priority| if priority { "priority" } else { "default" });
            let served_query = PriceQuery { service_tier: tier, ..query("p", "m") };
            let charge = book.charge_call(served_query, &used);
            let bound = CallBound { input_tokens: input, output_tokens: output,
                ..CallBound::default() };
            let worst = book.worst_cost(query("p", "m"), bound).expect("it has a price");
            prop_assert!(charge.expect("it has a price").amount <= worst);
        }
    }
}
