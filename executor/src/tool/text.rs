//! The tools `text.count` and `text.words`.

use serde_json::{Value, json};

use super::arguments::{
    ArgumentKind, FunctionTool, ToolArguments, ToolCallError, required_argument,
};
use super::bounds::LIST_ITEMS_LIMIT;

pub(super) const TOOLS: &[FunctionTool] = &[
    FunctionTool {
        name: "text.count",
        description: "Counts `chars`, `words` and `lines`.",
        arguments: &[required_argument("text", ArgumentKind::Text)],
        function: count_text,
    },
    FunctionTool {
        name: "text.words",
        description: "The list of words: what stands between white space.",
        arguments: &[required_argument("text", ArgumentKind::Text)],
        function: list_words,
    },
];

fn count_text(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    let text = args.get_text("text")?;
    let (chars, words) = (text.chars().count(), text.split_whitespace().count());
    Ok(json!({"chars": chars, "words": words, "lines": text.lines().count()}))
}

fn list_words(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    // One more than the limit, so that an excess is rejected by the size check and not cut
    // silently.
    Ok(args.get_text("text")?.split_whitespace().take(LIST_ITEMS_LIMIT + 1).collect())
}
