//! The host: one Python process, started when first needed, for what only Python can run.
//!
//! Functions of `Client.run_on_scheduler`, scheduler plugins, feeds, performance reports and the specifications of
//! peer-to-peer shuffles run there, against a mirror of the scheduler that is filled by snapshots when it is touched.
//!
//! | module    | what stands there |
//! |-----------|-------------------|
//! | `backend` | what the host may ask of the scheduler |
//! | `error`   | why a request failed |
//! | `events`  | the queue of events on their way to plugins |
//! | `feed`    | a stream of values for one connection |
//! | `message` | messages over the socket |
//! | `session` | one running process |

mod backend;
mod error;
mod events;
mod feed;
mod message;
mod session;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::graph::child::{ChildConfig, PythonChild, find_python};
use crate::graph::sources;
use crate::protocol::Value;

pub use crate::scheduler::tap::TapEvent as HostEvent;
pub use backend::{BoxFuture, HostBackend, Wants};
pub use error::HostError;
pub use events::EventQueue;
pub use feed::Feed;

use session::Session;

/// A process that ended sooner is not started again by itself.
const SHORT_LIFE: Duration = Duration::from_secs(5);

/// How the host is run.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// The interpreter; `None` looks for one as [`find_python`] does.
    pub python: Option<PathBuf>,
    /// Longest time for a start.
    pub start_timeout: Duration,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            python: None,
            start_timeout: Duration::from_secs(120),
        }
    }
}

/// What is to be done again after a crash: a plugin that was registered by request, preloaded modules.
#[derive(Debug, Clone)]
struct Registration {
    op: &'static str,
    name: String,
    args: Value,
}

/// The host process and what survives it.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    config: HostConfig,
    backend: Arc<dyn HostBackend>,
    events: Arc<EventQueue>,
    /// Held while a process starts.
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    plugins: Mutex<Vec<Registration>>,
    closing: std::sync::atomic::AtomicBool,
}

impl Host {
    /// A host without any process yet.
    pub fn new(config: HostConfig, backend: Arc<dyn HostBackend>) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                backend,
                events: Arc::new(EventQueue::default()),
                session: tokio::sync::Mutex::default(),
                plugins: Mutex::default(),
                closing: false.into(),
            }),
        }
    }

    /// Runs an operation: `run_function`, `register_scheduler_plugin`, `unregister_scheduler_plugin`,
    /// `performance_report`, `workers_to_close`, `dump_cluster_state_to_url`, `get_versions`, `shuffle_spec`. `args` is
    /// the request's map; what the operation doesn't know in it is ignored.
    ///
    /// # Errors
    /// [`HostError::Failed`] carries the exception as the client is to get it.
    pub async fn call(&self, op: &str, args: Value) -> Result<Value, HostError> {
        let session = self.inner.clone().session().await?;
        let kept = (op == "register_scheduler_plugin").then(|| args.clone());
        let gone = (op == "unregister_scheduler_plugin").then(|| args.get("name").cloned());
        let result = session.call(op, &args).await?;
        if let Some(args) = kept {
            let name = result.as_str().unwrap_or_default().to_string();
            let mut plugins = self.inner.plugins();
            plugins.retain(|p| p.name != name);
            plugins.push(Registration {
                op: "register_scheduler_plugin",
                name,
                args,
            });
            return Ok(Value::Nil);
        }
        if let Some(Some(name)) = gone {
            let name = name.as_str().unwrap_or_default();
            self.inner.plugins().retain(|p| p.name != name);
        }
        Ok(result)
    }

    /// Starts a feed: `args` are the request's `function`, `setup`, `teardown` and `interval`.
    ///
    /// # Errors
    /// If the host cannot be started. Errors of the functions come out of [`Feed::next`].
    pub async fn feed(&self, args: &Value) -> Result<Feed, HostError> {
        let session = self.inner.clone().session().await?;
        session.feed(args).await
    }

    /// Loads modules and runs their `dask_setup`, as `--preload` of the stock scheduler does.
    ///
    /// # Errors
    /// If a module cannot be imported. A `dask_setup` that fails is logged only.
    pub async fn preload(&self, modules: &[String], argv: &[String]) -> Result<(), HostError> {
        let args = Value::map([
            ("preload", Value::array(modules)),
            ("argv", Value::array(argv)),
        ]);
        let session = self.inner.clone().session().await?;
        session.call("preload", &args).await?;
        self.inner.plugins().push(Registration {
            op: "preload",
            name: modules.join(" "),
            args,
        });
        Ok(())
    }

    /// Starts the process, if there is none, and imports what a shuffle needs. Returns at once.
    pub fn warm_up(&self) {
        let inner = self.inner.clone();
        tokio::spawn(async move {
            if let Ok(session) = inner.session().await {
                let _ = session.call("warm", &Value::Nil).await;
            }
        });
    }

    /// Whether a plugin has a say in which workers may be closed: then `workers_to_close` is a matter of the host.
    pub async fn has_a_say_in_downscaling(&self) -> bool {
        let session = self.inner.session.lock().await;
        session
            .as_ref()
            .is_some_and(|s| s.has_a_say_in_downscaling())
    }

    /// Where events for plugins go; does nothing while no plugin wants them.
    pub fn events(&self) -> Arc<EventQueue> {
        self.inner.events.clone()
    }

    /// Hands an event to the plugins; does nothing while no plugin wants it.
    pub fn event(&self, event: HostEvent) {
        self.inner.events.push(event);
    }

    /// Whether a process runs.
    pub async fn is_running(&self) -> bool {
        let session = self.inner.session.lock().await;
        session.as_ref().is_some_and(|s| s.is_alive())
    }

    /// The process number, while one runs.
    pub async fn pid(&self) -> Option<u32> {
        let session = self.inner.session.lock().await;
        session.as_ref().filter(|s| s.is_alive())?.pid()
    }

    /// Lets plugins end (`before_close`, `close`) and ends the process.
    pub async fn shut_down(&self, limit: Duration) {
        let closing = &self.inner.closing;
        closing.store(true, std::sync::atomic::Ordering::Relaxed);
        let session = self.inner.session.lock().await.take();
        if let Some(session) = session.filter(|s| s.is_alive()) {
            let _ = tokio::time::timeout(limit, session.call("close", &Value::Nil)).await;
            session.end();
        }
    }
}

impl Inner {
    fn plugins(&self) -> MutexGuard<'_, Vec<Registration>> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closing(&self) -> bool {
        self.closing.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The running process, started if there is none.
    async fn session(self: Arc<Self>) -> Result<Arc<Session>, HostError> {
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|s| s.is_alive()) {
            return Ok(session.clone());
        }
        if self.is_closing() {
            return Err(HostError::Unavailable("the scheduler is closing".into()));
        }
        let restart = slot.is_some();
        let session = self.start().await?;
        *slot = Some(session.clone());
        let registrations = self.plugins().clone();
        if restart {
            let names: Vec<_> = registrations.iter().map(|r| r.name.as_str()).collect();
            tracing::warn!(
                pid = session.pid(),
                plugins = names.join(", "),
                "the host process was started again; its plugins are registered again"
            );
        }
        // The slot stays locked meanwhile: whoever calls next finds the plugins there.
        for r in registrations {
            if let Err(e) = session.call(r.op, &r.args).await {
                tracing::error!(plugin = %r.name, "it cannot be registered again: {e}");
                self.plugins().retain(|p| p.name != r.name);
            }
        }
        Ok(session)
    }

    /// Starts the process for its plugins' sake.
    fn restart(self: Arc<Self>) -> BoxFuture<()> {
        Box::pin(async move {
            if let Err(e) = self.session().await {
                tracing::error!("the host process could not be started again: {e}");
            }
        })
    }

    async fn start(self: &Arc<Self>) -> Result<Arc<Session>, HostError> {
        let python = self.config.python.clone().or_else(find_python).ok_or_else(|| {
            HostError::Unavailable(
                "No Python interpreter was found, and this needs one: install Python with dask and distributed, or \
                 name the interpreter in OXIDASK_PYTHON"
                    .into(),
            )
        })?;
        let config = ChildConfig {
            name: "host",
            python: python.clone(),
            entry: "from oxidask.host.serve import main\nmain(sock)\n".into(),
            sources: sources::host(),
        };
        let broken = |text: &str| {
            HostError::Unavailable(format!(
                "The scheduler's host process cannot start with {}: {text}. The interpreter needs dask and distributed \
                 of the clients' versions; OXIDASK_PYTHON names another one",
                python.display()
            ))
        };
        let child = PythonChild::start(&config)
            .await
            .map_err(|e| broken(&e.to_string()))?;
        let (this, started) = (Arc::downgrade(self), Instant::now());
        let ended = move |text: String| {
            let Some(this) = this.upgrade().filter(|this| !this.is_closing()) else {
                return;
            };
            tracing::error!("the host process has ended: {text}");
            // One that ends at once would do so again: it waits for the next request.
            if !this.plugins().is_empty() && started.elapsed() > SHORT_LIFE {
                tokio::spawn(this.restart());
            }
        };
        let (backend, events) = (self.backend.clone(), self.events.clone());
        let session = Session::spawn(child, backend, events, Box::new(ended));
        match tokio::time::timeout(
            self.config.start_timeout,
            session.call("ready", &Value::Nil),
        )
        .await
        {
            Ok(Ok(_)) => {
                tracing::info!(pid = session.pid(), "host process started");
                Ok(session)
            }
            Ok(Err(e)) => {
                session.end();
                Err(broken(&e.to_string()))
            }
            Err(_) => {
                session.end();
                let seconds = self.config.start_timeout.as_secs();
                Err(broken(&format!("no sign of life within {seconds} s")))
            }
        }
    }
}
