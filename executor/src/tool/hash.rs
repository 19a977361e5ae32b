//! The tool `hash.sha256`.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::arguments::{
    ArgumentKind, FunctionTool, ToolArguments, ToolCallError, required_argument,
};

pub(super) const TOOLS: &[FunctionTool] = &[FunctionTool {
    name: "hash.sha256",
    description: "SHA-256 of a text's UTF-8 bytes, as hexadecimal digits.",
    arguments: &[required_argument("text", ArgumentKind::Text)],
    function: sha256_hex,
}];

fn sha256_hex(args: &ToolArguments<'_>) -> Result<Value, ToolCallError> {
    let hash = Sha256::digest(args.get_text("text")?.as_bytes());
    Ok(Value::String(hash.iter().map(|byte| format!("{byte:02x}")).collect()))
}
