//! The worker process: evaluates one job after another until its input ends, within limits that it
//! sets before it reads anything.

use std::io::{self, BufReader, Read, Write};
use std::time::Duration;

use convergio_domain::graph::ToolCatalog;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::wire;

/// Environment of a worker, and all of it: without this setting the allocator reserves a gibibyte
/// of address space at once, which is above the limit.
pub(crate) const ALLOCATOR_SETTINGS: [(&str, &str); 1] = [("MIMALLOC_ARENA_RESERVE", "65536")];
/// First byte of a result after which the worker takes another job.
const TAKES_MORE_JOBS: u8 = 0;
/// First byte of a result after which the worker ends, because its memory has grown.
pub(crate) const WAS_LAST_JOB: u8 = 1;
/// Most open files: the pipes, and those that the system's library opens for a moment.
const FILES_LIMIT: u64 = 16;

/// Limits that a worker sets itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Bytes of address space, beyond those in use at the start.
    pub memory_bytes: u64,
    /// Processor time of one job.
    pub processor_time: Duration,
}

/// Evaluates jobs from standard input until it ends.
///
/// # Errors
/// The limits cannot be set, or the input is no job.
pub fn run(limits: WorkerLimits, tools: &ToolCatalog) -> io::Result<()> {
    let before = address_space_bytes();
    set_process_limits(limits, before)?;
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
        // The reader may stop before the frame's end; what is left must not be read as the next
        // length.
        io::copy(&mut frame, &mut io::sink())?;
        let answer = wire::write_answer(job.evaluate_unbounded(tools)).map_err(io::Error::other)?;
        // Measured after the drop: what stays is what the allocator keeps, and a worker that keeps
        // a quarter of its limit could fail the next job through no fault of it.
        drop(job);
        let has_grown = address_space_bytes().saturating_sub(before) > limits.memory_bytes / 4;
        output.write_all(&[if has_grown { WAS_LAST_JOB } else { TAKES_MORE_JOBS }])?;
        output.write_all(&(answer.len() as u64).to_le_bytes())?;
        output.write_all(&answer)?;
        output.flush()?;
        if has_grown {
            return Ok(());
        }
    }
}

/// Sets the limits that stay the same for all jobs, and the signal for the parent's death.
fn set_process_limits(limits: WorkerLimits, before: u64) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    lower_limit(Resource::As, before.saturating_add(limits.memory_bytes))?;
    lower_limit(Resource::Nofile, FILES_LIMIT)?;
    lower_limit(Resource::Core, 0)?;
    // If the machine runs out of memory, this process is killed first.
    let _preferred = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// Lowers a limit; one that is lower already stays.
fn lower_limit(resource: Resource, most: u64) -> io::Result<()> {
    let known = rustix::process::getrlimit(resource);
    let most = known.maximum.map_or(most, |maximum| maximum.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// Limits the processor time of the next job. The system counts over the life of the process, so
/// that the limit moves on with each job.
fn limit_processor_time(most: Duration) -> io::Result<()> {
    let taken = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    let taken = u64::try_from(taken).unwrap_or(0) + 1;
    let known = rustix::process::getrlimit(Resource::Cpu);
    let current = Some(taken.saturating_add(most.as_secs().max(1)));
    Ok(setrlimit(Resource::Cpu, Rlimit { current, maximum: known.maximum })?)
}

/// Bytes of address space in use; 0 where the system does not report it.
fn address_space_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(rustix::param::page_size() as u64)
}
