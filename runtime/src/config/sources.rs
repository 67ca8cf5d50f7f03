//! Where configuration comes from, in the order of `dask.config`: files, then the environment.

use super::literal;
use super::tree::Tree;
use super::{ConfigError, yaml};
use base64::Engine as _;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Reads one environment variable; injected so that tests need not touch the process environment.
pub type Env = BTreeMap<String, String>;

/// The process environment; variables that are not UTF-8 are left out.
#[must_use]
pub fn process_env() -> Env {
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect()
}

/// The places configuration files are looked for, lowest priority first.
///
/// Python's own prefix is not known here; the prefix of the interpreter in use stands for it: `$OXIDASK_PYTHON` (a path
/// to an executable), else `$VIRTUAL_ENV`, else `$CONDA_PREFIX`.
#[must_use]
pub fn search_paths(env: &Env) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from(
        env.get("DASK_ROOT_CONFIG")
            .map_or("/etc/dask", String::as_str),
    )];
    paths.extend(python_prefix(env).map(|prefix| prefix.join("etc/dask")));
    if let Some(home) = env.get("HOME").filter(|home| !home.is_empty()) {
        paths.push(Path::new(home).join(".config/dask"));
    }
    if let Some(path) = env.get("DASK_CONFIG") {
        paths.push(PathBuf::from(path));
    }
    // Of duplicates the last stays.
    let mut kept: Vec<PathBuf> = Vec::with_capacity(paths.len());
    for path in paths.into_iter().rev() {
        if !kept.contains(&path) {
            kept.push(path);
        }
    }
    kept.reverse();
    kept
}

fn python_prefix(env: &Env) -> Option<PathBuf> {
    let executable = env.get("OXIDASK_PYTHON").map(Path::new);
    let from_executable = executable
        .filter(|p| p.is_absolute())
        .and_then(|p| p.parent()?.parent())
        .map(PathBuf::from);
    from_executable.or_else(|| {
        ["VIRTUAL_ENV", "CONDA_PREFIX"]
            .iter()
            .find_map(|name| env.get(*name))
            .map(PathBuf::from)
    })
}

/// Merges the files in `paths` (each a file, or a directory whose `*.yaml`, `*.yml`, `*.json` are taken in order of name).
/// Unreadable files are passed over, malformed ones are errors.
pub fn collect_files(paths: &[PathBuf]) -> Result<Tree, ConfigError> {
    let mut merged = Tree::empty_map();
    for file in paths.iter().flat_map(|path| expand(path)) {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        let malformed = |message: String| ConfigError::Malformed {
            path: file.clone(),
            message,
        };
        match yaml::parse(&text).map_err(malformed)? {
            Tree::Null => {}
            tree @ Tree::Map(_) => merged.update(&tree),
            other => {
                return Err(malformed(format!(
                    "the top level must be a mapping, not {}",
                    other.kind()
                )));
            }
        }
    }
    Ok(merged)
}

fn expand(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path
                .extension()
                .and_then(|e| e.to_str())
                .unwrap_or("")
                .to_ascii_lowercase();
            matches!(extension.as_str(), "json" | "yaml" | "yml")
        })
        .collect();
    files.sort();
    files
}

/// Configuration in the environment: `DASK_A__B_C=v` is `a.b-c`, over what a parent process handed down in
/// `DASK_INTERNAL_INHERIT_CONFIG` (URL-safe base64 of JSON).
pub fn collect_env(env: &Env) -> Result<Tree, ConfigError> {
    const INHERIT: &str = "DASK_INTERNAL_INHERIT_CONFIG";
    let mut tree = Tree::empty_map();
    if let Some(text) = env.get(INHERIT) {
        let Some(Tree::Map(inherited)) = decode_inherited(text) else {
            return Err(ConfigError::Inherited);
        };
        for (key, value) in inherited {
            tree.set(&key, value);
        }
    }
    for (name, value) in env {
        let Some(name) = name.strip_prefix("DASK_").filter(|_| name != INHERIT) else {
            continue;
        };
        let path = name.to_lowercase().replace("__", ".");
        tree.set(&path, interpret(value));
    }
    Ok(tree)
}

fn decode_inherited(text: &str) -> Option<Tree> {
    let bytes = base64::engine::general_purpose::URL_SAFE
        .decode(text)
        .ok()?;
    literal::parse_json(std::str::from_utf8(&bytes).ok()?)
}

/// The inverse of what `DASK_INTERNAL_INHERIT_CONFIG` is read as: for child processes.
#[must_use]
pub fn encode_inherited(tree: &Tree) -> String {
    base64::engine::general_purpose::URL_SAFE.encode(tree.to_json())
}

/// The value an environment variable's text stands for: a Python literal, a YAML-style constant, else the text.
#[must_use]
pub fn interpret(text: &str) -> Tree {
    if let Some(value) = literal::parse_python(text) {
        return value;
    }
    match text.to_lowercase().as_str() {
        "none" | "null" => Tree::Null,
        "true" => Tree::Bool(true),
        "false" => Tree::Bool(false),
        _ => Tree::Str(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn environment_nests_and_parses() {
        let tree = collect_env(&env(&[
            ("DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION", "1.5"),
            ("DASK_SCHEDULER_ADDRESS", "tcp://x:1"),
            ("DASK_A__B", "[1, 'c']"),
            ("PATH", "/bin"),
        ]))
        .unwrap();
        assert_eq!(
            tree.get("distributed.scheduler.worker-saturation"),
            Some(&Tree::Float(1.5))
        );
        assert_eq!(
            tree.get("scheduler-address"),
            Some(&Tree::Str("tcp://x:1".into()))
        );
        assert_eq!(tree.get("a.b").unwrap().to_json(), r#"[1, "c"]"#);
        assert_eq!(tree.get("path"), None);
    }

    #[test]
    fn inherited_config_is_below_variables() {
        let parent = literal::parse_json(r#"{"a": {"b": 1, "c": Infinity}}"#).unwrap();
        let tree = collect_env(&env(&[
            ("DASK_INTERNAL_INHERIT_CONFIG", &encode_inherited(&parent)),
            ("DASK_A__B", "2"),
        ]))
        .unwrap();
        assert_eq!(tree.to_json(), r#"{"a": {"b": 2, "c": Infinity}}"#);
        assert!(collect_env(&env(&[("DASK_INTERNAL_INHERIT_CONFIG", "%%")])).is_err());
    }

    #[test]
    fn paths_are_ordered_and_unique() {
        let paths = search_paths(&env(&[
            ("HOME", "/h"),
            ("DASK_CONFIG", "/etc/dask"),
            ("OXIDASK_PYTHON", "/venv/bin/python"),
            ("CONDA_PREFIX", "/conda"),
        ]));
        let expected: Vec<PathBuf> = ["/venv/etc/dask", "/h/.config/dask", "/etc/dask"]
            .iter()
            .map(PathBuf::from)
            .collect();
        assert_eq!(paths, expected);
    }

    #[test]
    fn directories_merge_by_name_and_bad_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.yaml"), "x: {p: 2}\n").unwrap();
        std::fs::write(dir.path().join("a.json"), r#"{"x": {"p": 1, "q": 1}}"#).unwrap();
        std::fs::write(dir.path().join("c.txt"), "x: 9\n").unwrap();
        let tree = collect_files(&[dir.path().to_owned(), PathBuf::from("/nonexistent")]).unwrap();
        assert_eq!(tree.to_json(), r#"{"x": {"p": 2, "q": 1}}"#);
        std::fs::write(dir.path().join("d.yml"), "- 1\n").unwrap();
        let error = collect_files(&[dir.path().to_owned()])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("d.yml") && error.contains("a list"),
            "{error}"
        );
    }
}
