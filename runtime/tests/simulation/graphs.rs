//! Random graphs, some of which share keys with earlier ones or clash with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use oxidask_runtime::graph::{DATA_PRODUCER, Graph, SpecTemplate};
use oxidask_runtime::protocol::{Key, Value};
use oxidask_runtime::scheduler::Actors;

use crate::book::Spec;
use crate::client::{FromClient, View};
use crate::machine::K;
use crate::wire::run_spec;
use crate::world::World;

impl World {
    /// A client submits a graph and keeps futures of some of its tasks.
    pub fn submit(&mut self, c: usize) {
        self.graphs += 1;
        let mut nodes: Vec<(K, u32)> = Vec::new();
        if self.rng.chance(self.scenario.reuse) {
            self.reuse(&mut nodes);
        }
        let fresh = self.new_tasks(c, &mut nodes);
        if self.rng.chance(self.scenario.collisions) {
            self.collide(&mut nodes);
        }
        if nodes.is_empty() {
            return;
        }
        let mut wanted: Vec<K> = Vec::new();
        for (k, _) in &nodes {
            let needed = nodes
                .iter()
                .any(|(_, s)| self.book.specs[*s as usize].dependencies.contains(k));
            if self.rng.chance(if needed { 0.1 } else { 0.95 }) {
                wanted.push(*k);
            }
        }
        let keys = self.keys(&wanted);
        let actors = match (self.rng.chance(self.scenario.actors), self.rng.chance(0.5)) {
            (true, true) => Actors::All,
            (true, false) => Actors::Keys(keys.first().cloned().into_iter().collect()),
            _ => Actors::None,
        };
        let mut graph = self.build(&nodes);
        self.annotate(&mut graph, &fresh);
        self.log(|| {
            let list: Vec<_> = nodes
                .iter()
                .map(|(k, s)| (k, s, &self.book.specs[*s as usize].dependencies))
                .collect();
            format!("client {c} submits {list:?}, wants {wanted:?}")
        });
        for k in wanted {
            self.clients[c].futures.entry(k).or_insert(View::Pending);
        }
        let user_priority = [0.0, 0.0, 1.0, -5.0][self.rng.below(4)];
        let msg = FromClient::Graph {
            graph,
            keys,
            actors,
            user_priority,
        };
        self.send_from_client(c, msg);
    }

    /// Tasks of earlier graphs, with all they need.
    fn reuse(&mut self, nodes: &mut Vec<(K, u32)>) {
        for _ in 0..self.rng.range(1, 3) {
            let Some(start) = self.rng.pick(&self.book.specs).map(|s| s.key) else {
                return;
            };
            let mut stack = vec![start];
            while let Some(k) = stack.pop() {
                if nodes.iter().any(|(have, _)| *have == k) {
                    continue;
                }
                let Some(specs) = self.book.by_key.get(&k) else {
                    continue;
                };
                let spec = specs[0];
                nodes.push((k, spec));
                stack.extend(&self.book.specs[spec as usize].dependencies);
            }
        }
    }

    fn new_tasks(&mut self, c: usize, nodes: &mut Vec<(K, u32)>) -> Vec<K> {
        let mut fresh = Vec::new();
        let futures: Vec<K> = self.clients[c].futures.keys().copied().collect();
        for g in 0..self.rng.range(0, 4) {
            let name = ["load", "inc", "sum", "rechunk-split", "x"][self.rng.below(5)];
            let group = format!("{name}-{:08x}", self.graphs * 16 + g);
            let many = if self.rng.chance(0.2) { 20 } else { 6 };
            let fan_in = self.rng.range(0, 3);
            let earlier: Vec<K> = nodes.iter().map(|(k, _)| *k).collect();
            for i in 0..self.rng.range(1, many) {
                let key = if self.rng.chance(0.5) {
                    let parts = vec![Value::from(group.as_str()), Value::from(i as i64)];
                    Key::from_value(&Value::Array(parts)).expect("a key")
                } else {
                    Key::new_str(&format!("{group}-{i}"))
                };
                let mut dependencies = Vec::new();
                for _ in 0..fan_in {
                    let pool = if self.rng.chance(0.1) {
                        &futures
                    } else {
                        &earlier
                    };
                    if let Some(d) = self.rng.pick(pool)
                        && !dependencies.contains(d)
                    {
                        dependencies.push(*d);
                    }
                }
                let k = self.book.number(&key);
                let spec = self.draw_spec(k, dependencies);
                fresh.push(k);
                let id = self.book.define(spec);
                nodes.push((k, id));
            }
        }
        fresh
    }

    fn draw_spec(&mut self, key: K, dependencies: Vec<K>) -> Spec {
        let s = &self.scenario;
        let (fails, doomed, kills) = (s.fails, s.doomed, s.kills);
        let (reschedules, secedes, mean) = (s.reschedules, s.secedes, s.task_seconds);
        let mut times = |p: f64, max: usize| match self.rng.chance(p) {
            true => self.rng.range(1, max) as u32,
            false => 0,
        };
        let (fails, kills, reschedules) = (times(fails, 3), times(kills, 6), times(reschedules, 2));
        Spec {
            key,
            dependencies,
            seconds: self.rng.delay(mean),
            nbytes: if self.rng.chance(0.1) {
                50_000_000
            } else {
                100 + i64::from(key)
            },
            fails,
            doomed: self.rng.chance(doomed),
            reschedules,
            kills,
            secedes: self.rng.chance(secedes),
        }
    }

    /// Gives a known key of this graph another definition.
    fn collide(&mut self, nodes: &mut [(K, u32)]) {
        let n = nodes.len();
        if n < 2 {
            return;
        }
        let at = self.rng.below(n);
        let k = nodes[at].0;
        let earliest = nodes.iter().map(|(k, _)| *k).filter(|d| *d < k);
        let earliest: Vec<K> = earliest.collect();
        let dependencies = self.rng.pick(&earliest).copied().into_iter().collect();
        let spec = self.draw_spec(k, dependencies);
        nodes[at].1 = self.book.define(spec);
    }

    fn build(&mut self, nodes: &[(K, u32)]) -> Graph {
        let template = Arc::new(SpecTemplate {
            before: Bytes::new(),
            after: Bytes::new(),
        });
        let places: BTreeMap<K, u32> = nodes
            .iter()
            .enumerate()
            .map(|(i, (k, _))| (*k, i as u32))
            .collect();
        let mut graph = Graph {
            dep_offsets: vec![0],
            ..Graph::default()
        };
        let mut externals: Vec<K> = Vec::new();
        let mut flags = Vec::new();
        for (k, spec) in nodes {
            graph.keys.push(self.book.key(*k).clone());
            graph.specs.push(run_spec(&template, *spec));
            flags.push(if self.rng.chance(0.03) {
                DATA_PRODUCER
            } else {
                0
            });
            for d in &self.book.specs[*spec as usize].dependencies {
                let place = match places.get(d) {
                    Some(i) => *i,
                    None => {
                        let at = externals.iter().position(|e| e == d);
                        let at = at.unwrap_or_else(|| {
                            externals.push(*d);
                            externals.len() - 1
                        });
                        (nodes.len() + at) as u32
                    }
                };
                graph.deps.push(place);
            }
            graph.dep_offsets.push(graph.deps.len() as u32);
        }
        graph.flags = flags;
        graph.externals = self.keys(&externals);
        graph
    }

    fn annotate(&mut self, graph: &mut Graph, fresh: &[K]) {
        let mut lists: BTreeMap<&str, Vec<(u32, Value)>> = BTreeMap::new();
        for i in 0..graph.keys.len() as u32 {
            if !fresh.contains(&self.book.number(&graph.keys[i as usize])) {
                continue;
            }
            if self.rng.chance(0.1) {
                let p = Value::from(self.rng.below(5) as i64 - 2);
                lists.entry("priority").or_default().push((i, p));
            }
            if self.rng.chance(0.1) {
                let n = Value::from(self.rng.below(4) as i64);
                lists.entry("retries").or_default().push((i, n));
            }
            if !self.rng.chance(self.scenario.restricted) {
                continue;
            }
            let at = self.rng.below(self.slots.len());
            let slot = &self.slots[at];
            if self.rng.chance(0.5) && !slot.resources.is_empty() {
                let (name, have) = &slot.resources[0];
                let amount = have * [0.25, 0.5, 1.0][self.rng.below(3)];
                let map = Value::map([(&**name, Value::from(amount))]);
                lists.entry("resources").or_default().push((i, map));
            }
            if self.rng.chance(0.6) {
                let text = match self.rng.below(3) {
                    0 => slot.address.to_string(),
                    1 => slot.name.clone(),
                    _ => slot.host.to_string(),
                };
                let list = Value::Array(vec![text.as_str().into()]);
                lists.entry("workers").or_default().push((i, list));
                let loose = Value::from(self.rng.chance(0.3));
                lists
                    .entry("allow_other_workers")
                    .or_default()
                    .push((i, loose));
            }
        }
        graph.annotations = lists.into_iter().map(|(n, l)| (n.to_string(), l)).collect();
    }
}
