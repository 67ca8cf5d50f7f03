//! Helpers in parallel: started when a request finds none idle, one request each.

use super::busy::Busy;
use super::child::{ChildConfig, find_python};
use super::helper::{Helper, HelperError, Setup};
use super::native::{Scan, Verified, scan};
use super::sources;
use super::types::{Graph, GraphError, GraphRequest, OrderFn};
use super::uploads::UploadFolder;
use crate::protocol::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// How the helpers are run.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// The interpreter; `None` looks for one as [`find_python`] does.
    pub python: Option<PathBuf>,
    /// Most helpers at a time.
    pub max_helpers: usize,
    /// Longest time for one graph: `oxidask.graph.timeout`.
    pub timeout: Duration,
    /// Longest time for a start.
    pub start_timeout: Duration,
    /// Idle time after which a helper ends: `oxidask.graph.idle-timeout`.
    pub idle_timeout: Option<Duration>,
    /// Whether submits of functions seen before are read without a helper.
    pub native: bool,
    /// Address space of a helper in bytes: `oxidask.graph.memory-limit`.
    pub memory_limit: Option<u64>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        PoolConfig {
            python: None,
            max_helpers: cores.clamp(2, 4),
            timeout: Duration::from_secs(600),
            start_timeout: Duration::from_secs(120),
            idle_timeout: Some(Duration::from_secs(600)),
            native: true,
            memory_limit: None,
        }
    }
}

/// What a pool has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Graphs that needed no helper.
    pub native: u64,
    /// Graphs that a helper made.
    pub made: u64,
    /// Graphs that failed.
    pub failed: u64,
    /// Helpers started.
    pub started: u64,
}

/// The helpers.
///
/// Requests run side by side as long as there are helpers; the order of one client's graphs is the caller's concern. A
/// helper that crashes, hangs or answers nonsense takes only its own request with it: it never has a second one.
#[derive(Debug, Clone)]
pub struct GraphPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: PoolConfig,
    places: Arc<Semaphore>,
    /// Helpers without a request; the last one used is the next one to be used.
    idle: Mutex<Vec<Idle>>,
    /// Whether a task looks for helpers that have been idle for too long.
    watched: AtomicBool,
    /// What helpers must be able to import, numbered in the order of the calls.
    setups: Mutex<Vec<(u64, Setup)>>,
    verified: Verified,
    stats: Mutex<PoolStats>,
    last_setup: AtomicU64,
    uploads: OnceCell<UploadFolder>,
    versions: OnceCell<Value>,
}

impl GraphPool {
    /// A pool without any process yet.
    pub fn new(config: PoolConfig) -> Self {
        let places = Arc::new(Semaphore::new(config.max_helpers.max(1)));
        let inner = Inner {
            config,
            places,
            idle: Mutex::default(),
            watched: AtomicBool::new(false),
            setups: Mutex::default(),
            verified: Verified::default(),
            stats: Mutex::default(),
            last_setup: AtomicU64::new(0),
            uploads: OnceCell::new(),
            versions: OnceCell::new(),
        };
        GraphPool {
            inner: Arc::new(inner),
        }
    }

    /// Turns an expression into tasks.
    pub async fn materialize(&self, request: GraphRequest) -> Result<Graph, GraphError> {
        self.materialize_ordered(request, None).await
    }

    /// The same, and `order` is called as soon as the structure is known, while the specifications still come.
    pub async fn materialize_ordered(
        &self,
        request: GraphRequest,
        order: Option<OrderFn>,
    ) -> Result<Graph, GraphError> {
        let scan = self.scan(&request);
        if let Some(mut graph) = scan.as_ref().and_then(|scan| self.scanned(scan)) {
            // The order of one task is no secret.
            graph.ordered = order.map(|_| vec![0]);
            return Ok(graph);
        }
        let outcome = self.made_by_helper(&request, order).await;
        match (&outcome, scan) {
            (Ok(_), Some(scan)) => scan.verify(&self.inner.verified),
            (Err(_), _) => self.count(|stats| stats.failed += 1),
            _ => {}
        }
        outcome
    }

    /// The graph of a request that needs no helper, at once: a submit of a function seen before.
    pub fn native(&self, request: &GraphRequest) -> Option<Graph> {
        self.scanned(&self.scan(request)?)
    }

    fn scan<'a>(&self, request: &'a GraphRequest) -> Option<Scan<'a>> {
        if self.inner.config.native {
            scan(request)
        } else {
            None
        }
    }

    fn scanned(&self, scan: &Scan<'_>) -> Option<Graph> {
        let graph = scan.graph(&self.inner.verified)?;
        self.count(|stats| stats.native += 1);
        Some(graph)
    }

    async fn made_by_helper(
        &self,
        request: &GraphRequest,
        order: Option<OrderFn>,
    ) -> Result<Graph, GraphError> {
        let mut busy = self.begun(request).await?;
        let limit = self.inner.config.timeout;
        let outcome = timeout(limit, busy.helper.graph(order)).await;
        let seconds = limit.as_secs();
        match outcome {
            Ok(outcome) => {
                self.count(|stats| stats.made += u64::from(outcome.is_ok()));
                busy.settle("The graph", outcome).await
            }
            Err(_) => Err(busy.hung(&format!(
                "The graph was not materialised within {seconds} s (oxidask.graph.timeout) and was given up"
            ))),
        }
    }

    /// A helper that has begun with the request. One that turns out to have died while it was idle is replaced.
    async fn begun(&self, request: &GraphRequest) -> Result<Busy, GraphError> {
        let mut last_try = false;
        loop {
            let mut busy = self.helper().await?;
            match busy.helper.begin(request).await {
                Ok(()) => return Ok(busy),
                Err(HelperError::Gone(error)) if !last_try => {
                    tracing::warn!(pid = busy.helper.child.pid(), %error, "a graph helper had ended; another takes over");
                    last_try = true;
                }
                Err(e) => return busy.settle("The graph", Err(e)).await,
            }
        }
    }

    /// What is installed: the value of `distributed.versions.get_versions()`. Starts a helper the first time, which has
    /// then begun to import dask for the first graph.
    pub async fn versions(&self) -> Result<Value, GraphError> {
        if let Some(known) = self.inner.versions.get() {
            return Ok(known.clone());
        }
        let place = self.place().await?;
        let helper = match self.pop_idle() {
            Some(helper) => helper,
            None => self.start().await?,
        };
        let versions = helper.versions.clone();
        self.put_back(helper);
        drop(place);
        Ok(versions)
    }

    /// Makes the modules of a file importable in all helpers, those to come included.
    ///
    /// `.py` files are imported, or imported again; archives (`.zip`, `.egg`) are put on `sys.path` and their modules
    /// imported, as `Client.upload_file` does it on a stock scheduler.
    pub async fn upload_file(&self, filename: &str, data: &[u8]) -> Result<(), GraphError> {
        let name = Path::new(filename)
            .file_name()
            .filter(|name| *name == filename);
        let name =
            name.ok_or_else(|| GraphError::runtime(format!("{filename:?} is not a file's name")))?;
        let cannot = |e: io::Error| {
            GraphError::runtime(format!("cannot keep the uploaded file {filename:?}: {e}"))
        };
        let folder = self
            .inner
            .uploads
            .get_or_try_init(|| async { UploadFolder::new() })
            .await
            .map_err(cannot)?;
        let path = folder.0.join(name);
        tokio::fs::write(&path, data).await.map_err(cannot)?;
        self.set_up(Setup::Upload(path)).await
    }

    /// Puts a folder or archive in front of `sys.path` in all helpers, those to come included.
    pub async fn add_sys_path(&self, path: impl Into<PathBuf>) -> Result<(), GraphError> {
        self.set_up(Setup::Path(path.into())).await
    }

    /// Ends the idle helpers; busy ones end after their request.
    pub fn shut_down(&self) {
        self.inner.places.close();
        lock(&self.inner.idle).clear();
    }

    /// What has been done so far.
    pub fn stats(&self) -> PoolStats {
        *lock(&self.inner.stats)
    }

    fn count(&self, change: impl FnOnce(&mut PoolStats)) {
        change(&mut lock(&self.inner.stats));
    }

    /// Process numbers of the idle helpers.
    pub fn idle_pids(&self) -> Vec<u32> {
        lock(&self.inner.idle)
            .iter()
            .filter_map(|idle| idle.helper.child.pid())
            .collect()
    }

    async fn set_up(&self, setup: Setup) -> Result<(), GraphError> {
        {
            let mut setups = lock(&self.inner.setups);
            let number = 1 + self.inner.last_setup.fetch_add(1, Ordering::Relaxed);
            setups.retain(|(_, known)| *known != setup);
            setups.push((number, setup));
        }
        self.inner.verified.clear();
        // Applied by taking a helper; the error is the caller's to see.
        let busy = self.helper().await?;
        busy.release();
        Ok(())
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, GraphError> {
        let closed = |_| GraphError::runtime("The scheduler is closing");
        self.inner
            .places
            .clone()
            .acquire_owned()
            .await
            .map_err(closed)
    }

    /// An idle helper, or a new one, with all setups applied.
    async fn helper(&self) -> Result<Busy, GraphError> {
        let place = self.place().await?;
        let helper = match self.pop_idle() {
            Some(helper) => helper,
            None => self.start().await?,
        };
        let mut busy = Busy {
            helper,
            pool: self.clone(),
            _place: place,
        };
        let limit = self.inner.config.start_timeout;
        match timeout(limit, busy.helper.ready()).await {
            Err(_) => return Err(busy.hung(&format!("did not start within {} s", limit.as_secs()))),
            Ok(Err(HelperError::Broken(text))) => return Err(self.broken(&text)),
            Ok(Err(e)) => {
                return Err(busy
                    .buried(&e.to_string(), "The graph helper could not start")
                    .await);
            }
            Ok(Ok(())) => {}
        }
        self.catch_up(busy).await
    }

    /// Applies the setups that a helper has not had. One that fails is forgotten: it must not fail every later graph.
    async fn catch_up(&self, mut busy: Busy) -> Result<Busy, GraphError> {
        loop {
            let had = busy.helper.setups;
            let next = lock(&self.inner.setups)
                .iter()
                .find(|(number, _)| *number > had)
                .cloned();
            let Some((number, setup)) = next else {
                return Ok(busy);
            };
            let outcome = timeout(self.inner.config.timeout, busy.helper.apply(&setup)).await;
            match outcome {
                Ok(Ok(())) => busy.helper.setups = number,
                other => {
                    lock(&self.inner.setups).retain(|(_, known)| *known != setup);
                    return Err(match other {
                        Ok(outcome) => match busy.settle("The upload", outcome).await {
                            Err(e) => e,
                            Ok(()) => GraphError::runtime("The upload failed"),
                        },
                        Err(_) => busy.hung("The import of the uploaded file did not end in time"),
                    });
                }
            }
        }
    }

    pub(super) fn put_back(&self, helper: Helper) {
        if self.inner.places.is_closed() {
            return;
        }
        let since = Instant::now();
        lock(&self.inner.idle).push(Idle { helper, since });
        if let Some(limit) = self.inner.config.idle_timeout
            && !self.inner.watched.swap(true, Ordering::AcqRel)
        {
            tokio::spawn(end_idle(Arc::downgrade(&self.inner), limit));
        }
    }

    fn pop_idle(&self) -> Option<Helper> {
        let mut idle = lock(&self.inner.idle);
        while let Some(Idle { mut helper, .. }) = idle.pop() {
            if helper.child.is_alive() {
                return Some(helper);
            }
            tracing::warn!(
                "an idle graph helper has ended: {}",
                helper.child.last_lines()
            );
        }
        None
    }

    async fn start(&self) -> Result<Helper, GraphError> {
        let Some(python) = self.python() else {
            return Err(GraphError::runtime(
                "No Python interpreter was found, and graphs need one: install Python with dask and distributed, or \
                 name the interpreter in OXIDASK_PYTHON",
            ));
        };
        let config = self.child_config(python);
        let limit = self.inner.config.start_timeout;
        let started = timeout(limit, Helper::start(&config)).await;
        match started {
            Ok(Ok(helper)) => {
                let _ = self.inner.versions.set(helper.versions.clone());
                self.count(|stats| stats.started += 1);
                tracing::info!(pid = helper.child.pid(), "graph helper started");
                Ok(helper)
            }
            Ok(Err((text, None))) => Err(self.broken(&text)),
            Ok(Err((text, Some(child)))) => {
                Err(self.broken(&format!("{text}: {}", child.autopsy().await)))
            }
            Err(_) => Err(self.broken(&format!("no sign of life within {} s", limit.as_secs()))),
        }
    }

    fn python(&self) -> Option<PathBuf> {
        self.inner.config.python.clone().or_else(find_python)
    }

    fn child_config(&self, python: PathBuf) -> ChildConfig {
        let limit = self.inner.config.memory_limit.unwrap_or(0);
        ChildConfig {
            name: "graph",
            python,
            entry: format!("from oxidask.graph.serve import main\nmain(sock, {limit})\n"),
            sources: sources::graph_helper(),
        }
    }

    fn broken(&self, text: &str) -> GraphError {
        let python = self.python().unwrap_or_default();
        GraphError::runtime(format!(
            "The scheduler's graph helper cannot start with {}: {text}. The interpreter needs dask and distributed of \
             the clients' versions; OXIDASK_PYTHON names another one",
            python.display()
        ))
    }
}

/// A helper without a request.
#[derive(Debug)]
struct Idle {
    helper: Helper,
    since: Instant,
}

/// Ends helpers that have been idle for `limit`, until there is none.
async fn end_idle(pool: Weak<Inner>, limit: Duration) {
    loop {
        tokio::time::sleep(limit.max(Duration::from_millis(10))).await;
        let Some(inner) = pool.upgrade() else { return };
        let mut idle = lock(&inner.idle);
        idle.retain(|idle| idle.since.elapsed() < limit);
        if idle.is_empty() {
            inner.watched.store(false, Ordering::Release);
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
