//! The table of routes, and what holds for all of them.

use super::view::StateView;
use super::{HttpOptions, api, dashboard, eventstream, info, json, metrics, process};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::Arc;

/// What handlers share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) view: Arc<dyn StateView>,
    pub(super) options: Arc<HttpOptions>,
    /// `/prefix`, or empty.
    pub(super) base: Arc<str>,
}

/// Pages of the dashboard.
pub(super) const PAGES: [&str; 9] = [
    "status",
    "workers",
    "tasks",
    "system",
    "graph",
    "groups",
    "events",
    "logs",
    "exceptions",
];

/// Stock pages that have no counterpart here; they lead to the status page.
const ELSEWHERE: [&str; 8] = [
    "profile",
    "profile-server",
    "stealing",
    "hardware",
    "counters",
    "shuffle",
    "gpu",
    "individual-cluster-map",
];

pub(super) fn router(view: Arc<dyn StateView>, options: HttpOptions) -> Router {
    let base: Arc<str> = if options.prefix.is_empty() {
        "".into()
    } else {
        format!("/{}", options.prefix.trim_matches('/')).into()
    };
    let shared = Shared {
        view,
        options: Arc::new(options),
        base: base.clone(),
    };
    let mut routes = plain_routes();
    if shared.options.api {
        routes = routes.merge(api_routes());
    }
    if shared.options.dashboard {
        routes = routes.merge(page_routes());
    }
    let mut router = if base.is_empty() {
        routes
    } else {
        prefixed(&base, routes)
    };
    router = router.layer(middleware::from_fn(headers));
    router.with_state(shared)
}

/// The routes under their prefix. The bare and the slashed prefix lead to the first page; so does the root, as in stock.
fn prefixed(base: &str, routes: Router<Shared>) -> Router<Shared> {
    let home = format!("{base}/status");
    let mut router = Router::new()
        .route(
            "/",
            get(redirect(StatusCode::MOVED_PERMANENTLY, home.clone())),
        )
        .route(
            &format!("{base}/"),
            get(redirect(StatusCode::MOVED_PERMANENTLY, home.clone())),
        );
    // Probes need not know the prefix.
    if base != "/health" {
        router = router.route("/health", get(health));
    }
    // Nor do links that clients make from the address alone.
    if base != "/status" {
        router = router.route("/status", get(redirect(StatusCode::FOUND, home)));
    }
    router.nest(base, routes)
}

fn plain_routes() -> Router<Shared> {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(serve_metrics))
        .route("/json/counts.json", get(json::counts))
        .route("/json/identity.json", get(json::identity))
        .route("/json/index.html", get(json::index))
        .route("/sitemap.json", get(json::sitemap))
        .route("/individual-plots.json", get(json::individual_plots))
        .route("/eventstream", get(eventstream::connect))
        .route("/info", get(info_home))
        .route("/info/main/workers.html", get(info::workers))
        .route("/info/main/exceptions.html", get(info::exceptions))
        .route("/info/main/logs.html", get(info::logs))
        .route("/info/worker/{*name}", get(info::worker))
        .route("/info/task/{*name}", get(info::task))
        .route("/info/logs/{*name}", get(info::worker_logs))
        .route("/info/call-stacks/{*name}", get(info::worker_call_stacks))
        .route("/info/call-stack/{*name}", get(info::task_call_stack))
        .route("/oxidask/style.css", get(dashboard::style))
        .route("/oxidask/info.js", get(dashboard::info_script))
        .route("/favicon.ico", get(dashboard::icon))
}

fn api_routes() -> Router<Shared> {
    Router::new()
        .route("/api/v1", get(api::index))
        .route("/api/v1/retire_workers", post(api::retire_workers))
        .route("/api/v1/get_workers", get(api::get_workers))
        .route("/api/v1/adaptive_target", get(api::adaptive_target))
        .route("/api/v1/check_idle", get(api::check_idle))
}

fn page_routes() -> Router<Shared> {
    let mut routes = Router::new()
        .route("/", get(home))
        .route("/oxidask/dashboard.js", get(dashboard::script))
        .route("/oxidask/overview.json", get(dashboard::overview))
        .route("/oxidask/stream.json", get(dashboard::stream))
        .route("/oxidask/graph.json", get(dashboard::graph))
        .route("/oxidask/events.json", get(dashboard::events))
        .route("/oxidask/logs.json", get(dashboard::logs))
        .route("/oxidask/exceptions.json", get(dashboard::exceptions))
        .route("/oxidask/charts.js", get(dashboard::charts_script))
        .route("/statics/images/favicon.ico", get(dashboard::icon));
    for page in PAGES {
        routes = routes.route(&format!("/{page}"), get(dashboard::page));
    }
    for (path, ..) in dashboard::INDIVIDUAL {
        routes = routes.route(&format!("/individual-{path}"), get(dashboard::page));
    }
    for page in ELSEWHERE {
        routes = routes.route(
            &format!("/{page}"),
            get(redirect(StatusCode::FOUND, "status".to_owned())),
        );
    }
    routes
}

async fn health() -> &'static str {
    "ok"
}

async fn home(State(shared): State<Shared>) -> Response {
    to(
        StatusCode::MOVED_PERMANENTLY,
        &format!("{}/status", shared.base),
    )
}

async fn info_home(State(shared): State<Shared>) -> Response {
    to(
        StatusCode::FOUND,
        &format!("{}/info/main/workers.html", shared.base),
    )
}

fn redirect(
    status: StatusCode,
    location: String,
) -> impl Fn() -> std::future::Ready<Response> + Clone {
    move || std::future::ready(to(status, &location))
}

fn to(status: StatusCode, location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (status, [(LOCATION, location)]).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn serve_metrics(State(shared): State<Shared>) -> Response {
    let figures = shared.view.metrics().await;
    match metrics::render(
        shared.options.namespace.as_deref(),
        &figures,
        &process::ProcessStats::read(),
    ) {
        Ok(body) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Nothing but this server's own scripts runs in its pages, whatever a key or an exception's text contains; nothing is
/// cached, all of it being the state of a moment.
async fn headers(request: Request, next: Next) -> Response {
    const CSP: HeaderName = HeaderName::from_static("content-security-policy");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(
        CSP,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
             connect-src 'self'; base-uri 'none'; form-action 'self'",
        ),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
