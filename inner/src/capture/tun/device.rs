//! The TUN device: a network interface that odyn-net reads and writes.
//!
//! Each read is one packet of the app, each write one packet to it. With IFF_VNET_HDR every packet
//! begins with a `virtio_net_hdr`, which says how far its checksum is done and whether it holds
//! many segments. odyn-net returns such packets as they are, so the kernel neither segments nor
//! sums what never leaves it.
//!
//! The device belongs to this process. The kernel removes it with its addresses and routes when the
//! last descriptor closes, so a dead odyn-net leaves no way out.

use std::fs::{File, OpenOptions};
use std::io;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::geteuid;

use super::ioctl;

/// Name of the interface.
pub const NAME: &str = "odyn0";
/// Length of `virtio_net_hdr` (linux/virtio_net.h).
pub const VNET_HEADER: usize = 10;
/// The largest MTU of a TUN device. Every IPv4 datagram fits, and every IPv6 one of up to 65 487
/// bytes.
pub const MTU: u32 = 65_535;
/// Bytes of the longest packet, with its header. The length field of IPv6 does not count the fixed
/// header.
pub const MAX_FRAME: usize = VNET_HEADER + 65_535 + 40;

const CLONE_DEVICE: &str = "/dev/net/tun";
/// VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CHECKSUM: u8 = 1;
/// TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6: partial checksums, and TCP segments of up to 64 KiB.
const OFFLOAD: u32 = 0x01 | 0x02 | 0x04;

/// The reason why there is no device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The driver's file cannot be opened.
    #[error(
        "cannot open {CLONE_DEVICE}: {0} (needs CONFIG_TUN and the node: mknod {CLONE_DEVICE} c 10 200)"
    )]
    Open(#[source] io::Error),
    /// Another odyn-net runs in this network namespace.
    #[error(
        "the interface {NAME} exists already: does another odyn-net run in this network namespace?"
    )]
    Busy,
    /// The kernel refused the device.
    #[error("cannot make the interface {NAME}: {0} (needs CAP_NET_ADMIN)")]
    Create(#[source] io::Error),
}

/// The device.
pub struct Device {
    file: File,
    vnet: bool,
}

/// A buffer with one packet as it was read, its virtio header included.
pub struct Frame<'a> {
    bytes: &'a mut [u8],
    header: usize,
}

impl Device {
    /// Makes the interface. It is down and has no address yet.
    ///
    /// # Errors
    /// The driver is missing, or the kernel refused the device.
    pub fn create() -> Result<Self, DeviceError> {
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
                .open(CLONE_DEVICE)
        };
        // EXCL refuses a device that another process has prepared under this name.
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
        let file = open().map_err(DeviceError::Open)?;
        let (file, vnet) = match ioctl::create(&file, NAME, flags | libc::IFF_VNET_HDR) {
            Ok(()) => (file, true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let file = open().map_err(DeviceError::Open)?;
                ioctl::create(&file, NAME, flags).map_err(refused)?;
                (file, false)
            }
            Err(error) => return Err(refused(error)),
        };
        // Any process could attach to a device without an owner.
        ioctl::set_owner(&file, geteuid().as_raw()).map_err(DeviceError::Create)?;
        if vnet && let Err(error) = ioctl::set_offload(&file, OFFLOAD) {
            tracing::info!(%error, "the TUN device has no offload: captured flows cost more");
        }
        Ok(Self { file, vnet })
    }

    /// Whether the receiving kernel completes checksums.
    pub const fn partial(&self) -> bool {
        self.vnet
    }

    /// Reads the next packet.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none, or the device is gone.
    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Frame<'a>> {
        let length = (&self.file).read(buffer)?;
        let header = if self.vnet { VNET_HEADER } else { 0 };
        Ok(Frame {
            bytes: buffer.get_mut(..length).unwrap_or_default(),
            header,
        })
    }

    /// Writes the packet back to the kernel, which delivers it.
    ///
    /// # Errors
    /// The kernel refused the packet.
    pub fn write_back(&self, frame: &Frame<'_>) -> io::Result<()> {
        (&self.file).write(frame.bytes).map(drop)
    }

    /// Writes a packet of our own, with complete checksums or, for UDP, with a partial one. A
    /// partial one has a place: where the sum begins, and the offset from there where it is
    /// written.
    ///
    /// # Errors
    /// The kernel refused the packet.
    pub fn write(&self, packet: &[&[u8]; 2], partial: Option<(usize, usize)>) -> io::Result<()> {
        let mut header = [0; VNET_HEADER];
        if let Some((start, offset)) = partial {
            header[0] = NEEDS_CHECKSUM;
            header[6..8].copy_from_slice(&(start as u16).to_ne_bytes());
            header[8..10].copy_from_slice(&(offset as u16).to_ne_bytes());
        }
        let header = if self.vnet { &header[..] } else { &[] };
        let slices = [header, packet[0], packet[1]].map(IoSlice::new);
        (&self.file).write_vectored(&slices).map(drop)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Frame<'_> {
    /// The IP packet.
    pub fn packet(&self) -> &[u8] {
        self.bytes.get(self.header..).unwrap_or_default()
    }

    /// The IP packet, to be changed.
    pub fn packet_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.header..).unwrap_or_default()
    }

    /// Whether the checksum covers the pseudo-header only.
    pub fn is_partial(&self) -> bool {
        self.header > 0 && self.bytes.first().is_some_and(|f| f & NEEDS_CHECKSUM != 0)
    }
}

fn refused(error: io::Error) -> DeviceError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => DeviceError::Busy,
        _ => DeviceError::Create(error),
    }
}
