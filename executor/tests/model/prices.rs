//! The price book as it is shipped.

use std::collections::BTreeSet;

use convergio_domain::metering::{Meter, Price, PriceBook, Usage};
use convergio_domain::money::{Currency, Money};
use convergio_domain::time::Timestamp;

const BOOK: &str = include_str!("../../../schemas/prices/book.v1.json");
const METERS: [Meter; 9] = [
    Meter::InFresh,
    Meter::InCacheRead,
    Meter::InCacheWrite5m,
    Meter::InCacheWrite1h,
    Meter::InAudio,
    Meter::InImage,
    Meter::OutText,
    Meter::OutReasoning,
    Meter::OutAudio,
];

fn prices() -> Vec<Price> {
    serde_json::from_str(BOOK).expect("a list of prices")
}

#[test]
fn every_price_has_input_and_output_and_none_is_negative() {
    for price in prices() {
        let name = format!("{}/{}", price.provider, price.model);
        assert_eq!(price.currency, Currency::Usd, "{name}");
        for meter in [Meter::InFresh, Meter::OutText, Meter::OutReasoning, Meter::InCacheRead] {
            assert!(price.per_token.contains_key(&meter), "{name} has no {}", meter.as_str());
        }
        for (meter, money) in &price.per_token {
            assert!(*money >= Money::ZERO, "{name} {}", meter.as_str());
            // A dollar for a token: a price for a million tokens was taken for that of one.
            assert!(*money < "0.001".parse().expect("an amount"), "{name} {}", meter.as_str());
        }
        let cached = price.per_token[&Meter::InCacheRead];
        assert!(cached <= price.per_token[&Meter::InFresh], "{name}: the cache costs more");
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
    let book = PriceBook::parse(BOOK).expect("a valid book");
    let usage = Usage(METERS.map(|meter| (meter, 1_000)).into());
    let charge = book.charge("local", "any", Timestamp(1), &usage).expect("priced");
    assert_eq!(charge.amount, Money::ZERO);
}

#[test]
fn a_call_of_openai_costs_what_its_page_says() {
    let book = PriceBook::parse(BOOK).expect("a valid book");
    let usage = Usage(
        [(Meter::InFresh, 1_000_000), (Meter::InCacheRead, 1_000_000), (Meter::OutText, 1_000_000)]
            .into(),
    );
    let now = Timestamp(1_795_000_000_000);
    let cost = |model| book.charge("openai", model, now, &usage).expect("priced").amount;
    // Dollars for a million tokens each: input, cached input, output.
    assert_eq!(cost("gpt-5-nano"), "0.455".parse().expect("an amount"));
    assert_eq!(cost("gpt-4.1"), "10.5".parse().expect("an amount"));
    assert_eq!(cost("gpt-6.1-sol"), "12.1".parse().expect("an amount"));
    assert_eq!(cost("o3"), "10.5".parse().expect("an amount"));
}

#[test]
fn an_unknown_model_has_no_price() {
    let book = PriceBook::parse(BOOK).expect("a valid book");
    assert_eq!(book.find("openai", "gpt-unknown", Timestamp(1_795_000_000_000)), None);
}
