//! The knobs of the link, and why each has the value it has.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::lane::{LaneMode, Lanes};
use crate::limit::FlowLimit;

/// Largest window that HTTP/2 knows (RFC 9113 section 6.9.1), in bytes.
pub const MAX_WINDOW: u32 = (1 << 31) - 1;

/// How many streams that we reset, or that were reset before we looked at them, h2 remembers.
///
/// Frames of a stream that h2 has forgotten count as errors of the peer, and too many of those
/// end the connection and with it every other flow. h2's own defaults (20, 50 and 1 024) are
/// for web servers; a burst of closed sockets is ordinary for us. Each costs some 500 bytes while
/// it is remembered.
pub(crate) const RESET_STREAMS: usize = 65_536;

/// How long a reset stream is remembered: longer than any frame can be under way.
pub(crate) const RESET_MEMORY: Duration = Duration::from_secs(30);

/// Largest header list that we take, in bytes (RFC 9113 section 6.5.2).
///
/// The longest that we send is [`MAX_CANDIDATES`](odyn_proto::wire::authority::MAX_CANDIDATES)
/// IPv6 addresses.
pub(crate) const MAX_HEADER_LIST: u32 = 16 * 1024;

/// What both halves share.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tuning {
    /// Receive window of each flow, in bytes. Bounds the memory that a peer which does not read
    /// can hold, and the throughput of one flow to a window per round trip; and the number of flows
    /// ([`Tuning::max_streams`]). Bulk flows have lanes.
    pub stream_window: u32,
    /// Most bytes of one flow that wait in h2 to be written to the transport.
    pub send_buffer: usize,
    /// Largest DATA frame that we take, in bytes. Streams take turns by frame, so it is also the
    /// time that a small message waits behind each bulk flow.
    pub max_frame: u32,
    /// Most bytes that one read takes from a TCP socket.
    pub max_read: usize,
    /// Size asked for the send and receive buffers of a Unix or vsock socket, in bytes.
    pub socket_buffer: usize,
    /// Most bytes of one write to the transport; `None` leaves it to the kernel. For vsock
    /// devices that stall on large writes.
    pub max_write: Option<usize>,
    /// A PING is sent this often.
    pub keepalive: Duration,
    /// The link is dead when a PING was not answered for this long.
    pub keepalive_timeout: Duration,
    /// Longest wait for bytes that were sent before a reset to be delivered before it.
    pub reset_grace: Duration,
    /// Longest wait for the first PING of a new connection to be answered.
    pub handshake_timeout: Duration,
    /// When flows get a connection of their own. The guest decides; the host can only decline.
    pub lanes: LaneMode,
    /// Most lanes at once, of all guests of a host. Each takes five descriptors.
    pub max_lanes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            stream_window: 256 * 1024,
            send_buffer: 128 * 1024,
            max_frame: 64 * 1024,
            max_read: 64 * 1024,
            socket_buffer: 256 * 1024,
            max_write: None,
            keepalive: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(20),
            reset_grace: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            lanes: LaneMode::default(),
            max_lanes: 256,
        }
    }
}

impl Tuning {
    /// Streams that may be open at once on one connection.
    ///
    /// Window times streams never exceeds the connection's window, so flows that are not read can
    /// never take it from the others.
    pub fn max_streams(&self) -> u32 {
        MAX_WINDOW / self.window()
    }

    /// The window in the range that HTTP/2 allows.
    pub(crate) fn window(&self) -> u32 {
        self.stream_window.clamp(1, MAX_WINDOW)
    }

    /// The frame size in the range that HTTP/2 allows (RFC 9113 section 6.5.2).
    pub(crate) fn frame(&self) -> u32 {
        self.max_frame.clamp(1 << 14, (1 << 24) - 1)
    }
}

/// Configuration of the guest's side.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// What both halves share.
    pub tuning: Tuning,
    /// Connections that are kept open. TCP flows keep away from the first when there are others,
    /// so that UDP and DNS do not wait behind them. What small messages of TCP flows take of the
    /// processor is spread over the others: by default one more than there are processors, and
    /// three to nine.
    pub connections: usize,
    /// Longest wait for the transport to connect. The first try gets a second, and each that was
    /// too short is followed by one twice as long, up to this and
    /// [`Tuning::handshake_timeout`].
    pub dial_timeout: Duration,
    /// Longest wait for a link that is down to come back before opening a flow fails.
    pub open_wait: Duration,
    /// Longest wait for the host to open a flow, the wait for room included. Longer than the host
    /// waits for the destination; about as long as a kernel tries to connect.
    pub open_timeout: Duration,
    /// First pause before dialling again; doubled at each failure, with jitter.
    pub backoff_min: Duration,
    /// Longest pause before dialling again. A dial of the host on the same machine costs some
    /// twenty microseconds, so a host that is away for hours is still tried some times a second,
    /// and found at once when it is back.
    pub backoff_max: Duration,
    /// Longest wait for the answer to a DNS message.
    pub dns_timeout: Duration,
    /// A host's: where its guests find the lanes of the flows that it opens.
    pub lanes: Option<Arc<Lanes>>,
}

/// Processors that we may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            tuning: Tuning::default(),
            connections: (processors() + 2).clamp(4, 10),
            dial_timeout: Duration::from_secs(5),
            open_wait: Duration::from_secs(3),
            open_timeout: Duration::from_secs(120),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_millis(250),
            dns_timeout: Duration::from_secs(10),
            lanes: None,
        }
    }
}

/// Configuration of the host's side.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// What both halves share.
    pub tuning: Tuning,
    /// Flows that may be open at once, over every connection that shares this limit. `None`:
    /// as many as the connections' streams.
    pub flows: Option<Arc<FlowLimit>>,
    /// The flows that are open, over every connection that shares this tracker. Feeds go on until
    /// the shutdown was asked for and these have ended: what happens meanwhile is still reported.
    pub open: TaskTracker,
    /// How long flows may go on after the shutdown was asked for.
    pub drain_timeout: Duration,
    /// Where guests find the lanes of their flows.
    pub lanes: Option<Arc<Lanes>>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            tuning: Tuning::default(),
            flows: None,
            open: TaskTracker::new(),
            drain_timeout: Duration::from_secs(30),
            lanes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_that_are_not_read_cannot_take_the_connections_window() {
        for window in [
            0,
            1,
            65_535,
            Tuning::default().stream_window,
            MAX_WINDOW,
            u32::MAX,
        ] {
            let tuning = Tuning {
                stream_window: window,
                ..Tuning::default()
            };
            let taken = u64::from(tuning.max_streams()) * u64::from(tuning.window());
            assert!(
                tuning.max_streams() >= 1 && taken <= u64::from(MAX_WINDOW),
                "{window}"
            );
        }
    }
}
