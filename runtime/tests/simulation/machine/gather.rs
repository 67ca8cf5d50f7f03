//! Which dependencies to fetch from whom.

use super::*;

/// Keys asked of one peer at once. Far fewer than in life, so that transfers overlap with everything else.
const KEYS_PER_TRANSFER: usize = 4;
/// Peers asked at the same time.
const TRANSFERS: usize = 3;

impl Machine {
    /// Sends requests to peers that hold what is to be fetched, until the limits are reached.
    pub(super) fn ensure_communicating(&mut self) -> Recs {
        let mut recs = Recs::default();
        if !self.running {
            return recs;
        }
        while self.in_flight.len() < TRANSFERS {
            let Some((peer, keys)) = self.next_transfer(&recs) else {
                break;
            };
            for k in &keys {
                recs.set(*k, Target::Flight);
            }
            self.in_flight.insert(peer.clone(), keys.clone());
            self.out.push(Instruction::Gather(peer, keys));
        }
        recs
    }

    /// The peer with the task of best priority, and what to ask of it.
    fn next_transfer(&self, taken: &Recs) -> Option<(Address, Vec<K>)> {
        let mut needed: BTreeMap<&Address, Vec<(Priority, K)>> = BTreeMap::new();
        for (k, task) in &self.tasks {
            if task.state != Phase::Fetch || taken.has(*k) {
                continue;
            }
            for peer in &task.who_has {
                if !self.in_flight.contains_key(peer) && !self.busy.contains(peer) {
                    needed.entry(peer).or_default().push((task.priority, *k));
                }
            }
        }
        for list in needed.values_mut() {
            list.sort_unstable();
        }
        let (peer, list) = needed
            .into_iter()
            .min_by_key(|(_, list)| (list[0], usize::MAX - list.len()))?;
        let keys = list.into_iter().take(KEYS_PER_TRANSFER).map(|(_, k)| k);
        Some((peer.clone(), keys.collect()))
    }

    /// Ends a transfer; the keys that were asked for.
    pub(super) fn gather_done(&mut self, peer: &Address) -> Vec<K> {
        let keys = self.in_flight.remove(peer).expect("a transfer under way");
        for k in &keys {
            self.task_mut(*k).done = true;
        }
        keys
    }

    /// Nobody expects anything of this peer any more.
    pub(super) fn forget_peer(&mut self, peer: &Address, recs: &mut Recs) {
        for (k, task) in &mut self.tasks {
            if task.who_has.remove(peer) && task.who_has.is_empty() && task.state == Phase::Fetch {
                recs.set(*k, Target::Missing);
            }
        }
    }
}
