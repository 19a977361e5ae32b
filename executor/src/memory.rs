//! Memories of agents: the tools `memory.store`, `memory.recall` and `memory.forget`.
//!
//! These tools have effects, so the intent of their step is in the log before they are called. All
//! of them are idempotent after a crash: a memory's id is derived from the call that stores it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use convergio_application::{Caller, MemoryWrite, UseCases};
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::{ToolEffect, ToolSpec};
use convergio_domain::id::{ActorId, TenantId};
use convergio_domain::memory::{
    IMPORTANCE_DEFAULT, MemoryId, MemoryRejection, RecalledMemory, Subject,
};
use convergio_domain::platform_text;
use convergio_domain::time::Timestamp;
use convergio_eventstore::{CommitError, Repository};
use serde_json::{Value, json};

/// Token budget of a recall that names none.
const RECALL_TOKENS_DEFAULT: u32 = 1000;
/// Maximum token budget of a recall.
const RECALL_TOKENS_LIMIT: u32 = 1_000_000;

/// An index from which memories can be recalled.
#[async_trait]
pub trait MemorySearch: Send + Sync + 'static {
    /// Returns the memories of a subject that match a question best, best first, at most
    /// `budget_tokens` tokens in all.
    ///
    /// # Errors
    /// The index or the log cannot be read.
    async fn recall_memories(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        question: &str,
        now: Timestamp,
        budget_tokens: u32,
    ) -> Result<Vec<RecalledMemory>, UnsealedFailure>;
}

/// The memory index of an executor; `None` if it has none.
#[derive(Clone, Default)]
pub struct MemoryPort(pub Option<Arc<dyn MemorySearch>>);

impl fmt::Debug for MemoryPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "MemoryPort(there)" } else { "MemoryPort(none)" })
    }
}

/// Identity and services of one tool call.
#[derive(Clone)]
pub struct ToolScope {
    /// Repository to which memories are written.
    pub repository: Repository,
    /// Index from which memories are recalled.
    pub memory: MemoryPort,
    /// Tenant that owns the memories.
    pub tenant: TenantId,
    /// Actor named by the commits that the call makes.
    pub actor: ActorId,
    /// Permanent name of the call, as RUN/STEP/CALL. The same name stores the same memory again.
    pub origin: String,
    /// Time at which the step started; stored as the time of a new memory.
    pub now: Timestamp,
}

/// Returns the specs of the memory tools, against which manifests are checked.
pub(crate) fn memory_tool_specs() -> Vec<ToolSpec> {
    // The pattern is that of `Subject`, so that a bad one is caught with the other arguments.
    let subject = json!({"type": "string", "pattern": "^[A-Za-z0-9._:@/-]{1,128}$"});
    let spec = |name: &str, description: &str, properties: Value, required: &[&str]| ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        arguments: json!({"type": "object", "properties": properties, "required": required,
            "additionalProperties": false}),
        // A recall changes nothing, but its answer does not follow from its arguments.
        effect: ToolEffect::Idempotent,
    };
    vec![
        spec(
            "memory.store",
            "Remembers a text about a subject; the answer holds its id. An importance is from 0 to \
                1000, 500 when absent.",
            json!({"subject": subject, "text": {"type": "string", "minLength": 1},
                "importance": {"type": "integer", "minimum": 0, "maximum": 1000}}),
            &["subject", "text"],
        ),
        spec(
            "memory.recall",
            "What is remembered of a subject that fits a question best, best first, together at \
                most so many tokens (1000 when absent).",
            json!({"subject": subject, "query": {"type": "string"},
                "tokens": {"type": "integer", "minimum": 1, "maximum": RECALL_TOKENS_LIMIT}}),
            &["subject", "query"],
        ),
        spec(
            "memory.forget",
            "Forgets a memory of a subject by its id and erases its text.",
            json!({"subject": subject, "id": {"type": "string", "pattern": "^[0-9a-fA-F-]{36}$"}}),
            &["subject", "id"],
        ),
    ]
}

/// Returns whether a tool is one of the memory tools.
pub(crate) fn is_memory_tool(name: &str) -> bool {
    matches!(name, "memory.store" | "memory.recall" | "memory.forget")
}

impl ToolScope {
    /// Calls one of the memory tools. The arguments have been checked against its schema.
    pub(crate) async fn call_memory_tool(
        &self,
        name: &str,
        arguments: &Value,
    ) -> Result<Value, UnsealedFailure> {
        let text = |field: &str| arguments[field].as_str().unwrap_or_default();
        let subject: Subject =
            text("subject").parse().map_err(|error| invalid_arguments(name, &error))?;
        match name {
            "memory.store" => self.store_memory(&subject, arguments).await,
            "memory.recall" => {
                let budget_tokens =
                    arguments["tokens"].as_u64().and_then(|n| u32::try_from(n).ok());
                let budget = budget_tokens.unwrap_or(RECALL_TOKENS_DEFAULT);
                let Some(memory) = &self.memory.0 else { return Err(missing_memory_failure()) };
                let recalled =
                    memory.recall_memories(&self.tenant, &subject, text("query"), self.now, budget);
                Ok(recalled.await?.into_iter().map(memory_item_json).collect())
            }
            // The caller checked `is_memory_tool`, so this is `memory.forget`.
            _ => {
                let id = text("id").parse().map_err(|error| invalid_arguments(name, &error))?;
                let is_forgotten =
                    self.use_cases().forget_memory(&self.to_caller(), &subject, id).await;
                Ok(json!({"forgotten": is_forgotten.map_err(commit_failure)?.unwrap_or(false)}))
            }
        }
    }

    fn use_cases(&self) -> UseCases<'_> {
        UseCases::new(&self.repository).with_time(self.now)
    }

    fn to_caller(&self) -> Caller {
        Caller::new(self.tenant.clone(), self.actor.clone())
    }

    /// Stores a memory under an id derived from the call, so that a repeated call is a no-op.
    async fn store_memory(
        &self,
        subject: &Subject,
        arguments: &Value,
    ) -> Result<Value, UnsealedFailure> {
        let importance = arguments["importance"].as_u64().and_then(|n| u16::try_from(n).ok());
        let memory = MemoryId::from_call(&self.tenant, &self.origin);
        let write = MemoryWrite {
            subject,
            memory,
            text: arguments["text"].as_str().unwrap_or_default(),
            importance: importance.unwrap_or(IMPORTANCE_DEFAULT),
        };
        self.use_cases().store_memory(&self.to_caller(), write).await.map_err(commit_failure)?;
        Ok(json!({"id": memory}))
    }
}

/// Returns a memory as models and templates see it.
fn memory_item_json(item: RecalledMemory) -> Value {
    json!({"id": item.id, "text": item.text, "importance": item.importance,
        "tokens": item.tokens, "stored_ms": item.stored})
}

fn invalid_arguments(tool: &str, reason: &dyn fmt::Display) -> UnsealedFailure {
    let message = platform_text!("the arguments are not what the tool takes");
    UnsealedFailure::new("tool.invalid", message).with_detail(format_args!("{tool}: {reason}"))
}

fn missing_memory_failure() -> UnsealedFailure {
    let message = platform_text!("this executor has no memory: start it with `convergio serve`");
    UnsealedFailure::new("internal", message)
}

/// Translates a commit error; those of the log are retryable, a rejection is the caller's mistake.
fn commit_failure(error: CommitError<MemoryRejection>) -> UnsealedFailure {
    let (code, message) = match &error {
        CommitError::Rejected(_) => {
            ("tool.invalid", platform_text!("the memory does not take the call"))
        }
        CommitError::Conflict => (
            "log.unavailable",
            platform_text!(
                "so many write memories of this subject that this one did not get its turn: \
                nothing was done, and the same call may be made again"
            ),
        ),
        _ => ("log.unavailable", platform_text!("the memory cannot be written now")),
    };
    // Whether or not it was written, the same call stores the same memory.
    let retryable = code == "log.unavailable";
    UnsealedFailure { retryable, ..UnsealedFailure::new(code, message) }.with_cause(error)
}
