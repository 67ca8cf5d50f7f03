//! Tests of retirements.

use super::*;
use crate::protocol::Key;
use crate::scheduler::ids::TaskId;
use crate::scheduler::task::TaskStateName;
use crate::scheduler::testbed::Bed;

fn cluster(n: usize) -> (Bed, Vec<WorkerId>) {
    let mut bed = Bed::new();
    let workers = (0..n).map(|_| bed.worker(1)).collect();
    (bed, workers)
}

fn holders(bed: &Bed, id: TaskId) -> Vec<WorkerId> {
    bed.state.task(id).who_has.to_vec()
}

/// Lets the workers fetch what they were told to; the number of copies made.
fn fetch(bed: &mut Bed) -> usize {
    let mut n = 0;
    for (w, msg) in bed.sent() {
        if let ToWorker::AcquireReplicas { keys, .. } = msg {
            let keys: Vec<Key> = keys.into_iter().map(|(k, ..)| k).collect();
            n += keys.len();
            bed.state.handle_add_keys(w, &keys);
        }
    }
    n
}

fn statuses(bed: &mut Bed) -> Vec<(WorkerId, &'static str)> {
    bed.sent()
        .into_iter()
        .filter_map(|(w, msg)| match msg {
            ToWorker::StatusChange { status, .. } => Some((w, status)),
            _ => None,
        })
        .collect()
}

#[test]
fn data_moves_before_the_worker_goes() {
    let (mut bed, w) = cluster(2);
    let x = bed.data("x", 100, &[w[0]]);
    bed.state.begin_retire(&[w[0]]);
    assert_eq!(bed.state.worker(w[0]).status, Status::ClosingGracefully);
    assert_eq!(
        bed.state.poll_retire(w[0]),
        RetireStep::Pending { again_s: 0.01 }
    );
    assert_eq!(fetch(&mut bed), 1);
    assert_eq!(bed.state.poll_retire(w[0]), RetireStep::Done);
    bed.state.finish_retire(w[0], true, true);
    assert!(!bed.state.is_registered(w[0]));
    assert_eq!(holders(&bed, x), [w[1]]);
    assert_eq!(bed.state_of("x"), TaskStateName::Memory);
    let event = bed.actions("all", "retire-workers").remove(0);
    assert_eq!(event.get("retired").unwrap().as_array().unwrap().len(), 1);
    let address = bed.address(w[0]);
    assert_eq!(bed.actions(&address, "retired").len(), 1);
}

#[test]
fn a_worker_without_data_goes_at_once() {
    let (mut bed, w) = cluster(1);
    bed.state.begin_retire(&w);
    assert_eq!(statuses(&mut bed), [(w[0], "closing_gracefully")]);
    assert_eq!(bed.state.poll_retire(w[0]), RetireStep::Done);
}

#[test]
fn the_last_worker_with_data_stays() {
    let (mut bed, w) = cluster(1);
    bed.data("x", 100, &w);
    bed.state.begin_retire(&w);
    bed.sent();
    let aborted = RetireStep::Aborted {
        reason: "no-recipients",
    };
    assert_eq!(bed.state.poll_retire(w[0]), aborted);
    assert_eq!(statuses(&mut bed), [(w[0], "running")]);
    assert_eq!(bed.state.poll_retire(w[0]), aborted, "whoever else asks");
    assert!(statuses(&mut bed).is_empty());
    let event = bed.actions("all", "retire-workers").remove(0);
    let list = |name| event.get(name).unwrap().as_array().unwrap().len();
    assert_eq!((list("retired"), list("could-not-retire")), (0, 1));
    // The worker says that it runs again; it can be retired later.
    bed.state.set_worker_status(w[0], Status::Running);
    bed.worker(1);
    bed.state.begin_retire(&w);
    assert_eq!(fetch(&mut bed), 1);
    assert_eq!(bed.state.poll_retire(w[0]), RetireStep::Done);
}

#[test]
fn a_copy_on_a_worker_that_leaves_too_does_not_count() {
    let (mut bed, w) = cluster(3);
    let x = bed.data("x", 100, &w[..2]);
    bed.state.begin_retire(&w[..2]);
    let pending = |bed: &mut Bed, w| matches!(bed.state.poll_retire(w), RetireStep::Pending { .. });
    let left = holders(&bed, x);
    assert_eq!(
        left.len(),
        1,
        "one copy goes, the other waits for a new one"
    );
    assert!(pending(&mut bed, left[0]));
    assert_eq!(fetch(&mut bed), 1);
    for worker in &w[..2] {
        assert_eq!(bed.state.poll_retire(*worker), RetireStep::Done);
        bed.state.finish_retire(*worker, true, true);
    }
    assert_eq!(holders(&bed, x), [w[2]]);
    assert_eq!(bed.actions("all", "retire-workers").len(), 1);
}

#[test]
fn actors_keep_their_worker() {
    let (mut bed, w) = cluster(2);
    let x = bed.data("x", 100, &[w[0]]);
    bed.state.task_mut(x).actor = true;
    bed.state.worker_mut(w[0]).actors.insert(x);
    bed.state.begin_retire(&[w[0]]);
    let step = bed.state.poll_retire(w[0]);
    assert!(matches!(step, RetireStep::Aborted { .. }), "{step:?}");
}

#[test]
fn copies_that_fail_are_tried_again() {
    let (mut bed, w) = cluster(2);
    bed.data("x", 100, &[w[0]]);
    bed.state.start_timers();
    bed.state.amm_stop();
    bed.state.begin_retire(&[w[0]]);
    bed.sent();
    bed.state.run_timers();
    bed.advance(2.0);
    bed.state.run_timers();
    assert_eq!(fetch(&mut bed), 1);
    assert_eq!(bed.state.poll_retire(w[0]), RetireStep::Done);
}

#[test]
fn a_worker_that_dies_meanwhile_is_done_with() {
    let (mut bed, w) = cluster(2);
    bed.data("x", 100, &[w[0]]);
    bed.state.begin_retire(&[w[0]]);
    bed.state.remove_worker(w[0], false, false);
    assert_eq!(bed.state.poll_retire(w[0]), RetireStep::Done);
    bed.state.finish_retire(w[0], true, true);
    assert!(!bed.state.amm.retirements.any_active());
}

#[test]
fn closing_without_removing_sends_a_message() {
    let (mut bed, w) = cluster(1);
    bed.state.begin_retire(&w);
    bed.state.finish_retire(w[0], true, false);
    assert!(bed.state.is_registered(w[0]));
    let closed = bed.sent().into_iter().any(|(_, m)| {
        matches!(
            m,
            ToWorker::Close {
                reason: "scheduler-close-worker"
            }
        )
    });
    assert!(closed);
}
