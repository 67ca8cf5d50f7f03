//! `Semaphore` and `Lock` (a semaphore of one): leases that expire unless they are refreshed.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::ExtError;
use super::wakes::{Out, Ticket};
use crate::protocol::{Key, Str};

/// All semaphores. Times are seconds of any steady clock.
#[derive(Debug, Default)]
pub struct Semaphores {
    semaphores: FxHashMap<Key, Semaphore>,
    /// Results of waiting requests, not collected yet: whether the lease was given.
    answered: FxHashMap<Ticket, bool>,
}

#[derive(Debug)]
struct Semaphore {
    max_leases: i64,
    lease_timeout_s: Option<f64>,
    /// When each lease was last refreshed.
    leases: FxHashMap<Str, f64>,
    waiting: VecDeque<Waiting>,
    acquired_total: u64,
    released_total: u64,
    mean_wait_s: f64,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    lease: Str,
    since: f64,
}

/// The figures of one semaphore, as the metrics report them.
#[derive(Debug, Clone, PartialEq)]
pub struct SemaphoreMetrics {
    /// Its name.
    pub name: String,
    /// How many leases there may be (`dask_semaphore_max_leases`).
    pub max_leases: i64,
    /// How many there are (`dask_semaphore_active_leases`).
    pub active_leases: usize,
    /// How many requests wait for one (`dask_semaphore_pending_leases`).
    pub pending_leases: usize,
    /// Leases given so far (`dask_semaphore_acquire_total`).
    pub acquire_total: u64,
    /// Leases returned or expired so far (`dask_semaphore_release_total`).
    pub release_total: u64,
    /// Average time that requests waited, the latest counting half (`dask_semaphore_average_pending_lease_time_s`).
    pub average_pending_lease_time_s: f64,
}

impl Semaphore {
    fn give(&mut self, lease: Str, now: f64) {
        self.leases.insert(lease, now);
        self.acquired_total += 1;
    }

    fn waited(&mut self, seconds: f64) {
        self.mean_wait_s = (self.mean_wait_s + seconds) / 2.0;
    }

    fn has_room(&self) -> bool {
        (self.leases.len() as i64) < self.max_leases
    }
}

impl Semaphores {
    /// Makes a semaphore, unless it exists.
    ///
    /// # Errors
    /// If it exists with another number of leases.
    pub fn register(
        &mut self,
        name: Key,
        max_leases: i64,
        lease_timeout_s: Option<f64>,
    ) -> Result<(), ExtError> {
        let new = || Semaphore {
            max_leases,
            lease_timeout_s,
            leases: FxHashMap::default(),
            waiting: VecDeque::new(),
            acquired_total: 0,
            released_total: 0,
            mean_wait_s: 0.0,
        };
        let expected = self.semaphores.entry(name).or_insert_with(new).max_leases;
        if expected == max_leases {
            return Ok(());
        }
        Err(ExtError::Value(format!(
            "Inconsistent max leases: {max_leases}, expected: {expected}"
        )))
    }

    /// Asks for a lease; whether it is given at once. Asking again for a lease that one has is no second lease.
    ///
    /// # Errors
    /// If there is no such semaphore.
    pub fn acquire(
        &mut self,
        name: &Key,
        lease: Str,
        ticket: Ticket,
        now: f64,
    ) -> Result<bool, ExtError> {
        let semaphore = self
            .semaphores
            .get_mut(name)
            .ok_or_else(|| not_known(name))?;
        if semaphore.leases.contains_key(&lease) || semaphore.has_room() {
            semaphore.give(lease, now);
            semaphore.waited(0.0);
            return Ok(true);
        }
        semaphore.waiting.push_back(Waiting {
            ticket,
            lease,
            since: now,
        });
        Ok(false)
    }

    /// The result of an [`Semaphores::acquire`] that had to wait.
    pub fn collect(&mut self, name: &Key, ticket: Ticket) -> Option<Result<bool, ExtError>> {
        self.answered.remove(&ticket).map(|given| {
            if given {
                Ok(true)
            } else {
                Err(not_known(name))
            }
        })
    }

    /// The request will not wait any longer; a lease that it was given without knowing is returned.
    pub fn withdraw(&mut self, name: &Key, lease: &str, ticket: Ticket, now: f64, out: &mut Out) {
        if let Some(given) = self.answered.remove(&ticket) {
            if given {
                self.release(name, lease, now, out);
            }
            return;
        }
        let Some(semaphore) = self.semaphores.get_mut(name) else {
            return;
        };
        if let Some(at) = semaphore
            .waiting
            .iter()
            .position(|waiting| waiting.ticket == ticket)
            && let Some(waiting) = semaphore.waiting.remove(at)
        {
            semaphore.waited(now - waiting.since);
        }
    }

    /// Returns a lease; whether there was one.
    pub fn release(&mut self, name: &Key, lease: &str, now: f64, out: &mut Out) -> bool {
        let Some(semaphore) = self.semaphores.get_mut(name) else {
            return false;
        };
        let released = semaphore.leases.remove(lease).is_some();
        if released {
            semaphore.released_total += 1;
            self.hand_on(name, now, out);
        }
        released
    }

    /// Refreshes leases. Returns those which had expired: they are in force again, possibly one too many.
    pub fn refresh(&mut self, name: &Key, leases: &[Str], now: f64) -> Vec<Str> {
        let Some(semaphore) = self.semaphores.get_mut(name) else {
            return leases.to_vec();
        };
        leases
            .iter()
            .filter(|&lease| semaphore.leases.insert(lease.clone(), now).is_none())
            .cloned()
            .collect()
    }

    /// Drops the leases that have not been refreshed in time; how many.
    pub fn expire(&mut self, now: f64, out: &mut Out) -> usize {
        let mut shortened = Vec::new();
        let mut n_expired = 0;
        for (name, semaphore) in &mut self.semaphores {
            let Some(timeout_s) = semaphore
                .lease_timeout_s
                .filter(|&timeout_s| timeout_s > 0.0)
            else {
                continue;
            };
            let before = semaphore.leases.len();
            semaphore
                .leases
                .retain(|_, refreshed| now - *refreshed <= timeout_s);
            let expired = before - semaphore.leases.len();
            if expired > 0 {
                semaphore.released_total += expired as u64;
                n_expired += expired;
                shortened.push(name.clone());
            }
        }
        for name in shortened {
            self.hand_on(&name, now, out);
        }
        n_expired
    }

    /// Number of leases given; zero for an unknown semaphore.
    pub fn value(&self, name: &Key) -> usize {
        self.semaphores
            .get(name)
            .map_or(0, |semaphore| semaphore.leases.len())
    }

    /// Whether there is such a semaphore.
    pub fn contains(&self, name: &Key) -> bool {
        self.semaphores.contains_key(name)
    }

    /// Removes a semaphore whoever holds it. Returns how many leases and how many waiting requests that cuts off.
    pub fn close(&mut self, name: &Key, out: &mut Out) -> (usize, usize) {
        let Some(semaphore) = self.semaphores.remove(name) else {
            return (0, 0);
        };
        for waiting in &semaphore.waiting {
            self.answered.insert(waiting.ticket, false);
            out.wake(waiting.ticket);
        }
        (semaphore.leases.len(), semaphore.waiting.len())
    }

    /// The figures of all semaphores, sorted by name.
    pub fn metrics(&self) -> Vec<SemaphoreMetrics> {
        let figures = |(name, semaphore): (&Key, &Semaphore)| SemaphoreMetrics {
            name: name.to_string(),
            max_leases: semaphore.max_leases,
            active_leases: semaphore.leases.len(),
            pending_leases: semaphore.waiting.len(),
            acquire_total: semaphore.acquired_total,
            release_total: semaphore.released_total,
            average_pending_lease_time_s: semaphore.mean_wait_s,
        };
        let mut metrics: Vec<_> = self.semaphores.iter().map(figures).collect();
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
        metrics
    }

    /// Gives free leases to those who have waited longest.
    fn hand_on(&mut self, name: &Key, now: f64, out: &mut Out) {
        let Some(semaphore) = self.semaphores.get_mut(name) else {
            return;
        };
        while semaphore.has_room() {
            let Some(waiting) = semaphore.waiting.pop_front() else {
                return;
            };
            semaphore.give(waiting.lease, now);
            semaphore.waited(now - waiting.since);
            self.answered.insert(waiting.ticket, true);
            out.wake(waiting.ticket);
        }
    }
}

fn not_known(name: &Key) -> ExtError {
    ExtError::Runtime(format!("Semaphore or Lock `{name}` not known."))
}
