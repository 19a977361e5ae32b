//! The contracts as files, and the wire types that follow them.
