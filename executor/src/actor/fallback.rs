//! The choice of another model after a failed model call.

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{Fallback, HOPS_LIMIT, ModelTarget, Successor, allowed_successor};

use crate::catalog::{ModelCatalog, ModelRequirements};

/// Requirements of a step, from which another model can be chosen.
pub(super) struct FallbackContext {
    /// Models that the manifest allows, in order of preference.
    pub(super) models: Vec<String>,
    pub(super) need: ModelRequirements,
    /// Name of the key that was used.
    pub(super) key: Option<String>,
    /// Models that failed this step before.
    pub(super) avoid: Vec<Fallback>,
    /// True if the manifest allows another attempt.
    pub(super) is_repeatable: bool,
}

impl FallbackContext {
    /// Returns the fallback to another model, if the rules allow one and another model would do. A
    /// retryable failure of a healthy model counts as an accident: the same model is asked once
    /// more.
    pub(super) async fn find_fallback(
        &self,
        models: &ModelCatalog,
        (provider, model): (&str, &str),
        failure: &UnsealedFailure,
    ) -> Option<Fallback> {
        if !self.is_repeatable || self.avoid.len() >= HOPS_LIMIT {
            return None;
        }
        let key = self.key.clone();
        let from = ModelTarget { provider: provider.to_owned(), model: model.to_owned(), key };
        match allowed_successor(failure) {
            Successor::Nobody => return None,
            Successor::Other if failure.retryable && models.is_healthy(&from) => return None,
            Successor::Larger | Successor::Other => {}
        }
        let fallback = Fallback { from, reason: failure.code.clone() };
        let avoid: Vec<_> = self.avoid.iter().chain([&fallback]).cloned().collect();
        // Last, because it ranks all candidates again.
        models.has_alternative(&self.models, &self.need, &avoid).await.then_some(fallback)
    }
}
