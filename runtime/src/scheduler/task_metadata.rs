//! Metadata of tasks as they finish, for `with get_task_metadata()` of the client.
//!
//! A collection follows the keys that clients request while it is on, until each is in memory or has failed once.

use rustc_hash::FxHashSet;

use super::state::State;
use super::task::TaskStateName;
use crate::protocol::{Key, Value};

/// Collections at once; a client that starts them without end is refused.
const MAX_COLLECTIONS: usize = 256;

/// Why a collection cannot begin or end; the texts go to the client as a `ValueError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Two of one name.
    #[error("task metadata are being collected under the name {0:?} already")]
    Taken(String),
    /// Too many.
    #[error(
        "{MAX_COLLECTIONS} collections of task metadata are running already; end one with stop_task_metadata"
    )]
    TooMany,
    /// None of that name.
    #[error("Expected to find exactly one CollectTaskMetaDataPlugin with name {0} but found 0.")]
    Unknown(String),
}

/// One collection.
#[derive(Debug, Default)]
struct Collection {
    name: String,
    awaited: FxHashSet<Key>,
    metadata: Vec<(Value, Value)>,
    states: Vec<(Value, Value)>,
}

/// The collections that are on.
#[derive(Debug, Default)]
pub struct TaskMetadata {
    collections: Vec<Collection>,
}

impl TaskMetadata {
    /// Whether anything is collected.
    #[inline]
    fn is_on(&self) -> bool {
        !self.collections.is_empty()
    }
}

impl State {
    /// Begins to collect under a name.
    ///
    /// # Errors
    /// If the name is taken, or too many are on.
    pub fn start_collecting_metadata(&mut self, name: &str) -> Result<(), MetadataError> {
        let list = &mut self.task_metadata.collections;
        if list.iter().any(|c| c.name == name) {
            return Err(MetadataError::Taken(name.into()));
        }
        if list.len() >= MAX_COLLECTIONS {
            return Err(MetadataError::TooMany);
        }
        list.push(Collection {
            name: name.into(),
            ..Collection::default()
        });
        Ok(())
    }

    /// Ends a collection: `{"metadata": {key: …}, "state": {key: …}}`.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn stop_collecting_metadata(&mut self, name: &str) -> Result<Value, MetadataError> {
        let list = &mut self.task_metadata.collections;
        let at = list
            .iter()
            .position(|c| c.name == name)
            .ok_or_else(|| MetadataError::Unknown(name.into()))?;
        let done = list.swap_remove(at);
        Ok(Value::map([
            ("metadata", Value::Map(done.metadata)),
            ("state", Value::Map(done.states)),
        ]))
    }

    /// A client requested these keys.
    pub(super) fn metadata_requested(&mut self, keys: &[Key]) {
        for collection in &mut self.task_metadata.collections {
            collection.awaited.extend(keys.iter().cloned());
        }
    }

    /// A task changed its state.
    #[inline]
    pub(super) fn metadata_transition(&mut self, key: &Key, finish: TaskStateName) {
        let done = matches!(finish, TaskStateName::Memory | TaskStateName::Erred);
        if done && self.task_metadata.is_on() {
            self.collect_metadata(key, finish);
        }
    }

    fn collect_metadata(&mut self, key: &Key, finish: TaskStateName) {
        let metadata = self.task_id(key).map(|id| {
            let rare = self.task(id).rare.as_ref();
            Value::Map(rare.map_or_else(Vec::new, |r| r.metadata.clone()))
        });
        let Some(metadata) = metadata else { return };
        for collection in &mut self.task_metadata.collections {
            if collection.awaited.remove(key) {
                let name = key.to_value();
                collection.metadata.push((name.clone(), metadata.clone()));
                collection.states.push((name, finish.as_str().into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Clock, CoreConfig};
    use super::*;

    #[test]
    fn requested_keys_are_followed_until_done() {
        let mut state = State::new(CoreConfig::default(), Clock::default());
        let [a, b, c] = ["a", "b", "c"].map(Key::new_str);
        for key in [&a, &b, &c] {
            state.new_task(key.clone());
        }
        state.start_collecting_metadata("x").unwrap();
        assert!(state.start_collecting_metadata("x").is_err());
        state.metadata_requested(&[a.clone(), b.clone()]);
        let id = state.task_id(&a).unwrap();
        state.task_mut(id).rare_mut().metadata = vec![("n".into(), 1.into())];
        state.metadata_transition(&a, TaskStateName::Processing);
        state.metadata_transition(&a, TaskStateName::Memory);
        state.metadata_transition(&a, TaskStateName::Erred);
        state.metadata_transition(&b, TaskStateName::Erred);
        state.metadata_transition(&c, TaskStateName::Memory);
        let expected = Value::map([
            (
                "metadata",
                Value::map([
                    ("a", Value::map([("n", 1.into())])),
                    ("b", Value::Map(vec![])),
                ]),
            ),
            (
                "state",
                Value::map([("a", "memory".into()), ("b", "erred".into())]),
            ),
        ]);
        assert_eq!(state.stop_collecting_metadata("x"), Ok(expected));
        assert!(state.stop_collecting_metadata("x").is_err());
    }

    #[test]
    fn their_number_is_bounded() {
        let mut state = State::new(CoreConfig::default(), Clock::default());
        for i in 0..MAX_COLLECTIONS {
            state.start_collecting_metadata(&i.to_string()).unwrap();
        }
        assert_eq!(
            state.start_collecting_metadata("one more"),
            Err(MetadataError::TooMany)
        );
    }
}
