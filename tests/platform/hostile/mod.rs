//! Whoever sends whatever: the server stays up.

mod evaluation;
mod poison;
