//! The border to C: every line of hand-written unsafe code.
//!
//! Each handle of the C interface is one type here. It owns its handle, frees it on drop, and has
//! safe methods that uphold what the header asks of the caller.
#![expect(unsafe_code, reason = "this is the one file that may call C")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::slice;

use crate::bindings as c;
use crate::error::{CompileError, KernelError};
use crate::scheduler::{Delta, RawState, Ready, RunResult};

/// Enough for any C object on the targets we build for.
const ALIGNMENT: usize = 16;

/// The kernel's allocator: Rust's own, so that C memory is Rust memory.
const ALLOCATOR: c::cvg_allocator =
    c::cvg_allocator { allocate: Some(allocate), release: Some(release), context: ptr::null_mut() };

extern "C" fn allocate(_context: *mut c_void, size: usize) -> *mut c_void {
    #[cfg(test)]
    if !crate::heap::grant() {
        return ptr::null_mut();
    }
    match Layout::from_size_align(size, ALIGNMENT) {
        // SAFETY: the layout is not empty.
        Ok(layout) if size > 0 => unsafe { alloc(layout) }.cast(),
        _ => ptr::null_mut(),
    }
}

extern "C" fn release(_context: *mut c_void, block: *mut c_void, size: usize) {
    #[cfg(test)]
    crate::heap::take_back();
    if let Ok(layout) = Layout::from_size_align(size, ALIGNMENT) {
        // SAFETY: C gives back a block of `allocate` with the size it asked for, so `block` was
        // allocated with this very layout.
        unsafe { dealloc(block.cast(), layout) };
    }
}

/// The English text of a status.
pub(crate) fn status_text(status: c::cvg_status) -> &'static str {
    // SAFETY: the function takes any value and returns a constant, terminated string.
    let text = unsafe { CStr::from_ptr(c::cvg_status_text(status)) };
    text.to_str().unwrap_or("unknown status")
}

/// Whether library and wrapper were built from the same header.
pub(crate) fn check_abi() -> Result<(), KernelError> {
    let caller = c::cvg_abi {
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
    };
    // SAFETY: `caller` is a valid struct of the size given, read during the call only.
    KernelError::check(unsafe { c::cvg_abi_check(&raw const caller, size_of::<c::cvg_abi>()) })
}

/// A size that does not fit can match no size of the library.
fn size_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// A handle that C has just written after reporting success.
fn handle<T>(written: *mut T) -> Result<NonNull<T>, KernelError> {
    NonNull::new(written).ok_or(KernelError::AbiMismatch)
}

const NO_FAULT: c::cvg_fault = c::cvg_fault { node: c::CVG_NONE, edge: c::CVG_NONE };

fn check_at(status: c::cvg_status, fault: c::cvg_fault) -> Result<(), CompileError> {
    let index = |value: u32| (value != c::CVG_NONE).then_some(value);
    KernelError::check(status).map_err(|kind| CompileError {
        kind,
        node: index(fault.node),
        edge: index(fault.edge),
    })
}

/// Owns a compiled graph.
#[derive(Debug)]
pub(crate) struct RawGraph(NonNull<c::cvg_graph>);

// SAFETY: a compiled graph never changes, any thread may read it at any time, and it may be freed
// on any thread because the allocator is Rust's.
unsafe impl Send for RawGraph {}
// SAFETY: as for Send; every function that takes a shared graph only reads it.
unsafe impl Sync for RawGraph {}

impl RawGraph {
    pub(crate) fn compile(
        nodes: &[c::cvg_node_spec],
        edges: &[c::cvg_edge_spec],
    ) -> Result<Self, CompileError> {
        check_abi()?;
        let mut out = ptr::null_mut();
        let mut fault = NO_FAULT;
        // SAFETY: the slices are valid for their lengths and read during the call only; `out` and
        // `fault` are valid for writes.
        let status = unsafe {
            c::cvg_graph_compile(
                &ALLOCATOR,
                nodes.as_ptr(),
                nodes.len(),
                edges.as_ptr(),
                edges.len(),
                &raw mut out,
                &raw mut fault,
            )
        };
        check_at(status, fault)?;
        Ok(Self(handle(out)?))
    }

    pub(crate) fn node_count(&self) -> u32 {
        // SAFETY: the handle is live while `self` is.
        unsafe { c::cvg_graph_node_count(self.0.as_ptr()) }
    }

    pub(crate) fn edge_count(&self) -> u32 {
        // SAFETY: the handle is live while `self` is.
        unsafe { c::cvg_graph_edge_count(self.0.as_ptr()) }
    }

    pub(crate) fn hash(&self) -> u64 {
        let mut hash = 0;
        // SAFETY: the handle is live and `hash` is valid for writes; neither is null, so the call
        // cannot fail.
        unsafe { c::cvg_graph_hash(self.0.as_ptr(), &raw mut hash) };
        hash
    }
}

impl Drop for RawGraph {
    fn drop(&mut self) {
        // SAFETY: the handle is freed once, and schedulers keep their graph alive (see RawSched).
        unsafe { c::cvg_graph_free(self.0.as_ptr()) }
    }
}

/// Owns the lists that a scheduler call fills.
#[derive(Debug)]
pub(crate) struct RawDelta(NonNull<c::cvg_delta>);

// SAFETY: a delta refers to nothing but its own memory, which may be freed on any thread.
unsafe impl Send for RawDelta {}
// SAFETY: through a shared reference a delta is only read.
unsafe impl Sync for RawDelta {}

impl RawDelta {
    pub(crate) fn new() -> Result<Self, KernelError> {
        let mut out = ptr::null_mut();
        // SAFETY: `out` is valid for writes.
        KernelError::check(unsafe { c::cvg_delta_new(&ALLOCATOR, &raw mut out) })?;
        Ok(Self(handle(out)?))
    }

    /// A copy of what the last call changed.
    pub(crate) fn read(&self) -> Delta {
        let mut view = c::cvg_delta_view {
            ready: ptr::null(),
            ready_count: 0,
            skipped: ptr::null(),
            skipped_count: 0,
            cancelled: ptr::null(),
            cancelled_count: 0,
            asking: c::CVG_NONE,
            result: c::CVG_RUN_RUNNING,
        };
        // SAFETY: the handle is live and `view` is valid for writes; neither is null, so the call
        // cannot fail.
        unsafe { c::cvg_delta_read(self.0.as_ptr(), &raw mut view) };
        // SAFETY: C fills the arrays to the counts given, and they hold until the delta is next
        // written, for which `&mut self` is needed.
        let (ready, skipped, cancelled) = unsafe {
            (
                array(view.ready, view.ready_count),
                array(view.skipped, view.skipped_count),
                array(view.cancelled, view.cancelled_count),
            )
        };
        Delta {
            ready: ready.iter().map(Ready::from_raw).collect(),
            skipped: skipped.to_vec(),
            cancelled: cancelled.to_vec(),
            asking: (view.asking != c::CVG_NONE).then_some(view.asking),
            result: RunResult::from_raw(view.result),
        }
    }
}

/// A C array as a slice; C may give null for an empty one, a slice may not.
///
/// # Safety
/// Unless `count` is 0, `first` points to `count` initialised values that do not change during 'a.
unsafe fn array<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: what the caller promises.
    unsafe { slice::from_raw_parts(first, count) }
}

impl Clone for RawDelta {
    /// An empty delta: its content belongs to the call that filled it.
    fn clone(&self) -> Self {
        Self::new().unwrap_or_else(|_| out_of_memory::<c::cvg_delta>())
    }
}

impl Drop for RawDelta {
    fn drop(&mut self) {
        // SAFETY: the handle is freed once.
        unsafe { c::cvg_delta_free(self.0.as_ptr()) }
    }
}

/// Owns a scheduler. Whoever holds one keeps its graph alive for longer.
#[derive(Debug)]
pub(crate) struct RawSched(NonNull<c::cvg_sched>);

// SAFETY: a scheduler may be used on any thread, one at a time, and the graph that it refers to is
// shared freely between threads.
unsafe impl Send for RawSched {}
// SAFETY: through a shared reference a scheduler is only read, which any threads may do at once.
unsafe impl Sync for RawSched {}

impl RawSched {
    pub(crate) fn start(graph: &RawGraph, delta: &mut RawDelta) -> Result<Self, KernelError> {
        let mut out = ptr::null_mut();
        // SAFETY: graph and delta are live handles; `out` is valid for writes.
        KernelError::check(unsafe {
            c::cvg_sched_start(graph.0.as_ptr(), &ALLOCATOR, &raw mut out, delta.0.as_ptr())
        })?;
        Ok(Self(handle(out)?))
    }

    pub(crate) fn restore(
        graph: &RawGraph,
        states: &[RawState<'_>],
        delta: &mut RawDelta,
    ) -> Result<Self, CompileError> {
        let states: Vec<c::cvg_node_state> =
            states.iter().map(node_state).collect::<Result<_, _>>()?;
        let mut out = ptr::null_mut();
        let mut fault = NO_FAULT;
        // SAFETY: graph and delta are live handles; the states are valid for their number, and so
        // are the item arrays behind them, whose borrow outlives the call; `out` and `fault` are
        // valid for writes.
        let status = unsafe {
            c::cvg_sched_restore(
                graph.0.as_ptr(),
                &ALLOCATOR,
                states.as_ptr(),
                states.len(),
                &raw mut out,
                delta.0.as_ptr(),
                &raw mut fault,
            )
        };
        check_at(status, fault)?;
        Ok(Self(handle(out)?))
    }

    pub(crate) fn complete(
        &mut self,
        node: u32,
        outcome: c::cvg_outcome,
        delta: &mut RawDelta,
    ) -> Result<(), KernelError> {
        // SAFETY: both handles are live and, being borrowed mutably, in no other use.
        KernelError::check(unsafe {
            c::cvg_sched_complete(self.0.as_ptr(), node, outcome, delta.0.as_ptr())
        })
    }

    pub(crate) fn expand(
        &mut self,
        node: u32,
        width: u32,
        max_parallel: u32,
        delta: &mut RawDelta,
    ) -> Result<(), KernelError> {
        // SAFETY: both handles are live and, being borrowed mutably, in no other use.
        KernelError::check(unsafe {
            c::cvg_sched_expand(self.0.as_ptr(), node, width, max_parallel, delta.0.as_ptr())
        })
    }

    pub(crate) fn complete_item(
        &mut self,
        node: u32,
        item: u32,
        outcome: c::cvg_outcome,
        delta: &mut RawDelta,
    ) -> Result<(), KernelError> {
        // SAFETY: both handles are live and, being borrowed mutably, in no other use.
        KernelError::check(unsafe {
            c::cvg_sched_complete_item(self.0.as_ptr(), node, item, outcome, delta.0.as_ptr())
        })
    }

    pub(crate) fn iterate(&mut self, node: u32, delta: &mut RawDelta) -> Result<(), KernelError> {
        // SAFETY: both handles are live and, being borrowed mutably, in no other use.
        KernelError::check(unsafe { c::cvg_sched_iterate(self.0.as_ptr(), node, delta.0.as_ptr()) })
    }

    pub(crate) fn answer(
        &mut self,
        node: u32,
        answer: c::cvg_answer,
        delta: &mut RawDelta,
    ) -> Result<(), KernelError> {
        // SAFETY: both handles are live and, being borrowed mutably, in no other use.
        KernelError::check(unsafe {
            c::cvg_sched_answer(self.0.as_ptr(), node, answer, delta.0.as_ptr())
        })
    }

    pub(crate) fn cancel(&mut self, delta: &mut RawDelta) -> Result<(), KernelError> {
        // SAFETY: both handles are live and, being borrowed mutably, in no other use.
        KernelError::check(unsafe { c::cvg_sched_cancel(self.0.as_ptr(), delta.0.as_ptr()) })
    }

    pub(crate) fn save(&self) -> Result<Vec<u8>, KernelError> {
        // SAFETY: the handle is live; what `write` is given is valid for `room` writes.
        fill(|bytes, room, size| unsafe { c::cvg_sched_save(self.0.as_ptr(), bytes, room, size) })
    }

    pub(crate) fn load(
        graph: &RawGraph,
        bytes: &[u8],
        delta: &mut RawDelta,
    ) -> Result<Self, CompileError> {
        let mut out = ptr::null_mut();
        let mut fault = NO_FAULT;
        // SAFETY: graph and delta are live handles; the bytes are read during the call only; `out`
        // and `fault` are valid for writes.
        let status = unsafe {
            c::cvg_sched_load(
                graph.0.as_ptr(),
                &ALLOCATOR,
                bytes.as_ptr(),
                bytes.len(),
                &raw mut out,
                delta.0.as_ptr(),
                &raw mut fault,
            )
        };
        check_at(status, fault)?;
        Ok(Self(handle(out)?))
    }

    pub(crate) fn hash(&self) -> u64 {
        let mut hash = 0;
        // SAFETY: the handle is live and `hash` is valid for writes; neither is null, so the call
        // cannot fail.
        unsafe { c::cvg_sched_hash(self.0.as_ptr(), &raw mut hash) };
        hash
    }

    pub(crate) fn node_status(&self, node: u32) -> Result<u32, KernelError> {
        let mut status = c::CVG_NODE_PENDING;
        // SAFETY: the handle is live; `status` is valid for writes.
        KernelError::check(unsafe {
            c::cvg_sched_node_status(self.0.as_ptr(), node, &raw mut status)
        })?;
        Ok(status)
    }

    pub(crate) fn result(&self) -> u32 {
        let mut result = c::CVG_RUN_RUNNING;
        // SAFETY: the handle is live and `result` is valid for writes; neither is null, so the
        // call cannot fail.
        unsafe { c::cvg_sched_result(self.0.as_ptr(), &raw mut result) };
        result
    }

    fn try_clone(&self) -> Result<Self, KernelError> {
        let mut out = ptr::null_mut();
        // SAFETY: the handle is live; `out` is valid for writes.
        KernelError::check(unsafe { c::cvg_sched_clone(self.0.as_ptr(), &raw mut out) })?;
        Ok(Self(handle(out)?))
    }
}

impl Clone for RawSched {
    fn clone(&self) -> Self {
        self.try_clone().unwrap_or_else(|_| out_of_memory::<c::cvg_node_state>())
    }
}

impl Drop for RawSched {
    fn drop(&mut self) {
        // SAFETY: the handle is freed once, while its graph is alive.
        unsafe { c::cvg_sched_free(self.0.as_ptr()) }
    }
}

/// The bytes that a C function writes: it is asked for their number first.
fn fill(
    mut write: impl FnMut(*mut u8, usize, *mut usize) -> c::cvg_status,
) -> Result<Vec<u8>, KernelError> {
    let mut size = 0;
    match KernelError::check(write(ptr::null_mut(), 0, &raw mut size)) {
        Ok(()) => return Ok(Vec::new()),
        Err(KernelError::BufferTooSmall) => {}
        Err(error) => return Err(error),
    }
    let mut bytes = vec![0; size];
    KernelError::check(write(bytes.as_mut_ptr(), bytes.len(), &raw mut size))?;
    bytes.truncate(size);
    Ok(bytes)
}

/// What Rust's collections do when they cannot grow; C cannot tell how much it asked for.
fn out_of_memory<T>() -> ! {
    handle_alloc_error(Layout::new::<T>())
}

fn node_state(state: &RawState<'_>) -> Result<c::cvg_node_state, KernelError> {
    Ok(c::cvg_node_state {
        status: state.status,
        choice: state.choice,
        max_parallel: state.max_parallel,
        iterations: state.iterations,
        iterating: u32::from(state.iterating),
        width: u32::try_from(state.items.len()).map_err(|_| KernelError::TooLarge)?,
        // ItemState is a u8 in memory.
        items: state.items.as_ptr().cast(),
    })
}

/// Decisions over all candidates, and how many of them, from the first, are accepted.
pub(crate) fn route(
    request: &c::cvg_route_request,
    candidates: &[c::cvg_candidate],
) -> Result<(Vec<c::cvg_decision>, usize), KernelError> {
    check_abi()?;
    let mut decisions = vec![c::cvg_decision { cost: 0, index: 0, reason: 0 }; candidates.len()];
    let mut accepted_count = 0;
    // SAFETY: request and candidates are valid and only read; `decisions` is valid for as many
    // writes as there are candidates, `accepted_count` for one.
    KernelError::check(unsafe {
        c::cvg_route(
            request,
            candidates.as_ptr(),
            candidates.len(),
            decisions.as_mut_ptr(),
            &raw mut accepted_count,
        )
    })?;
    Ok((decisions, accepted_count))
}

/// The complexity of a request with these features, whose flags are known ones.
pub(crate) fn complexity(features: &c::cvg_features) -> u32 {
    let mut out = 0;
    // SAFETY: `features` is valid and only read; `out` is valid for writes.
    unsafe { c::cvg_complexity(features, &raw mut out) };
    out
}
