//! The contracts as files, and the wire types that follow them.

pub mod error_code;
pub mod wire;

/// The prices that the platform knows: a list in the form of the price book.
pub const PRICE_BOOK: &str = include_str!("../prices/book.v1.json");

/// What models take and give at most, as far as it is published.
pub const MODEL_LIMITS: &str = include_str!("../models/limits.v1.json");
