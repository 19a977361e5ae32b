//! Kernel functions for SQL: `cvg_cosine(a, b)` of two vectors of signed bytes, `cvg_score(bm25,
//! cosine, age_ms, importance)` with the weights of a recall, and `cvg_weight(all, holders)`, the
//! inverse document frequency of BM25 for a word that `holders` of `all` texts contain.

use convergio_kernel_c::{KernelError, RankWeights, cosine_similarity, score_item};
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Error};

/// Registers the functions on a connection.
pub(super) fn register_kernel_functions(
    connection: &Connection,
    weights: RankWeights,
) -> Result<(), Error> {
    // SQLite may reuse the results within a statement, since equal arguments give equal results.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let failed = |error: KernelError| Error::UserFunctionError(error.into());
    connection.create_scalar_function("cvg_cosine", 2, flags, move |call| {
        let (a, b): (Vec<u8>, Vec<u8>) = (call.get(0)?, call.get(1)?);
        cosine_similarity(&to_signed_bytes(&a), &to_signed_bytes(&b)).map_err(failed)
    })?;
    connection.create_scalar_function("cvg_weight", 2, flags, |call| {
        let (all, holders): (f64, f64) = (call.get(0)?, call.get(1)?);
        // The 1 within the logarithm keeps the weight of a word that every text has above zero.
        Ok((1.0 + (all - holders + 0.5) / (holders + 0.5)).ln())
    })?;
    connection.create_scalar_function("cvg_score", 4, flags, move |call| {
        score_item(&weights, call.get(0)?, call.get(1)?, call.get(2)?, call.get(3)?).map_err(failed)
    })
}

fn to_signed_bytes(bytes: &[u8]) -> Vec<i8> {
    bytes.iter().map(|byte| byte.cast_signed()).collect()
}
