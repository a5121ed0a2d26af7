//! The mount points that every container needs, as a layer of their own above its image's (Docker's "init layer").
//!
//! Where an image lacks one, it would be made in the container's own writable layer, which copies its parents up: several
//! files on the disk for each container, made and removed with it.

use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Directories that kernel file systems are mounted on, and the one that the files are in.
const DIRECTORIES: [&str; 4] = ["dev", "proc", "sys", "etc"];
/// Files that are bound over.
const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// The mode of a directory that anyone may look into.
const PLAIN: u32 = 0o755;

/// The layer. Shared by all containers of a node, and never written to once it is made.
#[derive(Clone, Debug)]
pub struct Skeleton {
    layer: PathBuf,
}

impl Skeleton {
    /// Makes what is missing of it in `layer`.
    pub fn make(layer: PathBuf) -> io::Result<Self> {
        // The modes are set once more, since those at creation are what the daemon's umask leaves of them.
        for dir in DIRECTORIES.iter().map(|name| layer.join(name)) {
            fs::create_dir_all(&dir)?;
            fs::set_permissions(dir, Permissions::from_mode(PLAIN))?;
        }
        for file in FILES.iter().map(|name| layer.join(name)) {
            let file = OpenOptions::new().create(true).append(true).open(file)?;
            file.set_permissions(Permissions::from_mode(0o644))?;
        }
        fs::set_permissions(&layer, Permissions::from_mode(PLAIN))?;
        Ok(Self { layer })
    }

    /// An image's layers, lowest first, with this one above them. Without it where the image has something else in one of the
    /// places than a plain directory of root's: it would be hidden with all that it leads to, or have another owner or mode.
    pub fn over(&self, mut layers: Vec<PathBuf>) -> Vec<PathBuf> {
        if layers.iter().all(|layer| is_plain(layer)) {
            layers.push(self.layer.clone());
        }
        layers
    }
}

fn is_plain(layer: &Path) -> bool {
    let is_plain = |found: &Metadata| {
        found.is_dir() && (found.uid(), found.gid()) == (0, 0) && found.mode() & 0o7777 == PLAIN
    };
    let is_other = |name: &str| fs::symlink_metadata(layer.join(name)).is_ok_and(|found| !is_plain(&found));
    !DIRECTORIES.into_iter().any(is_other)
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

        let layer = |name: &str, mode| {
            fs::create_dir_all(at(name).join("etc")).unwrap();
            fs::set_permissions(at(name).join("etc"), Permissions::from_mode(mode)).unwrap();
            at(name)
        };
        // Whoever runs the tests may not be root, whose an image's directories are.
        if fs::metadata(layer("plain", 0o755)).unwrap().uid() == 0 {
            assert_eq!(skeleton.over(vec![at("plain")]), [at("plain"), at("skeleton")]);
        }
        assert_eq!(skeleton.over(vec![layer("shared", 0o775)]), [at("shared")]);
        fs::create_dir_all(at("odd")).unwrap();
        symlink("usr/etc", at("odd/etc")).unwrap();
        assert_eq!(skeleton.over(vec![at("odd"), at("plain")]), [at("odd"), at("plain")]);
    }
}
