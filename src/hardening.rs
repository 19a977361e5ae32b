//! What the process does before anything else, so that others read nothing of what it keeps.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};

/// What others than the owner may do with new files: nothing.
const UMASK: u32 = 0o077;

/// New files are for their owner alone, and memory, which holds keys, is dumped nowhere.
pub(crate) fn harden_process() {
    umask(Mode::from_raw_mode(UMASK));
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        err_line!("convergio: core dumps cannot be turned off: {error}");
    }
    set_dumpable(false);
}

/// Lets profilers and debuggers of the same user look into a process that holds nobody's keys.
pub(crate) fn allow_inspection() {
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
