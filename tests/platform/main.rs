//! The binary as its users meet it: crashes, load, idempotency, bad input.

mod archive;
mod cli;
mod cluster;
mod crash;
mod crash_test;
mod detach;
mod earlier;
mod full_disk;
mod harness;
mod hostile;
#[path = "../front/kept.rs"]
#[expect(dead_code, reason = "the front doors' tests use more of it")]
mod kept;
mod load;
mod memory;
#[path = "../../eventstore/tests/contract/nats.rs"]
#[expect(dead_code, reason = "the log's own tests use more of it")]
mod nats;
mod portable;
mod replay;
#[path = "../../eventstore/tests/contract/shut_cluster.rs"]
#[expect(dead_code, reason = "the log's own tests use more of it")]
mod shut_cluster;
mod steer;
mod telemetry;
