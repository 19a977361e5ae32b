//! Traits of a provider or of one of its models: deviations from the interface that it speaks, by
//! the operator's file or by what is known of providers of a name.

use std::collections::BTreeSet;

use convergio_domain::chat::{ChatField, FieldSupport};
use serde::Deserialize;

/// The name under which OpenAI's chat completions accept the limit of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitField {
    /// Accepted by every server for one's own machine, and by older cloud models.
    MaxTokens,
    /// The only name that OpenAI's reasoning models accept.
    MaxCompletionTokens,
}

impl LimitField {
    /// Returns the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// Deviations of a provider, or of one of its models, from its interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderTraits {
    /// False if answers must be asked for at once rather than as streams; streams if absent.
    pub streams: Option<bool>,
    /// The name of the answer's token limit; the interface's own if absent.
    pub limit_field: Option<LimitField>,
    /// The name of the seed; the interface's own if absent.
    pub seed_field: Option<String>,
    /// Fields that the provider accepts although its interface lacks them.
    pub keeps: BTreeSet<ChatField>,
    /// Fields that the provider rejects although its interface has them.
    pub refuses: BTreeSet<ChatField>,
    /// True if fields that the platform does not know are sent to the provider.
    pub passes_unknown: bool,
}

impl ProviderTraits {
    /// Returns the traits of well-known providers of OpenAI's chat completions, by name.
    pub fn for_known_provider(name: &str) -> Self {
        let keeps: &[ChatField] = match name {
            "openrouter" => &[ChatField::CacheControl],
            _ => &[],
        };
        let mut traits = Self { keeps: keeps.iter().copied().collect(), ..Self::default() };
        // These know the limit by its older name only.
        if ["mistral", "groq", "together", "fireworks", "deepseek", "openrouter"].contains(&name) {
            traits.limit_field = Some(LimitField::MaxTokens);
        }
        if name == "mistral" {
            traits.seed_field = Some("random_seed".to_owned());
        }
        traits
    }

    /// Returns whether answers are asked for as streams.
    pub fn is_stream(&self) -> bool {
        self.streams.unwrap_or(true)
    }

    /// Returns these traits with those of a file or of one model laid over them. Sets are united.
    #[must_use]
    pub fn overlaid_with(&self, other: &Self) -> Self {
        let join = |base: &BTreeSet<_>, more: &BTreeSet<_>| base.union(more).copied().collect();
        Self {
            streams: other.streams.or(self.streams),
            limit_field: other.limit_field.or(self.limit_field),
            seed_field: other.seed_field.clone().or_else(|| self.seed_field.clone()),
            keeps: join(&self.keeps, &other.keeps),
            refuses: join(&self.refuses, &other.refuses),
            passes_unknown: self.passes_unknown || other.passes_unknown,
        }
    }

    /// Decides about a field, given what its interface supports. A field that the provider rejects
    /// is left out if that changes nothing that matters; otherwise the request is refused by its
    /// name.
    pub fn field_support(&self, field: ChatField, interface_support: FieldSupport) -> FieldSupport {
        // A refusal wins over `keeps`: a field that is rejected cannot be sent.
        if self.refuses.contains(&field) {
            return field.support_elsewhere();
        }
        if self.keeps.contains(&field) {
            return FieldSupport::Kept;
        }
        interface_support
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{ChatField, ChatInterface, FieldSupport};

    use super::{LimitField, ProviderTraits};

    fn read(text: &str) -> Result<ProviderTraits, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_model_says_more_than_its_provider_and_both_more_than_the_table() {
        let provider = ProviderTraits::for_known_provider("mistral");
        let model = read(
            r#"{"streams": false, "refuses": ["temperature", "top_k"],
            "limit_field": "max_completion_tokens"}"#,
        )
        .unwrap();
        let traits = provider.overlaid_with(&model);
        assert_eq!(traits.streams, Some(false));
        assert_eq!(traits.limit_field, Some(LimitField::MaxCompletionTokens));
        assert_eq!(traits.seed_field.as_deref(), Some("random_seed"));
        let support = |field: ChatField| {
            traits.field_support(field, field.support_at(ChatInterface::OpenAiChat))
        };
        assert_eq!(support(ChatField::Temperature), FieldSupport::LeftOut);
        assert_eq!(support(ChatField::TopK), FieldSupport::Refused);
        assert_eq!(support(ChatField::Stop), FieldSupport::Kept);
    }

    #[test]
    fn a_router_keeps_marks_of_the_cache() {
        let support = |name| {
            ProviderTraits::for_known_provider(name)
                .field_support(ChatField::CacheControl, FieldSupport::LeftOut)
        };
        assert_eq!(support("openrouter"), FieldSupport::Kept);
        assert_eq!(support("openai"), FieldSupport::LeftOut);
    }

    #[test]
    fn a_misspelt_field_is_named() {
        for text in [r#"{"refuses": ["temprature"]}"#, r#"{"limit_field": "limit"}"#] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("temprature") || error.contains("limit"), "{error}");
        }
    }
}
