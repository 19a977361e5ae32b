//! Names that an operator gives to several deployments: each call goes to one of them by weight,
//! and to the others when that one cannot answer.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ModelError;

/// Deployments of one alias at most.
const TARGETS_LIMIT: usize = 64;
/// Greatest weight.
const WEIGHT_LIMIT: u32 = 1_000_000;

/// A deployment behind an alias.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasTarget {
    /// The model: `PROVIDER/MODEL`.
    pub model: String,
    /// How many calls of all go to it, in proportion to the other weights; 0: only when the others
    /// cannot answer.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// The aliases of an operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases(BTreeMap<String, Vec<AliasTarget>>);

impl Aliases {
    /// The aliases of the file of providers.
    ///
    /// # Errors
    /// A name or a deployment cannot be one.
    pub fn new(
        aliases: BTreeMap<String, Vec<AliasTarget>>,
        providers: &[&str],
    ) -> Result<Self, ModelError> {
        for (name, targets) in &aliases {
            let wrong = |why: String| {
                let message = format!("the file of providers: alias `{name}`: {why}");
                Err(ModelError::new("request.invalid", false, message))
            };
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

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What is behind a name, as often first as its weight says; the rest by falling weight.
    /// `chance` is a number that is spread evenly over all of its range.
    pub(super) fn targets(&self, name: &str, chance: u64) -> Option<Vec<&str>> {
        let targets = self.0.get(name)?;
        let total: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
        let mut at = chance.checked_rem(total).unwrap_or(0);
        let is_hit = |target: &AliasTarget| {
            let weight = u64::from(target.weight);
            let is_hit = at < weight;
            at = at.saturating_sub(weight);
            is_hit
        };
        let first = targets.iter().position(is_hit).unwrap_or(0);
        let mut rest: Vec<&AliasTarget> = targets.iter().collect();
        let first = rest.remove(first);
        rest.sort_by_key(|target| std::cmp::Reverse(target.weight));
        Some(std::iter::once(first).chain(rest).map(|target| target.model.as_str()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{AliasTarget, Aliases};

    fn target(model: &str, weight: u32) -> AliasTarget {
        AliasTarget { model: model.to_owned(), weight }
    }

    fn aliases(targets: Vec<AliasTarget>) -> Aliases {
        Aliases::new([("fast".to_owned(), targets)].into(), &["a", "b"]).unwrap()
    }

    #[test]
    fn each_deployment_comes_first_as_often_as_its_weight_says() {
        let aliases = aliases(vec![target("a/x", 1), target("b/y", 3), target("b/z", 0)]);
        let firsts: Vec<&str> =
            (0..8).map(|chance| aliases.targets("fast", chance).unwrap()[0]).collect();
        assert_eq!(firsts, ["a/x", "b/y", "b/y", "b/y", "a/x", "b/y", "b/y", "b/y"]);
        assert_eq!(aliases.targets("fast", 0).unwrap(), ["a/x", "b/y", "b/z"]);
        assert_eq!(aliases.targets("fast", 1).unwrap(), ["b/y", "a/x", "b/z"]);
        assert_eq!(aliases.targets("slow", 0), None);
    }

    #[test]
    fn without_weights_the_order_of_the_file_holds() {
        let aliases = aliases(vec![target("a/x", 0), target("b/y", 0)]);
        assert_eq!(aliases.targets("fast", 7).unwrap(), ["a/x", "b/y"]);
    }

    #[test]
    fn mistakes_are_named() {
        let read = |name: &str, targets| Aliases::new([(name.to_owned(), targets)].into(), &["a"]);
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
