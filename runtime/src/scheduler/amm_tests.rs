//! Tests of the active memory manager.

use super::*;
use crate::scheduler::testbed::Bed;

type Decisions = Vec<(WorkerId, String)>;

/// Keys dropped and copied by the messages since the last call, with the workers they went to.
fn decisions(bed: &mut Bed) -> (Decisions, Decisions) {
    let (mut drops, mut copies) = (Vec::new(), Vec::new());
    for (w, msg) in bed.sent() {
        match msg {
            ToWorker::RemoveReplicas { keys, .. } => {
                drops.extend(keys.iter().map(|k| (w, k.to_string())));
            }
            ToWorker::AcquireReplicas { keys, .. } => {
                copies.extend(keys.iter().map(|(k, ..)| (w, k.to_string())));
            }
            _ => {}
        }
    }
    drops.sort();
    copies.sort();
    (drops, copies)
}

fn cluster(n: usize) -> (Bed, Vec<WorkerId>) {
    let mut bed = Bed::new();
    let workers = (0..n).map(|_| bed.worker(1)).collect();
    (bed, workers)
}

#[test]
fn surplus_copies_are_dropped_where_memory_is_scarce() {
    let (mut bed, w) = cluster(3);
    bed.data("x", 100, &w);
    bed.heartbeat(w[1], 1000);
    bed.heartbeat(w[2], 500);
    bed.sent();
    bed.state.amm_run_once();
    let (drops, copies) = decisions(&mut bed);
    assert_eq!(drops, [(w[1], "x".into()), (w[2], "x".into())]);
    assert!(copies.is_empty());
    let x = bed.id("x");
    assert_eq!(bed.state.task(x).who_has.as_slice(), [w[0]]);
    bed.state.amm_run_once();
    assert!(decisions(&mut bed).0.is_empty());
}

#[test]
fn a_copy_stays_for_each_worker_that_will_use_it() {
    let (mut bed, w) = cluster(3);
    bed.data("x", 100, &w);
    bed.graph(&[("a", &["x"]), ("b", &["x"])]);
    assert_ne!(bed.on("a"), bed.on("b"));
    bed.sent();
    bed.state.amm_run_once();
    let (drops, _) = decisions(&mut bed);
    let free = w
        .iter()
        .find(|w| bed.on("a") != Some(**w) && bed.on("b") != Some(**w));
    assert_eq!(drops, [(*free.unwrap(), "x".into())]);
}

#[test]
fn paused_workers_drop_first() {
    let (mut bed, w) = cluster(2);
    bed.data("x", 100, &w);
    bed.heartbeat(w[1], 1000);
    bed.state
        .set_worker_status(w[0], crate::scheduler::worker::Status::Paused);
    bed.sent();
    bed.state.amm_run_once();
    assert_eq!(decisions(&mut bed).0, [(w[0], "x".into())]);
}

#[test]
fn a_worker_that_refuses_keeps_its_copy() {
    let (mut bed, w) = cluster(2);
    let x = bed.data("x", 100, &w);
    bed.state.amm_run_once();
    let lost = if bed.state.task(x).who_has[0] == w[0] {
        w[1]
    } else {
        w[0]
    };
    bed.state.handle_add_keys(lost, &[Key::new_str("x")]);
    assert_eq!(bed.state.task(x).who_has.len(), 2);
}

#[test]
fn it_runs_by_itself_only_while_started_and_needed() {
    let (mut bed, w) = cluster(2);
    assert!(bed.state.amm_running() && !bed.state.amm_has_work());
    bed.data("x", 100, &w);
    bed.state.start_timers();
    bed.state.amm_stop();
    bed.state.run_timers();
    bed.advance(3.0);
    bed.sent();
    bed.state.run_timers();
    assert!(decisions(&mut bed).0.is_empty());
    bed.state.amm_start();
    bed.state.run_timers();
    bed.advance(2.0);
    bed.state.run_timers();
    assert_eq!(decisions(&mut bed).0.len(), 1);
}
