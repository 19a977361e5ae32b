//! The API over real HTTP: access, tenants, errors, streams, the document.

mod access;
mod agents;
mod approvals;
mod document;
mod family;
mod harness;
mod memories;
mod readiness;
mod slow;
mod steering;
mod streams;
