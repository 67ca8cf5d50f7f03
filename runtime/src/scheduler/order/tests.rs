#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::{CycleError, DATA_NODE, order};

/// A graph under construction: the dependencies of each task.
#[derive(Debug, Clone, Default)]
struct Rows(Vec<Vec<u32>>);

impl Rows {
    fn add(&mut self, deps: &[u32]) -> u32 {
        self.0.push(deps.to_vec());
        self.0.len() as u32 - 1
    }

    fn order_with(&self, flags: &[u8], n_external: usize) -> Result<Vec<u32>, CycleError> {
        let mut offsets = vec![0];
        let mut deps = Vec::new();
        for row in &self.0 {
            deps.extend(row);
            offsets.push(deps.len() as u32);
        }
        order(self.0.len(), &offsets, &deps, flags, n_external, &|i| {
            format!("task-{i:06}")
        })
    }

    fn order(&self) -> Vec<u32> {
        self.order_with(&[], 0).expect("no cycle")
    }
}

fn assert_valid(rows: &Rows, priority: &[u32]) {
    let mut seen = vec![false; rows.0.len()];
    for &position in priority {
        assert!(
            !std::mem::replace(&mut seen[position as usize], true),
            "two tasks at {position}"
        );
    }
    for (task, deps) in rows.0.iter().enumerate() {
        for &dep in deps.iter().filter(|&&dep| (dep as usize) < rows.0.len()) {
            assert!(
                priority[dep as usize] < priority[task],
                "{task} before its dependency {dep}"
            );
        }
    }
}

#[test]
fn independent_tasks_keep_their_order() {
    let rows = Rows(vec![vec![]; 5]);
    assert_eq!(rows.order(), [0, 1, 2, 3, 4]);
    assert_eq!(Rows::default().order(), Vec::<u32>::new());
}

#[test]
fn finishes_a_chain_before_the_next() {
    let mut rows = Rows::default();
    let loads: Vec<u32> = (0..4).map(|_| rows.add(&[])).collect();
    let sums: Vec<u32> = loads.iter().map(|&load| rows.add(&[load])).collect();
    rows.add(&sums);
    let priority = rows.order();
    assert_valid(&rows, &priority);
    for (load, sum) in loads.iter().zip(&sums) {
        assert_eq!(priority[*load as usize] + 1, priority[*sum as usize]);
    }
}

#[test]
fn shared_data_comes_right_before_its_first_user() {
    let mut rows = Rows::default();
    let data = rows.add(&[]);
    let loads: Vec<u32> = (0..3).map(|_| rows.add(&[])).collect();
    let users: Vec<u32> = loads.iter().map(|&load| rows.add(&[load, data])).collect();
    let mut flags = vec![0; rows.0.len()];
    flags[data as usize] = DATA_NODE;
    let priority = rows.order_with(&flags, 0).unwrap();
    assert_valid(&rows, &priority);
    let first = users
        .iter()
        .map(|&user| priority[user as usize])
        .min()
        .unwrap();
    assert_eq!(priority[data as usize] + 1, first);
}

#[test]
fn external_tasks_need_no_place() {
    let rows = Rows(vec![vec![3], vec![3, 4], vec![0, 1]]);
    let priority = rows.order_with(&[], 2).unwrap();
    assert_valid(&rows, &priority);
}

#[test]
fn a_cycle_is_an_error_that_names_it() {
    let rows = Rows(vec![vec![], vec![0, 3], vec![1], vec![2], vec![3]]);
    let error = rows.order_with(&[], 0).unwrap_err();
    let mut tasks = error.tasks;
    tasks.sort_unstable();
    assert_eq!(tasks, [1, 2, 3]);
}

/// A long chain with an output at every link: all paths share their beginnings, which must not make it quadratic.
#[test]
fn long_chains_with_outputs_stay_linear() {
    let mut rows = Rows::default();
    let mut state = rows.add(&[]);
    let mut outputs = Vec::new();
    for _ in 0..50_000 {
        outputs.push(rows.add(&[state]));
        state = rows.add(&[state]);
    }
    rows.add(&outputs);
    assert_valid(&rows, &rows.order());
}

/// Every task needs a new root and the task before: n different sets of up to n roots, which must not be held.
#[test]
fn running_sums_stay_linear() {
    let mut rows = Rows::default();
    let mut sum = rows.add(&[]);
    for _ in 0..50_000 {
        let load = rows.add(&[]);
        sum = rows.add(&[sum, load]);
    }
    assert_valid(&rows, &rows.order());
}

/// Diamonds on diamonds: the number of ways to the root doubles with each.
#[test]
fn stacked_diamonds_do_not_overflow() {
    let mut rows = Rows::default();
    let mut top = rows.add(&[]);
    for _ in 0..3_000 {
        let sides = [rows.add(&[top]), rows.add(&[top])];
        top = rows.add(&sides);
    }
    assert_valid(&rows, &rows.order());
}

/// Random graphs: each task needs some of those up to `reach` before it, or external ones.
fn graphs() -> impl Strategy<Value = (Rows, Vec<u8>, usize)> {
    let task = (
        prop::collection::vec(1u32..12, 0..4),
        0u8..8,
        prop::option::weighted(0.1, 0u32..3),
    );
    prop::collection::vec(task, 1..120).prop_map(|tasks| {
        let n = tasks.len() as u32;
        let mut rows = Rows::default();
        let mut flags = Vec::new();
        for (i, (backs, kind, external)) in tasks.into_iter().enumerate() {
            let mut deps: Vec<u32> = backs
                .into_iter()
                .filter_map(|back| (i as u32).checked_sub(back))
                .collect();
            deps.extend(external.map(|external| n + external));
            deps.sort_unstable();
            deps.dedup();
            flags.push(if kind == 0 { DATA_NODE } else { kind & 1 });
            if kind == 0 {
                deps.clear();
            }
            rows.add(&deps);
        }
        (rows, flags, 3)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_graph_gets_a_valid_order((rows, flags, n_external) in graphs()) {
        let priority = rows.order_with(&flags, n_external).unwrap();
        assert_valid(&rows, &priority);
    }

    #[test]
    fn any_input_ends(edges in prop::collection::vec((0u32..30, 0u32..33), 0..80)) {
        let mut rows = Rows(vec![vec![]; 30]);
        for (task, dep) in edges {
            if !rows.0[task as usize].contains(&dep) {
                rows.0[task as usize].push(dep);
            }
        }
        if let Ok(priority) = rows.order_with(&[], 3) {
            assert_valid(&rows, &priority);
        }
    }
}
