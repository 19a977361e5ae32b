//! The contract of a log: the same laws on every provider, and what only files and servers can
//! suffer.

mod archive;
mod crash;
mod embedded;
mod faults;
mod gate;
mod jetstream;
mod laws;
mod nats;
mod proxy;
mod support;
mod transcript;
mod workload;
