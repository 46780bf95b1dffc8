//! Settings of the link, and why each has the value it has.

use std::time::Duration;

/// Largest window that HTTP/2 knows (RFC 9113 section 6.9.1), in bytes.
pub const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Settings that guest and host share.
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
    /// Most bytes of one write to the transport; `None` leaves the size to the kernel. A limit is
    /// for vsock devices that stall on large writes.
    pub max_write: Option<usize>,
    /// Time between two PINGs.
    pub keepalive: Duration,
    /// Longest wait for the answer to a PING; then the connection is dead.
    pub keepalive_timeout: Duration,
    /// Longest wait until the bytes that were sent before a reset are delivered. The reset follows
    /// them.
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

/// When flows move to lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LaneMode {
    /// Flows that the classifier has found to be bulk or interactive.
    #[default]
    Auto,
    /// Every TCP flow, as soon as it is open: for tests.
    Always,
    /// No flow.
    Never,
}

impl std::str::FromStr for LaneMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("not one of auto, always, never"),
        }
    }
}

impl std::fmt::Display for LaneMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

/// Number of processors that this process may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
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
