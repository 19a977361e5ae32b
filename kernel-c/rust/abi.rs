//! The ABI that the wrapper was built against, to be compared with the library's.

use crate::bindings as c;

/// Size of a type; one that does not fit becomes a value that matches no size of the library.
fn size_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// Version and struct sizes as the wrapper was built with.
pub(crate) fn caller_abi() -> c::cvg_abi {
    c::cvg_abi {
        version: c::CVG_ABI_VERSION,
        allocator_size: size_u32::<c::cvg_allocator>(),
        node_spec_size: size_u32::<c::cvg_node_spec>(),
        edge_spec_size: size_u32::<c::cvg_edge_spec>(),
        node_state_size: size_u32::<c::cvg_node_state>(),
        delta_view_size: size_u32::<c::cvg_delta_view>(),
        candidate_size: size_u32::<c::cvg_candidate>(),
        route_request_size: size_u32::<c::cvg_route_request>(),
        decision_size: size_u32::<c::cvg_decision>(),
        features_size: size_u32::<c::cvg_features>(),
        text_size: size_u32::<c::cvg_text>(),
        violation_size: size_u32::<c::cvg_violation>(),
        permission_size: size_u32::<c::cvg_permission>(),
        tool_size: size_u32::<c::cvg_tool>(),
        memory_item_size: size_u32::<c::cvg_memory_item>(),
        query_size: size_u32::<c::cvg_query>(),
        weights_size: size_u32::<c::cvg_weights>(),
        recalled_size: size_u32::<c::cvg_recalled>(),
    }
}
