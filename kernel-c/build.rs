//! Compiles the C kernel into a static library with the system's C compiler.

use std::path::{Path, PathBuf};

const SOURCE_DIR: &str = "src";
const INCLUDE_DIR: &str = "include";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE_DIR}");
    println!("cargo::rerun-if-changed={INCLUDE_DIR}");
    cc::Build::new()
        .files(c_sources(Path::new(SOURCE_DIR)))
        .include(INCLUDE_DIR)
        .std("c11")
        .extra_warnings(true)
        // Each operation is rounded by itself, so that scores are the same everywhere.
        .flag_if_supported("-ffp-contract=off")
        // Debug builds of the platform still schedule at full speed: the C code has its own tests.
        .opt_level(2)
        .compile("convergio_kernel");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "unix") {
        println!("cargo::rustc-link-lib=m");
    }
}

/// The C files of a folder, sorted so that every build compiles them in the same order.
fn c_sources(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("the crate ships its C sources");
    let mut sources: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a source folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    sources.sort();
    sources
}
