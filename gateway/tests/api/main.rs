//! The API over real HTTP: access, tenants, errors, streams, the document.

mod access;
mod agents;
mod document;
mod harness;
mod slow;
mod streams;
