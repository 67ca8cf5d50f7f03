//! The native ordering against `dask.order` on graphs of real collections: it must not hold more results at a time.
//!
//! The graphs come from `data/export_order_graphs.py`, which tells their format.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use oxidask_runtime::scheduler::order::{DATA_NODE, order};

struct Graph {
    name: String,
    flags: Vec<u8>,
    offsets: Vec<u32>,
    deps: Vec<u32>,
    name_ranks: Vec<u32>,
    stock: Vec<u32>,
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn leb(&mut self) -> u32 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let byte = self.take(1)[0];
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }

    fn graph(&mut self) -> Graph {
        let name_len = self.u32() as usize;
        let name = String::from_utf8(self.take(name_len).to_vec()).unwrap();
        let n = self.u32();
        let flags = self
            .take(n as usize)
            .iter()
            .map(|&is_data| is_data * DATA_NODE)
            .collect();
        let mut offsets = vec![0];
        let mut deps = Vec::new();
        for task in 0..n {
            for _ in 0..self.leb() {
                let zigzag = self.leb();
                let back = (zigzag >> 1) as i32 ^ -((zigzag & 1) as i32);
                deps.push(task.wrapping_sub(back as u32));
            }
            offsets.push(deps.len() as u32);
        }
        let name_ranks = (0..n).map(|_| self.leb()).collect();
        let stock = (0..n).map(|_| self.leb()).collect();
        Graph {
            name,
            flags,
            offsets,
            deps,
            name_ranks,
            stock,
        }
    }
}

impl Graph {
    fn len(&self) -> usize {
        self.stock.len()
    }

    fn deps(&self, task: usize) -> &[u32] {
        &self.deps[self.offsets[task] as usize..self.offsets[task + 1] as usize]
    }

    fn order(&self) -> Vec<u32> {
        let name = |task: u32| format!("{:08}", self.name_ranks[task as usize]);
        order(self.len(), &self.offsets, &self.deps, &self.flags, 0, &name).unwrap()
    }

    /// The most results alive at a time, and the sum over time, when running in this order.
    fn pressure(&self, priority: &[u32]) -> (usize, usize) {
        let mut users = vec![0u32; self.len()];
        self.deps.iter().for_each(|&dep| users[dep as usize] += 1);
        let has_users: Vec<bool> = users.iter().map(|&n| n > 0).collect();
        let mut sequence: Vec<usize> = (0..self.len()).collect();
        sequence.sort_unstable_by_key(|&task| priority[task]);
        let (mut alive, mut peak, mut sum) = (0usize, 0, 0);
        let mut done = vec![false; self.len()];
        for task in sequence {
            assert!(
                self.deps(task).iter().all(|&dep| done[dep as usize]),
                "{}: not a valid order",
                self.name
            );
            done[task] = true;
            alive += usize::from(has_users[task]);
            peak = peak.max(alive);
            for &dep in self.deps(task) {
                users[dep as usize] -= 1;
                alive -= usize::from(users[dep as usize] == 0);
            }
            sum += alive;
        }
        (peak, sum)
    }
}

#[test]
fn holds_no_more_than_stock() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/order_graphs.bin");
    let bytes = std::fs::read(file).unwrap();
    let mut input = Input(&bytes);
    let mut worse = Vec::new();
    for _ in 0..input.u32() {
        let graph = input.graph();
        let ours = graph.order();
        let (peak, sum) = graph.pressure(&ours);
        let (stock_peak, stock_sum) = graph.pressure(&graph.stock);
        let same = ours
            .iter()
            .zip(&graph.stock)
            .filter(|(a, b)| a == b)
            .count();
        println!(
            "{:32} {:6} tasks, {:6} same; peak {peak:5} (stock {stock_peak:5}); mean {:8.1} (stock {:8.1})",
            graph.name,
            graph.len(),
            same,
            sum as f64 / graph.len() as f64,
            stock_sum as f64 / graph.len() as f64,
        );
        if peak as f64 > stock_peak as f64 * 1.1 {
            worse.push(graph.name);
        }
    }
    assert!(
        worse.is_empty(),
        "more results alive than in stock's order: {worse:?}"
    );
}
