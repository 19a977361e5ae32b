//! Calls of built-in tools: pure ones in place or on a blocking thread, others with their scope.

use std::time::Duration;

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::ToolEffect;
use convergio_domain::id::StepId;
use convergio_domain::platform_text;
use convergio_domain::run::ToolCallNumber;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use serde_json::Value;

use crate::plan::{EffectOutcome, completed_outcome, new_failure, value_bytes};
use crate::services::SharedServices;
use crate::tool;

/// Maximum bytes of arguments that a pure tool handles on an async worker thread.
const INLINE_TOOL_BYTES: usize = 64 << 10;

/// Calls a tool within the node's time limit. `started` is the time that it may see.
pub(super) async fn call_tool(
    (shared, stream): (&SharedServices, &StreamKey),
    (step, tool_call): (&StepId, Option<ToolCallNumber>),
    (name, args): (String, Value),
    timeout: Duration,
    started: Timestamp,
) -> EffectOutcome {
    if tool::find_tool_effect(&name) == ToolEffect::Pure {
        return with_timeout(timeout, run_pure_tool(name, args, started)).await;
    }
    let origin = tool::tool_call_origin(stream, step, tool_call);
    let scope = shared.tool_scope(stream, origin, started);
    let call = Box::pin(async { to_outcome(tool::call_tool(&scope, &name, &args).await) });
    with_timeout(timeout, call).await
}

/// Awaits a tool's outcome; a failure after `timeout`. The tool is then dropped, or runs on
/// unheard.
async fn with_timeout(
    timeout: Duration,
    call: impl Future<Output = EffectOutcome>,
) -> EffectOutcome {
    tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
        let message =
            platform_text!("the tool took longer than {}: raise the node's timeout", timeout);
        EffectOutcome::Failed(UnsealedFailure {
            retryable: true,
            ..new_failure("tool.timeout", message)
        })
    })
}

async fn run_pure_tool(name: String, args: Value, now: Timestamp) -> EffectOutcome {
    // Arguments are small as a rule, and a task of its own costs more than such a call.
    let result = if value_bytes(&args) <= INLINE_TOOL_BYTES {
        tool::call_pure_tool(&name, &args, now)
    } else {
        let task = tokio::task::spawn_blocking(move || tool::call_pure_tool(&name, &args, now));
        let lost = || new_failure("internal", platform_text!("the tool's code did not end"));
        task.await.unwrap_or_else(|error| Err(lost().with_cause(error)))
    };
    to_outcome(result)
}

fn to_outcome(result: Result<Value, UnsealedFailure>) -> EffectOutcome {
    match result {
        Ok(value) => completed_outcome(value),
        Err(error) => EffectOutcome::Failed(error),
    }
}
