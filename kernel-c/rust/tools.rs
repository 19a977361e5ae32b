//! Tools: schemas of arguments, permissions, and the built-in tools.

use crate::bindings as c;
use crate::error::KernelError;
use crate::ffi::{self, RawSchema};
use crate::tool_values::{KernelTool, KernelToolError, SchemaError};

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
