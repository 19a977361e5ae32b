//! The most that a call can use and cost, which is held against the budget before it is sent.

use super::price::{PriceBook, PriceQuery};
use super::usage::Meter;
use crate::money::Money;
use crate::run::Budget;

/// Minimum tokens of an answer that the budget limits; with fewer the budget counts as used up.
const MIN_ANSWER_TOKENS: u64 = 16;

/// Upper bounds of a call's usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallBound {
    /// Tokens sent, of all classes.
    pub input_tokens: u64,
    /// Tokens generated, of all classes.
    pub output_tokens: u64,
    /// Milliseconds of a recording, by which or by whose tokens the model is billed.
    pub audio_ms: u64,
    /// Characters of spoken text.
    pub characters: u64,
}

impl CallBound {
    /// Tokens sent and generated; saturates.
    pub fn total_tokens(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// Budget hold of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallReserve {
    /// Most usage of the call.
    pub bound: CallBound,
    /// Highest cost; `None` when the model has no price.
    pub cost: Option<Money>,
    /// Limit of the answer in tokens, where the budget sets it.
    pub output_limit: Option<u32>,
}

impl PriceBook {
    /// Returns the hold of a call. The answer of a call without a limit of its own is limited to
    /// what `budget_left` pays for, if that is less than the bound.
    pub fn reserve_call(
        &self,
        query: PriceQuery<'_>,
        mut bound: CallBound,
        budget_left: Option<Budget>,
    ) -> CallReserve {
        let affordable = budget_left.map(|left| self.affordable_answer(query, bound, left));
        // Below the minimum the full bound stays, which exceeds the budget and so ends the run.
        let limit =
            affordable.filter(|limit| (MIN_ANSWER_TOKENS..bound.output_tokens).contains(limit));
        bound.output_tokens = limit.unwrap_or(bound.output_tokens);
        let output_limit = limit.and_then(|limit| u32::try_from(limit).ok());
        CallReserve { bound, cost: self.worst_cost(query, bound), output_limit }
    }

    /// Returns the answer tokens that the rest of a budget pays for, after the prompt.
    fn affordable_answer(&self, query: PriceQuery<'_>, bound: CallBound, left: Budget) -> u64 {
        let tokens = left.tokens.map(|tokens| tokens.saturating_sub(bound.input_tokens));
        let affordable_by_cost = left
            .cost
            .and_then(|cost| self.affordable_output_tokens(query, bound.input_tokens, cost));
        tokens.unwrap_or(u64::MAX).min(affordable_by_cost.unwrap_or(u64::MAX))
    }

    /// Returns the highest cost of a call, whatever classes its tokens and whatever tiers of prompt
    /// length and service it falls into; `None` if the model has no price.
    pub fn worst_cost(&self, query: PriceQuery<'_>, bound: CallBound) -> Option<Money> {
        let price = self.find_price(query)?;
        let worst = |quantity: u64, is_kind: fn(Meter) -> bool| {
            if quantity == 0 {
                return Some(Money::ZERO);
            }
            // The dearest rate of any class: which class tokens fall into is known after the call.
            let rates = price.all_rates(bound.input_tokens, query.service_tier);
            let rates = rates.flat_map(|rates| rates.iter());
            let rates = rates.filter(|(meter, _)| is_kind(**meter)).map(|(_, rate)| *rate);
            rates.max()?.checked_times(quantity)
        };
        let input = worst(bound.input_tokens, Meter::is_input);
        let output = worst(bound.output_tokens, Meter::is_output);
        let tokens = input.zip(output).map(|(input, output)| input + output);
        let characters = worst(bound.characters, |meter| meter == Meter::Characters)?;
        let recording = match bound.audio_ms {
            0 => tokens?,
            // A model is billed by time or by tokens, never both. Which one is not known here, so
            // the sum bounds it.
            audio_ms => {
                let time = worst(audio_ms, |meter| meter == Meter::AudioMs);
                let ways: Vec<Money> = time.into_iter().chain(tokens).collect();
                (!ways.is_empty()).then(|| ways.into_iter().sum())?
            }
        };
        Some(recording + characters)
    }

    /// Returns the most tokens of an answer that an amount pays for, after a prompt of
    /// `input_tokens`; `None` if the model has no price or an answer costs nothing.
    pub fn affordable_output_tokens(
        &self,
        query: PriceQuery<'_>,
        input_tokens: u64,
        amount: Money,
    ) -> Option<u64> {
        let cost = |output_tokens| {
            let bound = CallBound { input_tokens, output_tokens, ..CallBound::default() };
            self.worst_cost(query, bound).map(Money::as_scaled)
        };
        // The cost is linear in output tokens, so that two points give the price of one.
        let (prompt, with_token) = (cost(0)?, cost(1)?);
        let left = amount.as_scaled().saturating_sub(prompt).max(0);
        let tokens = left.checked_div(with_token - prompt)?;
        Some(u64::try_from(tokens).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{CallBound, PriceBook, PriceQuery};
    use crate::time::Timestamp;

    fn query<'a>(provider: &'a str, model: &'a str) -> PriceQuery<'a> {
        PriceQuery { provider, model, is_local: false, service_tier: None, at: Timestamp(10) }
    }

    #[test]
    fn what_is_no_chat_is_bounded_by_what_it_is_billed_by() {
        let price = |model: &str, per_token: serde_json::Value| {
            json!({"provider": "p", "model": model, "from_ms": 0, "currency": "USD",
                "per_token": per_token})
        };
        let prices = json!([
            price("embeds", json!({"in_fresh": "2"})),
            price("hears", json!({"audio_ms": "3"})),
            price("hears-by-token", json!({"in_audio": "5", "out_text": "7"})),
            price("speaks", json!({"characters": "11"})),
        ]);
        let book = PriceBook::parse_book(&prices.to_string()).expect("a book");
        let texts = CallBound { input_tokens: 10, ..CallBound::default() };
        let recording = CallBound { audio_ms: 100, output_tokens: 10, ..texts };
        let speech = CallBound { characters: 10, ..CallBound::default() };
        for (model, bound, expected) in [
            ("embeds", texts, Some("20")),
            ("embeds", recording, None),
            ("embeds", speech, None),
            ("hears", recording, Some("300")),
            ("hears-by-token", recording, Some("120")),
            ("speaks", speech, Some("110")),
            ("speaks", texts, None),
            ("unknown", texts, None),
        ] {
            let worst = book.worst_cost(query("p", model), bound);
            let worst = worst.map(|worst| worst.to_string());
            assert_eq!(worst.as_deref(), expected, "{model}: {bound:?}");
        }
    }
}
