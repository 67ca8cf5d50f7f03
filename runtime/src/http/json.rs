//! `/json/*`, `/sitemap.json` and `/individual-plots.json`.

use super::dashboard::INDIVIDUAL;
use super::router::{PAGES, Shared};
use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Map, Value, json};

/// JSON with the content type that tornado writes.
fn tornado_json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(CONTENT_TYPE, "application/json; charset=UTF-8")], body).into_response(),
        Err(error) => (
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )
            .into_response(),
    }
}

pub(super) async fn counts(State(shared): State<Shared>) -> Response {
    tornado_json(&shared.view.counts().await)
}

pub(super) async fn identity(State(shared): State<Shared>) -> Response {
    tornado_json(&shared.view.identity().await)
}

pub(super) async fn index() -> Html<&'static str> {
    Html(
        "<html>\n  <body>\n    <h2> Index of JSON routes </h2>\n    <p> These are typically used by automated services to \
         query the state of the scheduler </p>\n    <ul>\n      <li><a href=\"counts.json\">counts.json</a></li>\n      \
         <li><a href=\"identity.json\">identity.json</a></li>\n    </ul>\n  </body>\n</html>\n",
    )
}

/// Pages that show one panel alone, for tools that embed them (JupyterLab's Dask extension).
pub(super) async fn individual_plots(State(shared): State<Shared>) -> Response {
    let mut plots = Map::new();
    if shared.options.dashboard {
        for (path, title, _) in INDIVIDUAL {
            plots.insert(
                format!("Individual {title}"),
                Value::from(format!("/individual-{path}")),
            );
        }
    }
    tornado_json(&plots)
}

pub(super) async fn sitemap(State(shared): State<Shared>) -> Json<Value> {
    let prefix = &shared.base;
    let mut paths: Vec<String> = [
        "/api/v1",
        "/eventstream",
        "/health",
        "/individual-plots.json",
        "/info",
        "/info/main/exceptions.html",
        "/info/main/logs.html",
        "/info/main/workers.html",
        "/json/counts.json",
        "/json/identity.json",
        "/json/index.html",
        "/metrics",
        "/sitemap.json",
    ]
    .iter()
    .filter(|path| shared.options.api || !path.starts_with("/api"))
    .map(|path| format!("{prefix}{path}"))
    .collect();
    if shared.options.dashboard {
        paths.extend(PAGES.iter().map(|page| format!("{prefix}/{page}")));
    }
    paths.sort();
    Json(json!({ "paths": paths }))
}
