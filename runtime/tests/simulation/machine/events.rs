//! Events on a worker.

use super::*;

impl Machine {
    pub(super) fn on_event(&mut self, event: Event) -> Recs {
        match event {
            Event::Message(message) => self.on_message(message),
            Event::Scatter(k, value, nbytes) => {
                let task = self
                    .tasks
                    .entry(k)
                    .or_insert_with(|| Task::new((0, 0, 0, 0)));
                task.nbytes = nbytes;
                Recs::one(k, Target::Memory(value, u64::MAX))
            }
            Event::Executed(k, run_id, value, nbytes) => {
                let mut recs = self.execution_done(k);
                self.task_mut(k).nbytes = nbytes;
                recs.set(k, Target::Memory(value, run_id));
                recs
            }
            Event::Failed(k, run_id) => {
                let mut recs = self.execution_done(k);
                recs.set(k, Target::Error(run_id));
                recs
            }
            Event::AskedToReschedule(k) => {
                let mut recs = self.execution_done(k);
                recs.set(k, Target::Rescheduled);
                recs
            }
            Event::Seceded(k, seconds) => match self.tasks.contains_key(&k) {
                true => Recs::one(k, Target::LongRunning(Some(seconds))),
                false => Recs::default(),
            },
            Event::GatherDone(peer, data) => {
                let mut recs = Recs::default();
                for k in self.gather_done(&peer) {
                    let run_id = self.task(k).run_id;
                    match data.iter().find(|(have, _)| *have == k) {
                        Some((_, value)) => recs.set(k, Target::Memory(*value, run_id)),
                        None => {
                            self.task_mut(k).who_has.remove(&peer);
                            recs.set(k, Target::Fetch);
                        }
                    }
                }
                recs
            }
            Event::GatherBusy(peer) => self.on_busy(peer),
            Event::GatherFailed(peer) => {
                let mut recs = Recs::default();
                for k in self.gather_done(&peer) {
                    recs.set(k, Target::Fetch);
                }
                self.forget_peer(&peer, &mut recs);
                recs
            }
            Event::RetryBusy(peer) => {
                self.busy.remove(&peer);
                Recs::default()
            }
            Event::FindMissing => {
                let missing = self.tasks.iter();
                let missing: Vec<K> = missing
                    .filter(|(_, t)| t.state == Phase::Missing)
                    .map(|(k, _)| *k)
                    .collect();
                if !missing.is_empty() {
                    self.say(FromWorker::RequestRefresh(missing));
                }
                Recs::default()
            }
            Event::Pause => {
                self.running = false;
                Recs::default()
            }
            Event::Unpause => {
                self.running = true;
                self.ensure_computing()
            }
        }
    }

    fn execution_done(&mut self, k: K) -> Recs {
        self.task_mut(k).done = true;
        self.use_resources(k, 1.0);
        self.executing.remove(&k);
        self.long_running.remove(&k);
        self.ensure_computing()
    }

    fn on_busy(&mut self, peer: Address) -> Recs {
        self.busy.insert(peer.clone());
        let mut recs = Recs::default();
        let mut refresh = Vec::new();
        for k in self.gather_done(&peer) {
            recs.set(k, Target::Fetch);
            if self.task(k).who_has.iter().all(|p| self.busy.contains(p)) {
                refresh.push(k);
            }
        }
        self.out.push(Instruction::RetryBusyLater(peer));
        if !refresh.is_empty() {
            self.say(FromWorker::RequestRefresh(refresh));
        }
        recs
    }

    fn on_message(&mut self, message: ToWorker) -> Recs {
        let mut recs = Recs::default();
        match message {
            ToWorker::Compute { .. } => return self.on_compute(message),
            ToWorker::FreeKeys(keys) => {
                for k in keys.into_iter().filter(|k| self.tasks.contains_key(k)) {
                    recs.set(k, Target::Released);
                }
            }
            ToWorker::RemoveReplicas(keys) => {
                for k in keys {
                    let Some(task) = self.tasks.get(&k) else {
                        continue;
                    };
                    if task.state != Phase::Memory {
                        continue;
                    }
                    for d in &task.dependents {
                        assert!(
                            !self.task(*d).state.busy(),
                            "{}: told to drop {k}, which {d} is using",
                            self.address
                        );
                    }
                    recs.set(k, Target::Released);
                }
            }
            ToWorker::AcquireReplicas(list) => {
                for holders in &list {
                    assert!(!holders.who_has.is_empty(), "acquire from nobody");
                    let task = self.ensure_task(holders.key, (1000, i64::MIN, 0, 0));
                    if task.state != Phase::Memory {
                        task.nbytes = holders.nbytes;
                        recs.set(holders.key, Target::Fetch);
                    }
                }
                self.update_who_has(&list);
            }
            ToWorker::StealRequest { key, request } => {
                let state = self.tasks.get(&key).map(|t| t.state);
                let name = state.map(Phase::name);
                self.say(FromWorker::StealResponse {
                    key,
                    state: name,
                    request,
                });
                if matches!(
                    state,
                    Some(Phase::Ready | Phase::Constrained | Phase::Waiting)
                ) {
                    recs.set(key, Target::Released);
                }
            }
            ToWorker::RefreshWhoHas(list) => {
                self.update_who_has(&list);
                for holders in list {
                    let Some(task) = self.tasks.get(&holders.key) else {
                        continue;
                    };
                    match (task.state, task.who_has.is_empty()) {
                        (Phase::Missing, false) => recs.set(holders.key, Target::Fetch),
                        (Phase::Fetch, true) => recs.set(holders.key, Target::Missing),
                        _ => {}
                    }
                }
            }
            ToWorker::RemoveWorker(peer) => self.forget_peer(&peer, &mut recs),
            ToWorker::StatusChange(_) | ToWorker::Close => {}
        }
        recs
    }

    fn ensure_task(&mut self, k: K, priority: Priority) -> &mut Task {
        self.tasks.entry(k).or_insert_with(|| Task::new(priority))
    }

    fn update_who_has(&mut self, list: &[Holders]) {
        for holders in list {
            if let Some(task) = self.tasks.get_mut(&holders.key) {
                let others = holders.who_has.iter().filter(|a| **a != self.address);
                task.who_has = others.cloned().collect();
            }
        }
    }

    fn on_compute(&mut self, message: ToWorker) -> Recs {
        let ToWorker::Compute {
            key,
            run_id,
            priority,
            spec,
            dependencies,
            resources,
        } = message
        else {
            return Recs::default();
        };
        let order = (priority.0, priority.1, priority.2, self.generation);
        let task = self.ensure_task(key, order);
        task.run_id = run_id;
        match task.state {
            Phase::Ready
            | Phase::Constrained
            | Phase::Executing
            | Phase::LongRunning
            | Phase::Waiting => return Recs::default(),
            Phase::Memory => {
                let nbytes = task.nbytes;
                self.say(FromWorker::Finished {
                    key,
                    run_id,
                    nbytes,
                    seconds: 0.0,
                });
                return Recs::default();
            }
            _ => {}
        }
        task.spec = Some(spec);
        task.priority = order;
        let runs = matches!(task.state, Phase::Cancelled | Phase::Resumed)
            && task.previous.is_some_and(Phase::busy);
        if !runs {
            task.resources = resources;
        }
        self.generation -= 1;
        for holders in &dependencies {
            assert!(
                !holders.who_has.is_empty(),
                "{key} needs {} of nobody",
                holders.key
            );
            let dep = self.ensure_task(holders.key, order);
            if dep.state != Phase::Memory {
                dep.nbytes = holders.nbytes;
            }
            dep.dependents.insert(key);
            self.task_mut(key).dependencies.insert(holders.key);
        }
        self.update_who_has(&dependencies);
        Recs::one(key, Target::Waiting)
    }
}
