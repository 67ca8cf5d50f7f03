//! The merged configuration as a tree, with the merge and look-up rules of `dask.config`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Deepest nesting any source may have; deeper input is an error, never a stack overflow.
pub const MAX_DEPTH: usize = 64;

/// A configuration value: what JSON can hold, plus non-finite floats (`.inf` is a legal Dask setting).
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Tree {
    /// `null` / `None`.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer; those beyond 64 bits become floats.
    Int(i64),
    /// A float, possibly infinite or NaN.
    Float(f64),
    /// A string.
    Str(String),
    /// A list or tuple.
    List(Vec<Tree>),
    /// A mapping; keys that are not strings are kept by their text.
    Map(BTreeMap<String, Tree>),
}

impl Tree {
    /// An empty mapping.
    #[must_use]
    pub fn empty_map() -> Self {
        Self::Map(BTreeMap::new())
    }

    /// The value under a dotted path, with `-` and `_` equivalent in every part.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Tree> {
        let mut node = self;
        for part in path.split('.') {
            let Self::Map(map) = node else { return None };
            node = map.get(canonical_name(part, map).as_ref())?;
        }
        Some(node)
    }

    /// Sets a dotted path, making mappings on the way; a scalar in the way is replaced.
    pub fn set(&mut self, path: &str, value: Tree) {
        let mut node = self;
        for part in path.split('.') {
            let map = node.make_map();
            let name = canonical_name(part, map).into_owned();
            node = map.entry(name).or_default();
        }
        *node = value;
    }

    /// Lays `new` over `self` as `dask.config.update(self, new)` does: mappings merge, everything else replaces.
    pub fn update(&mut self, new: &Tree) {
        self.merge_from(new, true);
    }

    /// Fills what `self` lacks from `defaults`, as `dask.config.update(self, defaults, priority="old")` does.
    pub fn fill(&mut self, defaults: &Tree) {
        self.merge_from(defaults, false);
    }

    fn merge_from(&mut self, new: &Tree, new_wins: bool) {
        let Self::Map(new) = new else {
            if new_wins {
                *self = new.clone();
            }
            return;
        };
        let map = self.make_map();
        for (key, value) in new {
            let name = canonical_name(key, map).into_owned();
            if let Self::Map(_) = value {
                map.entry(name).or_default().merge_from(value, new_wins);
            } else if new_wins || !map.contains_key(&name) {
                map.insert(name, value.clone());
            }
        }
    }

    fn make_map(&mut self) -> &mut BTreeMap<String, Tree> {
        if !matches!(self, Self::Map(_)) {
            *self = Self::empty_map();
        }
        match self {
            Self::Map(map) => map,
            _ => unreachable!("just made a map"),
        }
    }

    /// A short name of the kind of value, for error messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Str(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// The tree as JSON that Python's `json.loads` reads: non-finite floats are `Infinity`, `-Infinity`, `NaN`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    fn write_json(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::Int(i) => {
                let _ = write!(out, "{i}");
            }
            Self::Float(f) if f.is_nan() => out.push_str("NaN"),
            Self::Float(f) if f.is_infinite() => {
                out.push_str(if *f > 0.0 { "Infinity" } else { "-Infinity" })
            }
            Self::Float(f) => {
                let _ = write!(out, "{f:?}");
            }
            Self::Str(s) => write_json_str(s, out),
            Self::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    item.write_json(out);
                }
                out.push(']');
            }
            Self::Map(map) => {
                out.push('{');
                for (i, (key, value)) in map.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    write_json_str(key, out);
                    out.push_str(": ");
                    value.write_json(out);
                }
                out.push('}');
            }
        }
    }
}

fn write_json_str(s: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(s).to_string());
}

/// The spelling of `key` already in `map`, be it with hyphens or underscores; `key` itself if neither is there.
fn canonical_name<'a>(key: &'a str, map: &BTreeMap<String, Tree>) -> std::borrow::Cow<'a, str> {
    if map.contains_key(key) {
        return key.into();
    }
    let other = if key.contains('_') {
        key.replace('_', "-")
    } else {
        key.replace('-', "_")
    };
    if map.contains_key(&other) {
        other.into()
    } else {
        key.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree {
        super::super::literal::parse_json(json).unwrap()
    }

    #[test]
    fn hyphens_and_underscores_are_one() {
        let mut config = tree(r#"{"distributed": {"scheduler": {"worker_saturation": 2}}}"#);
        assert_eq!(
            config.get("distributed.scheduler.worker-saturation"),
            Some(&Tree::Int(2))
        );
        config.set("distributed.scheduler.worker-saturation", Tree::Int(3));
        assert_eq!(
            config,
            tree(r#"{"distributed": {"scheduler": {"worker_saturation": 3}}}"#)
        );
        assert_eq!(
            config.get("distributed.scheduler.worker-saturation.x"),
            None
        );
    }

    #[test]
    fn update_merges_mappings_and_replaces_the_rest() {
        let mut config = tree(r#"{"x": 1, "y": {"a": 2}, "z": [1]}"#);
        config.update(&tree(r#"{"x": {"q": 1}, "y": {"b": 3}, "z": [2]}"#));
        assert_eq!(
            config,
            tree(r#"{"x": {"q": 1}, "y": {"a": 2, "b": 3}, "z": [2]}"#)
        );
    }

    #[test]
    fn fill_keeps_what_is_there() {
        let mut config = tree(r#"{"y": {"a-b": 2}}"#);
        config.fill(&tree(r#"{"x": 0, "y": {"a_b": 3, "c": 4}}"#));
        assert_eq!(config, tree(r#"{"x": 0, "y": {"a-b": 2, "c": 4}}"#));
    }

    #[test]
    fn json_is_what_python_reads() {
        let config = Tree::List(vec![
            Tree::Float(f64::INFINITY),
            Tree::Float(1.0),
            Tree::Str("a\"\n".into()),
            Tree::Null,
        ]);
        assert_eq!(config.to_json(), r#"[Infinity, 1.0, "a\"\n", null]"#);
        assert_eq!(tree(&config.to_json()), config);
    }
}
