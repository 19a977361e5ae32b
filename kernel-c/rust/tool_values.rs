//! Values of tools: the first error of a text or a schema, and what a built-in tool is; with their
//! forms in C.

use std::fmt;

use crate::bindings as c;
use crate::error::KernelError;

/// Kind of an error in a JSON text or a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ViolationKind {
    /// The text is not JSON.
    Json = c::CVG_VIOLATION_JSON,
    /// A value has the wrong type.
    Type = c::CVG_VIOLATION_TYPE,
    /// A value is none of the allowed ones.
    Enum = c::CVG_VIOLATION_ENUM,
    /// A number, length or count is outside its limits.
    Range = c::CVG_VIOLATION_RANGE,
    /// A required property is missing.
    Missing = c::CVG_VIOLATION_MISSING,
    /// A property is not allowed.
    Unknown = c::CVG_VIOLATION_UNKNOWN,
    /// A schema uses a keyword beyond the subset.
    Keyword = c::CVG_VIOLATION_KEYWORD,
    /// A schema's keyword has an invalid value.
    KeywordValue = c::CVG_VIOLATION_KEYWORD_VALUE,
}

/// The first error of a text, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Kind of the error.
    pub kind: ViolationKind,
    /// Byte offset in the checked text.
    pub offset: u32,
    /// Byte offset in the schema of the rule that the value breaks.
    pub schema_offset: Option<u32>,
    /// JSON pointer to the value; cut after 255 bytes.
    pub path: String,
}

/// Error of a schema or of a value checked against one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The text breaks a rule.
    #[error("{0}")]
    Violation(Violation),
    /// The text is too large, or memory ran out.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// A tool that the kernel implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelTool {
    /// Unique name, as `text.split`.
    pub name: &'static str,
    /// Purpose in a sentence, shown to models.
    pub description: &'static str,
    /// JSON Schema of its arguments.
    pub schema: &'static str,
}

/// Error of a call to a built-in tool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelToolError {
    /// No built-in tool has this name.
    #[error("no built-in tool has this name")]
    Unknown,
    /// The arguments are not JSON that fits the tool's schema.
    #[error("{0}")]
    Arguments(Violation),
    /// The tool has no answer for these arguments.
    #[error("{0}")]
    Failed(&'static str),
    /// Arguments or answer are too large, or there is no memory left.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl Violation {
    /// Converts the violation that C wrote after it refused a text.
    pub(crate) fn from_raw(raw: &c::cvg_violation) -> Self {
        // The path is terminated; a multi-byte character may be cut at its end.
        let path: Vec<u8> = raw
            .path
            .iter()
            .map(|byte| byte.cast_unsigned())
            .take_while(|byte| *byte != 0)
            .collect();
        Self {
            kind: match raw.kind {
                c::CVG_VIOLATION_TYPE => ViolationKind::Type,
                c::CVG_VIOLATION_ENUM => ViolationKind::Enum,
                c::CVG_VIOLATION_RANGE => ViolationKind::Range,
                c::CVG_VIOLATION_MISSING => ViolationKind::Missing,
                c::CVG_VIOLATION_UNKNOWN => ViolationKind::Unknown,
                c::CVG_VIOLATION_KEYWORD => ViolationKind::Keyword,
                c::CVG_VIOLATION_KEYWORD_VALUE => ViolationKind::KeywordValue,
                _ => ViolationKind::Json,
            },
            offset: raw.offset,
            schema_offset: (raw.schema_offset != c::CVG_NONE).then_some(raw.schema_offset),
            path: String::from_utf8_lossy(&path).into_owned(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ViolationKind::Json => return write!(f, "not JSON at byte {}", self.offset),
            ViolationKind::Type => "another type is wanted",
            ViolationKind::Enum => "not one of the values wanted",
            ViolationKind::Range => "outside its limits",
            ViolationKind::Missing => "a required property is missing",
            ViolationKind::Unknown => "this property is not allowed",
            ViolationKind::Keyword => "this keyword is not of the schema subset",
            ViolationKind::KeywordValue => "the keyword cannot have this value",
        };
        let path = if self.path.is_empty() { "the whole" } else { &self.path };
        write!(f, "{path}: {what}")
    }
}

/// Value of a violation before C has written one.
pub(crate) fn no_violation() -> c::cvg_violation {
    c::cvg_violation { kind: 0, offset: 0, schema_offset: c::CVG_NONE, path: [0; 256] }
}

/// Maps a status: `Ok` for `CVG_OK`, else the reason why a text or a schema was refused.
pub(crate) fn check_schema(
    status: c::cvg_status,
    violation: &c::cvg_violation,
) -> Result<(), SchemaError> {
    KernelError::check(status).map_err(|error| match error {
        KernelError::BadJson | KernelError::BadSchema | KernelError::Mismatch => {
            SchemaError::Violation(Violation::from_raw(violation))
        }
        error => error.into(),
    })
}
