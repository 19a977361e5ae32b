//! The wrapper and the kernel behind it: examples, and properties against slow, obvious models.

mod examples;
mod graphs;
mod restore;
mod route;
mod route_model;
mod scheduler;
mod scheduler_model;
mod scopes;
