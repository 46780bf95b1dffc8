//! Capture: how an unmodified program's traffic comes to us.
//!
//! [`Capture::install`] prepares the network namespace it is called in, and from then on every
//! TCP connection, UDP datagram and DNS query of the namespace arrives at one of our sockets;
//! everything else is rejected by the kernel and reported through [`rejected`].

pub mod datagrams;
pub mod icmp;
pub mod nft;
pub mod rejected;
pub mod routes;
pub mod sockets;

use std::io;
use std::net::IpAddr;

use routes::OwnAddresses;
use sockets::FamilySockets;

/// Why the namespace is not captured; the program must not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// `lo`, addresses, routes or rules.
    #[error(transparent)]
    Routes(#[from] routes::RouteError),
    /// The listening sockets.
    #[error("cannot open the capture sockets: {0} (needs CAP_NET_ADMIN and CAP_NET_RAW)")]
    Sockets(#[source] io::Error),
    /// The nftables rules.
    #[error(transparent)]
    Rules(#[from] nft::InstallError),
}

/// A captured namespace.
pub struct Capture {
    /// One entry for each address family of the kernel.
    pub families: Vec<FamilySockets>,
    /// Answers refused datagrams.
    pub refusals: icmp::Refusals,
    /// Packets that the kernel rejected; `None` when the kernel cannot report them.
    pub rejected: Option<rejected::Rejected>,
}

impl Capture {
    /// Captures the network namespace of the calling process.
    ///
    /// # Errors
    /// What the kernel lacks or refused. Rules of an earlier run stay in force in that case, so
    /// nothing is open that was closed.
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

async fn open_rejected() -> Option<rejected::Rejected> {
    match rejected::Rejected::open().await {
        Ok(rejected) => Some(rejected),
        Err(error) => {
            tracing::warn!(%error, "rejected packets are not recorded: no NFLOG socket");
            None
        }
    }
}
