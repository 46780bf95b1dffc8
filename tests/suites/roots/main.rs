//! The static odyn-net as the first process of root file systems with little or nothing in them.
//!
//! The executables are those of `scripts/dist`, in the folder that `ODYN_TEST_DIST` names; Debian's
//! root is made by `scripts/debian-root`, in the folder that `ODYN_TEST_DEBIAN` names. Without the
//! variables the tests are skipped and say so.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use odyn_tests::dist::folder;
use odyn_tests::process::run;
use odyn_tests::{Guest, Output, World, serve};

const POLICY: &str = "\
version: v1
name: roots
egress:
  allow:
    - api.shop.example
";

/// The limit of the executable, as a file and in memory at rest.
const LIMIT_KIB: u64 = 12 * 1024;
/// The limit of anonymous memory at rest. Two huge pages would exceed it.
const ANONYMOUS_LIMIT_KIB: u64 = 4 * 1024;

/// A world in which `api.shop.example` says hello, and another name and address are there and denied.
struct Scene {
    world: World,
    root: PathBuf,
}

impl Scene {
    /// With a root that has odyn-net and nothing else; `None` when the test is to be skipped.
    fn begin() -> Option<Self> {
        let odyn = folder("ODYN_TEST_DIST")?.join("odyn-net");
        let world = World::builder()
            .policy(POLICY)
            .name("api.shop.example", &["203.0.113.10"])
            .name("evil.example.net", &["203.0.113.66"])
            .start()?;
        if world.direct() {
            return None;
        }
        for address in ["203.0.113.10:7000", "203.0.113.66:7000"] {
            serve::banner(world.internet().listen(address), "hello");
        }
        let root = world.dir().join("root");
        fs::create_dir(&root).expect("own directory");
        let scene = Self { world, root };
        scene.add(&odyn, "odyn-net");
        Some(scene)
    }

    /// A copy of an executable.
    fn add(&self, from: &Path, to: &str) {
        let to = self.root.join(to);
        fs::create_dir_all(to.parent().expect("in the root")).expect("own directory");
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("own file");
    }

    /// The busybox of this machine, which is static, with all that it can be called.
    fn add_busybox(&self) {
        let mut command = Command::new("sh");
        command.args(["-c", "command -v busybox"]);
        self.add(Path::new(run(command).trim()), "bin/busybox");
        let list = Command::new("busybox").arg("--list").output();
        for name in String::from_utf8_lossy(&list.expect("busybox").stdout).lines() {
            let link = self.root.join("bin").join(name);
            if name != "busybox" {
                symlink("busybox", link).expect("a new name");
            }
        }
    }

    /// An app in C, for musl.
    fn add_probe(&self, flags: &[&str]) {
        let source = self
            .world
            .file("probe.c", include_str!("../../programs/probe.c"));
        let mut command = Command::new("musl-gcc");
        command.arg("-O1").args(flags).arg("-o");
        command.arg(self.root.join("probe")).arg(source);
        run(command);
    }

    /// Runs the app by both ways of capture.
    fn run(&self, words: &[&str], check: impl Fn(&Output)) {
        for capture in ["nftables", "tun"] {
            let out = Guest::new(words)
                .env("PATH", "/bin:/usr/bin:/sbin:/usr/sbin")
                .env("ODYN_CAPTURE", capture)
                .flag("--user=65534")
                .flag("--stdio=inherit")
                .in_root(&self.root)
                .run(&self.world);
            out.allowed("tcp", "api.shop.example", 7000, "api.shop.example");
            out.denied("tcp", "203.0.113.66", 7000, "no-rule");
            out.dns_denied("evil.example.net", "no-rule");
            assert_eq!(out.code, 7, "{capture}: {}", out.describe());
            check(&out);
        }
    }
}

/// The line of `probe` about the three targets.
const PROBED: &str = "\
api.shop.example hello
evil.example.net unknown
203.0.113.66 denied
";
const PROBE: [&str; 7] = [
    "/probe",
    "api.shop.example",
    "7000",
    "evil.example.net",
    "7000",
    "203.0.113.66",
    "7000",
];

#[test]
fn a_root_with_nothing_but_two_files() {
    let Some(scene) = Scene::begin() else { return };
    scene.add_probe(&["-static"]);
    let count = fs::read_dir(&scene.root).expect("own directory").count();
    assert_eq!(count, 2);
    scene.run(&PROBE, |out| {
        assert_eq!(out.stdout, PROBED, "{}", out.describe())
    });
}

#[test]
fn a_busybox_root() {
    let Some(scene) = Scene::begin() else { return };
    scene.add_busybox();
    let file = fs::metadata(scene.root.join("odyn-net"))
        .expect("it is there")
        .len()
        / 1024;
    let script = "\
        nc api.shop.example 7000 </dev/null\n\
        nslookup evil.example.net >/dev/null || echo unknown\n\
        [ -n \"$(nc 203.0.113.66 7000 </dev/null 2>&1 | grep hello)\" ] || echo denied\n\
        echo memory $(grep -E 'VmRSS|RssAnon' /proc/1/status | tr -dc '0-9 ')\n\
        exit 7";
    scene.run(&["/bin/sh", "-c", script], |out| {
        let (said, memory) = out.stdout.split_once("memory ").expect("its last line");
        assert_eq!(said, "hello\nunknown\ndenied\n", "{}", out.describe());
        let kib: Vec<u64> = memory.split_whitespace().flat_map(str::parse).collect();
        let [resident, anonymous] = kib[..] else {
            panic!("{}", out.describe());
        };
        println!(
            "odyn-net: file {file} KiB, resident {resident} KiB, of it anonymous {anonymous} KiB"
        );
        assert!(anonymous < ANONYMOUS_LIMIT_KIB, "{anonymous} KiB");
        // Without optimisation and with debug information it is another one.
        assert!(file > LIMIT_KIB || resident < LIMIT_KIB, "{resident} KiB");
    });
}

/// A root like Alpine's: busybox, and apps that need musl's loader.
#[test]
fn a_musl_root() {
    let Some(scene) = Scene::begin() else { return };
    scene.add_busybox();
    scene.add_probe(&[]);
    // Library and loader are one file there.
    let loader = format!("lib/ld-musl-{}.so.1", std::env::consts::ARCH);
    scene.add(&Path::new("/").join(&loader), &loader);
    let script = format!("{}; exit $?", PROBE.join(" "));
    scene.run(&["/bin/sh", "-c", &script], |out| {
        assert_eq!(out.stdout, PROBED, "{}", out.describe());
    });
}

/// With glibc, its name service switch, and users by name.
#[test]
fn a_debian_root() {
    let Some(debian) = folder("ODYN_TEST_DEBIAN") else {
        return;
    };
    let Some(mut scene) = Scene::begin() else {
        return;
    };
    // The world's own root has the executable; the lower layers of the guest's are both.
    let lower = format!("{}:{}", scene.root.display(), debian.display());
    scene.root = lower.into();
    let script = "\
        id -un\n\
        getent ahosts api.shop.example >/dev/null && echo known\n\
        getent ahosts evil.example.net >/dev/null || echo unknown\n\
        exec 3<>/dev/tcp/api.shop.example/7000; cat <&3\n\
        (exec 3<>/dev/tcp/203.0.113.66/7000; read -r line <&3) 2>/dev/null || echo denied\n\
        exit 7";
    scene.run(&["/bin/bash", "-c", script], |out| {
        assert_eq!(
            out.stdout,
            "nobody\nknown\nunknown\nhello\ndenied\n",
            "{}",
            out.describe()
        );
    });
}
