//! Operations of `Queue`.

use super::{Reply, Request};
use crate::ext::core_access::CoreAccess;
use crate::ext::queues::{NoQueue, client_of};
use crate::ext::record::{Record, describe};
use crate::ext::waiting::Deadline;
use crate::ext::{ExtError, State};
use crate::protocol::{Key, Value};

impl<C: CoreAccess> Request<'_, C> {
    pub(super) async fn queue_create(&self) -> Reply {
        let name = self.args.key("name")?;
        let max_size = self
            .args
            .get("maxsize")
            .map_or(Ok(0), |_| self.args.int("maxsize"))?;
        self.ext
            .request(self.core, |state, _| {
                state
                    .queues
                    .create(name, usize::try_from(max_size).unwrap_or(0))
            })
            .await;
        Ok(Value::Nil)
    }

    pub(super) async fn queue_put(&self) -> Reply {
        let name = self.args.key("name")?;
        let deadline = Deadline::after(self.args.timeout("timeout")?);
        if !self.ext.read(|state| state.queues.contains(&name)) {
            return Err(ExtError::unknown(&name));
        }
        let record = self.record(client_of(&name), deadline).await?;
        let ticket = self.ext.ticket();
        let no_queue = |NoQueue| ExtError::unknown(&name);
        // From here on the request is in line, although the effects are still to be applied.
        let (done, applied) = self.ext.change(
            |effects| self.core.apply(effects),
            |state, out| state.queues.put(&name, record, ticket, out),
        );
        if !done.map_err(no_queue)? {
            let collect = |state: &mut State| state.queues.collect_put(ticket);
            let put = self
                .ext
                .wait(self.core, ticket, deadline, collect, |state, out| {
                    state.queues.withdraw_put(&name, ticket, out)
                })
                .await;
            put.ok_or_else(ExtError::timeout)?.map_err(no_queue)?;
        }
        if let Some(applied) = applied {
            let _ = applied.await;
        }
        Ok(Value::Nil)
    }

    pub(super) async fn queue_get(&self) -> Reply {
        let name = self.args.key("name")?;
        let timeout = self.args.timeout("timeout")?;
        let mut taken = Taken {
            request: self,
            name: &name,
            records: Vec::new(),
        };
        let n_wanted = match self.args.get("batch") {
            None | Some(Value::Bool(false) | Value::Int(0)) => {
                taken.next(Deadline::after(timeout)).await?;
                return Ok(taken.described().await.pop().unwrap_or_default());
            }
            Some(Value::Bool(true)) => {
                taken.all()?;
                return Ok(Value::Array(taken.described().await));
            }
            Some(_) => self.args.int("batch")?,
        };
        if timeout.is_some() {
            let text =
                "Dask queues don't support simultaneous use of integer batch sizes and timeouts";
            return Err(ExtError::NotImplemented(text.into()));
        }
        for _ in 0..n_wanted {
            taken.next(Deadline::after(None)).await?;
        }
        Ok(Value::Array(taken.described().await))
    }

    pub(super) fn queue_qsize(&self) -> Reply {
        let name = self.args.key("name")?;
        self.ext
            .read(|state| state.queues.len(&name))
            .map(Value::from)
            .map_err(|NoQueue| ExtError::unknown(&name))
    }
}

/// Records taken out of a queue; they go back if the request is dropped before it is answered.
struct Taken<'a, 'r, C: CoreAccess> {
    request: &'a Request<'r, C>,
    name: &'a Key,
    records: Vec<Record>,
}

impl<C: CoreAccess> Taken<'_, '_, C> {
    /// Takes one record, waiting for it.
    async fn next(&mut self, deadline: Deadline) -> Result<(), ExtError> {
        let Request { ext, core, .. } = *self.request;
        let name = self.name;
        let ticket = ext.ticket();
        let no_queue = |NoQueue| ExtError::unknown(name);
        let (record, _) = ext.change(
            |effects| core.apply(effects),
            |state, out| state.queues.get(name, ticket, out),
        );
        let record = match record.map_err(no_queue)? {
            Some(record) => record,
            None => {
                let collect = |state: &mut State| state.queues.collect_get(ticket);
                let record = ext
                    .wait(core, ticket, deadline, collect, |state, out| {
                        state.queues.withdraw_get(name, ticket, out)
                    })
                    .await;
                record.ok_or_else(ExtError::timeout)?.map_err(no_queue)?
            }
        };
        self.records.push(record);
        Ok(())
    }

    /// Takes all that are there.
    fn all(&mut self) -> Result<(), ExtError> {
        let core = self.request.core;
        let (records, _) = self.request.ext.change(
            |effects| core.apply(effects),
            |state, out| state.queues.get_all(self.name, out),
        );
        self.records = records.map_err(|NoQueue| ExtError::unknown(self.name))?;
        Ok(())
    }

    /// The records as the client gets them; from then on they are the client's.
    async fn described(mut self) -> Vec<Value> {
        let described = describe(self.records.clone(), self.request.core).await;
        self.records.clear();
        described
    }
}

impl<C: CoreAccess> Drop for Taken<'_, '_, C> {
    fn drop(&mut self) {
        let records = std::mem::take(&mut self.records);
        if records.is_empty() {
            return;
        }
        let Request { ext, core, .. } = *self.request;
        ext.change(
            |effects| core.apply(effects),
            |state, out| state.queues.give_back(self.name, records, out),
        );
    }
}
