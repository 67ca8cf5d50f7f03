//! One running host process: requests in both directions over its socket.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::HostError;
use super::backend::{HostBackend, Wants};
use super::events::{self, EventQueue};
use super::feed::{Feed, Item};
use super::message::{self, Head};
use crate::graph::child::PythonChild;
use crate::protocol::{FrameDecoder, Limits, Message, Value, error_message, pickle};

/// Messages that may wait to be written; further senders wait.
const MAX_UNWRITTEN: usize = 1024;
/// Requests of the host that are worked on at a time.
const MAX_REQUESTS: usize = 1024;
/// Events sent in one message.
const EVENTS_A_MESSAGE: usize = 4096;

/// Who waits for an answer.
enum Waiter {
    Once(oneshot::Sender<Result<Value, HostError>>),
    Feed(mpsc::Sender<Result<Item, HostError>>),
}

/// Called once with the reason when the process has ended.
pub(super) type Ended = Box<dyn FnOnce(String) + Send>;

/// A running process.
pub(super) struct Session {
    outgoing: mpsc::Sender<Vec<Bytes>>,
    waiters: Mutex<HashMap<u64, Waiter>>,
    next_id: AtomicU64,
    alive: AtomicBool,
    end: Notify,
    pid: Option<u32>,
    downscaling: AtomicBool,
    backend: Arc<dyn HostBackend>,
    events: Arc<EventQueue>,
    requests: Arc<Semaphore>,
}

impl Session {
    /// Takes over a process that was just started.
    pub fn spawn(
        child: PythonChild,
        backend: Arc<dyn HostBackend>,
        events: Arc<EventQueue>,
        ended: Ended,
    ) -> Arc<Self> {
        let (channel, process) = child.into_parts();
        let (reader, writer) = channel.into_stream().into_split();
        let (outgoing, queue) = mpsc::channel(MAX_UNWRITTEN);
        let session = Arc::new(Self {
            outgoing,
            waiters: Mutex::default(),
            next_id: AtomicU64::new(1),
            alive: AtomicBool::new(true),
            end: Notify::new(),
            pid: process.pid(),
            downscaling: AtomicBool::new(false),
            backend,
            events: events.clone(),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
        });
        let writing = tokio::spawn(write_all(writer, queue, events));
        let this = session.clone();
        tokio::spawn(async move {
            let error = tokio::select! {
                error = this.clone().read_all(reader) => error,
                () = this.end.notified() => String::new(),
            };
            this.alive.store(false, Ordering::Relaxed);
            this.events.set_open(false);
            this.backend
                .tap(Wants::default(), this.events.clone())
                .await;
            writing.abort();
            let text = format!("{error}{}", process.autopsy().await);
            this.fail_all(&text);
            ended(text);
        });
        session
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Whether a plugin has a say in which workers may be closed.
    pub fn has_a_say_in_downscaling(&self) -> bool {
        self.is_alive() && self.downscaling.load(Ordering::Relaxed)
    }

    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Ends the process.
    pub fn end(&self) {
        self.alive.store(false, Ordering::Relaxed);
        self.end.notify_one();
    }

    /// Makes a request and waits for its answer.
    pub async fn call(&self, op: &str, args: &Value) -> Result<Value, HostError> {
        let (tx, rx) = oneshot::channel();
        let id = self.register(Waiter::Once(tx));
        self.send(message::encode("call", id, op, args)).await;
        // Whoever drops this future is no longer interested; the answer finds nobody then.
        rx.await
            .unwrap_or_else(|_| Err(HostError::Crashed("its socket is closed".into())))
    }

    /// Starts a feed.
    pub async fn feed(self: &Arc<Self>, args: &Value) -> Result<Feed, HostError> {
        let (tx, items) = mpsc::channel(4);
        let id = self.register(Waiter::Feed(tx));
        self.send(message::encode("call", id, "feed", args)).await;
        Ok(Feed {
            session: self.clone(),
            id,
            items,
            unanswered: None,
        })
    }

    /// Answers a request of the host.
    pub async fn reply(&self, id: u64, value: &Value) {
        self.send(message::encode("reply", id, "", value)).await;
    }

    /// Gives a request up.
    pub fn cancel(&self, id: u64) {
        if self.waiters().remove(&id).is_some() {
            let message = message::encode("cancel", id, "", &Value::Nil);
            let outgoing = self.outgoing.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { outgoing.send(message).await });
            }
        }
    }

    fn register(&self, waiter: Waiter) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.waiters().insert(id, waiter);
        if !self.is_alive() {
            self.fail_all("it is ending");
        }
        id
    }

    async fn send(&self, message: Vec<Bytes>) {
        // A closed queue means that the process has ended, of which every waiter is told.
        let _ = self.outgoing.send(message).await;
    }

    fn waiters(&self) -> MutexGuard<'_, HashMap<u64, Waiter>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail_all(&self, text: &str) {
        let waiters: Vec<Waiter> = self.waiters().drain().map(|(_, w)| w).collect();
        for waiter in waiters {
            let error = HostError::Crashed(text.to_string());
            match waiter {
                Waiter::Once(tx) => drop(tx.send(Err(error))),
                Waiter::Feed(tx) => drop(tx.try_send(Err(error))),
            }
        }
    }

    /// Reads messages until the socket ends; why it did.
    async fn read_all(self: Arc<Self>, mut reader: OwnedReadHalf) -> String {
        let mut decoder = FrameDecoder::new(Limits::default());
        loop {
            match reader.read_buf(decoder.read_buf()).await {
                Ok(0) => return String::new(),
                Ok(_) => {}
                Err(e) => return format!("{e}: "),
            }
            loop {
                match decoder.next() {
                    Ok(None) => break,
                    Ok(Some(message)) => match message::decode(message) {
                        Ok((head, body)) => self.clone().receive(head, body),
                        Err(e) => return format!("it sent nonsense ({e}): "),
                    },
                    Err(e) => return format!("it sent nonsense ({e}): "),
                }
            }
        }
    }

    fn receive(self: Arc<Self>, head: Head, body: Message) {
        match head.kind.as_str() {
            "result" | "error" => self.settle(&head, &body),
            "item" => self.item(&head, &body),
            _ => {
                let Ok(place) = self.requests.clone().try_acquire_owned() else {
                    tracing::warn!(
                        op = head.op,
                        "the host asks too much at a time; the request is ignored"
                    );
                    let text = "too many requests at a time";
                    let reply = error_message(pickle::write::runtime_error(text), text);
                    tokio::spawn(async move { self.reply(head.id, &reply).await });
                    return;
                };
                tokio::spawn(async move {
                    let reply = self.serve(&head, &body).await;
                    self.reply(head.id, &reply).await;
                    drop(place);
                });
            }
        }
    }

    /// A request of ours is done.
    fn settle(&self, head: &Head, body: &Message) {
        let Some(waiter) = self.waiters().remove(&head.id) else {
            return;
        };
        let result = match body.decode() {
            Ok(value) if head.kind == "error" => Err(HostError::Failed(value)),
            Ok(value) => Ok(value),
            Err(e) => Err(HostError::Crashed(format!(
                "its answer makes no sense: {e}"
            ))),
        };
        match (waiter, result) {
            (Waiter::Once(tx), result) => drop(tx.send(result)),
            (Waiter::Feed(tx), Err(e)) => drop(tx.try_send(Err(e))),
            // A feed that has ended: its channel closes.
            (Waiter::Feed(_), Ok(_)) => {}
        }
    }

    /// A value of a feed; `op` holds the feed's number.
    fn item(self: Arc<Self>, head: &Head, body: &Message) {
        let feed = head.op.parse().unwrap_or(0);
        let item = body.decode().map(|value| Item {
            value,
            request: head.id,
        });
        let taken = match (self.waiters().get(&feed), item) {
            (Some(Waiter::Feed(tx)), Ok(item)) => tx.try_send(Ok(item)).is_ok(),
            _ => false,
        };
        if !taken {
            let text = "the connection of this feed is closed";
            let pickle = pickle::write::generic("builtins", "OSError", &[text.into()]);
            let (reply, id) = (error_message(pickle, text), head.id);
            tokio::spawn(async move { self.reply(id, &reply).await });
        }
    }

    /// Answers a request of the host.
    async fn serve(&self, head: &Head, body: &Message) -> Value {
        let mut args = match body.decode() {
            Ok(args) => args,
            Err(e) => return error_message(pickle::write::type_error(&e.to_string()), "TypeError"),
        };
        let done = |result: Result<(), String>| match result {
            Ok(()) => Value::Nil,
            Err(text) => error_message(pickle::write::runtime_error(&text), &text),
        };
        match head.kind.as_str() {
            "rpc" => self
                .backend
                .rpc(head.op.clone(), args)
                .await
                .unwrap_or_else(|e| e),
            "snapshot" => self.backend.snapshot(head.op.clone(), args).await,
            "tap" => {
                let wanted = |name: &str| args.get(name).and_then(Value::as_bool).unwrap_or(false);
                let wants = Wants {
                    transitions: wanted("transitions"),
                    log: wanted("log"),
                    graphs: wanted("graphs"),
                    downscaling: wanted("downscaling"),
                };
                self.events.set_open(wants.any());
                self.downscaling.store(wants.downscaling, Ordering::Relaxed);
                self.backend.tap(wants, self.events.clone()).await;
                Value::Nil
            }
            "upload" => {
                let data = match args.take("data") {
                    Some(Value::Bin(data)) => data,
                    _ => Bytes::new(),
                };
                done(self.backend.upload(head.op.clone(), data).await)
            }
            "path" => done(self.backend.add_sys_path(head.op.clone()).await),
            other => {
                let text = format!("unknown request {other:?}");
                error_message(pickle::write::runtime_error(&text), &text)
            }
        }
    }
}

/// Writes messages as they come. Events that were there before a message go before it.
async fn write_all(
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Vec<Bytes>>,
    plugins: Arc<EventQueue>,
) -> std::io::Result<()> {
    loop {
        let message = tokio::select! {
            message = queue.recv() => match message {
                Some(message) => Some(message),
                None => return Ok(()),
            },
            () = plugins.ready() => None,
        };
        loop {
            let batch = plugins.take(EVENTS_A_MESSAGE);
            if batch.is_empty() {
                break;
            }
            let body = Value::Array(batch.into_iter().map(events::to_value).collect());
            for chunk in message::encode("events", 0, "", &body) {
                writer.write_all(&chunk).await?;
            }
        }
        for chunk in message.into_iter().flatten() {
            writer.write_all(&chunk).await?;
        }
    }
}
