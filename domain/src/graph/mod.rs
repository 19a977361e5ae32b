//! The graph noun: manifests, their validation and their versions.

pub mod manifest;
