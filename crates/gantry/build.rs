//! Links the program at a fixed address.
//!
//! Every container has a shim, which is this program once more. A position-independent program of this size writes over a
//! hundred thousand addresses into its own pages at each start: megabytes that no two shims share, and milliseconds. At a
//! fixed address the linker has written them already. What it costs: the addresses of the program's own code and constants
//! can be predicted (as in programs written in Go). Stack, heap and libraries stay where the kernel randomly puts them.
//! `crates/runtime/DESIGN.md` has the figures.

fn main() {
    println!("cargo::rustc-link-arg-bins=-no-pie");
    println!("cargo::rerun-if-changed=build.rs");
}
