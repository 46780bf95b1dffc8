//! A seccomp filter that keeps the program off the link: no AF_VSOCK socket, by no way.
//!
//! A program that could open a vsock socket would talk to the host past capture and policy. The
//! socket syscall is one way; io_uring (IORING_OP_SOCKET) makes sockets without it, and the x32 and
//! 32-bit ABIs have numbers of their own. The filter is inherited and cannot be taken off.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Why the filter is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// There is no filter for this processor.
    #[error("no seccomp filter for this architecture: {0}")]
    Build(#[from] BackendError),
    /// The kernel refused it.
    #[error("the kernel refused the seccomp filter: {0} (needs CONFIG_SECCOMP_FILTER)")]
    Apply(#[from] seccompiler::Error),
}

/// Installs the filter in this thread, for whatever it executes. Needs no_new_privs.
///
/// A 32-bit program on a 64-bit kernel is killed by SIGSYS at its first syscall: its numbers are
/// others, and there is no enclave in which it would be expected.
///
/// # Errors
/// The kernel has no seccomp filters; the program must not be started.
pub fn apply() -> Result<(), FilterError> {
    let no_vsock = rules(&[libc::SYS_socket, libc::SYS_socketpair], || {
        Ok(vec![SeccompRule::new(vec![SeccompCondition::new(
            0,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            libc::AF_VSOCK as u64,
        )?])?])
    })?;
    // As on a kernel without it: libraries fall back to epoll.
    let no_io_uring = rules(
        &[
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
        ],
        || Ok(Vec::new()),
    )?;
    for (rules, errno) in [(no_vsock, libc::EAFNOSUPPORT), (no_io_uring, libc::ENOSYS)] {
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

/// The same rule for each syscall, under its number in every ABI that shares the architecture.
fn rules(
    syscalls: &[i64],
    rule: impl Fn() -> Result<Vec<SeccompRule>, BackendError>,
) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    /// Added to the numbers of the x32 ABI (asm/unistd.h).
    const X32: i64 = 0x4000_0000;
    let mut rules = BTreeMap::new();
    for &number in syscalls {
        rules.insert(number, rule()?);
        if ARCH == "x86_64" {
            rules.insert(number | X32, rule()?);
        }
    }
    Ok(rules)
}
