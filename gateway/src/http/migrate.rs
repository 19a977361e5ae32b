//! Moving active runs to other versions of their graphs, and checking a whole fleet before.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use convergio_domain::graph::{self, manifest::Graph};
use convergio_domain::id::{GraphId, GraphVersion};
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::json::read_json;
use convergio_domain::run::{Run, RunCommand};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::CommitError;
use convergio_projections::{RunFamily, RunFilter};
use convergio_schemas::error_code;
use convergio_schemas::wire::{
    FleetReport, FleetRequest, FleetRun, MigrateReport, MigrateRequest, Problem, Verdict,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::run_lookup::{load_manifest, run_stream};
use crate::idempotency;
use crate::identity::Identity;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, Caller, Gateway};

/// Maximum attempts against concurrent writers of the run.
const MAX_ATTEMPTS: u32 = 8;
/// Runs that are replayed concurrently.
const CONCURRENT_REPLAYS: usize = 4;
/// Maximum runs that a report lists one by one.
const REPORTED_RUNS_LIMIT: usize = 1000;
/// Runs read from the listing at once.
const RUNS_PER_PAGE: usize = 500;
/// Statuses of a run that has not ended.
const ACTIVE_STATUSES: [&str; 2] = ["running", "paused"];

fn read_or_default<T: serde::de::DeserializeOwned + Default>(body: &Bytes) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    read_json(body).map_err(|error| ApiError::invalid_request(error.to_string()))
}

/// Routes that check and move active runs.
pub(crate) fn migration_routes() -> ApiRoutes {
    OpenApiRouter::new().routes(routes!(replay_fleet)).routes(routes!(migrate_run))
}

/// Replays all runs under way, without any effect, and tells which could go on by a version.
#[utoipa::path(post, path = "/v1/fleet/replay", tag = "runs", request_body = Option<FleetRequest>,
    responses(
        (status = 200, description = "What was found", body = FleetReport),
        (status = 400, description = "The manifest has mistakes", body = Problem),
    ))]
async fn replay_fleet(
    State(gateway): App,
    Extension(caller): Caller,
    body: Bytes,
) -> Result<Json<FleetReport>, ApiError> {
    let request: FleetRequest = read_or_default(&body)?;
    let graph = match request.manifest {
        Some(text) => Some(gateway.parse_manifest(&caller, &text).await?.graph),
        None => None,
    };
    let graph_id = graph.as_ref().map(|graph| graph::graph_id(&caller.tenant, &graph.name));
    let mut report = FleetReport {
        version: graph.as_ref().map(|graph| graph.compute_version().to_string()),
        runs: 0,
        compatible: 0,
        migrate: 0,
        pin: 0,
        items: Vec::new(),
    };
    for status in ACTIVE_STATUSES {
        // The listing filters by one status at a time.
        let filter = RunFilter {
            family: RunFamily::All,
            graph: graph_id.map(|id| id.to_string()),
            status: Some(status.to_owned()),
            actor: None,
        };
        replay_listed_runs(&gateway, &caller, &filter, graph.as_ref(), &mut report).await?;
    }
    Ok(Json(report))
}

async fn replay_listed_runs(
    gateway: &Gateway,
    caller: &Identity,
    filter: &RunFilter,
    graph: Option<&Graph>,
    report: &mut FleetReport,
) -> Result<(), ApiError> {
    let mut cursor = None;
    loop {
        let tenant = caller.tenant.as_str();
        let page =
            gateway.queries.list_runs(tenant, filter, cursor.as_deref(), RUNS_PER_PAGE).await?;
        // Buffered in order, so that the report follows the listing.
        let replays = stream::iter(page.items).map(async |row| {
            let run = run_stream(caller, &row.run)?;
            Ok::<_, ApiError>(gateway.replayer.check_migration(&run, graph).await?)
        });
        let replays: Vec<FleetRun> = replays.buffered(CONCURRENT_REPLAYS).try_collect().await?;
        for run in replays {
            // Every run is counted; only those that could not simply continue are listed.
            report.runs += 1;
            match run.verdict {
                Verdict::Compatible => report.compatible += 1,
                Verdict::Migrate => report.migrate += 1,
                Verdict::Pin => report.pin += 1,
            }
            if run.verdict != Verdict::Compatible && report.items.len() < REPORTED_RUNS_LIMIT {
                report.items.push(run);
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// Moves a run under way to another version of its graph, if it can go on by it. What was done
/// stays done.
#[utoipa::path(post, path = "/v1/runs/{id}/migrate", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), request_body = MigrateRequest, responses(
    (status = 200, description = "The run has the version", body = MigrateReport),
    (status = 400, description = "No version, or the manifest has mistakes", body = Problem),
    (status = 404, description = "There is no such run or version", body = Problem),
    (status = 409, description = "The run has ended, or cannot go on by the version",
        body = Problem),
))]
async fn migrate_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<MigrateReport>, ApiError> {
    let stream = run_stream(&caller, &id)?;
    let loaded = gateway.repository.load::<Run>(&stream).await?;
    let Some((graph, _)) = loaded.state.graph else { return Err(ApiError::not_found("run")) };
    let target =
        MigrationTarget::resolve_target(&gateway, &caller, graph, read_or_default(&body)?).await?;
    let scope = format!("POST /v1/runs/{id}/migrate");
    idempotency::check_scoped_key(&gateway, &caller, &headers, &scope, &body).await?;
    let request = idempotency::request_id(&caller, &headers)?;
    for _ in 0..MAX_ATTEMPTS {
        let outcome = try_migrate(&gateway, &caller, &stream, &target, request).await?;
        if let Some(report) = outcome {
            return Ok(Json(report));
        }
    }
    Err(ApiError::write_contention("the run goes on all the time: send the request again"))
}

/// The version that a run is to continue by.
pub(super) struct MigrationTarget {
    pub(super) version: GraphVersion,
    pub(super) graph: Graph,
    /// True if the manifest came with the request and is not registered yet.
    pub(super) is_unregistered: bool,
}

impl MigrationTarget {
    pub(super) async fn resolve_target(
        gateway: &Gateway,
        caller: &Identity,
        graph: GraphId,
        request: MigrateRequest,
    ) -> Result<Self, ApiError> {
        match (request.manifest, request.version) {
            (Some(text), None) => {
                let graph = gateway.parse_manifest(caller, &text).await?.graph;
                Ok(Self { version: graph.compute_version(), graph, is_unregistered: true })
            }
            (None, Some(version)) => {
                let (version, graph) =
                    load_manifest(gateway, caller, graph, Some(&version)).await?;
                Ok(Self { version, graph, is_unregistered: false })
            }
            _ => Err(ApiError::invalid_request("give either `version` or `manifest`")),
        }
    }
}

/// Moves the run if it is still at the event that was checked; `None` if a concurrent writer was
/// faster.
async fn try_migrate(
    gateway: &Gateway,
    caller: &Identity,
    stream: &StreamKey,
    target: &MigrationTarget,
    request: Option<Uuid>,
) -> Result<Option<MigrateReport>, ApiError> {
    // Holding the run's turn keeps its executor from appending during the check; a busy run would
    // otherwise never be found unchanged.
    let turn = gateway.repository.take_turn(stream).await;
    let mut loaded = gateway.repository.load::<IdempotentNoun<Run>>(stream).await?;
    let target_version = &target.version;
    let current_version =
        loaded.state.graph.as_ref().map_or(target_version, |(_, version)| version).clone();
    // A repeated request appends nothing and reports the version as it is.
    let is_repeated = request.is_some_and(|id| loaded.state.requests.seq_of(id).is_some());
    let mut verdict = Verdict::Compatible;
    if !loaded.state.phase.is_ended() && !is_repeated && current_version != *target_version {
        let Some(verdict_found) =
            check_compatibility(gateway, stream, target, loaded.state.seq.0).await?
        else {
            return Ok(None);
        };
        // Registered only after the check, so that a rejected version leaves no trace.
        if target.is_unregistered {
            super::graphs::store_version(gateway, caller, &target.graph, request).await?;
        }
        verdict = verdict_found;
    }
    let command =
        RequestedCommand { request, command: RunCommand::Migrate { to: target_version.clone() } };
    let context = gateway.decision_context(caller);
    let commit =
        gateway.repository.commit_in_turn(&turn, &mut loaded, command, Vec::new(), &context);
    match commit.await {
        Err(CommitError::Conflict) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Some(MigrateReport {
            run: stream.id.to_string(),
            from: if is_repeated {
                target_version.to_string()
            } else {
                current_version.to_string()
            },
            to: target_version.to_string(),
            seq: loaded.state.seq.0,
            verdict,
        })),
    }
}

/// Replays a run and returns the verdict; `None` if the run has passed the event meanwhile.
///
/// # Errors
/// `run.diverged` if the run must stay on its own version.
async fn check_compatibility(
    gateway: &Gateway,
    stream: &StreamKey,
    target: &MigrationTarget,
    seq: u64,
) -> Result<Option<Verdict>, ApiError> {
    let replay = gateway.replayer.check_migration(stream, Some(&target.graph)).await?;
    if replay.verdict == Verdict::Pin {
        let reason = replay.reason.unwrap_or_default();
        let detail = format!("the run cannot go on by version {}: {reason}", target.version);
        return Err(ApiError::new(error_code::RUN_DIVERGED, detail));
    }
    Ok((replay.seq == seq).then_some(replay.verdict))
}
