//! Guests whose clients come by TLS, and guests with further keys in their policy.

use std::io::{Read, Write};
use std::path::Path;

use odyn_tests::guest::Running;
use odyn_tests::tls_client::{Authority, Client, Issued, Session};
use odyn_tests::{Process, World};
use tempfile::TempDir;

use super::{ADDRESS, MAPPING, SOON, app, connect};

/// A world whose guest has TLS on the port, with these further lines of `tls`.
pub(super) fn tls_world(dir: &Path, more: &str) -> odyn_tests::world::Builder {
    let dir = dir.display();
    policy_world(&format!(
        "tls: {{ cert_file: {dir}/a.pem, key_file: {dir}/a.key{more} }}"
    ))
}

/// A world whose guest has a port with these further keys.
pub(super) fn policy_world(keys: &str) -> odyn_tests::world::Builder {
    World::builder()
        .policy(&format!(
            "version: v1\nname: shop\ningress:\n  - listen_port: 80\n    target_port: 8080\n    {keys}\n"
        ))
        .outer(&["--ingress", MAPPING])
}

/// An authority, and its certificate for `shop.example` in the files of [`tls_world`].
pub(super) fn certificate(dir: &Path) -> (Authority, Issued) {
    let authority = Authority::default();
    let issued = authority.issue(&["shop.example"]);
    issued.write(dir, "a");
    (authority, issued)
}

/// An app behind TLS, and what its clients need.
pub(super) struct Secured {
    pub(super) world: World,
    pub(super) running: Running,
    pub(super) authority: Authority,
    /// The certificate for `shop.example`.
    pub(super) issued: Issued,
    /// The folder of the files.
    pub(super) dir: TempDir,
}

impl Secured {
    /// With these further lines of `tls`, and these words of the app; `None` in the control
    /// run, and without root.
    pub(super) fn start(more: &str, words: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let (authority, issued) = certificate(dir.path());
        let mut world = tls_world(dir.path(), more).start()?;
        if world.direct() {
            return None;
        }
        let running = app(&mut world, words);
        Some(Self {
            world,
            running,
            authority,
            issued,
            dir,
        })
    }

    /// A client's session with the app.
    #[track_caller]
    pub(super) fn session(&self) -> Session {
        session(&self.world, &self.authority, "shop.example")
    }
}

/// A client's session with the app on the port, which must have a certificate for this name.
#[track_caller]
pub(super) fn session(world: &World, authority: &Authority, name: &str) -> Session {
    let socket = connect(world, ADDRESS).expect("a listener");
    let session = Client::default().connect(socket, authority, name);
    session.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// How clients come to the app.
pub(super) enum Way {
    Plain,
    /// By TLS that ends in the guest, with the authority and the path of its certificate.
    Tls(Box<Authority>, String),
}

pub(super) trait Connection: Read + Write {}

impl<T: Read + Write> Connection for T {}

impl Way {
    /// A connection to the app.
    #[track_caller]
    pub(super) fn connect(&self, world: &World) -> Box<dyn Connection> {
        match self {
            Self::Plain => Box::new(connect(world, ADDRESS).expect("a listener")),
            Self::Tls(authority, _) => Box::new(session(world, authority, "shop.example")),
        }
    }

    /// The file of the authority, or nothing.
    pub(super) fn ca(&self) -> &str {
        match self {
            Self::Plain => "",
            Self::Tls(_, ca) => ca,
        }
    }
}

/// Does a test without TLS and with it (and these further lines of `tls`), each in a world of its
/// own. Not in the control run.
pub(super) fn each_way(more: &str, test: impl Fn(&mut World, &Way)) {
    let dir = tempfile::tempdir().expect("a directory");
    let (authority, _) = certificate(dir.path());
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("own directory");
    for (builder, way) in [
        (policy_world(""), Way::Plain),
        (
            tls_world(dir.path(), more),
            Way::Tls(Box::new(authority), ca.display().to_string()),
        ),
    ] {
        let Some(mut world) = builder.start() else {
            return;
        };
        if world.direct() {
            return;
        }
        test(&mut world, &way);
    }
}

/// Waits for the end of a client, which must be a good one; what it wrote.
#[track_caller]
pub(super) fn fine(mut client: Process) -> String {
    let status = client.wait(3 * SOON);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    assert!(status.success(), "{}", text(client.stderr()));
    text(client.stdout())
}
