//! Recorded runs: what they mean must never change. Each is a file as `convergio runs export`
//! writes it, with what is expected of it beside it.
//!
//! `CONVERGIO_BLESS=1` writes what is expected anew; `CONVERGIO_RECORD=NAME` records one of the
//! scenarios here again, `CONVERGIO_RECORD=new` those that have no file yet.

mod expected;
mod graphs;
mod platform;
mod recorded;
mod scenarios;
