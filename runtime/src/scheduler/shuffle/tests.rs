//! Shuffles of one to three transfers, a barrier and two outputs, on two workers.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::graph::{Graph, P2P_BARRIER, RunSpec};
use crate::protocol::Value;
use crate::scheduler::{
    Clock, CoreConfig, Out, Status, Submission, TaskFinished, ToWorker, WorkerInfo,
};

fn key(name: &str) -> Key {
    Key::new_str(name)
}

fn worker(state: &mut State, address: &str) -> WorkerId {
    let info = WorkerInfo {
        address: address.into(),
        host: "10.0.0.1".into(),
        name: address.into(),
        server_id: address.into(),
        nthreads: 4,
        memory_limit: 0,
        local_directory: String::new(),
        nanny: None,
        pid: 1,
        services: Value::Nil,
        versions: Value::Nil,
        extra: Value::Nil,
        resources: Vec::new(),
    };
    state.add_worker(info, Status::Running).unwrap()
}

/// One transfer, the barrier and two outputs; optionally a second shuffle into the same outputs.
fn submit(state: &mut State, second: bool) {
    let client = state.add_client("client", Value::Nil);
    let mut names = vec!["transfer-1", "shuffle-barrier-1", "out-1", "out-2"];
    let (mut deps, mut offsets) = (vec![0u32, 1, 1], vec![0u32, 0, 1, 2, 3]);
    if second {
        names.extend(["transfer-2", "shuffle-barrier-2"]);
        (deps, offsets) = (vec![0, 1, 5, 1, 5, 4], vec![0, 0, 1, 3, 5, 5, 6]);
    }
    let graph = Graph {
        keys: names.iter().map(|n| key(n)).collect(),
        dep_offsets: offsets,
        deps,
        specs: names
            .iter()
            .map(|n| RunSpec::Whole(Payload::pickled(n.as_bytes()).into()))
            .collect(),
        flags: names
            .iter()
            .map(|n| {
                if n.contains("barrier") {
                    P2P_BARRIER
                } else {
                    0
                }
            })
            .collect(),
        ..Graph::default()
    };
    let order: Vec<u32> = (0..names.len() as u32).collect();
    let sub = Submission {
        client,
        keys: vec![key("out-1"), key("out-2")],
        internal_priority: None,
        submitting_task: None,
        user_priority: 0.0,
        fifo_timeout: 0.0,
        actors: Default::default(),
        start: 0.0,
    };
    state.update_graph(&sub, graph, &order);
}

const W1: &str = "tcp://10.0.0.1:1";
const W2: &str = "tcp://10.0.0.1:2";

struct World {
    state: State,
    w1: WorkerId,
    w2: WorkerId,
}

fn world(second: bool) -> World {
    let clock = Clock {
        wall: 1000.0,
        mono: 1.0,
    };
    let mut state = State::new(CoreConfig::default(), clock);
    let (w1, w2) = (worker(&mut state, W1), worker(&mut state, W2));
    submit(&mut state, second);
    World { state, w1, w2 }
}

impl World {
    fn start(&mut self, id: &str) -> NewRun {
        let transfer = key(&format!("transfer-{id}"));
        assert_eq!(self.state.shuffle_get(id, W1), Ok(None));
        let new = self.state.shuffle_prepare(id, &transfer).unwrap();
        let both = [W1.to_string(), W2.to_string()];
        let spec = Bytes::from(format!("spec {}", new.run_id));
        let given = self
            .state
            .shuffle_activate(&new, &transfer, W1, spec.clone(), &both);
        assert_eq!(given, Ok(Some(spec)));
        new
    }

    fn finish(&mut self, name: &str) {
        let id = self.state.task_id(&key(name)).unwrap();
        let task = self.state.task(id);
        let (w, run_id) = (task.processing_on.unwrap(), task.run_id);
        let key = task.key.clone();
        let msg = TaskFinished {
            key: key.as_bytes(),
            run_id,
            nbytes: 8,
            type_pickle: Bytes::new(),
            typename: "int",
            metadata: None,
            startstops: &[],
        };
        self.state.handle_task_finished(w, msg, &[]);
    }

    fn state_of(&self, name: &str) -> TaskStateName {
        self.state
            .task(self.state.task_id(&key(name)).unwrap())
            .state
    }

    fn restrictions(&self, name: &str) -> Vec<Arc<str>> {
        let task = self.state.task(self.state.task_id(&key(name)).unwrap());
        task.restrictions()
            .map(|r| r.workers.clone())
            .unwrap_or_default()
    }

    /// Messages "shuffle-fail" sent since the last call: worker and run.
    fn failures(&mut self) -> Vec<(WorkerId, i64)> {
        let mut found = Vec::new();
        for out in self.state.out.drain(..) {
            if let Out::Worker(w, ToWorker::Raw(msg)) = out
                && msg.get("op").and_then(Value::as_str) == Some("shuffle-fail")
            {
                found.push((w, msg.get("run_id").and_then(Value::as_i64).unwrap()));
            }
        }
        found.sort_unstable();
        found
    }
}

#[test]
fn a_run_is_made_once_and_given_to_everyone() {
    let mut world = world(false);
    let new = world.start("1");
    assert_eq!((new.run_id, new.workers), (1, vec![W1.into(), W2.into()]));
    let spec = Bytes::from_static(b"spec 1");
    assert_eq!(world.state.shuffle_get("1", W2), Ok(Some(spec)));
    assert!(world.state.shuffles.participants().contains(W2));
    let output = world.state.task_id(&key("out-1")).unwrap();
    assert!(!world.state.task(output).queueable);
    let tell = world.state.shuffle_barrier("1", 1, true).unwrap();
    let Barrier::Tell(mut workers) = tell else {
        panic!("consistent")
    };
    workers.sort_unstable();
    assert_eq!(workers, [W1.into(), W2.into()]);
}

#[test]
fn requests_that_make_no_sense_fail_as_in_stock() {
    let mut world = world(false);
    let stranger = world.state.shuffle_get("1", "tcp://10.0.0.9:1");
    assert!(matches!(stranger, Err(ShuffleError::Consistency(_))));
    let no_barrier = world.state.shuffle_prepare("9", &key("transfer-1"));
    assert!(
        matches!(no_barrier, Err(ShuffleError::Consistency(t)) if t.contains("shuffle-barrier-9"))
    );
    let waits = world.state.shuffle_prepare("1", &key("out-1"));
    assert!(
        matches!(waits, Err(ShuffleError::Consistency(t)) if t.contains("to be processing, is waiting"))
    );
    assert!(matches!(
        world.state.shuffle_barrier("1", 1, true),
        Err(ShuffleError::Unknown(_))
    ));
    world.start("1");
    assert!(matches!(
        world.state.shuffle_barrier("1", 2, true),
        Err(ShuffleError::Value(_))
    ));
    let stale = world.state.shuffle_restrict_task("1", 0, &key("out-1"), W2);
    assert!(matches!(stale, Err(ShuffleError::Consistency(t)) if t.contains("stale")));
}

#[test]
fn outputs_are_pinned_until_the_shuffle_ends() {
    let mut world = world(false);
    world.start("1");
    world.finish("transfer-1");
    world.finish("shuffle-barrier-1");
    assert_eq!(world.state_of("out-1"), Processing);
    world
        .state
        .shuffle_restrict_task("1", 1, &key("out-1"), W2)
        .unwrap();
    world
        .state
        .shuffle_restrict_task("1", 1, &key("out-1"), W1)
        .unwrap();
    assert_eq!(world.restrictions("out-1"), [W2.into()]);
    world.finish("out-1");
    world.finish("out-2");
    // The barrier's result is no longer needed: it is released, and so is the shuffle.
    assert_eq!(world.failures(), [(world.w1, 1), (world.w2, 1)]);
    assert!(world.restrictions("out-1").is_empty());
    assert!(world.state.shuffles.active.is_empty());
    let client = world.state.client_id("client").unwrap();
    world.state.remove_client(client);
    assert_eq!(world.state.n_known_tasks(), 0);
    assert!(world.state.shuffles.is_idle());
}

#[test]
fn a_lost_worker_starts_the_shuffle_again() {
    let mut world = world(false);
    world.start("1");
    world.finish("transfer-1");
    world.finish("shuffle-barrier-1");
    world
        .state
        .shuffle_restrict_task("1", 1, &key("out-1"), W2)
        .unwrap();
    world.state.remove_worker(world.w2, true, false);
    assert_eq!(world.failures(), [(world.w1, 1)]);
    assert!(world.restrictions("out-1").is_empty());
    assert_eq!(world.state_of("transfer-1"), Processing);
    assert_eq!(world.state_of("shuffle-barrier-1"), TaskStateName::Waiting);
    assert_eq!(world.state.shuffle_get("1", W1), Ok(None));
    let new = world
        .state
        .shuffle_prepare("1", &key("transfer-1"))
        .unwrap();
    assert_eq!((new.run_id, new.workers), (2, vec![W1.into()]));
}

#[test]
fn a_lost_worker_that_held_the_barrier_starts_the_shuffle_again() {
    for second in [false, true] {
        let mut world = world(second);
        world.start("1");
        world.finish("transfer-1");
        let barrier = world.state.task_id(&key("shuffle-barrier-1")).unwrap();
        let on = world.state.task(barrier).processing_on.unwrap();
        world.finish("shuffle-barrier-1");
        world.state.remove_worker(on, true, false);
        assert!(!world.state.shuffle_is_active("1", 1));
        assert_eq!(world.state_of("transfer-1"), Processing);
    }
}

#[test]
fn a_worker_that_leaves_before_the_run_is_active_is_noticed() {
    let mut world = world(false);
    let transfer = key("transfer-1");
    let on = world
        .state
        .task(world.state.task_id(&transfer).unwrap())
        .processing_on
        .unwrap();
    let (stays, leaves) = if on == world.w1 { (W1, W2) } else { (W2, W1) };
    let new = world.state.shuffle_prepare("1", &transfer).unwrap();
    let gone = world.state.worker_id(leaves).unwrap();
    world.state.remove_worker(gone, true, false);
    let both = [W1.to_string(), W2.to_string()];
    let given = world
        .state
        .shuffle_activate(&new, &transfer, stays, Bytes::new(), &both);
    assert_eq!(given, Ok(None));
}

#[test]
fn inconsistent_input_starts_the_shuffle_again() {
    let mut world = world(false);
    world.start("1");
    world.finish("transfer-1");
    assert_eq!(world.state_of("shuffle-barrier-1"), Processing);
    assert_eq!(
        world.state.shuffle_barrier("1", 1, false),
        Ok(Barrier::Restarted)
    );
    assert_eq!(world.failures(), [(world.w1, 1), (world.w2, 1)]);
    assert_eq!(world.state_of("transfer-1"), Processing);
}

#[test]
fn both_sides_of_a_join_know_of_each_other() {
    let mut world = world(true);
    assert!(world.start("1").existing.is_empty());
    assert_eq!(world.start("2").existing, [Bytes::from_static(b"spec 1")]);
}

#[test]
fn a_shuffle_whose_tasks_are_cancelled_ends() {
    let mut world = world(false);
    world.start("1");
    world
        .state
        .cancel_keys("client", &[key("out-1"), key("out-2")], false, "", None);
    assert_eq!(world.failures(), [(world.w1, 1), (world.w2, 1)]);
    assert!(world.state.shuffles.is_idle());
}
