//! temporary
use super::state::State;
use super::*;
use crate::protocol::{Key, Value};
#[derive(Default)]
pub struct ReplicatePlan {
    pub missing: Vec<Key>,
    pub deletions: Vec<(String, Vec<Key>)>,
    pub copies: Vec<(String, Vec<(Key, Vec<String>)>)>,
}
pub struct Move {
    pub key: Key,
    pub sender: String,
    pub recipient: String,
}
#[derive(Default)]
pub struct RebalancePlan {
    pub missing: Option<Vec<Key>>,
    pub moves: Vec<Move>,
}
impl State {
    pub fn check_idle(&self) -> Option<f64> {
        None
    }
    pub fn plan_replicate(
        &self,
        _k: &[Key],
        _n: Option<usize>,
        _w: Option<&[String]>,
        _b: usize,
        _d: bool,
        _s: &std::collections::HashSet<Key>,
    ) -> ReplicatePlan {
        Default::default()
    }
    pub fn plan_rebalance(&self, _k: Option<&[Key]>, _w: Option<&[String]>) -> RebalancePlan {
        Default::default()
    }
    pub fn begin_retire(&mut self, _ids: &[WorkerId]) {}
    pub fn poll_retire(&mut self, _id: WorkerId) -> retire::RetireStep {
        retire::RetireStep::Done
    }
    pub fn finish_retire(&mut self, _id: WorkerId, _c: bool, _r: bool) {}
    pub fn workers_to_close(
        &self,
        _r: Option<f64>,
        _n: Option<usize>,
        _m: Option<usize>,
        _t: Option<usize>,
    ) -> Vec<WorkerId> {
        vec![]
    }
    pub fn adaptive_target(&self, _t: f64) -> u64 {
        0
    }
    pub fn amm_start(&mut self) {}
    pub fn amm_stop(&mut self) {}
    pub fn amm_run_once(&mut self) {}
    pub fn amm_running(&self) -> bool {
        true
    }
    pub fn memory_sampler_start(&mut self, _c: &str, _m: &str, _i: f64) -> Result<String, String> {
        Ok("".into())
    }
    pub fn memory_sampler_stop(&mut self, _k: &str) -> Option<Vec<(f64, i64)>> {
        None
    }
    pub fn start_collecting_metadata(&mut self) -> f64 {
        0.0
    }
    pub fn stop_collecting_metadata(&mut self, _s: f64) -> Value {
        Value::Nil
    }
}
