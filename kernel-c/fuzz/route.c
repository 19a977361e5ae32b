/*
** route.c: every candidate is decided once, in order, and nothing leaves where nothing may.
*/
#include "fuzz.h"

#define CANDIDATES 40u

static cvg_candidate take_candidate(bytes *b) {
  uint8_t kind = take(b);
  return (cvg_candidate){.price_in = take_number(b),
                         .price_out = take_number(b),
                         .context_tokens = take_number(b),
                         .provider_class = kind & 1,
                         .platform = kind >> 1 & 7,
                         .capabilities = take(b) & 31,
                         .flags = kind >> 4 & 7,
                         .latency_ms = (uint32_t)take_number(b),
                         .quality = (uint32_t)take_number(b) * 4};
}

static cvg_route_request take_request(bytes *b, size_t count) {
  uint8_t kind = take(b);
  uint32_t pinned = kind & 8 ? take_below(b, (uint32_t)count + 1) : CVG_NONE;
  return (cvg_route_request){.input_tokens = take_number(b),
                             .max_output_tokens = take_number(b),
                             .budget = take_number(b),
                             .flags = kind & 7,
                             .capabilities = take(b) & 31,
                             .complexity = (uint32_t)take_number(b) * 4,
                             .pinned = pinned,
                             .preferred_platform = kind & 16 ? kind >> 5 : CVG_NONE,
                             .max_latency_ms = (uint32_t)take_number(b),
                             .downgrade_line = take_number(b)};
}

static void check(const cvg_route_request *request, const cvg_candidate *candidates, size_t count,
                  const cvg_decision *decisions, size_t accepted) {
  uint64_t seen = 0;
  for (size_t i = 0; i < count; i++) {
    const cvg_decision *decision = &decisions[i];
    const cvg_candidate *candidate = &candidates[decision->index];
    MUST(decision->index < count && (seen >> decision->index & 1) == 0);
    seen |= (uint64_t)1 << decision->index;
    MUST((decision->reason >= CVG_REASON_NOT_REQUESTED) == (i >= accepted));
    if (i >= accepted) continue;
    if (request->flags != 0) MUST(candidate->provider_class == CVG_CLASS_LOCAL);
    if (request->flags != 0) MUST(candidate->platform != CVG_PLATFORM_CLOUD_API);
    MUST(decision->cost <= request->budget);
    MUST(candidate->flags & CVG_CANDIDATE_HEALTHY);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes b = {data, size};
  cvg_candidate candidates[CANDIDATES];
  cvg_decision decisions[CANDIDATES];
  size_t accepted = 0, count = take_below(&b, CANDIDATES + 1);
  const cvg_features features = {take_number(&b), take_number(&b), take(&b),
                                 take(&b),        take(&b),        take_below(&b, 5)};
  uint32_t complexity = 0;
  if (cvg_complexity(&features, &complexity) == CVG_OK) MUST(complexity <= CVG_QUALITY_MAX);
  const cvg_route_request request = take_request(&b, count);
  for (size_t i = 0; i < count; i++) candidates[i] = take_candidate(&b);
  if (cvg_route(&request, candidates, count, decisions, &accepted) == CVG_OK) {
    check(&request, candidates, count, decisions, accepted);
  }
  return 0;
}
