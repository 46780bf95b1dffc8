//! One run of an app in a guest.

mod output;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;

use crate::namespace::{Namespace, command_in};
use crate::process::Process;
use crate::world::{NOBODY, World, as_user, executable, log_level};

pub use output::{Output, Running};

/// How long an app may run before the test says that it hung.
const LIMIT: Duration = Duration::from_secs(60);

/// Puts a `resolv.conf` and an `nsswitch.conf` in place, goes to a directory,
/// then becomes the rest of its words.
pub(crate) const BIND_FILES: &str = r#"set -e
mount --bind "$1" /etc/resolv.conf
if [ -e /etc/nsswitch.conf ]; then mount --bind "$2" /etc/nsswitch.conf; fi
cd "$3"
shift 3
exec "$@""#;

/// Becomes odyn-net as the first process of a root file system, `/world` in which is the test's own. What the
/// machine has is out of reach: the last words come from a static busybox in there, as the root may have no tool.
const ENTER_ROOT: &str = r#"set -e
root=$1 world=$2
shift 2
busybox=/world/bin/busybox
[ -e "$world/bin/busybox" ] || cp "$(command -v busybox)" "$world/bin/busybox"
mount -t tmpfs -o mode=755 root "$world/scratch"
cd "$world/scratch"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$root,upperdir=upper,workdir=work" root
cd root
mkdir world old
mount --bind "$world" world
pivot_root . old
exec $busybox sh -c "$busybox umount -l /old; $busybox rmdir /old; "'cd /; exec /odyn-net "$@"' odyn-net "$@""#;

/// An app to run, and how.
#[derive(Debug, Clone)]
pub struct Guest {
    words: Vec<String>,
    policy: Option<PathBuf>,
    user: Option<String>,
    env: Vec<(String, String)>,
    stdin: Option<PathBuf>,
    resolv: Option<PathBuf>,
    flags: Vec<String>,
    wrap: Vec<String>,
    prelude: String,
    limit: Duration,
    inside: Option<Pid>,
    root: Option<PathBuf>,
    world_at: Option<PathBuf>,
}

impl Guest {
    /// An app and its words.
    pub fn new(words: &[&str]) -> Self {
        Self {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            policy: None,
            user: Some("nobody".to_owned()),
            env: Vec::new(),
            stdin: None,
            resolv: None,
            flags: Vec::new(),
            wrap: Vec::new(),
            prelude: String::new(),
            limit: LIMIT,
            inside: None,
            root: None,
            world_at: None,
        }
    }

    /// A Python app and its words.
    pub fn python(source: &str, words: &[&str]) -> Self {
        let mut all = vec!["python3", "-c", source];
        all.extend(words);
        Self::new(&all)
    }

    /// A shell script.
    pub fn sh(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    /// A word more for the app.
    #[must_use]
    pub fn word(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// A policy other than the world's.
    #[must_use]
    pub fn policy(mut self, file: PathBuf) -> Self {
        self.policy = Some(file);
        self
    }

    /// Runs as root inside.
    #[must_use]
    pub fn root(mut self) -> Self {
        self.user = None;
        self
    }

    /// An environment variable more.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file as its standard input.
    #[must_use]
    pub fn stdin(mut self, file: PathBuf) -> Self {
        self.stdin = Some(file);
        self
    }

    /// A `resolv.conf` of its own.
    #[must_use]
    pub fn resolv(mut self, file: PathBuf) -> Self {
        self.resolv = Some(file);
        self
    }

    /// A flag more for `odyn-net run`.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Words before `odyn-net`, such as `setpriv` with its options.
    #[must_use]
    pub fn wrap(mut self, words: &[&str]) -> Self {
        self.wrap = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Shell commands to run as root in the guest, before `odyn-net`.
    #[must_use]
    pub fn prelude(mut self, script: &str) -> Self {
        self.prelude.push_str(script);
        self.prelude.push('\n');
        self
    }

    /// Runs in this namespace instead of one of its own, after whatever ran there before.
    #[must_use]
    pub fn inside(mut self, namespace: &Namespace) -> Self {
        self.inside = Some(namespace.pid());
        self
    }

    /// Runs `/odyn-net` of this root file system, as the first process in it, with namespaces of its own. What
    /// it and the app write there is gone afterwards; the world's directory is at `/world`.
    #[must_use]
    pub fn in_root(mut self, root: &Path) -> Self {
        self.root = Some(root.to_owned());
        self.world_at("/world")
    }

    /// Tells `odyn-net` that the world's directory is elsewhere, for those who put it there.
    #[must_use]
    pub fn world_at(mut self, path: &str) -> Self {
        self.world_at = Some(path.into());
        self
    }

    /// A longer or shorter limit than a minute.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self, world: &World) -> Output {
        self.spawn(world).finish()
    }

    /// Starts it.
    pub fn spawn(&self, world: &World) -> Running {
        let app = self.words.first().map_or("app", String::as_str);
        let name = app.rsplit('/').next().unwrap_or(app);
        let name = world.unique(&format!("guest-{name}"));
        let audit = world.logs().join(format!("{name}.audit"));
        let mut command = if world.direct() {
            self.direct(world)
        } else {
            self.captured(world, &name, &audit)
        };
        command.args(&self.words);
        self.environment(world, &mut command);
        match &self.stdin {
            Some(path) => command.stdin(File::open(path).expect("a readable file")),
            None => command.stdin(Stdio::null()),
        };
        Running {
            process: Process::spawn(command, &name, &world.logs(), true),
            audit,
            limit: self.limit,
            direct: world.direct(),
        }
    }

    /// The command up to the app's own words: a new guest, `odyn-net` in it.
    fn captured(&self, world: &World, name: &str, audit: &std::path::Path) -> Command {
        let resolv = match &self.resolv {
            Some(path) => path.clone(),
            None => world.dir().join("guest-resolv.conf"),
        };
        let policy = self.policy.as_deref().unwrap_or(world.policy_file());
        let mut command = match self.inside {
            None => world.space().unshare_net(),
            Some(pid) => {
                let mut command = command_in(pid);
                command.args(["unshare", "--mount", "--propagation", "private", "--"]);
                command
            }
        };
        command.args(["sh", "-c", &format!("{}{BIND_FILES}", self.prelude), "sh"]);
        command.arg(resolv).arg(world.dir().join("nsswitch.conf"));
        command.arg(world.scratch());
        command.args(&self.wrap);
        match &self.root {
            None => command.arg(executable("ODYN_NET", "odyn-net")),
            Some(root) => command
                .args(["unshare", "--mount", "--propagation", "private", "--uts"])
                .args(["--pid", "--fork", "--kill-child"])
                .args(["sh", "-c", ENTER_ROOT, "sh"])
                .args([root, world.dir()]),
        };
        let seen = |path: &Path| match (&self.world_at, path.strip_prefix(world.dir())) {
            (Some(at), Ok(rest)) => at.join(rest),
            _ => path.to_owned(),
        };
        command.arg("run").arg("--policy").arg(seen(policy));
        let link = seen(&world.link_path());
        command.args(["--link", &format!("unix://{}", link.display())]);
        command.arg("--audit").arg(seen(audit));
        let log = world.logs().join(format!("{name}.log"));
        command.arg("--log").arg(seen(&log));
        command.args(["--log-level", &log_level()]);
        if let Some(user) = &self.user {
            command.args(["--user", user]);
        }
        command.args(&self.flags).arg("--");
        command
    }

    /// The control: the same app on the host.
    fn direct(&self, world: &World) -> Command {
        let mut command = world.host().command();
        command.arg("env").arg("--chdir").arg(world.scratch());
        if self.user.is_some() {
            as_user(&mut command, NOBODY);
        }
        command
    }

    /// A small environment, the same on every machine.
    fn environment(&self, world: &World, command: &mut Command) {
        let ca = world.dir().join("ca.pem");
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", world.scratch())
            .env("LANG", "C.UTF-8")
            .env("RUST_BACKTRACE", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0");
        for variable in [
            "CURL_CA_BUNDLE",
            "GIT_SSL_CAINFO",
            "REQUESTS_CA_BUNDLE",
            "SSL_CERT_FILE",
        ] {
            command.env(variable, &ca);
        }
        if let Some(method) = std::env::var_os("ODYN_TEST_CAPTURE") {
            command.env("ODYN_CAPTURE", method);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
    }
}
