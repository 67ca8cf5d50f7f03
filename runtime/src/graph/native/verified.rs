//! Names that a helper has imported.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most names that are remembered.
const MAX_NAMES: usize = 10_000;
/// Longest name that is remembered.
const MAX_NAME: usize = 512;

/// Module and attribute names that the scheduler's environment has; workers are taken to have the same.
#[derive(Debug, Default)]
pub struct Verified {
    names: Mutex<HashSet<String>>,
}

impl Verified {
    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers names, and their modules.
    pub fn insert(&self, names: &[(&str, &str)]) {
        let mut known = self.names();
        for (module, name) in names {
            if known.len() + 2 > MAX_NAMES || module.len() + name.len() > MAX_NAME {
                return;
            }
            known.insert(joined(module, name));
            known.insert(joined(module, ""));
        }
    }

    /// Whether all names are known.
    pub fn all(&self, names: &[(&str, &str)]) -> bool {
        let known = self.names();
        names
            .iter()
            .all(|(module, name)| known.contains(&joined(module, name)))
    }

    /// Forgets everything: modules have been replaced.
    pub fn clear(&self) {
        self.names().clear();
    }
}

fn joined(module: &str, name: &str) -> String {
    format!("{module}\0{name}")
}
