//! How flows end.

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Both directions ended with a FIN.
    Closed,
    /// The TCP socket given to [`relay`](crate::relay) was reset by its peer.
    ResetBySocket,
    /// The peer of the link reset the flow.
    ResetByPeer,
    /// The connection of the link ended.
    LinkLost,
    /// This half had to stop before the flow had ended.
    Cut {
        /// Bytes taken for the other side that are not known to have arrived.
        undelivered: u64,
    },
}
