//! The registry: every built-in tool by its name, with its schema and its backend. Tools of the
//! kernel are called by name; the others are functions of this crate.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::{ToolCatalog, ToolEffect, ToolSpec};
use convergio_domain::id::StepId;
use convergio_domain::platform_text;
use convergio_domain::run::ToolCallNumber;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use convergio_kernel_c as kernel;
use serde_json::{Map, Value, json};

use crate::memory::{self, ToolScope};

use super::argument_validator::{self, ArgumentValidator};
use super::arguments::{FunctionTool, ToolArguments, ToolCallError, ToolFunction};
use super::bounds::{self, ANSWER_BYTES_LIMIT, ARGUMENTS_BYTES_LIMIT};
use super::{date, hash, json, list, math, split, text};

/// Tools that the kernel does not have, by name prefix.
static FAMILIES: [&[FunctionTool]; 7] =
    [text::TOOLS, split::TOOLS, list::TOOLS, json::TOOLS, math::TOOLS, date::TOOLS, hash::TOOLS];

/// Implementation of a tool.
enum ToolBackend {
    /// The kernel checks the arguments against this schema and computes the answer.
    Kernel(&'static str),
    /// The kernel or a library checks the arguments, and a function computes the answer.
    Function(ArgumentValidator, ToolFunction),
    /// The arguments are checked like a function's, and the memory is read or written.
    Memory(ArgumentValidator),
}

struct RegisteredTool {
    spec: ToolSpec,
    backend: ToolBackend,
}

static TOOLS: LazyLock<BTreeMap<String, RegisteredTool>> = LazyLock::new(|| {
    let kernel_tools = kernel::kernel_tools().into_iter().map(kernel_tool);
    let function_tools = FAMILIES.into_iter().flatten().map(function_tool);
    let memory_tools = memory::memory_tool_specs().into_iter().map(memory_tool);
    kernel_tools
        .chain(function_tools)
        .chain(memory_tools)
        .map(|tool| (tool.spec.name.clone(), tool))
        .collect()
});

static CATALOG: LazyLock<ToolCatalog> =
    LazyLock::new(|| ToolCatalog::new(TOOLS.values().map(|tool| tool.spec.clone()).collect()));

/// Returns the specs of all built-in tools, against which manifests are checked.
pub fn builtin_catalog() -> ToolCatalog {
    CATALOG.clone()
}

/// Calls a pure tool. `now` is the time at which the step started, the only clock that a tool may
/// read. Arguments are at most 8 MiB, answers 4 MiB, and lists have at most 10,000 items.
///
/// # Errors
/// `tool.invalid`: the arguments do not fit the tool, or have no answer. The message says what
/// would be right, and never repeats what a person or a model wrote.
pub fn call_pure_tool(
    name: &str,
    arguments: &Value,
    now: Timestamp,
) -> Result<Value, UnsealedFailure> {
    let result = find_tool(name).and_then(|tool| {
        let arguments = tool.prepare_arguments(arguments)?;
        let answer = tool.call_with_arguments(&arguments, now)?;
        bounds::check_value_size("the answer", &answer, ANSWER_BYTES_LIMIT).map(|()| answer)
    });
    result.map_err(|ToolCallError(message)| invalid_call(name, &message))
}

/// Checks the arguments of a call without making it.
///
/// # Errors
/// `tool.invalid`, as for [`call_pure_tool`].
pub(crate) fn check_call(name: &str, arguments: &Value) -> Result<(), UnsealedFailure> {
    let checked = find_tool(name).and_then(|tool| {
        let arguments = tool.prepare_arguments(arguments)?;
        // Compiled for each check, because the registry has no validator of a kernel tool.
        ArgumentValidator::from_schema(&tool.spec.arguments)
            .check_arguments(&arguments, &arguments.to_string())
    });
    checked.map_err(|ToolCallError(message)| invalid_call(name, &message))
}

/// Rejects arguments that are too large for any tool, before they are stored for a call.
///
/// # Errors
/// `tool.invalid`, as for [`call_pure_tool`].
pub(crate) fn check_arguments_size(name: &str, arguments: &Value) -> Result<(), UnsealedFailure> {
    let checked = bounds::check_value_size("the arguments", arguments, ARGUMENTS_BYTES_LIMIT);
    checked.map_err(|ToolCallError(message)| invalid_call(name, &message))
}

/// Calls any tool, pure or not. The intent is in the log already; repeating the same call has its
/// effect once.
///
/// # Errors
/// As for [`call_pure_tool`], and `log.unavailable`.
pub async fn call_tool(
    scope: &ToolScope,
    name: &str,
    arguments: &Value,
) -> Result<Value, UnsealedFailure> {
    let to_failure = |ToolCallError(message)| invalid_call(name, &message);
    let tool = find_tool(name).map_err(to_failure)?;
    let ToolBackend::Memory(validator) = &tool.backend else {
        return call_pure_tool(name, arguments, scope.now);
    };
    let arguments = tool.prepare_arguments(arguments).map_err(to_failure)?;
    validator.check_arguments(&arguments, &arguments.to_string()).map_err(to_failure)?;
    scope.call_memory_tool(name, &arguments).await
}

/// Returns the permanent name of a tool call, which is its idempotency key. It is the same in all
/// attempts of the step, because turns are kept over attempts.
pub(crate) fn tool_call_origin(
    stream: &StreamKey,
    step: &StepId,
    tool_call: Option<ToolCallNumber>,
) -> String {
    let call = tool_call.map(|at| format!("/{}/{}", at.turn, at.call));
    format!("{}/{step}{}", stream.stream_name(), call.unwrap_or_default())
}

/// Returns the declared effect of a tool. An unknown one counts as pure: calling it only fails.
pub fn find_tool_effect(name: &str) -> ToolEffect {
    TOOLS.get(name).map_or(ToolEffect::Pure, |tool| tool.spec.effect)
}

fn find_tool(name: &str) -> Result<&'static RegisteredTool, ToolCallError> {
    TOOLS.get(name).ok_or_else(|| ToolCallError("there is no such tool".into()))
}

impl RegisteredTool {
    /// Rejects arguments that are too large, and coerces the rest to the declared types.
    fn prepare_arguments(&self, arguments: &Value) -> Result<Value, ToolCallError> {
        bounds::check_value_size("the arguments", arguments, ARGUMENTS_BYTES_LIMIT)?;
        Ok(argument_validator::coerce_arguments(&self.spec.arguments, arguments))
    }

    fn call_with_arguments(
        &self,
        arguments: &Value,
        now: Timestamp,
    ) -> Result<Value, ToolCallError> {
        let text = arguments.to_string();
        match &self.backend {
            ToolBackend::Kernel(schema) => self.call_kernel(schema, arguments, &text, now),
            ToolBackend::Function(check, function) => {
                check.check_arguments(arguments, &text)?;
                let none = Map::new();
                function(&ToolArguments::new(arguments.as_object().unwrap_or(&none), now))
            }
            // Reached only by a caller that asked for no effect: memory tools need a scope.
            ToolBackend::Memory(_) => Err(ToolCallError("it is no computation".into())),
        }
    }

    /// Has the kernel check the arguments and compute the answer.
    fn call_kernel(
        &self,
        schema: &str,
        arguments: &Value,
        text: &str,
        now: Timestamp,
    ) -> Result<Value, ToolCallError> {
        let spec = &self.spec;
        let answer = kernel::call_tool(&spec.name, text, now.0).map_err(|error| match error {
            kernel::KernelToolError::Arguments(violation) => {
                ToolCallError(argument_validator::explain_violation(
                    &violation,
                    schema,
                    &spec.arguments,
                    arguments,
                ))
            }
            kernel::KernelToolError::Failed(why) => ToolCallError(why.to_owned()),
            // The arguments are below the kernel's limit, so it is the answer that exceeds it.
            kernel::KernelToolError::Kernel(kernel::KernelError::TooLarge) => {
                ToolCallError(format!("the answer must have at most {ANSWER_BYTES_LIMIT} bytes"))
            }
            other => ToolCallError(other.to_string()),
        })?;
        serde_json::from_str(&answer)
            .map_err(|error| ToolCallError(format!("the answer is not JSON: {error}")))
    }
}

fn invalid_call(tool: &str, message: &str) -> UnsealedFailure {
    let failure = UnsealedFailure::new(
        "tool.invalid",
        platform_text!("the arguments are not what the tool takes, or have no answer"),
    );
    failure.with_detail(format_args!("{tool}: {message}"))
}

fn memory_tool(spec: ToolSpec) -> RegisteredTool {
    let backend = ToolBackend::Memory(ArgumentValidator::from_schema(&spec.arguments));
    RegisteredTool { spec, backend }
}

fn kernel_tool(tool: kernel::KernelTool) -> RegisteredTool {
    let spec = ToolSpec {
        name: tool.name.to_owned(),
        description: tool.description.to_owned(),
        // The kernel's schemas are constants, which its own tests compile.
        arguments: serde_json::from_str(tool.schema).unwrap_or(Value::Bool(false)),
        effect: ToolEffect::Pure,
    };
    RegisteredTool { spec, backend: ToolBackend::Kernel(tool.schema) }
}

/// Registers a function of this crate, with a JSON Schema built from its declared arguments.
fn function_tool(tool: &FunctionTool) -> RegisteredTool {
    let properties: Map<String, Value> = tool
        .arguments
        .iter()
        .map(|argument| (argument.name.to_owned(), argument.kind.json_schema()))
        .collect();
    let required = tool.arguments.iter().filter(|argument| argument.is_required);
    let required: Vec<&str> = required.map(|argument| argument.name).collect();
    let arguments = json!({"type": "object", "properties": properties, "required": required,
        "additionalProperties": false});
    let backend = ToolBackend::Function(ArgumentValidator::from_schema(&arguments), tool.function);
    let (name, description) = (tool.name.to_owned(), tool.description.to_owned());
    let effect = ToolEffect::Pure;
    RegisteredTool { spec: ToolSpec { name, description, arguments, effect }, backend }
}
