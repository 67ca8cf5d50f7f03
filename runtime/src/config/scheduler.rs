//! What the scheduler reads from the configuration, typed and checked once at start.

use super::setting::Reader;
pub use super::setting::{Bytes, Quantity, Seconds};
use super::tree::Tree;
use super::{Config, ConfigError};
use crate::scheduler::memory::Measure;
use std::collections::BTreeMap;

macro_rules! settings {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident : $type:ty = $path:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $($(#[$doc])* #[doc = ""] #[doc = concat!("Key: `", $path, "`.")] pub $field: $type,)*
        }

        impl $name {
            fn read(reader: &mut Reader<'_>) -> Self {
                Self { $($field: reader.get($path),)* }
            }
        }
    };
}

settings! {
    /// Everything the scheduler reads from the configuration. Names and defaults are stock's; durations are seconds.
    SchedulerConfig {
        /// Times a task may be on a dying worker before it is given up.
        allowed_failures: u32 = "distributed.scheduler.allowed-failures",
        /// Assumed bandwidth between workers, bytes per second.
        bandwidth: f64 = "distributed.scheduler.bandwidth",
        /// Operations that are refused.
        blocked_handlers: Vec<String> = "distributed.scheduler.blocked-handlers",
        /// Address advertised instead of the listening one.
        contact_address: Option<String> = "distributed.scheduler.contact-address",
        /// Assumed size of results whose size is unknown.
        default_data_size: Bytes = "distributed.scheduler.default-data-size",
        /// Keep the connections used for broadcasts.
        reuse_broadcast_comm: bool = "distributed.scheduler.reuse-broadcast-comm",
        /// How long events of a gone worker or client are kept.
        events_cleanup_delay: Seconds = "distributed.scheduler.events-cleanup-delay",
        /// Idle time after which the scheduler ends.
        idle_timeout: Option<Seconds> = "distributed.scheduler.idle-timeout",
        /// Time without any suitable worker after which tasks fail.
        no_workers_timeout: Option<Seconds> = "distributed.scheduler.no-workers-timeout",
        /// Whether idle workers take tasks from busy ones.
        work_stealing: bool = "distributed.scheduler.work-stealing",
        /// Interval of stealing rounds.
        work_stealing_interval: Seconds = "distributed.scheduler.work-stealing-interval",
        /// Root tasks sent to a worker per thread; infinite turns queuing off.
        worker_saturation: f64 = "distributed.scheduler.worker-saturation",
        /// Largest number of dependencies of a root-like task group.
        rootish_taskgroup: u64 = "distributed.scheduler.rootish-taskgroup",
        /// Largest number of dependencies' dependencies of a root-like task group.
        rootish_taskgroup_dependencies: u64 = "distributed.scheduler.rootish-taskgroup-dependencies",
        /// Silence after which a worker is given up.
        worker_ttl: Option<Seconds> = "distributed.scheduler.worker-ttl",
        /// Modules to load at start.
        preload: Vec<String> = "distributed.scheduler.preload",
        /// Their arguments.
        preload_argv: Vec<String> = "distributed.scheduler.preload-argv",
        /// Assumed duration of tasks never seen.
        unknown_task_duration: Seconds = "distributed.scheduler.unknown-task-duration",
        /// Assumed durations by prefix.
        default_task_durations: BTreeMap<String, Seconds> = "distributed.scheduler.default-task-durations",
        /// Check the state after every step.
        validate: bool = "distributed.scheduler.validate",
        /// Task-stream records kept for the status page.
        status_task_stream_length: usize = "distributed.scheduler.dashboard.status.task-stream-length",
        /// Task-stream records kept for the tasks page.
        tasks_task_stream_length: usize = "distributed.scheduler.dashboard.tasks.task-stream-length",
        /// CA file of the dashboard's own TLS.
        dashboard_tls_ca_file: Option<String> = "distributed.scheduler.dashboard.tls.ca-file",
        /// Key of the dashboard's own TLS.
        dashboard_tls_key: Option<String> = "distributed.scheduler.dashboard.tls.key",
        /// Certificate of the dashboard's own TLS.
        dashboard_tls_cert: Option<String> = "distributed.scheduler.dashboard.tls.cert",
        /// Interval at which leases are checked.
        lock_lease_validation_interval: Seconds = "distributed.scheduler.locks.lease-validation-interval",
        /// Age without refresh at which a lease lapses.
        lock_lease_timeout: Seconds = "distributed.scheduler.locks.lease-timeout",
        /// Start the active memory manager.
        amm_start: bool = "distributed.scheduler.active-memory-manager.start",
        /// Interval of the active memory manager.
        amm_interval: Seconds = "distributed.scheduler.active-memory-manager.interval",
        /// Memory measure of the active memory manager.
        amm_measure: String = "distributed.scheduler.active-memory-manager.measure",
        /// Policies of the active memory manager: mappings with a `class`.
        amm_policies: Vec<Tree> = "distributed.scheduler.active-memory-manager.policies",
        /// Age below which growth of unmanaged memory counts as recent.
        memory_recent_to_old_time: Seconds = "distributed.worker.memory.recent-to-old-time",
        /// Memory measure of `rebalance`.
        rebalance_measure: String = "distributed.worker.memory.rebalance.measure",
        /// Fraction of memory above which a worker sends.
        rebalance_sender_min: f64 = "distributed.worker.memory.rebalance.sender-min",
        /// Fraction of memory above which a worker no longer receives.
        rebalance_recipient_max: f64 = "distributed.worker.memory.rebalance.recipient-max",
        /// Width of the band around the mean in which a worker is left alone.
        rebalance_gap: f64 = "distributed.worker.memory.rebalance.sender-recipient-gap",
        /// Time in which adaptive scaling wants the work done.
        adaptive_target_duration: Seconds = "distributed.adaptive.target-duration",
        /// Retries of failed connections to workers.
        comm_retry_count: u32 = "distributed.comm.retry.count",
        /// First delay between retries.
        comm_retry_delay_min: Seconds = "distributed.comm.retry.delay.min",
        /// Longest delay between retries.
        comm_retry_delay_max: Seconds = "distributed.comm.retry.delay.max",
        /// Scheme of addresses that name none.
        default_scheme: String = "distributed.comm.default-scheme",
        /// Backlog of listening sockets.
        socket_backlog: u32 = "distributed.comm.socket-backlog",
        /// Longest time to connect.
        connect_timeout: Seconds = "distributed.comm.timeouts.connect",
        /// Silence after which a TCP connection is dead.
        tcp_timeout: Seconds = "distributed.comm.timeouts.tcp",
        /// Refuse unencrypted connections.
        require_encryption: Option<bool> = "distributed.comm.require-encryption",
        /// Allowed TLS 1.2 ciphers, an OpenSSL list.
        tls_ciphers: Option<String> = "distributed.comm.tls.ciphers",
        /// Lowest TLS version.
        tls_min_version: Option<f64> = "distributed.comm.tls.min-version",
        /// Highest TLS version.
        tls_max_version: Option<f64> = "distributed.comm.tls.max-version",
        /// CA certificates (a path, or PEM text).
        tls_ca_file: Option<String> = "distributed.comm.tls.ca-file",
        /// The scheduler's certificate (a path, or PEM text).
        tls_cert: Option<String> = "distributed.comm.tls.scheduler.cert",
        /// The scheduler's key (a path, or PEM text); absent when the certificate's file holds it.
        tls_key: Option<String> = "distributed.comm.tls.scheduler.key",
        /// Computations kept for display.
        computations_max_history: usize = "distributed.diagnostics.computations.max-history",
        /// Erred tasks kept for display.
        erred_tasks_max_history: usize = "distributed.diagnostics.erred-tasks.max-history",
        /// Template of the dashboard's address.
        dashboard_link: String = "distributed.dashboard.link",
        /// Tasks beyond which the graph page shows no graph.
        dashboard_graph_max_items: usize = "distributed.dashboard.graph-max-items",
        /// Prefix of metric names.
        prometheus_namespace: Option<String> = "distributed.dashboard.prometheus.namespace",
        /// Longest error text kept.
        max_error_length: usize = "distributed.admin.max-error-length",
        /// Log records kept.
        log_length: Option<usize> = "distributed.admin.log-length",
        /// Entries kept of transition logs and of each event topic.
        low_level_log_length: Option<usize> = "distributed.admin.low-level-log-length",
        /// Interval of system measurements.
        system_monitor_interval: Seconds = "distributed.admin.system-monitor.interval",
        /// Graph helper processes; none: chosen from the number of cores.
        graph_helpers: Option<usize> = "oxidask.graph.helpers",
        /// Longest materialisation of one graph.
        graph_timeout: Option<Seconds> = "oxidask.graph.timeout",
        /// Memory of one graph helper.
        graph_memory_limit: Option<Bytes> = "oxidask.graph.memory-limit",
        /// Idle time after which a graph helper ends.
        graph_idle_timeout: Option<Seconds> = "oxidask.graph.idle-timeout",
        /// Send more root tasks ahead to workers while they are short and their results small.
        adaptive_window: bool = "oxidask.scheduler.adaptive-window",
        /// Largest incoming message; none: half the memory.
        max_message_size: Option<Bytes> = "oxidask.max-message-size",
        /// Bytes that may queue towards one client.
        client_buffer_limit: Bytes = "oxidask.client-buffer-limit",
        /// Bytes that may queue towards one worker.
        worker_buffer_limit: Bytes = "oxidask.worker-buffer-limit",
        /// Connections at once.
        max_connections: usize = "oxidask.max-connections",
        /// Serve `/api/v1`.
        http_api: bool = "oxidask.http.api",
    }
}

impl SchedulerConfig {
    /// Reads and checks; the error names every bad value.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let mut reader = Reader {
            tree: &config.tree,
            errors: Vec::new(),
        };
        let this = Self::read(&mut reader);
        let mut errors = reader.errors;
        this.check(&mut errors);
        if errors.is_empty() {
            Ok(this)
        } else {
            Err(ConfigError::Invalid(errors))
        }
    }

    fn check(&self, errors: &mut Vec<String>) {
        if self.worker_saturation.is_nan() || self.worker_saturation <= 0.0 {
            errors.push("distributed.scheduler.worker-saturation must be > 0".into());
        }
        if self.bandwidth.is_nan() || self.bandwidth <= 0.0 {
            errors.push("distributed.scheduler.bandwidth must be > 0".into());
        }
        for (name, value) in [
            (
                "distributed.scheduler.work-stealing-interval",
                self.work_stealing_interval,
            ),
            (
                "distributed.scheduler.active-memory-manager.interval",
                self.amm_interval,
            ),
            (
                "distributed.scheduler.locks.lease-validation-interval",
                self.lock_lease_validation_interval,
            ),
            ("distributed.comm.timeouts.connect", self.connect_timeout),
            ("distributed.comm.timeouts.tcp", self.tcp_timeout),
        ] {
            if value.0.is_nan() || value.0 <= 0.0 {
                errors.push(format!("{name} must be > 0"));
            }
        }
        for (name, measure) in [
            (
                "distributed.scheduler.active-memory-manager.measure",
                &self.amm_measure,
            ),
            (
                "distributed.worker.memory.rebalance.measure",
                &self.rebalance_measure,
            ),
        ] {
            if Measure::parse(measure).is_none() {
                errors.push(format!("{name}: unknown measure {measure:?}"));
            }
        }
        for (name, version) in [
            ("min-version", self.tls_min_version),
            ("max-version", self.tls_max_version),
        ] {
            if version.is_some_and(|v| v != 1.2 && v != 1.3) {
                errors.push(format!("distributed.comm.tls.{name} must be 1.2 or 1.3"));
            }
        }
    }

    /// Graph helpers to run at most.
    #[must_use]
    pub fn graph_helper_count(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.graph_helpers
            .unwrap_or(cores / 2)
            .clamp(1, if self.graph_helpers.is_some() { 64 } else { 8 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, Tree)]) -> Result<SchedulerConfig, ConfigError> {
        let mut user = Tree::empty_map();
        for (path, value) in pairs {
            user.set(path, value.clone());
        }
        SchedulerConfig::new(&Config::from_user(user))
    }

    #[test]
    fn defaults_read() {
        let config = config(&[]).unwrap();
        assert_eq!(config.worker_ttl, Some(Quantity(300.0)));
        assert_eq!(config.idle_timeout, None);
        assert_eq!(config.default_data_size, Quantity(1024));
        assert_eq!(config.default_task_durations["split-stage"], Quantity(1e-6));
        assert_eq!(config.bandwidth, 1e8);
        assert_eq!(config.amm_policies.len(), 1);
        assert_eq!(config.tls_min_version, Some(1.2));
        assert_eq!(config.prometheus_namespace.as_deref(), Some("dask"));
    }

    #[test]
    fn saturation_may_be_infinite() {
        let config = config(&[(
            "distributed.scheduler.worker-saturation",
            Tree::Str("inf".into()),
        )])
        .unwrap();
        assert!(config.worker_saturation.is_infinite());
    }

    #[test]
    fn every_bad_value_is_named() {
        let error = config(&[
            (
                "distributed.scheduler.worker-ttl",
                Tree::Str("5 foos".into()),
            ),
            (
                "distributed.scheduler.allowed-failures",
                Tree::Str("many".into()),
            ),
            ("distributed.scheduler.worker-saturation", Tree::Int(0)),
        ])
        .unwrap_err()
        .to_string();
        for part in [
            "worker-ttl",
            "foos",
            "allowed-failures",
            "worker-saturation",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
