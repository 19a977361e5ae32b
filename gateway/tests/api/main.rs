//! The API over real HTTP: access, tenants, errors, streams, the document.

mod access;
mod agents;
mod approvals;
mod document;
mod doors;
mod family;
mod harness;
mod memories;
mod numbers;
mod parameters;
mod readiness;
mod repeats;
mod scenes;
mod services;
mod signals;
mod slow;
mod steering;
mod streams;
mod tokens;
