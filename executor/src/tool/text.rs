//! Tools on text. Positions count characters, not bytes.

use serde_json::{Value, json};

use super::args::{Args, Kind, ToolError, error, optional, required};
use super::bounds::{LIST_LIMIT, check_size};
use super::builtin::Builtin;

pub(super) const TOOLS: &[Builtin] = &[
    Builtin {
        name: "text.trim",
        description: "Takes white space off both ends.",
        arguments: &[required("text", Kind::Text)],
        call: |args| Ok(json!(args.text("text")?.trim())),
    },
    Builtin {
        name: "text.replace",
        description: "Replaces every occurrence of `from` by `to`.",
        arguments: &[
            required("text", Kind::Text),
            required("from", Kind::Text),
            required("to", Kind::Text),
        ],
        call: replace,
    },
    Builtin {
        name: "text.slice",
        description: "The characters from number `from` (0 is the first) up to and without `to`.",
        arguments: &[
            required("text", Kind::Text),
            optional("from", Kind::Count),
            optional("to", Kind::Count),
        ],
        call: slice,
    },
    Builtin {
        name: "text.count",
        description: "Counts `chars`, `words` and `lines`.",
        arguments: &[required("text", Kind::Text)],
        call: count,
    },
    Builtin {
        name: "text.words",
        description: "The list of words: what stands between white space.",
        arguments: &[required("text", Kind::Text)],
        call: words,
    },
    Builtin {
        name: "text.join",
        description: "Joins the items of a list with `separator` (a new line when absent): texts \
            as they are, other values as JSON, of maps only `field` if one is named.",
        arguments: &[
            required("items", Kind::List),
            optional("separator", Kind::Text),
            optional("field", Kind::Text),
        ],
        call: join,
    },
];

fn replace(args: &Args<'_>) -> Result<Value, ToolError> {
    let (text, from, to) = (args.text("text")?, args.text("from")?, args.text("to")?);
    if from.is_empty() {
        return error("`from` must not be empty");
    }
    let count = text.matches(from).count();
    check_size((text.len() - count * from.len()).saturating_add(count.saturating_mul(to.len())))?;
    Ok(Value::String(text.replace(from, to)))
}

fn slice(args: &Args<'_>) -> Result<Value, ToolError> {
    let (from, to) = (args.count_or("from", 0)?, args.count_or("to", usize::MAX)?);
    let text = args.text("text")?.chars().skip(from).take(to.saturating_sub(from));
    Ok(Value::String(text.collect()))
}

fn count(args: &Args<'_>) -> Result<Value, ToolError> {
    let text = args.text("text")?;
    let (chars, words) = (text.chars().count(), text.split_whitespace().count());
    Ok(json!({"chars": chars, "words": words, "lines": text.lines().count()}))
}

fn words(args: &Args<'_>) -> Result<Value, ToolError> {
    // One more than is allowed, so that too many are refused and not cut.
    Ok(args.text("text")?.split_whitespace().take(LIST_LIMIT + 1).collect())
}

fn join(args: &Args<'_>) -> Result<Value, ToolError> {
    let separator = args.text_or("separator", "\n")?;
    let field = args.get("field").map(|_| args.text("field")).transpose()?;
    let items = args.list("items")?.iter().enumerate();
    let parts = items.map(|(number, item)| part(number, item, field));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let bytes: usize = parts.iter().map(String::len).sum();
    check_size(bytes.saturating_add(separator.len().saturating_mul(parts.len())))?;
    Ok(Value::String(parts.join(separator)))
}

fn part(number: usize, item: &Value, field: Option<&str>) -> Result<String, ToolError> {
    let value = match (item, field) {
        (Value::Object(fields), Some(field)) => fields
            .get(field)
            .ok_or_else(|| ToolError(format!("item {number} of `items` has no such field")))?,
        _ => item,
    };
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    })
}
