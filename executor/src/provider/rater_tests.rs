//! Pricing is compared with two other projects, `litellm` and `genai-prices`, whose amounts for
//! real usage blocks were recorded with them.

use convergio_domain::billing::{PriceBook, PriceQuery};
use convergio_domain::time::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::usage;

const RECORDS: &str = include_str!("../../tests/model/raters.v1.json");
const BOOK: &str = include_str!("../../../schemas/prices/book.v1.json");

#[derive(Deserialize)]
struct RaterRecord {
    provider: String,
    model: String,
    service_tier: Option<String>,
    usage: Value,
    litellm: String,
    /// Absent for service tiers, which it does not know.
    genai_prices: Option<String>,
}

#[test]
fn second_raters_agree_on_every_record() {
    let records: Vec<RaterRecord> = serde_json::from_str(RECORDS).expect("records");
    let book = PriceBook::parse_book(BOOK).expect("a book");
    assert!(records.len() >= 60, "{} records", records.len());
    for record in &records {
        let read = match record.provider.as_str() {
            "openai" => usage::from_openai,
            "anthropic" => usage::from_anthropic,
            _ => usage::from_gemini,
        };
        let query = PriceQuery {
            provider: &record.provider,
            model: &record.model,
            is_local: false,
            service_tier: record.service_tier.as_deref(),
            at: Timestamp(1_796_000_000_000),
        };
        let counted = read(&record.usage).expect("counts");
        let charge = book.charge_call(query, &counted).expect("a price");
        let amount = charge.amount.to_string();
        let name = format!("{} {:?}: {}", record.model, record.service_tier, record.usage);
        assert_eq!(amount, record.litellm, "litellm, {name}");
        if let Some(other) = &record.genai_prices {
            assert_eq!(amount, *other, "genai-prices, {name}");
        }
    }
}
