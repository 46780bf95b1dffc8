//! The guest's side: decides which flows get a lane, and dials it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use odyn_proto::Endpoint;
use odyn_proto::wire::lane;
use odyn_proto::wire::lane::Key;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::{LaneMode, Nature, Opened, Permits, Slot, Threads};
use crate::config::Tuning;
use crate::delivery::Entry;
use crate::dial::dial;
use crate::error::LinkError;

/// Lanes that chatty flows may have, all together. A lane saves a chatty flow time while there are
/// few of them; many share frames, and so system calls, and are faster where they are.
const CHATTY: usize = 8;

/// What the lanes of a guest share.
#[derive(Debug)]
pub(crate) struct Guest {
    endpoint: Endpoint,
    tuning: Arc<Tuning>,
    room: Arc<Semaphore>,
    /// Of it, for chatty flows.
    chatty: Arc<Semaphore>,
    threads: Arc<Threads>,
}

/// How a flow gets its lane.
#[derive(Debug)]
pub(crate) enum Access {
    /// Not at all.
    None,
    /// Asks for it.
    Guest(Asking),
    /// Waits for its guest to ask.
    Host(Arc<Entry>),
}

/// A flow of a guest.
#[derive(Debug)]
pub(crate) struct Asking {
    guest: Arc<Guest>,
    key: Key,
    /// What it must be.
    least: Nature,
    slot: Option<Arc<Slot>>,
}

impl Guest {
    /// `None` when there are to be no lanes.
    pub(crate) fn new(endpoint: Endpoint, tuning: &Arc<Tuning>) -> Option<Arc<Self>> {
        (tuning.lanes != LaneMode::Never).then(|| {
            Arc::new(Self {
                endpoint,
                room: Arc::new(Semaphore::new(tuning.max_lanes)),
                chatty: Arc::new(Semaphore::new(CHATTY)),
                tuning: Arc::clone(tuning),
                threads: Arc::default(),
            })
        })
    }

    /// A flow's way to a lane, when the host has named the connection.
    pub(crate) fn access(self: &Arc<Self>, name: Option<&[u8]>, stream: u32) -> Access {
        let Some(connection) = name.and_then(lane::Name::parse) else {
            return Access::None;
        };
        Access::Guest(Asking {
            guest: Arc::clone(self),
            key: Key { connection, stream },
            least: match self.tuning.lanes {
                LaneMode::Always => Nature::Quiet,
                LaneMode::Auto | LaneMode::Never => Nature::Chatty,
            },
            slot: None,
        })
    }

    /// Opens a lane in the background. `None` when there are as many as there may be.
    fn ask(self: &Arc<Self>, key: Key, nature: Nature) -> Option<Arc<Slot>> {
        let chatty = match nature {
            Nature::Chatty => Some(Arc::clone(&self.chatty).try_acquire_owned().ok()?),
            Nature::Quiet | Nature::Bulk => None,
        };
        let permit = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let slot = Arc::<Slot>::default();
        let (guest, place) = (Arc::clone(self), Arc::clone(&slot));
        tokio::spawn(async move {
            match guest.open(key).await {
                Ok(socket) => place.put(Opened {
                    socket,
                    offset: None,
                    permits: Permits(permit, chatty),
                    threads: Arc::clone(&guest.threads),
                }),
                Err(error) => debug!(%error, "no lane: the flow stays where it is"),
            }
        });
        Some(slot)
    }

    async fn open(&self, key: Key) -> Result<OwnedFd, LinkError> {
        let limit = self.tuning.handshake_timeout;
        let mut transport = dial(&self.endpoint, &self.tuning, limit).await?;
        let asked = async {
            let mut first = Vec::with_capacity(lane::PREAMBLE.len() + lane::KEY_BYTES);
            first.extend_from_slice(lane::PREAMBLE);
            first.extend_from_slice(&key.write());
            transport.write_all(&first).await?;
            transport.read_u8().await
        };
        match timeout(limit, asked).await {
            Ok(Ok(lane::READY)) => Ok(transport.into_socket()),
            Ok(Ok(_)) => Err(LinkError::Protocol("the host does not open a lane")),
            Ok(Err(error)) => Err(LinkError::Transport(error)),
            Err(_) => Err(LinkError::Handshake(limit)),
        }
    }
}

impl Access {
    /// Ready, once, with the lane of a flow.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, nature: Nature) -> Poll<Opened> {
        match self {
            Self::None => Poll::Pending,
            Self::Host(entry) => entry.lane.poll(cx),
            Self::Guest(asking) => {
                if asking.slot.is_none() && nature >= asking.least {
                    asking.slot = asking.guest.ask(asking.key, nature);
                }
                match &asking.slot {
                    Some(slot) => slot.poll(cx),
                    None => Poll::Pending,
                }
            }
        }
    }
}
