//! A made-up scheduler for tests and for looking at the dashboard: its figures move with the clock.

use super::view::*;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

pub(super) const NASTY: &str = "('<script>alert(\"x\")</script>', 0)";

pub(super) struct FakeView {
    started: f64,
    pub(super) events: broadcast::Sender<Arc<StreamEvent>>,
    pub(super) retired: Mutex<Vec<RetireRequest>>,
}

impl FakeView {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: now() - 95.0,
            events: broadcast::channel(64).0,
            retired: Mutex::default(),
        })
    }

    fn age(&self) -> f64 {
        now() - self.started
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

fn ready<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(value))
}

/// A repeatable number in 0..1.
fn noise(seed: u64) -> f64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03;
    x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x >> 11) as f64 / (1u64 << 53) as f64
}

const PREFIXES: [(&str, u64, f64); 8] = [
    ("read-parquet", 480, 0.45),
    ("fused-transform", 480, 0.2),
    ("shuffle-transfer", 480, 0.25),
    ("shuffle-barrier", 1, 0.01),
    ("shuffle_p2p", 480, 0.3),
    ("groupby-aggregate-chunk", 480, 0.12),
    ("aggregate-tree-reduce", 64, 0.3),
    ("finalize-<b>evil</b>", 1, 0.1),
];

fn worker(i: u64, age: f64) -> WorkerRow {
    let gib = 1u64 << 30;
    let wave = 0.5 + 0.5 * (age / 9.0 + i as f64).sin();
    let managed = (2.2 * gib as f64 * wave) as u64 + i * gib / 9;
    WorkerRow {
        address: format!("tcp://10.0.0.{}:{}", 11 + i, 40_000 + 13 * i),
        name: if i == 3 {
            json!("gpu-worker-<i>3</i>")
        } else {
            json!(i)
        },
        host: format!("10.0.0.{}", 11 + i),
        status: if i == 7 { "paused" } else { "running" }.into(),
        nthreads: 4,
        memory_limit: 8 * gib,
        managed,
        unmanaged_old: gib / 2,
        unmanaged_recent: gib / 5 * (i % 4),
        memory: managed + gib / 2 + gib / 5 * (i % 4),
        spilled: if i == 7 { 3 * gib } else { 0 },
        nbytes: managed + if i == 7 { 3 * gib } else { 0 },
        cpu: 400.0 * (0.35 + 0.6 * noise(i + age as u64 * 31)),
        occupancy: 3.0 + 40.0 * noise(i),
        processing: 4 + (18.0 * noise(i + age as u64)) as u64,
        executing: 4,
        in_memory: 120 + i,
        last_seen_ago: if i == 9 { 75.0 } else { noise(i + age as u64) },
        dashboard_port: Some(40_001),
        net_read: 8e7 * noise(i + 5 + age as u64),
        net_write: 6e7 * noise(i + 9 + age as u64),
        disk_read: 2e6,
        disk_write: 3e6 * noise(i),
        num_fds: 60 + i,
    }
}

/// Progress of all prefixes at a moment: they follow each other, overlapping.
fn progress(age: f64) -> Vec<PrefixProgress> {
    let row = |(i, (name, total, duration)): (usize, &(&str, u64, f64))| {
        let share = ((age % 160.0 - 14.0 * i as f64) / 55.0).clamp(0.0, 1.0);
        let done = (share * *total as f64) as u64;
        let released = (((share - 0.35) / 0.65).clamp(0.0, 1.0) * done as f64 * 0.9) as u64;
        let processing = (total - done).min(if share > 0.0 && share < 1.0 { 40 } else { 0 });
        let erred = u64::from(i == 5 && done > 40) * 6;
        let rest = (total - done - processing).saturating_sub(erred);
        PrefixProgress {
            name: (*name).into(),
            memory: done - released,
            released,
            processing,
            waiting: if i == 0 { 0 } else { rest },
            queued: if i == 0 { rest } else { 0 },
            no_worker: 0,
            erred,
            nbytes: (done - released) * 64_000_000,
            duration: *duration,
        }
    };
    PREFIXES.iter().enumerate().map(row).collect()
}

const THREADS: u64 = 40;

/// Record `n` of the endless task stream: every thread runs one task after the other.
fn record(started: f64, n: u64) -> StreamRecord {
    let thread = n % THREADS;
    let turn = n / THREADS;
    let start = started + (turn as f64 + noise(thread)) * 0.5;
    let phase = ((turn as f64 * 0.5 / 14.0) as usize).min(PREFIXES.len() - 1);
    let which = if noise(n) < 0.3 {
        phase.saturating_sub(1)
    } else {
        phase
    };
    let (name, ..) = PREFIXES[which];
    let begin = start + 0.08 * noise(n + 1);
    let compute = 0.12 + 0.25 * noise(n + 2);
    let span = |action: &str, start: f64, stop: f64| StartStop {
        action: action.into(),
        start,
        stop,
    };
    let mut startstops = Vec::new();
    if which >= 2 {
        startstops.push(span("transfer", start - 0.02, begin));
    }
    if noise(n + 3) < 0.05 {
        startstops.push(span("disk-read", begin - 0.03, begin));
    }
    startstops.push(span("compute", begin, begin + compute));
    if noise(n + 4) < 0.08 {
        startstops.push(span("disk-write", begin + compute, begin + compute + 0.04));
    }
    StreamRecord {
        key: format!("('{name}-0a1b2c', {n})"),
        name: name.into(),
        worker: format!(
            "tcp://10.0.0.{}:{}",
            11 + thread / 4,
            40_000 + 13 * (thread / 4)
        ),
        thread: 139_000_000_000_000 + thread,
        erred: which == 5 && noise(n + 6) < 0.1,
        startstops,
    }
}

impl StateView for FakeView {
    fn counts(&self) -> Answer<'_, Counts> {
        ready(Counts {
            bytes: 5,
            clients: 2,
            cores: 40,
            tasks: 100,
            workers: 10,
            desired_workers: 12,
            ..Counts::default()
        })
    }

    fn identity(&self) -> Answer<'_, Value> {
        ready(
            json!({"type": "Scheduler", "id": "Scheduler-fake", "address": "tcp://10.0.0.1:8786", "workers": {}}),
        )
    }

    fn metrics(&self) -> Answer<'_, Metrics> {
        ready(Metrics {
            clients: 1,
            desired_workers: 12,
            workers_idle: 2,
            task_states: vec![
                ("released", 1),
                ("waiting", 2),
                ("memory", 3),
                ("forgotten", 4),
            ],
            tasks_forgotten: 4,
            prefixes: vec![
                PrefixMetrics {
                    name: "inc".into(),
                    compute_seconds: 1.5,
                    state_counts: vec![("memory", 7)],
                    ..Default::default()
                },
                PrefixMetrics {
                    name: "a\"b\\c\nd".into(),
                    nbytes: 10,
                    ..Default::default()
                },
            ],
            semaphores: vec![SemaphoreMetrics {
                name: "lock".into(),
                max_leases: 1,
                ..Default::default()
            }],
            stealing: vec![StealingMetrics {
                cost_multiplier: "1.03125".into(),
                requests: 3,
                cost: 0.5,
            }],
            tick_duration_maximum_seconds: 0.01,
            tick_count: 12,
            ..Metrics::default()
        })
    }

    fn overview(&self) -> Answer<'_, Overview> {
        let age = self.age();
        ready(Overview {
            cluster: ClusterSummary {
                address: "tcp://10.0.0.1:8786".into(),
                id: "Scheduler-4f1c".into(),
                started: self.started,
                clients: 2,
                idle: 1,
                saturated: 4,
                desired_workers: 12,
                occupancy: 220.0,
                task_groups: 8,
                transitions: (age * 2300.0) as u64,
                tick_seconds: 0.0013,
            },
            workers: (0..10).map(|i| worker(i, age)).collect(),
            progress: progress(age),
        })
    }

    fn worker(&self, address: String, _: usize) -> Answer<'_, Option<WorkerDetail>> {
        let row = (0..10)
            .map(|i| worker(i, self.age()))
            .find(|row| row.address == address);
        ready(row.map(|row| WorkerDetail {
            row,
            has_what: vec![(NASTY.into(), 10)],
            processing: vec![("x".into(), "(0, 1, 2)".into())],
            resources: vec![("GPU".into(), 1.0, 2.0)],
        }))
    }

    fn task(&self, key: String, _: usize) -> Answer<'_, Option<TaskDetail>> {
        ready((key == NASTY || key == "a b").then(|| TaskDetail {
            key,
            state: "erred".into(),
            processing_on: Some("tcp://10.0.0.11:40000".into()),
            priority: "(0, 1, 2)".into(),
            exception_text: "ValueError('<b>')".into(),
            traceback_text: "File \"<stdin>\"".into(),
            dependencies: vec![("a/b".into(), "memory".into())],
            story: vec![StoryRow {
                key: "k".into(),
                recommendations: vec![("r".into(), "memory".into())],
                ..Default::default()
            }],
            ..TaskDetail::default()
        }))
    }

    fn task_stream(&self, since: u64, limit: usize) -> Answer<'_, StreamPage> {
        let next = ((self.age() - 0.5) / 0.5) as u64 * THREADS;
        let first = since.max(next.saturating_sub(limit as u64));
        ready(StreamPage {
            next,
            records: (first..next).map(|n| record(self.started, n)).collect(),
        })
    }

    fn graph(&self, limit: usize) -> Answer<'_, GraphView> {
        let mut nodes = Vec::new();
        let mut edges = Vec::new();
        let states = [
            "memory",
            "memory",
            "released",
            "processing",
            "waiting",
            "erred",
        ];
        for layer in 0..6usize {
            for i in 0..(24usize >> (layer / 2)) {
                let n = nodes.len() as u32;
                let state = states[(layer + i) % 6];
                nodes.push(GraphNode {
                    key: format!("('l{layer}', {i})"),
                    name: PREFIXES[layer].0.into(),
                    state,
                });
                if layer > 0 {
                    let below = 24u32 >> ((layer - 1) / 2);
                    let base = n - i as u32 - below;
                    let width = below / (24 >> (layer as u32 / 2));
                    edges.extend((0..width).map(|j| (base + i as u32 * width + j, n)));
                }
            }
        }
        ready(if nodes.len() > limit {
            GraphView {
                total: nodes.len() as u64,
                ..Default::default()
            }
        } else {
            GraphView {
                total: nodes.len() as u64,
                nodes,
                edges,
            }
        })
    }

    fn events(&self, limit: usize) -> Answer<'_, Vec<EventRow>> {
        let topics = ["all", "tcp://10.0.0.11:40000", "stealing", "scheduler"];
        let row = |i: usize| EventRow {
            time: now() - i as f64 * 1.7,
            topic: topics[i % 4].into(),
            text: format!("{{\"action\": \"add-worker\", \"n\": {i}, \"x\": \"<img src=x>\"}}"),
        };
        ready((0..40.min(limit)).map(row).collect())
    }

    fn erred_tasks(&self, _: usize) -> Answer<'_, Vec<ErredTask>> {
        ready(vec![ErredTask {
            key: NASTY.into(),
            time: now() - 5.0,
            erred_on: vec!["tcp://10.0.0.11:40000".into()],
            exception_text: "ZeroDivisionError('<i>division by zero</i>')".into(),
            traceback_text: "  File \"x.py\", line 1, in f\n    1 / 0\n".into(),
        }])
    }

    fn logs(&self, _: usize) -> Answer<'_, Vec<LogLine>> {
        let line = |level: &str, text: &str| LogLine {
            level: level.into(),
            text: format!("2026-11-24 01:17:20,123 - oxidask.net - {level} - {text}"),
        };
        ready(vec![
            line("WARNING", "worker <b>gone</b>"),
            line("INFO", "Scheduler at: tcp://10.0.0.1:8786"),
            line("ERROR", "x"),
        ])
    }

    fn worker_logs(&self, address: String) -> Answer<'_, Result<Option<Vec<LogLine>>, ViewError>> {
        ready(match address.as_str() {
            "broken" => Err(ViewError("worker <does> not answer".into())),
            "w" => Ok(Some(Vec::new())),
            _ => Ok(None),
        })
    }

    fn call_stacks(
        &self,
        of: CallStackOf,
    ) -> Answer<'_, Result<Option<Vec<CallStack>>, ViewError>> {
        ready(Ok(match of {
            CallStackOf::Worker(w) if w == "w" => Some(vec![CallStack {
                worker: w,
                key: NASTY.into(),
                frames: vec!["File <x>".into()],
            }]),
            CallStackOf::Task(t) if t == "idle" => Some(Vec::new()),
            _ => None,
        }))
    }

    fn retire_workers(&self, which: RetireRequest) -> Answer<'_, Result<Value, ViewError>> {
        self.retired.lock().unwrap().push(which);
        ready(Ok(json!({"tcp://10.0.0.11:40000": {"type": "Worker"}})))
    }

    fn adaptive_target(&self) -> Answer<'_, Result<u64, ViewError>> {
        ready(Ok(12))
    }

    fn check_idle(&self) -> Answer<'_, Result<Option<f64>, ViewError>> {
        ready(Ok(None))
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<StreamEvent>> {
        self.events.subscribe()
    }
}
