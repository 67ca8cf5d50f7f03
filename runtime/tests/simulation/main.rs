//! A seeded simulation of the scheduler's core with workers, clients and faults in virtual time.
//!
//! Every event is followed by a check of all invariants; in the end all results must be there and right, and nothing
//! may be left once nobody wants anything. `OXIDASK_SIM_SEED=n` replays one seed and prints what happens,
//! `OXIDASK_SIM_SEEDS=n` runs that many instead of the usual number, `OXIDASK_SIM_FROM=n` starts elsewhere.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod book;
mod client;
mod ending;
mod graphs;
mod machine;
mod process;
mod rng;
mod scenario;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Seeds of an ordinary run, about ten seconds. Longer runs still find rare cases, about three in a thousand.
const SEEDS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn seeds() {
    if let Some(seed) = number("OXIDASK_SIM_SEED") {
        world::World::new(seed, true).run();
        return;
    }
    let from = number("OXIDASK_SIM_FROM").unwrap_or(0);
    let count = number("OXIDASK_SIM_SEEDS").unwrap_or(SEEDS);
    let start = Instant::now();
    let mut failed = Vec::new();
    let mut events = 0;
    std::panic::set_hook(Box::new(|_| {}));
    for seed in from..from + count {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut world = world::World::new(seed, false);
            world.run();
            world.events
        }));
        match result {
            Ok(n) => events += n,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
                failed.push((seed, text.unwrap_or_default()));
                if failed.len() >= 20 {
                    break;
                }
            }
        }
    }
    let _ = std::panic::take_hook();
    println!("{count} seeds, {events} events in {:.1?}", start.elapsed());
    for (seed, text) in &failed {
        println!("seed {seed}: {text}");
    }
    if let Some((seed, _)) = failed.first() {
        panic!(
            "{} seeds fail; see with: OXIDASK_SIM_SEED={seed} cargo test -p oxidask-runtime --test simulation -- --nocapture",
            failed.len()
        );
    }
}
