//! Random requests over random candidates: every decision is that of the model.

use convergio_kernel_c::{
    Capabilities, KernelError, KernelPlatform, PRICE_UNKNOWN, ProviderClass, RequestFeatures,
    RouteCandidate, RouteRequest, request_complexity, route_request,
};
use proptest::prelude::*;

use crate::route_model;

fn capabilities() -> impl Strategy<Value = Capabilities> {
    // Mostly none, so that most candidates are not rejected for this alone.
    prop_oneof![
        3 => Just(Capabilities::default()),
        1 => any::<[bool; 4]>().prop_map(|[tools, json, vision, audio]| {
            Capabilities { tools, json, vision, audio }
        }),
    ]
}

fn platform() -> impl Strategy<Value = KernelPlatform> {
    prop::sample::select(vec![
        KernelPlatform::Mlx,
        KernelPlatform::Ollama,
        KernelPlatform::LlamaCpp,
        KernelPlatform::OpenAiCompatible,
        KernelPlatform::CloudApi,
    ])
}

prop_compose! {
    fn candidate()(
        cloud in any::<bool>(),
        platform in platform(),
        declared_local in any::<bool>(),
        healthy in prop::bool::weighted(0.9),
        capabilities in capabilities(),
        price_in in prop_oneof![9 => 0..4u64, 1 => Just(PRICE_UNKNOWN)],
        price_out in 0..4u64,
        context_tokens in prop_oneof![Just(100u64), Just(1000), Just(u64::MAX)],
        latency_ms in prop::option::of(0..3u32),
        quality in prop::sample::select(vec![0, 400, 500, 600, 1000]),
    ) -> RouteCandidate {
        let provider_class = if cloud { ProviderClass::Cloud } else { ProviderClass::Local };
        RouteCandidate {
            provider_class, platform, declared_local, healthy, capabilities, price_in, price_out,
            context_tokens, latency_ms, quality,
        }
    }
}

prop_compose! {
    fn request(candidate_count: u32)(
        require_local in any::<bool>(),
        offline in any::<bool>(),
        capabilities in capabilities(),
        input_tokens in 0..150u64,
        max_output_tokens in 0..150u64,
        budget in prop::option::of(0..600u64),
        downgrade_line in prop_oneof![Just(0), 0..600u64],
        max_latency_ms in prop::option::of(1..3u32),
        complexity in prop::sample::select(vec![0, 500, 501, 1000]),
        pinned in prop::option::weighted(0.2, 0..candidate_count),
        preferred_platform in prop::option::of(platform()),
    ) -> RouteRequest {
        RouteRequest {
            require_local, offline, capabilities, input_tokens, max_output_tokens, budget,
            downgrade_line, max_latency_ms, complexity, pinned, preferred_platform,
        }
    }
}

fn question() -> impl Strategy<Value = (RouteRequest, Vec<RouteCandidate>)> {
    prop::collection::vec(candidate(), 1..24)
        .prop_flat_map(|candidates| (request(candidates.len() as u32), Just(candidates)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_decision_is_that_of_the_model((request, candidates) in question()) {
        let wanted = route_model::route(&request, &candidates);
        prop_assert_eq!(route_request(&request, &candidates), Ok(wanted));
    }

    /// Prices and tokens of any size: nothing overflows, and the budget holds.
    #[test]
    fn no_cost_above_the_budget_is_accepted(
        (mut request, mut candidates) in question(),
        tokens in any::<[u64; 2]>(),
        prices in prop::collection::vec(any::<[u64; 2]>(), 24),
    ) {
        [request.input_tokens, request.max_output_tokens] = tokens;
        for (candidate, price) in candidates.iter_mut().zip(prices) {
            [candidate.price_in, candidate.price_out] = price;
        }
        for decision in route_request(&request, &candidates).expect("every value is in range") {
            let exact = route_model::cost(&request, &candidates[decision.index as usize]);
            prop_assert_eq!(u128::from(decision.cost), exact.min(u128::from(u64::MAX)));
            if let (true, Some(budget)) = (decision.accepted, request.budget) {
                prop_assert!(exact <= u128::from(budget));
            }
        }
    }

    /// Privacy is hard, and so is being offline: neither a pin nor a price nor a declaration lets a
    /// cloud candidate through.
    #[test]
    fn nothing_leaves_the_premises(
        (mut request, candidates) in question(),
        is_private in any::<bool>(),
    ) {
        request.require_local |= is_private;
        request.offline |= !is_private;
        for decision in route_request(&request, &candidates).expect("every value is in range") {
            let candidate = &candidates[decision.index as usize];
            if decision.accepted {
                prop_assert_eq!(candidate.provider_class, ProviderClass::Local);
                prop_assert_ne!(candidate.platform, KernelPlatform::CloudApi);
                prop_assert!(route_model::is_local(candidate));
            }
        }
    }
}

#[test]
fn no_candidates_no_decisions() {
    assert_eq!(route_request(&RouteRequest::default(), &[]), Ok(vec![]));
}

#[test]
fn a_pin_on_nothing_is_refused() {
    for pinned in [0, u32::MAX] {
        let request = RouteRequest { pinned: Some(pinned), ..RouteRequest::default() };
        assert_eq!(route_request(&request, &[]), Err(KernelError::BadArgument));
    }
}

#[test]
fn complexity_grows_with_what_is_asked() {
    assert_eq!(request_complexity(&RequestFeatures::default()), 0);
    let chat =
        RequestFeatures { input_tokens: 600, max_output_tokens: 512, ..RequestFeatures::default() };
    assert_eq!(request_complexity(&chat), 2 * 40 + 30);
    let agent = RequestFeatures { tools: 4, schema_properties: 7, turns: 3, code: true, ..chat };
    assert_eq!(request_complexity(&agent), 110 + 4 * 25 + 7 * 5 + 3 * 5 + 150);
    let everything = RequestFeatures {
        input_tokens: u64::MAX,
        max_output_tokens: u64::MAX,
        tools: u32::MAX,
        schema_properties: u32::MAX,
        turns: u32::MAX,
        reasoning: true,
        code: true,
    };
    assert_eq!(request_complexity(&everything), 1000);
}
