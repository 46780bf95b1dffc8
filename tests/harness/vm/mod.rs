//! Boots a small virtual machine with an initramfs that the test makes.
//!
//! Software emulation is enough and needs no right on this machine. The machine has no network
//! and no disk; what it has to say it says on its console, which the test reads.

pub mod cpio;
pub mod kernel;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use cpio::Archive;
pub use kernel::{Kernel, NFTABLES, VSOCK};

use crate::process::Process;

/// Software emulation on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

const MEMORY: &str = "768M";

/// Emulators do string instructions one step at a time. On a processor without these two features the kernel copies eight
/// bytes in a step instead of one, and copies take about as much of the time as on a processor.
const QUICK_COPIES: &str = "max,-erms,-fsrm";

/// The last line of `init`.
const DONE: &str = "RESULT done";

/// Boots and waits until the machine says that it is done.
///
/// # Panics
/// When it ends without, or does not end; with what it said on its console.
pub fn boot(kernel: &Kernel, initramfs: Vec<u8>, scratch: &Path) -> String {
    Machine::new(kernel, initramfs, scratch).run_until(DONE)
}

/// A machine that is about to be started.
#[derive(Debug)]
pub struct Machine<'a> {
    command: Command,
    scratch: &'a Path,
    memory: String,
    limit: Duration,
    measures: Option<Measures>,
}

/// What a machine for measurements has in addition.
#[derive(Debug, Clone, Copy)]
struct Measures {
    accelerator: Accelerator,
    /// Up to this word, what it says is passed on to our standard error.
    told_until: &'static str,
}

impl<'a> Machine<'a> {
    /// A machine with this kernel and initramfs; its files go to `scratch`.
    ///
    /// # Panics
    /// When these cannot be written.
    pub fn new(kernel: &Kernel, initramfs: Vec<u8>, scratch: &'a Path) -> Self {
        let initrd = scratch.join("initramfs");
        fs::write(&initrd, initramfs).expect("own directory");
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-M", "microvm,pit=on,pic=on,rtc=on", "-smp", "2"])
            .args(["-nographic", "-no-reboot", "-kernel"])
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&initrd)
            .stdin(Stdio::null());
        Self {
            command,
            scratch,
            memory: MEMORY.to_owned(),
            limit: LIMIT,
            measures: None,
        }
    }

    /// Makes it one to measure in, with so much memory and for so long. What it says is passed on to our standard
    /// error meanwhile, up to a word.
    #[must_use]
    pub fn to_measure(
        mut self,
        accelerator: Accelerator,
        memory: &str,
        limit: Duration,
        told_until: &'static str,
    ) -> Self {
        (self.memory, self.limit) = (memory.to_owned(), limit);
        self.measures = Some(Measures {
            accelerator,
            told_until,
        });
        self
    }

    /// The emulator's command, and the kernel's command line.
    ///
    /// The kernel measures its clock against timers that an emulator on a busy machine does not serve in time, and
    /// then hangs: the command line gives it the frequency. Where times matter it must also trust that clock, or it would
    /// count ticks of 4 ms. A restart by triple fault ends the emulator.
    fn settings(&mut self) {
        let (accelerator, cpu, clock) = match self.measures.map(|these| these.accelerator) {
            None => ("tcg,thread=multi", "max", ""),
            Some(Accelerator::Software) => ("tcg,thread=multi", QUICK_COPIES, " tsc=reliable"),
            Some(Accelerator::Kvm) => ("kvm", "host", ""),
        };
        let append = format!(
            "console=ttyS0 quiet panic=-1 oops=panic reboot=t tsc_early_khz={}{clock}",
            clock_khz()
        );
        self.command
            .args(["-accel", accelerator, "-cpu", cpu, "-m", &self.memory])
            .args(["-append", &append]);
    }

    /// Gives it a vsock by the process that listens at this socket, which shares its memory.
    pub fn vhost_user_vsock(&mut self, socket: &Path) {
        let size = &self.memory;
        let memory = format!("memory-backend-memfd,id=memory,size={size},share=on");
        let chardev = format!("socket,id=vsock,path={}", socket.display());
        self.command
            .args(["-object", &memory, "-machine", "memory-backend=memory"])
            .args(["-chardev", &chardev])
            .args(["-device", "vhost-user-vsock-device,chardev=vsock"]);
    }

    /// Runs it until it says this; what it said on its console.
    ///
    /// # Panics
    /// When it ends without, or does not end; with what it said.
    pub fn run_until(self, last: &str) -> String {
        self.watch(Some(last))
    }

    /// Runs it until it ends by itself.
    ///
    /// # Panics
    /// When it does not.
    pub fn run_to_its_end(self) -> String {
        self.watch(None)
    }

    fn watch(mut self, last: Option<&str>) -> String {
        self.settings();
        let mut machine = Process::spawn(self.command, "vm", self.scratch, false);
        let start = Instant::now();
        let mut told = 0;
        loop {
            let ended = machine.ended();
            let console = String::from_utf8_lossy(&machine.stdout()).replace('\r', "");
            if let Some(measures) = self.measures {
                let end = console.find(measures.told_until);
                let end = end.unwrap_or(console.len());
                eprint!("{}", console.get(told..end).unwrap_or_default());
                told = end.max(told);
            }
            if last.map_or(ended.is_some(), |last| console.contains(last)) {
                machine.kill();
                return console;
            }
            assert!(
                ended.is_none() && start.elapsed() < self.limit,
                "the machine ended ({ended:?}) or hung\n{}\n{console}",
                String::from_utf8_lossy(&machine.stderr())
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The accelerator that executes a machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU itself: by a factor of ten or more slower, and not all things by the same.
    Software,
}

impl Accelerator {
    /// The processor where it can. A `/dev/kvm` alone is not enough: that of a machine which is itself a
    /// paravirtualised guest takes paravirtualised guests only, and lets others hang.
    pub fn best() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags = info.lines().find(|line| line.starts_with("flags"));
        let virtualises = flags.is_some_and(|flags| {
            flags
                .split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        });
        let device = fs::File::options().read(true).write(true).open("/dev/kvm");
        match virtualises && device.is_ok() {
            true => Self::Kvm,
            false => Self::Software,
        }
    }
}

/// What this machine's clock does in a millisecond; the emulator passes it on.
fn clock_khz() -> u64 {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| {
            line.strip_prefix("cpu MHz")?
                .split_once(':')?
                .1
                .trim()
                .parse::<f64>()
                .ok()
        })
        .map_or(2_000_000, |mhz| (mhz * 1000.0) as u64)
}

impl Archive {
    /// Adds an executable of this machine and the shared libraries that it needs.
    ///
    /// # Panics
    /// When it is not there.
    pub fn program(&mut self, root: &str, from: &Path, to: &str) {
        self.copy(from, &format!("{root}{to}"))
            .unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        let output = Command::new("ldd").arg(from).output().expect("ldd");
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            let library = Path::new(word);
            if !library.is_absolute() || self.has(&format!("{root}{}", &word[1..])) {
                continue;
            }
            let content = fs::read(library).unwrap_or_else(|error| panic!("{word}: {error}"));
            let mode = fs::metadata(library)
                .expect("it was read")
                .permissions()
                .mode();
            self.file(&format!("{root}{}", &word[1..]), &content, mode & 0o777);
        }
    }
}
