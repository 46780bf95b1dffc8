//! An internet, a host and its guests.

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
use crate::tls;

/// The internet's name server; the host's `resolv.conf` names it.
pub const RESOLVER: &str = "203.0.113.53";
/// The same name server's IPv6 address.
pub const RESOLVER6: &str = "2001:db8::53";
/// The user of that name, which apps run as unless a test says otherwise.
pub const NOBODY: u32 = 65534;

/// Prefixes that the internet answers for. Whole blocks, so that a probe that
/// does get out meets a server: a test that sees nothing answer has seen the
/// policy work, not an empty network. 169.254.169.254 is there on purpose.
const INTERNET_NETS: &[&str] = &[
    "203.0.113.0/24",
    "198.51.100.0/24",
    "198.18.0.0/15",
    "10.0.0.0/8",
    "8.8.8.8/32",
    "169.254.169.254/32",
];
/// The internet's own addresses: what dnsmasq listens on, and IPv6, as the kernel does
/// not let a server bind to an address out of a local IPv6 prefix.
const INTERNET_ADDRESSES: &[&str] = &[
    RESOLVER,
    RESOLVER6,
    "2001:db8::10",
    "2001:db8::11",
    "2001:db8::12",
    "2001:db8::66",
    "fd00:ec2::254",
];

/// How a world is made.
#[derive(Debug, Default)]
pub struct Builder {
    policy: String,
    dns: Vec<String>,
    outer: Vec<String>,
    outer_env: Vec<String>,
}

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

impl Builder {
    /// The policy of every guest that brings none of its own.
    #[must_use]
    pub fn policy(mut self, yaml: &str) -> Self {
        self.policy = yaml.to_owned();
        self
    }

    /// A name with its addresses, v4 and v6.
    #[must_use]
    pub fn name(self, name: &str, addresses: &[&str]) -> Self {
        addresses.iter().fold(self, |builder, address| {
            builder.dns(&format!("host-record={name},{address}"))
        })
    }

    /// An alias of a name.
    #[must_use]
    pub fn cname(self, alias: &str, target: &str) -> Self {
        self.dns(&format!("cname={alias},{target}"))
    }

    /// Any other line of the name server's configuration.
    #[must_use]
    pub fn dns(mut self, line: &str) -> Self {
        self.dns.push(line.to_owned());
        self
    }

    /// More words for `enclaver-outer run`; DIR stands for the world's directory.
    #[must_use]
    pub fn outer(mut self, words: &[&str]) -> Self {
        self.outer
            .extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// A variable more for `enclaver-outer`.
    #[must_use]
    pub fn outer_env(mut self, name: &str, value: &str) -> Self {
        self.outer_env.push(format!("{name}={value}"));
        self
    }

    /// Makes the world; `None`, with a word on standard error, when this is
    /// not root and `ODYN_REQUIRE_ROOT` does not ask for a failure instead.
    ///
    /// # Panics
    /// When a part does not come up.
    pub fn start(self) -> Option<World> {
        if !nix::unistd::geteuid().is_root() {
            assert!(
                std::env::var_os("ODYN_REQUIRE_ROOT").is_none(),
                "this test makes namespaces and runs as root"
            );
            eprintln!("skipped: needs root");
            return None;
        }
        raise_file_limit();
        let dir = tempfile::Builder::new()
            .prefix("odyn-test-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a temporary directory");
        for (name, mode) in [("logs", 0o755), ("bin", 0o755), ("scratch", 0o1777)] {
            let path = dir.path().join(name);
            fs::create_dir(&path).expect("a new directory");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("own directory");
        }
        tls::install(dir.path());
        let policy = dir.path().join("policy.yaml");
        fs::write(&policy, &self.policy).expect("own directory");

        let space = Space::new();
        let internet = space.namespace();
        let host = space.namespace();
        connect(&internet, &host);
        let path = dir.path().display().to_string();
        let flags = self.outer.iter().map(|word| word.replace("DIR", &path));
        let mut world = World {
            outer_flags: flags.collect(),
            outer_env: self.outer_env.clone(),
            outer: None,
            dns: None,
            internet,
            host,
            space,
            policy,
            dir,
            counter: AtomicUsize::new(0),
            direct: std::env::var_os("ODYN_TEST_DIRECT").is_some(),
        };
        world.set_resolver();
        world.dns = Some(world.start_dns(&self.dns));
        if !world.direct {
            world.start_outer();
        }
        Some(world)
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

/// Lays the cable: 192.0.2.1 and 2001:db8:1::1 are the internet's side,
/// .2 and ::2 the host's.
fn connect(internet: &Namespace, host: &Namespace) {
    use std::fmt::Write as _;

    let mut lines = format!(
        "link set lo up\n\
         link add up0 type veth peer name eth0 netns {}\n\
         link set up0 up\n\
         address add 192.0.2.1/24 dev up0\n\
         address add 2001:db8:1::1/64 dev up0 nodad\n\
         address add fe80::1/64 dev up0 nodad\n",
        host.pid()
    );
    for net in INTERNET_NETS {
        let _ = writeln!(lines, "route add local {net} dev lo");
    }
    for address in INTERNET_ADDRESSES {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        let _ = writeln!(lines, "address add {address} dev lo {nodad}");
    }
    internet.ip(&lines);
    host.ip("link set lo up\n\
         link set eth0 up\n\
         address add 192.0.2.2/24 dev eth0\n\
         address add 2001:db8:1::2/64 dev eth0 nodad\n\
         route add default via 192.0.2.1\n\
         route add default via 2001:db8:1::1\n");
}

/// Thousands of flows need thousands of files, here and in what we start.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
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
