//! The mount points that every container needs, as a layer of their own above its image's (Docker's "init layer").
//!
//! Where an image lacks one, it would be made in the container's own writable layer, which copies its parents up: several
//! files on the disk for each container, made and removed with it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Directories that kernel file systems are mounted on, and the one that the files are in.
const DIRECTORIES: [&str; 4] = ["dev", "proc", "sys", "etc"];
/// Files that are bound over.
const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// The layer. Shared by all containers of a node, and never written to once it is made.
#[derive(Clone, Debug)]
pub struct Skeleton {
    layer: PathBuf,
}

impl Skeleton {
    /// Makes what is missing of it in `layer`.
    pub fn make(layer: PathBuf) -> io::Result<Self> {
        for dir in DIRECTORIES.iter().map(|name| layer.join(name)) {
            DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        }
        for file in FILES.iter().map(|name| layer.join(name)) {
            OpenOptions::new().create(true).append(true).mode(0o644).open(file)?;
        }
        Ok(Self { layer })
    }

    /// An image's layers, lowest first, with this one above them. Without it where the image has something else than a
    /// directory in one of the places: that would be hidden, with all that it leads to.
    pub fn over(&self, mut layers: Vec<PathBuf>) -> Vec<PathBuf> {
        if !layers.iter().any(|layer| has_other_than_directories(layer)) {
            layers.push(self.layer.clone());
        }
        layers
    }
}

fn has_other_than_directories(layer: &Path) -> bool {
    DIRECTORIES.iter().any(|name| fs::symlink_metadata(layer.join(name)).is_ok_and(|found| !found.is_dir()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn mount_points_go_over_an_image_whose_own_they_do_not_hide() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let skeleton = Skeleton::make(at("skeleton")).unwrap();
        Skeleton::make(at("skeleton")).unwrap();
        assert!(at("skeleton/proc").is_dir() && at("skeleton/etc/hosts").is_file());

        fs::create_dir_all(at("plain/etc")).unwrap();
        assert_eq!(skeleton.over(vec![at("plain")]), [at("plain"), at("skeleton")]);
        fs::create_dir_all(at("odd")).unwrap();
        symlink("usr/etc", at("odd/etc")).unwrap();
        assert_eq!(skeleton.over(vec![at("odd"), at("plain")]), [at("odd"), at("plain")]);
    }
}
