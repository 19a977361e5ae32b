//! The executor on a real log: what it writes for each kind of graph, and what it does after a
//! crash.

mod agents;
mod children;
mod crowds;
mod fallback;
mod families;
mod forks;
mod graphs;
mod guide;
mod harness;
mod imported;
mod limits;
mod memory;
mod migration;
mod outage;
mod privacy;
mod recovery;
mod replay;
mod routes;
mod script;
mod services;
mod steering;
mod turns;
mod waiting;
mod width;
mod writers;
