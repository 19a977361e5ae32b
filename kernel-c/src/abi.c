/*
** abi.c: do caller and library agree on the header?
*/
#include "convergio/kernel.h"

uint32_t cvg_abi_version(void) {
  return CVG_ABI_VERSION;
}

cvg_status cvg_abi_check(const cvg_abi *caller, size_t size) {
  const cvg_abi own = CVG_ABI_OF_CALLER;
  if (caller == NULL) return CVG_BAD_ARGUMENT;
  /* The struct itself may differ, so its size is compared before its fields are read. */
  if (size != sizeof own) return CVG_ABI_MISMATCH;
  int same = caller->version == own.version && caller->allocator_size == own.allocator_size &&
             caller->node_spec_size == own.node_spec_size &&
             caller->edge_spec_size == own.edge_spec_size &&
             caller->node_state_size == own.node_state_size &&
             caller->delta_view_size == own.delta_view_size &&
             caller->candidate_size == own.candidate_size &&
             caller->route_request_size == own.route_request_size &&
             caller->decision_size == own.decision_size;
  return same ? CVG_OK : CVG_ABI_MISMATCH;
}
