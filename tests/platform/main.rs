//! The binary as its users meet it: crashes, load, idempotency, bad input.

mod cli;
mod crash;
mod harness;
mod load;
