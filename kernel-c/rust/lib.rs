//! The deterministic C kernel and its safe wrapper.
