//! Clients, the queue, and that nothing waits without a reason.

use rustc_hash::FxHashSet;

use super::super::state::{FIRE_AND_FORGET, State};
use super::super::task::TaskStateName;
use super::{Violation, ensure};

impl State {
    pub(super) fn validate_clients(&self) -> Result<(), Violation> {
        let live = self.all_clients().count();
        ensure!(
            live == self.client_index.len(),
            "{live} clients, {} names",
            self.client_index.len()
        );
        ensure!(
            self.client_id(FIRE_AND_FORGET).is_some(),
            "the pseudo-client of fire-and-forget is gone"
        );
        for (id, client) in self.all_clients() {
            let name = &client.name;
            ensure!(
                self.client_index.get(name) == Some(&id),
                "client {name}: its name leads elsewhere"
            );
            for t in client.wants_what.iter() {
                let task = self
                    .live_task(t)
                    .ok_or_else(|| format!("client {name}: wants a forgotten task"))?;
                ensure!(
                    task.who_wants.contains(&id),
                    "client {name}: {} does not know that it is wanted",
                    task.key
                );
            }
        }
        Ok(())
    }

    /// The queue's books, and that work that could be given out is given out.
    pub(super) fn validate_progress(&self) -> Result<(), Violation> {
        let in_state = |s| self.all_tasks().filter(|(_, t)| t.state == s).count();
        let entries: FxHashSet<_> = self.queued_tasks().collect();
        let n = in_state(TaskStateName::Queued);
        ensure!(
            n == self.queued_len && n == entries.len() && n == self.queued_tasks().count(),
            "{n} tasks queued, {} are booked, {} entries are live",
            self.queued_len,
            entries.len()
        );
        let free = self.running.iter().find(|w| self.is_below_saturation(*w));
        ensure!(
            n == 0 || free.is_none(),
            "{n} tasks are queued although {free:?} has free slots"
        );
        let n = in_state(TaskStateName::NoWorker);
        ensure!(
            n == self.unrunnable.len(),
            "{n} tasks without worker, {} are booked",
            self.unrunnable.len()
        );
        let n = self
            .all_tasks()
            .filter(|(_, t)| t.who_has.len() > 1)
            .count();
        ensure!(
            n == self.replicated.len(),
            "{n} replicated tasks, {} are booked",
            self.replicated.len()
        );
        Ok(())
    }
}
