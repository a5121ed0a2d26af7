//! `bulk`: busybox, and under it half a gigabyte in four layers, as large images have it: programs and data that hardly
//! compress, text that does, and many small files. Made in some ten seconds.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::busybox;
use super::layer::Layer;
use crate::chance::Chance;

const LAYERS: u64 = 4;
/// Of each kind in a layer; 12.5 MiB each.
const LARGE_FILES: u64 = 5;
const LARGE: usize = 25 << 19;
const SMALL_FILES: u64 = 1000;
const SMALL: usize = 1 << 10;

pub(super) fn execution() -> Value {
    busybox::execution()
}

pub(super) fn layers(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut layers = Vec::new();
    for number in 1..=LAYERS {
        let path = dir.join(format!("bulk{number}.layer"));
        write(&path, number).with_context(|| format!("cannot write {}", path.display()))?;
        layers.push(path);
    }
    layers.extend(busybox::layers(dir)?);
    Ok(layers)
}

fn write(path: &Path, number: u64) -> std::io::Result<()> {
    // The same whenever it is made.
    let mut chance = Chance::seeded(number);
    let mut layer = Layer::create(path)?;
    let dir = format!("bulk{number}");
    layer.dir(&dir, 0o755)?;
    for file in 0..LARGE_FILES {
        layer.file(&format!("{dir}/noise{file}"), 0o644, &chance.noise(LARGE))?;
        layer.file(&format!("{dir}/text{file}"), 0o644, text(&mut chance).as_bytes())?;
    }
    for file in 0..SMALL_FILES {
        layer.file(&format!("{dir}/small{file}"), 0o644, &chance.noise(SMALL))?;
    }
    layer.finish()
}

/// Lines of numbers, of which gzip makes less than half.
fn text(chance: &mut Chance) -> String {
    let mut text = String::with_capacity(LARGE + 64);
    while text.len() < LARGE {
        writeln!(text, "record {} of {}: nothing to report", chance.below(1000), chance.below(1_000_000))
            .expect("writing to a string cannot fail");
    }
    text.truncate(LARGE);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_its_length_and_its_numbers() {
        let text = text(&mut Chance::seeded(1));
        assert_eq!(text.len(), LARGE);
        assert!(text.starts_with("record "));
    }
}
