//! Services and settings that the actors of an executor, their plans and their effects share.

use std::sync::Arc;

use convergio_application::{Caller, UseCases};
use convergio_domain::billing::{PriceBook, PriceQuery};
use convergio_domain::decider::DecisionContext;
use convergio_domain::id::{ActorId, TenantId};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use convergio_eventstore::{LiveHub, Repository};
use convergio_kernel_c::ProviderClass;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::catalog::ModelCatalog;
use crate::config::ExecutorConfig;
use crate::graphs::GraphCache;
use crate::large_values::LargeValueGate;
use crate::memory::ToolScope;
use crate::provider::ProviderConfig;

/// Services and settings that all actors of an executor share.
pub(crate) struct SharedServices {
    pub(crate) config: ExecutorConfig,
    pub(crate) actor: ActorId,
    pub(crate) repository: Repository,
    pub(crate) graphs: GraphCache,
    pub(crate) models: Arc<ModelCatalog>,
    pub(crate) prices: Arc<PriceBook>,
    pub(crate) live: LiveHub,
    pub(crate) model_calls: Arc<Semaphore>,
    pub(crate) large_value_gate: Arc<LargeValueGate>,
    /// Cancelled when a shutdown begins: no step starts any more, those in flight may finish.
    pub(crate) drain_token: CancellationToken,
    /// Cancelled when the grace is over: effects in flight are abandoned.
    pub(crate) abandon_token: CancellationToken,
}

impl SharedServices {
    pub(crate) fn current_time(&self) -> Timestamp {
        self.repository.clock().now()
    }

    /// Builds the query of a model's price, for now and the default service tier.
    pub(crate) fn price_query<'a>(
        &self,
        provider: &'a ProviderConfig,
        model: &'a str,
    ) -> PriceQuery<'a> {
        PriceQuery {
            provider: &provider.name,
            model,
            is_local: provider.class == ProviderClass::Local,
            service_tier: None,
            at: self.current_time(),
        }
    }

    /// Builds the scope of a tool call. `origin` is the permanent name of the call.
    pub(crate) fn tool_scope(
        &self,
        stream: &StreamKey,
        origin: String,
        now: Timestamp,
    ) -> ToolScope {
        ToolScope {
            repository: self.repository.clone(),
            memory: self.config.memory.clone(),
            tenant: stream.tenant.clone(),
            actor: self.actor.clone(),
            origin,
            now,
        }
    }

    /// Returns the use cases of the log.
    pub(crate) fn use_cases(&self) -> UseCases<'_> {
        UseCases::new(&self.repository)
    }

    /// Returns the executor as the caller of a use case.
    pub(crate) fn to_caller(&self, tenant: &TenantId) -> Caller {
        Caller::new(tenant.clone(), self.actor.clone())
    }

    pub(crate) fn command_context(&self) -> DecisionContext {
        DecisionContext { now: self.current_time(), actor: self.actor.clone() }
    }
}
