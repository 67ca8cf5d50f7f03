//! Operations of published datasets.

use std::time::Duration;

use super::{Reply, Request};
use crate::ext::args::{as_key, detached};
use crate::ext::core_access::CoreAccess;
use crate::ext::publish::{Arrival, Dataset};
use crate::ext::waiting::Deadline;
use crate::ext::{ExtError, State};
use crate::protocol::{Key, Value};

/// How often to look whether a client that announced something is still there.
const CLIENT_POLL: Duration = Duration::from_secs(30);

impl<C: CoreAccess> Request<'_, C> {
    /// Waits until the client's stream has got as far as this request.
    async fn sync_stream(&self) -> Result<(), ExtError> {
        let (client, id) = (self.args.str("client")?, self.args.id("uid")?);
        loop {
            let ticket = self.ext.ticket();
            if self
                .ext
                .change(drop, |state, _| {
                    state.datasets.await_mark(&id, client, ticket)
                })
                .0
            {
                return Ok(());
            }
            let collect = |state: &mut State| state.datasets.collect(ticket);
            let deadline = Deadline::after(Some(CLIENT_POLL));
            match self
                .ext
                .wait(self.core, ticket, deadline, collect, |state, _| {
                    state.datasets.withdraw(&id, ticket)
                })
                .await
            {
                Some(Arrival::Done) => return Ok(()),
                Some(Arrival::ClientGone) => return Err(ExtError::timeout()),
                None if !self.core.has_client(client).await => return Err(ExtError::timeout()),
                None => {}
            }
        }
    }

    pub(super) async fn publish_put(&self) -> Reply {
        let names = self.args.keys("names")?;
        let (keys, data) = (self.args.items("keys")?, self.args.items("data")?);
        let replace = self
            .args
            .get("override")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        if names.len() != keys.len() || names.len() != data.len() {
            return Err(ExtError::Value(
                "names, keys and data must be of the same length".into(),
            ));
        }
        let mut datasets = Vec::with_capacity(names.len());
        for ((name, keys), data) in names.into_iter().zip(keys).zip(data) {
            let keys = keys
                .as_array()
                .unwrap_or_default()
                .iter()
                .map(as_key)
                .collect::<Result<Vec<Key>, _>>()?;
            datasets.push((
                name,
                Dataset {
                    data: detached(data),
                    keys,
                },
            ));
        }
        self.sync_stream().await?;
        self.ext
            .request(self.core, |state, out| {
                datasets
                    .into_iter()
                    .try_for_each(|(name, dataset)| state.datasets.put(name, dataset, replace, out))
            })
            .await?;
        Ok(Value::Nil)
    }

    pub(super) async fn publish_delete(&self) -> Reply {
        let names = self.args.keys("names")?;
        self.sync_stream().await?;
        self.ext
            .request(self.core, |state, out| {
                names
                    .iter()
                    .for_each(|name| state.datasets.delete(name, out))
            })
            .await;
        Ok(Value::Nil)
    }

    pub(super) fn publish_get(&self) -> Reply {
        let names = self.args.keys("names")?;
        let describe = |dataset: &Dataset| {
            Value::map([
                ("data", dataset.data.clone()),
                ("keys", Value::array(&dataset.keys)),
            ])
        };
        let datasets = self.ext.read(|state| {
            names
                .iter()
                .map(|name| state.datasets.get(name).map(describe))
                .map(Value::from)
                .collect::<Vec<Value>>()
        });
        Ok(Value::Array(datasets))
    }
}
