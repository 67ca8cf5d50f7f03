//! Groups, prefixes and their counts.

use rustc_hash::FxHashMap;

use super::super::ids::{GroupId, PrefixId};
use super::super::state::State;
use super::super::task::{N_STATES, TaskStateName};
use super::{Violation, ensure};

const FORGOTTEN: usize = TaskStateName::Forgotten as usize;

impl State {
    pub(super) fn validate_groups(&self) -> Result<(), Violation> {
        let mut counts: FxHashMap<GroupId, [u32; N_STATES]> = FxHashMap::default();
        for (_, task) in self.all_tasks() {
            counts.entry(task.group).or_default()[task.state as usize] += 1;
        }
        let live = self.groups.iter().flatten().count();
        ensure!(
            live == self.group_index.len() && live == counts.len(),
            "{live} groups, {} names, {} with tasks",
            self.group_index.len(),
            counts.len()
        );
        ensure!(
            self.free_groups.len() + live == self.groups.len(),
            "free slots of the group arena are miscounted"
        );
        for (i, group) in self.groups.iter().enumerate() {
            let (id, Some(group)) = (GroupId(i as u32), group) else {
                ensure!(
                    self.free_groups.contains(&GroupId(i as u32)),
                    "a group's slot is lost"
                );
                continue;
            };
            let name = &group.name;
            let mut counted = *counts
                .get(&id)
                .ok_or_else(|| format!("group {name}: stale"))?;
            counted[FORGOTTEN] = group.states[FORGOTTEN];
            ensure!(
                counted == group.states,
                "group {name}: states {counted:?}, booked {:?}",
                group.states
            );
            ensure!(
                self.group_index.get(name) == Some(&id),
                "group {name}: its name leads elsewhere"
            );
            ensure!(
                self.prefix(group.prefix).groups.contains(id),
                "group {name}: unknown to its prefix"
            );
            for other in group.dependencies.iter() {
                let other = self.groups[other.0 as usize].as_ref();
                let known = other.is_some_and(|g| g.dependents.contains(id));
                ensure!(known, "group {name}: a dependency does not know it");
            }
            for other in group.dependents.iter() {
                let other = self.groups[other.0 as usize].as_ref();
                let known = other.is_some_and(|g| g.dependencies.contains(id));
                ensure!(known, "group {name}: a dependent does not know it");
            }
        }
        Ok(())
    }

    pub(super) fn validate_prefixes(&self) -> Result<(), Violation> {
        let mut sums: FxHashMap<PrefixId, [u32; N_STATES]> = FxHashMap::default();
        for group in self.all_groups() {
            let sum = sums.entry(group.prefix).or_default();
            for (s, n) in sum.iter_mut().zip(group.states) {
                *s += n;
            }
        }
        let mut processing: FxHashMap<PrefixId, u32> = FxHashMap::default();
        for (_, worker) in self.all_workers() {
            for (prefix, n) in &worker.prefix_count {
                *processing.entry(*prefix).or_default() += n;
            }
        }
        for (i, prefix) in self.prefixes.iter().enumerate() {
            let (id, name) = (PrefixId(i as u32), &prefix.name);
            let sum = sums.get(&id).copied().unwrap_or_default();
            ensure!(
                sum == prefix.states,
                "prefix {name}: states {sum:?}, booked {:?}",
                prefix.states
            );
            let n = processing.get(&id).copied().unwrap_or(0);
            ensure!(
                n == prefix.processing,
                "prefix {name}: {n} tasks processing, {} are booked",
                prefix.processing
            );
            ensure!(
                self.active_prefixes.contains(id) == (n > 0),
                "prefix {name}: wrongly (not) active"
            );
            ensure!(
                prefix.groups.iter().all(|g| self.groups[g.0 as usize]
                    .as_ref()
                    .is_some_and(|g| g.prefix == id)),
                "prefix {name}: a group is gone"
            );
        }
        Ok(())
    }
}
