//! Memory of workers, as `distributed.scheduler.MemoryState` measures it.

use super::state::State;
use super::worker::Worker;

/// Readings of one worker or of the cluster, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    /// Of the processes.
    pub process: i64,
    /// Results in memory.
    pub managed: i64,
    /// Results on disk, their size there.
    pub spilled: i64,
    /// Neither results nor recent growth.
    pub unmanaged_old: i64,
}

/// One of the figures of [`MemoryState`], by its name in `distributed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Of the processes.
    Process,
    /// Results in memory.
    Managed,
    /// Results on disk.
    Spilled,
    /// Results in memory and on disk.
    ManagedTotal,
    /// Everything that is not a result.
    Unmanaged,
    /// Neither results nor recent growth.
    UnmanagedOld,
    /// Recent growth.
    UnmanagedRecent,
    /// Results in memory and old unmanaged memory.
    Optimistic,
}

impl Measure {
    /// From its name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "process" => Self::Process,
            "managed" | "managed_in_memory" => Self::Managed,
            "spilled" | "managed_spilled" => Self::Spilled,
            "managed_total" => Self::ManagedTotal,
            "unmanaged" => Self::Unmanaged,
            "unmanaged_old" => Self::UnmanagedOld,
            "unmanaged_recent" => Self::UnmanagedRecent,
            "optimistic" => Self::Optimistic,
            _ => return None,
        })
    }
}

impl MemoryState {
    /// Readings come at different times; the parts are cut so that they add up.
    pub fn new(process: i64, managed: i64, spilled: i64, unmanaged_old: i64) -> Self {
        let managed = managed.min(process);
        Self {
            process,
            managed,
            spilled,
            unmanaged_old: unmanaged_old.min(process - managed),
        }
    }

    /// One figure.
    pub fn get(&self, measure: Measure) -> i64 {
        match measure {
            Measure::Process => self.process,
            Measure::Managed => self.managed,
            Measure::Spilled => self.spilled,
            Measure::ManagedTotal => self.managed + self.spilled,
            Measure::Unmanaged => self.process - self.managed,
            Measure::UnmanagedOld => self.unmanaged_old,
            Measure::UnmanagedRecent => self.process - self.managed - self.unmanaged_old,
            Measure::Optimistic => self.managed + self.unmanaged_old,
        }
    }
}

impl Worker {
    /// Its memory: results as known now, the rest as of the last heartbeat.
    pub fn memory(&self) -> MemoryState {
        MemoryState::new(
            self.metrics.memory,
            self.managed_in_memory(),
            self.metrics.spilled_disk,
            self.unmanaged_old,
        )
    }
}

impl State {
    /// Memory of all workers.
    pub fn memory(&self) -> MemoryState {
        let mut sum = MemoryState::default();
        for (_, worker) in self.all_workers() {
            let m = worker.memory();
            sum.process += m.process;
            sum.managed += m.managed;
            sum.spilled += m.spilled;
            sum.unmanaged_old += m.unmanaged_old;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_even_if_readings_do_not() {
        let m = MemoryState::new(100, 150, 7, 30);
        assert_eq!(m.get(Measure::Managed), 100);
        assert_eq!(m.get(Measure::UnmanagedOld), 0);
        let m = MemoryState::new(100, 20, 7, 30);
        assert_eq!(m.get(Measure::Optimistic), 50);
        assert_eq!(m.get(Measure::UnmanagedRecent), 50);
        assert_eq!(m.get(Measure::ManagedTotal), 27);
        assert_eq!(Measure::parse("sum"), None);
    }
}
