//! Digests of model files: SHA-256 in hexadecimal digits.

use convergio_process::exit;

/// Bytes that are read and hashed at once.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

/// Hexadecimal digits of bytes, in lower case.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses a digest: 64 hexadecimal digits in either case, with or without `sha256:`.
pub(super) fn parse_digest(text: &str) -> anyhow::Result<String> {
    let digest = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest {
        Ok(digest)
    } else {
        Err(exit::bad_input_error("--sha256 has 64 hexadecimal digits"))
    }
}

pub(super) fn wrong_digest_error(actual: &str, expected: Option<&str>) -> anyhow::Error {
    let wanted = expected.unwrap_or_default();
    exit::unavailable_error(format!(
        "the file's digest is {actual}, expected {wanted}: nothing was kept"
    ))
}
