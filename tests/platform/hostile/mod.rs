//! What somebody does who means harm, and what must not come of it.

mod imports;
mod sealing;
