//! How a world is made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicUsize;

use crate::namespace::Space;
use crate::tls;

use super::World;
use super::network::connect;

/// How a world is made.
#[derive(Debug, Default)]
pub struct Builder {
    policy: String,
    dns: Vec<String>,
    outer: Vec<String>,
    outer_env: Vec<String>,
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

/// Thousands of flows need thousands of files, here and in what we start.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
