//! The price book as it is shipped.

use std::collections::BTreeSet;

use convergio_domain::billing::{CallBound, Meter, Price, PriceBook, PriceQuery, Usage};
use convergio_domain::chat::ModelLimitTable;
use convergio_domain::money::{Currency, Money};
use convergio_domain::time::Timestamp;

const BOOK: &str = include_str!("../../../schemas/prices/book.v1.json");
const LIMITS: &str = include_str!("../../../schemas/models/limits.v1.json");
const METERS: [Meter; 11] = [
    Meter::InFresh,
    Meter::InCacheRead,
    Meter::InCacheWrite5m,
    Meter::InCacheWrite1h,
    Meter::InAudio,
    Meter::InImage,
    Meter::OutText,
    Meter::OutReasoning,
    Meter::OutAudio,
    Meter::AudioMs,
    Meter::Characters,
];

fn query<'a>(provider: &'a str, model: &'a str) -> PriceQuery<'a> {
    let at = Timestamp(1_795_000_000_000);
    PriceQuery { provider, model, is_local: false, service_tier: None, at }
}

fn prices() -> Vec<Price> {
    serde_json::from_str(BOOK).expect("a list of prices")
}

/// Whether a model gives vectors: it yields no tokens, and is not found in the cache.
fn is_embedding(price: &Price) -> bool {
    price.model.contains("embedding")
}

#[test]
fn every_price_has_input_and_output_and_none_is_negative() {
    for price in prices() {
        let name = format!("{}/{}", price.provider, price.model);
        assert_eq!(price.currency, Currency::Usd, "{name}");
        let meters = [Meter::InFresh, Meter::OutText, Meter::OutReasoning, Meter::InCacheRead];
        let needed = if is_embedding(&price) { &meters[..1] } else { &meters[..] };
        for meter in needed {
            assert!(price.per_token.contains_key(meter), "{name} has no {}", meter.as_str());
        }
        assert!(!is_embedding(&price) || price.per_token.len() == 1, "{name} yields no tokens");
        for (meter, money) in &price.per_token {
            assert!(*money >= Money::ZERO, "{name} {}", meter.as_str());
            // A dollar for a token: a price for a million tokens was taken for that of one.
            assert!(*money < "0.001".parse().expect("an amount"), "{name} {}", meter.as_str());
        }
        let fresh = price.per_token[&Meter::InFresh];
        let cached = price.per_token.get(&Meter::InCacheRead);
        for tier in &price.tiers {
            for (meter, money) in &tier.per_token {
                assert!(*money >= price.per_token[meter], "{name}: a long prompt costs less");
            }
        }
        assert!(cached.is_none_or(|cached| *cached <= fresh), "{name}: the cache costs more");
    }
}

#[test]
fn amounts_are_written_exactly_as_they_are_read() {
    let raw: serde_json::Value = serde_json::from_str(BOOK).expect("JSON");
    for price in raw.as_array().expect("a list") {
        for (meter, money) in price["per_token"].as_object().expect("prices by meter") {
            let text = money.as_str().expect("a text: numbers would be floats");
            let read: Money = text.parse().expect("an exact amount");
            assert_eq!(read.to_string(), text, "{} {meter}", price["model"]);
        }
    }
}

#[test]
fn no_price_is_given_twice_for_one_moment() {
    let mut seen = BTreeSet::new();
    for price in prices() {
        let key = (price.provider, price.model, price.from_ms);
        assert!(seen.insert(key.clone()), "{key:?}");
    }
    assert!(seen.len() > 12, "{} prices", seen.len());
}

#[test]
fn local_models_cost_nothing_whatever_they_use() {
    let book = PriceBook::parse_book(BOOK).expect("a valid book");
    let usage = Usage(METERS.map(|meter| (meter, 1_000)).into());
    let charge = book.charge_call(query("local", "any"), &usage).expect("priced");
    assert_eq!(charge.amount, Money::ZERO);
}

#[test]
fn a_call_of_openai_costs_what_its_page_says() {
    let book = PriceBook::parse_book(BOOK).expect("a valid book");
    let usage = Usage(
        [(Meter::InFresh, 1_000_000), (Meter::InCacheRead, 1_000_000), (Meter::OutText, 1_000_000)]
            .into(),
    );
    // Dollars for a million tokens each: input, cached input, output. Beyond 272,000 tokens of
    // input the sixth family doubles its input and takes half as much again for its output.
    for (model, amount) in [
        ("gpt-5-nano", "0.455"),
        ("gpt-4.1", "10.5"),
        ("gpt-6.1-sol", "19.2"),
        ("o3", "10.5"),
        ("o3-2025-04-16", "10.5"),
    ] {
        let charge = book.charge_call(query("openai", model), &usage).expect("priced");
        assert_eq!(charge.amount.to_string(), amount, "{model}");
    }
}

#[test]
fn a_million_tokens_as_vectors_cost_what_openais_page_says() {
    let book = PriceBook::parse_book(BOOK).expect("a valid book");
    let bound = CallBound { input_tokens: 1_000_000, ..CallBound::default() };
    let usage = Usage([(Meter::InFresh, 1_000_000)].into());
    for (model, amount) in [
        ("text-embedding-3-small", "0.02"),
        ("text-embedding-3-large", "0.13"),
        ("text-embedding-ada-002", "0.1"),
    ] {
        let charge = book.charge_call(query("openai", model), &usage).expect("priced");
        assert_eq!(charge.amount.to_string(), amount, "{model}");
        assert_eq!(book.worst_cost(query("openai", model), bound), Some(charge.amount));
    }
}

#[test]
fn another_tier_of_service_has_its_own_price_or_none() {
    let book = PriceBook::parse_book(BOOK).expect("a valid book");
    let usage = Usage([(Meter::InFresh, 100_000), (Meter::OutText, 10_000)].into());
    let served = |tier| {
        let query = PriceQuery { service_tier: Some(tier), ..query("openai", "gpt-5") };
        book.charge_call(query, &usage).map(|charge| charge.amount.to_string())
    };
    assert_eq!(served("default").as_deref(), Some("0.225"));
    assert_eq!(served("priority").as_deref(), Some("0.45"));
    assert_eq!(served("flex").as_deref(), Some("0.1125"));
    assert_eq!(served("scale"), None);
}

#[test]
fn every_model_with_a_price_has_its_limits() {
    let limits = ModelLimitTable::parse_table(LIMITS).expect("a table");
    let chats = |price: &&Price| price.provider != "local" && !is_embedding(price);
    for price in prices().iter().filter(chats) {
        let limit = limits.find_limit(&price.provider, &price.model);
        assert!(limit.is_some_and(|limit| limit.output_tokens >= 4_096), "{}", price.model);
    }
}

#[test]
fn an_unknown_model_has_no_price() {
    let book = PriceBook::parse_book(BOOK).expect("a valid book");
    assert_eq!(book.find_price(query("openai", "gpt-unknown")), None);
}
