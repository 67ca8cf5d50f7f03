//! A total order of the tasks by heaviness, which settles every choice of the walk.

use super::CycleError;
use super::normalise::Graph;
use super::root_sets::{RootSets, SetId};

/// What the walk knows of each node beyond its edges.
pub struct Weights {
    /// Position of a node among all, from light to heavy. Distinct for every node.
    pub rank: Vec<u32>,
    /// Roots of the graph, ascending.
    pub roots: Vec<u32>,
    /// The roots that each node hangs on.
    pub root_sets: RootSets,
    /// The node's entry in `root_sets`; roots have the set of themselves.
    pub set_of: Vec<SetId>,
}

/// The kept nodes, dependencies before dependents.
///
/// # Errors
/// [`CycleError`] naming one cycle.
pub fn topological(graph: &Graph) -> Result<Vec<u32>, CycleError> {
    let mut needed: Vec<u32> = (0..graph.kept.len() as u32)
        .map(|node| graph.dependencies(node).len() as u32)
        .collect();
    let mut sorted: Vec<u32> = graph
        .nodes()
        .filter(|&node| needed[node as usize] == 0)
        .collect();
    let mut done = 0;
    while let Some(&node) = sorted.get(done) {
        done += 1;
        for &user in graph.dependents(node) {
            needed[user as usize] -= 1;
            if needed[user as usize] == 0 {
                sorted.push(user);
            }
        }
    }
    let stuck = graph.nodes().find(|&node| needed[node as usize] > 0);
    match stuck {
        None => Ok(sorted),
        Some(start) => Err(find_cycle(graph, &needed, start)),
    }
}

/// Follows unfinished dependencies until a task comes up twice.
fn find_cycle(graph: &Graph, needed: &[u32], start: u32) -> CycleError {
    let mut seen_at = vec![u32::MAX; needed.len()];
    let mut trail = Vec::new();
    let mut node = start;
    while seen_at[node as usize] == u32::MAX {
        seen_at[node as usize] = trail.len() as u32;
        trail.push(node);
        // A node that still waits has at least one dependency that waits too.
        match graph
            .dependencies(node)
            .iter()
            .find(|&&dep| needed[dep as usize] > 0)
        {
            Some(&dep) => node = dep,
            None => break,
        }
    }
    let mut tasks = trail.split_off((seen_at[node as usize] as usize).min(trail.len()));
    tasks.reverse();
    CycleError { tasks }
}

/// Heaviness without the name: compared field by field, larger is heavier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Heaviness {
    /// 1 + the sum over the dependencies, as the bits of a positive float (they sort like the number): it doubles with
    /// every diamond, so that no integer would hold it.
    ancestors: u64,
    n_dependencies: u32,
    n_roots: u32,
    /// Complement of the most dependents that any connected root has: popular data makes a task lighter.
    less_popular: u32,
}

/// Weighs every node; `names` breaks ties.
pub fn weigh(graph: &Graph, topological: &[u32], names: &dyn Fn(u32) -> String) -> Weights {
    let total = graph.kept.len();
    let roots: Vec<u32> = graph
        .nodes()
        .filter(|&node| graph.dependencies(node).is_empty())
        .collect();
    let mut root_sets = RootSets::new(roots.len(), topological.len());
    let mut set_of = vec![SetId::EMPTY; total];
    for (i, &root) in roots.iter().enumerate() {
        set_of[root as usize] = RootSets::singleton(i as u32);
    }

    let mut ancestors = vec![0f64; total];
    let mut popularity = vec![0u32; total];
    let mut keyed = Vec::with_capacity(topological.len());
    let mut inputs = Vec::new();
    for &node in topological {
        let at = node as usize;
        let deps = graph.dependencies(node);
        ancestors[at] = 1.0 + deps.iter().map(|&dep| ancestors[dep as usize]).sum::<f64>();
        let mut n_roots = 0;
        if deps.is_empty() {
            popularity[at] = graph.dependents(node).len() as u32;
        } else {
            popularity[at] = deps
                .iter()
                .map(|&dep| popularity[dep as usize])
                .max()
                .unwrap_or(0);
            inputs.clear();
            inputs.extend(deps.iter().map(|&dep| set_of[dep as usize]));
            set_of[at] = root_sets.union(&mut inputs);
            n_roots = root_sets.size(set_of[at]);
        }
        let heaviness = Heaviness {
            ancestors: ancestors[at].to_bits(),
            n_dependencies: deps.len() as u32,
            n_roots,
            less_popular: u32::MAX - popularity[at],
        };
        keyed.push((heaviness, node));
    }
    Weights {
        rank: ranks(total, keyed, names),
        roots,
        root_sets,
        set_of,
    }
}

/// Positions after sorting by heaviness, then by name, then by index.
fn ranks(
    total: usize,
    mut keyed: Vec<(Heaviness, u32)>,
    names: &dyn Fn(u32) -> String,
) -> Vec<u32> {
    keyed.sort_unstable();
    let mut rank = vec![0u32; total];
    let mut next = 0;
    for tied in keyed.chunk_by(|a, b| a.0 == b.0) {
        if let [(_, only)] = tied {
            rank[*only as usize] = next;
            next += 1;
            continue;
        }
        let mut named: Vec<(String, u32)> =
            tied.iter().map(|&(_, node)| (names(node), node)).collect();
        named.sort_unstable();
        for (_, node) in named {
            rank[node as usize] = next;
            next += 1;
        }
    }
    rank
}

impl Weights {
    /// Position of a root among the roots.
    pub fn root_index(&self, root: u32) -> u32 {
        self.set_of[root as usize].index()
    }
}
