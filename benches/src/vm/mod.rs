//! The same in a virtual machine: with a distribution's kernel and real AF_VSOCK, which the machine that
//! we are on need not have.
//!
//! An initramfs holds this program, guest, host and all other contenders with their libraries, and the kernel's
//! modules. Guest and host of a contender are in the one machine, and vsock's loopback is between them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use odyn_tests::vm::{Accelerator, Archive, Kernel, Machine, NFTABLES, VSOCK};
use odyn_tests::world::executable;

use crate::contenders::find;
use crate::report::results::Results;

/// The modules that namespaces and the pairs' rules need in addition.
const MODULES: [&str; 3] = ["veth", "tun", "nft_redir"];

/// The tools of namespaces, servers and contenders. Busybox has the rest.
const NEEDED: [&str; 8] = [
    "dnsmasq", "ip", "mount", "nft", "nsenter", "openssl", "setpriv", "unshare",
];
/// Contenders, as far as they are here.
const WELCOME: [&str; 3] = ["haproxy", "nginx", "socat"];

/// Files that they look for.
const FILES: [&str; 2] = [
    "/usr/lib/ssl/openssl.cnf",
    "/usr/lib/nginx/modules/ngx_stream_module.so",
];

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// The contender for comparison: the best of those that are widespread.
pub(crate) const YARDSTICK: &str = "nginx";

/// How to run it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Vm {
    /// The kernel: what `scripts/vm-kernel` made.
    #[arg(long, value_name = "DIR")]
    kernel: PathBuf,
    /// Memory of the machine.
    #[arg(long, default_value = "3G")]
    memory: String,
    /// Minutes after which the machine is ended.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// By QEMU alone, even where the processor could.
    #[arg(long)]
    software: bool,
    /// Write all samples to this file.
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// The command line of odyn-bench in the machine.
    #[arg(last = true)]
    words: Vec<String>,
}

impl Vm {
    /// Boots the machine, waits for its end, and writes what it measured.
    pub(crate) fn run(self) -> anyhow::Result<Results> {
        Results::writable(&self.json)?;
        let kernel = Kernel::open(&self.kernel)
            .with_context(|| format!("no kernel in {}", self.kernel.display()))?;
        let scratch = Scratch::new()?;
        let initramfs = self.initramfs(&kernel, &scratch.0)?;
        let accelerator = match self.software {
            true => Accelerator::Software,
            false => Accelerator::best(),
        };
        eprintln!("a machine is started ({accelerator:?})");
        let limit = Duration::from_secs(self.minutes * 60);
        let machine = Machine::new(&kernel, initramfs, &scratch.0);
        let console = machine
            .to_measure(accelerator, &self.memory, limit, "RESULTS BEGIN")
            .run_until("RESULTS END\n");
        let json = console
            .rsplit_once("RESULTS BEGIN\n")
            .and_then(|(_, rest)| rest.split_once("RESULTS END"));
        let (json, _) = json.context("the machine measured nothing")?;
        let mut results: Results = serde_json::from_str(json).context("the machine's results")?;
        results.note(match accelerator {
            Accelerator::Kvm => "measured in a virtual machine, with KVM".to_owned(),
            Accelerator::Software => {
                "measured in a virtual machine emulated by software: figures are for ratios only"
                    .to_owned()
            }
        });
        results.write(&self.json)?;
        Ok(results)
    }

    fn initramfs(&self, kernel: &Kernel, scratch: &Path) -> anyhow::Result<Vec<u8>> {
        let mut archive = Archive::default();
        archive.file("init", include_bytes!("init.sh"), 0o755);
        archive.file("words", self.script().as_bytes(), 0o644);
        for directory in ["proc", "sys", "dev", "root"] {
            archive.directory(directory, 0o755);
        }
        archive.device("dev/console", 5, 1);
        archive.file("etc/passwd", PASSWD.as_bytes(), 0o644);
        archive.file("etc/group", GROUP.as_bytes(), 0o644);
        archive.file("etc/resolv.conf", b"", 0o644);
        archive.file("etc/nsswitch.conf", b"hosts: files dns\n", 0o644);
        let modules = [&VSOCK[..], &NFTABLES, &MODULES].concat();
        kernel.pack(&modules, &mut archive);
        for name in ["busybox"].iter().chain(&NEEDED) {
            let path = find(name).with_context(|| format!("no `{name}` here"))?;
            archive.program("", &path, &format!("bin/{name}"));
        }
        for name in WELCOME {
            if let Some(path) = find(name) {
                archive.program("", &path, &format!("bin/{name}"));
            }
        }
        for path in FILES.map(Path::new).iter().filter(|path| path.exists()) {
            archive.program(
                "",
                path,
                path.to_str().unwrap_or_default().trim_start_matches('/'),
            );
        }
        let ours = [
            ("odyn-bench", std::env::current_exe()?),
            ("odyn-net", executable("ODYN_NET", "odyn-net")),
            (
                "enclaver-outer",
                executable("ENCLAVER_OUTER", "enclaver-outer"),
            ),
        ];
        for (name, path) in ours {
            // What debuggers want would take most of the machine's memory.
            let stripped = scratch.join(name);
            let mut strip = Command::new("strip");
            let status = strip.arg("-o").arg(&stripped).arg(&path).status();
            ensure!(
                status.context("strip of binutils")?.success(),
                "strip refused {}",
                path.display()
            );
            archive.program("", &stripped, &format!("bin/{name}"));
        }
        Ok(archive.finish())
    }

    /// The script that runs odyn-bench in the machine.
    fn script(&self) -> String {
        let mut script = String::from("exec odyn-bench --json /results.json");
        for word in &self.words {
            script.push_str(&format!(" '{}'", word.replace('\'', r"'\''")));
        }
        script.push('\n');
        script
    }
}

/// A directory of our own.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("odyn-bench-vm-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
