//! `enclaver simulate`: a guest on a developer's machine.
//!
//! Two processes: the caller's, which stays in its network and runs the host, and a guest
//! in namespaces of its own, which does what `odyn-net run` does in an enclave. It is there for
//! trying a policy, and no security boundary: both processes and the program share a user id.

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

/// What the host gets to close its sides after the guest ended.
const HOST_SHUTDOWN: Duration = Duration::from_secs(2);

/// The caller's side: the host, and the guest as a child.
///
/// # Errors
/// The guest was not started, and why.
pub fn host(args: Simulate) -> Result<ExitCode, CliError> {
    // Here, so that what is wrong in the policy is said once and before anything is made.
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
        drain.advance(Phase::Draining, Instant::now(), HOST_SHUTDOWN);
        let _ = tokio::time::timeout(HOST_SHUTDOWN, outer).await;
        Ok::<AppExit, CliError>(ending)
    });
    runtime.shutdown_timeout(HOST_SHUTDOWN);
    ending.map(Into::into)
}

/// Starts this executable again as the guest. Its messages are its own: they come before the
/// program starts, on the same standard error.
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
    // What the caller has said by flag; what the environment and the file say, the guest reads.
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

/// The guest's side: enters its namespaces, and from there on is `odyn-net run`.
///
/// # Errors
/// The namespaces cannot be made, or what [`run::run`] says.
pub fn guest(args: Run) -> Result<ExitCode, CliError> {
    // A guest whose host half is gone has no network and nobody who waits for it.
    prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(CliError::os("ask to be killed with the host"))?;
    namespaces::enter()?;
    masks::apply().map_err(CliError::os("mask a file"))?;
    Ok(run::run(args)?)
}
