//! The host's side: knows the connections by name, and gives flows the lanes that guests dial.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use http::HeaderValue;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    time::timeout,
};

use super::{LaneMode, Opened, Permits, Threads};
use crate::{
    config::Tuning,
    delivery::Registry,
    error::LinkError,
    transport::Transport,
    wire::lane::{self, Key, Name, OFFSET_BYTES},
};

/// The lanes of a host half, of all its guests.
#[derive(Debug)]
pub struct Lanes {
    connections: Mutex<HashMap<Name, Weak<Registry>>>,
    is_open: bool,
    most: usize,
    room: Arc<Semaphore>,
    threads: Arc<Threads>,
}

/// A connection's name, known as long as this lives.
#[derive(Debug)]
pub(crate) struct Named {
    lanes: Arc<Lanes>,
    name: Name,
    header: HeaderValue,
}

impl Lanes {
    /// None yet. With [`LaneMode::Never`] there will be none.
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

    /// Lanes that there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.most.saturating_sub(self.room.available_permits())
    }

    /// Opens a lane that a guest has dialled: its flow goes on on it.
    ///
    /// # Errors
    /// When there is no such flow, no room, or the guest does not follow the protocol in time.
    pub async fn serve(
        &self,
        mut transport: Transport,
        key: Key,
        tuning: &Tuning,
    ) -> Result<(), LinkError> {
        let registry = self.connections().get(&key.connection).cloned();
        let entry = registry
            .and_then(|registry| registry.upgrade())
            .and_then(|registry| registry.entry(key.stream))
            .ok_or(LinkError::Protocol("a lane for no flow"))?;
        let permit = Arc::clone(&self.room)
            .try_acquire_owned()
            .map_err(|_| LinkError::Protocol("no room for one more lane"))?;
        let greet = async {
            transport.write_all(&[lane::READY]).await?;
            let mut offset = [0; OFFSET_BYTES];
            transport.read_exact(&mut offset).await?;
            Ok(u64::from_be_bytes(offset))
        };
        let limit = tuning.handshake_timeout;
        let offset = timeout(limit, greet)
            .await
            .map_err(|_| LinkError::Handshake(limit))?
            .map_err(LinkError::Transport)?;
        entry.lane.put(Opened {
            socket: transport.into_socket(),
            offset: Some(offset),
            permits: Permits(permit, None),
            threads: Arc::clone(&self.threads),
        });
        Ok(())
    }

    /// Names a connection. `None` when there are to be no lanes.
    pub(crate) fn name(self: &Arc<Self>, registry: &Arc<Registry>) -> Option<Named> {
        if !self.is_open {
            return None;
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let name = Name(u128::from_be_bytes(random));
        let header = HeaderValue::try_from(name.write()).ok()?;
        self.connections().insert(name, Arc::downgrade(registry));
        Some(Named {
            lanes: Arc::clone(self),
            name,
            header,
        })
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<Name, Weak<Registry>>> {
        // Nothing that could panic runs under the lock.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Named {
    /// The value of the header that tells the guest.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.lanes.connections().remove(&self.name);
    }
}
