//! Tools on text. Positions count characters, not bytes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Builtin;
use super::args::{Args, ToolError, as_text, bounded, error};

pub(super) const TOOLS: &[Builtin] = &[
    Builtin {
        name: "text.trim",
        description: "Takes white space off both ends.",
        arguments: &[("text", "string")],
        call: |args| Ok(json!(args.text("text")?.trim())),
    },
    Builtin {
        name: "text.replace",
        description: "Replaces every occurrence of `from` by `to`.",
        arguments: &[("text", "string"), ("from", "string"), ("to", "string")],
        call: replace,
    },
    Builtin {
        name: "text.slice",
        description: "The characters from `from` up to and without `to`.",
        arguments: &[("text", "string"), ("from?", "any"), ("to?", "any")],
        call: slice,
    },
    Builtin {
        name: "text.count",
        description: "Counts characters, words and lines.",
        arguments: &[("text", "string")],
        call: count,
    },
    Builtin {
        name: "text.words",
        description: "The list of words.",
        arguments: &[("text", "string")],
        call: |args| Ok(args.text("text")?.split_whitespace().take(10_000).collect()),
    },
    Builtin {
        name: "text.join",
        description: "Joins the items of a list, or one field of each, with a separator.",
        arguments: &[("items", "any"), ("separator?", "string"), ("field?", "string")],
        call: join,
    },
    Builtin {
        name: "hash.sha256",
        description: "SHA-256 of a text, as hexadecimal digits.",
        arguments: &[("text", "string")],
        call: sha256,
    },
];

fn replace(args: &Args<'_>) -> Result<Value, ToolError> {
    let (text, from, to) = (args.text("text")?, args.text("from")?, args.text("to")?);
    if from.is_empty() {
        return error("`from` must not be empty");
    }
    let grown = text.matches(from).count().saturating_mul(to.len());
    if grown > 4 << 20 {
        return error("the answer is longer than 4194304 bytes");
    }
    bounded(text.replace(from, to))
}

fn slice(args: &Args<'_>) -> Result<Value, ToolError> {
    let (from, to) = (args.index_or("from", 0)?, args.index_or("to", usize::MAX)?);
    let text = args.text("text")?.chars().skip(from).take(to.saturating_sub(from));
    Ok(Value::String(text.collect()))
}

fn count(args: &Args<'_>) -> Result<Value, ToolError> {
    let text = args.text("text")?;
    let (chars, words) = (text.chars().count(), text.split_whitespace().count());
    Ok(json!({"chars": chars, "words": words, "lines": text.lines().count()}))
}

fn join(args: &Args<'_>) -> Result<Value, ToolError> {
    let separator = args.text_or("separator", "\n")?;
    let field = args.get("field").map(|_| args.text("field")).transpose()?;
    let text = |item: &Value| match field.and_then(|field| item.get(field)) {
        Some(part) => as_text(part),
        None => as_text(item),
    };
    let parts: Vec<String> = args.list("items")?.iter().map(text).collect();
    bounded(parts.join(separator))
}

fn sha256(args: &Args<'_>) -> Result<Value, ToolError> {
    let hash = Sha256::digest(args.text("text")?.as_bytes());
    Ok(Value::String(hash.iter().map(|byte| format!("{byte:02x}")).collect()))
}
