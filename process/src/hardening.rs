//! Hardening of the process before it does anything else: its files and memory are for its user.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};

use crate::err_line;

/// Permissions that new files deny: all of group and others.
const UMASK: u32 = 0o077;

/// Denies others access to new files and disables core dumps, since memory holds keys.
pub fn harden_process() {
    umask(Mode::from_raw_mode(UMASK));
    // A dump would survive the process, and could lie in a folder that others read.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        err_line!("convergio: core dumps cannot be turned off: {error}");
    }
    // Also closes `/proc/PID/mem` and ptrace to other processes of the same user (prctl(2)).
    set_dumpable(false);
}

/// Allows profilers and debuggers of the same user, in processes that hold no keys of users.
pub fn allow_inspection() {
    set_dumpable(true);
}

#[cfg(target_os = "linux")]
fn set_dumpable(is_dumpable: bool) {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    let behavior = match is_dumpable {
        true => DumpableBehavior::Dumpable,
        false => DumpableBehavior::NotDumpable,
    };
    if let Err(error) = set_dumpable_behavior(behavior) {
        err_line!("convergio: who may look into the process cannot be set: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn set_dumpable(_is_dumpable: bool) {}
