//! Memories of agents: the tools `memory.store`, `memory.recall` and `memory.forget`.
//!
//! These tools have effects, so the intent of their step is in the log before they are called. All
//! of them are idempotent after a crash: a memory's id is derived from the call that stores it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use convergio_domain::decider::Context;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::ToolSpec;
use convergio_domain::id::{ActorId, TenantId};
use convergio_domain::memory::{IMPORTANCE_DEFAULT, Item, MemoryId, Rejection, Subject};
use convergio_domain::platform_text;
use convergio_domain::time::Timestamp;
use convergio_eventstore::{CommitError, Remember, Repository};
use serde_json::{Value, json};

/// Token budget of a recall that names none.
const BUDGET_DEFAULT: u32 = 1000;
/// Maximum token budget of a recall.
const BUDGET_LIMIT: u32 = 1_000_000;

/// An index from which memories can be recalled.
#[async_trait]
pub trait Recall: Send + Sync + 'static {
    /// Returns the memories of a subject that match a question best, best first, at most
    /// `budget_tokens` tokens in all.
    ///
    /// # Errors
    /// The index or the log cannot be read.
    async fn recall(
        &self,
        tenant: &TenantId,
        subject: &Subject,
        question: &str,
        now: Timestamp,
        budget_tokens: u32,
    ) -> Result<Vec<Item>, UnsealedFailure>;
}

/// The memory index of an executor; `None` if it has none.
#[derive(Clone, Default)]
pub struct MemoryPort(pub Option<Arc<dyn Recall>>);

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
pub(crate) fn specs() -> Vec<ToolSpec> {
    // The pattern is that of `Subject`, so that a bad one is caught with the other arguments.
    let subject = json!({"type": "string", "pattern": "^[A-Za-z0-9._:@/-]{1,128}$"});
    let spec = |name: &str, description: &str, properties: Value, required: &[&str]| ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        arguments: json!({"type": "object", "properties": properties, "required": required,
            "additionalProperties": false}),
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
                "tokens": {"type": "integer", "minimum": 1, "maximum": BUDGET_LIMIT}}),
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
pub(crate) fn is_memory(name: &str) -> bool {
    matches!(name, "memory.store" | "memory.recall" | "memory.forget")
}

impl ToolScope {
    /// Calls one of the memory tools. The arguments have been checked against its schema.
    pub(crate) async fn memory(
        &self,
        name: &str,
        arguments: &Value,
    ) -> Result<Value, UnsealedFailure> {
        let text = |field: &str| arguments[field].as_str().unwrap_or_default();
        let subject: Subject = text("subject").parse().map_err(|error| invalid(name, &error))?;
        match name {
            "memory.store" => self.store(&subject, arguments).await,
            "memory.recall" => {
                let budget = arguments["tokens"].as_u64().and_then(|n| u32::try_from(n).ok());
                let budget = budget.unwrap_or(BUDGET_DEFAULT);
                let Some(memory) = &self.memory.0 else { return Err(no_memory()) };
                let found = memory.recall(&self.tenant, &subject, text("query"), self.now, budget);
                Ok(found.await?.into_iter().map(told).collect())
            }
            // The caller checked `is_memory_tool`, so this is `memory.forget`.
            _ => {
                let id = text("id").parse().map_err(|error| invalid(name, &error))?;
                let (context, tenant) = (self.context(), &self.tenant);
                let forgotten = self.repository.forget(&context, tenant, &subject, id).await;
                Ok(json!({"forgotten": forgotten.map_err(failed)?.unwrap_or(false)}))
            }
        }
    }

    fn context(&self) -> Context {
        Context { now: self.now, actor: self.actor.clone() }
    }

    /// Stores a memory under an id derived from the call, so that a repeated call is a no-op.
    async fn store(&self, subject: &Subject, arguments: &Value) -> Result<Value, UnsealedFailure> {
        let importance = arguments["importance"].as_u64().and_then(|n| u16::try_from(n).ok());
        let memory = MemoryId::of_call(&self.tenant, &self.origin);
        let what = Remember {
            tenant: &self.tenant,
            subject,
            memory,
            text: arguments["text"].as_str().unwrap_or_default(),
            importance: importance.unwrap_or(IMPORTANCE_DEFAULT),
        };
        self.repository.remember(&self.context(), what).await.map_err(failed)?;
        Ok(json!({"id": memory}))
    }
}

/// Returns a memory as models and templates see it.
fn told(item: Item) -> Value {
    json!({"id": item.id, "text": item.text, "importance": item.importance,
        "tokens": item.tokens, "stored_ms": item.stored})
}

fn invalid(tool: &str, reason: &dyn fmt::Display) -> UnsealedFailure {
    let message = platform_text!("the arguments are not what the tool takes");
    UnsealedFailure::new("tool.invalid", message).with_detail(format_args!("{tool}: {reason}"))
}

fn no_memory() -> UnsealedFailure {
    let message = platform_text!("this executor has no memory: start it with `convergio serve`");
    UnsealedFailure::new("internal", message)
}

/// Translates a commit error; those of the log are retryable, a rejection is the caller's mistake.
fn failed(error: CommitError<Rejection>) -> UnsealedFailure {
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
