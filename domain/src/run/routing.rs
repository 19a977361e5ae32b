//! What a model was chosen from: it stands with the call, so that the choice can be made again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::state::RunState;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::stream::Seq;

/// Tables of a run that are remembered, so that one that is used again is not stored again.
const TABLES_LIMIT: usize = 4;

/// What the router was asked, and what it answered besides the choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing<At = PayloadRef> {
    /// What there was to choose from.
    pub candidates: Candidates<At>,
    /// Tokens that are sent, estimated high.
    pub tokens_in: u64,
    /// Most tokens of the answer.
    pub tokens_out: u64,
    /// Whether nothing may leave the premises.
    #[serde(default, skip_serializing_if = "is_false")]
    pub local: bool,
    /// Index of the only candidate wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<u32>,
    /// The platform that came first on that machine, when one of the candidates is of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefers: Option<Platform>,
    /// The print of all verdicts in their order, as 16 hexadecimal digits; absent when there is
    /// only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdicts: Option<String>,
}

/// What there is to choose from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Candidates<At = PayloadRef> {
    /// The one that is called.
    One(Traits),
    /// A list of [`Offered`], as a payload that calls share while it stays the same.
    Table(At),
}

/// Where a table lies that a commit names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// In the commit itself.
    New(PayloadSlot),
    /// In an earlier one of the run.
    Known(PayloadRef),
}

/// A model that the router could choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// The provider's name.
    pub provider: String,
    /// The model, as the provider writes it.
    pub model: String,
    /// The name of the key, never the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What is known of it.
    #[serde(flatten)]
    pub traits: Traits,
}

/// What the router knew of a model. A price is in 1e-15 currency units a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traits {
    /// What serves it.
    pub platform: Platform,
    /// Whether it computes on machines of the person or the operator.
    #[serde(default, skip_serializing_if = "is_false")]
    pub local: bool,
    /// Whether it failed lately.
    #[serde(default, skip_serializing_if = "is_false")]
    pub failing: bool,
    /// What it can do.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub can: BTreeSet<Ability>,
    /// Price of an input token; absent when nobody knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_in: Option<u64>,
    /// Price of an output token, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_out: Option<u64>,
    /// Tokens of input and output together, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// From 0 to 1000.
    pub quality: u32,
}

/// What serves a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    /// Apple MLX.
    Mlx,
    /// Ollama.
    Ollama,
    /// llama.cpp.
    LlamaCpp,
    /// An endpoint that speaks the OpenAI protocol.
    OpenaiCompatible,
    /// A cloud provider's own interface.
    CloudApi,
}

/// What a model can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// It can call tools.
    Tools,
    /// It can answer in a form that is asked for.
    Json,
    /// It can see pictures.
    Vision,
    /// It can hear.
    Audio,
}

impl Routing<Table> {
    /// As an event of the commit that begins at `first` has it.
    pub(super) fn at(self, first: Seq) -> Routing {
        let candidates = match self.candidates {
            Candidates::One(traits) => Candidates::One(traits),
            Candidates::Table(Table::New(slot)) => Candidates::Table(slot.at(first)),
            Candidates::Table(Table::Known(reference)) => Candidates::Table(reference),
        };
        let Self { tokens_in, tokens_out, local, pinned, prefers, verdicts, .. } = self;
        Routing { candidates, tokens_in, tokens_out, local, pinned, prefers, verdicts }
    }
}

impl RunState {
    /// Notes the table of a call, the last used last.
    pub(super) fn note_table(&mut self, routing: &Routing) {
        let Candidates::Table(reference) = routing.candidates else { return };
        let reference = self.own(reference);
        self.tables.retain(|known| *known != reference);
        if self.tables.len() == TABLES_LIMIT {
            self.tables.remove(0);
        }
        self.tables.push(reference);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(word: &bool) -> bool {
    !word
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Candidates, Routing};
    use crate::run::RunState;

    #[test]
    fn one_candidate_stands_with_its_call_and_more_are_a_payload() {
        let one = json!({"candidates": {"platform": "ollama", "local": true, "quality": 500},
            "tokens_in": 7, "tokens_out": 20, "pinned": 0});
        let table = json!({"candidates": "6.1", "tokens_in": 7, "tokens_out": 20,
            "verdicts": "0123456789abcdef"});
        for written in [one, table] {
            let read: Routing = serde_json::from_value(written.clone()).expect("a routing");
            assert_eq!(serde_json::to_value(&read).expect("JSON"), written);
        }
    }

    #[test]
    fn the_last_tables_are_remembered_and_printed() {
        let mut state = RunState::default();
        let before = state.fingerprint();
        for table in [1, 2, 1, 3, 4, 5] {
            state.note_table(&Routing {
                candidates: Candidates::Table(format!("{table}.0").parse().expect("a place")),
                tokens_in: 0,
                tokens_out: 0,
                local: false,
                pinned: None,
                prefers: None,
                verdicts: None,
            });
        }
        let known: Vec<_> = state.tables.iter().map(ToString::to_string).collect();
        assert_eq!(known, ["1.0", "3.0", "4.0", "5.0"]);
        assert_ne!(state.fingerprint(), before);
    }
}
