//! The durable log: one trait, its providers, and the repository that alone appends.
