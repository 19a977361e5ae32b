/*
** status.c: the text of each status.
*/
#include "convergio/kernel.h"

const char *cvg_status_text(cvg_status status) {
  switch (status) {
    case CVG_OK: return "success";
    case CVG_NO_MEMORY: return "out of memory";
    case CVG_BAD_ARGUMENT: return "an argument is null or outside its range";
    case CVG_TOO_LARGE: return "the input is larger than the kernel's limit";
    case CVG_ABI_MISMATCH: return "caller and kernel were built from different headers";
    case CVG_BAD_NODE: return "no node has this index";
    case CVG_BAD_EDGE: return "an edge names a node that does not exist";
    case CVG_DUPLICATE_EDGE: return "the same edge is given twice";
    case CVG_CYCLE: return "a node waits for itself through a cycle of edges and fallbacks";
    case CVG_BAD_JOIN: return "a join asks for more in-edges than the node has";
    case CVG_BAD_FALLBACK: return "a fallback must be another node, and given only if it is used";
    case CVG_NOT_READY: return "the node is not in flight";
    case CVG_NOT_EXPANDED: return "the node has no items";
    case CVG_ALREADY_EXPANDED: return "the node has items or a body, which complete it";
    case CVG_ITEM_NOT_READY: return "the item is not in flight";
    case CVG_RUN_ENDED: return "the run has failed and starts nothing more";
    case CVG_BAD_STATE: return "the states cannot come from a run of this graph";
    case CVG_BAD_SCOPE: return "a body leaves its scope, an edge crosses one, or there is no body";
    case CVG_ITERATION_LIMIT: return "the scope has had all its iterations";
    case CVG_NOT_ASKING: return "the node asks nothing";
    case CVG_BUFFER_TOO_SMALL: return "the answer does not fit into the room given";
    case CVG_BAD_BYTES: return "the bytes are damaged, or of another format, version or graph";
    case CVG_BAD_JSON: return "the text is not JSON within the reader's limits";
    case CVG_BAD_SCHEMA: return "the schema is not of the subset that can be compiled";
    case CVG_MISMATCH: return "the arguments break the schema";
    case CVG_DENIED: return "the permissions do not cover the call";
    case CVG_UNKNOWN_TOOL: return "no built-in tool has this name";
    case CVG_TOOL_FAILED: return "the tool has no answer for these arguments";
  }
  return "unknown status";
}
