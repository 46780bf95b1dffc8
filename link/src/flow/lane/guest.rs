//! The guest's side of lanes: decides which flows get one, and dials it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use odyn_proto::Endpoint;
use odyn_proto::wire::lane;
use odyn_proto::wire::lane::LaneKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use crate::config::{LaneMode, Tuning};
use crate::drain::delivery::FlowDelivery;
use crate::error::{LinkError, PeerMisbehaved};
use crate::flow::lane::TrafficClass;
use crate::transport::dial::dial;
use crate::transport::lane_slot::{LanePermits, LaneSlot, OpenedLane};
use crate::transport::lane_threads::LaneThreads;

/// Largest number of lanes for interactive flows. A lane saves an interactive flow time while there
/// are few; many are faster on HTTP/2, where they share frames and system calls.
const MAX_INTERACTIVE_LANES: usize = 8;

/// What the lanes of a guest share.
#[derive(Debug)]
pub(crate) struct GuestLanes {
    endpoint: Endpoint,
    tuning: Arc<Tuning>,
    room: Arc<Semaphore>,
    /// The part of the room that interactive flows may take.
    interactive: Arc<Semaphore>,
    threads: Arc<LaneThreads>,
}

/// How a flow gets its lane.
#[derive(Debug)]
pub(crate) enum LaneAccess {
    /// The flow gets no lane.
    None,
    /// The guest asks for a lane.
    Guest(LaneRequest),
    /// The host waits until its guest asks.
    Host(Arc<FlowDelivery>),
}

/// A guest's request for a lane for one flow.
#[derive(Debug)]
pub(crate) struct LaneRequest {
    guest: Arc<GuestLanes>,
    key: LaneKey,
    /// The lowest class at which the guest asks for a lane.
    min_class: TrafficClass,
    slot: Option<Arc<LaneSlot>>,
}

impl GuestLanes {
    /// Makes the lanes of one guest. `None` when lanes are switched off.
    pub(crate) fn new(endpoint: Endpoint, tuning: &Arc<Tuning>) -> Option<Arc<Self>> {
        (tuning.lanes != LaneMode::Never).then(|| {
            Arc::new(Self {
                endpoint,
                room: Arc::new(Semaphore::new(tuning.max_lanes)),
                interactive: Arc::new(Semaphore::new(MAX_INTERACTIVE_LANES)),
                tuning: Arc::clone(tuning),
                threads: Arc::default(),
            })
        })
    }

    /// How a flow gets a lane, when the host has named the connection.
    pub(crate) fn access(self: &Arc<Self>, name: Option<&[u8]>, stream: u32) -> LaneAccess {
        let Some(connection) = name.and_then(lane::Name::parse) else {
            return LaneAccess::None;
        };
        LaneAccess::Guest(LaneRequest {
            guest: Arc::clone(self),
            key: LaneKey { connection, stream },
            min_class: match self.tuning.lanes {
                LaneMode::Always => TrafficClass::Idle,
                LaneMode::Auto | LaneMode::Never => TrafficClass::Interactive,
            },
            slot: None,
        })
    }

    /// Dials a lane in the background. `None` when the guest has no room for one.
    fn ask(self: &Arc<Self>, key: LaneKey, class: TrafficClass) -> Option<Arc<LaneSlot>> {
        let interactive = match class {
            TrafficClass::Interactive => {
                Some(Arc::clone(&self.interactive).try_acquire_owned().ok()?)
            }
            TrafficClass::Idle | TrafficClass::Bulk => None,
        };
        let permit = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let slot = Arc::<LaneSlot>::default();
        let (guest, place) = (Arc::clone(self), Arc::clone(&slot));
        tokio::spawn(async move {
            match guest.open(key).await {
                Ok(socket) => place.put(OpenedLane {
                    socket,
                    offset: None,
                    permits: LanePermits(permit, interactive),
                    threads: Arc::clone(&guest.threads),
                }),
                Err(error) => debug!(%error, "no lane: the flow stays where it is"),
            }
        });
        Some(slot)
    }

    async fn open(&self, key: LaneKey) -> Result<OwnedFd, LinkError> {
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
            Ok(Ok(_)) => Err(PeerMisbehaved::LaneNotOpened.into()),
            Ok(Err(error)) => Err(LinkError::Transport(error)),
            Err(_) => Err(LinkError::Handshake(limit)),
        }
    }
}

impl LaneAccess {
    /// Ready, once, with the flow's lane.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, class: TrafficClass) -> Poll<OpenedLane> {
        match self {
            Self::None => Poll::Pending,
            Self::Host(delivery) => delivery.lane.poll(cx),
            Self::Guest(asking) => {
                if asking.slot.is_none() && class >= asking.min_class {
                    asking.slot = asking.guest.ask(asking.key, class);
                }
                match &asking.slot {
                    Some(slot) => slot.poll(cx),
                    None => Poll::Pending,
                }
            }
        }
    }
}
