//! Scheduler core.
