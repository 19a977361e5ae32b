//! The contracts as files, and the wire types that follow them.
//!
//! - `wire`: JSON types of the HTTP API, one file a noun.
//! - `error_code`: the stable codes of error answers; each has a page in `errors/`.
//!
//! Only data is here: no rule of the platform, and no dependency on another crate of it. The
//! folders beside `src` hold the published contracts: events, the manifest's JSON Schema, the
//! OpenAPI document, prices and token limits.

pub mod error_code;
pub mod wire;

/// Built-in prices: a JSON list in the form of the price book.
pub const PRICE_BOOK: &str = include_str!("../prices/book.v1.json");

/// Published token limits of models: a JSON list of provider, model and limits.
pub const MODEL_LIMITS: &str = include_str!("../models/limits.v1.json");
