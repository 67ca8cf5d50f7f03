//! Tests of the periodic jobs.

use super::*;
use crate::scheduler::config::CoreConfig;
use crate::scheduler::testbed::Bed;

fn bed(set: impl FnOnce(&mut CoreConfig)) -> Bed {
    let mut config = CoreConfig::default();
    set(&mut config);
    let mut bed = Bed::with(config);
    bed.state.start_timers();
    bed
}

/// Lets time pass as the event loop does; the number of times it wakes.
fn pass(bed: &mut Bed, seconds: f64) -> usize {
    let end = bed.state.clock.mono + seconds;
    let mut wakes = 0;
    loop {
        let next = bed.state.run_timers();
        if next > end {
            bed.advance(end - bed.state.clock.mono);
            return wakes;
        }
        assert!(next > bed.state.clock.mono, "it must not spin");
        let now = bed.state.clock.mono;
        bed.advance(next - now);
        wakes += 1;
    }
}

#[test]
fn an_idle_scheduler_sleeps() {
    let mut bed = bed(|_| {});
    bed.worker(1);
    bed.map("x", 1);
    bed.finish("x-0");
    pass(&mut bed, 10.0);
    assert!(bed.state.idle_since.is_some());
    assert!(
        pass(&mut bed, 1000.0) <= 4,
        "only silent workers are looked for"
    );
}

#[test]
fn a_busy_scheduler_wakes_at_most_some_times_a_second() {
    let mut bed = bed(|_| {});
    bed.worker(1);
    bed.worker(1);
    bed.map("x", 10);
    assert!(pass(&mut bed, 10.0) <= 60);
}

#[test]
fn idle_time_ends_the_scheduler() {
    let mut bed = bed(|c| c.idle_timeout = Some(5.0));
    bed.worker(1);
    bed.map("x", 1);
    pass(&mut bed, 20.0);
    assert_eq!(bed.state.take_shutdown_request(), None);
    assert_eq!(bed.state.check_idle(), None);
    bed.finish("x-0");
    pass(&mut bed, 4.9);
    assert_eq!(bed.state.take_shutdown_request(), None);
    pass(&mut bed, 1.0);
    let reason = bed.state.take_shutdown_request();
    assert_eq!(reason.as_deref(), Some("idle-timeout-exceeded"));
}

#[test]
fn graphs_being_made_are_work() {
    let mut bed = bed(|c| c.idle_timeout = Some(5.0));
    bed.state.active_graph_updates = 1;
    pass(&mut bed, 20.0);
    assert_eq!(bed.state.take_shutdown_request(), None);
}

fn failure(bed: &Bed, key: &str) -> String {
    let task = bed.state.task(bed.id(key));
    assert_eq!(task.state, TaskStateName::Erred);
    let failure = task.rare.as_ref().unwrap().failure.as_ref().unwrap();
    failure.exception_text.clone()
}

#[test]
fn queued_tasks_fail_without_workers() {
    let mut bed = bed(|c| c.no_workers_timeout = Some(3.0));
    pass(&mut bed, 100.0);
    bed.map("x", 3);
    pass(&mut bed, 2.5);
    assert_eq!(bed.state_of("x-0"), TaskStateName::Queued);
    pass(&mut bed, 1.0);
    assert_eq!(failure(&bed, "x-1"), "NoWorkerError('x-1', 3)");
    let events = bed.actions("scheduler", "no-workers-timeout-exceeded");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].get("keys").unwrap().as_array().unwrap().len(), 3);
}

#[test]
fn tasks_fail_that_no_worker_may_run() {
    let mut bed = bed(|c| c.no_workers_timeout = Some(3.0));
    let w = bed.worker(1);
    bed.graph(&[("x", &[]), ("y", &["x"])]);
    let y = bed.id("y");
    let rare = bed.state.task_mut(y).rare_mut();
    rare.restrictions.resources.push(("GPU".into(), 1.0));
    bed.finish("x");
    assert_eq!(bed.state_of("y"), TaskStateName::NoWorker);
    pass(&mut bed, 2.5);
    assert_eq!(bed.state_of("y"), TaskStateName::NoWorker);
    pass(&mut bed, 1.0);
    assert_eq!(failure(&bed, "y"), "NoValidWorkerError('y', 3)");

    // Without any worker the error says so.
    bed.graph(&[("z", &["x"])]);
    bed.state.remove_worker(w, true, false);
    pass(&mut bed, 4.0);
    assert_eq!(failure(&bed, "x"), "NoWorkerError('x', 3)");
}

#[test]
fn silent_workers_are_reported() {
    let mut bed = bed(|c| c.worker_ttl = Some(60.0));
    let a = bed.worker(1);
    let b = bed.worker(1);
    for _ in 0..10 {
        pass(&mut bed, 10.0);
        bed.heartbeat(a, 0);
    }
    pass(&mut bed, 21.0);
    assert_eq!(bed.state.take_stale_workers(), [b]);
    assert!(bed.state.take_stale_workers().is_empty());
    assert_eq!(bed.actions("scheduler", "worker-ttl-timed-out").len(), 1);
}

#[test]
fn a_clock_set_forward_does_not_look_like_silence() {
    let mut bed = bed(|c| c.worker_ttl = Some(60.0));
    let a = bed.worker(1);
    pass(&mut bed, 30.0);
    bed.state.clock.wall += 3600.0;
    pass(&mut bed, 31.0);
    assert!(bed.state.take_stale_workers().is_empty());
    bed.heartbeat(a, 0);
    pass(&mut bed, 59.0);
    assert!(bed.state.take_stale_workers().is_empty());
}

#[test]
fn events_of_gone_workers_are_dropped() {
    let mut bed = bed(|_| {});
    let w = bed.worker(1);
    let address = bed.address(w);
    bed.state.remove_worker(w, true, false);
    pass(&mut bed, 3000.0);
    assert!(bed.state.events.topic(&address).count() > 0);
    pass(&mut bed, 1000.0);
    assert_eq!(bed.state.events.topic(&address).count(), 0);
}

#[test]
fn stealing_runs_by_itself() {
    let mut bed = bed(|c| c.worker_saturation = f64::INFINITY);
    bed.worker(1);
    bed.map("x", 10);
    bed.worker(1);
    pass(&mut bed, 1.1);
    assert!(bed.state.stealing.n_in_flight() > 0);
}
