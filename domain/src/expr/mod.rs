//! Templates and conditions: pure, deterministic, bounded.
