//! The extensions' view of the core.

use tokio::sync::oneshot;

use super::core::{Core, CoreHandle};
use super::rpc::failure_values;
use crate::ext::{CoreAccess, CoreNow, Effect, TaskError, TaskView};
use crate::protocol::Key;
use crate::scheduler::TaskStateName;

impl CoreAccess for CoreHandle {
    fn apply(&self, effects: Vec<Effect>) -> oneshot::Receiver<()> {
        let (tx, rx) = oneshot::channel();
        self.post(move |core| {
            run(core, effects);
            let _ = tx.send(());
        });
        rx
    }

    async fn desire_known(&self, key: Key, client: String) -> bool {
        let known = self.call(move |core| {
            let known = core.state.task_id(&key).is_some();
            if known {
                core.state.client_desires_keys(&client, &[key]);
            }
            known
        });
        known.await.unwrap_or(false)
    }

    async fn tasks(&self, keys: Vec<Key>) -> Vec<Option<TaskView>> {
        let n = keys.len();
        let views = self.call(move |core| {
            let view = |key: &Key| {
                let task = core.state.task(core.state.task_id(key)?);
                let error = (task.state == TaskStateName::Erred).then(|| {
                    let (exception, traceback) =
                        failure_values(&core.state, key).unwrap_or_default();
                    TaskError {
                        exception,
                        traceback,
                    }
                });
                Some(TaskView {
                    state: task.state.as_str(),
                    error,
                })
            };
            keys.iter().map(view).collect::<Vec<_>>()
        });
        views.await.unwrap_or_else(|_| vec![None; n])
    }

    async fn has_client(&self, client: &str) -> bool {
        let client = client.to_string();
        let known = self.call(move |core| {
            core.state
                .client_id(&client)
                .is_some_and(|id| core.state.client(id).connected)
        });
        known.await.unwrap_or(false)
    }
}

fn run(core: &mut Core, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::Desire { keys, client } => core.state.client_desires_keys(&client, &keys),
            Effect::Release { keys, client } => core.state.client_releases_keys(&client, &keys),
            Effect::RemoveClient { client } => {
                if let Some(id) = core.state.client_id(&client) {
                    core.state.remove_client(id);
                }
            }
        }
    }
}

impl CoreNow for Core {
    fn client_desires_keys(&mut self, keys: &[Key], client: &str) {
        self.state.client_desires_keys(client, keys);
    }

    fn queue(&mut self, effects: Vec<Effect>) {
        self.handle.post(move |core| run(core, effects));
    }
}
