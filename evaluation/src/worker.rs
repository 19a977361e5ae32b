//! The worker: does one job after another until its pipe ends, within limits that it sets itself
//! before it reads anything.

use std::io::{self, BufReader, Read, Write};
use std::time::Duration;

use convergio_domain::graph::ToolCatalog;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::wire;

/// What the allocator is told by its environment, the only one that a worker has: without it a
/// gibibyte of address space would be taken at once, more than the limit.
pub(crate) const ALLOCATOR_SETTINGS: [(&str, &str); 1] = [("MIMALLOC_ARENA_RESERVE", "65536")];
/// The first byte of an answer after which another job is taken.
const GOES_ON: u8 = 0;
/// The first byte of an answer after which none is: the worker has grown.
pub(crate) const ENDS: u8 = 1;
/// Files that a worker may have open: its pipes, and what the system's library opens for a moment.
const FILES_LIMIT: u64 = 16;

/// What a worker may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Memory, besides what the program takes when it starts.
    pub memory_bytes: u64,
    /// Time of the processor for one job.
    pub processor_time: Duration,
}

/// Works until standard input ends.
///
/// # Errors
/// The limits cannot be set, or what comes is no job.
pub fn run(limits: WorkerLimits, tools: &ToolCatalog) -> io::Result<()> {
    let before = address_space();
    confine(limits, before)?;
    let (mut input, mut output) = (BufReader::new(io::stdin().lock()), io::stdout().lock());
    loop {
        let mut length = [0; 8];
        match input.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        limit_processor_time(limits.processor_time)?;
        let mut frame = (&mut input).take(u64::from_le_bytes(length));
        let job = wire::read_job(&mut frame).map_err(io::Error::other)?;
        io::copy(&mut frame, &mut io::sink())?;
        let answer = wire::write_answer(job.perform(tools)).map_err(io::Error::other)?;
        drop(job);
        let has_grown = address_space().saturating_sub(before) > limits.memory_bytes / 4;
        output.write_all(&[if has_grown { ENDS } else { GOES_ON }])?;
        output.write_all(&(answer.len() as u64).to_le_bytes())?;
        output.write_all(&answer)?;
        output.flush()?;
        if has_grown {
            return Ok(());
        }
    }
}

/// Sets every limit that stays the same, and what becomes of this process when others die.
fn confine(limits: WorkerLimits, before: u64) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    limit(Resource::As, before.saturating_add(limits.memory_bytes))?;
    limit(Resource::Nofile, FILES_LIMIT)?;
    limit(Resource::Core, 0)?;
    // Where memory is short for all, this process goes first.
    let _preferred = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// Lowers a limit, or leaves one that is lower already.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let known = rustix::process::getrlimit(resource);
    let most = known.maximum.map_or(most, |maximum| maximum.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// Lets the next job take so much of the processor, besides what was taken before.
fn limit_processor_time(most: Duration) -> io::Result<()> {
    let taken = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    let taken = u64::try_from(taken).unwrap_or(0) + 1;
    let known = rustix::process::getrlimit(Resource::Cpu);
    let current = Some(taken.saturating_add(most.as_secs().max(1)));
    Ok(setrlimit(Resource::Cpu, Rlimit { current, maximum: known.maximum })?)
}

/// Bytes of address space in use; none where it cannot be told.
fn address_space() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(rustix::param::page_size() as u64)
}
