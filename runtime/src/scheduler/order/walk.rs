//! The critical path: from a result back to the data it needs, and forwards again.

use super::frontier::Frontier;
use super::normalise::Graph;
use super::rank::Weights;

/// All kept nodes in the order in which they should run.
pub fn walk(graph: &Graph, weights: &Weights) -> Vec<u32> {
    let mut walk = Walk {
        frontier: Frontier::new(graph, weights),
        path: Vec::new(),
        missing: Vec::new(),
    };
    while let Some(target) = walk.frontier.next_target() {
        walk.build_path(target);
        walk.follow_path();
        walk.frontier.explore_runnable();
    }
    walk.frontier.sequence
}

struct Walk<'a> {
    frontier: Frontier<'a>,
    /// Tasks still to be placed, the next one last.
    path: Vec<u32>,
    missing: Vec<u32>,
}

impl Walk<'_> {
    /// From the target back along the heaviest dependency each time; the other ones are to be placed before the one
    /// they are needed for.
    fn build_path(&mut self, target: u32) {
        self.path.push(target);
        self.find_missing(target);
        while let Some(&heaviest) = self
            .missing
            .iter()
            .max_by_key(|&&dep| self.frontier.weights.rank[dep as usize])
        {
            self.path.push(heaviest);
            self.find_missing(heaviest);
            self.path.extend_from_slice(&self.missing);
        }
    }

    /// Collects what `task` needs and is not placed.
    fn find_missing(&mut self, task: u32) {
        self.missing.clear();
        let placed = &self.frontier.placed;
        self.missing.extend(
            self.frontier
                .graph
                .dependencies(task)
                .iter()
                .filter(|&&dep| !placed[dep as usize]),
        );
    }

    fn follow_path(&mut self) {
        let mut walked_back = false;
        while let Some(task) = self.path.pop() {
            if self.frontier.placed[task as usize] {
                continue;
            }
            if self.frontier.needed[task as usize] > 0 {
                self.path.push(task);
                walked_back |= self.push_missing(task);
            } else {
                if walked_back && self.frontier.runnable.len() < self.path.len() {
                    self.frontier.explore_runnable();
                }
                self.frontier.place(task);
            }
        }
    }

    /// Puts what `task` needs on the path; what free paths are known to on top. Whether several ways lead back.
    fn push_missing(&mut self, task: u32) -> bool {
        self.find_missing(task);
        let mut missing = std::mem::take(&mut self.missing);
        self.frontier.sort_by_rank(&mut missing);
        let unknown_from = self.path.len();
        self.path.extend(
            missing
                .iter()
                .filter(|&dep| !self.frontier.paths.contains_key(dep)),
        );
        let n_unknown = self.path.len() - unknown_from;
        for &dep in &missing {
            if let Some(paths) = self.frontier.paths.remove(&dep) {
                let tasks = self.frontier.join(paths.iter().rev());
                self.path.extend(tasks.iter().rev());
            }
        }
        self.missing = missing;
        n_unknown > 1
    }
}
