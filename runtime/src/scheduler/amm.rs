//! Active memory manager.

use super::config::CoreConfig;

/// Books of the active memory manager.
#[derive(Debug)]
pub struct Amm {
    /// Runs periodically.
    pub running: bool,
}

impl Amm {
    /// As configured.
    pub fn new(config: &CoreConfig) -> Self {
        Self {
            running: config.amm_start,
        }
    }
}
