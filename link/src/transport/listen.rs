//! Listens for guests on vsock, Unix or hybrid sockets.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use odyn_proto::Endpoint;
use tokio::net::UnixListener;
use tokio_vsock::{VsockAddr, VsockListener};

use crate::config::Tuning;
use crate::error::ListenError;
use crate::transport::stream::{Peer, Transport};

/// How to listen.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ListenOptions {
    /// Permissions of a Unix socket. Write permission is permission to connect.
    pub mode: u32,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { mode: 0o600 }
    }
}

/// A listening socket of the link. A Unix socket's file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: ListenSocket,
    endpoint: Endpoint,
}

#[derive(Debug)]
enum ListenSocket {
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
    Vsock(VsockListener),
}

/// Removes the socket's file, unless another process has replaced it since.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

impl Listener {
    /// Listens on `endpoint`. Replaces the file of a Unix socket that a dead process left behind.
    ///
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When another process listens there, the directory is missing, the path exists and is no
    /// socket, or the kernel refuses.
    pub fn bind(endpoint: &Endpoint, options: ListenOptions) -> Result<Self, ListenError> {
        let socket = match endpoint {
            Endpoint::Vsock { cid, port } => ListenSocket::Vsock(
                VsockListener::bind(VsockAddr::new(*cid, *port))
                    .map_err(|source| failed(endpoint, source))?,
            ),
            Endpoint::Unix { path } => bind_unix(endpoint, path.clone(), options)?,
            Endpoint::Hybrid { path, port } => {
                bind_unix(endpoint, Endpoint::hybrid_listen_path(path, *port), options)?
            }
        };
        Ok(Self {
            socket,
            endpoint: endpoint.clone(),
        })
    }

    /// The endpoint that it listens on.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The next connection.
    ///
    /// # Errors
    /// What accept(2) says. The error passes, as when no descriptor is left: call again after a
    /// pause.
    pub async fn accept(&self, tuning: &Tuning) -> io::Result<(Transport, Peer)> {
        match &self.socket {
            ListenSocket::Unix { listener, .. } => {
                let (socket, _) = listener.accept().await?;
                let cred = socket.peer_cred()?;
                let peer = Peer::Unix {
                    pid: cred.pid(),
                    uid: cred.uid(),
                };
                Ok((Transport::unix(socket, tuning)?, peer))
            }
            ListenSocket::Vsock(listener) => {
                let (socket, address) = listener.accept().await?;
                let peer = Peer::Vsock { cid: address.cid() };
                Ok((Transport::vsock(socket, tuning)?, peer))
            }
        }
    }
}

fn failed(endpoint: &Endpoint, source: io::Error) -> ListenError {
    ListenError::Io {
        endpoint: endpoint.to_string(),
        source,
    }
}

fn bind_unix(
    endpoint: &Endpoint,
    path: PathBuf,
    options: ListenOptions,
) -> Result<ListenSocket, ListenError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        return Err(ListenError::NoDirectory(parent.to_owned()));
    }
    remove_stale(endpoint, &path)?;
    let listener = UnixListener::bind(&path).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(path.clone()),
        _ => failed(endpoint, source),
    })?;
    let inode = inode(&path).map_err(|source| failed(endpoint, source))?;
    let file = SocketFile { path, inode };
    // Between bind() and this call the umask decides who can connect. The peer credentials still
    // tell who did; a private directory closes the gap.
    fs::set_permissions(&file.path, fs::Permissions::from_mode(options.mode))
        .map_err(|source| failed(endpoint, source))?;
    Ok(ListenSocket::Unix {
        listener,
        _file: file,
    })
}

/// Removes the file of a socket that no process listens on.
fn remove_stale(endpoint: &Endpoint, path: &Path) -> Result<(), ListenError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(endpoint, error)),
    };
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        // ECONNREFUSED: the file exists, its listener does not.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| failed(endpoint, source))
        }
        // EAGAIN: the queue of the listener is full, so it is alive.
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(ListenError::InUse(path.to_owned()))
        }
        Err(error) => Err(failed(endpoint, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: PathBuf) -> Endpoint {
        Endpoint::Unix { path }
    }

    #[tokio::test]
    async fn a_stale_file_is_replaced_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        replaced(unix(path.clone()), &path);
        let hybrid = Endpoint::Hybrid { path, port: 5000 };
        replaced(hybrid, &dir.path().join("s_5000"));
    }

    fn replaced(endpoint: Endpoint, path: &Path) {
        drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        assert!(
            path.exists(),
            "std leaves the file behind, as a killed process does"
        );
        let listener = Listener::bind(&endpoint, ListenOptions::default()).unwrap();
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(
            Listener::bind(&endpoint, ListenOptions::default()),
            Err(ListenError::InUse(p)) if p == path
        ));
        drop(listener);
        assert!(!path.exists(), "removed on drop");
    }

    #[tokio::test]
    async fn anothers_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Listener::bind(&unix(path.clone()), ListenOptions::default()).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn errors_name_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let missing = unix(dir.path().join("no/s"));
        let error = Listener::bind(&missing, ListenOptions::default()).unwrap_err();
        assert!(matches!(error, ListenError::NoDirectory(_)), "{error}");
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        let error = Listener::bind(&unix(file.clone()), ListenOptions::default()).unwrap_err();
        assert!(matches!(error, ListenError::NotASocket(_)), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn hybrid_listens_beside_the_monitors_socket() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Hybrid {
            path: dir.path().join("v.sock"),
            port: 5000,
        };
        let listener = Listener::bind(&endpoint, ListenOptions::default()).unwrap();
        let path = dir.path().join("v.sock_5000");
        let client = tokio::net::UnixStream::connect(&path);
        let tuning = Tuning::default();
        let (accepted, _client) = tokio::join!(listener.accept(&tuning), client);
        let (_, peer) = accepted.unwrap();
        let me = std::process::id() as i32;
        assert!(matches!(peer, Peer::Unix { pid: Some(pid), .. } if pid == me));
    }
}
