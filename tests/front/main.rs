//! The front doors of the real binary: in front of a fixture server, a real model, and with the
//! SDKs that they are made for.

mod doors;
mod harness;
mod privacy;
mod sdk;
mod upstream;
