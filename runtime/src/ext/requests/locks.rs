//! Operations of `Event`, `MultiLock`, `Semaphore` and `Lock`.

use super::{Reply, Request};
use crate::ext::core_access::CoreAccess;
use crate::ext::waiting::Deadline;
use crate::ext::{Out, State};
use crate::protocol::{Str, Value};

impl<C: CoreAccess> Request<'_, C> {
    pub(super) async fn event_wait(&self) -> Reply {
        let name = self.args.key("name")?;
        let deadline = Deadline::after(self.args.timeout("timeout")?);
        let ticket = self.ext.ticket();
        if self
            .ext
            .change(drop, |state, _| state.events.wait(&name, ticket))
            .0
        {
            return Ok(true.into());
        }
        let collect = |state: &mut State| state.events.collect(ticket);
        let set = self
            .ext
            .wait(self.core, ticket, deadline, collect, |state, _| {
                state.events.withdraw(&name, ticket)
            })
            .await;
        Ok(set.is_some().into())
    }

    pub(super) fn event_set(&self) -> Reply {
        let name = self.args.key("name")?;
        self.ext
            .change(drop, |state, out| state.events.set(name, out));
        Ok(Value::Nil)
    }

    pub(super) fn event_clear(&self) -> Reply {
        let name = self.args.key("name")?;
        self.ext.change(drop, |state, _| state.events.clear(&name));
        Ok(Value::Nil)
    }

    pub(super) fn event_is_set(&self) -> Reply {
        let name = self.args.key("name")?;
        Ok(self.ext.read(|state| state.events.is_set(&name)).into())
    }

    pub(super) async fn multi_lock_acquire(&self) -> Reply {
        let (locks, id) = (self.args.keys("locks")?, self.args.key("id")?);
        let deadline = Deadline::after(self.args.timeout("timeout")?);
        let n_needed = usize::try_from(self.args.int("num_locks")?).unwrap_or(0);
        let ticket = self.ext.ticket();
        let (done, _) = self.ext.change(drop, |state, _| {
            state
                .multi_locks
                .acquire(locks, id.clone(), n_needed, ticket)
        });
        if done? {
            return Ok(true.into());
        }
        let collect = |state: &mut State| state.multi_locks.collect(ticket);
        let got = self
            .ext
            .wait(self.core, ticket, deadline, collect, |state, out| {
                state.multi_locks.withdraw(&id, ticket, out)
            })
            .await;
        Ok(got.is_some().into())
    }

    pub(super) fn multi_lock_release(&self) -> Reply {
        let id = self.args.key("id")?;
        self.ext
            .change(drop, |state, out| state.multi_locks.release(&id, out))
            .0?;
        Ok(Value::Nil)
    }

    pub(super) fn semaphore_register(&self) -> Reply {
        let (name, max_leases) = (self.args.key("name")?, self.args.int("max_leases")?);
        let lease_timeout_s = self.args.seconds("lease_timeout")?;
        self.ext
            .change(drop, |state, _| {
                state.semaphores.register(name, max_leases, lease_timeout_s)
            })
            .0?;
        Ok(Value::Nil)
    }

    pub(super) async fn semaphore_acquire(&self) -> Reply {
        let (name, lease) = (self.args.key("name")?, self.args.text("lease_id")?);
        let deadline = Deadline::after(self.args.timeout("timeout")?);
        let (ticket, now) = (self.ext.ticket(), self.ext.now());
        let (given, _) = self.ext.change(drop, |state, _| {
            state.semaphores.acquire(&name, lease.clone(), ticket, now)
        });
        if given? {
            return Ok(true.into());
        }
        let collect = |state: &mut State| state.semaphores.collect(&name, ticket);
        let withdraw = |state: &mut State, out: &mut Out| {
            state
                .semaphores
                .withdraw(&name, &lease, ticket, self.ext.now(), out)
        };
        let given = self
            .ext
            .wait(self.core, ticket, deadline, collect, withdraw)
            .await;
        given.unwrap_or(Ok(false)).map(Value::from)
    }

    pub(super) fn semaphore_release(&self) -> Reply {
        let (name, lease) = (self.args.key("name")?, self.args.str("lease_id")?);
        let now = self.ext.now();
        if !self
            .ext
            .change(drop, |state, out| {
                state.semaphores.release(&name, lease, now, out)
            })
            .0
        {
            tracing::warn!(%name, lease, "tried to release a lock or semaphore that is not known or already released; its lease may have expired");
        }
        Ok(Value::Nil)
    }

    pub(super) fn semaphore_refresh_leases(&self) -> Reply {
        let name = self.args.key("name")?;
        let leases: Vec<Str> = self
            .args
            .items("lease_ids")?
            .iter()
            .filter_map(Value::as_str)
            .map(Str::from)
            .collect();
        let now = self.ext.now();
        let (unknown, _) = self.ext.change(drop, |state, _| {
            state.semaphores.refresh(&name, &leases, now)
        });
        if !unknown.is_empty() {
            tracing::error!(%name, n_leases = unknown.len(), "refreshed leases that had expired: the semaphore may be overbooked; a task that holds the GIL for long often causes this");
        }
        Ok(Value::Nil)
    }

    pub(super) fn semaphore_value(&self) -> Reply {
        let name = self.args.key("name")?;
        Ok(self.ext.read(|state| state.semaphores.value(&name)).into())
    }

    pub(super) fn semaphore_close(&self) -> Reply {
        let name = self.args.key("name")?;
        let ((n_leases, n_pending), _) = self
            .ext
            .change(drop, |state, out| state.semaphores.close(&name, out));
        if n_leases + n_pending > 0 {
            tracing::warn!(%name, n_leases, n_pending, "closed a semaphore that is in use");
        }
        Ok(Value::Nil)
    }
}
