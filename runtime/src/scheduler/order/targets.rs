//! Which result to aim for next: one that needs little more data.

use std::collections::BTreeSet;

use super::edges::Rows;
use super::normalise::Graph;
use super::rank::Weights;
use rustc_hash::FxHashMap;

const NONE: u32 = u32::MAX;

/// Leaves that hang on the same roots, and so are equally far away at any time.
struct Group {
    /// How many of their roots are not placed yet.
    degree: u32,
    /// The lightest of the leaves, as an index into [`Targets::leaves`].
    lightest: u32,
    /// The lightest that has a placed dependency, or [`NONE`].
    lightest_reached: u32,
}

/// The graph's leaves (results nobody in the graph uses) by how many roots they still need.
pub struct Targets {
    /// All leaves, from light to heavy.
    leaves: Vec<u32>,
    /// The leaves that no choice has passed yet, as a range of `leaves`.
    unpassed: std::ops::Range<usize>,
    /// Whether to prefer heavy leaves when nothing else speaks for one.
    heavy_first: bool,
    /// Group and index in `leaves` of each leaf that is no root.
    place_of: FxHashMap<u32, (u32, u32)>,
    groups: Vec<Group>,
    /// The groups that hang on each root.
    groups_of_root: Rows,
    /// (degree, lightest, group) of each group with a degree.
    open: BTreeSet<(u32, u32, u32)>,
    /// (degree, lightest_reached, group) of those where a leaf is reached.
    reached: BTreeSet<(u32, u32, u32)>,
}

impl Targets {
    /// Indexes the leaves of a graph of which nothing is placed.
    pub fn new(graph: &Graph, weights: &Weights) -> Targets {
        let mut leaves: Vec<u32> = graph
            .nodes()
            .filter(|&node| graph.dependents(node).is_empty())
            .collect();
        leaves.sort_unstable_by_key(|&leaf| weights.rank[leaf as usize]);

        let mut group_of_set = FxHashMap::default();
        let mut place_of = FxHashMap::default();
        let mut groups: Vec<Group> = Vec::new();
        let mut n_members: Vec<u32> = Vec::new();
        let mut sets = Vec::new();
        for (i, &leaf) in leaves.iter().enumerate() {
            if graph.dependencies(leaf).is_empty() {
                continue;
            }
            let set = weights.set_of[leaf as usize];
            let group = *group_of_set.entry(set).or_insert_with(|| {
                let degree = weights.root_sets.content_len(set);
                groups.push(Group {
                    degree,
                    lightest: i as u32,
                    lightest_reached: NONE,
                });
                n_members.push(0);
                sets.push(set);
                groups.len() as u32 - 1
            });
            n_members[group as usize] += 1;
            place_of.insert(leaf, (group, i as u32));
        }

        let mut pairs = Vec::new();
        for (group, &set) in sets.iter().enumerate() {
            weights
                .root_sets
                .each(set, |root| pairs.push((root, group as u32)));
        }
        let groups_of_root = Rows::group(weights.roots.len(), || pairs.iter().copied());
        let open = groups
            .iter()
            .enumerate()
            .map(|(i, group)| (group.degree, group.lightest, i as u32))
            .collect();
        let heavy_first = heavy_first(&leaves, &groups_of_root, &n_members);
        let unpassed = 0..leaves.len();
        Targets {
            leaves,
            unpassed,
            heavy_first,
            place_of,
            groups,
            groups_of_root,
            open,
            reached: BTreeSet::new(),
        }
    }

    /// A root has been placed: the leaves that hang on it come closer. A group without a degree is no target any more:
    /// its leaves are free, or become so on the way.
    pub fn root_placed(&mut self, root: u32) {
        for &at in self.groups_of_root.row(root) {
            let group = &mut self.groups[at as usize];
            if group.degree == 0 {
                continue;
            }
            self.open.remove(&(group.degree, group.lightest, at));
            if group.lightest_reached != NONE {
                self.reached
                    .remove(&(group.degree, group.lightest_reached, at));
            }
            group.degree -= 1;
            if group.degree > 0 {
                self.open.insert((group.degree, group.lightest, at));
                if group.lightest_reached != NONE {
                    self.reached
                        .insert((group.degree, group.lightest_reached, at));
                }
            }
        }
    }

    /// A dependency of this leaf has been placed, the first one.
    pub fn leaf_reached(&mut self, leaf: u32) {
        let Some(&(at, index)) = self.place_of.get(&leaf) else {
            return;
        };
        let group = &mut self.groups[at as usize];
        if group.degree > 0 && index < group.lightest_reached {
            self.reached
                .remove(&(group.degree, group.lightest_reached, at));
            self.reached.insert((group.degree, index, at));
            group.lightest_reached = index;
        }
    }

    /// The next leaf to aim for, or none if all are placed. `anything_reached`: whether some node that is not placed
    /// has a placed dependency.
    pub fn next(&mut self, anything_reached: bool, placed: &[bool]) -> Option<u32> {
        if anything_reached && let Some(&(degree, lightest, _)) = self.open.first() {
            let reached = self
                .reached
                .first()
                .filter(|&&(reached_degree, ..)| reached_degree == degree);
            let index = reached.map_or(lightest, |&(_, lightest_reached, _)| lightest_reached);
            return Some(self.leaves[index as usize]);
        }
        loop {
            let index = if self.heavy_first {
                self.unpassed.next_back()
            } else {
                self.unpassed.next()
            }?;
            let leaf = self.leaves[index];
            if !placed[leaf as usize] {
                return Some(leaf);
            }
        }
    }
}

/// Whether to begin with the heaviest result. Graphs that mainly gather or mainly spread are best taken along their
/// longest path; of those that keep their width, the uneven ones are best taken along the quickest.
fn heavy_first(leaves: &[u32], groups_of_root: &Rows, n_members: &[u32]) -> bool {
    let n_roots = groups_of_root.len();
    if leaves.len().abs_diff(n_roots) * 10 >= n_roots * 8 {
        return true;
    }
    let n_leaves_of = |root: u32| {
        groups_of_root
            .row(root)
            .iter()
            .map(|&group| n_members[group as usize])
            .sum::<u32>()
    };
    let mut counts = (0..n_roots as u32)
        .map(n_leaves_of)
        .skip_while(|&count| count == 0);
    let first = counts.next();
    counts.all(|count| Some(count) == first)
}
