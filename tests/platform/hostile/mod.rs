//! What strangers try: each of these took something once, and gets nothing now.

mod folder;
mod modes;
mod tokens;
