//! Tests of work stealing.

use super::config::CoreConfig;
use super::ids::WorkerId;
use super::out::ToWorker;
use super::task::TaskStateName;
use super::testbed::Bed;
use super::worker::Status;

fn no_queue() -> Bed {
    Bed::with(CoreConfig {
        worker_saturation: f64::INFINITY,
        ..CoreConfig::default()
    })
}

/// Ten tasks on the first worker, then a second worker.
fn imbalanced() -> (Bed, WorkerId, WorkerId) {
    let mut bed = no_queue();
    let a = bed.worker(1);
    bed.map("x", 10);
    let b = bed.worker(1);
    bed.sent();
    (bed, a, b)
}

fn requests(bed: &mut Bed) -> Vec<(WorkerId, String, String)> {
    bed.sent()
        .into_iter()
        .filter_map(|(w, msg)| match msg {
            ToWorker::StealRequest { key, request } => {
                Some((w, key.to_string(), format!("steal-{request}")))
            }
            _ => None,
        })
        .collect()
}

fn answer(bed: &mut Bed, w: WorkerId, key: &str, state: Option<&str>, stimulus: &str) {
    let key = crate::protocol::Key::new_str(key);
    bed.state
        .handle_steal_response(w, key.as_bytes(), state, stimulus);
}

#[test]
fn an_idle_worker_gets_tasks_of_a_busy_one() {
    let (mut bed, a, b) = imbalanced();
    bed.state.stealing_balance();
    let asked = requests(&mut bed);
    assert!((2..=5).contains(&asked.len()), "{asked:?}");
    assert_eq!(bed.state.stealing.n_in_flight(), asked.len());
    assert_eq!(
        bed.state.stealing.request_count[0] as usize,
        asked.len(),
        "tasks without dependencies are of level 0"
    );
    assert_eq!(bed.state.events.topic("stealing").count(), 1);
    for (w, key, stimulus) in &asked {
        assert_eq!(*w, a);
        answer(&mut bed, a, key, Some("ready"), stimulus);
        assert_eq!(bed.on(key), Some(b));
    }
    let sent = bed.sent();
    assert_eq!(sent.len(), asked.len());
    assert!(
        sent.iter()
            .all(|(w, m)| *w == b && matches!(m, ToWorker::ComputeTask { .. }))
    );
    assert_eq!(bed.state.stealing.n_in_flight(), 0);
    let n = |w| bed.state.worker(w).processing.len();
    assert_eq!((n(a), n(b)), (10 - asked.len(), asked.len()));
    // The result of the thief counts; one of the victim would not.
    bed.finish(&asked[0].1);
    assert_eq!(bed.state_of(&asked[0].1), TaskStateName::Memory);
}

#[test]
fn further_rounds_ask_for_no_task_twice_and_come_to_an_end() {
    let (mut bed, ..) = imbalanced();
    let mut asked = Vec::new();
    for _ in 0..5 {
        bed.state.stealing_balance();
        asked.extend(requests(&mut bed).into_iter().map(|(_, key, _)| key));
    }
    let n = asked.len();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), n);
    assert!(n <= 5, "the thief would become the busier one: {n}");
}

#[test]
fn a_refusal_leaves_the_task_where_it_is() {
    let (mut bed, a, _) = imbalanced();
    bed.state.stealing_balance();
    let (_, key, stimulus) = requests(&mut bed).remove(0);
    answer(&mut bed, a, &key, Some("executing"), &stimulus);
    assert_eq!(bed.on(&key), Some(a));
    assert!(bed.sent().is_empty());
}

#[test]
fn stale_answers_are_ignored() {
    let (mut bed, a, b) = imbalanced();
    bed.state.stealing_balance();
    let (_, key, stimulus) = requests(&mut bed).remove(0);
    answer(&mut bed, a, &key, Some("ready"), "steal-4711");
    answer(&mut bed, b, &key, Some("ready"), &stimulus);
    assert_eq!(bed.on(&key), Some(a));
    bed.finish(&key);
    answer(&mut bed, a, &key, Some("ready"), &stimulus);
    assert_eq!(bed.state_of(&key), TaskStateName::Memory);
    assert_eq!(
        bed.state.events.topic("stealing").count(),
        4,
        "the request, two stale answers, one to a request that is void"
    );
}

#[test]
fn a_thief_that_left_means_another_choice() {
    let (mut bed, a, b) = imbalanced();
    bed.state.stealing_balance();
    let (_, key, stimulus) = requests(&mut bed).remove(0);
    bed.state.remove_worker(b, false, false);
    answer(&mut bed, a, &key, Some("ready"), &stimulus);
    assert_eq!(bed.on(&key), Some(a));
    let sent = bed.sent();
    assert!(
        sent.iter()
            .any(|(w, m)| *w == a && matches!(m, ToWorker::ComputeTask { .. })),
        "sent again: the victim has dropped it"
    );
}

#[test]
fn restricted_tasks_stay_unless_loose() {
    for loose in [false, true] {
        let (mut bed, a, _) = imbalanced();
        let address = bed.address(a);
        for i in 0..10 {
            let id = bed.id(&format!("x-{i}"));
            let rare = bed.state.task_mut(id).rare_mut();
            rare.restrictions.workers.push(address.clone());
            rare.loose_restrictions = loose;
        }
        bed.state.stealing_balance();
        assert_eq!(requests(&mut bed).is_empty(), !loose);
    }
}

#[test]
fn tasks_with_large_inputs_and_short_work_stay() {
    let mut bed = no_queue();
    let a = bed.worker(1);
    bed.data("big", 10_000_000_000, &[a]);
    let names: Vec<String> = (0..10).map(|i| format!("y-{i}")).collect();
    let tasks: Vec<(&str, &[&str])> = names.iter().map(|k| (k.as_str(), &["big"] as _)).collect();
    bed.graph(&tasks);
    bed.worker(1);
    bed.sent();
    bed.state.stealing_balance();
    assert!(requests(&mut bed).is_empty());
}

#[test]
fn tiny_tasks_long_running_ones_and_actors_stay() {
    let mut bed = no_queue();
    let a = bed.worker(1);
    bed.map("split-shuffle", 200);
    bed.map("x", 10);
    bed.map("y", 10);
    bed.worker(1);
    for i in 0..10 {
        let x = bed.id(&format!("x-{i}"));
        bed.state.task_mut(x).actor = true;
        let y = crate::protocol::Key::new_str(&format!("y-{i}"));
        let run_id = bed.state.task(bed.state.task_id(&y).unwrap()).run_id;
        bed.state.handle_long_running(a, y.as_bytes(), run_id, None);
    }
    bed.sent();
    bed.state.stealing_balance();
    assert!(requests(&mut bed).is_empty());
}

#[test]
fn the_thief_that_holds_the_input_is_preferred() {
    let mut bed = no_queue();
    let a = bed.worker(1);
    bed.data("in", 1_000_000_000, &[a]);
    bed.map("z", 1);
    bed.finish_with("z-0", 8, 30.0);
    let names: Vec<String> = (1..9).map(|i| format!("z-{i}")).collect();
    let tasks: Vec<(&str, &[&str])> = names.iter().map(|k| (k.as_str(), &["in"] as _)).collect();
    bed.graph(&tasks);
    let _b = bed.worker(1);
    let c = bed.worker(1);
    let _d = bed.worker(1);
    let id = bed.id("in");
    bed.state.add_replica(id, c);
    bed.sent();
    bed.state.stealing_balance();
    let (_, key, stimulus) = requests(&mut bed).remove(0);
    answer(&mut bed, a, &key, Some("ready"), &stimulus);
    assert_eq!(bed.on(&key), Some(c));
}

#[test]
fn a_paused_worker_gives_up_what_it_has_not_started() {
    let mut bed = no_queue();
    let a = bed.worker(1);
    bed.map("x", 2);
    bed.finish_with("x-0", 8, 0.001);
    bed.graph(&[("x-2", &[]), ("x-3", &[])]);
    let b = bed.worker(1);
    bed.sent();
    bed.state.stealing_balance();
    assert!(requests(&mut bed).is_empty(), "too little work to move any");
    bed.state.set_worker_status(a, Status::Paused);
    bed.state.stealing_balance();
    let asked = requests(&mut bed);
    assert_eq!(asked.len(), 3);
    let (_, key, stimulus) = &asked[0];
    answer(&mut bed, a, key, Some("ready"), stimulus);
    assert_eq!(bed.on(key), Some(b));
}

#[test]
fn resources_move_with_the_task() {
    let (mut bed, a, b) = imbalanced();
    for w in [a, b] {
        bed.state.set_resources(w, &[("GPU".into(), 1.0)]);
    }
    let names: Vec<String> = (0..10).map(|i| format!("x-{i}")).collect();
    for name in &names {
        let id = bed.id(name);
        let rare = bed.state.task_mut(id).rare_mut();
        rare.restrictions.resources.push(("GPU".into(), 1.0));
        bed.state.acquire_resources(id, a);
    }
    bed.state.stealing_balance();
    let asked = requests(&mut bed);
    let (_, key, stimulus) = &asked[0];
    answer(&mut bed, a, key, Some("ready"), stimulus);
    let used = |w| bed.state.worker(w).used_resources[0].1;
    assert_eq!((used(a), used(b)), (9.0, 1.0));
}

#[test]
fn a_large_backlog_takes_bounded_steps() {
    let mut bed = no_queue();
    bed.worker(1);
    bed.map("x", 50_000);
    for _ in 0..40 {
        bed.worker(1);
    }
    bed.sent();
    let start = std::time::Instant::now();
    bed.state.stealing_balance();
    assert!(!requests(&mut bed).is_empty());
    assert!(start.elapsed().as_secs_f64() < 2.0);
}
