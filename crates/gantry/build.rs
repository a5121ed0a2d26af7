//! Links the program so that starting it costs little: every container has a shim, which is this program once more.
//!
//! - At a fixed address. A position-independent program of this size writes some ninety thousand addresses into its own pages
//!   at each start: megabytes that no two shims share, and milliseconds. At a fixed address the linker has written them
//!   already. What it costs: the addresses of the program's own code and constants can be predicted (as in programs written
//!   in Go). Stack, heap and libraries stay where the kernel randomly puts them.
//! - With the C++ library, which RocksDB needs, inside. As a shared one it is relocated at each start as well.
//!
//! `crates/runtime/DESIGN.md` has the figures.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-no-pie");
    if let Some(directory) = directory_of("libstdc++.a") {
        println!("cargo::rustc-link-search=native={directory}");
        // Before RocksDB's own mention of it, which is of the shared library, and then not needed any more.
        println!("cargo::rustc-link-lib=static=stdc++");
    }
}

/// Where the C++ compiler keeps a library. Without an answer the program is linked to the shared one, and works as well.
fn directory_of(library: &str) -> Option<String> {
    let asked = Command::new("c++").arg(format!("-print-file-name={library}")).output().ok()?;
    let path = String::from_utf8(asked.stdout).ok()?;
    // A name without a directory means that it has none.
    let directory = Path::new(path.trim()).parent()?.to_str()?.to_owned();
    (!directory.is_empty()).then_some(directory)
}
