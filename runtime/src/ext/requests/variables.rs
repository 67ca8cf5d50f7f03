//! Operations of `Variable`.

use super::{Reply, Request};
use crate::ext::core_access::CoreAccess;
use crate::ext::record::describe;
use crate::ext::variables::client_of;
use crate::ext::waiting::{Deadline, OnDrop};
use crate::ext::{ExtError, State};
use crate::protocol::Value;

impl<C: CoreAccess> Request<'_, C> {
    pub(super) async fn variable_set(&self) -> Reply {
        let name = self.args.key("name")?;
        let deadline = Deadline::after(self.args.timeout("timeout")?);
        let record = self.record(client_of(&name), deadline).await?;
        self.ext
            .request(self.core, |state, out| {
                state.variables.set(name, record, out)
            })
            .await;
        Ok(Value::Nil)
    }

    pub(super) async fn variable_get(&self) -> Reply {
        let name = self.args.key("name")?;
        let deadline = Deadline::after(self.args.timeout("timeout")?);
        let token = self.ext.token();
        let record = loop {
            let ticket = self.ext.ticket();
            let (record, _) = self.ext.change(drop, |state, _| {
                let record = state.variables.get(&name, &token, self.client);
                if record.is_none() {
                    state.variables.wait(&name, ticket);
                }
                record
            });
            if let Some(record) = record {
                break record;
            }
            let collect = |state: &mut State| state.variables.collect(ticket);
            self.ext
                .wait(self.core, ticket, deadline, collect, |state, _| {
                    state.variables.withdraw(&name, ticket)
                })
                .await
                .ok_or_else(ExtError::timeout)?;
        };
        // Until the reply is made, the token is this request's to take back.
        let key = record.key().cloned();
        let guard = OnDrop::new(|| {
            if let Some(key) = &key {
                self.ext.change(
                    |effects| self.core.apply(effects),
                    |state, out| state.variables.confirm(&name, key, &token, out),
                );
            }
        });
        let mut reply = describe(vec![record], self.core)
            .await
            .pop()
            .unwrap_or_default();
        if key.is_some()
            && let Value::Map(entries) = &mut reply
        {
            entries.push(("token".into(), token.clone().into()));
        }
        guard.disarm();
        Ok(reply)
    }
}
