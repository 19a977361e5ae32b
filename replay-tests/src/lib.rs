//! Proof that the architecture holds and the past still means the same: see `tests/`.
