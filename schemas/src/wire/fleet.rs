//! Runs under way and other versions of their graphs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which version all runs under way are replayed against.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetRequest {
    /// A manifest, YAML or JSON: the runs of the graph of its name are replayed against it. All
    /// runs against their own versions when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
}

/// Whether a run under way can go on by a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The version would have done what was done.
    Compatible,
    /// The version would have done otherwise, and the run can go on by it from where it is.
    Migrate,
    /// The run can only go on by the version that it has.
    Pin,
}

/// What a version means for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetRun {
    /// Id of the run, a UUID.
    pub run: String,
    /// The version that it has.
    pub version: String,
    /// The last event that was looked at.
    pub seq: u64,
    /// Whether it can go on.
    pub verdict: Verdict,
    /// Why it is not compatible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a version means for all runs under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetReport {
    /// The version; absent when each run was replayed against its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Runs that were looked at.
    pub runs: u64,
    /// Those that are compatible.
    pub compatible: u64,
    /// Those that can be moved.
    pub migrate: u64,
    /// Those that must stay on their version.
    pub pin: u64,
    /// Those that are not compatible, at most 1000.
    pub items: Vec<FleetRun>,
}

/// Which version a run is moved to: one that is registered, or a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateRequest {
    /// A registered version of the run's graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A manifest of the same name, which is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
}

/// A run that was moved, or was there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MigrateReport {
    /// Id of the run, a UUID.
    pub run: String,
    /// Version before the migration.
    pub from: String,
    /// Version after the migration.
    pub to: String,
    /// The run's last event.
    pub seq: u64,
    /// What the new version would have done.
    pub verdict: Verdict,
}
