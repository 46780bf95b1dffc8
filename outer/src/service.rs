//! The service from its start to its end: signals, reloads, the service manager.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use enclaver_outer::ingress::Inherited;
use enclaver_outer::{Control, Kms, Outer, States, Summary};
use odyn_link::{ListenError, ListenOptions, Listener, Shutdown};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::View;
use crate::chain::Chain;
use crate::cli::{Permission, ReadyWhen, Run};
use crate::configure::Configured;
use crate::exit::Failure;
use crate::logging::Filter;
use crate::notify::Notifier;
use crate::reload::Reloader;
use crate::status::{Phase, Status};
use crate::{admin, notify, reload};

/// File descriptors that are not for flows: standard streams, listeners, connections of guests,
/// the resolver's sockets.
const OTHER_FILES: u64 = 256;

/// How often the status is looked at, and the drain reported.
const LOOK: Duration = Duration::from_secs(1);

/// What a drain that goes on asks for each time: a missed look or two do no harm, and one that
/// hangs is found soon.
const EXTENSION: Duration = Duration::from_secs(20);

/// What the end takes after the last flow was cut.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// Nobody waits longer for a drain.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Serves until told to stop.
pub(crate) async fn serve(
    configured: Configured,
    files: u64,
    log: Filter,
    inherited: Inherited,
) -> Result<(), Failure> {
    let args = &configured.args;
    let most = usize::try_from(files.saturating_sub(OTHER_FILES))
        .unwrap_or(usize::MAX)
        .max(16);
    let outer = Outer::builder()
        .limits(reload::limits(args))
        .connect_timeout(args.connect_timeout)
        .drain_timeout(args.drain_timeout)
        .max_flows(args.max_flows.unwrap_or(most))
        .ingress(args.ingress.iter().cloned())
        .lanes(args.lanes)
        .clients(reload::clients(args))
        .inherited(inherited)
        .guest_logs(args.guest_logs.clone())
        .kms(kms(args))
        .build(reload::resolver(args))
        .map_err(Failure::Output)?;
    let control = outer.control();

    // Before anyone can connect: a signal that comes now is not lost.
    let mut signals = Signals::install().map_err(Failure::Runtime)?;
    let asked = args.control.as_deref().map(admin::listen).transpose();
    let asked = asked.map_err(Failure::Listen)?;
    let ready = args.ready_listen.map(listen_for_ready).transpose()?;
    // The last of all: whoever finds the link finds the others, too.
    let listeners = bind(args)?;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    if let Some(listener) = asked {
        let view = View::new(outer.guests(), outer.listeners());
        tokio::spawn(admin::serve(listener, view, stop.clone()));
    }
    if let Some(listener) = ready {
        tokio::spawn(admin::ready::serve(listener, outer.listeners(), stop));
    }
    let mut service = Service {
        notifier: Notifier::default(),
        phase: match args.ready_when {
            ReadyWhen::Listening => Phase::Serving,
            other => Phase::Waiting(other),
        },
        endpoints: endpoints(&listeners),
        states: outer.states(),
        complaint: None,
        reloader: Reloader::new(control.clone(), log, most, &configured.report),
        control,
    };
    let shutdown = Shutdown::default();
    let mut running = pin!(outer.run(listeners, shutdown.clone()));
    let mut beat = pin!(notify::beat());
    let mut look = tokio::time::interval(LOOK);
    let mut states = service.states.clone();
    let mut reading = None;
    if matches!(service.phase, Phase::Serving) {
        service.notifier.ready();
    }
    loop {
        tokio::select! {
            summary = &mut running => {
                service.ended(summary);
                return Ok(());
            }
            signal = signals.next() => match signal {
                Told::Stop(name) if service.is_draining() => {
                    warn!(signal = name, "told to stop again: not draining any more");
                    shutdown.force.cancel();
                    if let Ok(summary) = timeout(LAST_STEPS, &mut running).await {
                        service.ended(summary);
                    }
                    return Ok(());
                }
                Told::Stop(name) => {
                    service.stop(name);
                    shutdown.drain.cancel();
                }
                Told::Reload if service.is_draining() => {}
                Told::Reload => {
                    service.reload();
                    reading = Some(Box::pin(reload::read(arguments())));
                }
            },
            read = finished(&mut reading) => {
                reading = None;
                service.reloaded(read);
            }
            _ = states.changed() => {}
            _ = look.tick() => {}
            () = &mut beat => {}
        }
        service.look();
    }
}

/// What guests may have of KMS.
fn kms(args: &Run) -> Kms {
    match args.kms {
        Permission::Deny => Kms::default(),
        Permission::Allow => {
            Kms::with(Chain::default()).endpoints(args.kms_endpoint.iter().cloned())
        }
    }
}

struct Service {
    notifier: Notifier,
    phase: Phase,
    endpoints: String,
    states: watch::Receiver<States>,
    /// Why the last reload failed.
    complaint: Option<String>,
    reloader: Reloader,
    control: Control,
}

impl Service {
    fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. })
    }

    /// Tells the service manager what has changed.
    fn look(&mut self) {
        let states = *self.states.borrow();
        if let Phase::Waiting(when) = self.phase
            && is_ready(when, states)
        {
            self.phase = Phase::Serving;
            info!(linked = states.linked, running = states.running, "ready");
            self.notifier.ready();
        }
        let now = Instant::now();
        if let Phase::Draining { until, .. } = self.phase
            && now < until + LAST_STEPS
        {
            self.notifier.extend(EXTENSION);
        }
        let status = Status {
            phase: self.phase,
            counts: self.control.counts(),
            states,
            endpoints: &self.endpoints,
            complaint: self.complaint.as_deref(),
        };
        let line = status.line(now);
        self.notifier.status(&line);
    }

    fn stop(&mut self, signal: &str) {
        let limit = self.control.rules().drain_timeout;
        let counts = self.control.counts();
        info!(signal, ?limit, flows = counts.flows, "draining");
        let since = Instant::now();
        // As good as for ever, and no overflow.
        let until = since + limit.min(A_YEAR);
        self.phase = Phase::Draining { since, until };
        self.notifier.stopping(EXTENSION);
    }

    fn reload(&self) {
        info!("reloading");
        // What has not started yet cannot be told to reload.
        if matches!(self.phase, Phase::Serving) {
            self.notifier.reloading();
        }
    }

    fn reloaded(&mut self, read: Result<Configured, String>) {
        self.complaint = self.reloader.take(read).err();
        // The end of a reload is the same word as the end of the start.
        if matches!(self.phase, Phase::Serving) {
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

/// The end of a reload, if there is one under way.
async fn finished<T>(reading: &mut Option<Pin<Box<impl Future<Output = T>>>>) -> T {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

fn listen_for_ready(address: SocketAddr) -> Result<TcpListener, Failure> {
    admin::ready::listen(address).map_err(|source| {
        let endpoint = address.to_string();
        Failure::Listen(ListenError::Io { endpoint, source })
    })
}

fn bind(args: &Run) -> Result<Vec<Listener>, Failure> {
    let mut options = ListenOptions::default();
    options.mode = args.socket_mode;
    args.listen
        .iter()
        .map(|endpoint| Listener::bind(endpoint, options))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::Listen)
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

/// What a signal tells the service.
enum Told {
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

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}
