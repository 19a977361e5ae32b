//! The border to C: every line of hand-written unsafe code.
//!
//! Each handle of the C interface is one type here, which owns the handle, frees it on drop, and
//! has safe methods that uphold what the header asks of the caller.
#![expect(unsafe_code, reason = "this is the one file that may call C")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::slice;

use crate::abi;
use crate::bindings as c;
use crate::error::{CompileError, KernelError, NO_FAULT, check_at};
use crate::node_state::{RawNodeState, ReadyNode, RunResult, ScheduleDelta};
use crate::tool_values::{
    KernelTool, KernelToolError, SchemaError, Violation, check_schema, no_violation,
};

/// Enough for any C object on the targets we build for.
const ALIGNMENT: usize = 16;

/// The kernel's allocator: Rust's own, so that C memory is Rust memory.
const ALLOCATOR: c::cvg_allocator =
    c::cvg_allocator { allocate: Some(allocate), release: Some(release), context: ptr::null_mut() };

extern "C" fn allocate(_context: *mut c_void, size: usize) -> *mut c_void {
    #[cfg(test)]
    if !crate::heap::grant_block() {
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
    crate::heap::return_block();
    if let Ok(layout) = Layout::from_size_align(size, ALIGNMENT) {
        // SAFETY: C gives back a block of `allocate` with the size it asked for, so `block` was
        // allocated with this very layout.
        unsafe { dealloc(block.cast(), layout) };
    }
}

impl std::fmt::Display for KernelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // SAFETY: the function takes any value and returns a constant, terminated string.
        let text = unsafe { CStr::from_ptr(c::cvg_status_text(*self as c::cvg_status)) };
        f.write_str(text.to_str().unwrap_or("unknown status"))
    }
}

/// Checks that library and wrapper were built from the same header.
pub(crate) fn check_abi() -> Result<(), KernelError> {
    let caller = abi::caller_abi();
    // SAFETY: `caller` is a valid struct of the size given, read during the call only.
    KernelError::check(unsafe { c::cvg_abi_check(&raw const caller, size_of::<c::cvg_abi>()) })
}

/// Calls a C function that writes its result to its last pointer, which is valid for a write.
fn receive<T>(mut value: T, call: impl FnOnce(*mut T) -> c::cvg_status) -> Result<T, KernelError> {
    KernelError::check(call(&raw mut value))?;
    Ok(value)
}

fn non_null<T>(written: *mut T) -> Result<NonNull<T>, KernelError> {
    NonNull::new(written).ok_or(KernelError::AbiMismatch)
}

/// A type that owns a handle of C and frees it once. The header says of such a handle: it is only
/// read through a shared reference, which any threads may do at once; one thread at a time may
/// change or free it, and it need not be the one that made it. The allocator, Rust's own, has no
/// thread.
macro_rules! handles {
    ($($(#[$note:meta])* $name:ident($handle:ident, $free:ident);)*) => {$(
        $(#[$note])*
        #[derive(Debug)]
        pub(crate) struct $name(NonNull<c::$handle>);

        // SAFETY: as said of the macro.
        unsafe impl Send for $name {}
        // SAFETY: as said of the macro.
        unsafe impl Sync for $name {}

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the handle is live and freed only here. A scheduler's graph is alive:
                // whoever holds a scheduler keeps its graph for longer.
                unsafe { c::$free(self.0.as_ptr()) }
            }
        }
    )*};
}

handles! {
    /// Owns a compiled graph, which never changes.
    RawGraph(cvg_graph, cvg_graph_free);
    /// Owns the lists that a scheduler call fills.
    RawDelta(cvg_delta, cvg_delta_free);
    /// Owns a scheduler. Whoever holds one keeps its graph alive for longer.
    RawSched(cvg_sched, cvg_sched_free);
    /// Owns a compiled schema, which never changes.
    RawSchema(cvg_schema, cvg_schema_free);
    RawMemory(cvg_memory, cvg_memory_free);
}

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
        Ok(Self(non_null(out)?))
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
        // SAFETY: the handle is live; nothing is null, so the call cannot fail.
        receive(0, |out| unsafe { c::cvg_graph_hash(self.0.as_ptr(), out) }).unwrap_or_default()
    }
}

impl RawDelta {
    pub(crate) fn new() -> Result<Self, KernelError> {
        // SAFETY: the allocator is valid.
        let made = receive(ptr::null_mut(), |out| unsafe { c::cvg_delta_new(&ALLOCATOR, out) });
        Ok(Self(non_null(made?)?))
    }

    pub(crate) fn read(&self) -> ScheduleDelta {
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
                as_slice(view.ready, view.ready_count),
                as_slice(view.skipped, view.skipped_count),
                as_slice(view.cancelled, view.cancelled_count),
            )
        };
        ScheduleDelta {
            ready: ready.iter().map(ReadyNode::from_raw).collect(),
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
unsafe fn as_slice<'a, T>(first: *const T, count: usize) -> &'a [T] {
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

impl RawSched {
    pub(crate) fn start(graph: &RawGraph, delta: &mut RawDelta) -> Result<Self, KernelError> {
        let mut out = ptr::null_mut();
        // SAFETY: graph and delta are live handles; `out` is valid for writes.
        KernelError::check(unsafe {
            c::cvg_sched_start(graph.0.as_ptr(), &ALLOCATOR, &raw mut out, delta.0.as_ptr())
        })?;
        Ok(Self(non_null(out)?))
    }

    pub(crate) fn restore(
        graph: &RawGraph,
        states: &[RawNodeState<'_>],
        delta: &mut RawDelta,
    ) -> Result<Self, CompileError> {
        let states: Vec<c::cvg_node_state> =
            states.iter().map(RawNodeState::to_raw).collect::<Result<_, _>>()?;
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
        Ok(Self(non_null(out)?))
    }

    /// Lets C change the scheduler. Both pointers given to `call` are live handles and, being
    /// borrowed mutably, in no other use.
    fn change(
        &mut self,
        delta: &mut RawDelta,
        call: impl FnOnce(*mut c::cvg_sched, *mut c::cvg_delta) -> c::cvg_status,
    ) -> Result<(), KernelError> {
        KernelError::check(call(self.0.as_ptr(), delta.0.as_ptr()))
    }

    pub(crate) fn complete(
        &mut self,
        node: u32,
        outcome: c::cvg_outcome,
        delta: &mut RawDelta,
    ) -> Result<(), KernelError> {
        // SAFETY: as `change` says of its pointers.
        self.change(delta, |sched, delta| unsafe {
            c::cvg_sched_complete(sched, node, outcome, delta)
        })
    }

    pub(crate) fn expand(
        &mut self,
        node: u32,
        width: u32,
        max_parallel: u32,
        delta: &mut RawDelta,
    ) -> Result<(), KernelError> {
        // SAFETY: as `change` says of its pointers.
        self.change(delta, |sched, delta| unsafe {
            c::cvg_sched_expand(sched, node, width, max_parallel, delta)
        })
    }

    pub(crate) fn complete_item(
        &mut self,
        node: u32,
        item: u32,
        outcome: c::cvg_outcome,
        delta: &mut RawDelta,
    ) -> Result<(), KernelError> {
        // SAFETY: as `change` says of its pointers.
        self.change(delta, |sched, delta| unsafe {
            c::cvg_sched_complete_item(sched, node, item, outcome, delta)
        })
    }

    pub(crate) fn iterate(&mut self, node: u32, delta: &mut RawDelta) -> Result<(), KernelError> {
        // SAFETY: as `change` says of its pointers.
        self.change(delta, |sched, delta| unsafe { c::cvg_sched_iterate(sched, node, delta) })
    }

    pub(crate) fn answer(
        &mut self,
        node: u32,
        answer: c::cvg_answer,
        delta: &mut RawDelta,
    ) -> Result<(), KernelError> {
        // SAFETY: as `change` says of its pointers.
        self.change(delta, |sched, delta| unsafe {
            c::cvg_sched_answer(sched, node, answer, delta)
        })
    }

    pub(crate) fn cancel(&mut self, delta: &mut RawDelta) -> Result<(), KernelError> {
        // SAFETY: as `change` says of its pointers.
        self.change(delta, |sched, delta| unsafe { c::cvg_sched_cancel(sched, delta) })
    }

    pub(crate) fn save(&self) -> Result<Vec<u8>, KernelError> {
        // SAFETY: the handle is live; what `write` is given is valid for `room` writes.
        fill_bytes(0, |bytes, room, size| unsafe {
            c::cvg_sched_save(self.0.as_ptr(), bytes, room, size)
        })
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
        Ok(Self(non_null(out)?))
    }

    pub(crate) fn hash(&self) -> u64 {
        // SAFETY: the handle is live; nothing is null, so the call cannot fail.
        receive(0, |out| unsafe { c::cvg_sched_hash(self.0.as_ptr(), out) }).unwrap_or_default()
    }

    pub(crate) fn node_status(&self, node: u32) -> Result<u32, KernelError> {
        // SAFETY: the handle is live.
        receive(0, |out| unsafe { c::cvg_sched_node_status(self.0.as_ptr(), node, out) })
    }

    pub(crate) fn result(&self) -> u32 {
        // SAFETY: the handle is live; nothing is null, so the call cannot fail.
        receive(0, |out| unsafe { c::cvg_sched_result(self.0.as_ptr(), out) }).unwrap_or_default()
    }
}

impl Clone for RawSched {
    fn clone(&self) -> Self {
        // SAFETY: the handle is live.
        let made =
            receive(ptr::null_mut(), |out| unsafe { c::cvg_sched_clone(self.0.as_ptr(), out) });
        let copy = made.and_then(non_null).map(Self);
        copy.unwrap_or_else(|_| out_of_memory::<c::cvg_node_state>())
    }
}

/// Collects the bytes that a C function writes; if they exceed `room`, it is called again with
/// enough.
fn fill_bytes(
    room: usize,
    mut write: impl FnMut(*mut u8, usize, *mut usize) -> c::cvg_status,
) -> Result<Vec<u8>, KernelError> {
    let (mut bytes, mut size) = (vec![0; room], 0);
    let mut status = write(bytes.as_mut_ptr(), room, &raw mut size);
    if KernelError::check(status) == Err(KernelError::BufferTooSmall) {
        bytes.resize(size, 0);
        status = write(bytes.as_mut_ptr(), bytes.len(), &raw mut size);
    }
    KernelError::check(status)?;
    bytes.truncate(size);
    Ok(bytes)
}

/// Aborts as Rust's collections do when they cannot grow; C does not report the size it asked for.
fn out_of_memory<T>() -> ! {
    handle_alloc_error(Layout::new::<T>())
}

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

pub(crate) fn complexity(features: &c::cvg_features) -> u32 {
    // SAFETY: `features` is valid and only read.
    receive(0, |out| unsafe { c::cvg_complexity(features, out) }).unwrap_or_default()
}

/// Borrows a text for the duration of a call.
pub(crate) fn text(text: &str) -> c::cvg_text {
    c::cvg_text { bytes: text.as_ptr().cast(), size: text.len() }
}

/// Borrows a text that C keeps for as long as the program runs.
///
/// # Safety
/// The text is a constant of the C library, in UTF-8.
unsafe fn constant(text: c::cvg_text) -> &'static str {
    // SAFETY: what the caller promises.
    let bytes = unsafe { as_slice(text.bytes.cast(), text.size) };
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl RawSchema {
    pub(crate) fn compile(schema: &str) -> Result<Self, SchemaError> {
        check_abi()?;
        let (mut out, mut violation) = (ptr::null_mut(), no_violation());
        // SAFETY: the text is read during the call only; `out` and `violation` are valid for
        // writes.
        let status = unsafe {
            c::cvg_schema_compile(&ALLOCATOR, text(schema), &raw mut out, &raw mut violation)
        };
        check_schema(status, &violation)?;
        Ok(Self(non_null(out)?))
    }

    pub(crate) fn check(&self, value: &str) -> Result<(), SchemaError> {
        let mut violation = no_violation();
        // SAFETY: the handle is live; the text is read during the call only; `violation` is valid
        // for writes.
        let status = unsafe {
            c::cvg_schema_check(self.0.as_ptr(), &ALLOCATOR, text(value), &raw mut violation)
        };
        check_schema(status, &violation)
    }
}

pub(crate) fn permit(
    rules: &[c::cvg_permission],
    tool: &str,
    effects: u32,
) -> Result<(u32, u32), KernelError> {
    let (mut verdict, mut rule) = (c::CVG_VERDICT_DENY, c::CVG_NONE);
    // SAFETY: rules and texts are valid and read during the call only; the rest is valid for
    // writes.
    KernelError::check(unsafe {
        let (rules, count, tool) = (rules.as_ptr(), rules.len(), text(tool));
        c::cvg_permit(rules, count, tool, effects, &raw mut verdict, &raw mut rule)
    })?;
    Ok((verdict, rule))
}

pub(crate) fn tools() -> Vec<KernelTool> {
    // SAFETY: the call has no conditions.
    let count = unsafe { c::cvg_tool_count() };
    let tool = |index| {
        let empty = text("");
        let mut tool = c::cvg_tool { name: empty, description: empty, schema: empty };
        // SAFETY: the index is below the count, and `tool` is valid for writes.
        unsafe { c::cvg_tool_at(index, &raw mut tool) };
        let texts = [tool.name, tool.description, tool.schema];
        // SAFETY: C fills a tool with constants.
        let [name, description, schema] = texts.map(|text| unsafe { constant(text) });
        KernelTool { name, description, schema }
    };
    (0..count).map(tool).collect()
}

pub(crate) fn call_tool(
    name: &str,
    arguments: &str,
    now_ms: i64,
) -> Result<String, KernelToolError> {
    let (mut violation, mut why) = (no_violation(), ptr::null());
    let room = arguments.len() + 256;
    // SAFETY: texts are read during the call; `fill` gives `room` bytes, the rest is for one write.
    let answer = fill_bytes(room, |bytes, room, size| unsafe {
        let (name, arguments) = (text(name), text(arguments));
        let (wrong, why) = (&raw mut violation, &raw mut why);
        c::cvg_tool_call(&ALLOCATOR, name, arguments, now_ms, bytes, room, size, wrong, why)
    });
    let bytes = answer.map_err(|error| match error {
        KernelError::UnknownTool => KernelToolError::Unknown,
        KernelError::BadJson | KernelError::Mismatch => {
            KernelToolError::Arguments(Violation::from_raw(&violation))
        }
        KernelError::ToolFailed => {
            // SAFETY: after this status `why` is a constant, terminated text.
            let why = unsafe { CStr::from_ptr(why) };
            KernelToolError::Failed(why.to_str().unwrap_or_default())
        }
        error => error.into(),
    })?;
    String::from_utf8(bytes).map_err(|_| KernelError::BadJson.into())
}

impl RawMemory {
    pub(crate) fn new(dimensions: usize) -> Result<Self, KernelError> {
        check_abi()?;
        // SAFETY: the allocator is valid.
        let made = receive(ptr::null_mut(), |out| unsafe {
            c::cvg_memory_new(&ALLOCATOR, dimensions, out)
        });
        Ok(Self(non_null(made?)?))
    }

    /// The item's text is valid, and its vector has as many dimensions as the memory.
    pub(crate) fn add(&mut self, item: &c::cvg_memory_item) -> Result<u32, KernelError> {
        // SAFETY: the handle is live and not shared; the item is read during the call only.
        receive(0, |id| unsafe { c::cvg_memory_add(self.0.as_ptr(), item, id) })
    }

    pub(crate) fn remove(&mut self, id: u32) -> Result<(), KernelError> {
        // SAFETY: the handle is live and not shared.
        KernelError::check(unsafe { c::cvg_memory_remove(self.0.as_ptr(), id) })
    }

    pub(crate) fn count(&self) -> u32 {
        // SAFETY: the handle is live.
        unsafe { c::cvg_memory_count(self.0.as_ptr()) }
    }

    /// The query's text is valid, and its vector null or of as many dimensions as the memory.
    pub(crate) fn rank(
        &self,
        query: &c::cvg_query,
        limit: usize,
    ) -> Result<Vec<c::cvg_recalled>, KernelError> {
        let mut list = vec![c::cvg_recalled { score: 0.0, item: 0, tokens: 0 }; limit];
        let mut count = 0;
        // SAFETY: the handle is live; the query is read during the call only; `list` is valid for
        // as many writes as it is long.
        KernelError::check(unsafe {
            let (room, out) = (list.len(), list.as_mut_ptr());
            c::cvg_memory_rank(self.0.as_ptr(), query, out, room, &raw mut count)
        })?;
        list.truncate(count);
        Ok(list)
    }
}

pub(crate) fn pack(list: &mut Vec<c::cvg_recalled>, budget: u64) {
    let mut count = list.len();
    // SAFETY: the list is valid for `count` reads and writes; no argument is null.
    unsafe { c::cvg_pack(list.as_mut_ptr(), &raw mut count, budget) };
    list.truncate(count);
}

pub(crate) fn quantise(vector: &[f32]) -> Result<Vec<i8>, KernelError> {
    let mut out = vec![0; vector.len()];
    // SAFETY: the vector is valid for reads, and `out`, of the same length, for writes.
    KernelError::check(unsafe {
        c::cvg_quantise(vector.as_ptr(), vector.len(), out.as_mut_ptr())
    })?;
    Ok(out)
}

/// Both vectors must have the same length.
pub(crate) fn cosine(a: &[i8], b: &[i8]) -> Result<f64, KernelError> {
    let len = a.len().min(b.len());
    // SAFETY: both vectors are valid for `len` reads.
    receive(0.0, |out| unsafe { c::cvg_cosine(a.as_ptr(), b.as_ptr(), len, out) })
}

pub(crate) fn score(
    weights: &c::cvg_weights,
    bm25: f64,
    cosine: f64,
    age_ms: i64,
    importance: u32,
) -> Result<f64, KernelError> {
    // SAFETY: the weights are read during the call only.
    receive(0.0, |out| unsafe { c::cvg_score(weights, bm25, cosine, age_ms, importance, out) })
}
