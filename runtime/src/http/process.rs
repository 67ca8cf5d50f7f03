//! Figures of this process out of `/proc`, under the names every Prometheus client library uses.

use serde::Serialize;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Clock ticks per second in `/proc`: 100 on every Linux that matters (`USER_HZ` is part of its ABI).
const TICKS_PER_SECOND: f64 = 100.0;

/// One reading; figures that cannot be read are 0.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub(super) struct ProcessStats {
    pub virtual_memory_bytes: f64,
    pub resident_memory_bytes: f64,
    pub start_time_seconds: f64,
    pub cpu_seconds_total: f64,
    pub open_fds: f64,
    pub max_fds: f64,
    pub threads: f64,
    /// Now, seconds since the epoch: lets a poller compute rates.
    pub time: f64,
}

impl ProcessStats {
    pub(super) fn read() -> Self {
        let mut stats = Self {
            open_fds: fs::read_dir("/proc/self/fd").map_or(0.0, |entries| entries.count() as f64),
            max_fds: max_fds(),
            time: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |d| d.as_secs_f64()),
            ..Self::default()
        };
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        stats.virtual_memory_bytes = status_field(&status, "VmSize:") * 1024.0;
        stats.resident_memory_bytes = status_field(&status, "VmRSS:") * 1024.0;
        stats.threads = status_field(&status, "Threads:");
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field is the program's name in parentheses and may hold anything.
        let fields: Vec<f64> = stat
            .rsplit_once(')')
            .map(|(_, rest)| {
                rest.split_whitespace()
                    .map(|f| f.parse().unwrap_or(0.0))
                    .collect()
            })
            .unwrap_or_default();
        let ticks = |field: usize| fields.get(field - 3).copied().unwrap_or(0.0) / TICKS_PER_SECOND;
        stats.cpu_seconds_total = ticks(14) + ticks(15);
        stats.start_time_seconds = boot_time() + ticks(22);
        stats
    }
}

fn status_field(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

fn boot_time() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    status_field(&stat, "btime")
}

fn max_fds() -> f64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0.0, |(soft, _)| soft as f64)
}
