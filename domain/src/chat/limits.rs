//! Published token limits of models.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::billing::snapshot_base;

/// Token limits of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelLimit {
    /// Most tokens of a prompt.
    pub input_tokens: u64,
    /// Most tokens of an answer, reasoning included.
    pub output_tokens: u32,
}

/// Table of token limits by provider and model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelLimitTable(BTreeMap<String, BTreeMap<String, ModelLimit>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelLimitEntry {
    provider: String,
    model: String,
    input_tokens: u64,
    output_tokens: u32,
}

impl ModelLimitTable {
    /// Parses a table: a JSON list of `{provider, model, input_tokens, output_tokens}`.
    ///
    /// # Errors
    /// The text is not such a list.
    pub fn parse_table(json: &str) -> Result<Self, serde_json::Error> {
        let entries: Vec<ModelLimitEntry> = serde_json::from_str(json)?;
        let mut table = Self::default();
        for ModelLimitEntry { provider, model, input_tokens, output_tokens } in entries {
            let limit = ModelLimit { input_tokens, output_tokens };
            table.0.entry(provider).or_default().insert(model, limit);
        }
        Ok(table)
    }

    /// Returns the limits of a model, or of the model that it is a dated snapshot of.
    pub fn find_limit(&self, provider: &str, model: &str) -> Option<ModelLimit> {
        let models = self.0.get(provider)?;
        let known = |name: &str| models.get(name).copied();
        // Snapshots are published faster than this table changes.
        known(model).or_else(|| known(snapshot_base(model)?))
    }
}

#[cfg(test)]
mod tests {
    use super::{ModelLimit, ModelLimitTable};

    #[test]
    fn a_snapshot_has_the_limit_of_its_model() {
        let text = r#"[{"provider": "p", "model": "m", "input_tokens": 9, "output_tokens": 3}]"#;
        let limits = ModelLimitTable::parse_table(text).expect("a table");
        let limit = Some(ModelLimit { input_tokens: 9, output_tokens: 3 });
        assert_eq!(limits.find_limit("p", "m"), limit);
        assert_eq!(limits.find_limit("p", "m-2026-01-01"), limit);
        assert_eq!(limits.find_limit("q", "m"), None);
    }
}
