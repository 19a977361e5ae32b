/*
** route_test.c: who may answer, in which order, and why.
*/
#include <stdio.h>

#include "check.h"

/* A healthy local model on Ollama that costs nothing and holds 8,192 tokens. */
static cvg_candidate local_model(uint32_t quality) {
  const cvg_candidate candidate = {.context_tokens = 8192,
                                   .provider_class = CVG_CLASS_LOCAL,
                                   .platform = CVG_PLATFORM_OLLAMA,
                                   .flags = CVG_CANDIDATE_HEALTHY,
                                   .latency_ms = CVG_NONE,
                                   .quality = quality};
  return candidate;
}

static cvg_candidate cloud_model(uint32_t quality, uint64_t price) {
  cvg_candidate candidate = local_model(quality);
  candidate.provider_class = CVG_CLASS_CLOUD;
  candidate.platform = CVG_PLATFORM_CLOUD_API;
  candidate.price_in = price;
  candidate.price_out = price;
  return candidate;
}

static cvg_route_request plain_request(void) {
  const cvg_route_request request = {.input_tokens = 1000,
                                     .max_output_tokens = 1000,
                                     .budget = CVG_BUDGET_NONE,
                                     .pinned = CVG_NONE,
                                     .preferred_platform = CVG_NONE};
  return request;
}

static const char *reason_text(uint32_t reason) {
  switch (reason) {
    case CVG_REASON_PINNED: return "pinned";
    case CVG_REASON_PREFERRED_PLATFORM: return "platform";
    case CVG_REASON_CHEAPEST: return "cheapest";
    case CVG_REASON_QUALITY: return "quality";
    case CVG_REASON_FALLBACK: return "fallback";
    case CVG_REASON_NOT_REQUESTED: return "not-requested";
    case CVG_REASON_NOT_LOCAL: return "not-local";
    case CVG_REASON_MISSING_CAPABILITY: return "capability";
    case CVG_REASON_CONTEXT_TOO_SMALL: return "context";
    case CVG_REASON_UNHEALTHY: return "unhealthy";
    case CVG_REASON_OVER_BUDGET: return "budget";
    case CVG_REASON_DOWNGRADED: return "downgraded";
    case CVG_REASON_UNPRICED: return "unpriced";
    case CVG_REASON_OFFLINE: return "offline";
    case CVG_REASON_TOO_SLOW: return "slow";
    case CVG_REASON_PRICE_UNKNOWN: return "no-price";
    default: return "?";
  }
}

/* The decisions as text, like "1 cheapest, 0 quality | 2 budget". */
static const char *routed(const cvg_route_request *request, const cvg_candidate *candidates,
                          size_t count) {
  static char text[256];
  cvg_decision decisions[8];
  size_t accepted = 0, used = 0;
  text[0] = '\0';
  CHECK_STATUS(cvg_route(request, candidates, count, decisions, &accepted), CVG_OK);
  for (size_t i = 0; i < count; i++) {
    const char *before = i == accepted ? "| " : i == 0 ? "" : ", ";
    if (i == accepted && i > 0) before = " | ";
    used += (size_t)snprintf(text + used, sizeof text - used, "%s%u %s", before, decisions[i].index,
                             reason_text(decisions[i].reason));
  }
  return text;
}

static void the_cheapest_able_model_comes_first(void) {
  const cvg_candidate candidates[] = {cloud_model(900, 9), local_model(300), cloud_model(700, 5),
                                      cloud_model(800, 5), cloud_model(950, 7)};
  cvg_route_request request = plain_request();
  request.complexity = 600;
  CHECK_TEXT(routed(&request, candidates, 5),
             "3 cheapest, 2 cheapest, 4 quality, 0 quality, 1 fallback");
}

static void the_preferred_platform_comes_before_the_others(void) {
  cvg_candidate candidates[] = {cloud_model(900, 5), local_model(300), local_model(700)};
  cvg_route_request request = plain_request();
  candidates[2].platform = CVG_PLATFORM_MLX;
  request.complexity = 600;
  request.preferred_platform = CVG_PLATFORM_OLLAMA;
  CHECK_TEXT(routed(&request, candidates, 3), "1 fallback, 2 cheapest, 0 quality");
  candidates[1].quality = 600;
  CHECK_TEXT(routed(&request, candidates, 3), "1 platform, 2 cheapest, 0 quality");
}

static void ties_fall_to_quality_then_latency_then_index(void) {
  cvg_candidate candidates[] = {local_model(500), local_model(500), local_model(500),
                                local_model(500), local_model(501)};
  const cvg_route_request request = plain_request();
  candidates[2].latency_ms = 80;
  candidates[3].latency_ms = 20;
  CHECK_TEXT(routed(&request, candidates, 5),
             "4 cheapest, 3 cheapest, 2 cheapest, 0 cheapest, 1 cheapest");
}

static void only_what_is_proven_local_is_local(void) {
  cvg_candidate candidates[] = {cloud_model(900, 1), local_model(100), local_model(100),
                                local_model(100), local_model(100)};
  cvg_route_request request = plain_request();
  candidates[0].flags |= CVG_CANDIDATE_DECLARED_LOCAL;
  candidates[2].platform = CVG_PLATFORM_OPENAI_COMPATIBLE;
  candidates[3].platform = CVG_PLATFORM_OPENAI_COMPATIBLE;
  candidates[3].flags |= CVG_CANDIDATE_DECLARED_LOCAL;
  candidates[4].platform = CVG_PLATFORM_CLOUD_API;
  candidates[4].flags |= CVG_CANDIDATE_DECLARED_LOCAL;
  request.flags = CVG_REQUEST_LOCAL_ONLY;
  CHECK_TEXT(routed(&request, candidates, 5),
             "1 cheapest, 3 cheapest | 0 not-local, 2 not-local, 4 not-local");
}

static void each_objection_is_named(void) {
  cvg_candidate candidates[] = {local_model(500), local_model(500), local_model(500),
                                cloud_model(500, 1000), local_model(500)};
  cvg_route_request request = plain_request();
  request.capabilities = CVG_CAPABILITY_TOOLS | CVG_CAPABILITY_JSON;
  request.budget = 1999999;
  for (size_t i = 1; i < 5; i++) candidates[i].capabilities = CVG_CAPABILITIES_ALL;
  candidates[0].capabilities = CVG_CAPABILITY_TOOLS;
  candidates[1].context_tokens = 1999;
  candidates[2].flags = 0;
  CHECK_TEXT(routed(&request, candidates, 5),
             "4 cheapest | 0 capability, 1 context, 2 unhealthy, 3 budget");
  request.budget++;
  CHECK_TEXT(routed(&request, candidates, 5),
             "4 cheapest, 3 quality | 0 capability, 1 context, 2 unhealthy");
}

static void a_pin_leaves_no_other_choice(void) {
  cvg_candidate candidates[] = {local_model(900), cloud_model(100, 3)};
  cvg_route_request request = plain_request();
  request.pinned = 1;
  request.complexity = 1000;
  CHECK_TEXT(routed(&request, candidates, 2), "1 pinned | 0 not-requested");
  request.flags = CVG_REQUEST_LOCAL_ONLY;
  CHECK_TEXT(routed(&request, candidates, 2), "| 0 not-requested, 1 not-local");
}

static void costs_do_not_overflow(void) {
  const cvg_candidate candidates[] = {cloud_model(1, UINT64_MAX - 1),
                                      cloud_model(1, UINT64_MAX / 4)};
  cvg_route_request request = plain_request();
  cvg_decision decisions[2];
  size_t accepted = 0;
  request.budget = UINT64_MAX - 1;
  CHECK_TEXT(routed(&request, candidates, 2), "| 0 budget, 1 budget");
  request.budget = CVG_BUDGET_NONE;
  CHECK_STATUS(cvg_route(&request, candidates, 2, decisions, &accepted), CVG_OK);
  CHECK(accepted == 2);
  CHECK(decisions[0].cost == UINT64_MAX);
  request.input_tokens = UINT64_MAX;
  CHECK_TEXT(routed(&request, candidates, 2), "| 0 context, 1 context");
}

static cvg_status route_one(const cvg_route_request *request, const cvg_candidate *candidate) {
  cvg_decision decision;
  size_t accepted = 0;
  return cvg_route(request, candidate, 1, &decision, &accepted);
}

static void requests_out_of_range_are_refused(void) {
  const cvg_candidate good = local_model(500);
  cvg_route_request requests[5];
  for (size_t i = 0; i < COUNT(requests); i++) requests[i] = plain_request();
  requests[0].flags = 4;
  requests[1].capabilities = 16;
  requests[2].complexity = 1001;
  requests[3].pinned = 1;
  requests[4].preferred_platform = 5;
  for (size_t i = 0; i < COUNT(requests); i++) {
    CHECK_STATUS(route_one(&requests[i], &good), CVG_BAD_ARGUMENT);
  }
}

static void candidates_out_of_range_are_refused(void) {
  const cvg_route_request request = plain_request();
  cvg_candidate candidates[5];
  for (size_t i = 0; i < COUNT(candidates); i++) candidates[i] = local_model(500);
  candidates[0].provider_class = 2;
  candidates[1].platform = 5;
  candidates[2].capabilities = 16;
  candidates[3].flags = 4;
  candidates[4].quality = 1001;
  for (size_t i = 0; i < COUNT(candidates); i++) {
    CHECK_STATUS(route_one(&request, &candidates[i]), CVG_BAD_ARGUMENT);
  }
}

static void null_and_too_much_are_refused(void) {
  const cvg_candidate good = local_model(500);
  const cvg_route_request request = plain_request();
  cvg_decision decision;
  size_t accepted = 7;
  CHECK_STATUS(cvg_route(NULL, &good, 1, &decision, &accepted), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_route(&request, NULL, 1, &decision, &accepted), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_route(&request, &good, 1, NULL, &accepted), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_route(&request, &good, 1, &decision, NULL), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_route(&request, &good, CVG_CANDIDATES_MAX + 1, &decision, &accepted),
               CVG_TOO_LARGE);
  CHECK(accepted == 7);
  CHECK_STATUS(cvg_route(&request, NULL, 0, NULL, &accepted), CVG_OK);
  CHECK(accepted == 0);
}

static void a_low_budget_brings_cheaper_models_forward(void) {
  const cvg_candidate candidates[] = {cloud_model(900, 9), cloud_model(500, 2), local_model(100)};
  cvg_route_request request = plain_request();
  request.complexity = 800;
  request.budget = 20000;
  request.downgrade_line = 20000;
  CHECK_TEXT(routed(&request, candidates, 3), "0 cheapest, 2 fallback, 1 fallback");
  request.budget = 19999;
  CHECK_TEXT(routed(&request, candidates, 3), "2 downgraded, 1 downgraded, 0 cheapest");
}

static void what_has_no_price_comes_last_or_not_at_all(void) {
  const cvg_candidate candidates[] = {cloud_model(900, CVG_PRICE_UNKNOWN), cloud_model(100, 9)};
  cvg_route_request request = plain_request();
  request.complexity = 800;
  CHECK_TEXT(routed(&request, candidates, 2), "1 fallback, 0 unpriced");
  request.budget = 1000000;
  CHECK_TEXT(routed(&request, candidates, 2), "1 fallback | 0 no-price");
  request.pinned = 0;
  CHECK_TEXT(routed(&request, candidates, 2), "| 0 no-price, 1 not-requested");
  request.budget = CVG_BUDGET_NONE;
  CHECK_TEXT(routed(&request, candidates, 2), "0 pinned | 1 not-requested");
}

static void offline_only_local_models_answer(void) {
  const cvg_candidate candidates[] = {cloud_model(900, 0), local_model(100)};
  cvg_route_request request = plain_request();
  request.flags = CVG_REQUEST_OFFLINE;
  CHECK_TEXT(routed(&request, candidates, 2), "1 cheapest | 0 offline");
  request.flags |= CVG_REQUEST_LOCAL_ONLY;
  CHECK_TEXT(routed(&request, candidates, 2), "1 cheapest | 0 not-local");
}

static void models_measured_too_slow_are_left_out(void) {
  cvg_candidate candidates[] = {local_model(100), local_model(100), local_model(100)};
  cvg_route_request request = plain_request();
  candidates[0].latency_ms = 501;
  candidates[1].latency_ms = 500;
  request.max_latency_ms = 500;
  CHECK_TEXT(routed(&request, candidates, 3), "1 cheapest, 2 cheapest | 0 slow");
}

static void unknown_features_have_no_complexity(void) {
  const cvg_features odd = {.flags = 4};
  uint32_t complexity = 0;
  CHECK_STATUS(cvg_complexity(&odd, &complexity), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_complexity(NULL, &complexity), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_complexity(&odd, NULL), CVG_BAD_ARGUMENT);
}

const test_case route_tests[] = {
    {"the_cheapest_able_model_comes_first", the_cheapest_able_model_comes_first},
    {"the_preferred_platform_comes_before_the_others",
     the_preferred_platform_comes_before_the_others},
    {"ties_fall_to_quality_then_latency_then_index", ties_fall_to_quality_then_latency_then_index},
    {"only_what_is_proven_local_is_local", only_what_is_proven_local_is_local},
    {"each_objection_is_named", each_objection_is_named},
    {"a_pin_leaves_no_other_choice", a_pin_leaves_no_other_choice},
    {"costs_do_not_overflow", costs_do_not_overflow},
    {"requests_out_of_range_are_refused", requests_out_of_range_are_refused},
    {"candidates_out_of_range_are_refused", candidates_out_of_range_are_refused},
    {"null_and_too_much_are_refused (route)", null_and_too_much_are_refused},
    {"a_low_budget_brings_cheaper_models_forward", a_low_budget_brings_cheaper_models_forward},
    {"what_has_no_price_comes_last_or_not_at_all", what_has_no_price_comes_last_or_not_at_all},
    {"offline_only_local_models_answer", offline_only_local_models_answer},
    {"models_measured_too_slow_are_left_out", models_measured_too_slow_are_left_out},
    {"unknown_features_have_no_complexity", unknown_features_have_no_complexity},
    {NULL, NULL},
};
