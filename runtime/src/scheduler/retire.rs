//! temporary
pub enum RetireStep {
    Pending { again_s: f64 },
    Aborted { reason: &'static str },
    Done,
}
