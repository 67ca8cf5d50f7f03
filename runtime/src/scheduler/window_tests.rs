//! Tests of the window of root tasks.

use super::*;
use crate::scheduler::config::CoreConfig;
use crate::scheduler::out::ToWorker;
use crate::scheduler::testbed::Bed;

const GB: u64 = 1 << 30;

/// Workers and a queue of `n` tasks, of which one took `seconds` and made `nbytes`.
fn cluster(
    workers: usize,
    nthreads: u32,
    n: usize,
    seconds: f64,
    nbytes: i64,
) -> (Bed, Vec<WorkerId>) {
    let mut bed = Bed::new();
    let ids = (0..workers)
        .map(|_| bed.worker_with(nthreads, |i| i.memory_limit = GB))
        .collect();
    bed.map("x", n);
    bed.sent();
    finish_one(&mut bed, seconds, nbytes);
    (bed, ids)
}

/// The worker with the most tasks finishes its first one.
fn finish_one(bed: &mut Bed, seconds: f64, nbytes: i64) -> WorkerId {
    let backlog = |bed: &Bed, w: &WorkerId| bed.state.worker(*w).processing.len();
    let w = bed
        .state
        .live_workers
        .iter()
        .max_by_key(|w| backlog(bed, w))
        .unwrap();
    let id = bed.state.worker(w).processing.as_slice()[0];
    let key = bed.state.task(id).key.to_string();
    bed.finish_with(&key, nbytes, seconds);
    w
}

fn ahead(bed: &Bed, w: WorkerId) -> usize {
    bed.state.worker(w).processing.len()
}

/// The set of workers with free slots is what it should be.
fn check(bed: &mut Bed) {
    let state = &mut bed.state;
    for w in state.live_workers.as_slice().to_vec() {
        assert_eq!(state.idle_task_count.contains(w), state.has_free_slot(w));
        assert!(state.worker(w).processing.len() <= 128);
    }
}

#[test]
fn short_small_tasks_go_ahead_in_lots() {
    let (mut bed, ids) = cluster(2, 1, 2000, 0.001, 8);
    assert_eq!(bed.state.window.marks, 16);
    assert_eq!([ahead(&bed, ids[0]), ahead(&bed, ids[1])], [16, 16]);
    check(&mut bed);
    bed.sent();
    // Nothing is sent until half of a lot is done, then a whole lot at once.
    let mut lots = Vec::new();
    for _ in 0..64 {
        bed.advance(0.001);
        finish_one(&mut bed, 0.001, 8);
        check(&mut bed);
        let n = bed
            .sent()
            .iter()
            .filter(|(_, m)| matches!(m, ToWorker::ComputeTask { .. }))
            .count();
        if n > 0 {
            lots.push(n);
        }
    }
    assert!(lots.iter().all(|n| *n == 9), "{lots:?}");
    assert!((6..=7).contains(&lots.len()), "{lots:?}");
}

#[test]
fn neighbours_go_to_one_worker() {
    let (bed, ids) = cluster(2, 1, 2000, 0.001, 8);
    let on: Vec<_> = (4..18).map(|i| bed.on(&format!("x-{i}"))).collect();
    assert!(on.iter().all(|w| *w == on[0]), "{on:?} {ids:?}");
}

#[test]
fn unknown_long_or_large_tasks_do_not() {
    for (seconds, nbytes) in [(0.02, 8), (0.001, 100_000_000)] {
        let (mut bed, ids) = cluster(2, 1, 2000, seconds, nbytes);
        assert_eq!([ahead(&bed, ids[0]), ahead(&bed, ids[1])], [2, 2]);
        check(&mut bed);
    }
    let mut bed = Bed::new();
    let w = bed.worker(4);
    bed.map("x", 2000);
    assert_eq!(ahead(&bed, w), 5);
}

#[test]
fn it_can_be_turned_off() {
    let mut bed = Bed::with(CoreConfig {
        adaptive_window: false,
        ..CoreConfig::default()
    });
    let w = bed.worker(1);
    bed.map("x", 2000);
    finish_one(&mut bed, 0.001, 8);
    assert_eq!(ahead(&bed, w), 2);
}

#[test]
fn longer_tasks_end_it_at_once() {
    let (mut bed, ids) = cluster(1, 1, 2000, 0.001, 8);
    assert_eq!(ahead(&bed, ids[0]), 16);
    for _ in 0..30 {
        finish_one(&mut bed, 0.5, 8);
        check(&mut bed);
    }
    assert_eq!(ahead(&bed, ids[0]), 2);
    bed.advance(0.1);
    finish_one(&mut bed, 0.5, 8);
    assert_eq!(bed.state.window.marks, 0);
}

#[test]
fn other_tasks_at_the_head_go_as_usual() {
    let (mut bed, ids) = cluster(1, 1, 100, 0.001, 8);
    bed.map("y", 100);
    for _ in 0..300 {
        if bed.state.queued_len == 0 {
            break;
        }
        bed.advance(0.01);
        finish_one(&mut bed, 0.001, 8);
        check(&mut bed);
        let y = |id: &TaskId| bed.state.task(*id).key.to_string().starts_with('y');
        let n = bed
            .state
            .worker(ids[0])
            .processing
            .as_slice()
            .iter()
            .filter(|t| y(t))
            .count();
        let known = bed
            .state
            .prefixes
            .iter()
            .any(|p| &*p.name == "y" && p.duration_average >= 0.0);
        assert!(known || n <= 2, "unknown tasks are not sent ahead: {n}");
    }
    assert_eq!(bed.state.queued_len, 0);
}

#[test]
fn the_end_of_the_queue_spreads_over_all_workers() {
    let (mut bed, ids) = cluster(4, 1, 200, 0.0001, 8);
    while bed.state.queued_len > 0 {
        bed.advance(0.01);
        finish_one(&mut bed, 0.0001, 8);
        check(&mut bed);
    }
    let left: Vec<usize> = ids.iter().map(|w| ahead(&bed, *w)).collect();
    assert!(left.iter().all(|n| (1..=12).contains(n)), "{left:?}");
}

#[test]
fn everything_runs_with_workers_coming_and_going() {
    let (mut bed, ids) = cluster(3, 2, 1000, 0.0005, 8);
    for i in 0..2000 {
        if bed
            .state
            .all_workers()
            .all(|(_, w)| w.processing.is_empty())
        {
            break;
        }
        bed.advance(0.001);
        finish_one(&mut bed, 0.0005, 8);
        match i {
            100 => {
                bed.state.remove_worker(ids[0], true, false);
            }
            200 => {
                bed.worker(1);
            }
            _ => {}
        }
        check(&mut bed);
    }
    let unfinished = bed
        .state
        .all_tasks()
        .filter(|(_, t)| t.state != TaskStateName::Memory)
        .count();
    assert_eq!((unfinished, bed.state.queued_len), (0, 0));
}

/// Prints the time that the state takes per task; run it optimised, with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn time_per_task() {
    for (workers, nthreads) in [(2, 1), (100, 2), (1000, 4)] {
        for adaptive_window in [false, true] {
            let mut bed = Bed::with(CoreConfig {
                adaptive_window,
                ..CoreConfig::default()
            });
            let ids: Vec<WorkerId> = (0..workers).map(|_| bed.worker(nthreads)).collect();
            let start = std::time::Instant::now();
            bed.map("x", 100_000);
            let submitted = start.elapsed();
            let mut n = 0;
            let start = std::time::Instant::now();
            while n < 100_000 {
                bed.advance(0.001);
                for w in &ids {
                    // What a worker reports at once.
                    for _ in 0..8 {
                        let Some(id) = bed.state.worker(*w).processing.iter().next() else {
                            break;
                        };
                        let key = bed.state.task(id).key.clone();
                        bed.finish_key(&key, 8, 0.001);
                        n += 1;
                    }
                }
                bed.state.run_timers();
                bed.state.out.clear();
            }
            let each = start.elapsed() / n;
            println!(
                "{workers} x {nthreads}, window {adaptive_window}: submit {submitted:?}, {each:?} a task"
            );
        }
    }
}
