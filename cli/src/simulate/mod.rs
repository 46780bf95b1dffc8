//! `enclaver simulate`: runs a guest and a host on a developer's machine.
//!
//! There are two processes. The caller's stays in its network and runs the host. The other runs the
//! guest, in namespaces of its own, as `odyn-net run` does in an enclave. This is for trying a
//! policy and is no security boundary: both processes and the app share a user id.

mod clients;
mod masks;
mod namespaces;
mod stale;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use enclaver_outer::kms::EnvironmentCredentials;
use enclaver_outer::resolver::SystemResolver;
use enclaver_outer::{Kms, Outer};
use nix::sys::prctl;
use odyn_link::drain::{Phase, Trigger};
use odyn_net::cli::{Common, Run};
use odyn_net::supervisor::exit_status::AppExit;
use odyn_net::supervisor::supervise::{SupervisedProcess, Supervisor};
use odyn_net::{policy_file, run};
use odyn_proto::Endpoint;

pub use self::namespaces::NamespaceError;
use crate::args::{GUEST_COMMAND, Simulate};
use crate::error::CliError;

/// How long the host may take to close its flows after the guest's end.
const HOST_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the host in this process and the guest as a child.
///
/// # Errors
/// The guest was not started; the error says why.
pub fn host(args: Simulate) -> Result<ExitCode, CliError> {
    // Loads the policy here as well, so that an error in it is reported once, and first.
    let policy = policy_file::load(&args.common.policy)?;
    let clients = clients::listen(&policy.settings().ingress, &args.ingress)?;
    stale::remove(&std::env::temp_dir());
    let directory = tempfile::Builder::new()
        .prefix(stale::PREFIX)
        .tempdir()
        .map_err(CliError::os("make a directory for the link"))?;
    let link = Endpoint::Unix {
        path: directory.path().join(stale::LINK),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::os("start the runtime"))?;
    let ending = runtime.block_on(async {
        let resolver = match args.resolver {
            Some(server) => SystemResolver::fixed(vec![server]),
            None => SystemResolver::system(),
        };
        let listener = odyn_link::Listener::bind(&link, odyn_link::ListenOptions::default())
            .map_err(CliError::os("listen for the guest"))?;
        let mut watch = Supervisor::install().map_err(CliError::os("install signal handlers"))?;
        let child = spawn_guest(&link, &args.common).map_err(CliError::os("start the guest"))?;
        let drain = Trigger::default();
        let outer = Outer::builder()
            .only_pid(child.id())
            .kms(Kms::with(EnvironmentCredentials))
            .ingress(clients.mappings)
            .inherited(clients.sockets)
            .build(resolver)
            .map_err(CliError::os("start the host"))?;
        let outer = tokio::spawn(outer.run(vec![listener], drain.clone()));
        let ending = watch
            .wait(&SupervisedProcess::process(child.id()))
            .await
            .map_err(CliError::os("wait for the guest"))?;
        drain.advance(Phase::Draining, Instant::now(), HOST_SHUTDOWN_TIMEOUT);
        let _ = tokio::time::timeout(HOST_SHUTDOWN_TIMEOUT, outer).await;
        Ok::<AppExit, CliError>(ending)
    });
    runtime.shutdown_timeout(HOST_SHUTDOWN_TIMEOUT);
    ending.map(Into::into)
}

/// Starts this executable as the guest. The guest prints its own errors to the same standard error,
/// before the app starts.
fn spawn_guest(link: &Endpoint, common: &Common) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("enclaver")
        .arg(GUEST_COMMAND)
        .arg("--link")
        .arg(link.to_string())
        .args(["--init", "no", "--nsm", "simulated"])
        .arg("--policy")
        .arg(&common.policy)
        .arg("--capture")
        .arg(common.capture.as_str())
        .arg("--lanes")
        .arg(common.lanes.to_string())
        .arg("--log-level")
        .arg(&common.log_level);
    let mut option = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            command.arg(name).arg(value);
        }
    };
    // Passes the caller's flags on. The guest reads environment and settings file itself.
    option("--config", common.config.clone().map(Into::into));
    option("--user", common.user.clone().map(Into::into));
    option("--audit", common.audit.clone().map(Into::into));
    option("--log", common.log.clone().map(Into::into));
    option(
        "--drain-timeout",
        common
            .drain_timeout
            .map(|d| humantime::format_duration(d).to_string().into()),
    );
    command.arg("--").args(&common.command).spawn()
}

/// Enters namespaces and then runs as `odyn-net run`.
///
/// # Errors
/// The namespaces cannot be made, or [`run::run`] failed.
pub fn guest(args: Run) -> Result<ExitCode, CliError> {
    // A guest without a host has no network, so the kernel kills it with the host.
    prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(CliError::os("ask to be killed with the host"))?;
    namespaces::enter()?;
    masks::apply().map_err(CliError::os("mask a file"))?;
    Ok(run::run(args)?)
}
