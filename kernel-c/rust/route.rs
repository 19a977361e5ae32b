//! The router: which models may answer a request, in which order, and why.

use crate::bindings as c;
use crate::error::KernelError;
use crate::ffi;

/// Location of a provider's computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ProviderClass {
    /// On hardware of the user or the operator.
    Local = c::CVG_CLASS_LOCAL,
    /// Anywhere else, as a cloud.
    Cloud = c::CVG_CLASS_CLOUD,
}

/// Software that serves the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum KernelPlatform {
    /// Apple MLX, on Apple silicon.
    Mlx = c::CVG_PLATFORM_MLX,
    /// Ollama's own interface.
    Ollama = c::CVG_PLATFORM_OLLAMA,
    /// llama.cpp's own server.
    LlamaCpp = c::CVG_PLATFORM_LLAMACPP,
    /// Endpoint with the OpenAI protocol; it counts as local only if declared so.
    OpenAiCompatible = c::CVG_PLATFORM_OPENAI_COMPATIBLE,
    /// Cloud provider's own interface; it never counts as local.
    CloudApi = c::CVG_PLATFORM_CLOUD_API,
}

/// Value for an unknown price: such a candidate comes last, and is rejected if there is a budget.
pub const PRICE_UNKNOWN: u64 = u64::MAX;

/// Capabilities that a model has or a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Can call tools.
    pub tools: bool,
    /// Can be held to a JSON schema.
    pub json: bool,
    /// Can read images.
    pub vision: bool,
    /// Can read audio recordings.
    pub audio: bool,
}

/// A model that could answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteCandidate {
    /// Location of the computation.
    pub provider_class: ProviderClass,
    /// Software that serves it.
    pub platform: KernelPlatform,
    /// True if the operator vouches that its endpoint is local.
    pub declared_local: bool,
    /// True if it answered when it was last probed.
    pub healthy: bool,
    /// Capabilities of the model.
    pub capabilities: Capabilities,
    /// Price of an input token, in 1e-15 currency units, or [`PRICE_UNKNOWN`].
    pub price_in: u64,
    /// Price of an output token, in 1e-15 currency units, or [`PRICE_UNKNOWN`].
    pub price_out: u64,
    /// Size of the context window, for input and output together.
    pub context_tokens: u64,
    /// Measured latency in milliseconds.
    pub latency_ms: Option<u32>,
    /// Quality from 0 to 1000.
    pub quality: u32,
}

/// Requirements and preferences of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteRequest {
    /// True if nothing may leave the premises.
    pub require_local: bool,
    /// True if there is no network.
    pub offline: bool,
    /// Capabilities that the model must have.
    pub capabilities: Capabilities,
    /// Estimated tokens of the input.
    pub input_tokens: u64,
    /// Most tokens of the output.
    pub max_output_tokens: u64,
    /// Money left, in 1e-15 currency units; `None`: no limit.
    pub budget: Option<u64>,
    /// Budget below which price counts before quality, in 1e-15 currency units; 0: never.
    pub downgrade_line: u64,
    /// Highest measured latency in milliseconds; slower models are rejected.
    pub max_latency_ms: Option<u32>,
    /// Complexity from 0 to 1000: models of lower quality are only used if no better one answers.
    pub complexity: u32,
    /// Index of the only candidate allowed.
    pub pinned: Option<u32>,
    /// Platform that is preferred on this machine.
    pub preferred_platform: Option<KernelPlatform>,
}

/// Reason for accepting or rejecting a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum RouteReason {
    /// Accepted: it is the one that was asked for.
    Pinned = c::CVG_REASON_PINNED,
    /// Accepted: able enough, and on the platform preferred.
    PreferredPlatform = c::CVG_REASON_PREFERRED_PLATFORM,
    /// Accepted: able enough, and none such off the preferred platform costs less.
    Cheapest = c::CVG_REASON_CHEAPEST,
    /// Accepted: able enough, at a higher price.
    Quality = c::CVG_REASON_QUALITY,
    /// Accepted: less able than the request is complex.
    Fallback = c::CVG_REASON_FALLBACK,
    /// Accepted: the same, but the budget is low and it costs less.
    Downgraded = c::CVG_REASON_DOWNGRADED,
    /// Accepted, after all others: nobody knows its price.
    Unpriced = c::CVG_REASON_UNPRICED,
    /// Rejected: another one was asked for.
    NotRequested = c::CVG_REASON_NOT_REQUESTED,
    /// Rejected: it is not local, and that is required.
    NotLocal = c::CVG_REASON_NOT_LOCAL,
    /// Rejected: it cannot do something that is needed.
    MissingCapability = c::CVG_REASON_MISSING_CAPABILITY,
    /// Rejected: input and output do not fit.
    ContextTooSmall = c::CVG_REASON_CONTEXT_TOO_SMALL,
    /// Rejected: it did not answer when it was last probed.
    Unhealthy = c::CVG_REASON_UNHEALTHY,
    /// Rejected: in the worst case it costs more than is left.
    OverBudget = c::CVG_REASON_OVER_BUDGET,
    /// Rejected: it is not local, and there is no network.
    Offline = c::CVG_REASON_OFFLINE,
    /// Rejected: it is measured to be slower than is acceptable.
    TooSlow = c::CVG_REASON_TOO_SLOW,
    /// Rejected: nobody knows its price, and there is a budget.
    PriceUnknown = c::CVG_REASON_PRICE_UNKNOWN,
}

/// Decision over one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteDecision {
    /// Index of the candidate.
    pub index: u32,
    /// True if it may answer.
    pub accepted: bool,
    /// Reason of the decision.
    pub reason: RouteReason,
    /// Worst-case cost in 1e-15 currency units; saturates at `u64::MAX`.
    pub cost: u64,
}

/// Decides over all candidates: first the accepted ones, best first, then the rejected ones by
/// index.
///
/// # Errors
/// [`KernelError::BadArgument`] for a pinned index, quality or complexity out of range,
/// [`KernelError::TooLarge`] for more than 65,536 candidates.
pub fn route_request(
    request: &RouteRequest,
    candidates: &[RouteCandidate],
) -> Result<Vec<RouteDecision>, KernelError> {
    let request = raw_request(request)?;
    let candidates: Vec<c::cvg_candidate> = candidates.iter().map(raw_candidate).collect();
    let (decisions, accepted_count) = ffi::route(&request, &candidates)?;
    let decide = |(place, raw): (usize, &c::cvg_decision)| RouteDecision {
        index: raw.index,
        accepted: place < accepted_count,
        reason: RouteReason::from_raw(raw.reason),
        cost: raw.cost,
    };
    Ok(decisions.iter().enumerate().map(decide).collect())
}

/// Features of a request that are known before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestFeatures {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Most tokens of the output.
    pub max_output_tokens: u64,
    /// Number of tools offered.
    pub tools: u32,
    /// Properties of the answer's schema, at all depths.
    pub schema_properties: u32,
    /// Messages before this one.
    pub turns: u32,
    /// True if it asks for reasoning.
    pub reasoning: bool,
    /// True if it asks for code.
    pub code: bool,
}

/// Returns the complexity of a request, from 0 to 1000; `include/convergio/router.h` has the
/// formula.
#[must_use]
pub fn request_complexity(features: &RequestFeatures) -> u32 {
    ffi::complexity(&c::cvg_features {
        input_tokens: features.input_tokens,
        max_output_tokens: features.max_output_tokens,
        tools: features.tools,
        schema_properties: features.schema_properties,
        turns: features.turns,
        flags: union_of_bits(&[
            (features.reasoning, c::CVG_FEATURE_REASONING),
            (features.code, c::CVG_FEATURE_CODE),
        ]),
    })
}

impl Capabilities {
    fn to_bits(self) -> u32 {
        union_of_bits(&[
            (self.tools, c::CVG_CAPABILITY_TOOLS),
            (self.json, c::CVG_CAPABILITY_JSON),
            (self.vision, c::CVG_CAPABILITY_VISION),
            (self.audio, c::CVG_CAPABILITY_AUDIO),
        ])
    }
}

impl RouteReason {
    fn from_raw(reason: c::cvg_reason) -> Self {
        match reason {
            c::CVG_REASON_PINNED => Self::Pinned,
            c::CVG_REASON_PREFERRED_PLATFORM => Self::PreferredPlatform,
            c::CVG_REASON_CHEAPEST => Self::Cheapest,
            c::CVG_REASON_QUALITY => Self::Quality,
            c::CVG_REASON_FALLBACK => Self::Fallback,
            c::CVG_REASON_NOT_LOCAL => Self::NotLocal,
            c::CVG_REASON_MISSING_CAPABILITY => Self::MissingCapability,
            c::CVG_REASON_CONTEXT_TOO_SMALL => Self::ContextTooSmall,
            c::CVG_REASON_UNHEALTHY => Self::Unhealthy,
            c::CVG_REASON_OVER_BUDGET => Self::OverBudget,
            c::CVG_REASON_DOWNGRADED => Self::Downgraded,
            c::CVG_REASON_UNPRICED => Self::Unpriced,
            c::CVG_REASON_OFFLINE => Self::Offline,
            c::CVG_REASON_TOO_SLOW => Self::TooSlow,
            c::CVG_REASON_PRICE_UNKNOWN => Self::PriceUnknown,
            _ => Self::NotRequested,
        }
    }
}

/// The union of the bits whose condition holds.
fn union_of_bits(flags: &[(bool, u32)]) -> u32 {
    flags.iter().filter(|(set, _)| *set).fold(0, |bits, (_, bit)| bits | bit)
}

fn raw_request(request: &RouteRequest) -> Result<c::cvg_route_request, KernelError> {
    // `u32::MAX` would read as "none pinned", which is the opposite of what was asked.
    if request.pinned == Some(c::CVG_NONE) {
        return Err(KernelError::BadArgument);
    }
    Ok(c::cvg_route_request {
        input_tokens: request.input_tokens,
        max_output_tokens: request.max_output_tokens,
        // The largest value is CVG_BUDGET_NONE.
        budget: request.budget.unwrap_or(u64::MAX),
        flags: union_of_bits(&[
            (request.require_local, c::CVG_REQUEST_LOCAL_ONLY),
            (request.offline, c::CVG_REQUEST_OFFLINE),
        ]),
        capabilities: request.capabilities.to_bits(),
        complexity: request.complexity,
        pinned: request.pinned.unwrap_or(c::CVG_NONE),
        preferred_platform: request.preferred_platform.map_or(c::CVG_NONE, |p| p as u32),
        // In C, 0 means "no limit"; no model is measured to answer in no time.
        max_latency_ms: request.max_latency_ms.map_or(0, |limit| limit.max(1)),
        downgrade_line: request.downgrade_line,
    })
}

fn raw_candidate(candidate: &RouteCandidate) -> c::cvg_candidate {
    c::cvg_candidate {
        price_in: candidate.price_in,
        price_out: candidate.price_out,
        context_tokens: candidate.context_tokens,
        provider_class: candidate.provider_class as u32,
        platform: candidate.platform as u32,
        capabilities: candidate.capabilities.to_bits(),
        flags: union_of_bits(&[
            (candidate.healthy, c::CVG_CANDIDATE_HEALTHY),
            (candidate.declared_local, c::CVG_CANDIDATE_DECLARED_LOCAL),
        ]),
        latency_ms: candidate.latency_ms.unwrap_or(c::CVG_NONE),
        quality: candidate.quality,
    }
}
