//! The daemon as it is built, started and stopped, and flows over it.
#![allow(missing_docs, dead_code)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use odyn_link::{Counters, End, HostLink, HostLinkConfig, LinkState, relay};
use odyn_proto::{Endpoint, Target};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

pub(crate) fn outer(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enclaver-outer"));
    command
        .args(args)
        .kill_on_drop(true)
        .stderr(Stdio::piped())
        .stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OUTER_")) {
        command.env_remove(name);
    }
    command
}

pub(crate) async fn fails(args: &[&str]) -> (i32, String) {
    let output = soon("exit", outer(args).output()).await.unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

pub(crate) struct Daemon {
    pub(crate) dir: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) child: Child,
}

impl Daemon {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::with(args, &[])
    }

    pub(crate) fn with(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outer.sock");
        let child = command(&path, args)
            .envs(environment.iter().copied())
            .spawn()
            .unwrap();
        Self { dir, path, child }
    }

    pub(crate) async fn guest(&self) -> HostLink {
        let endpoint = Endpoint::Unix {
            path: self.path.clone(),
        };
        let client = HostLink::new(endpoint, HostLinkConfig::default());
        let mut state = client.state();
        soon("the link", state.wait_for(|s| *s == LinkState::Up))
            .await
            .unwrap();
        client
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().unwrap() as i32), signal).unwrap();
    }

    pub(crate) async fn end(self) -> (Output, TempDir) {
        (
            soon("exit", self.child.wait_with_output()).await.unwrap(),
            self.dir,
        )
    }
}

pub(crate) fn spawn(path: &Path, args: &[&str]) -> Child {
    command(path, args).spawn().unwrap()
}

fn command(path: &Path, args: &[&str]) -> Command {
    let url = format!("unix://{}", path.display());
    let mut command = outer(&["run", "--listen", &url]);
    command.args(args);
    command
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A flow to a server of ours: the app's end, the server's, and the relay between.
pub(crate) async fn flow(
    client: &HostLink,
) -> (TcpStream, TcpStream, tokio::task::JoinHandle<End>) {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let opened = soon("opening", client.connect_tcp(&Target::host_loopback(port)))
        .await
        .unwrap();
    assert_eq!(opened.dialled, Some(([127, 0, 0, 1], port).into()));
    let (accepted, _) = soon("accept", server.accept()).await.unwrap();
    let (app, inner) = pair().await;
    let relay = tokio::spawn(relay(inner, opened.flow, Arc::new(Counters::default())));
    (app, accepted, relay)
}

pub(crate) async fn ping_pong(app: &mut TcpStream, server: &mut TcpStream) {
    let mut got = [0; 4];
    app.write_all(b"ping").await.unwrap();
    soon("ping", server.read_exact(&mut got)).await.unwrap();
    server.write_all(b"pong").await.unwrap();
    soon("pong", app.read_exact(&mut got)).await.unwrap();
}
