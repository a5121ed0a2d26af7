//! Files that the user names, and `-` for stdin.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

/// More than this is no Compose file, whatever `spec` would say of it; /dev/zero does not end by itself.
const LARGEST_TEXT: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read {}", shown(.path))]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is a directory, not a file", shown(.0))]
    Directory(PathBuf),
    #[error("{} is larger than {} MiB", shown(.0), LARGEST_TEXT >> 20)]
    TooLarge(PathBuf),
    #[error("{} is not text in UTF-8", shown(.0))]
    NotText(PathBuf),
}

impl InputError {
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Some("name a file that is there, or `-` for stdin"),
                io::ErrorKind::PermissionDenied => Some("run gantry as a user who may read it"),
                _ => None,
            },
            Self::Directory(_) => Some("name a file in it"),
            Self::TooLarge(_) | Self::NotText(_) => Some("check that this is the file that you mean"),
        }
    }
}

/// What messages call a file.
pub(crate) fn shown(path: &Path) -> String {
    if is_stdin(path) { "<stdin>".to_owned() } else { path.display().to_string() }
}

pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Opens a file or stdin. Also its size in bytes, where it has one.
pub(crate) fn open(path: &Path) -> Result<(File, Option<u64>), InputError> {
    let failed = |source| InputError::Read { path: path.to_owned(), source };
    let file = if is_stdin(path) {
        // A descriptor of its own: one that may be read on another thread and be given up half way.
        fs::File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?)
    } else {
        fs::File::open(path).map_err(failed)?
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(InputError::Directory(path.to_owned()));
    }
    let size = metadata.is_file().then_some(metadata.len());
    Ok((File::from_std(file), size))
}

/// A whole file as text.
pub(crate) async fn text(path: &Path) -> Result<String, InputError> {
    let (file, _) = open(path)?;
    let mut bytes = Vec::new();
    let read = file.take(LARGEST_TEXT + 1).read_to_end(&mut bytes).await;
    read.map_err(|source| InputError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > LARGEST_TEXT {
        return Err(InputError::TooLarge(path.to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| InputError::NotText(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_thing_that_is_no_file_is_named_with_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent.yaml");
        let message = text(&absent).await.unwrap_err().to_string();
        assert_eq!(message, format!("cannot read {}", absent.display()));
        let message = text(directory.path()).await.unwrap_err().to_string();
        assert_eq!(message, format!("{} is a directory, not a file", directory.path().display()));
        let binary = directory.path().join("binary");
        fs::write(&binary, [0xff, 0xfe]).unwrap();
        let message = text(&binary).await.unwrap_err().to_string();
        assert_eq!(message, format!("{} is not text in UTF-8", binary.display()));
        let endless = text(Path::new("/dev/zero")).await.unwrap_err().to_string();
        assert_eq!(endless, "/dev/zero is larger than 16 MiB");
    }
}
