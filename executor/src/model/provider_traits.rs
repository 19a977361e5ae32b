//! What a provider, or one of its models, does otherwise than the interface that it speaks: by the
//! operator's file, or by what is known of providers of a name.

use std::collections::BTreeSet;

use convergio_domain::chat::{ChatField, FieldSupport};
use serde::Deserialize;

/// The name under which OpenAI's chat completions take the limit of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitField {
    /// What every server for one's own machine knows.
    MaxTokens,
    /// The only one that OpenAI's reasoning models accept.
    MaxCompletionTokens,
}

impl LimitField {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// How a provider, or one of its models, departs from its interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderTraits {
    /// Whether it answers in a stream; it does when absent.
    pub streams: Option<bool>,
    /// The name of the limit of an answer; the interface's own when absent.
    pub limit_field: Option<LimitField>,
    /// The name of the seed; the interface's own when absent.
    pub seed_field: Option<String>,
    /// Fields that it takes though its interface does not have them.
    pub keeps: BTreeSet<ChatField>,
    /// Fields that it refuses though its interface has them.
    pub refuses: BTreeSet<ChatField>,
    /// Whether fields that the platform does not know reach it.
    pub passes_unknown: bool,
}

impl ProviderTraits {
    /// What is known of providers of a name that speak OpenAI's chat completions.
    pub fn known(name: &str) -> Self {
        let keeps: &[ChatField] = match name {
            "openrouter" => &[ChatField::CacheControl],
            _ => &[],
        };
        let mut traits = Self { keeps: keeps.iter().copied().collect(), ..Self::default() };
        if ["mistral", "groq", "together", "fireworks", "deepseek", "openrouter"].contains(&name) {
            traits.limit_field = Some(LimitField::MaxTokens);
        }
        if name == "mistral" {
            traits.seed_field = Some("random_seed".to_owned());
        }
        traits
    }

    /// Whether answers are asked for as streams.
    pub fn is_stream(&self) -> bool {
        self.streams.unwrap_or(true)
    }

    /// The traits with those of a file, or of one model, over them.
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        let join = |base: &BTreeSet<_>, more: &BTreeSet<_>| base.union(more).copied().collect();
        Self {
            streams: over.streams.or(self.streams),
            limit_field: over.limit_field.or(self.limit_field),
            seed_field: over.seed_field.clone().or_else(|| self.seed_field.clone()),
            keeps: join(&self.keeps, &over.keeps),
            refuses: join(&self.refuses, &over.refuses),
            passes_unknown: self.passes_unknown || over.passes_unknown,
        }
    }

    /// What becomes of a field, of which its interface says so. One that the provider refuses is
    /// left out where that changes nothing that matters, and else refused by us, by name.
    pub fn support(&self, field: ChatField, interface: FieldSupport) -> FieldSupport {
        if self.refuses.contains(&field) {
            return field.support_without();
        }
        if self.keeps.contains(&field) {
            return FieldSupport::Kept;
        }
        interface
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{ChatField, FieldSupport, Interface};

    use super::{LimitField, ProviderTraits};

    fn read(text: &str) -> Result<ProviderTraits, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_model_says_more_than_its_provider_and_both_more_than_the_table() {
        let provider = ProviderTraits::known("mistral");
        let model = read(
            r#"{"streams": false, "refuses": ["temperature", "top_k"],
            "limit_field": "max_completion_tokens"}"#,
        )
        .unwrap();
        let traits = provider.overlaid(&model);
        assert_eq!(traits.streams, Some(false));
        assert_eq!(traits.limit_field, Some(LimitField::MaxCompletionTokens));
        assert_eq!(traits.seed_field.as_deref(), Some("random_seed"));
        let support =
            |field: ChatField| traits.support(field, field.support(Interface::OpenAiChat));
        assert_eq!(support(ChatField::Temperature), FieldSupport::LeftOut);
        assert_eq!(support(ChatField::TopK), FieldSupport::Refused);
        assert_eq!(support(ChatField::Stop), FieldSupport::Kept);
    }

    #[test]
    fn a_router_keeps_marks_of_the_cache() {
        let support = |name| {
            ProviderTraits::known(name).support(ChatField::CacheControl, FieldSupport::LeftOut)
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
