//! The device nodes of the node's that a container gets, and what it may do with device nodes.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use model::{Access, DeviceKind};

use crate::launch::Options;
use crate::stage::Stage;

/// What is in a node's `/dev` and is not a device of its own: file systems, and what a container has its own of. As runc's
/// `HostDevices` has it.
const NOT_DEVICES: [&str; 8] = [".lxc", ".lxd-mounts", ".udev", "console", "fd", "mqueue", "pts", "shm"];

/// Directories within directories; a node's deepest has four.
const DEEPEST: u32 = 8;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("cannot give the container the device {path}")]
    Look { path: PathBuf, source: io::Error },
    #[error(
        "cannot give the container {path}: it is neither a device nor a directory of devices on this node"
    )]
    NotADevice { path: PathBuf },
    #[error("cannot give the container the device {path}: one of its mounts is there")]
    Mounted { path: PathBuf },
}

/// A device node in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    pub(crate) kind: DeviceKind,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) access: Access,
}

/// The devices that a container is given: those that are named, and for a privileged one all that the node has.
pub(crate) fn find(options: &Options, stage: &Stage) -> Result<Vec<Device>, DeviceError> {
    let mut found: Vec<Device> = Vec::new();
    for device in &options.devices {
        let named = named(&device.source, &device.target, device.access)?;
        if let Some(hidden) = named.iter().find(|device| stage.covers(&device.path)) {
            return Err(DeviceError::Mounted { path: hidden.path.clone() });
        }
        add(&mut found, named);
    }
    if options.privileges.privileged {
        let all = directory(Path::new("/dev"), Path::new("/dev"), Access::ALL, 0);
        let mut all = all.map_err(|source| DeviceError::Look { path: "/dev".into(), source })?;
        all.retain(|device| !stage.covers(&device.path));
        add(&mut found, all);
    }
    Ok(found)
}

/// What is named twice is what it was named first: a node can be made once.
fn add(found: &mut Vec<Device>, more: Vec<Device>) {
    for device in more {
        if !found.iter().any(|known| known.path == device.path) {
            found.push(device);
        }
    }
}

fn named(source: &Path, target: &Path, access: Access) -> Result<Vec<Device>, DeviceError> {
    let failed = |error| DeviceError::Look { path: source.to_owned(), source: error };
    // Through links: `/dev/disk/by-id/…` is how people name a disk.
    let about = std::fs::metadata(source).map_err(failed)?;
    let devices = match device(target, &about, access) {
        Some(device) => vec![device],
        None if about.is_dir() => directory(source, target, access, 0).map_err(failed)?,
        None => Vec::new(),
    };
    if devices.is_empty() { Err(DeviceError::NotADevice { path: source.to_owned() }) } else { Ok(devices) }
}

/// `None` if it is something else.
fn device(path: &Path, about: &Metadata, access: Access) -> Option<Device> {
    let kind = match about.file_type() {
        kind if kind.is_char_device() => DeviceKind::Character,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => return None,
    };
    Some(Device {
        path: path.to_owned(),
        kind,
        major: rustix::fs::major(about.rdev()),
        minor: rustix::fs::minor(about.rdev()),
        mode: about.mode() & 0o7777,
        uid: about.uid(),
        gid: about.gid(),
        access,
    })
}

/// The devices in a directory and below it, in order. Links are not followed: they name what is found under its own name.
fn directory(source: &Path, target: &Path, access: Access, depth: u32) -> io::Result<Vec<Device>> {
    let mut entries = std::fs::read_dir(source)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut devices = Vec::new();
    for entry in entries {
        let name = entry.file_name();
        if NOT_DEVICES.iter().any(|other| name == *other) {
            continue;
        }
        // A device may be gone since the directory was read.
        let Ok(about) = entry.metadata() else { continue };
        let target = target.join(&name);
        if about.is_dir() && depth < DEEPEST {
            devices.extend(directory(&entry.path(), &target, access, depth + 1)?);
        } else {
            devices.extend(device(&target, &about, access));
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;

    fn given(source: &str, target: &str) -> Result<Vec<Device>, String> {
        let device =
            launch::Device { source: source.into(), target: target.into(), access: "rw".parse().unwrap() };
        let options = Options { devices: vec![device], ..Options::default() };
        find(&options, &Stage::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_device_is_what_it_is_on_the_node() {
        let found = given("/dev/zero", "/dev/nothing").unwrap();
        let Device { path, kind, major, minor, access, .. } = &found[0];
        assert_eq!(
            (path.as_path(), *kind, *major, *minor),
            (Path::new("/dev/nothing"), DeviceKind::Character, 1, 5)
        );
        assert_eq!(access.to_string(), "rw");
        let all = given("/dev", "/dev/host").unwrap();
        assert!(all.iter().any(|device| device.path == Path::new("/dev/host/null")));
        assert!(!all.iter().any(|device| device.path.starts_with("/dev/host/pts")));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (path, why) in [
            (file.as_path(), "neither a device nor a directory of devices"),
            (dir.path(), "neither a device nor a directory of devices"),
            (Path::new("/dev/absent"), "cannot give the container the device /dev/absent"),
        ] {
            let refused = given(path.to_str().unwrap(), "/dev/x").unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn a_privileged_container_has_what_the_node_has() {
        let mut options = Options::default();
        options.privileges.privileged = true;
        let found = find(&options, &Stage::default()).unwrap();
        assert!(found.iter().any(|device| device.path == Path::new("/dev/null")));
    }
}
