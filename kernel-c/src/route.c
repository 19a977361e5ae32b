/*
** route.c: orders the models that may answer a request, and says why the others may not.
*/
#include "convergio/kernel.h"
#include "sort.h"

/*
** Stands for any reason to accept until the order is known, which tells the real one. What ranks
** an accepted candidate before its cost is added, so that the sort seldom looks at candidates.
*/
#define ACCEPTABLE 0u
#define RANK_NOT_ABLE 1u
#define RANK_NOT_PREFERRED 2u
#define RANK_UNPRICED 4u

/* What the sort needs to compare two decisions. */
typedef struct table {
  const cvg_route_request *request;
  const cvg_candidate *candidates;
} table;

static uint64_t add(uint64_t a, uint64_t b) {
  return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t multiply(uint64_t a, uint64_t b) {
  return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

static int unpriced(const cvg_candidate *candidate) {
  return candidate->price_in == CVG_PRICE_UNKNOWN || candidate->price_out == CVG_PRICE_UNKNOWN;
}

static uint64_t worst_cost(const cvg_route_request *request, const cvg_candidate *candidate) {
  if (unpriced(candidate)) return UINT64_MAX;
  return add(multiply(request->input_tokens, candidate->price_in),
             multiply(request->max_output_tokens, candidate->price_out));
}

/* A class alone is not trusted: the platform must bear it out. */
static int is_local(const cvg_candidate *candidate) {
  if (candidate->provider_class != CVG_CLASS_LOCAL) return 0;
  if (candidate->platform == CVG_PLATFORM_CLOUD_API) return 0;
  if (candidate->platform != CVG_PLATFORM_OPENAI_COMPATIBLE) return 1;
  return (candidate->flags & CVG_CANDIDATE_DECLARED_LOCAL) != 0;
}

static int able(const cvg_route_request *request, const cvg_candidate *candidate) {
  return candidate->quality >= request->complexity;
}

/* Whether the budget is so low that price counts before ability. */
static int downgraded(const cvg_route_request *request) {
  return request->budget < request->downgrade_line;
}

static int too_slow(const cvg_route_request *request, const cvg_candidate *candidate) {
  return request->max_latency_ms > 0 && candidate->latency_ms != CVG_NONE &&
         candidate->latency_ms > request->max_latency_ms;
}

static int preferred(const cvg_route_request *request, const cvg_candidate *candidate) {
  return candidate->platform == request->preferred_platform;
}

/* The first reason to reject a candidate, or ACCEPTABLE. */
static uint32_t objection(const cvg_route_request *request, const cvg_candidate *candidate,
                          uint32_t index, uint64_t cost) {
  uint64_t tokens = add(request->input_tokens, request->max_output_tokens);
  if (request->pinned != CVG_NONE && request->pinned != index) return CVG_REASON_NOT_REQUESTED;
  if (request->flags != 0 && !is_local(candidate)) {
    return request->flags & CVG_REQUEST_LOCAL_ONLY ? CVG_REASON_NOT_LOCAL : CVG_REASON_OFFLINE;
  }
  if ((request->capabilities & ~candidate->capabilities) != 0) {
    return CVG_REASON_MISSING_CAPABILITY;
  }
  if (tokens > candidate->context_tokens) return CVG_REASON_CONTEXT_TOO_SMALL;
  if ((candidate->flags & CVG_CANDIDATE_HEALTHY) == 0) return CVG_REASON_UNHEALTHY;
  if (too_slow(request, candidate)) return CVG_REASON_TOO_SLOW;
  if (unpriced(candidate) && request->budget != CVG_BUDGET_NONE) return CVG_REASON_PRICE_UNKNOWN;
  if (cost > request->budget) return CVG_REASON_OVER_BUDGET;
  return ACCEPTABLE;
}

static int rejected(const cvg_decision *decision) {
  return decision->reason >= CVG_REASON_NOT_REQUESTED;
}

static uint32_t rank(const cvg_route_request *request, const cvg_candidate *candidate) {
  uint32_t ability = (able(request, candidate) ? 0 : RANK_NOT_ABLE) |
                     (preferred(request, candidate) ? 0 : RANK_NOT_PREFERRED);
  if (unpriced(candidate)) return RANK_UNPRICED | ability;
  return downgraded(request) ? 0 : ability;
}

/* Of the same rank and cost; CVG_NONE, the largest value, sorts a latency not measured last. */
static int better(const table *t, const cvg_decision *left, const cvg_decision *right) {
  const cvg_candidate *a = &t->candidates[left->index], *b = &t->candidates[right->index];
  int a_preferred = preferred(t->request, a), b_preferred = preferred(t->request, b);
  int a_able = able(t->request, a), b_able = able(t->request, b);
  if (a_preferred != b_preferred) return a_preferred;
  if (a_able != b_able) return a_able;
  if (a->quality != b->quality) return a->quality > b->quality;
  if (a->latency_ms != b->latency_ms) return a->latency_ms < b->latency_ms;
  return left->index < right->index;
}

static int decision_before(const void *context, const void *left, const void *right) {
  const cvg_decision *a = left, *b = right;
  if (rejected(a) || rejected(b)) {
    return rejected(a) && rejected(b) ? a->index < b->index : rejected(b);
  }
  if (a->reason != b->reason) return a->reason < b->reason;
  return a->cost != b->cost ? a->cost < b->cost : better(context, a, b);
}

static uint32_t reason_to_accept(const table *t, const cvg_decision *decision, uint64_t cheapest) {
  const cvg_candidate *candidate = &t->candidates[decision->index];
  if (t->request->pinned != CVG_NONE) return CVG_REASON_PINNED;
  if (unpriced(candidate)) return CVG_REASON_UNPRICED;
  if (!able(t->request, candidate)) {
    return downgraded(t->request) ? CVG_REASON_DOWNGRADED : CVG_REASON_FALLBACK;
  }
  if (preferred(t->request, candidate)) return CVG_REASON_PREFERRED_PLATFORM;
  return decision->cost <= cheapest ? CVG_REASON_CHEAPEST : CVG_REASON_QUALITY;
}

/* The first able candidate off the preferred platform is the cheapest such, as they are sorted. */
static size_t explain(const table *t, cvg_decision *decisions, size_t count) {
  uint64_t cheapest = UINT64_MAX;
  size_t accepted = 0;
  while (accepted < count && !rejected(&decisions[accepted])) {
    cvg_decision *decision = &decisions[accepted++];
    decision->reason = reason_to_accept(t, decision, cheapest);
    if (decision->reason == CVG_REASON_CHEAPEST) cheapest = decision->cost;
  }
  return accepted;
}

static int request_valid(const cvg_route_request *request, size_t count) {
  uint32_t platform = request->preferred_platform;
  const uint32_t flags = CVG_REQUEST_LOCAL_ONLY | CVG_REQUEST_OFFLINE;
  return (request->flags & ~flags) == 0 && (request->capabilities & ~CVG_CAPABILITIES_ALL) == 0 &&
         request->complexity <= CVG_QUALITY_MAX &&
         (request->pinned == CVG_NONE || request->pinned < count) &&
         (platform == CVG_NONE || platform <= CVG_PLATFORM_CLOUD_API);
}

static int candidate_valid(const cvg_candidate *candidate) {
  const uint32_t flags = CVG_CANDIDATE_HEALTHY | CVG_CANDIDATE_DECLARED_LOCAL;
  return candidate->provider_class <= CVG_CLASS_CLOUD &&
         candidate->platform <= CVG_PLATFORM_CLOUD_API &&
         (candidate->capabilities & ~CVG_CAPABILITIES_ALL) == 0 &&
         (candidate->flags & ~flags) == 0 && candidate->quality <= CVG_QUALITY_MAX;
}

static int all_valid(const cvg_route_request *request, const cvg_candidate *candidates,
                     size_t count) {
  int valid = request_valid(request, count);
  for (size_t i = 0; i < count; i++) valid = valid && candidate_valid(&candidates[i]);
  return valid;
}

cvg_status cvg_route(const cvg_route_request *request, const cvg_candidate *candidates,
                     size_t count, cvg_decision *decisions, size_t *accepted_count) {
  if (request == NULL || accepted_count == NULL) return CVG_BAD_ARGUMENT;
  if (count > 0 && (candidates == NULL || decisions == NULL)) return CVG_BAD_ARGUMENT;
  if (count > CVG_CANDIDATES_MAX) return CVG_TOO_LARGE;
  if (!all_valid(request, candidates, count)) return CVG_BAD_ARGUMENT;
  for (uint32_t i = 0; i < count; i++) {
    cvg_decision *decision = &decisions[i];
    decision->cost = worst_cost(request, &candidates[i]);
    decision->index = i;
    decision->reason = objection(request, &candidates[i], i, decision->cost);
    if (decision->reason == ACCEPTABLE) decision->reason = rank(request, &candidates[i]);
  }
  const table t = {request, candidates};
  cvgi_sort(decisions, count, sizeof *decisions, decision_before, &t);
  *accepted_count = explain(&t, decisions, count);
  return CVG_OK;
}

/* How often `value` doubles beyond 256. */
static uint32_t doublings(uint64_t value) {
  uint32_t count = 0;
  while (value > 256) {
    value = value / 2 + value % 2;
    count++;
  }
  return count;
}

static uint32_t points(uint32_t count, uint32_t each, uint32_t most) {
  return count > most / each ? most : count * each;
}

cvg_status cvg_complexity(const cvg_features *features, uint32_t *out) {
  const uint32_t flags = CVG_FEATURE_REASONING | CVG_FEATURE_CODE;
  if (features == NULL || out == NULL || (features->flags & ~flags) != 0) return CVG_BAD_ARGUMENT;
  uint32_t sum = points(doublings(features->input_tokens), 40, 320) +
                 points(doublings(features->max_output_tokens), 30, 180) +
                 points(features->tools, 25, 200) + points(features->schema_properties, 5, 100) +
                 points(features->turns, 5, 50);
  if (features->flags & CVG_FEATURE_REASONING) sum += 200;
  if (features->flags & CVG_FEATURE_CODE) sum += 150;
  *out = sum < CVG_QUALITY_MAX ? sum : CVG_QUALITY_MAX;
  return CVG_OK;
}
