//! Where the project is, and its program.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command::Call;

/// The workspace's root. Cargo says where it runs us from; several clones may share one target directory.
pub(crate) fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = PathBuf::from(manifest);
    manifest.ancestors().nth(2).map_or_else(|| manifest.clone(), Path::to_owned)
}

/// The very cargo that runs us, in the workspace, without what it told us of ourselves: build scripts that look at that
/// (ring's does) would run again each time that cargo is called from here and not by hand, and all that depends on them.
pub(crate) fn cargo() -> Call {
    let cargo = Call::of(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).dir(&root());
    let told = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| {
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_BIN_NAME"
    });
    told.fold(cargo, |cargo, name| cargo.without(&name))
}

/// Builds gantry and says where it is. Cargo's progress is shown.
pub(crate) fn build() -> Result<PathBuf> {
    program("gantry")
}

/// Builds the workspace and says where one of its programs is.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    // The whole workspace, as the tests are built: a part of it would have other features of what is shared, and be
    // built a second time.
    cargo().args(["build", "--workspace"]).show()?;
    // Nothing is left to be done by now, so nothing is lost by not showing it.
    let messages = cargo().args(["build", "--workspace", "--message-format", "json"]).read()?;
    executable(&messages, name).with_context(|| format!("cargo built {name} and does not say where"))
}

/// Builds a program that one command alone needs, which is among some crate's `examples`, and says where it is.
pub(crate) fn example(name: &str) -> Result<PathBuf> {
    // Of the whole workspace for the same reason.
    let build = ["build", "--workspace", "--example", name];
    cargo().args(build).show()?;
    let messages = cargo().args(build).args(["--message-format", "json"]).read()?;
    executable(&messages, name).with_context(|| format!("cargo built {name} and does not say where"))
}

/// Builds the tests and says where one of a package's test programs is.
pub(crate) fn test_program(package: &str, name: &str) -> Result<PathBuf> {
    cargo().args(["test", "--workspace", "--no-run"]).show()?;
    let messages = cargo().args(["test", "--workspace", "--no-run", "--message-format", "json"]).read()?;
    let of_package = format!("/crates/{package}#");
    let lines = messages.lines().filter(|line| line.contains(&of_package) && line.contains("\"test\""));
    let messages: String = lines.map(|line| format!("{line}\n")).collect();
    executable(&messages, name).with_context(|| format!("cargo built the test {name} and does not say where"))
}

/// The program of that name in cargo's messages, one JSON document a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    built
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == name)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"model"},"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"gantry"},"executable":"/t/debug/gantry"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages, "gantry"), Some(PathBuf::from("/t/debug/gantry")));
        assert_eq!(executable(messages, "model"), None);
    }

    #[test]
    fn the_root_is_where_the_workspace_is() {
        assert!(root().join("crates/xtask/Cargo.toml").is_file());
    }
}
