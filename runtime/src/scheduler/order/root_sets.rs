//! Sets of roots, shared between the nodes that hang on the same ones.
//!
//! A graph of n nodes may have n different sets of n roots. Real ones have few, because neighbours share theirs; equal
//! sets are stored once. Beyond a budget of work, linear in the size of the graph, a union is only estimated: it takes
//! the content of its largest part. The sets steer a heuristic, so an estimate is harmless.

use std::hash::{BuildHasher, Hasher};

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};

/// A set in [`RootSets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(u32);

impl SetId {
    /// No roots at all.
    pub const EMPTY: SetId = SetId(u32::MAX);

    /// The root whose singleton this is.
    pub fn index(self) -> u32 {
        self.0
    }
}

/// Elements visited while making unions, per node of the graph, before sets become estimates.
const WORK_PER_NODE: usize = 64;
/// The same for small graphs, which may be as dense as they like.
const WORK_AT_LEAST: usize = 1 << 20;

struct Stored {
    start: u32,
    len: u32,
    /// Number of roots; more than `len` if the content is an estimate.
    size: u32,
}

/// All sets of a graph. Ids below the number of roots are the sets of that one root.
pub struct RootSets {
    n_roots: u32,
    stored: Vec<Stored>,
    elements: Vec<u32>,
    /// Result by the (sorted) ids that were united.
    by_inputs: FxHashMap<Box<[SetId]>, SetId>,
    /// Stored sets by an order-independent hash of their content.
    by_content: HashTable<(u64, SetId)>,
    /// Which union last saw a root.
    stamps: Vec<u32>,
    epoch: u32,
    work_left: usize,
}

impl RootSets {
    /// No sets yet but the singletons of `n_roots` roots, in a graph of `n_nodes`.
    pub fn new(n_roots: usize, n_nodes: usize) -> RootSets {
        RootSets {
            n_roots: n_roots as u32,
            stored: Vec::new(),
            elements: Vec::new(),
            by_inputs: FxHashMap::default(),
            by_content: HashTable::new(),
            stamps: vec![0; n_roots],
            epoch: 0,
            work_left: (WORK_PER_NODE * n_nodes).clamp(WORK_AT_LEAST, u32::MAX as usize),
        }
    }

    /// The set of the `root`-th root alone.
    pub fn singleton(root: u32) -> SetId {
        SetId(root)
    }

    /// Number of roots in the set, or an estimate of it.
    pub fn size(&self, set: SetId) -> u32 {
        self.get(set)
            .map_or(u32::from(set != SetId::EMPTY), |stored| stored.size)
    }

    /// Calls `f` with each root of the set.
    pub fn each(&self, set: SetId, mut f: impl FnMut(u32)) {
        match self.get(set) {
            Some(stored) => self.content(stored).iter().copied().for_each(f),
            None if set == SetId::EMPTY => {}
            None => f(set.0),
        }
    }

    /// Number of elements that [`RootSets::each`] gives.
    pub fn content_len(&self, set: SetId) -> u32 {
        self.get(set)
            .map_or(u32::from(set != SetId::EMPTY), |stored| stored.len)
    }

    /// The union of sets; `inputs` is used as scratch space.
    pub fn union(&mut self, inputs: &mut Vec<SetId>) -> SetId {
        inputs.sort_unstable();
        inputs.dedup();
        match inputs.as_slice() {
            [] => return SetId::EMPTY,
            [only] => return *only,
            _ => {}
        }
        if let Some(&known) = self.by_inputs.get(inputs.as_slice()) {
            return known;
        }
        let result = self.make_union(inputs);
        self.by_inputs.insert(inputs.as_slice().into(), result);
        result
    }

    fn make_union(&mut self, inputs: &[SetId]) -> SetId {
        let largest = inputs
            .iter()
            .copied()
            .max_by_key(|&set| self.content_len(set))
            .unwrap_or(SetId::EMPTY);
        let visits: usize = inputs
            .iter()
            .map(|&set| self.content_len(set) as usize)
            .sum();
        let Some(work_left) = self.work_left.checked_sub(visits) else {
            return self.estimate(inputs, largest);
        };
        self.work_left = work_left;

        self.epoch += 1;
        let start = self.elements.len();
        self.append_unseen(largest);
        let largest_len = self.elements.len() - start;
        for &set in inputs.iter().filter(|&&set| set != largest) {
            self.append_unseen(set);
        }
        if self.elements.len() - start == largest_len {
            self.elements.truncate(start);
            return largest;
        }
        self.intern(start)
    }

    /// Copies the roots of `set` that this union has not seen yet to the end of the elements.
    fn append_unseen(&mut self, set: SetId) {
        let range = match self.get(set) {
            Some(stored) => stored.start as usize..(stored.start + stored.len) as usize,
            None => {
                self.append_root(set.0);
                return;
            }
        };
        for at in range {
            self.append_root(self.elements[at]);
        }
    }

    fn append_root(&mut self, root: u32) {
        if let Some(stamp) = self.stamps.get_mut(root as usize)
            && *stamp != self.epoch
        {
            *stamp = self.epoch;
            self.elements.push(root);
        }
    }

    /// Keeps the elements from `start` as a set of their own, unless an equal one is there.
    fn intern(&mut self, start: usize) -> SetId {
        let hash = self.elements[start..]
            .iter()
            .fold(0u64, |sum, &root| sum.wrapping_add(spread(root)));
        let len = (self.elements.len() - start) as u32;
        // The stamps still mark exactly the members of the new set.
        let equal = |&(other_hash, other): &(u64, SetId)| {
            other_hash == hash
                && self.get(other).is_some_and(|stored| {
                    stored.len == len
                        && self
                            .content(stored)
                            .iter()
                            .all(|&root| self.stamps[root as usize] == self.epoch)
                })
        };
        if let Some(&(_, known)) = self.by_content.find(hash, equal) {
            self.elements.truncate(start);
            return known;
        }
        let id = self.store(start as u32, len, len);
        self.by_content
            .insert_unique(hash, (hash, id), |&(hash, _)| hash);
        id
    }

    fn estimate(&mut self, inputs: &[SetId], largest: SetId) -> SetId {
        let sum: u64 = inputs.iter().map(|&set| u64::from(self.size(set))).sum();
        let size = sum.min(u64::from(self.n_roots)) as u32;
        match self.get(largest).map(|stored| (stored.start, stored.len)) {
            Some((start, len)) => self.store(start, len, size),
            None => largest,
        }
    }

    fn store(&mut self, start: u32, len: u32, size: u32) -> SetId {
        self.stored.push(Stored { start, len, size });
        SetId(self.n_roots + self.stored.len() as u32 - 1)
    }

    fn get(&self, set: SetId) -> Option<&Stored> {
        self.stored.get(set.0.checked_sub(self.n_roots)? as usize)
    }

    fn content(&self, stored: &Stored) -> &[u32] {
        &self.elements[stored.start as usize..(stored.start + stored.len) as usize]
    }
}

/// A well-mixed number for a root, to be summed up.
fn spread(root: u32) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    hasher.write_u64(u64::from(root) ^ 0x9e37_79b9_7f4a_7c15);
    let hash = hasher.finish();
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}
