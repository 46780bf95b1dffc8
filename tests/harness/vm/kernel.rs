//! A distribution's kernel, unpacked in a folder by `scripts/vm-kernel`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Archive;

/// The modules that AF_VSOCK within one machine needs.
pub const VSOCK: [&str; 2] = ["vsock", "vsock_loopback"];
/// The modules that capture by nftables needs.
pub const NFTABLES: [&str; 9] = [
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_tproxy",
    "nft_fib_inet",
    "nft_reject_inet",
    "nft_log",
    "nfnetlink_log",
    "nf_log_syslog",
];

/// A folder with a kernel and its modules.
#[derive(Debug)]
pub struct Kernel {
    /// The kernel that QEMU boots.
    pub image: PathBuf,
    modules: BTreeMap<String, PathBuf>,
    built_in: String,
}

/// A module, ready to be given to `insmod`.
#[derive(Debug)]
struct Module {
    /// The module's name, with underscores.
    name: String,
    /// The file, uncompressed.
    content: Vec<u8>,
}

impl Kernel {
    /// Reads what `scripts/vm-kernel` has put into `dir`; `None` when it has not run.
    pub fn open(dir: &Path) -> Option<Self> {
        let image = files(&dir.join("boot"))
            .into_iter()
            .find(|path| file_name(path).starts_with("vmlinuz"))?;
        let release = file_name(&image).trim_start_matches("vmlinuz-").to_owned();
        // Merged-/usr distributions have them in usr/lib.
        let tree = ["lib/modules", "usr/lib/modules"]
            .iter()
            .map(|parent| dir.join(parent).join(&release))
            .find(|path| path.is_dir())?;
        let mut modules = BTreeMap::new();
        collect(&tree, &mut modules);
        Some(Self {
            image,
            modules,
            built_in: fs::read_to_string(tree.join("modules.builtin")).unwrap_or_default(),
        })
    }

    /// Puts these modules and all that they need into `modules/`, and into `modules/order` their names
    /// in the order in which they load.
    ///
    /// # Panics
    /// When the kernel has one neither as a module nor built in.
    pub fn pack(&self, wanted: &[&str], archive: &mut Archive) {
        let mut order = String::new();
        for module in self.load_order(wanted) {
            order.push_str(&module.name);
            order.push('\n');
            let path = format!("modules/{}.ko", module.name);
            archive.file(&path, &module.content, 0o644);
        }
        archive.file("modules/order", order.as_bytes(), 0o644);
    }

    fn load_order(&self, wanted: &[&str]) -> Vec<Module> {
        let mut order = Vec::new();
        for name in wanted {
            self.add(&normal(name), &mut order);
        }
        order
    }

    fn add(&self, name: &str, order: &mut Vec<Module>) {
        if order.iter().any(|module| module.name == name) {
            return;
        }
        let Some(path) = self.modules.get(name) else {
            let file = format!("/{name}.ko");
            let built_in = self
                .built_in
                .lines()
                .any(|line| normal(line).ends_with(&file));
            assert!(built_in, "this kernel has no {name}");
            return;
        };
        let content = read(path);
        for dependency in dependencies(&content) {
            self.add(&dependency, order);
        }
        order.push(Module {
            name: name.to_owned(),
            content,
        });
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn collect(dir: &Path, modules: &mut BTreeMap<String, PathBuf>) {
    for path in files(dir) {
        if path.is_dir() && !path.is_symlink() {
            collect(&path, modules);
        } else if let Some((name, "ko" | "ko.xz" | "ko.zst")) = file_name(&path).split_once('.') {
            modules.insert(normal(name), path);
        }
    }
}

fn read(path: &Path) -> Vec<u8> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
    };
    let output = Command::new(tool).arg("-dc").arg(path).output();
    let output = output.unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(
        output.status.success(),
        "{tool} cannot read {}",
        path.display()
    );
    output.stdout
}

/// The `depends=` of the module's `.modinfo`: names, with commas between.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let list = module.get(start + KEY.len()..).unwrap_or_default();
    let list = list.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(list)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(normal)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_stand_in_the_module() {
        let module = b"ELF\0license=GPL\0depends=nf-tables,nft_nat\0name=x\0";
        assert_eq!(dependencies(module), ["nf_tables", "nft_nat"]);
        assert!(dependencies(b"ELF\0depends=\0").is_empty());
        assert!(dependencies(b"").is_empty());
    }
}
