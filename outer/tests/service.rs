//! What the service manager is told, and what a reload does.
#![allow(missing_docs)]

mod common;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use odyn_link::{End, Feed, HostLink, OpenError, now};
use odyn_proto::{GuestName, GuestState, Identity, Refusal, Target};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixDatagram;

use common::{Daemon, flow, ping_pong, soon};

/// The service manager's end.
struct Manager {
    dir: TempDir,
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        Self {
            dir,
            socket,
            heard: Vec::new(),
        }
    }

    fn start(&self, args: &[&str], environment: &[(&str, &str)]) -> Daemon {
        let path = self.dir.path().join("notify").display().to_string();
        let mut all = vec![("NOTIFY_SOCKET", path.as_str())];
        all.extend(environment);
        Daemon::with(args, &all)
    }

    /// The next message.
    async fn next(&mut self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).await.unwrap();
        let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
        self.heard.push(message.clone());
        message
    }

    /// The next message with this in it; those before it are heard as well.
    async fn next_with(&mut self, part: &str) -> String {
        let found = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let message = self.next().await;
                if message.contains(part) {
                    return message;
                }
            }
        });
        match found.await {
            Ok(message) => message,
            Err(_) => panic!("no {part:?} in {:#?}", self.heard),
        }
    }

    fn has_heard(&self, part: &str) -> bool {
        self.heard.iter().any(|message| message.contains(part))
    }
}

/// A settings file that is written again.
struct Settings(PathBuf);

impl Settings {
    fn new(manager: &Manager, text: &str) -> Self {
        let settings = Self(manager.dir.path().join("outer.yaml"));
        settings.write(text);
        settings
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

async fn reload(daemon: &Daemon, manager: &mut Manager) {
    daemon.signal(Signal::SIGHUP);
    let reloading = manager.next_with("RELOADING=1").await;
    let (_, clock) = reloading.split_once("MONOTONIC_USEC=").unwrap();
    assert!(clock.trim().parse::<u64>().unwrap() > 0, "{reloading}");
    manager.next_with("READY=1").await;
}

async fn refusal(guest: &HostLink, target: &Target) -> Option<Refusal> {
    match soon("an answer", guest.connect_tcp(target)).await {
        Err(OpenError::Refused(refusal)) => Some(refusal),
        Ok(_) => None,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_when_guests_can_connect() {
    let mut manager = Manager::new();
    let daemon = manager.start(&[], &[]);
    manager.next_with("READY=1").await;
    assert!(daemon.path.exists(), "ready and not listening");
    let status = manager.next_with("STATUS=").await;
    assert!(
        status.contains("no guest linked; listening on unix://"),
        "{status}"
    );
    let _guest = daemon.guest().await;
    manager.next_with("STATUS=1 guest linked by ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_when_a_guest_is_linked() {
    let mut manager = Manager::new();
    let daemon = manager.start(&["--ready-when", "linked"], &[]);
    manager
        .next_with("STATUS=not ready: waiting for a guest on unix://")
        .await;
    assert!(!manager.has_heard("READY=1"), "{:?}", manager.heard);
    let guest = daemon.guest().await;
    let status = says(&guest, &GuestState::Starting);
    manager.next_with("READY=1").await;
    // Once ready it stays so: the service is not down because a guest is.
    drop(status);
    soon("the end of the link", guest.close(Duration::ZERO)).await;
    manager.next_with("STATUS=no guest linked").await;
    daemon.signal(Signal::SIGTERM);
    manager.next_with("STOPPING=1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_when_the_app_of_a_guest_runs() {
    let mut manager = Manager::new();
    let daemon = manager.start(&["--ready-when", "running"], &[]);
    manager
        .next_with("STATUS=not ready: waiting for a guest on")
        .await;
    let guest = daemon.guest().await;
    let status = says(&guest, &GuestState::Starting);
    manager
        .next_with("STATUS=not ready: waiting for an app to run; 1 guest linked")
        .await;
    assert!(!manager.has_heard("READY=1"), "{:?}", manager.heard);
    status.try_write(now(), &Bytes::from(GuestState::Running.to_record()));
    manager.next_with("READY=1").await;
    manager
        .next_with("STATUS=1 guest linked (1 running) by ")
        .await;
}

/// Opens the status feed of a guest, as odyn-net does.
fn says(guest: &HostLink, state: &GuestState) -> Feed {
    let identity = Identity {
        name: GuestName::nearest("tester"),
        run: "0123456789abcdef0123456789abcdef".parse().unwrap(),
    };
    let status = Feed::new(1 << 16);
    guest.feed(&identity, "status", &status);
    status.try_write(now(), &Bytes::from(state.to_record()));
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_says_that_it_goes_on() {
    let mut manager = Manager::new();
    let daemon = manager.start(&["--drain-timeout", "5m"], &[]);
    let guest = daemon.guest().await;
    let (mut app, mut server, relay) = flow(&guest).await;
    daemon.signal(Signal::SIGTERM);
    let stopping = manager.next_with("STOPPING=1").await;
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
    manager.next_with("1 flow of 1 guest open, cut in ").await;
    for _ in 0..3 {
        let extended = manager.next_with("EXTEND_TIMEOUT_USEC=").await;
        let (_, by) = extended.split_once('=').unwrap();
        assert!(
            by.trim().parse::<u64>().unwrap() >= 10_000_000,
            "{extended}"
        );
        ping_pong(&mut app, &mut server).await;
    }
    drop((app, server));
    assert_eq!(soon("end", relay).await.unwrap(), End::Closed);
    assert_eq!(daemon.end().await.0.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed() {
    let mut manager = Manager::new();
    let daemon = manager.start(&[], &[("WATCHDOG_USEC", "400000")]);
    for _ in 0..5 {
        manager.next_with("WATCHDOG=1").await;
    }
    // And not by something that works when the process does not.
    daemon.signal(Signal::SIGSTOP);
    let silence = async {
        loop {
            // What was sent before the stop is still there to be read.
            let message = manager.next();
            if tokio::time::timeout(Duration::from_secs(2), message)
                .await
                .is_err()
            {
                return;
            }
        }
    };
    soon("silence", silence).await;
    daemon.signal(Signal::SIGCONT);
    manager.next_with("WATCHDOG=1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_manager_it_works_as_well() {
    let daemon = Daemon::with(&[], &[("NOTIFY_SOCKET", "/nowhere/notify")]);
    let guest = daemon.guest().await;
    let (mut app, mut server, _relay) = flow(&guest).await;
    ping_pong(&mut app, &mut server).await;
    daemon.signal(Signal::SIGTERM);
    drop((app, server));
    let (output, _dir) = daemon.end().await;
    assert_eq!(output.status.code(), Some(0));
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(log.matches("NOTIFY_SOCKET").count(), 1, "said once: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_holds_for_new_flows_and_drops_none() {
    const BULK: usize = 64 << 20;
    let mut manager = Manager::new();
    let settings = Settings::new(&manager, "max_flows: 10\n");
    let daemon = manager.start(&["--config", settings.path()], &[]);
    let guest = daemon.guest().await;
    let (app, mut server, relay) = flow(&guest).await;
    let (mut from_server, mut to_server) = app.into_split();

    // A bulk flow, and reloads while it runs: it is not finished before they are.
    let (go_on, mut may_end) = tokio::sync::mpsc::channel::<()>(1);
    let writer = tokio::spawn(async move {
        let chunk: Vec<u8> = (0..1 << 16).map(|i| (i % 251) as u8).collect();
        for _ in 0..BULK / chunk.len() / 2 {
            to_server.write_all(&chunk).await.unwrap();
        }
        may_end.recv().await.unwrap();
        for _ in 0..BULK / chunk.len() / 2 {
            to_server.write_all(&chunk).await.unwrap();
        }
        to_server.shutdown().await.unwrap();
    });
    let reader = tokio::spawn(async move {
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        got
    });
    let target = Target::address(Ipv4Addr::LOCALHOST, 9);
    assert_eq!(
        refusal(&guest, &target).await,
        Some(Refusal::ConnectionRefused)
    );

    settings.write("deny: [127.0.0.0/8]\nmax_flows: 10\n");
    reload(&daemon, &mut manager).await;
    assert_eq!(refusal(&guest, &target).await, Some(Refusal::Prohibited));

    settings.write("max_flows: 1\n");
    reload(&daemon, &mut manager).await;
    assert_eq!(refusal(&guest, &target).await, Some(Refusal::LimitReached));

    // Back to what holds without a setting.
    settings.write("");
    reload(&daemon, &mut manager).await;
    assert_eq!(
        refusal(&guest, &target).await,
        Some(Refusal::ConnectionRefused)
    );

    go_on.send(()).await.unwrap();
    soon("the writer", writer).await.unwrap();
    let got = soon("the reader", reader).await.unwrap();
    assert_eq!(got.len(), BULK);
    let right = |(i, byte): (usize, &u8)| *byte == (i % (1 << 16) % 251) as u8;
    assert!(got.iter().enumerate().all(right));
    let mut rest = Vec::new();
    soon("the end", from_server.read_to_end(&mut rest))
        .await
        .unwrap();
    assert_eq!(soon("end", relay).await.unwrap(), End::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_changes_nothing_and_says_so() {
    let mut manager = Manager::new();
    let settings = Settings::new(&manager, "deny: [192.0.2.0/24]\n");
    let daemon = manager.start(&["--config", settings.path()], &[]);
    let guest = daemon.guest().await;
    let denied = Target::address(Ipv4Addr::new(192, 0, 2, 1), 9);
    assert_eq!(refusal(&guest, &denied).await, Some(Refusal::Prohibited));

    settings.write("max_flows: 0\ndeny: [192.0.2.0/244]\n");
    reload(&daemon, &mut manager).await;
    let status = manager.next_with("last reload failed").await;
    let place = format!("{}:2:8: `deny`", settings.path());
    assert!(status.contains(&place), "{status}");
    assert_eq!(refusal(&guest, &denied).await, Some(Refusal::Prohibited));
    let (_app, _server, _relay) = flow(&guest).await;

    settings.write("deny: []\nlisten: unix:///elsewhere\nlog_level: debug\nsocket_mode: 660\n");
    reload(&daemon, &mut manager).await;
    let status = manager.next_with("STATUS=").await;
    assert!(!status.contains("last reload failed"), "{status}");
    daemon.signal(Signal::SIGTERM);
    drop((_app, _server));
    let (output, _dir) = daemon.end().await;
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        log.contains(&place) && log.contains("settings are as they were"),
        "{log}"
    );
    assert!(
        log.contains("need a restart") && log.contains("socket_mode"),
        "{log}"
    );
    // The flag is stronger than the file, which does not change that.
    assert!(!log.contains("settings=listen"), "{log}");
    assert!(log.contains("DEBUG"), "the new level: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_stay_stronger_than_the_file() {
    let mut manager = Manager::new();
    let settings = Settings::new(&manager, "");
    let args = ["--config", settings.path(), "--deny", "192.0.2.0/24"];
    let daemon = manager.start(&args, &[]);
    let guest = daemon.guest().await;
    let denied = Target::address(Ipv4Addr::new(192, 0, 2, 1), 9);
    settings.write("deny: [203.0.113.0/24]\n");
    reload(&daemon, &mut manager).await;
    assert_eq!(refusal(&guest, &denied).await, Some(Refusal::Prohibited));
}
