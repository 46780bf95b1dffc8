//! Runs the daemon: start, signals, reloads, shutdown, and the service manager.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use enclaver_outer::ingress::InheritedSockets;
use enclaver_outer::{Kms, Outer, RuntimeConfig, States, Summary};
use odyn_link::drain::{Phase, Trigger};
use odyn_link::{ListenError, ListenOptions, Listener};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::AdminView;
use crate::aws_chain::AwsChain;
use crate::cli::{Permission, ReadyWhen, RunArgs};
use crate::exit::DaemonError;
use crate::logging::LogFilter;
use crate::notify::Notifier;
use crate::reload::{ReloadError, Reloader};
use crate::settings::LoadedSettings;
use crate::status_line::StatusLine;
use crate::{admin, notify, reload};

/// File descriptors that are kept back from flows.
///
/// For standard streams, listeners, connections of guests, and the resolver's sockets.
const RESERVED_FILES: u64 = 256;

/// How often the status line is updated.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The time that a drain asks the service manager for, at each update.
///
/// Long enough for some missed updates, short enough to find a drain that hangs.
const STOP_EXTENSION: Duration = Duration::from_secs(20);

/// Longest time from the cut of the last flow to the end of the process.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves guests until SIGTERM or SIGINT.
pub(crate) async fn serve(
    configured: LoadedSettings,
    files: u64,
    log: LogFilter,
    inherited: InheritedSockets,
) -> Result<(), DaemonError> {
    let args = &configured.args;
    let max_flows = usize::try_from(files.saturating_sub(RESERVED_FILES))
        .unwrap_or(usize::MAX)
        .max(16);
    let outer = build(args, max_flows, inherited)?;
    let runtime_config = outer.runtime_config();
    // Before the first listener, so that no signal is lost from then on.
    let signals = Signals::install().map_err(DaemonError::Runtime)?;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    serve_admin(args, &outer, stop)?;
    // Bind the link last: once it accepts, all other endpoints are up.
    let listeners = bind(args)?;
    let daemon = Daemon {
        notifier: Notifier::default(),
        drain: Trigger::default(),
        waiting: match args.ready_when {
            ReadyWhen::Listening => None,
            other => Some(other),
        },
        endpoints: endpoints(&listeners),
        states: outer.states(),
        reload_error: None,
        reloader: Reloader::new(runtime_config.clone(), log, max_flows, &configured.report),
        runtime_config,
    };
    daemon.run(outer, listeners, signals).await;
    Ok(())
}

/// Builds the host by the settings.
fn build(
    args: &RunArgs,
    max_flows: usize,
    inherited: InheritedSockets,
) -> Result<Outer, DaemonError> {
    Outer::builder()
        .limits(reload::limits(args))
        .connect_timeout(args.connect_timeout)
        .drain_timeout(args.drain_timeout)
        .max_flows(args.max_flows.unwrap_or(max_flows))
        .ingress(args.ingress.iter().cloned())
        .lanes(args.lanes)
        .clients(reload::clients(args))
        .inherited(inherited)
        .guest_logs(args.guest_logs.clone())
        .kms(kms(args))
        .build(reload::resolver(args))
        .map_err(DaemonError::Output)
}

/// Opens the control socket and the address of /ready, and serves them until `stop`.
fn serve_admin(args: &RunArgs, outer: &Outer, stop: CancellationToken) -> Result<(), DaemonError> {
    let control_socket = args.control.as_deref().map(admin::listen).transpose();
    let control_socket = control_socket.map_err(DaemonError::Listen)?;
    let ready = args.ready_listen.map(listen_for_ready).transpose()?;
    if let Some(listener) = control_socket {
        let view = AdminView::new(outer.guests(), outer.listeners());
        tokio::spawn(admin::serve(listener, view, stop.clone()));
    }
    if let Some(listener) = ready {
        tokio::spawn(admin::ready::serve(listener, outer.listeners(), stop));
    }
    Ok(())
}

/// What guests get of KMS, by the settings.
fn kms(args: &RunArgs) -> Kms {
    match args.kms {
        Permission::Deny => Kms::default(),
        Permission::Allow => {
            Kms::with(AwsChain::default()).endpoints(args.kms_endpoint.iter().cloned())
        }
    }
}

struct Daemon {
    notifier: Notifier,
    drain: Trigger,
    /// What it waits for before it is ready.
    waiting: Option<ReadyWhen>,
    endpoints: String,
    states: watch::Receiver<States>,
    /// Why the last reload failed.
    reload_error: Option<String>,
    reloader: Reloader,
    runtime_config: RuntimeConfig,
}

impl Daemon {
    /// Serves guests, and follows signals, until the host has stopped.
    async fn run(mut self, outer: Outer, listeners: Vec<Listener>, mut signals: Signals) {
        let mut running = pin!(outer.run(listeners, self.drain.clone()));
        let mut watchdog = pin!(notify::feed_watchdog());
        let mut status_tick = tokio::time::interval(STATUS_INTERVAL);
        let mut states = self.states.clone();
        let mut reading = None;
        if self.waiting.is_none() {
            self.notifier.ready();
        }
        loop {
            tokio::select! {
                summary = &mut running => {
                    self.ended(summary);
                    return;
                }
                signal = signals.next() => match signal {
                    SignalRequest::Stop(name) if self.is_draining() => {
                        warn!(signal = name, "told to stop again: the drain is cut short");
                        self.drain.advance(Phase::Forced, Instant::now(), EXIT_TIMEOUT);
                        if let Ok(summary) = timeout(EXIT_TIMEOUT, &mut running).await {
                            self.ended(summary);
                        }
                        return;
                    }
                    SignalRequest::Stop(name) => self.stop(name),
                    SignalRequest::Reload if self.is_draining() => {}
                    SignalRequest::Reload => {
                        self.reload();
                        reading = Some(Box::pin(reload::read(arguments())));
                    }
                },
                read = finished(&mut reading) => {
                    reading = None;
                    self.reloaded(read);
                }
                _ = states.changed() => {}
                _ = status_tick.tick() => {}
                () = &mut watchdog => {}
            }
            self.update_status();
        }
    }

    fn is_draining(&self) -> bool {
        self.drain.watch().is_draining()
    }

    /// Whether it is ready, and not at its end.
    fn is_serving(&self) -> bool {
        self.waiting.is_none() && !self.is_draining()
    }

    /// Tells the service manager what has changed.
    fn update_status(&mut self) {
        let states = *self.states.borrow();
        let drain = self.drain.watch().step();
        if let Some(when) = self.waiting
            && drain.phase == Phase::Running
            && is_ready(when, states)
        {
            self.waiting = None;
            info!(linked = states.linked, running = states.running, "ready");
            self.notifier.ready();
        }
        let now = Instant::now();
        if drain.phase > Phase::Running && now < drain.until + EXIT_TIMEOUT {
            self.notifier.extend(STOP_EXTENSION);
        }
        let status = StatusLine {
            drain,
            waiting: self.waiting,
            counts: self.runtime_config.counts(),
            states,
            endpoints: &self.endpoints,
            reload_error: self.reload_error.as_deref(),
        };
        let line = status.line(now);
        self.notifier.status(&line);
    }

    fn stop(&mut self, signal: &str) {
        let limit = self.runtime_config.rules().drain_timeout;
        let counts = self.runtime_config.counts();
        info!(signal, ?limit, flows = counts.flows, "draining");
        self.drain.advance(Phase::Draining, Instant::now(), limit);
        self.notifier.stopping(STOP_EXTENSION);
    }

    fn reload(&self) {
        info!("reloading");
        // A service that is not ready yet must not announce a reload.
        if self.is_serving() {
            self.notifier.reloading();
        }
    }

    fn reloaded(&mut self, read: Result<LoadedSettings, ReloadError>) {
        let applied = self.reloader.apply_if_valid(read);
        self.reload_error = applied.err().map(|error| error.to_string());
        // READY=1 ends a reload as well as a start.
        if self.is_serving() {
            self.notifier.ready();
        }
    }

    fn ended(&mut self, summary: Summary) {
        if summary.cut > 0 {
            warn!(flows = summary.cut, "flows were cut");
        }
        info!("stopped");
    }
}

fn is_ready(when: ReadyWhen, states: States) -> bool {
    match when {
        ReadyWhen::Listening => true,
        ReadyWhen::Linked => states.linked > 0,
        ReadyWhen::Running => states.running > 0,
    }
}

/// The result of a reload that is under way; never ready without one.
async fn finished<T>(reading: &mut Option<Pin<Box<impl Future<Output = T>>>>) -> T {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

fn listen_for_ready(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    admin::ready::listen(address).map_err(|source| {
        let endpoint = address.to_string();
        DaemonError::Listen(ListenError::Io { endpoint, source })
    })
}

fn bind(args: &RunArgs) -> Result<Vec<Listener>, DaemonError> {
    let mut options = ListenOptions::default();
    options.mode = args.socket_mode;
    args.listen
        .iter()
        .map(|endpoint| Listener::bind(endpoint, options))
        .collect::<Result<Vec<_>, _>>()
        .map_err(DaemonError::Listen)
}

fn endpoints(listeners: &[Listener]) -> String {
    let endpoints: Vec<String> = listeners
        .iter()
        .map(|listener| listener.endpoint().to_string())
        .collect();
    endpoints.join(", ")
}

fn arguments() -> Vec<OsString> {
    std::env::args_os().collect()
}

/// What a signal asks of the daemon.
enum SignalRequest {
    Stop(&'static str),
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            _ = self.terminate.recv() => SignalRequest::Stop("SIGTERM"),
            _ = self.interrupt.recv() => SignalRequest::Stop("SIGINT"),
            _ = self.hangup.recv() => SignalRequest::Reload,
        }
    }
}
