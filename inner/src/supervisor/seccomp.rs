//! A seccomp filter that keeps the program off the link: no AF_VSOCK socket, by no way.
//!
//! A program that could open a vsock socket would talk to the host past capture and policy. The
//! socket syscall is one way; io_uring (IORING_OP_SOCKET) makes sockets without it, and the x32 and
//! 32-bit ABIs have numbers of their own. The filter is inherited and cannot be taken off; a
//! filter of the program's own can only narrow it, as the kernel takes the strictest answer of
//! all filters, and asks all of them again after a tracer changed the syscall.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Why the filter is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// There is no filter for this processor.
    #[error("no seccomp filter for this architecture: {0}")]
    Build(#[from] BackendError),
    /// The kernel refused it.
    #[error("the kernel refused the seccomp filter: {0} (needs CONFIG_SECCOMP_FILTER)")]
    Apply(#[from] seccompiler::Error),
    /// A filter cannot take back what was given.
    #[error("file descriptor {0} is a vsock socket, which would lead the program past the policy")]
    Inherited(i32),
}

/// The address families a program may have: those that capture rules over, those that stay in the
/// guest, and AF_PACKET, which the kernel itself refuses to it in words that programs expect. Any
/// other may lead out by a way that no rule sees.
const FAMILIES: [i32; 6] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
    libc::AF_PACKET,
    libc::AF_ALG,
];

/// ioctls that type into a terminal: what they type, whoever reads it next would execute, such
/// as the shell that `simulate` was started from. TIOCSTI and TIOCLINUX (asm-generic/ioctls.h).
const TYPING: [u64; 2] = [0x5412, 0x541C];

/// Added to the numbers of the x32 ABI (asm/unistd.h).
const X32: i64 = 0x4000_0000;
/// x32 has a number of its own for ioctl.
const X32_IOCTL: i64 = 514;

/// Installs the filter in this thread, for whatever it executes. Needs no_new_privs.
///
/// A 32-bit program on a 64-bit kernel is killed by SIGSYS at its first syscall: its numbers are
/// others, and there is no enclave in which it would be expected.
///
/// A program that is root gets no user namespace either: mounting the kernel's own file systems
/// anew in one is how root without capabilities has got back to them on kernels before 5.17.
///
/// # Errors
/// The kernel has no seccomp filters, or the program would inherit a vsock socket; it must not be
/// started.
pub fn apply(root: bool) -> Result<(), SeccompError> {
    refuse_inherited()?;
    for (rules, errno) in [
        (families()?, libc::EAFNOSUPPORT),
        (missing(root), libc::ENOSYS),
        (refused(root)?, libc::EPERM),
    ] {
        let program: BpfProgram = SeccompFilter::new(
            rules,
            SeccompAction::Allow,
            SeccompAction::Errno(errno as u32),
            TargetArch::try_from(ARCH)?,
        )?
        .try_into()?;
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Sockets of other families do not exist.
fn families() -> Result<Rules, BackendError> {
    let others = FAMILIES
        .iter()
        .map(|family| argument(0, SeccompCmpOp::Ne, *family as u64))
        .collect::<Result<_, _>>()?;
    let rule = SeccompRule::new(others)?;
    Ok(every_abi(
        &[libc::SYS_socket, libc::SYS_socketpair],
        &[rule],
    ))
}

/// As on a kernel without them. Libraries fall back from io_uring to epoll. request_key makes the
/// kernel run /sbin/request-key as root, outside of this filter. clone3 has its flags where no
/// filter can look; libraries fall back to clone.
fn missing(root: bool) -> Rules {
    let mut syscalls = vec![
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_request_key,
    ];
    if root {
        syscalls.push(libc::SYS_clone3);
    }
    every_abi(&syscalls, &[])
}

fn refused(root: bool) -> Result<Rules, BackendError> {
    let rules = TYPING
        .iter()
        .map(|request| SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, *request)?]))
        .collect::<Result<Vec<_>, _>>()?;
    let mut all = every_abi(&[libc::SYS_ioctl], &rules);
    if ARCH == "x86_64" {
        // Some kernels take it with the x32 bit only, some without as well.
        all.extend([(X32_IOCTL, rules.clone()), (X32_IOCTL | X32, rules)]);
    }
    if root {
        let user = libc::CLONE_NEWUSER as u64;
        let rule = SeccompRule::new(vec![argument(0, SeccompCmpOp::MaskedEq(user), user)?])?;
        all.extend(every_abi(&[libc::SYS_clone, libc::SYS_unshare], &[rule]));
    }
    Ok(all)
}

/// The kernel looks at the low 32 bits only, so the filter must not look at more.
fn argument(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value)
}

/// The same rules for each syscall, under its number in every ABI that shares the architecture.
fn every_abi(syscalls: &[i64], rules: &[SeccompRule]) -> Rules {
    let x32 = |number: &i64| (ARCH == "x86_64").then_some(number | X32);
    syscalls
        .iter()
        .flat_map(|number| [Some(*number), x32(number)])
        .flatten()
        .map(|number| (number, rules.to_vec()))
        .collect()
}

/// The standard descriptors are all that the program inherits.
fn refuse_inherited() -> Result<(), SeccompError> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for descriptor in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let family = getsockname::<SockaddrStorage>(descriptor.as_raw_fd())
            .ok()
            .and_then(|address| address.family());
        if family == Some(AddressFamily::Vsock) {
            return Err(SeccompError::Inherited(descriptor.as_raw_fd()));
        }
    }
    Ok(())
}
