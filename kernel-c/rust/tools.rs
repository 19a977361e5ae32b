//! Tools: schemas of arguments, permissions, and the built-in ones.

use std::fmt;

use crate::bindings as c;
use crate::error::KernelError;
use crate::ffi::{self, RawSchema};

/// What is wrong with a JSON text or a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ViolationKind {
    /// It is not JSON.
    Json = c::CVG_VIOLATION_JSON,
    /// Another type is wanted.
    Type = c::CVG_VIOLATION_TYPE,
    /// It is not one of the values wanted.
    Enum = c::CVG_VIOLATION_ENUM,
    /// A number, length or count is outside its limits.
    Range = c::CVG_VIOLATION_RANGE,
    /// A required property is not there.
    Missing = c::CVG_VIOLATION_MISSING,
    /// The property is not allowed.
    Unknown = c::CVG_VIOLATION_UNKNOWN,
    /// A schema uses a keyword beyond the subset.
    Keyword = c::CVG_VIOLATION_KEYWORD,
    /// A schema's keyword has a value that it cannot have.
    KeywordValue = c::CVG_VIOLATION_KEYWORD_VALUE,
}

/// The first thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong.
    pub kind: ViolationKind,
    /// Byte offset in the text that was checked.
    pub offset: u32,
    /// Byte offset in the schema of what the value breaks.
    pub schema_offset: Option<u32>,
    /// JSON pointer to the value; cut after 255 bytes.
    pub path: String,
}

/// Why a schema or a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The text is wrong.
    #[error("{0}")]
    Violation(Violation),
    /// The text is too large, or there is no memory left.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// A compiled schema of the subset that `include/convergio/tools.h` declares.
#[derive(Debug)]
pub struct Schema {
    raw: RawSchema,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// The first keyword or value that is not of the subset.
    pub fn compile(schema: &str) -> Result<Self, SchemaError> {
        Ok(Self { raw: RawSchema::compile(schema)? })
    }

    /// Checks that a text is JSON that fits the schema.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, value: &str) -> Result<(), SchemaError> {
        self.raw.check(value)
    }
}

/// What a tool does beyond computing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects {
    /// It reads files.
    pub read: bool,
    /// It changes files.
    pub write: bool,
    /// It talks to other machines.
    pub network: bool,
    /// It starts programs.
    pub process: bool,
    /// It reaches people.
    pub people: bool,
    /// It spends money.
    pub money: bool,
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Verdict {
    /// It may.
    Allow = c::CVG_VERDICT_ALLOW,
    /// Somebody is asked.
    Ask = c::CVG_VERDICT_ASK,
    /// It may not.
    Deny = c::CVG_VERDICT_DENY,
}

/// A rule over calls. One that denies holds for tools with any of its effects (none: whatever the
/// effects); one that allows or asks holds for tools all of whose effects are among its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission<'a> {
    /// A tool's name, or its beginning followed by `*`.
    pub tools: &'a str,
    /// The effects meant.
    pub effects: Effects,
    /// What the rule says.
    pub verdict: Verdict,
}

/// The verdict over a call, and the index of the rule that decided: the strictest one that holds.
/// Without any the call is denied.
///
/// # Errors
/// [`KernelError::BadArgument`] for 2^32 rules or more.
pub fn permit(
    rules: &[Permission<'_>],
    tool: &str,
    effects: Effects,
) -> Result<(Verdict, Option<u32>), KernelError> {
    let rules: Vec<c::cvg_permission> = rules.iter().map(raw_permission).collect();
    let (verdict, rule) = ffi::permit(&rules, tool, effects.bits())?;
    let verdict = match verdict {
        c::CVG_VERDICT_ALLOW => Verdict::Allow,
        c::CVG_VERDICT_ASK => Verdict::Ask,
        _ => Verdict::Deny,
    };
    Ok((verdict, (rule != c::CVG_NONE).then_some(rule)))
}

/// A built-in tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Its name, like `text.split`.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// JSON Schema of its arguments.
    pub schema: &'static str,
}

/// Why a tool gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
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

/// All built-in tools.
#[must_use]
pub fn tools() -> Vec<Tool> {
    ffi::tools()
}

/// Calls a built-in tool with JSON; the answer is JSON too. `now_ms` is the time that the tool
/// sees, in milliseconds since 1970 UTC: the same call always has the same answer.
///
/// # Errors
/// The tool or the arguments are wrong, or there is no answer.
pub fn call_tool(name: &str, arguments: &str, now_ms: i64) -> Result<String, ToolError> {
    ffi::call_tool(name, arguments, now_ms)
}

impl Effects {
    fn bits(self) -> u32 {
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
        effects: rule.effects.bits(),
        verdict: rule.verdict as u32,
    }
}

impl Violation {
    /// What C wrote after it refused a text.
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

/// What C writes a violation over.
pub(crate) fn no_violation() -> c::cvg_violation {
    c::cvg_violation { kind: 0, offset: 0, schema_offset: c::CVG_NONE, path: [0; 256] }
}

/// `Ok` for `CVG_OK`, or else why a text or a schema was refused.
pub(crate) fn refused(
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
