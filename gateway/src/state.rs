//! The state that handlers share, and the extractors of it and of the caller.
//!
//! Every handler takes from here, so this file takes nothing from any handler.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use convergio_domain::decider::DecisionContext;
use convergio_evaluation::Evaluator;
use convergio_eventstore::{HealthRegistry, LiveHub, Repository};
use convergio_projections::{MemoryIndexes, Queries};
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;

use crate::auth::TokenRegistry;
use crate::http::compat::CompatSettings;
use crate::identity::Identity;
use crate::ports::{ModelDirectory, Replayer};

/// State that all handlers share.
///
/// Every request clones a single `Arc` of it: cloning each field instead would make all threads
/// contend for several reference counts.
#[derive(Clone)]
pub struct Gateway {
    /// Decides commands and appends their events; the only way to write to the log.
    pub repository: Repository,
    /// Read models, which may lag behind the log.
    pub queries: Queries,
    /// Recall of memories, by subject or by question.
    pub memories: Arc<MemoryIndexes>,
    /// Health of the process's background loops.
    pub health: HealthRegistry,
    /// Live progress of model calls, which the log does not hold.
    pub live_notes: LiveHub,
    /// Parses manifests and validates inputs under limits of time and memory.
    pub evaluator: Evaluator,
    /// Access tokens and the tenant, actor and roles that each stands for.
    pub tokens: TokenRegistry,
    /// Models that callers may name.
    pub models: Arc<dyn ModelDirectory>,
    /// Settings of the OpenAI and Anthropic compatible API.
    pub compat: CompatSettings,
    /// Replays runs; implemented outside this crate, because the gateway executes nothing.
    pub replayer: Arc<dyn Replayer>,
    /// Becomes true at shutdown; open event streams then end.
    pub stop: watch::Receiver<bool>,
}

impl Gateway {
    /// The decision context (time and actor) of a caller's command.
    pub(crate) fn decision_context(&self, caller: &Identity) -> DecisionContext {
        DecisionContext { now: self.repository.clock().now(), actor: caller.actor.clone() }
    }
}

/// Waits until `stop` becomes true; a dropped sender counts as a stop.
pub(crate) async fn wait_for_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Extractor of the authenticated caller.
pub(crate) type Caller = Extension<Identity>;
/// Extractor of the state that handlers share.
pub(crate) type App = State<Arc<Gateway>>;
/// Routes of handlers that share the state, with their part of the OpenAPI document.
pub(crate) type ApiRoutes = OpenApiRouter<Arc<Gateway>>;
