//! Moving active runs to other versions of their graphs, and checking a whole fleet before.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use convergio_domain::graph::{self, manifest::Graph};
use convergio_domain::id::{GraphId, GraphVersion};
use convergio_domain::json::read_json;
use convergio_domain::once::{Once, RequestedCommand};
use convergio_domain::run::{Run, RunCommand};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::CommitError;
use convergio_projections::{RunFamily, RunFilter};
use convergio_schemas::error_code;
use convergio_schemas::wire::{
    FleetReport, FleetRequest, FleetRun, MigrateReport, MigrateRequest, Problem, Verdict,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use uuid::Uuid;

use super::runs::{manifest, run_stream};
use crate::app::{App, Caller, Gateway};
use crate::auth::Identity;
use crate::idempotency;
use crate::problem::ApiError;

/// Maximum attempts against concurrent writers of the run.
const TRIES: u32 = 8;
/// Runs that are replayed concurrently.
const AT_ONCE: usize = 4;
/// Maximum runs that a report lists one by one.
const SHOWN: usize = 1000;
/// Runs read from the listing at once.
const PAGE: usize = 500;
/// Statuses of a run that has not ended.
const UNDER_WAY: [&str; 2] = ["running", "paused"];

fn read<T: serde::de::DeserializeOwned + Default>(body: &Bytes) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    read_json(body).map_err(|error| ApiError::invalid(error.to_string()))
}

/// Replays all runs under way, without any effect, and tells which could go on by a version.
#[utoipa::path(post, path = "/v1/fleet/replay", tag = "runs", request_body = Option<FleetRequest>,
    responses(
        (status = 200, description = "What was found", body = FleetReport),
        (status = 400, description = "The manifest has mistakes", body = Problem),
        (status = 401, description = "Not signed in", body = Problem),
    ))]
pub(crate) async fn fleet(
    State(gateway): App,
    Extension(caller): Caller,
    body: Bytes,
) -> Result<Json<FleetReport>, ApiError> {
    let request: FleetRequest = read(&body)?;
    let graph = match request.manifest {
        Some(text) => Some(gateway.parse_manifest(&caller, &text).await?.graph),
        None => None,
    };
    let named = graph.as_ref().map(|graph| graph::graph_id(&caller.tenant, &graph.name));
    let mut report = FleetReport {
        version: graph.as_ref().map(|graph| graph.version().to_string()),
        runs: 0,
        compatible: 0,
        migrate: 0,
        pin: 0,
        items: Vec::new(),
    };
    for status in UNDER_WAY {
        // The listing filters by one status at a time.
        let filter = RunFilter {
            family: RunFamily::All,
            graph: named.map(|id| id.to_string()),
            status: Some(status.to_owned()),
            actor: None,
        };
        replay_all(&gateway, &caller, &filter, graph.as_ref(), &mut report).await?;
    }
    Ok(Json(report))
}

async fn replay_all(
    gateway: &Gateway,
    caller: &Identity,
    filter: &RunFilter,
    graph: Option<&Graph>,
    report: &mut FleetReport,
) -> Result<(), ApiError> {
    let mut cursor = None;
    loop {
        let tenant = caller.tenant.as_str();
        let page = gateway.queries.runs(tenant, filter, cursor.as_deref(), PAGE).await?;
        // Buffered in order, so that the report follows the listing.
        let found = stream::iter(page.items).map(async |row| {
            let run = run_stream(caller, &row.run)?;
            Ok::<_, ApiError>(gateway.replayer.survives(&run, graph).await?)
        });
        let found: Vec<FleetRun> = found.buffered(AT_ONCE).try_collect().await?;
        for run in found {
            // Every run is counted; only those that could not simply continue are listed.
            report.runs += 1;
            match run.verdict {
                Verdict::Compatible => report.compatible += 1,
                Verdict::Migrate => report.migrate += 1,
                Verdict::Pin => report.pin += 1,
            }
            if run.verdict != Verdict::Compatible && report.items.len() < SHOWN {
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
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "There is no such run or version", body = Problem),
    (status = 409, description = "The run has ended, or cannot go on by the version",
        body = Problem),
))]
pub(crate) async fn migrate(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<MigrateReport>, ApiError> {
    let stream = run_stream(&caller, &id)?;
    let loaded = gateway.repository.load::<Run>(&stream).await?;
    let Some((graph, _)) = loaded.state.graph else { return Err(ApiError::not_found("run")) };
    let target = Target::find(&gateway, &caller, graph, read(&body)?).await?;
    let scope = format!("POST /v1/runs/{id}/migrate");
    idempotency::check_scoped_key(&gateway, &caller, &headers, &scope, &body).await?;
    let request = idempotency::request_id(&caller, &headers)?;
    for _ in 0..TRIES {
        let moved = move_to(&gateway, &caller, &stream, &target, request).await?;
        if let Some(report) = moved {
            return Ok(Json(report));
        }
    }
    Err(ApiError::busy("the run goes on all the time: send the request again"))
}

/// The version that a run is to continue by.
pub(super) struct Target {
    pub(super) version: GraphVersion,
    pub(super) graph: Graph,
    /// True if the manifest came with the request and is not registered yet.
    pub(super) is_new: bool,
}

impl Target {
    pub(super) async fn find(
        gateway: &Gateway,
        caller: &Identity,
        graph: GraphId,
        request: MigrateRequest,
    ) -> Result<Self, ApiError> {
        match (request.manifest, request.version) {
            (Some(text), None) => {
                let graph = gateway.parse_manifest(caller, &text).await?.graph;
                Ok(Self { version: graph.version(), graph, is_new: true })
            }
            (None, Some(version)) => {
                let (version, graph) = manifest(gateway, caller, graph, Some(&version)).await?;
                Ok(Self { version, graph, is_new: false })
            }
            _ => Err(ApiError::invalid("give either `version` or `manifest`")),
        }
    }
}

/// Moves the run if it is still at the event that was checked; `None` if a concurrent writer was
/// faster.
async fn move_to(
    gateway: &Gateway,
    caller: &Identity,
    stream: &StreamKey,
    target: &Target,
    request: Option<Uuid>,
) -> Result<Option<MigrateReport>, ApiError> {
    // Holding the run's turn keeps its executor from appending during the check; a busy run would
    // otherwise never be found unchanged.
    let turn = gateway.repository.take_turn(stream).await;
    let mut loaded = gateway.repository.load::<Once<Run>>(stream).await?;
    let to = &target.version;
    let from = loaded.state.graph.as_ref().map_or(to, |(_, version)| version).clone();
    // A repeated request appends nothing and reports the version as it is.
    let is_done = request.is_some_and(|id| loaded.state.requests.seq_of(id).is_some());
    let mut verdict = Verdict::Compatible;
    if !loaded.state.phase.is_ended() && !is_done && from != *to {
        let Some(found) = survives(gateway, stream, target, loaded.state.seq.0).await? else {
            return Ok(None);
        };
        // Registered only after the check, so that a rejected version leaves no trace.
        if target.is_new {
            super::graphs::store(gateway, caller, &target.graph, request).await?;
        }
        verdict = found;
    }
    let command = RequestedCommand { request, command: RunCommand::Migrate { to: to.clone() } };
    let context = gateway.context(caller);
    let moved =
        gateway.repository.commit_in_turn(&turn, &mut loaded, command, Vec::new(), &context);
    match moved.await {
        Err(CommitError::Conflict) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Some(MigrateReport {
            run: stream.id.to_string(),
            from: if is_done { to.to_string() } else { from.to_string() },
            to: to.to_string(),
            seq: loaded.state.seq.0,
            verdict,
        })),
    }
}

/// Replays a run and returns the verdict; `None` if the run has passed the event meanwhile.
///
/// # Errors
/// `run.diverged` if the run must stay on its own version.
async fn survives(
    gateway: &Gateway,
    stream: &StreamKey,
    target: &Target,
    seq: u64,
) -> Result<Option<Verdict>, ApiError> {
    let found = gateway.replayer.survives(stream, Some(&target.graph)).await?;
    if found.verdict == Verdict::Pin {
        let reason = found.reason.unwrap_or_default();
        let detail = format!("the run cannot go on by version {}: {reason}", target.version);
        return Err(ApiError::new(error_code::RUN_DIVERGED, detail));
    }
    Ok((found.seq == seq).then_some(found.verdict))
}
