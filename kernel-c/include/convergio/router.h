/*
** router.h: which model answers a request. Part of kernel.h, whose rules hold here too.
**
** A candidate is rejected for the first of these that holds: another one was pinned, it is not
** local although that is required (for privacy, or because we are offline), it lacks a capability,
** its context is too small, it is unhealthy, it is measured to be too slow, its price is unknown
** although there is a budget, its worst-case cost is above the budget left. That is the order of
** the reasons below, too. Privacy and offline are hard: a candidate that is not local is never
** accepted then, not even when it is pinned.
**
** The accepted ones are ordered by: known price first, preferred platform first, quality of at
** least the request's complexity first, lower cost, higher quality, lower latency (not measured
** last), lower index. With a budget below the request's downgrade line, lower cost comes right
** after the known price, whatever the complexity.
*/
#ifndef CONVERGIO_ROUTER_H
#define CONVERGIO_ROUTER_H

#include "kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CVG_CANDIDATES_MAX 65536u

enum cvg_provider_class { CVG_CLASS_LOCAL = 0, CVG_CLASS_CLOUD = 1 };

enum cvg_platform {
  CVG_PLATFORM_MLX = 0,
  CVG_PLATFORM_OLLAMA = 1,
  CVG_PLATFORM_LLAMACPP = 2,
  CVG_PLATFORM_OPENAI_COMPATIBLE = 3,
  CVG_PLATFORM_CLOUD_API = 4
};

enum cvg_capability {
  CVG_CAPABILITY_TOOLS = 1,
  CVG_CAPABILITY_JSON = 2,
  CVG_CAPABILITY_VISION = 4,
  CVG_CAPABILITY_AUDIO = 8
};

enum cvg_candidate_flag {
  CVG_CANDIDATE_HEALTHY = 1,
  CVG_CANDIDATE_DECLARED_LOCAL = 2 /* the operator vouches that its endpoint is local */
};

enum cvg_request_flag {
  CVG_REQUEST_LOCAL_ONLY = 1, /* nothing may leave the premises */
  CVG_REQUEST_OFFLINE = 2     /* there is no network */
};

enum cvg_reason {
  /* accepted */
  CVG_REASON_PINNED = 0,             /* it is the one that was asked for */
  CVG_REASON_PREFERRED_PLATFORM = 1, /* able enough, and on the platform preferred */
  CVG_REASON_CHEAPEST = 2,           /* able enough, and none such off that platform costs less */
  CVG_REASON_QUALITY = 3,            /* able enough, at a higher price */
  CVG_REASON_FALLBACK = 4,           /* less able than the request is complex */
  CVG_REASON_DOWNGRADED = 5,         /* the same, but the budget is low and it costs less */
  CVG_REASON_UNPRICED = 6,           /* nobody knows its price */
  /* rejected */
  CVG_REASON_NOT_REQUESTED = 256,
  CVG_REASON_NOT_LOCAL = 257,
  CVG_REASON_MISSING_CAPABILITY = 258,
  CVG_REASON_CONTEXT_TOO_SMALL = 259,
  CVG_REASON_UNHEALTHY = 260,
  CVG_REASON_OVER_BUDGET = 261,
  CVG_REASON_OFFLINE = 262,
  CVG_REASON_TOO_SLOW = 263,
  CVG_REASON_PRICE_UNKNOWN = 264
};

/* Capabilities, quality and complexity beyond these are CVG_BAD_ARGUMENT. */
#define CVG_CAPABILITIES_ALL 15u
#define CVG_QUALITY_MAX 1000u

/* A price that nobody knows. */
#define CVG_PRICE_UNKNOWN 0xFFFFFFFFFFFFFFFFu

/* A budget that nothing exceeds. */
#define CVG_BUDGET_NONE 0xFFFFFFFFFFFFFFFFu

/*
** A model that could answer. Prices are in 1e-15 currency units per token; if one of them is
** CVG_PRICE_UNKNOWN, so is the cost. A candidate counts as
** local if its class is local and its platform is MLX, Ollama or llama.cpp; an OpenAI-compatible
** endpoint of local class must be declared local besides; a cloud API never is.
*/
typedef struct cvg_candidate {
  uint64_t price_in;
  uint64_t price_out;
  uint64_t context_tokens;
  uint32_t provider_class; /* enum cvg_provider_class */
  uint32_t platform;       /* enum cvg_platform */
  uint32_t capabilities;   /* bits of enum cvg_capability */
  uint32_t flags;          /* bits of enum cvg_candidate_flag */
  uint32_t latency_ms;     /* measured, or CVG_NONE */
  uint32_t quality;        /* 0 to CVG_QUALITY_MAX */
} cvg_candidate;

typedef struct cvg_route_request {
  uint64_t input_tokens;       /* estimate */
  uint64_t max_output_tokens;  /* worst case */
  uint64_t budget;             /* what is left, in 1e-15 currency units, or CVG_BUDGET_NONE */
  uint32_t flags;              /* bits of enum cvg_request_flag */
  uint32_t capabilities;       /* needed: bits of enum cvg_capability */
  uint32_t complexity;         /* 0 to CVG_QUALITY_MAX */
  uint32_t pinned;             /* index of the only candidate wanted, or CVG_NONE */
  uint32_t preferred_platform; /* enum cvg_platform, or CVG_NONE */
  uint32_t max_latency_ms;     /* a candidate measured above is rejected; 0 = no limit */
  uint64_t downgrade_line;     /* below this budget price counts before ability; 0 = never */
} cvg_route_request;

typedef struct cvg_decision {
  uint64_t
      cost; /* worst case in 1e-15 currency units; saturates; largest if the price is unknown */
  uint32_t index;  /* of the candidate */
  uint32_t reason; /* enum cvg_reason */
} cvg_decision;

/*
** Decides over `count` candidates. Writes `count` decisions: first the accepted ones, best first,
** then the rejected ones by index; `accepted_count` tells how many are accepted. `candidates` and
** `decisions` may be null when count is 0. Allocates nothing. Any thread.
** Errors: BAD_ARGUMENT, TOO_LARGE.
*/
cvg_status cvg_route(const cvg_route_request *request, const cvg_candidate *candidates,
                     size_t count, cvg_decision *decisions, size_t *accepted_count);

/* What is known of a request before it is sent, to tell how complex it is. */
typedef struct cvg_features {
  uint64_t input_tokens;
  uint64_t max_output_tokens;
  uint32_t tools;             /* tools offered */
  uint32_t schema_properties; /* properties of the answer's schema, at all depths */
  uint32_t turns;             /* messages before this one */
  uint32_t flags;             /* bits of enum cvg_feature_flag */
} cvg_features;

enum cvg_feature_flag { CVG_FEATURE_REASONING = 1, CVG_FEATURE_CODE = 2 };

/*
** Writes the complexity of a request, 0 to CVG_QUALITY_MAX, as the sum of: 40 for each doubling of
** the input beyond 256 tokens (at most 320); 30 for each doubling of the output beyond 256 tokens
** (at most 180); 25 a tool (at most 200); 5 a property (at most 100); 5 a turn (at most 50); 200
** for reasoning; 150 for code. Any thread. Errors: BAD_ARGUMENT.
*/
cvg_status cvg_complexity(const cvg_features *features, uint32_t *out);

#ifdef __cplusplus
}
#endif

#endif
