//! An internet, a host and its guests.

mod builder;
mod network;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::guest::{Guest, Output};
use crate::namespace::{Namespace, Space};
use crate::process::{Process, until};

pub use builder::Builder;

/// The internet's name server; the host's `resolv.conf` names it.
pub const RESOLVER: &str = "203.0.113.53";
/// The same name server's IPv6 address.
pub const RESOLVER6: &str = "2001:db8::53";
/// The user of that name, which apps run as unless a test says otherwise.
pub const NOBODY: u32 = 65534;

/// A running world. Dropping it ends everything in it.
#[derive(Debug)]
pub struct World {
    // Dropped in this order: the programs, then the namespaces, then the files.
    outer: Option<Process>,
    dns: Option<Process>,
    internet: Namespace,
    host: Namespace,
    space: Space,
    policy: PathBuf,
    dir: tempfile::TempDir,
    counter: AtomicUsize,
    direct: bool,
    outer_flags: Vec<String>,
    outer_env: Vec<String>,
}

impl World {
    /// Begins a world.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Whether this is the control run, without `odyn-net`.
    pub fn direct(&self) -> bool {
        self.direct
    }

    /// The internet: servers live here.
    pub fn internet(&self) -> &Namespace {
        &self.internet
    }

    /// The host: `enclaver-outer` lives here.
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// A namespace for guests that follow each other: see [`Guest::inside`].
    pub fn guest_namespace(&self) -> Namespace {
        self.space.namespace()
    }

    /// A directory of this world that everyone may read.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A directory that the app may write to.
    pub fn scratch(&self) -> PathBuf {
        self.dir().join("scratch")
    }

    /// The default policy file.
    pub fn policy_file(&self) -> &Path {
        &self.policy
    }

    /// The link between guest and host.
    pub fn link_url(&self) -> String {
        format!("unix://{}", self.link_path().display())
    }

    /// The link's socket.
    pub fn link_path(&self) -> PathBuf {
        self.dir().join("link.sock")
    }

    /// The folder of every part's output; printed when the test fails.
    pub fn logs(&self) -> PathBuf {
        self.dir().join("logs")
    }

    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// A name for logs that no other part has.
    pub fn unique(&self, name: &str) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{number:02}-{name}")
    }

    /// Writes a file into the world's directory.
    ///
    /// # Panics
    /// When it can't.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir().join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Copies an executable to where every user may run it.
    ///
    /// # Panics
    /// When it can't.
    pub fn install(&self, executable: &Path) -> PathBuf {
        let target = self
            .dir()
            .join("bin")
            .join(executable.file_name().expect("a file"));
        fs::copy(executable, &target)
            .unwrap_or_else(|error| panic!("{}: {error}", executable.display()));
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).expect("own file");
        target
    }

    /// Starts a server on the internet.
    pub fn internet_spawn(&self, name: &str, words: &[&str]) -> Process {
        self.spawn_in(&self.internet, name, words)
    }

    /// Starts a program on the host.
    pub fn host_spawn(&self, name: &str, words: &[&str]) -> Process {
        self.spawn_in(&self.host, name, words)
    }

    fn spawn_in(&self, namespace: &Namespace, name: &str, words: &[&str]) -> Process {
        let mut command = namespace.command();
        command.args(words);
        Process::spawn(command, &self.unique(name), &self.logs(), true)
    }

    /// Runs an app in a guest of its own, without rights, and waits for its end.
    #[track_caller]
    pub fn guest(&self, words: &[&str]) -> Output {
        Guest::new(words).run(self)
    }

    /// Runs a Python program in a guest of its own.
    #[track_caller]
    pub fn python(&self, source: &str, words: &[&str]) -> Output {
        Guest::python(source, words).run(self)
    }

    /// Every query that reached the internet's name server.
    pub fn dns_log(&self) -> String {
        fs::read_to_string(self.logs().join("dns.log")).unwrap_or_default()
    }

    /// Takes the internet's name server away.
    pub fn stop_dns(&mut self) {
        self.dns = None;
    }

    /// The host.
    ///
    /// # Panics
    /// In the control run, which has none.
    pub fn outer(&mut self) -> &mut Process {
        self.outer.as_mut().expect("not in the control run")
    }

    /// The standard output of `enclaver-outer` so far.
    pub fn outer_stdout(&self) -> String {
        let bytes = self.outer.as_ref().map(Process::stdout);
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    }

    /// Starts `enclaver-outer`, in place of one that is gone.
    ///
    /// # Panics
    /// When it does not listen within ten seconds.
    pub fn start_outer(&mut self) {
        let link = self.link_path();
        let outer = executable("ENCLAVER_OUTER", "enclaver-outer");
        let (outer, url, level) = (outer.display().to_string(), self.link_url(), log_level());
        let mut words = vec!["env"];
        words.extend(self.outer_env.iter().map(String::as_str));
        words.extend([&*outer, "run", "--listen", &*url, "--log-level", &*level]);
        words.extend(self.outer_flags.iter().map(String::as_str));
        let mut process = self.host_spawn("outer", &words);
        until(Duration::from_secs(10), "enclaver-outer to listen", || {
            assert!(
                process.ended().is_none(),
                "enclaver-outer ended: {}",
                String::from_utf8_lossy(&process.stderr())
            );
            UnixStream::connect(&link).is_ok()
        });
        self.outer = Some(process);
    }
}

impl World {
    /// The logs of odyn-net of all guests of this world.
    ///
    /// # Panics
    /// When the world's directory cannot be read.
    pub fn guest_log(&self) -> String {
        let entries = fs::read_dir(self.logs()).expect("the world's directory");
        entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.contains("guest-") && name.ends_with(".log")
            })
            .map(|entry| fs::read_to_string(entry.path()).unwrap_or_default())
            .collect()
    }
}

impl World {
    fn start_dns(&self, records: &[String]) -> Process {
        let log = self.logs().join("dns.log");
        let mut config = format!(
            "no-resolv\nno-hosts\nuser=root\nlog-queries=extra\nlog-facility={}\npid-file=\n\
             bind-interfaces\nlisten-address={RESOLVER}\nlisten-address={RESOLVER6}\n",
            log.display()
        );
        // Whatever has no record does not exist.
        config.push_str("local-ttl=300\n");
        config.push_str("address=/#/\n");
        for record in records {
            config.push_str(record);
            config.push('\n');
        }
        let config = self.file("dnsmasq.conf", config);
        let config = format!("--conf-file={}", config.display());
        let process = self.internet_spawn("dnsmasq", &["dnsmasq", "--keep-in-foreground", &config]);
        self.internet.wait_tcp(&format!("{RESOLVER}:53"));
        process
    }

    /// Gives the host a `resolv.conf` of its own, and, here and in the guests,
    /// name look-ups that go by DNS only: a socket of the machine's resolver
    /// daemon would be a way round the namespaces that no enclave has.
    fn set_resolver(&self) {
        let resolv = self.file("resolv.conf", format!("nameserver {RESOLVER}\n"));
        self.file(
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
        );
        self.file("guest-resolv.conf", "nameserver 192.0.2.53\n");
        let mut command = self.host.command();
        command.args(["sh", "-c", crate::guest::BIND_FILES, "sh"]);
        command
            .arg(resolv)
            .arg(self.dir().join("nsswitch.conf"))
            .args(["/", "true"]);
        crate::process::run(command);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
    }
}

impl World {
    /// The end of every log, for a test that failed.
    fn print_logs(&self) {
        const TAIL: usize = 60;
        let mut files: Vec<PathBuf> = fs::read_dir(self.logs())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        for path in files {
            let Ok(bytes) = fs::read(&path) else { continue };
            let end = bytes.len().saturating_sub(64 * 1024);
            let text = String::from_utf8_lossy(&bytes[end..]).into_owned();
            if text.is_empty() {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            eprintln!("──── {name}");
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(TAIL)..] {
                eprintln!("{}", line.get(..400).unwrap_or(line));
            }
        }
    }
}

/// The path of an executable of the product, or of an example (`examples/NAME`): the variable
/// says, or it lies in the target directory that this test was built in.
///
/// # Panics
/// When it is nowhere.
pub fn executable(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().expect("a running executable");
    let found = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no {name} beside {}: build it, or set {variable}",
            test.display()
        )
    })
}

/// The log level of the product's executables: `ODYN_TEST_LOG`, or `debug`.
pub(crate) fn log_level() -> String {
    std::env::var("ODYN_TEST_LOG").unwrap_or_else(|_| "debug".to_owned())
}

/// A command that runs a program as a user with no way back to root.
pub fn as_user(command: &mut Command, user: u32) {
    let user = user.to_string();
    command.args(["setpriv", "--reuid", &user, "--regid", &user]);
    command.args(["--clear-groups", "--no-new-privs", "--"]);
}
