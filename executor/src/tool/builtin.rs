//! The registry: every built-in tool by its name, with its schema and its backend. Tools of the
//! kernel are called by name; the others are functions of this crate.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::{ToolCatalog, ToolSpec};
use convergio_domain::platform_text;
use convergio_domain::time::Timestamp;
use convergio_kernel_c as kernel;
use serde_json::{Map, Value, json};

use crate::memory::{self, ToolScope};

use super::args::{Args, Argument, ToolError};
use super::bounds::{self, INPUT_LIMIT, OUTPUT_LIMIT};
use super::check::{self, Check};
use super::{date, hash, json, list, math, split, text};

/// A built-in tool that the kernel does not have.
pub(super) struct Builtin {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) arguments: &'static [Argument],
    pub(super) call: Function,
}

type Function = fn(&Args<'_>) -> Result<Value, ToolError>;

/// Tools that the kernel does not have, by name prefix.
static FAMILIES: [&[Builtin]; 7] =
    [text::TOOLS, split::TOOLS, list::TOOLS, json::TOOLS, math::TOOLS, date::TOOLS, hash::TOOLS];

/// Implementation of a tool.
enum Answers {
    /// The kernel checks the arguments against this schema and computes the answer.
    Kernel(&'static str),
    /// The kernel or a library checks the arguments, and a function computes the answer.
    Function(Check, Function),
    /// The arguments are checked like a function's, and the memory is read or written.
    Memory(Check),
}

struct Registered {
    spec: ToolSpec,
    answers: Answers,
}

static TOOLS: LazyLock<BTreeMap<String, Registered>> = LazyLock::new(|| {
    let of_kernel = kernel::tools().into_iter().map(of_kernel);
    let here = FAMILIES.into_iter().flatten().map(here);
    let of_memory = memory::specs().into_iter().map(of_memory);
    of_kernel.chain(here).chain(of_memory).map(|tool| (tool.spec.name.clone(), tool)).collect()
});

static CATALOG: LazyLock<ToolCatalog> =
    LazyLock::new(|| ToolCatalog::new(TOOLS.values().map(|tool| tool.spec.clone()).collect()));

/// Returns the specs of all built-in tools, against which manifests are checked.
pub fn catalog() -> ToolCatalog {
    CATALOG.clone()
}

/// Calls a pure tool. `now` is the time at which the step started, the only clock that a tool may
/// read. Arguments are at most 8 MiB, answers 4 MiB, and lists have at most 10,000 items.
///
/// # Errors
/// `tool.invalid`: the arguments do not fit the tool, or have no answer. The message says what
/// would be right, and never repeats what a person or a model wrote.
pub fn call(name: &str, arguments: &Value, now: Timestamp) -> Result<Value, UnsealedFailure> {
    let called = find(name).and_then(|tool| {
        let arguments = tool.prepare(arguments)?;
        let answer = tool.call(&arguments, now)?;
        bounds::check("the answer", &answer, OUTPUT_LIMIT).map(|()| answer)
    });
    called.map_err(|ToolError(message)| invalid(name, &message))
}

/// Checks the arguments of a call without making it.
///
/// # Errors
/// `tool.invalid`, as for [`call_pure_tool`].
pub(crate) fn check(name: &str, arguments: &Value) -> Result<(), UnsealedFailure> {
    let checked = find(name).and_then(|tool| {
        let arguments = tool.prepare(arguments)?;
        // Compiled for each check, because the registry has no validator of a kernel tool.
        Check::compile(&tool.spec.arguments).check(&arguments, &arguments.to_string())
    });
    checked.map_err(|ToolError(message)| invalid(name, &message))
}

/// Rejects arguments that are too large for any tool, before they are stored for a call.
///
/// # Errors
/// `tool.invalid`, as for [`call_pure_tool`].
pub(crate) fn check_size(name: &str, arguments: &Value) -> Result<(), UnsealedFailure> {
    let checked = bounds::check("the arguments", arguments, INPUT_LIMIT);
    checked.map_err(|ToolError(message)| invalid(name, &message))
}

/// Calls any tool, pure or not. The intent is in the log already; repeating the same call has its
/// effect once.
///
/// # Errors
/// As for [`call_pure_tool`], and `log.unavailable`.
pub async fn perform(
    scope: &ToolScope,
    name: &str,
    arguments: &Value,
) -> Result<Value, UnsealedFailure> {
    let wrong = |ToolError(message)| invalid(name, &message);
    let tool = find(name).map_err(wrong)?;
    let Answers::Memory(check) = &tool.answers else { return call(name, arguments, scope.now) };
    let arguments = tool.prepare(arguments).map_err(wrong)?;
    check.check(&arguments, &arguments.to_string()).map_err(wrong)?;
    scope.memory(name, &arguments).await
}

/// Returns whether a tool has no effects. An unknown tool counts as pure: calling it only fails.
pub fn is_pure(name: &str) -> bool {
    TOOLS.get(name).is_none_or(|tool| !matches!(tool.answers, Answers::Memory(_)))
}

fn find(name: &str) -> Result<&'static Registered, ToolError> {
    TOOLS.get(name).ok_or_else(|| ToolError("there is no such tool".into()))
}

impl Registered {
    /// Rejects arguments that are too large, and coerces the rest to the declared types.
    fn prepare(&self, arguments: &Value) -> Result<Value, ToolError> {
        bounds::check("the arguments", arguments, INPUT_LIMIT)?;
        Ok(check::prepare(&self.spec.arguments, arguments))
    }

    fn call(&self, arguments: &Value, now: Timestamp) -> Result<Value, ToolError> {
        let text = arguments.to_string();
        match &self.answers {
            Answers::Kernel(schema) => self.ask_kernel(schema, arguments, &text, now),
            Answers::Function(check, function) => {
                check.check(arguments, &text)?;
                let none = Map::new();
                function(&Args::new(arguments.as_object().unwrap_or(&none), now))
            }
            // Reached only by a caller that skipped `is_pure`: memory tools need a scope.
            Answers::Memory(_) => Err(ToolError("it is no computation".into())),
        }
    }

    /// Has the kernel check the arguments and compute the answer.
    fn ask_kernel(
        &self,
        schema: &str,
        arguments: &Value,
        text: &str,
        now: Timestamp,
    ) -> Result<Value, ToolError> {
        let spec = &self.spec;
        let answer = kernel::call_tool(&spec.name, text, now.0).map_err(|error| match error {
            kernel::ToolError::Arguments(violation) => {
                ToolError(check::explain(&violation, schema, &spec.arguments, arguments))
            }
            kernel::ToolError::Failed(why) => ToolError(why.to_owned()),
            // The arguments are below the kernel's limit, so it is the answer that exceeds it.
            kernel::ToolError::Kernel(kernel::KernelError::TooLarge) => {
                ToolError(format!("the answer must have at most {OUTPUT_LIMIT} bytes"))
            }
            other => ToolError(other.to_string()),
        })?;
        serde_json::from_str(&answer)
            .map_err(|error| ToolError(format!("the answer is not JSON: {error}")))
    }
}

fn invalid(tool: &str, message: &str) -> UnsealedFailure {
    let failure = UnsealedFailure::new(
        "tool.invalid",
        platform_text!("the arguments are not what the tool takes, or have no answer"),
    );
    failure.with_detail(format_args!("{tool}: {message}"))
}

fn of_memory(spec: ToolSpec) -> Registered {
    let answers = Answers::Memory(Check::compile(&spec.arguments));
    Registered { spec, answers }
}

fn of_kernel(tool: kernel::Tool) -> Registered {
    let spec = ToolSpec {
        name: tool.name.to_owned(),
        description: tool.description.to_owned(),
        // The kernel's schemas are constants, which its own tests compile.
        arguments: serde_json::from_str(tool.schema).unwrap_or(Value::Bool(false)),
    };
    Registered { spec, answers: Answers::Kernel(tool.schema) }
}

/// Registers a function of this crate, with a JSON Schema built from its declared arguments.
fn here(tool: &Builtin) -> Registered {
    let properties: Map<String, Value> = tool
        .arguments
        .iter()
        .map(|argument| (argument.name.to_owned(), argument.kind.schema()))
        .collect();
    let required = tool.arguments.iter().filter(|argument| argument.is_required);
    let required: Vec<&str> = required.map(|argument| argument.name).collect();
    let arguments = json!({"type": "object", "properties": properties, "required": required,
        "additionalProperties": false});
    let answers = Answers::Function(Check::compile(&arguments), tool.call);
    let (name, description) = (tool.name.to_owned(), tool.description.to_owned());
    Registered { spec: ToolSpec { name, description, arguments }, answers }
}
