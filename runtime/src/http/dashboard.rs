//! The dashboard: one page, its script and style, and the JSON it polls.

use super::process::ProcessStats;
use super::router::Shared;
use super::view::{ErredTask, EventRow, GraphView, LogLine, Overview, StreamPage};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// Task-stream records in one answer.
const MAX_STREAM: usize = 5_000;
/// Rows of the other lists.
const MAX_ROWS: usize = 500;
/// Worker rows sent to the page.
const MAX_WORKERS: usize = 2_000;
/// Prefix rows sent to the page.
const MAX_PREFIXES: usize = 1_000;

/// Pages with a single panel: path after `individual-`, title, the panel's name in the script.
pub(super) const INDIVIDUAL: [(&str, &str, &str); 10] = [
    ("task-stream", "Task Stream", "stream"),
    ("progress", "Progress", "progress"),
    ("graph", "Graph", "graph"),
    ("groups", "Groups", "groups"),
    ("workers", "Workers", "workers"),
    ("workers-memory", "Workers Memory", "memory"),
    ("cluster-memory", "Cluster Memory", "cluster"),
    ("cpu", "CPU", "cpu"),
    ("nprocessing", "Nprocessing", "processing"),
    ("exceptions", "Exceptions", "exceptions"),
];

pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("assets/dashboard.html"))
}

pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("assets/style.css"))
}

pub(super) async fn script() -> Response {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("assets/dashboard.js"),
    )
}

pub(super) async fn charts_script() -> Response {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("assets/charts.js"),
    )
}

pub(super) async fn info_script() -> Response {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("assets/info.js"),
    )
}

pub(super) async fn icon() -> Response {
    asset("image/svg+xml", include_str!("assets/icon.svg"))
}

fn asset(content_type: &'static str, body: &'static str) -> Response {
    // Revalidated by age alone: a newer scheduler at the same address is picked up within the minute.
    (
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "max-age=60")],
        body,
    )
        .into_response()
}

#[derive(Serialize)]
pub(super) struct OverviewAnswer {
    #[serde(flatten)]
    overview: Overview,
    process: ProcessStats,
    /// Rows before the cut.
    n_workers: usize,
    n_prefixes: usize,
    totals: Totals,
    api: bool,
    graph_max_items: usize,
    version: &'static str,
}

/// Sums over all workers and prefixes, those cut off included.
#[derive(Default, Serialize)]
struct Totals {
    threads: u64,
    memory: u64,
    memory_limit: u64,
    managed: u64,
    spilled: u64,
    cpu: f64,
    tasks: u64,
    in_memory: u64,
    processing: u64,
    waiting: u64,
    erred: u64,
    released: u64,
}

impl Totals {
    fn of(overview: &Overview) -> Self {
        let mut totals = Self::default();
        for row in &overview.workers {
            totals.threads += row.nthreads;
            totals.memory += row.memory;
            totals.memory_limit += row.memory_limit;
            totals.managed += row.managed;
            totals.spilled += row.spilled;
            totals.cpu += row.cpu;
        }
        for row in &overview.progress {
            totals.in_memory += row.memory;
            totals.processing += row.processing;
            totals.waiting += row.waiting + row.queued + row.no_worker;
            totals.erred += row.erred;
            totals.released += row.released;
        }
        totals.tasks =
            totals.in_memory + totals.processing + totals.waiting + totals.erred + totals.released;
        totals
    }
}

pub(super) async fn overview(State(shared): State<Shared>) -> Json<OverviewAnswer> {
    let mut overview = shared.view.overview().await;
    let totals = Totals::of(&overview);
    let (n_workers, n_prefixes) = (overview.workers.len(), overview.progress.len());
    overview.workers.truncate(MAX_WORKERS);
    // The latest prefixes are those that move.
    overview
        .progress
        .drain(..n_prefixes.saturating_sub(MAX_PREFIXES));
    Json(OverviewAnswer {
        overview,
        process: ProcessStats::read(),
        n_workers,
        n_prefixes,
        totals,
        api: shared.options.api,
        graph_max_items: shared.options.graph_max_items,
        version: env!("CARGO_PKG_VERSION"),
    })
}

#[derive(Deserialize)]
pub(super) struct Since {
    #[serde(default)]
    since: u64,
}

pub(super) async fn stream(
    State(shared): State<Shared>,
    Query(query): Query<Since>,
) -> Json<StreamPage> {
    Json(shared.view.task_stream(query.since, MAX_STREAM).await)
}

pub(super) async fn graph(State(shared): State<Shared>) -> Json<GraphView> {
    Json(shared.view.graph(shared.options.graph_max_items).await)
}

pub(super) async fn events(State(shared): State<Shared>) -> Json<Vec<EventRow>> {
    Json(shared.view.events(MAX_ROWS).await)
}

pub(super) async fn logs(State(shared): State<Shared>) -> Json<Vec<LogLine>> {
    Json(shared.view.logs(MAX_ROWS).await)
}

pub(super) async fn exceptions(State(shared): State<Shared>) -> Json<Vec<ErredTask>> {
    Json(shared.view.erred_tasks(MAX_ROWS).await)
}
