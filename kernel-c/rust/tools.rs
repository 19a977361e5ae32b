//! Tools: schemas of arguments, permissions, and the built-in tools.

use std::fmt;

use crate::bindings as c;
use crate::error::KernelError;
use crate::ffi::{self, RawSchema};

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

/// A compiled schema of the subset that `include/convergio/tools.h` declares.
#[derive(Debug)]
pub struct CompiledSchema {
    raw: RawSchema,
}

impl CompiledSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// The first keyword or value that is not of the subset.
    pub fn compile_schema(schema: &str) -> Result<Self, SchemaError> {
        Ok(Self { raw: RawSchema::compile(schema)? })
    }

    /// Checks that a text is JSON that fits the schema.
    ///
    /// # Errors
    /// The first violation.
    pub fn check_value(&self, value: &str) -> Result<(), SchemaError> {
        self.raw.check(value)
    }
}

/// Effects of a tool beyond computing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects {
    /// Reads files of the machine.
    pub read: bool,
    /// Changes files of the machine.
    pub write: bool,
    /// Talks to other machines.
    pub network: bool,
    /// Starts other programs.
    pub process: bool,
    /// Contacts people, as by mail.
    pub people: bool,
    /// Spends money through the call.
    pub money: bool,
}

/// Answer of the permission rules to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum PermitVerdict {
    /// The call is allowed.
    Allow = c::CVG_VERDICT_ALLOW,
    /// A person must decide.
    Ask = c::CVG_VERDICT_ASK,
    /// The call is refused.
    Deny = c::CVG_VERDICT_DENY,
}

/// A rule over calls. One that denies applies to tools with any of its effects (none given: to all
/// tools); one that allows or asks applies to tools all of whose effects are among its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission<'a> {
    /// A tool's name, or its beginning followed by `*`.
    pub tools: &'a str,
    /// Effects that the rule covers.
    pub effects: Effects,
    /// Verdict where the rule applies.
    pub verdict: PermitVerdict,
}

/// Returns the verdict over a call, and the index of the rule that decided: the strictest one that
/// applies. Without any the call is denied.
///
/// # Errors
/// [`KernelError::BadArgument`] for 2^32 rules or more.
pub fn permit_call(
    rules: &[Permission<'_>],
    tool: &str,
    effects: Effects,
) -> Result<(PermitVerdict, Option<u32>), KernelError> {
    let rules: Vec<c::cvg_permission> = rules.iter().map(raw_permission).collect();
    let (verdict, rule) = ffi::permit(&rules, tool, effects.to_bits())?;
    let verdict = match verdict {
        c::CVG_VERDICT_ALLOW => PermitVerdict::Allow,
        c::CVG_VERDICT_ASK => PermitVerdict::Ask,
        _ => PermitVerdict::Deny,
    };
    Ok((verdict, (rule != c::CVG_NONE).then_some(rule)))
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

/// Returns all tools that the kernel implements.
#[must_use]
pub fn kernel_tools() -> Vec<KernelTool> {
    ffi::tools()
}

/// Calls a built-in tool with JSON; the result is JSON too. `now_ms` is the time that the tool
/// sees, in milliseconds since 1970 UTC: the same call always has the same result.
///
/// # Errors
/// The tool is unknown, the arguments do not fit its schema, or it has no result for them.
pub fn call_tool(name: &str, arguments: &str, now_ms: i64) -> Result<String, KernelToolError> {
    ffi::call_tool(name, arguments, now_ms)
}

impl Effects {
    fn to_bits(self) -> u32 {
        let effects = [
            (self.read, c::CVG_EFFECT_READ),
            (self.write, c::CVG_EFFECT_WRITE),
            (self.network, c::CVG_EFFECT_NETWORK),
            (self.process, c::CVG_EFFECT_PROCESS),
            (self.people, c::CVG_EFFECT_PEOPLE),
            (self.money, c::CVG_EFFECT_MONEY),
        ];
        effects.iter().filter(|(set, _)| *set).fold(0, |bits, (_, bit)| bits | bit)
    }
}

fn raw_permission(rule: &Permission<'_>) -> c::cvg_permission {
    c::cvg_permission {
        tools: ffi::text(rule.tools),
        effects: rule.effects.to_bits(),
        verdict: rule.verdict as u32,
    }
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
