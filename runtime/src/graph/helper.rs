//! One helper process: start-up, what must be importable in it, and one graph at a time.

use super::answer::{AnswerError, Incoming, Specs, incoming};
use super::child::{ChildConfig, PythonChild};
use super::types::{Graph, GraphError, GraphRequest, OrderFn, Structure};
use crate::protocol::{Value, write};
use bytes::Bytes;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use thiserror::Error;

/// Something that makes modules importable in every helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setup {
    /// A folder or archive for `sys.path`.
    Path(PathBuf),
    /// A file whose modules are imported, again if they were before.
    Upload(PathBuf),
}

/// Why a helper did not answer as asked.
#[derive(Debug, Error)]
pub(super) enum HelperError {
    /// The socket; the process has gone or is of no use any more.
    #[error("{0}")]
    Gone(#[from] io::Error),
    /// It answers nonsense: of no use any more, either.
    #[error("{0}")]
    Confused(#[from] AnswerError),
    /// The request failed, the helper is well.
    #[error("{0}")]
    Failed(Box<GraphError>),
    /// It cannot start.
    #[error("{0}")]
    Broken(String),
}

/// A helper that has been started.
#[derive(Debug)]
pub(super) struct Helper {
    pub child: PythonChild,
    /// What it says about its installation.
    pub versions: Value,
    /// Number of the last of the pool's setups that it has had.
    pub setups: u64,
    ready: bool,
    requests: u64,
}

impl Helper {
    /// Starts a process and reads its greeting. It goes on importing dask: see [`Helper::ready`].
    pub async fn start(config: &ChildConfig) -> Result<Self, (String, Option<PythonChild>)> {
        let mut child = match PythonChild::start(config).await {
            Ok(child) => child,
            Err(e) => {
                return Err((
                    format!("cannot start {}: {e}", config.python.display()),
                    None,
                ));
            }
        };
        match receive(&mut child).await {
            Ok(Incoming::Other(hello)) => {
                let versions = hello.get("versions").cloned().unwrap_or_default();
                Ok(Helper {
                    child,
                    versions,
                    setups: 0,
                    ready: false,
                    requests: 0,
                })
            }
            Ok(_) => Err(("its greeting is not a greeting".to_owned(), Some(child))),
            Err(e) => Err((e.to_string(), Some(child))),
        }
    }

    /// Waits until dask has been imported.
    pub async fn ready(&mut self) -> Result<(), HelperError> {
        if self.ready {
            return Ok(());
        }
        let Incoming::Other(message) = receive(&mut self.child).await? else {
            return Err(AnswerError::Shape("its readiness").into());
        };
        let text = |name: &str| {
            message
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        match text("t").as_str() {
            "ready" => self.ready = true,
            _ => return Err(HelperError::Broken(text("text"))),
        }
        Ok(())
    }

    /// Makes modules importable.
    pub async fn apply(&mut self, setup: &Setup) -> Result<(), HelperError> {
        let (op, path) = match setup {
            Setup::Path(path) => ("path", path),
            Setup::Upload(path) => ("upload", path),
        };
        let mut head = Vec::new();
        write::map_len(&mut head, 2);
        write::str(&mut head, "op");
        write::str(&mut head, op);
        write::str(&mut head, "path");
        write::str(&mut head, &path.to_string_lossy());
        self.child.channel.send(&[head.into()]).await?;
        match receive(&mut self.child).await? {
            Incoming::Error(e) => Err(HelperError::Failed(e)),
            _ => Ok(()),
        }
    }

    /// Hands over one graph. If the process is gone before it has begun, that is not the graph's doing.
    pub async fn begin(&mut self, request: &GraphRequest) -> Result<(), HelperError> {
        self.requests += 1;
        self.child
            .channel
            .send(&encode(request, self.requests))
            .await?;
        match receive(&mut self.child).await? {
            Incoming::Other(_) => Ok(()),
            _ => Err(AnswerError::Shape("an acknowledgement was expected").into()),
        }
    }

    /// Materialises the graph that was handed over.
    pub async fn graph(&mut self, order: Option<OrderFn>) -> Result<Graph, HelperError> {
        let head = match receive(&mut self.child).await? {
            Incoming::Head(head) => *head,
            Incoming::Error(e) => return Err(HelperError::Failed(e)),
            _ => return Err(AnswerError::Shape("a head was expected").into()),
        };
        let n = head.structure.keys.len();
        let structure = Arc::new(head.structure);
        let ordering = order.map(|order| {
            let structure = structure.clone();
            tokio::task::spawn_blocking(move || {
                let start = Instant::now();
                let ordered = order(&structure);
                (ordered, start.elapsed().as_secs_f64())
            })
        });
        let mut specs = Specs::new(n);
        loop {
            let last = match receive(&mut self.child).await? {
                Incoming::Specs(head, frames) => specs.chunk(&head, frames)?,
                Incoming::Map(head, frames) => {
                    specs.plain_map(&head, frames, &structure.keys)?;
                    true
                }
                Incoming::Error(e) => return Err(HelperError::Failed(e)),
                _ => return Err(AnswerError::Shape("specifications were expected").into()),
            };
            if last {
                break;
            }
        }
        let materialize_seconds = specs.seconds;
        let specs = specs.finish(n)?;
        let (ordered, order_seconds) = match ordering {
            Some(ordering) => ordering.await.ok(),
            None => None,
        }
        .unzip();
        let Structure {
            keys,
            dep_offsets,
            deps,
            externals,
            flags,
            cull,
        } = Arc::try_unwrap(structure).unwrap_or_else(|shared| (*shared).clone());
        Ok(Graph {
            keys,
            dep_offsets,
            deps,
            externals,
            flags,
            cull,
            specs,
            ordered,
            materialize_seconds,
            order_seconds: order_seconds.unwrap_or(0.0),
            ..head.rest
        })
    }
}

async fn receive(child: &mut PythonChild) -> Result<Incoming, HelperError> {
    Ok(incoming(child.receive().await?)?)
}

fn encode(request: &GraphRequest, id: u64) -> Vec<Bytes> {
    let frames_of = |payload: &Option<crate::protocol::Payload>| {
        payload.as_ref().map_or(0, |p| 1 + p.frames.len())
    };
    let (common, spans) = (&request.annotations, &request.span_metadata);
    let mut head = Vec::with_capacity(64);
    write::map_len(&mut head, 4);
    write::str(&mut head, "op");
    write::str(&mut head, "graph");
    write::str(&mut head, "id");
    write::uint(&mut head, id);
    write::str(&mut head, "expr");
    write::uint(&mut head, 1 + request.expr.frames.len() as u64);
    write::str(&mut head, "annotations");
    write::uint(&mut head, frames_of(common) as u64);
    let mut frames = vec![head.into()];
    for payload in [Some(&request.expr), common.as_ref(), spans.as_ref()]
        .into_iter()
        .flatten()
    {
        frames.push(payload.header.clone());
        frames.extend(payload.frames.iter().cloned());
    }
    frames
}
