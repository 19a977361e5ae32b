//! Memory of this process as the system reports it.

/// Resident memory in MiB; 0 where the system does not report it.
pub(super) fn resident_memory_mib() -> u64 {
    read_status_mib("VmRSS:")
}

/// Peak memory in MiB since the last call, and a reset of the peak; 0 where the system does not
/// report it.
pub(super) fn take_peak_memory_mib() -> u64 {
    let peak_mib = read_status_mib("VmHWM:");
    // Writing 5 sets the peak to what is in use now (proc(5)).
    let _reset = std::fs::write("/proc/self/clear_refs", "5");
    peak_mib
}

fn read_status_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
