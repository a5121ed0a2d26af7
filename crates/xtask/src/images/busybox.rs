//! `busybox`: Debian's static binary and a name for each of its programs. Made in well under a second.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::layer::Layer;
use crate::command::Call;

/// Where Debian 12 has it, and where later versions do.
const BINARIES: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

pub(super) fn execution() -> Value {
    json!({ "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] })
}

pub(super) fn layers(dir: &Path) -> Result<Vec<PathBuf>> {
    let Some(binary) = BINARIES.into_iter().find(|path| Path::new(path).exists()) else {
        bail!("the package busybox-static is installed, but there is no {}", BINARIES[0]);
    };
    let content = fs::read(binary).with_context(|| format!("cannot read {binary}"))?;
    let programs = Call::of(binary).arg("--list").read()?;
    let path = dir.join("busybox.layer");
    write(&path, &content, &programs).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(vec![path])
}

/// `programs` are the names that busybox goes by, one a line.
fn write(path: &Path, busybox: &[u8], programs: &str) -> std::io::Result<()> {
    let mut layer = Layer::create(path)?;
    for (dir, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o755),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("var", 0o755),
        ("var/log", 0o755),
    ] {
        layer.dir(dir, mode)?;
    }
    layer.file("bin/busybox", 0o755, busybox)?;
    for program in programs.lines().filter(|name| !name.is_empty() && *name != "busybox") {
        layer.link(&format!("bin/{program}"), "busybox")?;
    }
    // Scripts begin with `#!/usr/bin/env`.
    layer.link("usr/bin", "../bin")?;
    layer.link("sbin", "bin")?;
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    layer.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    layer.finish()
}
