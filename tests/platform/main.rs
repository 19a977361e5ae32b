//! The binary as its users meet it: crashes, load, idempotency, bad input.

mod cli;
mod crash;
mod detach;
mod full_disk;
mod harness;
mod load;
mod telemetry;
