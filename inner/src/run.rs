//! `odyn-net run`: the composition root of the guest.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::prctl;
use odyn_link::{HostLink, HostLinkConfig, LinkState};
use odyn_policy::Policy;
use odyn_proto::GuestState;

use crate::audit::{Audit, Sink};
use crate::capture::Capture;
use crate::capture::routes::{OwnAddresses, kernel_has_ipv6};
use crate::cli::{Common, Run};
use crate::egress::PermittedLink;
use crate::shutdown::EndedGuest;
use crate::start_error::StartError;
use crate::supervisor::exit_status::AppExit;
use crate::supervisor::launch::Launch;
use crate::supervisor::supervise::{SupervisedProcess, Supervisor};
use crate::supervisor::user::AppUser;
use crate::telemetry::{LogFeed, StdioMode, Telemetry, logging};
use crate::{egress, guest_id, ingress, init, policy_file, services, shutdown};

/// How long the app's start waits for the link. Then the app starts without it; the link comes up
/// once the host does.
const LINK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long tasks have to end with the runtime.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the app in this namespace and returns its exit code.
///
/// # Errors
/// The reason why the app was not started.
pub fn run(args: Run) -> Result<ExitCode, StartError> {
    let init = init::prepare(args.init)?;
    let policy = policy_file::load(&args.common.policy)?;
    let audit = open_audit(&args.common)?;
    let mode = StdioMode::choose(args.stdio);
    let log = (mode == StdioMode::Host).then(LogFeed::default);
    logging::start(
        args.common.log.as_deref(),
        &args.common.log_level,
        log.clone(),
    )?;
    init.finish(policy.settings().name.as_deref());
    // Other processes of this user id must not read our memory or trace us.
    prctl::set_dumpable(false).map_err(StartError::os("protect our memory"))?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(StartError::os("start the runtime"))?;
    // block_on stays on this thread, so the thread that starts the app lives as long as odyn-net:
    // see [`Launch::spawn`].
    let result = runtime.block_on(report(args, policy, audit.clone(), log));
    // Flows that are still open are dropped here, and each drop writes a record.
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    audit.flush();
    result
}

/// Starts the link and the reports, runs the app, and reports how that ended. The link comes first,
/// so that the host learns of every later failure.
async fn report(
    args: Run,
    policy: Arc<Policy>,
    audit: Audit,
    log: Option<LogFeed>,
) -> Result<ExitCode, StartError> {
    let guest = guest_id::own(policy.settings().name.as_deref())
        .map_err(StartError::os("make an id for this run"))?;
    let drain_timeout = args
        .common
        .drain_timeout
        .unwrap_or(policy.settings().shutdown.drain_timeout);
    let mut config = HostLinkConfig::default();
    config.tuning.lanes = args.common.lanes;
    let client = HostLink::new(args.link.clone(), config);
    let mut report = Telemetry::start(&client, &guest, log);
    let parts = Parts {
        policy,
        audit,
        client: client.clone(),
        guest,
    };
    match serve(args, parts, &mut report).await {
        Ok((exit, guest)) => {
            shutdown::end(guest, exit, &client, report, drain_timeout).await;
            Ok(exit.into())
        }
        Err(error) => {
            eprintln!("odyn-net: {error}");
            // Bound the wait where someone may sit at a terminal; PID 1 has no terminal.
            let limit = (std::process::id() != 1).then_some(drain_timeout);
            report.fatal(error.to_string(), limit).await;
            Ok(error.failure().into())
        }
    }
}

/// The parts of a run besides its arguments.
struct Parts {
    policy: Arc<Policy>,
    audit: Audit,
    client: HostLink,
    guest: odyn_proto::Identity,
}

/// Runs the app to its end. Returns how it ended, and the guest to shut down: `None` if a signal
/// came before the start of the app.
async fn serve(
    args: Run,
    parts: Parts,
    report: &mut Telemetry,
) -> Result<(AppExit, Option<EndedGuest>), StartError> {
    let Parts {
        policy,
        audit,
        client,
        guest,
    } = parts;
    let mut launch = prepare_launch(&args.common)?;
    let ports = ingress::Ports::prepare(&policy.settings().ingress, &args.common.policy)?;
    // A first process gets signals from here on; without a handler the kernel discards them.
    let mut supervisor =
        Supervisor::install().map_err(StartError::os("install signal handlers"))?;
    let own = OwnAddresses {
        v4: odyn_proto::synthetic::GUEST_V4,
        v6: kernel_has_ipv6().then_some(odyn_proto::synthetic::GUEST_V6),
    };
    let capture = Capture::install(own, args.common.capture).await?;
    tracing::info!(method = capture.method().as_str(), "network captured");
    let link = PermittedLink::new(client);
    let link_state = link.state();
    let ingress = ingress::start(
        args.link.clone(),
        args.common.lanes,
        ports,
        guest,
        audit.clone(),
        link.drain_watch(),
    );
    let egress = egress::start(capture, own, Arc::clone(&policy), link.clone(), audit)
        .map_err(StartError::os("serve the captured network"))?;

    let url = args.link.to_string();
    tokio::select! {
        () = await_link(link_state, &url) => {}
        signal = supervisor.told_to_stop() => {
            // Ends as the signal would have ended the app, which is not started.
            return Ok((AppExit::Signaled(signal as i32), None));
        }
    }
    let services = services::start(policy.settings(), &link, args.nsm).await?;
    launch.environment(services.environment().iter().cloned());
    let stdio = report
        .stdio(StdioMode::choose(args.stdio))
        .map_err(StartError::os("make pipes for the app"))?;
    let child = launch
        .spawn(stdio)
        .map_err(StartError::os("start a process for the app"))?;
    tracing::info!(pid = child.id(), "app started");
    report.state(&GuestState::Running);
    let exit = supervisor
        .wait(&SupervisedProcess::group(child.id()))
        .await
        .map_err(StartError::os("wait for the app"))?;
    let guest = EndedGuest {
        services,
        supervisor,
        egress,
        ingress,
    };
    Ok((exit, Some(guest)))
}

fn open_audit(common: &Common) -> Result<Audit, StartError> {
    let sink = match common.audit.as_deref() {
        None => Sink::none(),
        Some(path) if path == Path::new("-") => Sink::stdout(),
        Some(path) => Sink::file(path).map_err(|source| StartError::Audit {
            path: path.to_owned(),
            source,
        })?,
    };
    Audit::new(sink).map_err(StartError::os("start the audit writer"))
}

fn prepare_launch(common: &Common) -> Result<Launch, StartError> {
    let user = common.user.as_deref().map(AppUser::resolve).transpose()?;
    Ok(Launch::new(
        user.as_ref(),
        // The app gets the limit that this process was started with.
        odyn_process::raise_file_limit()
            .ok()
            .map(|limit| limit.before),
        common.command.clone(),
    ))
}

async fn await_link(mut state: tokio::sync::watch::Receiver<LinkState>, url: &str) {
    let up = state.wait_for(|state| matches!(state, LinkState::Up));
    if tokio::time::timeout(LINK_TIMEOUT, up).await.is_err() {
        tracing::warn!(url, "no link to the host yet; the app starts without it");
    }
}
