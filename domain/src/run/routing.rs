//! Record of the router's choice of a model, kept with the call so that replay can repeat the
//! choice.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::payload::{PayloadRef, PayloadSlot};
use crate::stream::Seq;

/// Input of the router's choice, and its output besides the chosen model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterDecision<At = PayloadRef> {
    /// Models to choose from.
    pub candidates: RoutingCandidates<At>,
    /// Estimated input tokens, rounded up.
    pub tokens_in: u64,
    /// Maximum output tokens of the call.
    pub tokens_out: u64,
    /// True if only models on own machines were allowed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub local: bool,
    /// Index of the only candidate allowed, if the model was pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<u32>,
    /// Platform that this machine prefers, if one of the candidates runs on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefers: Option<ServingPlatform>,
    /// Digest of the verdicts about all candidates in order, as 16 hexadecimal digits; absent if
    /// there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdicts: Option<String>,
}

/// Models that the router chose from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RoutingCandidates<At = PayloadRef> {
    /// A single candidate: the model that is called.
    One(CandidateFacts),
    /// A list of [`RouterCandidate`] in a payload, which later calls share while it is unchanged.
    Table(At),
}

/// Position of a candidate table within a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateTableRef {
    /// A payload of this commit.
    New(PayloadSlot),
    /// A payload of an earlier commit of the run.
    Known(PayloadRef),
}

/// A model that the router could choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterCandidate {
    /// Configured name of the provider.
    pub provider: String,
    /// Model id in the provider's spelling.
    pub model: String,
    /// Name of the API key, never the key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Properties that the router knew.
    #[serde(flatten)]
    pub traits: CandidateFacts,
}

/// Properties of a model that the router knew when it chose. Prices are in 1e-15 units of the price
/// book's currency for each token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateFacts {
    /// Software or service that runs the model.
    pub platform: ServingPlatform,
    /// True if the model runs on a machine of the person or the operator.
    #[serde(default, skip_serializing_if = "is_false")]
    pub local: bool,
    /// True if recent calls of the model failed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub failing: bool,
    /// Capabilities of the model.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub can: BTreeSet<ModelCapability>,
    /// Price of an input token, in 1e-15 currency units; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_in: Option<u64>,
    /// Price of an output token, in 1e-15 currency units; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_out: Option<u64>,
    /// Context window in tokens, input and output together; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// Configured quality from 0 to 1000.
    pub quality: u32,
}

/// Software or service that runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServingPlatform {
    /// Apple MLX, on this machine.
    Mlx,
    /// A server of the Ollama project.
    Ollama,
    /// A server of the llama.cpp project.
    LlamaCpp,
    /// An endpoint that speaks the OpenAI protocol.
    OpenaiCompatible,
    /// A cloud provider's own API.
    CloudApi,
}

/// Capability of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelCapability {
    /// It can call tools.
    Tools,
    /// It can answer by a given JSON schema.
    Json,
    /// It accepts images as input.
    Vision,
    /// It accepts audio as input.
    Audio,
}

impl RouterDecision<CandidateTableRef> {
    /// Resolves the table's position, where `first` is the sequence number of the commit's first
    /// event.
    pub(super) fn into_event_form(self, first: Seq) -> RouterDecision {
        let candidates = match self.candidates {
            RoutingCandidates::One(traits) => RoutingCandidates::One(traits),
            RoutingCandidates::Table(CandidateTableRef::New(slot)) => {
                RoutingCandidates::Table(slot.to_payload_ref(first))
            }
            RoutingCandidates::Table(CandidateTableRef::Known(reference)) => {
                RoutingCandidates::Table(reference)
            }
        };
        let Self { tokens_in, tokens_out, local, pinned, prefers, verdicts, .. } = self;
        RouterDecision { candidates, tokens_in, tokens_out, local, pinned, prefers, verdicts }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(word: &bool) -> bool {
    !word
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::RouterDecision;

    #[test]
    fn one_candidate_stands_with_its_call_and_more_are_a_payload() {
        let one = json!({"candidates": {"platform": "ollama", "local": true, "quality": 500},
            "tokens_in": 7, "tokens_out": 20, "pinned": 0});
        let table = json!({"candidates": "6.1", "tokens_in": 7, "tokens_out": 20,
            "verdicts": "0123456789abcdef"});
        for written in [one, table] {
            let read: RouterDecision = serde_json::from_value(written.clone()).expect("a routing");
            assert_eq!(serde_json::to_value(&read).expect("JSON"), written);
        }
    }
}
