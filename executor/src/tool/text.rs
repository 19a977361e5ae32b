//! The tools `text.count` and `text.words`.

use serde_json::{Value, json};

use super::args::{Args, Kind, ToolError, required};
use super::bounds::LIST_LIMIT;
use super::builtin::Builtin;

pub(super) const TOOLS: &[Builtin] = &[
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
];

fn count(args: &Args<'_>) -> Result<Value, ToolError> {
    let text = args.text("text")?;
    let (chars, words) = (text.chars().count(), text.split_whitespace().count());
    Ok(json!({"chars": chars, "words": words, "lines": text.lines().count()}))
}

fn words(args: &Args<'_>) -> Result<Value, ToolError> {
    // One more than the limit, so that an excess is rejected by the size check and not cut
    // silently.
    Ok(args.text("text")?.split_whitespace().take(LIST_LIMIT + 1).collect())
}
