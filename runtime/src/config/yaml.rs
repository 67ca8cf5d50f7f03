//! YAML (and with it JSON) files as [`Tree`]s.

use super::literal::key_text;
use super::tree::Tree;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Parses a YAML document with the rules of PyYAML's `safe_load` where they differ from YAML 1.2: `yes`, `no`, `on` and
/// `off` are booleans, the last of duplicate keys wins. An empty document is [`Tree::Null`].
pub fn parse(text: &str) -> Result<Tree, String> {
    let mut options = serde_saphyr::Options::default();
    options.duplicate_keys = serde_saphyr::options::DuplicateKeyPolicy::LastWins;
    options.with_snippet = false;
    options.non_finite_float_policy = serde_saphyr::options::NonFiniteFloatPolicy::PassThrough;
    if text
        .lines()
        .all(|line| line.trim_start().starts_with('#') || matches!(line.trim(), "" | "---"))
    {
        return Ok(Tree::Null);
    }
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(i64::try_from(value).map_or(Tree::Float(value as f64), Tree::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Str(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = access.next_entry::<Tree, Tree>()? {
            let key =
                key_text(&key).ok_or_else(|| A::Error::custom("a mapping key must be a scalar"))?;
            map.insert(key, value);
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_pyyaml_s() {
        let tree =
            parse("a: yes\nb: .inf\nc: 1kiB\nd: null\ne: 1.1\nf: [1, 'x']\n3: ~\nh: '1'\na: off\n")
                .unwrap();
        assert_eq!(
            tree.to_json(),
            r#"{"3": null, "a": false, "b": Infinity, "c": "1kiB", "d": null, "e": 1.1, "f": [1, "x"], "h": "1"}"#
        );
    }

    #[test]
    fn empty_and_commented_files_are_null() {
        assert_eq!(parse("").unwrap(), Tree::Null);
        assert_eq!(parse("# distributed:\n#   x: 1\n\n").unwrap(), Tree::Null);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(parse("a: [1").is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
