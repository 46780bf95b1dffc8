//! Checks TUN, vsock and the Nitro Security Module.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, bind, socket};

use crate::doctor::check::Finding;
use crate::doctor::live::ioctl;

/// The CID "any", which a machine has that is no guest (linux/vm_sockets.h).
const CID_ANY: u32 = u32::MAX;
const CID_LOCAL: u32 = 1;
const CID_HOST: u32 = 2;
const PORT_ANY: u32 = u32::MAX;

/// Opens the TUN device and reads its features. Makes no interface.
pub(super) fn tun() -> Finding {
    const PATH: &str = "/dev/net/tun";
    let features = match open(PATH).and_then(ioctl::tun_features) {
        Ok(features) => features,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::missing(format!(
                "{PATH} does not exist; where the kernel has TUN: mkdir -p /dev/net && \
                 mknod {PATH} c 10 200"
            ));
        }
        Err(error) => return cannot_open(PATH, &error),
    };
    if features & libc::IFF_TUN as u32 == 0 {
        return Finding::missing(format!("{PATH} has no TUN mode (features {features:#x})"));
    }
    let offload = if features & libc::IFF_VNET_HDR as u32 == 0 {
        "without offload (IFF_VNET_HDR)"
    } else {
        "with offload (IFF_VNET_HDR)"
    };
    Finding::present(offload)
}

/// Opens an AF_VSOCK socket. The kernel may load a module for it.
pub(super) fn vsock() -> Finding {
    match vsock_socket() {
        Ok(_) => Finding::present(""),
        Err(Errno::EAFNOSUPPORT) => Finding::missing("the kernel has no AF_VSOCK"),
        Err(Errno::EPERM | Errno::EACCES) => {
            Finding::unknown("not permitted to open a vsock socket")
        }
        Err(error) => Finding::missing(format!("a vsock socket: {error}")),
    }
}

/// Checks for a CID from the hypervisor.
pub(super) fn vsock_cid() -> Finding {
    const PATH: &str = "/dev/vsock";
    let cid = match File::open(PATH).and_then(ioctl::vsock_local_cid) {
        Ok(cid) => cid,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::missing(format!("{PATH} does not exist"));
        }
        Err(error) => return cannot_open(PATH, &error),
    };
    match cid {
        CID_ANY => Finding::missing("no transport to a hypervisor: the CID is \"any\""),
        CID_LOCAL => Finding::missing("no transport to a hypervisor: loopback only"),
        CID_HOST => Finding::missing("this is a host (CID 2), no guest"),
        cid => Finding::present(format!("our CID is {cid}")),
    }
}

/// Binds to CID 1, which a kernel without the loopback transport refuses. A connect would prove
/// nothing: the kernel would send it to a hypervisor, if there is one.
pub(super) fn vsock_loopback() -> Finding {
    let Ok(socket) = vsock_socket() else {
        return Finding::missing("there is no AF_VSOCK");
    };
    match bind(socket.as_raw_fd(), &VsockAddr::new(CID_LOCAL, PORT_ANY)) {
        Ok(()) => Finding::present(""),
        Err(Errno::EADDRNOTAVAIL) => Finding::missing("CID 1 is no address of this machine"),
        Err(error) => Finding::missing(format!("binding to CID 1: {error}")),
    }
}

fn vsock_socket() -> nix::Result<std::os::fd::OwnedFd> {
    socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}

pub(super) fn nsm() -> Finding {
    const PATH: &str = "/dev/nsm";
    match open(PATH) {
        Ok(_) => Finding::present(""),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::missing(format!("{PATH} does not exist"))
        }
        Err(error) => cannot_open(PATH, &error),
    }
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn cannot_open(path: &str, error: &io::Error) -> Finding {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Finding::unknown(format!("not permitted to open {path}: {error}"));
    }
    // ENODEV, ENXIO: a device node without a driver.
    Finding::missing(format!("{path}: {error}"))
}
