//! The one binary `convergio`: composition root and command line.

fn main() {}
