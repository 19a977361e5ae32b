//! The contract of a log: the same laws on every provider, and what only files and servers can
//! suffer.

mod embedded;
mod jetstream;
mod laws;
mod nats;
mod support;
