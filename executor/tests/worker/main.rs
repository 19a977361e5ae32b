//! The executor on a real log: what it writes for each kind of graph, and what it does after a
//! crash.

mod agents;
mod children;
mod fallback;
mod forks;
mod graphs;
mod harness;
mod memory;
mod migration;
mod outage;
mod privacy;
mod recovery;
mod replay;
mod routes;
mod script;
mod steering;
mod turns;
mod waiting;
