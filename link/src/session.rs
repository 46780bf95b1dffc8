//! One connection on which the other half opens the streams.

use std::{future::Future, time::Duration};

use h2::{
    RecvStream,
    server::{self, SendResponse},
};
use http::Request;
use tokio::time::{sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    chunk::Chunk,
    config::{MAX_HEADER_LIST, MAX_WINDOW, RESET_MEMORY, RESET_STREAMS, Tuning},
    error::LinkError,
    keepalive::{Pulse, keepalive},
    transport::Transport,
};

/// Answers the requests of one connection, each in a task of its own, until the other half closes
/// it, it fails, or `shutdown` was asked for and the answers have ended.
///
/// # Errors
/// When the connection failed, or answers had to be cut `drain_timeout` after `shutdown`.
pub(crate) async fn drive<F>(
    transport: Transport,
    tuning: &Tuning,
    drain_timeout: Duration,
    shutdown: &CancellationToken,
    answer: impl Fn(Request<RecvStream>, SendResponse<Chunk>) -> F,
) -> Result<(), LinkError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let limit = tuning.handshake_timeout;
    let mut connection = timeout(limit, handshake(transport, tuning))
        .await
        .map_err(|_| LinkError::Handshake(limit))??;
    let pings = connection
        .ping_pong()
        .ok_or(LinkError::Protocol("h2 gave no handle for its PINGs"))?;
    let mut pings = Box::pin(keepalive(pings, tuning, std::future::pending()));
    let answers = TaskTracker::new();
    let mut drain_end = None;
    let result = loop {
        let drained = async {
            match drain_end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    answers.spawn(answer(request, respond));
                }
                Some(Err(error)) => break Err(LinkError::Http(error)),
                None => break Ok(()),
            },
            pulse = &mut pings => match pulse {
                Pulse::Dead(silence) => break Err(LinkError::Dead(silence)),
                // Nothing is the last here.
                Pulse::Confirmed => {}
            },
            () = shutdown.cancelled(), if drain_end.is_none() => {
                connection.graceful_shutdown();
                drain_end = Some(tokio::time::Instant::now() + drain_timeout);
            }
            () = drained => break Err(LinkError::DrainTimeout(answers.len())),
        }
    };
    // Its streams fail now, and with them the answers: within their grace.
    drop(connection);
    answers.close();
    answers.wait().await;
    result
}

async fn handshake(
    transport: Transport,
    tuning: &Tuning,
) -> Result<server::Connection<Transport, Chunk>, LinkError> {
    let connection = server::Builder::new()
        .initial_window_size(tuning.window())
        .initial_connection_window_size(MAX_WINDOW)
        .max_concurrent_streams(tuning.max_streams())
        .max_frame_size(tuning.frame())
        .max_send_buffer_size(tuning.send_buffer)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(Some(RESET_STREAMS))
        .reset_stream_duration(RESET_MEMORY)
        .enable_connect_protocol()
        .handshake(transport)
        .await?;
    Ok(connection)
}
