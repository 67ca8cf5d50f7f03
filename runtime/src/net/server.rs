//! The scheduler process, put together.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

use super::core::{Core, CoreHandle, Services, wall_time};
use super::pool::Pool;
use super::reactor::Reactor;
use super::rpc::{Backend, Ctx, Identity, Python, restart_named, update_graph};
use super::{core, listen};
use crate::config::SchedulerConfig;
use crate::config::listen::ListenAddress;
use crate::config::logging::LogRing;
use crate::config::tls::TlsConfigs;
use crate::config::tree::Tree;
use crate::ext::{Ext, handle_stream};
use crate::graph::{GraphPool, PoolConfig};
use crate::host::{Host, HostConfig, HostError};
use crate::protocol::{Limits, Value};
use crate::scheduler::memory::Measure;
use crate::scheduler::shuffle::WORKER_PLUGIN;
use crate::scheduler::{ClientId, Clock, CoreConfig, State, ToWorker};

/// How long the last messages may take when the scheduler ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the scheduler cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The core thread.
    #[error("cannot start the core thread: {0}")]
    Core(#[from] io::Error),
    /// A module to be preloaded.
    #[error("cannot preload: {0}")]
    Preload(#[from] HostError),
    /// No certificates.
    #[error(
        "to listen on {0} set distributed.comm.tls.ca-file and .scheduler.cert, or --tls-ca-file and --tls-cert"
    )]
    NoTls(String),
}

/// What the server needs to start.
pub struct ServerConfig {
    /// Settings.
    pub config: SchedulerConfig,
    /// Where to listen.
    pub listen: Vec<ListenAddress>,
    /// Certificates.
    pub tls: Option<TlsConfigs>,
    /// Recent log records.
    pub logs: LogRing,
    /// Port of the HTTP server, if it runs.
    pub dashboard: Option<u16>,
}

/// A running scheduler.
pub struct Server {
    /// Shared by all handlers.
    pub ctx: Arc<Ctx>,
    /// The addresses it listens on.
    pub addresses: Vec<String>,
    core_thread: JoinHandle<()>,
    accepting: Vec<AbortHandle>,
    shutdown: watch::Receiver<Option<String>>,
}

/// The configured measure; its name was checked when the configuration was read.
fn measure(name: &str) -> Measure {
    Measure::parse(name).unwrap_or(Measure::Optimistic)
}

/// Whether an entry of the memory manager's policies is the one that drops surplus copies. Others would need Python.
fn is_reduce_replicas(policy: &Tree) -> bool {
    matches!(policy.get("class"), Some(Tree::Str(class)) if class.ends_with(".ReduceReplicas"))
}

/// The settings of the core.
fn core_config(c: &SchedulerConfig) -> CoreConfig {
    CoreConfig {
        allowed_failures: c.allowed_failures,
        bandwidth: c.bandwidth,
        default_data_size: c.default_data_size.0 as i64,
        default_task_durations: c
            .default_task_durations
            .iter()
            .map(|(k, v)| (k.clone(), v.0))
            .collect(),
        unknown_task_duration: c.unknown_task_duration.0,
        worker_saturation: c.worker_saturation,
        rootish_taskgroup: c.rootish_taskgroup as usize,
        rootish_taskgroup_dependencies: c.rootish_taskgroup_dependencies as usize,
        work_stealing: c.work_stealing,
        work_stealing_interval: c.work_stealing_interval.0,
        worker_terminate: true,
        low_level_log_length: c.low_level_log_length.unwrap_or(100_000),
        task_stream_length: c.tasks_task_stream_length,
        memory_recent_to_old: c.memory_recent_to_old_time.0,
        rebalance_sender_min: c.rebalance_sender_min,
        rebalance_recipient_max: c.rebalance_recipient_max,
        rebalance_gap: c.rebalance_gap,
        rebalance_measure: measure(&c.rebalance_measure),
        amm_start: c.amm_start,
        amm_reduce_replicas: c.amm_policies.iter().any(is_reduce_replicas),
        amm_interval: c.amm_interval.0,
        amm_measure: measure(&c.amm_measure),
        adaptive_target_duration: c.adaptive_target_duration.0,
        events_cleanup_delay: c.events_cleanup_delay.0,
        adaptive_window: c.adaptive_window,
        no_workers_timeout: c.no_workers_timeout.map(|s| s.0),
        idle_timeout: c.idle_timeout.map(|s| s.0),
        worker_ttl: c.worker_ttl.map(|s| s.0),
    }
}

impl Server {
    /// Binds the sockets and starts all threads and tasks.
    ///
    /// # Errors
    /// If a socket cannot be bound or a thread not be started.
    pub async fn start(server: ServerConfig) -> Result<Self, StartError> {
        let ServerConfig {
            config,
            listen: wanted,
            tls,
            logs,
            dashboard,
        } = server;
        let config = Arc::new(config);
        let limits = config.max_message_size.map_or_else(
            || Limits::for_memory(memory_bytes()),
            |b| Limits::for_memory(b.0.saturating_mul(2)),
        );
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in &wanted {
            let text = format!("{}://{}:{}", address.scheme(), address.host, address.port);
            if address.tls && tls.is_none() {
                return Err(StartError::NoTls(text));
            }
            let listener = listen::bind(&address.host, address.port, config.socket_backlog)
                .await
                .map_err(|error| StartError::Listen {
                    address: text,
                    error,
                })?;
            let port = listener.local_addr()?.port();
            addresses.push(format!(
                "{}://{}:{port}",
                address.scheme(),
                contact_host(&address.host)
            ));
            listeners.push((
                listener,
                address
                    .tls
                    .then(|| tls.as_ref().map(|t| t.server.clone()))
                    .flatten(),
            ));
        }
        let (reactor, handle) = Reactor::new()?;
        let contact = config
            .contact_address
            .clone()
            .or_else(|| addresses.first().cloned())
            .unwrap_or_default();
        let (shutdown, shutdown_rx) = watch::channel(None);
        let ctx = Arc::new_cyclic(|ctx| Ctx {
            core: handle.clone(),
            pool: Pool::new(
                tls.map(|t| t.client),
                limits,
                config.connect_timeout.duration(),
                config.tcp_timeout.duration(),
            ),
            identity: Identity {
                id: format!("Scheduler-{}", uuid4()),
                address: contact,
                started: wall_time(),
                dashboard,
            },
            limits,
            logs,
            ext: Ext::new(),
            python: Python {
                graphs: GraphPool::new(pool_config(&config)),
                host: Host::new(HostConfig::default(), Arc::new(Backend(ctx.clone()))),
                shuffle_creation: tokio::sync::Mutex::default(),
            },
            // Without it peer-to-peer shuffles fail on the workers.
            worker_plugins: Mutex::new(vec![(
                "shuffle".into(),
                Value::Bin(Bytes::from_static(WORKER_PLUGIN)),
            )]),
            nanny_plugins: Mutex::default(),
            starting_nannies: watch::channel(0).0,
            worker_changes: broadcast::channel(4096).0,
            shutdown,
            scatter_turn: AtomicUsize::new(0),
            replication: tokio::sync::Mutex::new(()),
            config: config.clone(),
        });
        let core_thread = start_core(reactor, handle, &ctx, limits)?;
        let mut accepting = Vec::new();
        for (listener, tls) in listeners {
            let serving = tokio::spawn(listen::serve(listener, tls, ctx.clone()));
            accepting.push(serving.abort_handle());
        }
        if !config.preload.is_empty() {
            let host = &ctx.python.host;
            host.preload(&config.preload, &config.preload_argv).await?;
        }
        let expiring = ctx.clone();
        tokio::spawn(async move {
            let interval = expiring.config.lock_lease_validation_interval.duration();
            expiring.ext.expire_leases_every(interval).await;
        });
        Ok(Self {
            ctx,
            addresses,
            core_thread,
            accepting,
            shutdown: shutdown_rx,
        })
    }

    /// Waits until somebody asks the scheduler to end; the reason.
    pub async fn finished(&mut self) -> String {
        match self.shutdown.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Tells workers to close, then ends the core thread.
    pub async fn close(self, reason: &str) {
        tracing::info!("Closing scheduler. Reason: {reason}");
        // First, so that plugins still find the scheduler.
        self.ctx.python.host.shut_down(CLOSE_TIMEOUT).await;
        // Who has lost its connection must find nobody here, rather than a scheduler that is about to end.
        for listener in &self.accepting {
            listener.abort();
        }
        self.ctx.core.post(|core: &mut Core| {
            let workers: Vec<_> = core.state.all_workers().map(|(id, _)| id).collect();
            for id in workers {
                core.state.tell_worker(
                    id,
                    ToWorker::Close {
                        reason: "scheduler-close",
                    },
                );
                core.state.tell_worker(id, ToWorker::CloseStream);
            }
            core.stop();
        });
        let thread = self.core_thread;
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(CLOSE_TIMEOUT, joined).await.is_err() {
            tracing::warn!("some peers did not take their last messages in time");
        }
        self.ctx.python.graphs.shut_down();
    }
}

fn start_core(
    reactor: Reactor,
    handle: CoreHandle,
    ctx: &Arc<Ctx>,
    limits: Limits,
) -> io::Result<JoinHandle<()>> {
    let clock = Clock {
        wall: wall_time(),
        mono: 0.0,
    };
    let state = State::new(core_config(&ctx.config), clock);
    let services = Arc::new(Shell {
        ctx: ctx.clone(),
        runtime: Handle::current(),
    });
    let buffer = usize::try_from(ctx.config.client_buffer_limit.0).unwrap_or(usize::MAX);
    let shutdown = ctx.shutdown.clone();
    std::thread::Builder::new()
        .name("core".into())
        .spawn(move || {
            let end = reactor.run(state, handle, services, limits, buffer);
            if let Err(error) = &end {
                tracing::error!(%error, "the core thread failed");
            }
            shutdown.send_if_modified(|reason| {
                let first = reason.is_none();
                if first {
                    *reason = Some("the core thread ended".into());
                }
                first
            });
        })
}

fn pool_config(config: &SchedulerConfig) -> PoolConfig {
    let mut pool = PoolConfig {
        max_helpers: config.graph_helper_count(),
        ..PoolConfig::default()
    };
    if let Some(t) = config.graph_timeout {
        pool.timeout = t.duration();
    }
    if let Some(t) = config.graph_idle_timeout {
        pool.idle_timeout = Some(t.duration());
    }
    pool.memory_limit = config.graph_memory_limit.map(|b| b.0);
    pool
}

/// What the core thread asks of the rest.
struct Shell {
    ctx: Arc<Ctx>,
    runtime: Handle,
}

impl Services for Shell {
    fn materialize(&self, client: ClientId, message: Value) {
        self.runtime
            .spawn(update_graph(self.ctx.clone(), client, message));
    }

    fn extension(&self, core: &mut Core, op: &str, peer: &str, message: &Value) -> bool {
        handle_stream(&self.ctx.ext, core, op, message, peer)
    }

    fn client_removed(&self, core: &mut Core, name: &str) {
        self.ctx.ext.client_removed(core, name);
    }

    fn worker_changed(&self, address: &str, joined: bool) {
        if !joined {
            self.ctx.pool.forget(address);
        }
        // Nobody may be watching.
        let _ = self.ctx.worker_changes.send((address.to_string(), joined));
    }

    fn stale_workers(&self, addresses: Vec<String>) {
        let ctx = self.ctx.clone();
        self.runtime.spawn(async move {
            if let Err(e) = restart_named(&ctx, Some(addresses), 30.0, false, false).await {
                tracing::warn!(error = %e.text(), "cannot restart workers that sent no heartbeat");
            }
        });
    }

    fn shutdown(&self, reason: &str) {
        self.ctx.shutdown.send_replace(Some(reason.to_string()));
    }
}

/// The host that peers should use for a listening address, with the brackets that IPv6 needs before a port.
fn contact_host(host: &str) -> String {
    if !matches!(host, "" | "0.0.0.0" | "::" | "[::]") {
        return if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host.to_string()
        };
    }
    own_ip().unwrap_or_else(|| "127.0.0.1".to_string())
}

/// The address of the interface that leads to the rest of the network. No packet is sent.
fn own_ip() -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("8.8.8.8:80").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then(|| ip.to_string())
}

/// Memory this process may use, bytes: the smaller of the machine's and the cgroup's.
fn memory_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let total = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    });
    let limit = read("/sys/fs/cgroup/memory.max").and_then(|t| t.trim().parse().ok());
    [total, limit]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(8 << 30)
}

/// A random identifier.
fn uuid4() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = || {
        let mut h = RandomState::new().build_hasher();
        h.write_u128(core::wall_time().to_bits().into());
        h.finish()
    };
    let (a, b) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        0x8000 | ((b >> 48) & 0x3fff),
        b & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::contact_host;

    #[test]
    fn ipv6_hosts_have_brackets() {
        assert_eq!(contact_host("::1"), "[::1]");
        assert_eq!(contact_host("[::1]"), "[::1]");
        assert_eq!(contact_host("localhost"), "localhost");
        assert!(!contact_host("0.0.0.0").contains("0.0.0.0"));
    }
}
