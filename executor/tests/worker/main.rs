//! The executor on a real log: what it writes for each kind of graph, and what it does after a
//! crash.

mod agents;
mod children;
mod fallback;
mod graphs;
mod harness;
mod privacy;
mod recovery;
mod replay;
mod script;
mod turns;
mod waiting;
