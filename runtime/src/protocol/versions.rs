//! Comparison of package versions between scheduler, workers and a newcomer.

use super::{Str, Value, repr};
use std::collections::{BTreeMap, BTreeSet};

/// Packages of which the scheduler's own version matters.
/// Stock Dask means to leave msgpack out, but does not.
const SCHEDULER_RELEVANT: [&str; 8] = [
    "cloudpickle",
    "dask",
    "distributed",
    "lz4",
    "msgpack",
    "python",
    "toolz",
    "tornado",
];

/// The packages of one node; `None` when it said nothing about them.
type Packages<'a> = Option<BTreeMap<&'a str, Str>>;

/// The warning that the newcomer shows to its user, empty when all versions agree.
///
/// Every argument has the form of `get_versions()`: a map with `packages`, or nil for a node that did not say. The
/// text is that of `distributed.versions.error_message`; where workers differ among themselves, their versions are
/// sorted.
pub fn error_message<'a>(
    scheduler: &'a Value,
    workers: impl IntoIterator<Item = &'a Value>,
    source: &'a Value,
    source_name: &str,
) -> String {
    let scheduler = packages(scheduler);
    let source = packages(source);
    // A cluster has few different sets of versions and many workers.
    let workers: BTreeSet<Packages<'_>> = workers.into_iter().map(packages).collect();
    let mut names = BTreeSet::new();
    for node in workers.iter().chain([&scheduler, &source]) {
        match node {
            Some(packages) => names.extend(packages.keys().copied()),
            // Stock Dask adds the letters of "UNKNOWN" as packages; only so does a node without versions show up.
            None => names.extend(["K", "N", "O", "U", "W"]),
        }
    }
    let rows: Vec<[String; 4]> = names
        .into_iter()
        .filter_map(|name| row(name, &scheduler, &workers, &source))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "Mismatched versions found\n\n{}",
        ascii_table(["Package", source_name, "Scheduler", "Workers"], &rows)
    )
}

fn row<'a>(
    name: &str,
    scheduler: &Packages<'a>,
    workers: &BTreeSet<Packages<'a>>,
    source: &Packages<'a>,
) -> Option<[String; 4]> {
    let on_scheduler = version(scheduler, name);
    let on_source = version(source, name);
    let on_workers: BTreeSet<Str> = workers.iter().map(|worker| version(worker, name)).collect();
    let mut all = on_workers.clone();
    all.insert(on_source.clone());
    if SCHEDULER_RELEVANT.contains(&name) {
        all.insert(on_scheduler.clone());
    }
    if all.len() <= 1 {
        return None;
    }
    let on_workers = match on_workers.len() {
        0 => "None".to_owned(),
        1 => on_workers.first().map(plain).unwrap_or_default(),
        _ => format!(
            "{{{}}}",
            on_workers
                .iter()
                .map(Str::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    Some([
        name.to_owned(),
        plain(&on_source),
        plain(&on_scheduler),
        on_workers,
    ])
}

/// The `repr` of a node's version of a package.
fn version(node: &Packages<'_>, name: &str) -> Str {
    match node {
        None => Str::new_static("'UNKNOWN'"),
        Some(packages) => packages
            .get(name)
            .cloned()
            .unwrap_or(Str::new_static("'MISSING'")),
    }
}

/// `str(version)` of the `repr`: a text loses its quotes.
fn plain(version: &Str) -> String {
    let text = version
        .strip_prefix('\'')
        .and_then(|v| v.strip_suffix('\''));
    text.unwrap_or(version).to_owned()
}

fn packages(node: &Value) -> Packages<'_> {
    let entries = node.get("packages")?.as_map()?;
    let mut out = BTreeMap::new();
    for (name, version) in entries {
        if let Some(name) = name.as_str() {
            out.insert(name, Str::from(repr::repr(version)));
        }
    }
    Some(out)
}

fn ascii_table(columns: [&str; 4], rows: &[[String; 4]]) -> String {
    let widths: [usize; 4] = std::array::from_fn(|i| {
        let cells = rows.iter().map(|row| row[i].chars().count());
        cells.chain([columns[i].chars().count()]).max().unwrap_or(0)
    });
    let line = |cells: [&str; 4]| {
        let mut out = String::from("|");
        for (cell, width) in cells.iter().zip(widths) {
            out.push_str(&format!(" {cell:<width$} |"));
        }
        out
    };
    let bar = format!("+{}+", widths.map(|width| "-".repeat(width + 2)).join("+"));
    let mut lines = vec![bar.clone(), line(columns), bar.clone()];
    lines.extend(
        rows.iter()
            .map(|row| line(row.each_ref().map(String::as_str))),
    );
    lines.push(bar);
    lines.join("\n")
}
