//! The host's side of lanes: finds the flow for each lane that a guest dials.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::HeaderValue;
use odyn_proto::wire::lane;
use odyn_proto::wire::lane::{LaneKey, Name, OFFSET_BYTES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::{LaneMode, Tuning};
use crate::drain::delivery::DeliveryTable;
use crate::error::{LinkError, PeerMisbehaved};
use crate::transport::lane_slot::{LanePermits, OpenedLane};
use crate::transport::lane_threads::LaneThreads;
use crate::transport::stream::Transport;

/// The lanes of a host, for all its guests.
#[derive(Debug)]
pub struct HostLanes {
    connections: Mutex<HashMap<Name, Weak<DeliveryTable>>>,
    is_open: bool,
    most: usize,
    room: Arc<Semaphore>,
    threads: Arc<LaneThreads>,
}

/// The name of a connection, which is known as long as this lives.
#[derive(Debug)]
pub(crate) struct NamedConnection {
    lanes: Arc<HostLanes>,
    name: Name,
    header: HeaderValue,
}

impl HostLanes {
    /// Makes a table without lanes. With [`LaneMode::Never`] it stays empty.
    #[must_use]
    pub fn new(tuning: &Tuning) -> Arc<Self> {
        Arc::new(Self {
            connections: Mutex::default(),
            most: tuning.max_lanes,
            is_open: tuning.lanes != LaneMode::Never,
            room: Arc::new(Semaphore::new(tuning.max_lanes)),
            threads: Arc::default(),
        })
    }

    /// Lanes that are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.most.saturating_sub(self.room.available_permits())
    }

    /// Serves a lane that a guest has dialled: its flow moves there.
    ///
    /// # Errors
    /// When the flow does not exist, there is no room, or the guest leaves or never sends its
    /// offset.
    pub async fn serve(
        &self,
        mut transport: Transport,
        key: LaneKey,
        tuning: &Tuning,
    ) -> Result<(), LinkError> {
        let deliveries = self.connections().get(&key.connection).cloned();
        let delivery = deliveries
            .and_then(|deliveries| deliveries.upgrade())
            .and_then(|deliveries| deliveries.delivery(key.stream))
            .ok_or(PeerMisbehaved::LaneWithoutFlow)?;
        let permit = Arc::clone(&self.room)
            .try_acquire_owned()
            .map_err(|_| LinkError::TooManyLanes)?;
        let greet = async {
            transport.write_all(&[lane::READY]).await?;
            let mut offset = [0; OFFSET_BYTES];
            transport.read_exact(&mut offset).await?;
            Ok(u64::from_be_bytes(offset))
        };
        let (limit, mut greet) = (tuning.handshake_timeout, pin!(greet));
        let offset = loop {
            match timeout(limit, &mut greet).await {
                Ok(offset) => break offset.map_err(LinkError::Transport)?,
                Err(_) if delivery.is_over() => return Err(LinkError::Handshake(limit)),
                // A guest that has READY may be using the lane already and send its offset late:
                // closing the lane now would end the flow.
                Err(_) => {}
            }
        };
        delivery.lane.put(OpenedLane {
            socket: transport.into_socket(),
            offset: Some(offset),
            permits: LanePermits(permit, None),
            threads: Arc::clone(&self.threads),
        });
        Ok(())
    }

    /// Gives a connection a random name. `None` when lanes are switched off.
    pub(crate) fn name(
        self: &Arc<Self>,
        deliveries: &Arc<DeliveryTable>,
    ) -> Option<NamedConnection> {
        if !self.is_open {
            return None;
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let name = Name(u128::from_be_bytes(random));
        let header = HeaderValue::try_from(name.write()).ok()?;
        self.connections().insert(name, Arc::downgrade(deliveries));
        Some(NamedConnection {
            lanes: Arc::clone(self),
            name,
            header,
        })
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<Name, Weak<DeliveryTable>>> {
        // Nothing that could panic runs under the lock.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl NamedConnection {
    /// The header that tells the guest the connection's name.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

impl Drop for NamedConnection {
    fn drop(&mut self) {
        self.lanes.connections().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::net::UnixStream;
    use tokio::time::sleep;

    use super::*;
    use crate::drain::delivery::FlowGuard;

    /// A flow, and the guest's end of a lane for it, which is ready.
    async fn ready() -> (
        FlowGuard,
        UnixStream,
        impl Future<Output = Result<(), LinkError>>,
    ) {
        let tuning = Tuning {
            handshake_timeout: Duration::from_millis(1),
            ..Tuning::default()
        };
        let lanes = HostLanes::new(&tuning);
        let deliveries = Arc::<DeliveryTable>::default();
        let named = lanes.name(&deliveries).unwrap();
        let dialled = "203.0.113.7:443".parse().unwrap();
        let flow = deliveries.track(1, dialled, Arc::default(), None);
        let key = LaneKey {
            connection: named.name,
            stream: 1,
        };
        let (mut guest, host) = UnixStream::pair().unwrap();
        let host = Transport::unix(host, &tuning).unwrap();
        let serving = tokio::spawn(async move { lanes.serve(host, key, &tuning).await });
        assert_eq!(guest.read_u8().await.unwrap(), lane::READY);
        drop(named);
        (flow, guest, async { serving.await.unwrap() })
    }

    #[tokio::test]
    async fn a_guest_that_is_slow_to_move_has_its_lane() {
        let (flow, mut guest, serving) = ready().await;
        // Much longer than a handshake may take.
        sleep(Duration::from_millis(50)).await;
        guest.write_u64(7).await.unwrap();
        serving.await.unwrap();
        let opened = poll_fn(|cx| flow.delivery().lane.poll(cx)).await;
        assert_eq!(opened.offset, Some(7));
    }

    #[tokio::test]
    async fn a_lane_whose_flow_has_ended_is_not_waited_for() {
        let (flow, mut guest, serving) = ready().await;
        drop(flow);
        assert!(matches!(serving.await, Err(LinkError::Handshake(_))));
        assert_eq!(guest.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
