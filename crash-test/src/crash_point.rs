//! Places at which an engine dies: a commit and a moment relative to it.

use std::collections::BTreeSet;

use clap::ValueEnum;
use serde::Serialize;

/// Time of a crash relative to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CrashMoment {
    /// Before it: nothing is written.
    Before,
    /// In it: nobody knows.
    During,
    /// After it: what was written is durable, and the engine never hears of it.
    After,
}

/// A commit of the engine, and the time of the crash relative to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CrashPoint {
    /// Number of the engine's commit, from 1.
    pub commit: u64,
    /// Time of the crash relative to that commit.
    pub moment: CrashMoment,
}

/// Every commit twice: before its append and after it.
pub(crate) fn crash_points(commits: u64) -> Vec<CrashPoint> {
    let moments = [CrashMoment::Before, CrashMoment::After];
    (1..=commits).flat_map(|commit| moments.map(|moment| CrashPoint { commit, moment })).collect()
}

/// One crash point for each commit, with the three moments in turn.
pub(crate) fn kill_points(commits: u64) -> Vec<CrashPoint> {
    // The process that is killed during an append is the most realistic case: it comes first.
    let moments = [CrashMoment::During, CrashMoment::Before, CrashMoment::After];
    let moments = moments.into_iter().cycle();
    (1..=commits).zip(moments).map(|(commit, moment)| CrashPoint { commit, moment }).collect()
}

/// Selects at most `most` points at even distances, including the first and the last.
pub(crate) fn sample_evenly(points: Vec<CrashPoint>, limit: Option<usize>) -> Vec<CrashPoint> {
    let Some(limit) = limit.filter(|most| *most < points.len()) else { return points };
    let last = points.len().saturating_sub(1);
    let gaps = limit.saturating_sub(1).max(1);
    let chosen: BTreeSet<usize> = (0..limit).map(|number| number * last / gaps).collect();
    chosen.into_iter().map(|index| points[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::{CrashMoment, CrashPoint, crash_points, sample_evenly};

    #[test]
    fn a_sample_has_both_ends_and_no_place_twice() {
        let all = crash_points(10);
        assert_eq!(all.len(), 20);
        let few = sample_evenly(all.clone(), Some(5));
        assert_eq!((few.len(), few[0], few[4]), (5, all[0], all[19]));
        assert_eq!(few[0], CrashPoint { commit: 1, moment: CrashMoment::Before });
        assert_eq!(sample_evenly(all.clone(), Some(40)), all);
        assert!(sample_evenly(all, Some(0)).is_empty());
    }
}
