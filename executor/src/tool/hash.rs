//! The tool `hash.sha256`.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::args::{Args, Kind, ToolError, required};
use super::builtin::Builtin;

pub(super) const TOOLS: &[Builtin] = &[Builtin {
    name: "hash.sha256",
    description: "SHA-256 of a text's UTF-8 bytes, as hexadecimal digits.",
    arguments: &[required("text", Kind::Text)],
    call: sha256,
}];

fn sha256(args: &Args<'_>) -> Result<Value, ToolError> {
    let hash = Sha256::digest(args.text("text")?.as_bytes());
    Ok(Value::String(hash.iter().map(|byte| format!("{byte:02x}")).collect()))
}
