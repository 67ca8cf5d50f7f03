//! Single tasks: states, edges and containers.

use super::super::ids::TaskId;
use super::super::state::State;
use super::super::task::{Task, TaskStateName};
use super::{Violation, ensure};

use TaskStateName::{Erred, Forgotten, Memory, NoWorker, Processing, Queued, Released, Waiting};

/// Wanted, not yet done.
fn in_play(state: TaskStateName) -> bool {
    matches!(state, Waiting | Queued | Processing | NoWorker)
}

impl State {
    pub(super) fn validate_arena(&self) -> Result<(), Violation> {
        let live = self.tasks.iter().flatten().count();
        ensure!(
            self.task_index.len() == live,
            "{} keys for {live} tasks",
            self.task_index.len()
        );
        ensure!(
            self.free_tasks.len() + live == self.tasks.len(),
            "free slots of the task arena are miscounted"
        );
        for id in &self.free_tasks {
            ensure!(
                self.live_task(*id).is_none(),
                "slot {id:?} is free and in use"
            );
        }
        for (key, id) in &self.task_index {
            let found = self.live_task(*id).is_some_and(|t| t.key == *key);
            ensure!(found, "key {key} leads to another task's slot");
        }
        Ok(())
    }

    pub(super) fn validate_task(&self, id: TaskId, task: &Task) -> Result<(), Violation> {
        ensure!(task.state != Forgotten, "forgotten, yet in the arena");
        ensure!(
            task.rec_at == u32::MAX,
            "thinks it has a pending recommendation"
        );
        self.validate_edges(id, task)?;
        self.validate_containers(id, task)?;
        self.validate_state_of(id, task)?;
        ensure!(
            !(task.dependents.is_empty() && task.who_wants.is_empty()),
            "nobody wants or needs it, yet it is remembered"
        );
        if let Some(blame) = task.exception_blame() {
            ensure!(
                self.live_task(blame).is_some(),
                "blames a task that is forgotten"
            );
        }
        if task.actor {
            self.validate_actor(id, task)?;
        }
        Ok(())
    }

    fn validate_edges(&self, id: TaskId, task: &Task) -> Result<(), Violation> {
        for d in task.dependencies.iter() {
            let dep = self.live_task(d).ok_or("a dependency is forgotten")?;
            ensure!(
                dep.dependents.contains(id),
                "{} does not know this dependent",
                dep.key
            );
            let known = self.group(task.group).dependencies.contains(dep.group);
            ensure!(
                known,
                "its group does not depend on the group of {}",
                dep.key
            );
        }
        for d in task.dependents.iter() {
            let dependent = self.live_task(d).ok_or("a dependent is forgotten")?;
            ensure!(
                dependent.dependencies.contains(id),
                "{} does not know this dependency",
                dependent.key
            );
        }
        for d in task.waiting_on.iter() {
            ensure!(
                task.dependencies.contains(d),
                "waits for what is not a dependency"
            );
        }
        for w in task.waiters.iter() {
            ensure!(
                task.dependents.contains(w),
                "has a waiter that is not a dependent"
            );
            let waiter = self.task(w);
            ensure!(
                in_play(waiter.state),
                "its waiter {} is {}",
                waiter.key,
                waiter.state.as_str()
            );
        }
        for c in &task.who_wants {
            let client = self.clients.get(c.0 as usize).and_then(Option::as_ref);
            let client = client.ok_or("wanted by a client that is gone")?;
            ensure!(
                client.wants_what.contains(id),
                "client {} does not know that it wants it",
                client.name
            );
        }
        Ok(())
    }

    /// That it is in exactly the containers its state asks for.
    fn validate_containers(&self, id: TaskId, task: &Task) -> Result<(), Violation> {
        let s = task.state;
        ensure!(
            task.who_has.is_empty() != (s == Memory),
            "held by {} workers",
            task.who_has.len()
        );
        ensure!(
            task.processing_on.is_some() == (s == Processing),
            "processing on {:?}",
            task.processing_on
        );
        ensure!(
            self.unrunnable.contains(id) == (s == NoWorker),
            "wrongly (not) among the unrunnable tasks"
        );
        ensure!(
            self.is_queued(id) == (s == Queued),
            "wrongly (not) in the queue"
        );
        ensure!(
            self.replicated.contains(id) == (task.who_has.len() > 1),
            "wrongly (not) among the replicated tasks"
        );
        ensure!(
            task.waiting_on.is_empty() != (s == Waiting),
            "waits for {} dependencies",
            task.waiting_on.len()
        );
        for (i, w) in task.who_has.iter().enumerate() {
            ensure!(self.is_registered(*w), "held by {w:?}, which is gone");
            ensure!(
                self.worker(*w).has_what.contains(id),
                "{w:?} does not know that it holds it"
            );
            ensure!(
                !task.who_has[..i].contains(w),
                "{w:?} is listed twice as a holder"
            );
        }
        if let Some(w) = task.processing_on {
            ensure!(self.is_registered(w), "processing on {w:?}, which is gone");
            ensure!(
                self.worker(w).processing.contains(id),
                "{w:?} does not know that it processes it"
            );
        }
        Ok(())
    }

    fn validate_state_of(&self, id: TaskId, task: &Task) -> Result<(), Violation> {
        match task.state {
            Released => {
                ensure!(task.waiters.is_empty(), "has waiters");
                ensure!(task.exception_blame().is_none(), "shares a failure");
                ensure!(
                    task.who_wants.is_empty(),
                    "a client waits for it and nothing will happen"
                );
                let waited = task
                    .dependencies
                    .iter()
                    .find(|d| self.task(*d).waiters.contains(id));
                ensure!(waited.is_none(), "counts as waiter of a dependency");
            }
            Waiting | Queued | Processing | NoWorker => self.validate_in_play(id, task)?,
            Memory => self.validate_memory(id, task)?,
            Erred => {
                let blame = task.exception_blame().ok_or("nobody is to blame")?;
                let known = self
                    .task(blame)
                    .rare
                    .as_ref()
                    .is_some_and(|r| r.failure.is_some());
                ensure!(known, "the failure of {} is unknown", self.task(blame).key);
                ensure!(task.waiters.is_empty(), "has waiters");
            }
            Forgotten => {}
        }
        Ok(())
    }

    fn validate_in_play(&self, id: TaskId, task: &Task) -> Result<(), Violation> {
        ensure!(task.spec.is_some(), "there is nothing to run");
        ensure!(!task.unneeded(), "nobody waits for it");
        ensure!(!task.has_lost_dependencies, "a dependency was forgotten");
        ensure!(
            task.exception_blame().is_none(),
            "shares a failure, yet is to run"
        );
        for d in task.dependencies.iter() {
            let dep = self.task(d);
            ensure!(
                dep.who_has.is_empty() == task.waiting_on.contains(d),
                "wrongly (not) waiting for {} ({}, {} holders)",
                dep.key,
                dep.state.as_str(),
                dep.who_has.len()
            );
            ensure!(
                dep.waiters.contains(id),
                "dependency {} ({}) does not know this waiter",
                dep.key,
                dep.state.as_str()
            );
            ensure!(
                in_play(dep.state) || dep.state == Memory,
                "waits in vain for {}, which is {}",
                dep.key,
                dep.state.as_str()
            );
        }
        if task.state == Queued {
            ensure!(task.restrictions().is_none(), "restricted, yet queued");
        }
        if task.state == NoWorker {
            let worker = self.decide_worker_non_rootish(id);
            ensure!(worker.is_none(), "could run on {worker:?}");
        }
        Ok(())
    }

    fn validate_memory(&self, id: TaskId, task: &Task) -> Result<(), Violation> {
        ensure!(
            !task.unneeded(),
            "nobody waits for the result, yet it is kept"
        );
        for d in task.dependents.iter() {
            let dependent = self.task(d);
            ensure!(
                task.waiters.contains(d) == in_play(dependent.state),
                "dependent {} is {}, and wrongly (not) a waiter",
                dependent.key,
                dependent.state.as_str()
            );
            ensure!(
                !dependent.waiting_on.contains(id),
                "{} waits for it",
                dependent.key
            );
        }
        Ok(())
    }

    fn validate_actor(&self, id: TaskId, task: &Task) -> Result<(), Violation> {
        match task.state {
            Memory => {
                let on = task
                    .who_has
                    .iter()
                    .filter(|w| self.worker(**w).actors.contains(id))
                    .count();
                ensure!(on == 1, "actor on {on} workers");
            }
            Processing => {
                let on = task
                    .processing_on
                    .is_some_and(|w| self.worker(w).actors.contains(id));
                ensure!(on, "its worker does not know the actor");
            }
            _ => {}
        }
        Ok(())
    }
}
