//! The choice of another model after a failed model call.

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{Fallback, ModelTarget, may_fall_back};

use crate::catalog::ModelCatalog;
use crate::plan::FallbackContext;

/// Returns the fallback to another model, if the rules allow one and another model would do.
pub(super) async fn find_fallback(
    context: &FallbackContext,
    models: &ModelCatalog,
    (provider, model): (&str, &str),
    failure: &UnsealedFailure,
) -> Option<Fallback> {
    let key = context.key.clone();
    let from = ModelTarget { provider: provider.to_owned(), model: model.to_owned(), key };
    let is_healthy = || models.is_healthy(&from);
    if !context.is_repeatable || !may_fall_back(failure, context.avoid.len(), is_healthy) {
        return None;
    }
    let fallback = Fallback { from, reason: failure.code.clone() };
    let avoid: Vec<_> = context.avoid.iter().chain([&fallback]).cloned().collect();
    // Last, because it ranks all candidates again.
    models.has_alternative(&context.models, &context.need, &avoid).await.then_some(fallback)
}
