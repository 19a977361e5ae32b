//! Model aliases: an operator's names for several deployments. Each call goes to one deployment,
//! chosen by weight; the others are its fallbacks.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::provider::ModelError;

/// Maximum number of deployments behind one alias.
const TARGETS_LIMIT: usize = 64;
/// Maximum weight of one deployment, so that the sum of all weights cannot overflow.
const WEIGHT_LIMIT: u32 = 1_000_000;

/// A deployment behind an alias.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasTarget {
    /// The deployment's model as `PROVIDER/MODEL`.
    pub model: String,
    /// Share of calls relative to the other weights; defaults to 1. With 0 the deployment is only a
    /// fallback.
    #[serde(default = "default_weight")]
    pub weight: u32,
}

fn default_weight() -> u32 {
    1
}

/// The operator's aliases and the deployments behind each of them, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelAliases(BTreeMap<String, Vec<AliasTarget>>);

impl ModelAliases {
    /// Checks the aliases of the provider file against the names of the configured `providers`.
    ///
    /// # Errors
    /// `request.invalid`: a name is empty or reserved, or a target is malformed; the message names
    /// it.
    pub fn new(
        aliases: BTreeMap<String, Vec<AliasTarget>>,
        providers: &[&str],
    ) -> Result<Self, ModelError> {
        for (name, targets) in &aliases {
            let wrong = |why: String| {
                let message = format!("the file of providers: alias `{name}`: {why}");
                Err(ModelError::new("request.invalid", false, message))
            };
            // `auto` and `local` are model selectors: an alias of that name would shadow them.
            if name.is_empty() || ["auto", "local"].contains(&name.as_str()) {
                return wrong("this name means something else".to_owned());
            }
            if targets.is_empty() || targets.len() > TARGETS_LIMIT {
                return wrong(format!("it needs 1 to {TARGETS_LIMIT} models"));
            }
            for target in targets {
                let provider = target.model.split_once('/').map(|(provider, _)| provider);
                if !provider.is_some_and(|provider| providers.contains(&provider)) {
                    let model = &target.model;
                    return wrong(format!("`{model}` is not `PROVIDER/MODEL` of a provider here"));
                }
                if target.weight > WEIGHT_LIMIT {
                    return wrong(format!("a weight is 0 to {WEIGHT_LIMIT}"));
                }
            }
        }
        Ok(Self(aliases))
    }

    /// Returns the names of all aliases, in alphabetical order.
    pub fn alias_names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the deployments behind `name` in the order in which they are tried: first the one
    /// that `chance` selects in proportion to the weights, then the rest by falling weight.
    /// `chance` must be uniformly distributed over the whole range of `u64`; the same value selects
    /// the same deployment.
    pub(super) fn ordered_targets(&self, name: &str, chance: u64) -> Option<Vec<&str>> {
        let targets = self.0.get(name)?;
        let total: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
        // Without any weight the remainder is 0 and no deployment is hit: the order of the file
        // holds.
        let mut remaining = chance.checked_rem(total).unwrap_or(0);
        let takes_call = |target: &AliasTarget| {
            let weight = u64::from(target.weight);
            let is_hit = remaining < weight;
            remaining = remaining.saturating_sub(weight);
            is_hit
        };
        // Cumulative weights: the remainder walks down the list until a weight covers it.
        let first = targets.iter().position(takes_call).unwrap_or(0);
        let mut rest: Vec<&AliasTarget> = targets.iter().collect();
        let first = rest.remove(first);
        rest.sort_by_key(|target| std::cmp::Reverse(target.weight));
        Some(std::iter::once(first).chain(rest).map(|target| target.model.as_str()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{AliasTarget, ModelAliases};

    fn target(model: &str, weight: u32) -> AliasTarget {
        AliasTarget { model: model.to_owned(), weight }
    }

    fn aliases(targets: Vec<AliasTarget>) -> ModelAliases {
        ModelAliases::new([("fast".to_owned(), targets)].into(), &["a", "b"]).unwrap()
    }

    #[test]
    fn each_deployment_comes_first_as_often_as_its_weight_says() {
        let aliases = aliases(vec![target("a/x", 1), target("b/y", 3), target("b/z", 0)]);
        let firsts: Vec<&str> =
            (0..8).map(|chance| aliases.ordered_targets("fast", chance).unwrap()[0]).collect();
        assert_eq!(firsts, ["a/x", "b/y", "b/y", "b/y", "a/x", "b/y", "b/y", "b/y"]);
        assert_eq!(aliases.ordered_targets("fast", 0).unwrap(), ["a/x", "b/y", "b/z"]);
        assert_eq!(aliases.ordered_targets("fast", 1).unwrap(), ["b/y", "a/x", "b/z"]);
        assert_eq!(aliases.ordered_targets("slow", 0), None);
    }

    #[test]
    fn without_weights_the_order_of_the_file_holds() {
        let aliases = aliases(vec![target("a/x", 0), target("b/y", 0)]);
        assert_eq!(aliases.ordered_targets("fast", 7).unwrap(), ["a/x", "b/y"]);
    }

    #[test]
    fn mistakes_are_named() {
        let read =
            |name: &str, targets| ModelAliases::new([(name.to_owned(), targets)].into(), &["a"]);
        for (name, targets, word) in [
            ("auto", vec![target("a/x", 1)], "`auto`"),
            ("fast", vec![], "1 to 64"),
            ("fast", vec![target("c/x", 1)], "`c/x`"),
            ("fast", vec![target("x", 1)], "`x`"),
            ("fast", vec![target("a/x", 1_000_001)], "weight"),
        ] {
            let error = read(name, targets).unwrap_err();
            assert!(error.message.contains(word), "{error}");
        }
    }
}
