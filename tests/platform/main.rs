//! The binary as its users meet it: crashes, load, idempotency, bad input.

mod archive;
mod cli;
mod cluster;
mod crash;
mod detach;
mod full_disk;
mod harness;
mod load;
#[path = "../../eventstore/tests/contract/nats.rs"]
#[expect(dead_code, reason = "the log's own tests use more of it")]
mod nats;
mod replay;
mod telemetry;
