//! The front doors of the real binary: in front of a fixture server, a real model, and with the
//! SDKs that they are made for.

mod crowded;
mod doors;
mod harness;
mod models;
mod privacy;
mod sdk;
mod services;
mod upstream;
mod upstream_services;
