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
mod load;
mod memory;
mod portable;
mod replay;
mod steer;
mod telemetry;
