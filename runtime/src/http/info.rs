//! `/info/*`: pages about workers, tasks, exceptions, logs and call stacks.

use super::html::{
    esc, format_bytes, format_time, page, table, task_link, url_escape, worker_link,
};
use super::router::Shared;
use super::view::{CallStack, CallStackOf, LogLine, TaskDetail, ViewError, WorkerRow};
use crate::config::logging::timestamp;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

/// Rows of one table at most.
const MAX_ROWS: usize = 5_000;

pub(super) async fn workers(State(shared): State<Shared>) -> Response {
    let overview = shared.view.overview().await;
    let mut rows = overview.workers;
    rows.sort_by_cached_key(|row| name_text(&row.name));
    let title = format!("Scheduler {}", overview.cluster.address);
    let body = format!(
        "<h2>Workers</h2>{}",
        worker_table(&rows, shared.options.api)
    );
    html(&title, &body)
}

pub(super) async fn worker(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    let Some(address) = spaced(&name) else {
        return not_found();
    };
    let Some(detail) = shared.view.worker(address, MAX_ROWS).await else {
        return not_found();
    };
    let address = &detail.row.address;
    let mut body = worker_table(std::slice::from_ref(&detail.row), shared.options.api);
    let _ = write!(
        body,
        "<p><a class=\"button\" href=\"../call-stacks/{0}.html\">Call stacks</a> <a class=\"button\" \
         href=\"../logs/{0}.html\">Logs</a></p><div class=\"columns\"><section><h2>In memory</h2>",
        url_escape(address)
    );
    let in_memory = detail
        .has_what
        .iter()
        .map(|(key, nbytes)| vec![task_link(key), format_bytes(*nbytes)]);
    body += &table(&["Task", "Bytes"], in_memory);
    body += "</section><section><h2>Processing</h2>";
    let processing = detail
        .processing
        .iter()
        .map(|(key, priority)| vec![task_link(key), esc(priority)]);
    body += &table(&["Task", "Priority"], processing);
    body += "</section></div>";
    if !detail.resources.is_empty() {
        body += "<h2>Resources</h2>";
        let rows = detail
            .resources
            .iter()
            .map(|(name, used, total)| vec![esc(name), used.to_string(), total.to_string()]);
        body += &table(&["Resource", "Consumed", "Total"], rows);
    }
    html(&format!("Worker: {address}"), &body)
}

pub(super) async fn task(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    let Some(key) = stem(&name) else {
        return not_found();
    };
    let mut found = shared.view.task(key.to_owned(), MAX_ROWS).await;
    if found.is_none() && key.contains('+') {
        // Links made by other tools write spaces so.
        found = shared.view.task(key.replace('+', " "), MAX_ROWS).await;
    }
    match found {
        Some(task) => html(
            &format!("Task: {}", task.key),
            &task_body(&task, shared.options.api),
        ),
        None => not_found(),
    }
}

fn task_body(task: &TaskDetail, api: bool) -> String {
    let mut facts = vec![("Status", esc(&task.state))];
    if let Some(worker) = &task.processing_on {
        facts.push(("Processing on", worker_link(worker)));
        let key = url_escape(&task.key);
        facts.push((
            "Call stack",
            format!("<a class=\"button\" href=\"../call-stack/{key}.html\">Call stack</a>"),
        ));
    }
    if !task.type_name.is_empty() {
        facts.push(("Type", esc(&task.type_name)));
    }
    if let Some(nbytes) = task.nbytes {
        facts.push(("Bytes", format_bytes(nbytes)));
    }
    facts.extend(
        task.waiting_on
            .iter()
            .map(|key| ("Waiting on", task_link(key))),
    );
    facts.push(("Priority", esc(&task.priority)));
    facts.extend(
        task.attributes
            .iter()
            .map(|(name, value)| (name.as_str(), esc(value))),
    );
    let mut body = String::from("<table class=\"facts\">");
    for (name, value) in facts {
        let _ = write!(body, "<tr><th>{}</th><td>{value}</td></tr>", esc(name));
    }
    body += "</table>";
    if !task.exception_text.is_empty() {
        body += &exception(&task.exception_text, &task.traceback_text);
    }
    body += "<div class=\"columns\"><section><h2>Dependencies</h2>";
    body += &relatives(&task.dependencies);
    body += "</section><section><h2>Dependents</h2>";
    body += &relatives(&task.dependents);
    body += "</section></div>";
    if !task.who_has.is_empty() {
        body += "<h2>Workers with data</h2>";
        body += &worker_table(&task.who_has, api);
    }
    if !task.who_wants.is_empty() {
        body += "<h2>Clients with future</h2><ul>";
        for client in &task.who_wants {
            let _ = write!(body, "<li>{}</li>", esc(client));
        }
        body += "</ul>";
    }
    body + "<h2>Transition log</h2>" + &story(task)
}

fn relatives(list: &[(String, String)]) -> String {
    table(
        &["Key", "State"],
        list.iter()
            .map(|(key, state)| vec![task_link(key), esc(state)]),
    )
}

fn story(task: &TaskDetail) -> String {
    let rows = task.story.iter().map(|row| {
        let mut recommended = String::new();
        for (key, state) in &row.recommendations {
            let _ = write!(
                recommended,
                "<div>{} → {}</div>",
                task_link(key),
                esc(state)
            );
        }
        let (start, finish) = (esc(&row.start), esc(&row.finish));
        vec![
            clock(row.time),
            task_link(&row.key),
            start,
            finish,
            esc(&row.stimulus_id),
            recommended,
        ]
    });
    table(
        &[
            "Time",
            "Key",
            "Start",
            "Finish",
            "Stimulus ID",
            "Recommended",
        ],
        rows,
    )
}

fn exception(text: &str, traceback: &str) -> String {
    format!(
        "<div class=\"exception\"><p><code>{}</code></p><details><summary>Traceback</summary><pre>{}</pre></details></div>",
        esc(text),
        esc(traceback)
    )
}

pub(super) async fn exceptions(State(shared): State<Shared>) -> Response {
    let erred = shared.view.erred_tasks(MAX_ROWS).await;
    let mut body = String::new();
    if erred.is_empty() {
        body += "<p class=\"quiet\">No task has failed.</p>";
    }
    for task in &erred {
        let workers: Vec<String> = task
            .erred_on
            .iter()
            .map(|worker| worker_link(worker))
            .collect();
        let _ = write!(
            body,
            "<section class=\"card\"><p>{} <span class=\"quiet\">{} on {}</span></p>{}</section>",
            task_link(&task.key),
            clock(task.time),
            if workers.is_empty() {
                "an unknown worker".to_owned()
            } else {
                workers.join(", ")
            },
            exception(&task.exception_text, &task.traceback_text)
        );
    }
    html("Exceptions", &body)
}

pub(super) async fn logs(State(shared): State<Shared>) -> Response {
    let logs = shared.view.logs(MAX_ROWS).await;
    html("Logs", &log_lines(&logs))
}

pub(super) async fn worker_logs(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Response {
    let Some(address) = spaced(&name) else {
        return not_found();
    };
    let title = format!("Logs: {address}");
    match shared.view.worker_logs(address).await {
        Ok(Some(logs)) => html(&title, &log_lines(&logs)),
        Ok(None) => not_found(),
        Err(error) => failed(&error),
    }
}

fn log_lines(logs: &[LogLine]) -> String {
    let mut body = String::from("<pre class=\"log\">");
    for line in logs.iter().take(MAX_ROWS) {
        let _ = writeln!(
            body,
            "<span class=\"{}\">{}</span>",
            level_class(&line.level),
            esc(&line.text)
        );
    }
    body + "</pre>"
}

fn level_class(level: &str) -> &'static str {
    match level {
        "WARNING" => "warning",
        "ERROR" | "CRITICAL" => "error",
        "DEBUG" => "debug",
        _ => "plain",
    }
}

pub(super) async fn worker_call_stacks(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Response {
    let Some(address) = spaced(&name) else {
        return not_found();
    };
    let title = format!("Call Stacks: {address}");
    match shared.view.call_stacks(CallStackOf::Worker(address)).await {
        Ok(Some(stacks)) => html(&title, &call_stacks(&stacks)),
        Ok(None) => not_found(),
        Err(error) => failed(&error),
    }
}

pub(super) async fn task_call_stack(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Response {
    let Some(key) = stem(&name) else {
        return not_found();
    };
    match shared
        .view
        .call_stacks(CallStackOf::Task(key.to_owned()))
        .await
    {
        Ok(Some(stacks)) => html(&format!("Call Stack: {key}"), &call_stacks(&stacks)),
        Ok(None) => not_found(),
        Err(error) => failed(&error),
    }
}

fn call_stacks(stacks: &[CallStack]) -> String {
    if stacks.is_empty() {
        return "<p>Task not actively running. It may be finished or not yet started</p>"
            .to_owned();
    }
    let mut body = String::new();
    for stack in stacks {
        let _ = write!(
            body,
            "<h2>{} on {}</h2><pre>",
            task_link(&stack.key),
            worker_link(&stack.worker)
        );
        for frame in &stack.frames {
            let _ = writeln!(body, "{}", esc(frame.trim_end()));
        }
        body += "</pre>";
    }
    body
}

fn worker_table(rows: &[WorkerRow], api: bool) -> String {
    let mut heads = vec![
        "Worker",
        "Name",
        "Status",
        "Threads",
        "Memory limit",
        "Memory use",
        "Occupancy",
        "Processing",
        "In memory",
        "Services",
        "Logs",
        "Last seen",
    ];
    if api {
        heads.push("");
    }
    table(
        &heads,
        rows.iter().take(MAX_ROWS).map(|row| worker_cells(row, api)),
    )
}

fn worker_cells(row: &WorkerRow, api: bool) -> Vec<String> {
    let limit = if row.memory_limit == 0 {
        String::new()
    } else {
        format_bytes(row.memory_limit)
    };
    let dashboard = row.dashboard_port.map_or_else(String::new, |port| {
        // The worker's own dashboard, on its own host: nothing is proxied.
        format!(
            "<a href=\"http://{}:{port}/status\" rel=\"noreferrer\">dashboard</a>",
            esc(&host(&row.host))
        )
    });
    let stale = if row.last_seen_ago > 60.0 {
        " class=\"stale\""
    } else {
        ""
    };
    let mut cells = vec![
        worker_link(&row.address),
        esc(&name_text(&row.name)),
        esc(&row.status),
        row.nthreads.to_string(),
        limit,
        format!(
            "<progress value=\"{}\" max=\"{}\"></progress> {}",
            row.memory,
            row.memory_limit.max(1),
            format_bytes(row.memory)
        ),
        format_time(row.occupancy),
        row.processing.to_string(),
        row.in_memory.to_string(),
        dashboard,
        format!(
            "<a href=\"../logs/{}.html\">logs</a>",
            url_escape(&row.address)
        ),
        format!("<span{stale}>{}</span>", format_time(row.last_seen_ago)),
    ];
    if api {
        cells.push(format!(
            "<button data-retire=\"{}\">Retire</button>",
            esc(&row.address)
        ));
    }
    cells
}

/// A host in a URL; anything but a name or an address is dropped.
fn host(host: &str) -> String {
    let clean: String = host
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_'))
        .collect();
    if clean.contains(':') {
        format!("[{clean}]")
    } else {
        clean
    }
}

fn name_text(name: &serde_json::Value) -> String {
    match name {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `2026-11-24 01:17:20,123`.
fn clock(seconds: f64) -> String {
    let since = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    // A time far beyond what the system can express shows as the epoch.
    timestamp(UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH))
}

/// The name without `.html`.
fn stem(name: &str) -> Option<&str> {
    name.strip_suffix(".html")
}

/// The name without `.html`, `+` read as a space as in stock.
fn spaced(name: &str) -> Option<String> {
    stem(name).map(|name| name.replace('+', " "))
}

fn html(title: &str, body: &str) -> Response {
    Html(page(title, body)).into_response()
}

fn not_found() -> Response {
    (
        StatusCode::NOT_FOUND,
        Html(page(
            "404: Not Found",
            "<p>There is no such worker or task.</p>",
        )),
    )
        .into_response()
}

fn failed(error: &ViewError) -> Response {
    tracing::warn!(%error, "an info page failed");
    let body = format!("<p>{}</p>", esc(&error.to_string()));
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        Html(page("500: Internal Server Error", &body)),
    )
        .into_response()
}
