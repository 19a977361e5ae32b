//! Moving active runs to other versions of their graphs, and checking a whole fleet before.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use convergio_application::Caller;
use convergio_domain::graph::{self, manifest::Graph};
use convergio_projections::{RunFamily, RunFilter};
use convergio_schemas::wire::{
    FleetReport, FleetRequest, FleetRun, MigrateReport, MigrateRequest, Problem, Verdict,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::read_optional_body;
use super::run_lookup::{parse_run, run_stream};
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension, Gateway};

/// Runs that are replayed concurrently.
const CONCURRENT_REPLAYS: usize = 4;
/// Maximum runs that a report lists one by one.
const REPORTED_RUNS_LIMIT: usize = 1000;
/// Runs read from the listing at once.
const RUNS_PER_PAGE: usize = 500;
/// Statuses of a run that has not ended.
const ACTIVE_STATUSES: [&str; 2] = ["running", "paused"];

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
    Extension(caller): CallerExtension,
    body: Bytes,
) -> Result<Json<FleetReport>, ApiError> {
    let request: FleetRequest = read_optional_body(&body)?;
    let graph = match request.manifest {
        Some(text) => Some(gateway.graph_use_cases().parse_manifest(&caller, &text).await?.graph),
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
    caller: &Caller,
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
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<MigrateReport>, ApiError> {
    let run = parse_run(&id)?;
    let request: MigrateRequest = read_optional_body(&body)?;
    let scope = format!("POST /v1/runs/{id}/migrate");
    gateway.use_cases().check_scoped_key(&caller, &scope, &body).await?;
    let report = gateway.graph_use_cases().migrate_run(&caller, run, request).await?;
    Ok(Json(report))
}
