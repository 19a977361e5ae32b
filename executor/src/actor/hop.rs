//! Who is asked next when a model call failed.

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{Candidate, Fallback, HOPS_LIMIT, Successor, successor};

use crate::model::{ModelCatalog, Need};

/// What a step asks for, so that somebody else can be asked.
pub(super) struct Question {
    /// The models that may be asked, in this order.
    pub(super) models: Vec<String>,
    pub(super) need: Need,
    /// The name of the key that is used.
    pub(super) key: Option<String>,
    /// Who handed the step on before.
    pub(super) avoid: Vec<Fallback>,
    /// Whether the manifest lets it be tried again at all.
    pub(super) is_repeatable: bool,
}

impl Question {
    /// The hop to somebody else, if the rules allow one and somebody would do. A failure that may
    /// be an accident is not followed by one: the same model is asked once more.
    pub(super) async fn fallback(
        &self,
        models: &ModelCatalog,
        (provider, model): (&str, &str),
        failure: &UnsealedFailure,
    ) -> Option<Fallback> {
        if !self.is_repeatable || self.avoid.len() >= HOPS_LIMIT {
            return None;
        }
        let key = self.key.clone();
        let from = Candidate { provider: provider.to_owned(), model: model.to_owned(), key };
        match successor(failure) {
            Successor::Nobody => return None,
            Successor::Other if failure.retryable && models.is_healthy(&from) => return None,
            Successor::Larger | Successor::Other => {}
        }
        let fallback = Fallback { from, reason: failure.code.clone() };
        let avoid: Vec<_> = self.avoid.iter().chain([&fallback]).cloned().collect();
        models.has_other(&self.models, &self.need, &avoid).await.then_some(fallback)
    }
}
