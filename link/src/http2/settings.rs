//! Settings of HTTP/2 that are the same on either side of a connection.

use std::time::Duration;

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

/// Applies the settings to h2's builder of a client or of a server, two types without a trait.
macro_rules! with_settings {
    ($builder:expr, $tuning:expr) => {
        $builder
            .initial_window_size($tuning.window())
            .initial_connection_window_size($crate::config::MAX_WINDOW)
            .max_frame_size($tuning.frame())
            .max_send_buffer_size($tuning.send_buffer)
            .max_header_list_size($crate::http2::settings::MAX_HEADER_LIST)
            .max_concurrent_reset_streams($crate::http2::settings::RESET_STREAMS)
            .max_pending_accept_reset_streams($crate::http2::settings::RESET_STREAMS)
            .max_local_error_reset_streams(Some($crate::http2::settings::RESET_STREAMS))
            .reset_stream_duration($crate::http2::settings::RESET_MEMORY)
    };
}

pub(crate) use with_settings;
