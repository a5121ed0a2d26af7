//! Generates Rust from `proto/`, without protoc.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FOLDER: &str = "../../proto";

/// By name, so that a file that is forgotten here is missed when it is used.
const FILES: [&str; 6] =
    ["model.proto", "stream.proto", "agent.proto", "api.proto", "log.proto", "raft.proto"];

/// Messages that hold a secret. `src/secret.rs` has their `Debug`.
const SECRET: [&str; 5] = [
    ".gantry.log.v1.Authority",
    ".gantry.model.v1.RegistryCredential",
    ".gantry.api.v1.TokenReply",
    ".gantry.api.v1.JoinRequest",
    ".gantry.api.v1.LoginRegistryRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let mut files = protox::compile(FILES, [FOLDER])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Ordered maps, so that equal messages have equal bytes.
        .btree_map(".")
        .skip_debug(SECRET)
        .compile_fds(files.clone())?;

    // Readers of the descriptors want the messages' form; the comments are three quarters of the bytes.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("gantry.descriptors"), files.encode_to_vec())?;
    Ok(())
}
