//! Replaying a run.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far, and against which graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// The last event to be computed again; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// A manifest, YAML or JSON, in place of the run's own graph version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplayReport {
    /// Id of the run, a UUID.
    pub run: String,
    /// The last event computed again.
    pub seq: u64,
    /// Where the run stood then: `running`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// The fingerprint of the state then, as 16 hexadecimal digits.
    pub fingerprint: String,
    /// Number of commits computed again.
    pub commits: u64,
    /// Decisions of the kernel computed again.
    pub decisions: u64,
    /// Decisions that were not computed again, because what they rest on was erased or is not in
    /// the file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown: u64,
    /// Rows of the read models computed again and compared; absent when the replay was of a part,
    /// against another graph, or of a run that goes on meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Every step and where it stood then.
    pub steps: Vec<ReplayedStep>,
    /// The first difference; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverges: Option<DivergenceView>,
}

/// A step at the end of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplayedStep {
    /// Name of the step, as `summarise` or `notes[3]`.
    pub step: String,
    /// Status of the step at that event.
    pub status: String,
}

/// The first difference between what was written and what is computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DivergenceView {
    /// The event at which it shows.
    pub seq: u64,
    /// The step that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Part of the commit that differs.
    pub what: String,
    /// Value as the log has it.
    pub recorded: String,
    /// Value as the replay computed it.
    pub computed: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
