//! The state that handlers share, and the extractors of it and of the caller.
//!
//! Every handler takes from here, so this file takes nothing from any handler.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use convergio_application::{Caller, GraphUseCases, Replayer, UseCases};
use convergio_evaluation::Evaluator;
use convergio_eventstore::{HealthRegistry, LiveHub, Repository};
use convergio_projections::{MemoryIndexes, Queries};
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;

use crate::auth::TokenRegistry;
use crate::http::compat::CompatSettings;
use crate::ports::ModelDirectory;

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
    /// Returns the use cases that need nothing but the log.
    pub(crate) fn use_cases(&self) -> UseCases<'_> {
        UseCases::new(&self.repository)
    }

    /// Returns the use cases that work with a graph's manifest.
    pub(crate) fn graph_use_cases(&self) -> GraphUseCases<'_> {
        GraphUseCases::new(&self.repository, &self.evaluator, &*self.replayer)
    }
}

/// Waits until `stop` becomes true; a dropped sender counts as a stop.
pub(crate) async fn wait_for_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Extractor of the authenticated caller.
pub(crate) type CallerExtension = Extension<Caller>;
/// Extractor of the state that handlers share.
pub(crate) type App = State<Arc<Gateway>>;
/// Routes of handlers that share the state, with their part of the OpenAPI document.
pub(crate) type ApiRoutes = OpenApiRouter<Arc<Gateway>>;
