//! A systemd of our own, as the first process of its own namespaces, that runs the product's units.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::Pid;

use crate::process::{Process, children, run, until};
use crate::world::{World, executable};

const LIMIT: Duration = Duration::from_secs(60);

/// systemd runs in the network of a world's host. Its processes die with it.
#[derive(Debug)]
pub struct Systemd {
    // Dropped first: it holds the cgroup.
    process: Option<Process>,
    dir: PathBuf,
    cgroup: String,
    pid: Pid,
}

impl Systemd {
    /// Boots it, with these files in its `/etc/enclaver-outer`. Nothing of ours is started yet.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn boot(world: &World, settings: &[(&str, &str)]) -> Self {
        let dir = world.dir().join("systemd");
        for name in ["etc", "run"] {
            fs::create_dir_all(dir.join(name)).expect("own directory");
        }
        for (name, text) in settings {
            fs::write(dir.join("etc").join(name), text).expect("own directory");
        }
        let cgroup = format!("odyn-test-{}", std::process::id());
        let script = world.file("boot.sh", include_str!("../programs/boot.sh"));
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
        let mut command = world.host().command();
        command.args(["unshare", "--mount", "--propagation", "private", "sh"]);
        command.arg(script).arg(&dir).arg(&cgroup).arg(units);
        command.arg(executable("ENCLAVER_OUTER", "enclaver-outer"));
        let mut process = Process::spawn(command, "systemd", &world.logs(), true);
        let mut pid = None;
        until(LIMIT, "systemd to be there", || {
            assert!(
                process.ended().is_none(),
                "no systemd: {}",
                String::from_utf8_lossy(&process.stderr())
            );
            // nsenter, then unshare, then what it has forked.
            pid = process.pid().and_then(|unshare| {
                let child = children(unshare).first().copied()?;
                let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
                (name.trim() == "systemd").then_some(child)
            });
            pid.is_some()
        });
        let systemd = Self {
            process: Some(process),
            dir,
            cgroup,
            pid: pid.expect("found"),
        };
        until(LIMIT, "systemd to answer", || {
            let mut command = systemd.command(&["systemctl", "is-active", "boot.target"]);
            command
                .output()
                .is_ok_and(|output| output.stdout == b"active\n")
        });
        systemd
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string()]);
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]);
        command.args(["--root", "--wd", "--"]).args(words);
        command
    }

    /// Runs a command beside it and returns what that printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, words: &[&str]) -> String {
        run(self.command(words))
    }

    /// Runs `systemctl`; says what the services logged when it fails.
    ///
    /// # Panics
    /// When it fails.
    pub fn systemctl(&self, words: &[&str]) -> String {
        let mut command = self.command(&["systemctl", "--no-pager"]);
        let output = command.args(words).output().expect("nsenter is there");
        assert!(
            output.status.success(),
            "systemctl {words:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.journal()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        let text = self.systemctl(&["show", "--value", "--property", name, unit]);
        text.trim().to_owned()
    }

    /// Waits until a property of a unit has this in it.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for(&self, unit: &str, name: &str, part: &str) -> String {
        let mut value = String::new();
        let what = format!("{name} of {unit} to say {part:?}");
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(LIMIT, &what, || {
                value = self.property(unit, name);
                value.contains(part)
            });
        }));
        if found.is_err() {
            panic!("waited in vain for {what}: {value:?}\n{}", self.journal());
        }
        value
    }

    /// Everything that was logged.
    pub fn journal(&self) -> String {
        self.run(&["journalctl", "--no-pager", "--output", "short-precise"])
    }

    /// Writes a file into its `/etc/enclaver-outer`.
    ///
    /// # Panics
    /// When it can't.
    pub fn settings(&self, name: &str, text: &str) {
        fs::write(self.dir.join("etc").join(name), text).expect("own directory");
    }

    /// Adds to a unit, as `systemctl edit` does.
    pub fn drop_in(&self, unit: &str, text: &str) {
        let script = "mkdir -p \"/units/$1.d\" && printf %s \"$2\" >\"/units/$1.d/test.conf\"";
        self.run(&["sh", "-c", script, "sh", unit, text]);
        self.systemctl(&["daemon-reload"]);
    }

    /// The path of a file of its `/run`, seen from outside.
    pub fn run_path(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(name)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.command(&["journalctl", "--no-pager"]).output();
            if let Ok(output) = output {
                eprintln!("──── journal\n{}", String::from_utf8_lossy(&output.stdout));
            }
        }
        self.process = None;
        // Its cgroups stay behind, empty.
        let script = "mount -t cgroup2 cgroup2 \"$1\" && \
            find \"$1/$2\" -depth -type d -exec rmdir {} +";
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ]);
        command.arg(self.dir.join("cgroup")).arg(&self.cgroup);
        let mut tries = 0;
        // The kernel takes a moment to bury the dead.
        while tries < 200 && !command.output().is_ok_and(|output| output.status.success()) {
            std::thread::sleep(Duration::from_millis(10));
            tries += 1;
        }
    }
}
