//! Bounds the size of JSON Schemas whose references are written out.
//!
//! `$ref` multiplies: forty definitions that each name the next one twice are four kilobytes, and
//! 2^40 rules. The rules are counted before a schema is accepted, and one with too many is refused
//! with the place where they are. A schema may refer to itself where it descends into the value (a
//! tree of nodes), because the value then bounds the check. Where it does not descend, no check
//! would end.

use std::collections::BTreeMap;

use serde_json::Value;

/// Most rules of a schema, its references written out.
const RULES_LIMIT: u64 = 5_000;
/// Most levels of a schema, its references written out.
const DEPTH_LIMIT: usize = 400;
/// Keywords whose schemas apply to the same value, not to a part of it.
const SAME_VALUE_KEYWORDS: [&str; 9] =
    ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"];
/// Keywords whose content is a map of schemas under names of the author's choice.
const NAMED_SCHEMA_KEYWORDS: [&str; 4] =
    ["properties", "patternProperties", "dependentSchemas", "dependencies"];
/// Keywords whose content is not a schema.
const NON_SCHEMA_KEYWORDS: [&str; 4] = ["const", "enum", "default", "examples"];

/// Size of a schema, its references written out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SchemaExtent {
    /// Number of rules, each recursive reference written out once.
    pub(super) rules: u64,
    /// True if the schema refers to itself, or to something outside: the rules applied then depend
    /// on the value.
    pub(super) is_open: bool,
}

/// Counts the rules of a schema; the error names the definition that has too many.
pub(super) fn extent_of(schema: &Value) -> Result<SchemaExtent, String> {
    let mut walk = ReferenceWalk {
        root: schema,
        definition_rules: BTreeMap::new(),
        open_definitions: Vec::new(),
        depth: 0,
        is_open: false,
    };
    let rules = walk.count_rules(schema, true)?;
    let is_open = walk.is_open;
    Ok(SchemaExtent { rules: check_rule_limit("the schema", rules)?, is_open })
}

struct ReferenceWalk<'a> {
    root: &'a Value,
    /// Rules of each definition that was counted already.
    definition_rules: BTreeMap<&'a str, u64>,
    /// The definitions being counted, outermost first, and whether each was reached without
    /// descending into the value.
    open_definitions: Vec<(&'a str, bool)>,
    depth: usize,
    is_open: bool,
}

impl<'a> ReferenceWalk<'a> {
    /// Counts the rules of a schema, or of a list of schemas. `is_same` says whether it applies to
    /// the value of the enclosing definition.
    fn count_rules(&mut self, schema: &'a Value, is_same: bool) -> Result<u64, String> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            let message = "a schema goes deeper than";
            return Err(format!("{message} {DEPTH_LIMIT} levels, its references written out"));
        }
        let rules = match schema {
            Value::Object(fields) => {
                let mut rules = 1_u64;
                for (keyword, content) in fields {
                    let added = self.count_keyword(keyword, content, is_same)?;
                    rules = rules.saturating_add(added);
                }
                rules
            }
            Value::Array(list) => self.count_all(list.iter(), is_same)?,
            _ => 0,
        };
        self.depth -= 1;
        Ok(rules)
    }

    fn count_keyword(
        &mut self,
        key: &str,
        content: &'a Value,
        is_same: bool,
    ) -> Result<u64, String> {
        let is_inner_same = is_same && SAME_VALUE_KEYWORDS.contains(&key);
        match (key, content) {
            ("$ref", Value::String(target)) => self.count_reference(target, is_same),
            ("$dynamicRef" | "$recursiveRef", _) => {
                self.is_open = true;
                Ok(0)
            }
            ("$defs" | "definitions", _) => Ok(0),
            (key, _) if NON_SCHEMA_KEYWORDS.contains(&key) => Ok(0),
            (key, Value::Object(named)) if NAMED_SCHEMA_KEYWORDS.contains(&key) => {
                self.count_all(named.values(), is_inner_same)
            }
            (_, content) => self.count_rules(content, is_inner_same),
        }
    }

    fn count_all(
        &mut self,
        schemas: impl Iterator<Item = &'a Value>,
        is_same: bool,
    ) -> Result<u64, String> {
        let mut rules = 0_u64;
        for schema in schemas {
            rules = rules.saturating_add(self.count_rules(schema, is_same)?);
        }
        Ok(rules)
    }

    /// Counts the rules that a reference stands for.
    fn count_reference(&mut self, target: &'a str, is_same: bool) -> Result<u64, String> {
        let Some(path) = target.strip_prefix('#') else {
            self.is_open = true;
            return Ok(0);
        };
        let Some(schema) = self.root.pointer(path) else {
            // An anchor, or a pointer to nothing: the library reports the latter.
            self.is_open = true;
            return Ok(0);
        };
        if let Some(rules) = self.definition_rules.get(path) {
            return Ok(*rules);
        }
        let enclosing = self.open_definitions.iter().position(|(open, _)| *open == path);
        let is_root = path.is_empty();
        if enclosing.is_some() || is_root {
            self.is_open = true;
            // The cycle is harmless if any reference on it descends into the value. The root is
            // never in `open`, so for it the whole stack counts.
            let after = enclosing.map_or(0, |at| at + 1);
            let keeps_value =
                is_same && self.open_definitions[after..].iter().all(|(_, is_same)| *is_same);
            if keeps_value {
                let name = describe_definition(path);
                return Err(format!(
                    "{name} refers to itself without going into the value: no check would end"
                ));
            }
            return Ok(1);
        }
        self.open_definitions.push((path, is_same));
        let rules = self.count_rules(schema, true)?;
        self.open_definitions.pop();
        let rules = check_rule_limit(&describe_definition(path), rules)?;
        self.definition_rules.insert(path, rules);
        Ok(rules)
    }
}

fn describe_definition(path: &str) -> String {
    match path.trim_start_matches('/') {
        "" => "the schema".to_owned(),
        path => format!("`{path}`"),
    }
}

fn check_rule_limit(name: &str, rules: u64) -> Result<u64, String> {
    if rules <= RULES_LIMIT {
        return Ok(rules);
    }
    let message = "rules once its references are written out: at most";
    Err(format!("{name} comes to more than it may: {rules} {message} {RULES_LIMIT}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::extent_of;

    fn ladder(steps: usize, keyword: &str) -> Value {
        let mut defs = Map::new();
        for step in 0..steps {
            let next = json!({"$ref": format!("#/$defs/d{}", step + 1)});
            defs.insert(format!("d{step}"), json!({keyword: [next, next]}));
        }
        defs.insert(format!("d{steps}"), json!({"type": "object"}));
        json!({"$defs": defs, "$ref": "#/$defs/d0"})
    }

    #[test]
    fn references_that_multiply_are_refused_with_their_place() {
        for keyword in ["allOf", "anyOf", "oneOf"] {
            let error = extent_of(&ladder(40, keyword)).expect_err("2^40 rules");
            assert!(error.starts_with("`$defs/d29` comes to"), "{error}");
            assert!(extent_of(&ladder(8, keyword)).is_ok_and(|extent| !extent.is_open));
        }
    }

    #[test]
    fn a_schema_may_name_itself_where_it_goes_into_the_value() {
        let tree = json!({"type": "object", "properties": {"children":
            {"type": "array", "items": {"$ref": "#"}}}});
        assert!(extent_of(&tree).expect("a tree").is_open);
        let list = json!({"$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}},
            "$ref": "#/$defs/node"});
        assert!(extent_of(&list).expect("a list").is_open);
        let circle = json!({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]},
            "b": {"not": {"$ref": "#/$defs/a"}}}, "properties": {"x": {"$ref": "#/$defs/a"}}});
        let error = extent_of(&circle).expect_err("a circle");
        assert!(error.contains("refers to itself"), "{error}");
        assert!(extent_of(&json!({"$ref": "#"})).is_err());
        assert!(extent_of(&json!({"$ref": "https://example.org/x"})).expect("remote").is_open);
    }
}
