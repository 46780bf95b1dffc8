//! A seccomp filter that keeps the app off the link: it refuses AF_VSOCK sockets.
//!
//! An app with a vsock socket could talk to the host and bypass capture and policy. socket(2) is
//! one way to get one. io_uring (IORING_OP_SOCKET) makes sockets without that call, and the x32 and
//! 32-bit ABIs have syscall numbers of their own. The filter closes all of these. Children inherit
//! it, and no process can remove it: a filter of the app's own can only narrow it, as the kernel
//! takes the strictest answer of all filters, and asks all of them again after a tracer changed the
//! syscall.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// The reason why the filter is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// There is no filter for this processor.
    #[error("no seccomp filter for this architecture: {0}")]
    Build(#[from] BackendError),
    /// The kernel refused the filter.
    #[error("the kernel refused the seccomp filter: {0} (needs CONFIG_SECCOMP_FILTER)")]
    Apply(#[from] seccompiler::Error),
    /// The app would inherit an open vsock socket, which no filter can take back.
    #[error("file descriptor {0} is a vsock socket, through which the app could bypass the policy")]
    Inherited(i32),
}

/// The address families that an app may use. These are the families that the capture rules cover,
/// those that stay in the guest, and AF_PACKET, which the kernel itself refuses with the error that
/// programs expect. Any other family could leave the guest past the rules.
const FAMILIES: [i32; 6] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
    libc::AF_PACKET,
    libc::AF_ALG,
];

/// ioctls that put input into a terminal: TIOCSTI and TIOCLINUX (asm-generic/ioctls.h). The next
/// reader of the terminal would execute that input, such as the shell that started `simulate`.
const TYPING: [u64; 2] = [0x5412, 0x541C];

/// x32 syscall numbers are the native ones plus this bit (asm/unistd.h).
const X32: i64 = 0x4000_0000;
/// The number of ioctl in the x32 ABI.
const X32_IOCTL: i64 = 514;

/// Installs the filter in this thread, which keeps it over exec. Needs no_new_privs.
///
/// A 32-bit program on a 64-bit kernel is killed by SIGSYS at its first syscall: the filter does
/// not know the 32-bit numbers, and no enclave runs such programs.
///
/// An app that is root gets no user namespace either. On kernels before 5.17, root without
/// capabilities could mount the kernel's own file systems anew in one.
///
/// # Errors
/// The kernel has no seccomp filters, or the app would inherit a vsock socket; the caller must not
/// start the app.
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

/// Refuses sockets of other families with EAFNOSUPPORT, as if the kernel did not have them.
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

/// Refuses syscalls with ENOSYS, as a kernel without them does. io_uring: libraries fall back to
/// epoll. request_key: it makes the kernel run /sbin/request-key as root, outside of this filter.
/// clone3, for root: a filter cannot read its flags in memory; libraries fall back to clone.
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
        // Some kernels take the call with the x32 bit only, others without it as well.
        all.extend([(X32_IOCTL, rules.clone()), (X32_IOCTL | X32, rules)]);
    }
    if root {
        let user = libc::CLONE_NEWUSER as u64;
        let rule = SeccompRule::new(vec![argument(0, SeccompCmpOp::MaskedEq(user), user)?])?;
        all.extend(every_abi(&[libc::SYS_clone, libc::SYS_unshare], &[rule]));
    }
    Ok(all)
}

/// Compares the low 32 bits only, as the kernel looks at no more.
fn argument(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value)
}

/// Adds the rules of a syscall under its number in each ABI of the architecture.
fn every_abi(syscalls: &[i64], rules: &[SeccompRule]) -> Rules {
    let x32 = |number: &i64| (ARCH == "x86_64").then_some(number | X32);
    syscalls
        .iter()
        .flat_map(|number| [Some(*number), x32(number)])
        .flatten()
        .map(|number| (number, rules.to_vec()))
        .collect()
}

/// Checks the standard descriptors, which are all that the app inherits.
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
