//! What a seed stands for: the size of the cluster and how rough the world is.

use oxidask_runtime::scheduler::CoreConfig;

use crate::rng::Rng;

/// Chances and rates of one run.
#[derive(Debug)]
pub struct Scenario {
    pub slots: usize,
    pub max_threads: usize,
    pub hosts: usize,
    pub clients: usize,
    /// Things clients do.
    pub actions: usize,
    /// Mean seconds between two of them.
    pub pace: f64,
    /// Mean seconds of a task.
    pub task_seconds: f64,
    /// Mean seconds a message travels.
    pub latency: f64,
    /// Per second and worker.
    pub death_rate: f64,
    pub pause_rate: f64,
    pub retire_rate: f64,
    /// Per transfer.
    pub busy: f64,
    /// Per task.
    pub fails: f64,
    pub doomed: f64,
    pub kills: f64,
    pub reschedules: f64,
    pub secedes: f64,
    pub restricted: f64,
    /// Per graph.
    pub collisions: f64,
    pub actors: f64,
    pub reuse: f64,
    /// Per client action.
    pub scatter: f64,
    pub cancel: f64,
    pub release: f64,
    pub retry: f64,
    pub reconnect: f64,
    /// Chance that messages wait for the next event before they are written.
    pub deferred: f64,
    /// Messages of removed workers still arrive.
    pub stale_messages: bool,
    pub config: CoreConfig,
}

impl Scenario {
    pub fn draw(rng: &mut Rng) -> Self {
        // Each kind of trouble is absent from many runs, so that the others are seen undisturbed.
        let some = |rng: &mut Rng, p: f64, max: f64| {
            if rng.chance(p) { rng.unit() * max } else { 0.0 }
        };
        let mut config = CoreConfig {
            allowed_failures: rng.below(4) as u32,
            low_level_log_length: 50,
            task_stream_length: 10,
            ..CoreConfig::default()
        };
        config.worker_saturation = [1.1, 1.1, 1.0, 2.0, 0.5, f64::INFINITY][rng.below(6)];
        config.work_stealing = rng.chance(0.7);
        config.amm_start = rng.chance(0.7);
        Self {
            slots: rng.range(1, 6),
            max_threads: rng.range(1, 4),
            hosts: rng.range(1, 3),
            clients: rng.range(1, 3),
            actions: rng.range(4, 25),
            pace: 0.05 + rng.unit() * 0.5,
            task_seconds: 0.01 + rng.unit() * rng.unit(),
            latency: 0.001 + rng.unit() * 0.1,
            death_rate: some(rng, 0.5, 0.3),
            pause_rate: some(rng, 0.3, 0.3),
            retire_rate: some(rng, 0.3, 0.1),
            busy: some(rng, 0.3, 0.4),
            fails: some(rng, 0.4, 0.2),
            doomed: some(rng, 0.3, 0.1),
            kills: some(rng, 0.2, 0.1),
            reschedules: some(rng, 0.3, 0.2),
            secedes: some(rng, 0.3, 0.3),
            restricted: some(rng, 0.4, 0.4),
            collisions: some(rng, 0.2, 0.5),
            actors: some(rng, 0.2, 0.4),
            reuse: some(rng, 0.7, 0.6),
            scatter: some(rng, 0.4, 0.3),
            cancel: some(rng, 0.4, 0.3),
            release: some(rng, 0.7, 0.6),
            retry: some(rng, 0.5, 0.4),
            reconnect: some(rng, 0.3, 0.2),
            deferred: some(rng, 0.3, 0.5),
            stale_messages: rng.chance(0.5),
            config,
        }
    }
}
