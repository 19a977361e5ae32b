//! The router's rules, written as plainly as possible.

use std::cmp::Reverse;

use convergio_kernel_c::{
    KernelPlatform, PRICE_UNKNOWN, ProviderClass, RouteCandidate, RouteDecision, RouteReason,
    RouteRequest,
};

pub(crate) fn is_local(candidate: &RouteCandidate) -> bool {
    candidate.provider_class == ProviderClass::Local
        && match candidate.platform {
            KernelPlatform::Mlx | KernelPlatform::Ollama | KernelPlatform::LlamaCpp => true,
            KernelPlatform::OpenAiCompatible => candidate.declared_local,
            KernelPlatform::CloudApi => false,
        }
}

fn is_unpriced(candidate: &RouteCandidate) -> bool {
    candidate.price_in == PRICE_UNKNOWN || candidate.price_out == PRICE_UNKNOWN
}

/// Whether price counts before ability.
fn is_downgraded(request: &RouteRequest) -> bool {
    request.budget.is_some_and(|budget| budget < request.downgrade_line)
}

/// Worst-case cost: exact wherever it fits, and far beyond any budget where it does not.
pub(crate) fn cost(request: &RouteRequest, candidate: &RouteCandidate) -> u128 {
    if is_unpriced(candidate) {
        return u128::MAX;
    }
    let input = u128::from(request.input_tokens) * u128::from(candidate.price_in);
    let output = u128::from(request.max_output_tokens) * u128::from(candidate.price_out);
    input.saturating_add(output)
}

fn objection(
    request: &RouteRequest,
    candidate: &RouteCandidate,
    index: u32,
) -> Option<RouteReason> {
    let tokens = u128::from(request.input_tokens) + u128::from(request.max_output_tokens);
    let (needs, has) = (request.capabilities, candidate.capabilities);
    let lacks = [
        needs.tools && !has.tools,
        needs.json && !has.json,
        needs.vision && !has.vision,
        needs.audio && !has.audio,
    ];
    let objections = [
        (request.pinned.is_some_and(|pinned| pinned != index), RouteReason::NotRequested),
        (request.require_local && !is_local(candidate), RouteReason::NotLocal),
        (request.offline && !is_local(candidate), RouteReason::Offline),
        (lacks.contains(&true), RouteReason::MissingCapability),
        (tokens > u128::from(candidate.context_tokens), RouteReason::ContextTooSmall),
        (!candidate.healthy, RouteReason::Unhealthy),
        (
            matches!((candidate.latency_ms, request.max_latency_ms), (Some(a), Some(b)) if a > b),
            RouteReason::TooSlow,
        ),
        (request.budget.is_some() && is_unpriced(candidate), RouteReason::PriceUnknown),
        (
            request.budget.is_some_and(|budget| cost(request, candidate) > u128::from(budget)),
            RouteReason::OverBudget,
        ),
    ];
    objections.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason)
}

/// Why an accepted candidate is accepted; `cheapest` is the least cost of those that are able and
/// not on the preferred platform.
fn approval(request: &RouteRequest, candidate: &RouteCandidate, cheapest: u128) -> RouteReason {
    if request.pinned.is_some() {
        RouteReason::Pinned
    } else if is_unpriced(candidate) {
        RouteReason::Unpriced
    } else if candidate.quality < request.complexity {
        if is_downgraded(request) { RouteReason::Downgraded } else { RouteReason::Fallback }
    } else if request.preferred_platform == Some(candidate.platform) {
        RouteReason::PreferredPlatform
    } else if cost(request, candidate) == cheapest {
        RouteReason::Cheapest
    } else {
        RouteReason::Quality
    }
}

pub(crate) fn route(request: &RouteRequest, candidates: &[RouteCandidate]) -> Vec<RouteDecision> {
    let preferred = |c: &RouteCandidate| request.preferred_platform == Some(c.platform);
    let able = |c: &RouteCandidate| c.quality >= request.complexity;
    let (mut accepted, rejected): (Vec<_>, Vec<_>) = (0u32..)
        .zip(candidates)
        .map(|(index, candidate)| (index, candidate, objection(request, candidate, index)))
        .partition(|(_, _, objection)| objection.is_none());
    accepted.sort_by_key(|(index, c, _)| {
        let latency = c.latency_ms.map_or(u64::MAX, u64::from);
        let quality = Reverse(c.quality);
        let cost = cost(request, c);
        let first = if is_downgraded(request) { cost } else { 0 };
        (is_unpriced(c), first, !preferred(c), !able(c), cost, quality, latency, *index)
    });
    let able_elsewhere = accepted.iter().filter(|(_, c, _)| able(c) && !preferred(c));
    let cheapest = able_elsewhere.map(|(_, c, _)| cost(request, c)).min().unwrap_or(0);
    let decide = |(index, candidate, objection): (u32, &RouteCandidate, Option<RouteReason>)| {
        RouteDecision {
            index,
            accepted: objection.is_none(),
            reason: objection.unwrap_or_else(|| approval(request, candidate, cheapest)),
            cost: u64::try_from(cost(request, candidate)).unwrap_or(u64::MAX),
        }
    };
    accepted.into_iter().chain(rejected).map(decide).collect()
}
