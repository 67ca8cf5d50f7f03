//! Typed values out of the configuration tree.

use super::tree::Tree;
use super::units::{bytes_of, timedelta_of};
use std::collections::BTreeMap;

/// A duration in seconds.
pub type Seconds = Quantity<f64>;
/// A number of bytes.
pub type Bytes = Quantity<u64>;

/// A number that configuration may write with a unit.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Quantity<T>(pub T);

impl Quantity<f64> {
    /// As a [`std::time::Duration`]; negative durations become zero, absurdly long ones the longest there is.
    #[must_use]
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::try_from_secs_f64(self.0.max(0.0)).unwrap_or(std::time::Duration::MAX)
    }
}

/// Collects every error instead of stopping at the first.
pub(super) struct Reader<'a> {
    pub(super) tree: &'a Tree,
    pub(super) errors: Vec<String>,
}

impl Reader<'_> {
    /// The setting at `path`; a bad value is noted.
    pub(super) fn get<T: Setting>(&mut self, path: &str) -> T {
        let value = self.tree.get(path).unwrap_or(&Tree::Null);
        T::read(value).unwrap_or_else(|problem| {
            self.errors.push(format!("{path}: {problem}"));
            T::placeholder()
        })
    }
}

/// A type that a setting can have.
pub(super) trait Setting: Sized {
    fn read(value: &Tree) -> Result<Self, String>;
    /// Stands in while the other settings are checked; never used.
    fn placeholder() -> Self;
}

fn expected<T>(what: &str, value: &Tree) -> Result<T, String> {
    Err(format!("expected {what}, got {}", value.to_json()))
}

impl Setting for bool {
    fn read(value: &Tree) -> Result<Self, String> {
        match value {
            Tree::Bool(b) => Ok(*b),
            Tree::Int(i) => Ok(*i != 0),
            Tree::Null => Ok(false),
            other => expected("a boolean", other),
        }
    }
    fn placeholder() -> Self {
        false
    }
}

impl Setting for f64 {
    fn read(value: &Tree) -> Result<Self, String> {
        match value {
            Tree::Int(i) => Ok(*i as f64),
            Tree::Float(f) => Ok(*f),
            Tree::Str(s) => s.trim().parse().or_else(|_| expected("a number", value)),
            other => expected("a number", other),
        }
    }
    fn placeholder() -> Self {
        1.0
    }
}

macro_rules! integer_setting {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn read(value: &Tree) -> Result<Self, String> {
                let number = match value {
                    Tree::Int(i) => Self::try_from(*i).ok(),
                    Tree::Float(f) if f.fract() == 0.0 && *f >= 0.0 => Some(*f as Self),
                    Tree::Str(s) => s.trim().parse().ok(),
                    _ => None,
                };
                number.map_or_else(|| expected("a whole number", value), Ok)
            }
            fn placeholder() -> Self { 1 }
        }
    )*};
}
integer_setting!(u32, u64, usize);

impl Setting for String {
    fn read(value: &Tree) -> Result<Self, String> {
        match value {
            Tree::Str(s) => Ok(s.clone()),
            other => expected("a string", other),
        }
    }
    fn placeholder() -> Self {
        Self::new()
    }
}

impl Setting for Seconds {
    fn read(value: &Tree) -> Result<Self, String> {
        match timedelta_of(value).map_err(|e| e.to_string())? {
            Some(seconds) => Ok(Quantity(seconds)),
            None => expected("a duration", value),
        }
    }
    fn placeholder() -> Self {
        Quantity(1.0)
    }
}

impl Setting for Bytes {
    fn read(value: &Tree) -> Result<Self, String> {
        match bytes_of(value).map_err(|e| e.to_string())? {
            Some(bytes) => Ok(Quantity(bytes)),
            None => expected("a size", value),
        }
    }
    fn placeholder() -> Self {
        Quantity(1)
    }
}

impl Setting for Tree {
    fn read(value: &Tree) -> Result<Self, String> {
        Ok(value.clone())
    }
    fn placeholder() -> Self {
        Self::Null
    }
}

impl<T: Setting> Setting for Option<T> {
    fn read(value: &Tree) -> Result<Self, String> {
        if *value == Tree::Null {
            Ok(None)
        } else {
            T::read(value).map(Some)
        }
    }
    fn placeholder() -> Self {
        None
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn read(value: &Tree) -> Result<Self, String> {
        match value {
            Tree::List(items) => items.iter().map(T::read).collect(),
            Tree::Null => Ok(Self::new()),
            // Dask takes a lone string for a list of one.
            single @ Tree::Str(_) => Ok(vec![T::read(single)?]),
            other => expected("a list", other),
        }
    }
    fn placeholder() -> Self {
        Self::new()
    }
}

impl<T: Setting> Setting for BTreeMap<String, T> {
    fn read(value: &Tree) -> Result<Self, String> {
        match value {
            Tree::Map(map) => map
                .iter()
                .map(|(k, v)| Ok((k.clone(), T::read(v).map_err(|e| format!("{k}: {e}"))?)))
                .collect(),
            Tree::Null => Ok(Self::new()),
            other => expected("a mapping", other),
        }
    }
    fn placeholder() -> Self {
        Self::new()
    }
}
