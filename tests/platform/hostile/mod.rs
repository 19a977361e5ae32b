//! What strangers send, on the binary: it stays up, keeps its folder shut, and its log its own.

mod terminal;
mod words;
