//! Model providers against servers that answer as the documented ones do, and as broken ones do.

mod breaker;
mod chat;
mod crowds;
mod cuts;
mod detection;
mod library;
mod limits;
mod prices;
mod privacy;
mod providers;
mod real;
mod refusals;
mod routes;
mod server;
