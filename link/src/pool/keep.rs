//! Dials, watches and replaces the connections of a pool.
//!
//! Each place in the pool has a task that dials, publishes the connection, and drives it until it
//! ends or the host says that it will take no more flows (GOAWAY). Then the place dials again at
//! once, while the old connection is driven on until its last flow has ended.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use h2::{
    PingPong,
    client::{self, SendRequest},
};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{Connection, Pool, jitter::Jitter};
use crate::{
    chunk::Chunk,
    config::{ClientConfig, MAX_HEADER_LIST, MAX_WINDOW, RESET_MEMORY, RESET_STREAMS},
    dial::dial,
    error::LinkError,
    keepalive::{Pulse, keepalive},
    transport::Transport,
};

/// Keeps one place of the pool filled.
pub(super) async fn keep(pool: Arc<Pool>, place: usize) {
    let mut pause = pool.config.backoff_min;
    let mut jitter = Jitter::new();
    while !pool.closing.is_cancelled() {
        let opened = tokio::select! {
            () = pool.closing.cancelled() => break,
            opened = open(&pool) => opened,
        };
        match opened {
            Ok(connection) => {
                pause = pool.config.backoff_min;
                let reason = drive(&pool, place, connection).await;
                pool.publish(place, None);
                pool.set_down_if_empty(&reason);
                debug!(place, reason, "connection left the pool");
            }
            Err(reason) => pool.set_down_if_empty(&reason),
        }
        tokio::select! {
            () = pool.closing.cancelled() => break,
            () = sleep(jitter.spread(pause)) => {}
        }
        pause = (pause * 2).min(pool.config.backoff_max);
    }
    pool.publish(place, None);
}

/// A connection that has answered a PING.
struct Opened {
    requests: SendRequest<Chunk>,
    driver: client::Connection<Transport, Chunk>,
    pings: PingPong,
}

async fn open(pool: &Pool) -> Result<Opened, String> {
    let config = &pool.config;
    let transport = dial(&pool.endpoint, &config.tuning, config.dial_timeout)
        .await
        .map_err(|error| error.to_string())?;
    let limit = config.tuning.handshake_timeout;
    match timeout(limit, handshake(transport, config)).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(LinkError::Handshake(limit).to_string()),
    }
}

async fn handshake(transport: Transport, config: &ClientConfig) -> Result<Opened, LinkError> {
    let tuning = &config.tuning;
    let (requests, mut driver) = client::Builder::new()
        .initial_window_size(tuning.window())
        .initial_connection_window_size(MAX_WINDOW)
        .max_frame_size(tuning.frame())
        .max_send_buffer_size(tuning.send_buffer)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(Some(RESET_STREAMS))
        .reset_stream_duration(RESET_MEMORY)
        // The host opens no streams.
        .enable_push(false)
        .max_concurrent_streams(0)
        .handshake::<_, Chunk>(transport)
        .await?;
    let mut pings = driver
        .ping_pong()
        .ok_or(LinkError::Protocol("h2 gave no handle for its PINGs"))?;
    // A transport that connects says nothing about the other half: vsock proxies take every
    // connection. Its answer also means that its SETTINGS are known.
    let pong = pings.ping(h2::Ping::opaque());
    tokio::select! {
        pong = pong => { pong?; }
        ended = &mut driver => {
            ended?;
            return Err(LinkError::Protocol("the host closed the connection at once"));
        }
    }
    if !requests.is_extended_connect_protocol_enabled() {
        return Err(LinkError::Protocol(
            "the host does not offer extended CONNECT",
        ));
    }
    Ok(Opened {
        requests,
        driver,
        pings,
    })
}

/// Publishes a connection and drives it until it takes no more flows. Says why.
async fn drive(pool: &Arc<Pool>, place: usize, opened: Opened) -> String {
    let Opened {
        requests,
        mut driver,
        pings,
    } = opened;
    let mut watched = Some(requests.clone());
    pool.publish(
        place,
        Some(Connection {
            requests,
            load: Arc::default(),
        }),
    );
    pool.set_up();
    let mut pulse = Box::pin({
        let pool = Arc::clone(pool);
        async move {
            let last = async {
                pool.closing.cancelled().await;
                pool.flows.none().await;
            };
            keepalive(pings, &pool.config.tuning, last).await
        }
    });

    let progress = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut driver).poll(cx) {
            return Poll::Ready(Progress::Ended(ended));
        }
        // GOAWAY shows only on the handle for new streams.
        match watched.as_mut().map(|requests| requests.poll_ready(cx)) {
            Some(Poll::Ready(Err(error))) => Poll::Ready(Progress::Retired(error)),
            _ => Poll::Pending,
        }
    });
    let mut beats = true;
    let reason = tokio::select! {
        biased;
        progress = progress => match progress {
            Progress::Ended(Ok(())) => return "closed by the host".into(),
            Progress::Ended(Err(error)) => return error.to_string(),
            Progress::Retired(error) => {
                // The handle would keep the connection open behind its last flow.
                watched.take();
                error.to_string()
            }
        },
        pulse = &mut pulse => match pulse {
            Pulse::Dead(silence) => return LinkError::Dead(silence).to_string(),
            Pulse::Confirmed => {
                watched.take();
                beats = false;
                "closing".into()
            }
        },
        // The handle keeps the connection open until the host has confirmed all that we sent.
        () = pool.closing.cancelled() => "closing".into(),
    };
    pool.publish(place, None);
    let cut = pool.cut.clone();
    pool.tasks.spawn(async move {
        loop {
            tokio::select! {
                biased;
                ended = &mut driver => return debug!(?ended, "retired connection ended"),
                pulse = &mut pulse, if beats => match pulse {
                    Pulse::Confirmed => {
                        drop(watched.take());
                        beats = false;
                    }
                    Pulse::Dead(silence) => return debug!(?silence, "retired connection is dead"),
                },
                () = cut.cancelled() => return,
            }
        }
    });
    reason
}

enum Progress {
    Ended(Result<(), h2::Error>),
    Retired(h2::Error),
}
