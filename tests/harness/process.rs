//! A child process with its output in files and a deadline on every wait.

use std::fs;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a wait looks again. Waits end on an event or a deadline; no
/// test's outcome depends on this figure.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running child. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
    /// Whether `child` is an `nsenter` whose only child is the real program.
    entered: bool,
}

impl Process {
    /// Starts a command with its output in `NAME.out` and `NAME.err` in `logs`.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn spawn(mut command: Command, name: &str, logs: &Path, entered: bool) -> Self {
        let stdout = logs.join(format!("{name}.out"));
        let stderr = logs.join(format!("{name}.err"));
        let open = |path: &Path| {
            File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        command.stdout(open(&stdout)).stderr(open(&stderr));
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self {
            child,
            name: name.to_owned(),
            stdout,
            stderr,
            entered,
        }
    }

    /// The standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        fs::read(&self.stdout).unwrap_or_default()
    }

    /// The standard error so far.
    pub fn stderr(&self) -> Vec<u8> {
        fs::read(&self.stderr).unwrap_or_default()
    }

    /// The program itself, seen from here; not the `nsenter` before it.
    pub fn pid(&self) -> Option<Pid> {
        let own = Pid::from_raw(self.child.id().cast_signed());
        if !self.entered {
            return Some(own);
        }
        children(own).first().copied()
    }

    /// Sends a signal to the program itself.
    ///
    /// # Panics
    /// When it has already gone.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().expect("the program is running");
        kill(pid, signal).unwrap_or_else(|error| panic!("signal to {}: {error}", self.name));
    }

    /// The exit status, if it has ended.
    ///
    /// # Panics
    /// When the kernel does not know the child.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When the deadline passes first; the program is killed then.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if Instant::now() > deadline {
                self.kill();
                panic!(
                    "{} hung: still running after {limit:?}\nstdout: {}\nstderr: {}",
                    self.name,
                    String::from_utf8_lossy(&self.stdout()),
                    String::from_utf8_lossy(&self.stderr()),
                );
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until its standard output has this text.
    ///
    /// # Panics
    /// When it ends, or the deadline passes, before that.
    pub fn wait_for(&mut self, text: &str, limit: Duration) {
        let name = self.name.clone();
        until(limit, &format!("{name} to print {text:?}"), || {
            if String::from_utf8_lossy(&self.stdout()).contains(text) {
                return true;
            }
            if let Some(status) = self.ended() {
                // It may have printed between the two looks.
                if String::from_utf8_lossy(&self.stdout()).contains(text) {
                    return true;
                }
                panic!(
                    "{name} ended with {status} before it printed {text:?}: {}",
                    String::from_utf8_lossy(&self.stderr())
                );
            }
            false
        });
    }

    /// Kills the program and waits for it.
    pub fn kill(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // nsenter ends when its child does, and only it can reap the child:
            // what a killed nsenter leaves is up to the machine's first process.
            let killed = self.pid().map(|pid| kill(pid, Signal::SIGKILL));
            if !matches!(killed, Some(Ok(()))) {
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program's exit code as a shell would show it: 128 + n for a signal.
pub fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Waits until `done` says so.
///
/// # Panics
/// When the deadline passes first.
pub fn until(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain for {what}"
        );
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Runs a command of the harness itself to its end.
///
/// # Panics
/// When it fails.
pub fn run(mut command: Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The direct children of a process, in the order of their ids.
pub fn children(parent: Pid) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| parent_of(*pid) == Some(parent.as_raw()))
        .collect();
    found.sort_unstable();
    found.into_iter().map(Pid::from_raw).collect()
}

/// Whether a process has ended with all of its threads, even if its parent has not waited for it yet.
pub fn is_gone(pid: Pid) -> bool {
    match stat(pid.as_raw()) {
        None => true,
        // Its first thread is a zombie before the others have ended, and they hold its files open.
        Some(('Z', _)) => fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) <= 1,
        Some(_) => false,
    }
}

fn parent_of(pid: i32) -> Option<i32> {
    stat(pid).map(|(_, parent)| parent)
}

/// State and parent: fields 3 and 4 of `/proc/PID/stat`. The name before them
/// may have any byte in it.
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
