//! Takes calls from root on this machine, on a Unix socket.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use futures::Stream;
use futures::stream::unfold;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use crate::acceptor::ACCEPT_PAUSE;
use crate::{Connection, Peer};

/// A Unix socket that only root can open, and on which only root is answered. Its file goes when this is
/// dropped.
#[derive(Debug)]
pub struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("the local socket {} cannot be {step}", .path.display())]
pub struct BindError {
    path: PathBuf,
    step: &'static str,
    #[source]
    source: io::Error,
}

impl LocalListener {
    /// Takes `path` over, also from a daemon that died and left its socket there: keeping out a second daemon
    /// that lives is for the lock on the data directory. Must be called within a Tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |step| move |source| BindError { path: path.to_owned(), step, source };
        // Bound under another name and renamed when its mode is right: there is no moment at which others
        // could open it, and none at which a client finds no socket.
        let fresh = path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replaced")(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(failed("bound"))?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o600)).map_err(failed("protected"))?;
        fs::rename(&fresh, path).map_err(failed("put in place"))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The next caller. Callers other than root are logged and dropped. Nothing is lost when the future is
    /// dropped.
    pub async fn accept(&mut self) -> Connection<UnixStream> {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(credentials) if may_call(credentials.uid()) => {
                        return Connection::new(stream, Peer::Local);
                    }
                    Ok(credentials) => {
                        tracing::info!(uid = credentials.uid(), "a local caller was turned away")
                    }
                    Err(error) => tracing::info!(%error, "a local caller cannot be told who it is"),
                },
                Err(error) => {
                    tracing::warn!(%error, "accepting a local connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// For tonic's `serve_with_incoming`. It does not end by itself.
    pub fn incoming(self) -> impl Stream<Item = Result<Connection<UnixStream>, Infallible>> + Send {
        unfold(self, |mut listener| async move {
            let connection = listener.accept().await;
            Some((Ok::<_, Infallible>(connection), listener))
        })
    }
}

/// The socket's mode says the same, but a file's mode can be changed, and a descriptor passed on.
fn may_call(uid: u32) -> bool {
    uid == 0
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        // Someone may have cleaned up before us.
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "the local socket was left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_is_answered() {
        assert!(may_call(0));
        assert!(![1, 1000, 65534, u32::MAX].into_iter().any(may_call));
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_bound_is_an_error_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent/gantry.sock");
        let error = LocalListener::bind(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("the local socket {} cannot be bound", path.display()));
    }

    #[tokio::test]
    async fn a_socket_left_by_a_dead_daemon_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gantry.sock");
        drop(UnixListener::bind(&path).unwrap());
        drop(UnixListener::bind(path.with_extension("new")).unwrap());
        let listener = LocalListener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "files were left behind");
    }
}
