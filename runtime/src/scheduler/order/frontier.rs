//! What has been placed, and what that made free.

use rustc_hash::FxHashMap;

use super::normalise::Graph;
use super::rank::Weights;
use super::targets::Targets;

/// No step: the beginning of a chain.
pub const START: u32 = u32::MAX;

/// One task of a chain of free tasks. Chains share their beginnings, so that branching one is cheap.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The task.
    pub task: u32,
    /// The step before it, whose task is the only thing this one needs (unless it is the chain's end), or [`START`].
    pub before: u32,
}

/// Free tasks that lead up to one which needs more than them.
#[derive(Debug, Clone)]
pub enum Path {
    /// The chain that ends in this step.
    Chain(u32),
    /// Several chains, one after the other.
    Joined(Vec<u32>),
}

/// The state of a walk over a graph.
pub struct Frontier<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// What is known of its nodes.
    pub weights: &'a Weights,
    /// The placed tasks, in order.
    pub sequence: Vec<u32>,
    /// Whether each node is placed.
    pub placed: Vec<bool>,
    /// How many dependencies of each node are not placed.
    pub needed: Vec<u32>,
    /// Tasks that became free, but were not worth placing at once.
    pub runnable: Vec<u32>,
    /// Nodes on a path that is remembered or being looked at.
    pub on_path: Vec<bool>,
    /// By the task in which they end: free paths that wait for others to join them.
    pub paths: FxHashMap<u32, Vec<Path>>,
    /// The steps of all chains.
    pub steps: Vec<Step>,
    targets: Targets,
    /// Nodes with a placed dependency.
    reached: Vec<bool>,
    n_reached: usize,
    stack: Vec<u32>,
}

impl<'a> Frontier<'a> {
    /// Nothing placed yet.
    pub fn new(graph: &'a Graph, weights: &'a Weights) -> Frontier<'a> {
        let total = graph.kept.len();
        Frontier {
            graph,
            weights,
            sequence: Vec::with_capacity(total),
            placed: vec![false; total],
            needed: (0..total as u32)
                .map(|node| graph.dependencies(node).len() as u32)
                .collect(),
            runnable: Vec::new(),
            on_path: vec![false; total],
            paths: FxHashMap::default(),
            steps: Vec::new(),
            targets: Targets::new(graph, weights),
            reached: vec![false; total],
            n_reached: 0,
            stack: Vec::new(),
        }
    }

    /// The next result to aim for.
    pub fn next_target(&mut self) -> Option<u32> {
        self.targets.next(self.n_reached > 0, &self.placed)
    }

    /// Sorts from light to heavy.
    pub fn sort_by_rank(&self, nodes: &mut [u32]) {
        nodes.sort_unstable_by_key(|&node| self.weights.rank[node as usize]);
    }

    /// Places a task, unless it is placed or not free; and then, as long as a task is the only user of the one before
    /// and becomes free by it, that one too: it replaces what it uses.
    pub fn place(&mut self, task: u32) {
        if self.needed[task as usize] > 0 {
            return;
        }
        self.stack.push(task);
        while let Some(task) = self.stack.pop() {
            if !std::mem::replace(&mut self.placed[task as usize], true) {
                self.sequence.push(task);
                self.settle(task);
            }
        }
    }

    /// The consequences of having placed a task.
    fn settle(&mut self, task: u32) {
        if self.reached[task as usize] {
            self.n_reached -= 1;
        }
        let graph = self.graph;
        if graph.dependencies(task).is_empty() {
            self.targets.root_placed(self.weights.root_index(task));
        }
        let users = graph.dependents(task);
        for &user in users {
            let at = user as usize;
            self.needed[at] -= 1;
            if !std::mem::replace(&mut self.reached[at], true) {
                self.n_reached += 1;
                self.targets.leaf_reached(user);
            }
            if self.needed[at] == 0 {
                if users.len() == 1 {
                    self.stack.push(user)
                } else {
                    self.runnable.push(user)
                }
            }
        }
    }

    /// Adds a step to a chain.
    pub fn step(&mut self, task: u32, before: u32) -> u32 {
        self.steps.push(Step { task, before });
        self.steps.len() as u32 - 1
    }

    /// The tasks of a path, last one first, without what is placed.
    pub fn tasks_backwards<'p>(&'p self, path: &'p Path) -> impl Iterator<Item = u32> + 'p {
        let (mut at, joined) = match path {
            Path::Chain(end) => (*end, &[][..]),
            Path::Joined(joined) => (START, joined.as_slice()),
        };
        let chain = std::iter::from_fn(move || {
            let step = self.steps.get(at as usize)?;
            at = step.before;
            Some(step.task)
        });
        // Whatever comes before a placed task of a chain is placed as well.
        let chain = chain.take_while(|&task| !self.placed[task as usize]);
        chain.chain(
            joined
                .iter()
                .rev()
                .copied()
                .filter(|&task| !self.placed[task as usize]),
        )
    }
}
