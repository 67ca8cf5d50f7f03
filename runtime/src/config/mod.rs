//! Configuration as `dask.config` reads it, the scheduler's command line, logging, and the TLS settings.
//!
//! * [`tree`], [`literal`], [`yaml`], [`units`]: values and their notations; pure.
//! * [`sources`]: files and environment, merged in the stock order.
//! * [`scheduler`]: everything the scheduler reads, typed.
//! * [`cli`], [`listen`]: `oxidask-scheduler`'s flags, and the addresses they ask for.
//! * [`process`]: the pid file, the scheduler file, the limit of open files.
//! * [`logging`]: output of log records, and the ring that `get_scheduler_logs` reads.
//! * [`tls`]: rustls configurations with the rules of stock `Security`.

pub mod cli;
pub mod listen;
pub(crate) mod literal;
pub mod logging;
pub mod process;
pub mod scheduler;
mod setting;
pub mod sources;
pub mod tls;
pub mod tree;
pub mod units;
pub mod yaml;

pub use scheduler::SchedulerConfig;
pub use tree::Tree;

use sources::Env;
use std::path::PathBuf;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that is no YAML mapping.
    #[error("the dask config file {path} is malformed: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// `DASK_INTERNAL_INHERIT_CONFIG` holds something else than base64 of a JSON mapping.
    #[error(
        "the environment variable DASK_INTERNAL_INHERIT_CONFIG is not base64 of a JSON mapping"
    )]
    Inherited,
    /// Values of the wrong kind, all of them.
    #[error("invalid configuration: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

/// The merged configuration of this process: defaults, files, environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything, including keys only Python code reads.
    pub tree: Tree,
    /// What the user set, without defaults: to hand to child processes, which have defaults of their own.
    pub user: Tree,
}

impl Config {
    /// Reads files and environment.
    pub fn load() -> Result<Self, ConfigError> {
        Self::from_env(&sources::process_env())
    }

    /// Reads the files that `env` points at, then `env` itself.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let mut user = sources::collect_files(&sources::search_paths(env))?;
        user.update(&sources::collect_env(env)?);
        Ok(Self::from_user(user))
    }

    /// Lays the user's settings over the defaults.
    #[must_use]
    pub fn from_user(user: Tree) -> Self {
        let mut tree = user.clone();
        tree.fill(&defaults());
        Self { tree, user }
    }

    /// The value for `DASK_INTERNAL_INHERIT_CONFIG` of a child process.
    #[must_use]
    pub fn inherited(&self) -> String {
        sources::encode_inherited(&self.user)
    }

    /// Keys under `distributed.scheduler` and `oxidask` that the user set but nothing reads: most likely misspelt.
    #[must_use]
    pub fn unknown_keys(&self) -> Vec<String> {
        let known = defaults();
        let mut unknown = Vec::new();
        for section in ["distributed.scheduler", "oxidask"] {
            if let (Some(user), Some(known)) = (self.user.get(section), known.get(section)) {
                find_unknown(section, user, known, &mut unknown);
            }
        }
        unknown
    }
}

/// Sections whose keys are the user's own.
const OPEN_SECTIONS: [&str; 2] = [
    "distributed.scheduler.default-task-durations",
    "distributed.scheduler.dashboard.bokeh-application",
];

/// Keys that stock plugins read although no default names them.
const EXTRA_KEYS: [&str; 1] = ["distributed.scheduler.jupyter"];

fn find_unknown(path: &str, user: &Tree, known: &Tree, unknown: &mut Vec<String>) {
    let (Tree::Map(entries), Tree::Map(_)) = (user, known) else {
        return;
    };
    if OPEN_SECTIONS.contains(&path) {
        return;
    }
    for (key, value) in entries {
        let path = format!("{path}.{}", key.replace('_', "-"));
        match known.get(key) {
            Some(known) => find_unknown(&path, value, known, unknown),
            None if EXTRA_KEYS.contains(&path.as_str()) => {}
            None => unknown.push(path),
        }
    }
}

/// The built-in defaults.
#[must_use]
pub fn defaults() -> Tree {
    // The text is part of the program; a test parses it.
    yaml::parse(include_str!("defaults.yaml")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_subset(path: &str, ours: &Tree, stock: &Tree) {
        if let Tree::Map(entries) = ours {
            for (key, value) in entries {
                let path = format!("{path}.{key}");
                let stock = stock
                    .get(key)
                    .unwrap_or_else(|| panic!("stock has no {path}"));
                assert_subset(&path, value, stock);
            }
        } else {
            assert_eq!(ours, stock, "{path}");
        }
    }

    /// `testdata/stock.json` is written by the installed distributed.
    #[test]
    fn defaults_are_stock_s() {
        let stock = literal::parse_json(include_str!("testdata/stock.json")).unwrap();
        let ours = defaults();
        assert_subset(
            "distributed",
            ours.get("distributed").unwrap(),
            stock.get("distributed").unwrap(),
        );
        assert_eq!(
            ours.get("distributed.scheduler"),
            stock.get("distributed.scheduler")
        );
    }

    #[test]
    fn user_settings_win_whatever_their_spelling() {
        let user =
            literal::parse_json(r#"{"distributed": {"scheduler": {"allowed_failures": 7}}}"#)
                .unwrap();
        let config = Config::from_user(user);
        assert_eq!(
            config.tree.get("distributed.scheduler.allowed-failures"),
            Some(&Tree::Int(7))
        );
        assert_eq!(
            config.tree.get("distributed.scheduler.worker-ttl"),
            Some(&Tree::Str("5 minutes".into()))
        );
        assert!(config.unknown_keys().is_empty());
    }

    #[test]
    fn misspelt_keys_are_found() {
        let user = literal::parse_json(
            r#"{"distributed": {"scheduler": {"work-staeling": false, "default-task-durations": {"inc": "1s"},
                "locks": {"lease": 1}}, "worker": {"anything": 1}}, "oxidask": {"graph": {"helper": 2}}}"#,
        )
        .unwrap();
        assert_eq!(
            Config::from_user(user).unknown_keys(),
            [
                "distributed.scheduler.locks.lease",
                "distributed.scheduler.work-staeling",
                "oxidask.graph.helper"
            ]
        );
    }
}
