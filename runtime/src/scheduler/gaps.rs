//! temporary
use super::state::State;
use crate::protocol::Value;

impl State {
    pub fn start_collecting_metadata(&mut self) -> f64 {
        0.0
    }
    pub fn stop_collecting_metadata(&mut self, _s: f64) -> Value {
        Value::Nil
    }
}
