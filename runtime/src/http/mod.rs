//! Placeholder module, filled in by the following commits.
