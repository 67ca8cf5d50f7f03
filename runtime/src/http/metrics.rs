//! `/metrics`: the stock scheduler's families in Prometheus' text format.

use super::process::ProcessStats;
use super::view::{Metrics, PrefixMetrics, SemaphoreMetrics};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

/// Content type of the text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4";
/// Prefixes and semaphores that get lines at most: each costs a dozen, and a scraper must survive a runaway naming.
const MAX_LABELS: usize = 5_000;

/// Renders all families.
pub(super) fn render(
    namespace: Option<&str>,
    metrics: &Metrics,
    process: &ProcessStats,
) -> Result<Vec<u8>, prometheus::Error> {
    let namespace = namespace
        .filter(|name| !name.is_empty())
        .map(|name| format!("{name}_"))
        .unwrap_or_default();
    let mut families = Families {
        namespace,
        list: Vec::new(),
        empty: String::new(),
    };
    scheduler(&mut families, metrics);
    prefixes(
        &mut families,
        &metrics.prefixes[..metrics.prefixes.len().min(MAX_LABELS)],
    );
    semaphores(
        &mut families,
        &metrics.semaphores[..metrics.semaphores.len().min(MAX_LABELS)],
    );
    stealing(&mut families, metrics);
    families.namespace.clear();
    process_stats(&mut families, process);
    let mut out = Vec::new();
    TextEncoder::new().encode(&families.list, &mut out)?;
    out.extend_from_slice(families.empty.as_bytes());
    Ok(out)
}

struct Families {
    namespace: String,
    list: Vec<MetricFamily>,
    /// Heads of families without any value, which the encoder refuses and stock writes.
    empty: String,
}

type Labels<'a> = &'a [(&'static str, &'a str)];

impl Families {
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.many(
            name,
            help,
            MetricType::GAUGE,
            std::iter::once((Vec::new(), value)),
        );
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.many(
            name,
            help,
            MetricType::COUNTER,
            std::iter::once((Vec::new(), value)),
        );
    }

    fn many(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: impl Iterator<Item = (Vec<LabelPair>, f64)>,
    ) {
        let metrics: Vec<Metric> = values
            .map(|(labels, value)| metric(kind, labels, value))
            .collect();
        let name = format!("{}{name}", self.namespace);
        if metrics.is_empty() {
            let help = help.replace('\\', r"\\").replace('\n', r"\n");
            let kind = if kind == MetricType::COUNTER {
                "counter"
            } else {
                "gauge"
            };
            self.empty += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name);
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.list.push(family);
    }
}

fn metric(kind: MetricType, labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut metric = Metric::default();
    metric.set_label(labels);
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

fn labels(pairs: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): &(&'static str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    pairs.iter().map(pair).collect()
}

fn scheduler(out: &mut Families, m: &Metrics) {
    out.gauge(
        "scheduler_clients",
        "Number of clients connected",
        m.clients as f64,
    );
    out.counter(
        "scheduler_client_connections_added_total",
        "Total number of client connections added",
        m.client_connections_added as f64,
    );
    out.counter(
        "scheduler_client_connections_removed_total",
        "Total number of client connections removed",
        m.client_connections_removed as f64,
    );
    out.gauge(
        "scheduler_desired_workers",
        "Number of workers scheduler needs for task graph",
        m.desired_workers as f64,
    );
    let states = [
        ("idle", m.workers_idle),
        ("partially_saturated", m.workers_partially_saturated),
        ("saturated", m.workers_saturated),
        ("paused", m.workers_paused),
        ("retiring", m.workers_retiring),
    ];
    let by_state = states
        .iter()
        .map(|(state, n)| (labels(&[("state", state)]), *n as f64));
    out.many(
        "scheduler_workers",
        "Number of workers known by scheduler",
        MetricType::GAUGE,
        by_state,
    );
    out.counter(
        "scheduler_workers_added_total",
        "Total number of workers added",
        m.workers_added as f64,
    );
    out.counter(
        "scheduler_workers_removed_total",
        "Total number of workers removed",
        m.workers_removed as f64,
    );
    // No interpreter, hence neither its lock nor its garbage collector; the families stay for existing dashboards.
    out.counter(
        "scheduler_gil_contention_seconds_total",
        "GIL contention metric",
        0.0,
    );
    out.counter(
        "scheduler_gc_collection_seconds_total",
        "Total time spent on garbage collection",
        0.0,
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    out.counter(
        "scheduler_last_time_total",
        "SystemMonitor last time",
        now.map_or(0.0, |d| d.as_secs_f64()),
    );
    out.counter(
        "scheduler_tasks_forgotten_total",
        "Total number of processed tasks no longer in memory and already removed from the scheduler job queue\n\
         Note: Task groups on the scheduler which have all tasks in the forgotten state are not included.",
        m.tasks_forgotten as f64,
    );
    let by_state = m
        .task_states
        .iter()
        .filter(|(state, _)| *state != "forgotten");
    let by_state = by_state.map(|(state, n)| (labels(&[("state", state)]), *n as f64));
    out.many(
        "scheduler_tasks",
        "Number of tasks known by scheduler",
        MetricType::GAUGE,
        by_state,
    );
    out.gauge(
        "scheduler_task_groups",
        "Number of task groups known by scheduler",
        m.task_groups as f64,
    );
    out.gauge(
        "scheduler_tick_duration_maximum_seconds",
        "Maximum tick duration observed since Prometheus last scraped metrics",
        m.tick_duration_maximum_seconds,
    );
    out.counter(
        "scheduler_tick_count_total",
        "Total number of ticks observed since the server started",
        m.tick_count as f64,
    );
}

fn prefixes(out: &mut Families, prefixes: &[PrefixMetrics]) {
    let each = |value: fn(&PrefixMetrics) -> f64| {
        prefixes
            .iter()
            .map(move |p| (labels(&[("task_prefix_name", &p.name)]), value(p)))
    };
    out.many(
        "scheduler_tasks_suspicious_total",
        "Total number of times a task has been marked suspicious",
        MetricType::COUNTER,
        each(|p| p.suspicious as f64),
    );
    out.many(
        "scheduler_tasks_compute_seconds_total",
        "Total amount of compute time spent in each prefix",
        MetricType::COUNTER,
        each(|p| p.compute_seconds),
    );
    out.many(
        "scheduler_tasks_transfer_seconds_total",
        "Total amount of transfer time spent in each prefix",
        MetricType::COUNTER,
        each(|p| p.transfer_seconds),
    );
    out.many(
        "scheduler_tasks_output_bytes",
        "Current number of bytes in memory (without duplicates) for each prefix",
        MetricType::GAUGE,
        each(|p| p.nbytes as f64),
    );
    let totals = prefixes.iter().flat_map(|p| {
        p.state_counts.iter().map(|(state, n)| {
            (
                labels(&[("task_prefix_name", &p.name), ("state", state)]),
                *n as f64,
            )
        })
    });
    out.many(
        "scheduler_prefix_state_totals_total",
        "Accumulated count of task prefix in each state",
        MetricType::COUNTER,
        totals,
    );
}

fn semaphores(out: &mut Families, semaphores: &[SemaphoreMetrics]) {
    let mut family =
        |name: &str, help: &str, kind: MetricType, value: fn(&SemaphoreMetrics) -> f64| {
            out.many(
                name,
                help,
                kind,
                semaphores
                    .iter()
                    .map(|s| (labels(&[("name", &s.name)]), value(s))),
            );
        };
    family(
        "semaphore_max_leases",
        "Maximum leases allowed per semaphore\nNote: This will be constant for each semaphore during its lifetime.",
        MetricType::GAUGE,
        |s| s.max_leases as f64,
    );
    family(
        "semaphore_active_leases",
        "Amount of currently active leases per semaphore",
        MetricType::GAUGE,
        |s| s.active_leases as f64,
    );
    family(
        "semaphore_pending_leases",
        "Amount of currently pending leases per semaphore",
        MetricType::GAUGE,
        |s| s.pending_leases as f64,
    );
    family(
        "semaphore_acquire_total",
        "Total number of leases acquired per semaphore",
        MetricType::COUNTER,
        |s| s.acquired as f64,
    );
    family(
        "semaphore_release_total",
        "Total number of leases released per semaphore\nNote: If a semaphore is closed while there are still leases \
         active, this count will not equal `semaphore_acquire_total` after execution.",
        MetricType::COUNTER,
        |s| s.released as f64,
    );
    family(
        "semaphore_average_pending_lease_time_s",
        "Exponential moving average of the time it took to acquire a lease per semaphore\nNote: This only includes time \
         spent on scheduler side, it does not include time spent on communication.\nNote: This average is calculated \
         based on order of leases instead of time of lease acquisition.",
        MetricType::GAUGE,
        |s| s.average_pending_lease_time_seconds,
    );
}

fn stealing(out: &mut Families, m: &Metrics) {
    let each = |value: fn(&super::view::StealingMetrics) -> f64| {
        m.stealing
            .iter()
            .map(move |s| (labels(&[("cost_multiplier", &s.cost_multiplier)]), value(s)))
    };
    out.many(
        "stealing_request_count_total",
        "Total number of stealing requests per cost multiplier.",
        MetricType::COUNTER,
        each(|s| s.requests as f64),
    );
    out.many(
        "stealing_request_cost_total",
        "Total cost of stealing requests per cost multiplier.",
        MetricType::COUNTER,
        each(|s| s.cost),
    );
}

fn process_stats(out: &mut Families, p: &ProcessStats) {
    out.gauge(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        p.virtual_memory_bytes,
    );
    out.gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        p.resident_memory_bytes,
    );
    out.gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        p.start_time_seconds,
    );
    out.counter(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        p.cpu_seconds_total,
    );
    out.gauge(
        "process_open_fds",
        "Number of open file descriptors.",
        p.open_fds,
    );
    out.gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        p.max_fds,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_without_values_have_heads() {
        let body = render(Some("dask"), &Metrics::default(), &ProcessStats::read()).unwrap();
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("# TYPE dask_semaphore_max_leases gauge\n"));
        assert!(body.contains("per semaphore\\nNote: This will be constant"));
        assert!(body.contains("# TYPE dask_stealing_request_count_total counter\n"));
    }
}
