//! The pure rules of Convergio: what a command decides and what an event means.
