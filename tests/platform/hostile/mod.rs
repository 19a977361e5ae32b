//! What somebody does who means harm, and what must not come of it.

mod connections;
mod evaluation;
mod folder;
mod imports;
mod log_credentials;
mod modes;
mod poison;
mod sealing;
mod terminal;
mod tokens;
mod transport;
mod words;
