//! The choice of another model after a failed model call.

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{Fallback, HOPS_LIMIT, ModelTarget, Successor, allowed_successor};

use crate::catalog::ModelCatalog;
use crate::plan::FallbackContext;

/// Returns the fallback to another model, if the rules allow one and another model would do. A
/// retryable failure of a healthy model counts as an accident: the same model is asked once
/// more.
pub(super) async fn find_fallback(
    context: &FallbackContext,
    models: &ModelCatalog,
    (provider, model): (&str, &str),
    failure: &UnsealedFailure,
) -> Option<Fallback> {
    if !context.is_repeatable || context.avoid.len() >= HOPS_LIMIT {
        return None;
    }
    let key = context.key.clone();
    let from = ModelTarget { provider: provider.to_owned(), model: model.to_owned(), key };
    match allowed_successor(failure) {
        Successor::Nobody => return None,
        Successor::Other if failure.retryable && models.is_healthy(&from) => return None,
        Successor::Larger | Successor::Other => {}
    }
    let fallback = Fallback { from, reason: failure.code.clone() };
    let avoid: Vec<_> = context.avoid.iter().chain([&fallback]).cloned().collect();
    // Last, because it ranks all candidates again.
    models.has_alternative(&context.models, &context.need, &avoid).await.then_some(fallback)
}
