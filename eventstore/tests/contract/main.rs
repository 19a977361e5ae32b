//! The contract of a log: the same laws on every provider, and what only files and servers can
//! suffer.

mod archive;
mod crash;
mod embedded;
mod faults;
mod forgetful;
mod fuse;
mod gate;
mod jetstream;
mod local;
mod model;
mod power;
mod proxy;
mod run_file;
mod servers;
mod shares;
mod strangers;
mod support;
mod transcript;
mod writers;
