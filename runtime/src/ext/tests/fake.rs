use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::ext::{
    CoreAccess, CoreNow, Effect, Ext, RpcError, TaskError, TaskView, handle, handle_stream,
};
use crate::protocol::{Key, Value};

/// A core that knows tasks by their state and notes who wants which key.
#[derive(Clone, Default)]
pub struct FakeCore(Arc<Mutex<Accounts>>);

#[derive(Default)]
struct Accounts {
    tasks: BTreeMap<Key, &'static str>,
    wants: BTreeMap<String, BTreeSet<Key>>,
    clients: BTreeSet<String>,
}

impl FakeCore {
    pub fn add_task(&self, key: &str, state: &'static str) {
        self.0
            .lock()
            .unwrap()
            .tasks
            .insert(Key::new_str(key), state);
    }

    pub fn wanted(&self, client: &str) -> Vec<String> {
        let accounts = self.0.lock().unwrap();
        accounts
            .wants
            .get(client)
            .into_iter()
            .flatten()
            .map(Key::to_string)
            .collect()
    }

    pub fn has_pseudo_client(&self, client: &str) -> bool {
        self.0.lock().unwrap().wants.contains_key(client)
    }
}

impl CoreAccess for FakeCore {
    fn apply(&self, effects: Vec<Effect>) -> oneshot::Receiver<()> {
        let mut accounts = self.0.lock().unwrap();
        for effect in effects {
            match effect {
                Effect::Desire { keys, client } => {
                    let known: Vec<Key> = keys
                        .into_iter()
                        .filter(|key| accounts.tasks.contains_key(key))
                        .collect();
                    accounts.wants.entry(client).or_default().extend(known);
                }
                Effect::Release { keys, client } => {
                    if let Some(wants) = accounts.wants.get_mut(&client) {
                        wants.retain(|key| !keys.contains(key));
                    }
                }
                Effect::RemoveClient { client } => drop(accounts.wants.remove(&client)),
            }
        }
        let (sender, receiver) = oneshot::channel();
        sender.send(()).unwrap();
        receiver
    }

    async fn desire_known(&self, key: Key, client: String) -> bool {
        let known = self.0.lock().unwrap().tasks.contains_key(&key);
        if known {
            self.apply(vec![Effect::Desire {
                keys: vec![key],
                client,
            }]);
        }
        known
    }

    async fn tasks(&self, keys: Vec<Key>) -> Vec<Option<TaskView>> {
        // Everything that waits for the core can be cut off there.
        tokio::task::yield_now().await;
        let accounts = self.0.lock().unwrap();
        let view = |key| {
            let state = *accounts.tasks.get(key)?;
            let error = (state == "erred").then(|| TaskError {
                exception: Value::Bin(vec![1].into()),
                traceback: Value::Nil,
            });
            Some(TaskView { state, error })
        };
        keys.iter().map(view).collect()
    }

    async fn has_client(&self, client: &str) -> bool {
        self.0.lock().unwrap().clients.contains(client)
    }
}

impl CoreNow for FakeCore {
    fn client_desires_keys(&mut self, keys: &[Key], client: &str) {
        self.apply(vec![Effect::Desire {
            keys: keys.to_vec(),
            client: client.into(),
        }]);
    }

    fn queue(&mut self, effects: Vec<Effect>) {
        self.apply(effects);
    }
}

/// The extensions with their core.
#[derive(Clone, Default)]
pub struct Session {
    pub ext: Arc<Ext>,
    pub core: FakeCore,
}

impl Session {
    pub async fn try_call<const N: usize>(
        &self,
        op: &str,
        args: [(&str, Value); N],
    ) -> Result<Value, RpcError> {
        handle(&self.ext, &self.core, op, &Value::map(args), None)
            .await
            .expect("a known operation")
    }

    pub async fn call<const N: usize>(&self, op: &str, args: [(&str, Value); N]) -> Value {
        self.try_call(op, args).await.unwrap()
    }

    pub async fn error<const N: usize>(&self, op: &str, args: [(&str, Value); N]) -> String {
        self.try_call(op, args).await.unwrap_err().text
    }

    /// The request on a connection of its own; aborting it is closing the connection. It is in line on return.
    pub async fn spawn<const N: usize>(
        &self,
        op: &'static str,
        args: [(&'static str, Value); N],
    ) -> JoinHandle<Result<Value, RpcError>> {
        let session = self.clone();
        let request = tokio::spawn(async move { session.try_call(op, args).await });
        self.settle().await;
        request
    }

    /// Lets every other request run as far as it gets.
    pub async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    pub async fn stream<const N: usize>(&self, op: &str, args: [(&str, Value); N], client: &str) {
        assert!(handle_stream(
            &self.ext,
            &mut self.core.clone(),
            op,
            &Value::map(args),
            client
        ));
        self.settle().await;
    }
}

/// The text of an entry.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
