//! Indices into the scheduler's arenas, and small sets of them.

use rustc_hash::FxHashMap;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl From<$name> for u32 {
            fn from(id: $name) -> u32 {
                id.0
            }
        }
        impl From<u32> for $name {
            fn from(id: u32) -> Self {
                Self(id)
            }
        }
    };
}

id!(
    /// A task's slot. Slots are reused once a task is forgotten.
    TaskId
);
id!(
    /// A worker's slot. Never reused: a worker that comes back gets a new one.
    WorkerId
);
id!(
    /// A task group (tasks of one collection operation), see [`crate::protocol::key_split_group`].
    GroupId
);
id!(
    /// A task prefix (all groups of one operation name), see [`crate::protocol::key_split`].
    PrefixId
);
id!(
    /// A client's slot, pseudo-clients such as "fire-and-forget" included.
    ClientId
);

/// From this many members on a set keeps an index for O(1) look-up; below it a scan is faster.
const INDEX_FROM: usize = 24;

/// A set of ids that remembers insertion order until something is removed.
///
/// Most tasks have one or two neighbours and some have a hundred thousand; both cases must be cheap.
#[derive(Clone, Debug)]
pub struct IdSet<T> {
    items: Vec<T>,
    index: Option<Box<FxHashMap<T, u32>>>,
}

impl<T> Default for IdSet<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            index: None,
        }
    }
}

impl<T: Copy + Eq + std::hash::Hash> IdSet<T> {
    /// Number of members.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the set has no member.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The members as a slice.
    pub fn as_slice(&self) -> &[T] {
        &self.items
    }

    /// Iterates over the members.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = T> + ExactSizeIterator + '_ {
        self.items.iter().copied()
    }

    /// Whether `id` is a member.
    pub fn contains(&self, id: T) -> bool {
        self.position(id).is_some()
    }

    fn position(&self, id: T) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(&id).map(|p| *p as usize),
            None => self.items.iter().position(|x| *x == id),
        }
    }

    /// Adds a member; false if it was there.
    pub fn insert(&mut self, id: T) -> bool {
        if self.contains(id) {
            return false;
        }
        let at = self.items.len();
        if self.items.capacity() == 0 {
            self.items.reserve_exact(1);
        }
        self.items.push(id);
        match &mut self.index {
            Some(index) => {
                index.insert(id, at as u32);
            }
            None if at + 1 > INDEX_FROM => {
                let index = self
                    .items
                    .iter()
                    .enumerate()
                    .map(|(i, x)| (*x, i as u32))
                    .collect();
                self.index = Some(Box::new(index));
            }
            None => {}
        }
        true
    }

    /// Removes a member (the last one takes its place); false if it was not there.
    pub fn remove(&mut self, id: T) -> bool {
        let Some(at) = self.position(id) else {
            return false;
        };
        self.items.swap_remove(at);
        if let Some(index) = &mut self.index {
            index.remove(&id);
            if let Some(moved) = self.items.get(at) {
                index.insert(*moved, at as u32);
            }
            if self.items.is_empty() {
                self.index = None;
            }
        }
        if self.items.is_empty() && self.items.capacity() > 64 {
            self.items = Vec::new();
        }
        true
    }

    /// Removes all members and gives their memory back.
    pub fn clear(&mut self) {
        self.items = Vec::new();
        self.index = None;
    }

    /// Takes the members out.
    pub fn take(&mut self) -> Vec<T> {
        self.index = None;
        std::mem::take(&mut self.items)
    }
}

impl<T: Copy + Eq + std::hash::Hash> FromIterator<T> for IdSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        let mut set = Self::default();
        for id in iter {
            set.insert(id);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn behaves_as_a_set_at_all_sizes() {
        let mut set = IdSet::default();
        let mut model = BTreeSet::new();
        let mut x = 12345u32;
        for _ in 0..20_000 {
            x = x.wrapping_mul(1664525).wrapping_add(1013904223);
            let id = TaskId((x >> 16) % 97);
            if x & 0x300 == 0 {
                assert_eq!(set.remove(id), model.remove(&id));
            } else if x & 0x100 == 0 {
                assert_eq!(set.insert(id), model.insert(id));
            } else {
                assert_eq!(set.contains(id), model.contains(&id));
            }
            assert_eq!(set.len(), model.len());
        }
        assert_eq!(set.iter().collect::<BTreeSet<_>>(), model);
    }
}
