//! Capture: brings an unmodified app's traffic to odyn-net.
//!
//! [`Capture::install`] prepares the network namespace of its caller. From then on every TCP
//! connection, UDP datagram and DNS query of the namespace arrives at odyn-net; other packets are
//! rejected and reported. There are two ways: [`Nftables`] by rules in the kernel, and [`tun::Tun`]
//! by a TUN device, for kernels without nf_tables.

pub mod checksum;
pub mod icmp;
pub mod nflog;
pub mod nft;
pub mod routes;
pub mod sockets;
pub mod tun;
pub mod udp_recv;
pub mod udp_reply;

use std::io;
use std::net::IpAddr;

use clap::ValueEnum;

use routes::OwnAddresses;
use sockets::FamilySockets;
use tun::{Tun, TunError};

/// The ways to capture a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Method {
    /// nftables, or a TUN device where the kernel has no nf_tables.
    #[default]
    Auto,
    /// Rules in the kernel.
    Nftables,
    /// A TUN device; in guests with no interface but lo.
    Tun,
}

impl Method {
    /// The value on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Auto => "auto",
            Method::Nftables => "nftables",
            Method::Tun => "tun",
        }
    }
}

/// The reason why the namespace is not captured; the app must not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The kernel refused an address, a route or `lo`.
    #[error(transparent)]
    Routes(#[from] routes::RouteError),
    /// The listening sockets cannot be opened.
    #[error("cannot open the capture sockets: {0} (needs CAP_NET_ADMIN and CAP_NET_RAW)")]
    Sockets(#[source] io::Error),
    /// The rules cannot be installed.
    #[error(transparent)]
    Rules(#[from] nft::InstallError),
    /// The TUN device cannot be used.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// Neither way works.
    #[error("neither by nftables: {nftables}; nor by a TUN device: {tun}")]
    Neither {
        /// The reason why nftables does not work.
        nftables: Box<CaptureError>,
        /// The reason why TUN does not work.
        tun: TunError,
    },
}

/// A captured namespace.
pub enum Capture {
    /// Captured by rules in the kernel.
    Nftables(Nftables),
    /// Captured by a TUN device.
    Tun(Tun),
}

/// A namespace captured by nftables.
pub struct Nftables {
    /// One entry for each address family of the kernel.
    pub families: Vec<FamilySockets>,
    /// Answers refused datagrams.
    pub refusals: icmp::Refusals,
    /// Packets that the kernel rejected; `None` when the kernel cannot report them.
    pub rejected: Option<nflog::RejectedPackets>,
}

impl Capture {
    /// Captures the network namespace of the calling process.
    ///
    /// # Errors
    /// The kernel lacks something or refused a step. Rules of an earlier run then stay in force, so
    /// the failure opens nothing.
    pub async fn install(own: OwnAddresses, method: Method) -> Result<Self, CaptureError> {
        match method {
            Method::Nftables => Ok(Self::Nftables(Nftables::install(own).await?)),
            Method::Tun => Ok(Self::Tun(Tun::install(own).await?)),
            Method::Auto => match Nftables::install(own).await {
                Ok(nftables) => Ok(Self::Nftables(nftables)),
                Err(error) if !error.is_of_the_kernel() => Err(error),
                Err(nftables) => match Tun::install(own).await {
                    Ok(tun) => {
                        tracing::info!(reason = %nftables, "captured by a TUN device, not by nftables");
                        Ok(Self::Tun(tun))
                    }
                    Err(tun) => Err(CaptureError::Neither {
                        nftables: Box::new(nftables),
                        tun,
                    }),
                },
            },
        }
    }

    /// The way in use.
    pub const fn method(&self) -> Method {
        match self {
            Capture::Nftables(_) => Method::Nftables,
            Capture::Tun(_) => Method::Tun,
        }
    }
}

impl CaptureError {
    /// Whether the kernel lacks a feature, as opposed to us a right.
    fn is_of_the_kernel(&self) -> bool {
        match self {
            CaptureError::Rules(_) => true,
            CaptureError::Routes(error) => !error.is_permission(),
            _ => false,
        }
    }
}

impl Nftables {
    /// Captures the network namespace of the calling process.
    ///
    /// # Errors
    /// See [`Capture::install`].
    pub async fn install(own: OwnAddresses) -> Result<Self, CaptureError> {
        routes::install(own).await?;
        let mut families = vec![FamilySockets::open(own.v4.into()).map_err(CaptureError::Sockets)?];
        if let Some(v6) = own.v6 {
            families.push(FamilySockets::open(IpAddr::V6(v6)).map_err(CaptureError::Sockets)?);
        }
        let refusals = icmp::Refusals::open(own.v6.is_some()).map_err(CaptureError::Sockets)?;
        let steering = families
            .iter()
            .map(FamilySockets::steering)
            .collect::<io::Result<Vec<_>>>()
            .map_err(CaptureError::Sockets)?;
        let rejected = if nft::install(&steering)? {
            open_rejected().await
        } else {
            tracing::warn!(
                "this kernel cannot log rejected packets (CONFIG_NFT_LOG): they are rejected \
                 all the same, without an audit record"
            );
            None
        };
        Ok(Self {
            families,
            refusals,
            rejected,
        })
    }
}

async fn open_rejected() -> Option<nflog::RejectedPackets> {
    match nflog::RejectedPackets::open().await {
        Ok(rejected) => Some(rejected),
        Err(error) => {
            tracing::warn!(%error, "rejected packets are not recorded: no NFLOG socket");
            None
        }
    }
}
