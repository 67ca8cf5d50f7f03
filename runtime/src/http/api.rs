//! `/api/v1`: shapes of stock's `distributed.http.scheduler.api`.

use super::router::Shared;
use super::view::{RetireRequest, ViewError};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Workers that one request may name.
const MAX_NAMED_WORKERS: usize = 100_000;

pub(super) async fn index() -> &'static str {
    "API V1"
}

pub(super) async fn get_workers(State(shared): State<Shared>) -> Response {
    let overview = shared.view.overview().await;
    let workers: Vec<Value> = overview
        .workers
        .iter()
        .map(|w| json!({"name": w.name, "address": w.address}))
        .collect();
    Json(json!({"num_workers": workers.len(), "workers": workers})).into_response()
}

pub(super) async fn adaptive_target(State(shared): State<Shared>) -> Response {
    answer(
        shared
            .view
            .adaptive_target()
            .await
            .map(|n| json!({"workers": n})),
    )
}

pub(super) async fn check_idle(State(shared): State<Shared>) -> Response {
    answer(
        shared
            .view
            .check_idle()
            .await
            .map(|since| json!({"idle_since": since})),
    )
}

pub(super) async fn retire_workers(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if is_cross_site(&headers) {
        return (
            StatusCode::FORBIDDEN,
            Json(json!({"Error": "cross-site request"})),
        )
            .into_response();
    }
    match retire_request(&body) {
        Some(request) => answer(shared.view.retire_workers(request).await),
        None => answer(Err(ViewError(
            "expected {\"workers\": [addresses]} or {\"n\": count}".into(),
        ))),
    }
}

/// A browser says that another site's page made the request: pages elsewhere must not change this cluster.
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site")
}

fn retire_request(body: &[u8]) -> Option<RetireRequest> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let body = body.as_object()?;
    if let Some(n) = body.get("n").filter(|n| !n.is_null()) {
        let n = n.as_u64()?;
        if n > 0 {
            return Some(RetireRequest::Count(n));
        }
    }
    let workers = match body.get("workers") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) if items.len() <= MAX_NAMED_WORKERS => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<_>>()?,
        // Stock's own default is an empty mapping.
        Some(Value::Object(map)) if map.is_empty() => Vec::new(),
        Some(_) => return None,
    };
    Some(RetireRequest::Workers(workers))
}

fn answer(result: Result<Value, ViewError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => {
            tracing::warn!(%error, "an API request failed");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                Json(json!({"Error": "Internal Server Error"})),
            )
                .into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_stock_s() {
        let named = |names: &[&str]| {
            Some(RetireRequest::Workers(
                names.iter().map(|n| (*n).to_owned()).collect(),
            ))
        };
        assert_eq!(
            retire_request(br#"{"n": 2}"#),
            Some(RetireRequest::Count(2))
        );
        assert_eq!(
            retire_request(br#"{"workers": ["a", "b"]}"#),
            named(&["a", "b"])
        );
        assert_eq!(
            retire_request(br#"{"n": 0, "workers": ["a"]}"#),
            named(&["a"])
        );
        assert_eq!(retire_request(b"{}"), named(&[]));
        for bad in [
            &b"[]"[..],
            b"",
            b"{\"n\": -1}",
            b"{\"workers\": [1]}",
            b"{\"workers\": \"a\"}",
        ] {
            assert_eq!(retire_request(bad), None);
        }
    }
}
