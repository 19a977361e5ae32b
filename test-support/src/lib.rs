//! Servers and folders that the tests of several crates share.
//!
//! - `nats`, `shut_cluster`: real nats-servers on loopback, each with its own folder.
//! - `crowd`: a model server that takes a number of calls at once and refuses the others.
//! - `kept_output`: folders of tests that are kept, to be searched for keys afterwards.
//!
//! Nothing here runs in production. Each part has a feature, so that a crate's tests build only
//! what they use.

#[cfg(feature = "model-server")]
pub mod crowd;
pub mod kept_output;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "nats")]
pub mod shut_cluster;
