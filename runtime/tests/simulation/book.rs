//! What every key means: the tasks ever defined, how they behave, and the values they must have.

use std::collections::{BTreeMap, HashMap};

use oxidask_runtime::protocol::Key;

use crate::machine::K;
use crate::rng::mix;

/// One definition of a task. A key has more than one if graphs collide.
#[derive(Clone, Debug)]
pub struct Spec {
    pub key: K,
    pub dependencies: Vec<K>,
    pub seconds: f64,
    pub nbytes: i64,
    /// Raises the first n times.
    pub fails: u32,
    /// Raises always.
    pub doomed: bool,
    /// Raises `Reschedule` the first n times.
    pub reschedules: u32,
    /// Takes its worker down the first n times.
    pub kills: u32,
    /// Leaves the thread pool half-way.
    pub secedes: bool,
}

/// All keys, definitions and values.
#[derive(Default)]
pub struct Book {
    keys: Vec<Key>,
    numbers: HashMap<Key, K>,
    pub specs: Vec<Spec>,
    pub by_key: BTreeMap<K, Vec<u32>>,
    /// Times each definition was started.
    pub attempts: Vec<u32>,
    pub scattered: Vec<K>,
    /// How a value came about.
    origin: HashMap<u64, (u32, Vec<u64>)>,
}

impl Book {
    pub fn number(&mut self, key: &Key) -> K {
        if let Some(k) = self.numbers.get(key) {
            return *k;
        }
        let k = self.keys.len() as K;
        self.keys.push(key.clone());
        self.numbers.insert(key.clone(), k);
        k
    }

    pub fn key(&self, k: K) -> &Key {
        &self.keys[k as usize]
    }

    pub fn define(&mut self, spec: Spec) -> u32 {
        let id = self.specs.len() as u32;
        self.by_key.entry(spec.key).or_default().push(id);
        self.specs.push(spec);
        self.attempts.push(0);
        id
    }

    /// The value of scattered data.
    pub fn datum(k: K) -> u64 {
        mix(u64::from(k) ^ 0xda7a_da7a)
    }

    /// The value a task computes.
    pub fn compute(&mut self, spec: u32, inputs: &[u64]) -> u64 {
        let value = inputs
            .iter()
            .fold(mix(u64::from(spec) + 1), |h, v| mix(h ^ v));
        self.origin.insert(value, (spec, inputs.to_vec()));
        value
    }

    /// Whether a value may be the result of a key: computed by one of its definitions from right inputs.
    pub fn is_right(&self, k: K, value: u64) -> bool {
        if self.scattered.contains(&k) {
            return value == Self::datum(k);
        }
        let Some((spec, inputs)) = self.origin.get(&value) else {
            return false;
        };
        let spec = &self.specs[*spec as usize];
        spec.key == k
            && spec.dependencies.len() == inputs.len()
            && spec
                .dependencies
                .iter()
                .zip(inputs)
                .all(|(d, v)| self.is_right(*d, *v))
    }

    /// Whether a key cannot be computed, as far as is known: it or something it needs always fails.
    pub fn is_doomed(&self, k: K) -> bool {
        self.by_key.get(&k).is_some_and(|specs| {
            specs.iter().any(|s| {
                let spec = &self.specs[*s as usize];
                spec.doomed || spec.dependencies.iter().any(|d| self.is_doomed(*d))
            })
        })
    }

    /// Whether graphs gave different definitions for this key or something it needs.
    pub fn is_ambiguous(&self, k: K) -> bool {
        self.by_key.get(&k).is_some_and(|specs| {
            specs.len() > 1
                || specs.iter().any(|s| {
                    let spec = &self.specs[*s as usize];
                    spec.dependencies.iter().any(|d| self.is_ambiguous(*d))
                })
        })
    }
}
