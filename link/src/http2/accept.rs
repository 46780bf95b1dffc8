//! One connection on which the other half opens the streams.

use std::future::{Future, poll_fn};

use h2::server::SendResponse;
use h2::{RecvStream, server};
use http::Request;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::config::Tuning;
use crate::error::LinkError;
use crate::http2::chunk::Chunk;
use crate::http2::executor::ConnectionExecutor;
use crate::http2::keepalive::{Pulse, keepalive};
use crate::http2::settings::with_settings;
use crate::transport::stream::Transport;

/// Where a request is answered.
pub(crate) enum AnswerOn<F> {
    /// Together with the connection: see [`ConnectionExecutor`].
    Executor(F),
    /// In a task of its own.
    OwnTask(F),
    /// By a task that the connection does not wait for.
    Detached,
}

/// Answers the requests of one connection until the peer closes it, it fails, or `draining` was
/// ready and the answers have ended. When `forced` is ready, the connection is cut; the answers see
/// that by themselves.
///
/// # Errors
/// When the connection failed, or it had to be cut.
pub(crate) async fn drive<F>(
    transport: Transport,
    tuning: &Tuning,
    draining: impl Future<Output = ()>,
    forced: impl Future<Output = ()>,
    answer: impl Fn(Request<RecvStream>, SendResponse<Chunk>) -> AnswerOn<F>,
) -> Result<(), LinkError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let executor = ConnectionExecutor::default();
    let led = async {
        let limit = tuning.handshake_timeout;
        let cork = transport.cork();
        let mut connection = timeout(limit, handshake(transport, tuning))
            .await
            .map_err(|_| LinkError::Handshake(limit))??;
        let pings = connection.ping_pong().ok_or(LinkError::NoPings)?;
        let mut pings = Box::pin(keepalive(pings, tuning, std::future::pending()));
        let answers = TaskTracker::new();
        let mut is_draining = false;
        tokio::pin!(draining, forced);
        let result = loop {
            tokio::select! {
                biased;
                accepted = poll_fn(|cx| cork.turn(cx, |cx| connection.poll_accept(cx))) => match accepted {
                    Some(Ok((request, respond))) => {
                        match answer(request, respond) {
                            AnswerOn::Executor(answer) => executor.spawn(answers.track_future(answer)),
                            AnswerOn::OwnTask(answer) => drop(answers.spawn(answer)),
                            AnswerOn::Detached => {}
                        }
                    }
                    Some(Err(error)) => break Err(LinkError::Http(error)),
                    None => break Ok(()),
                },
                pulse = &mut pings => match pulse {
                    Pulse::Dead(silence) => break Err(LinkError::Dead(silence)),
                    // Nothing is the last here.
                    Pulse::Confirmed => {}
                },
                () = &mut draining, if !is_draining => {
                    connection.graceful_shutdown();
                    is_draining = true;
                }
                () = &mut forced => break Err(LinkError::DrainTimeout(answers.len())),
            }
        };
        // Its streams fail now, and with them the answers: within their grace.
        drop(connection);
        answers.close();
        answers.wait().await;
        result
    };
    executor.run(led).await
}

async fn handshake(
    transport: Transport,
    tuning: &Tuning,
) -> Result<server::Connection<Transport, Chunk>, LinkError> {
    let connection = with_settings!(server::Builder::new(), tuning)
        .max_concurrent_streams(tuning.max_streams())
        .enable_connect_protocol()
        .handshake(transport)
        .await?;
    Ok(connection)
}
