//! The guest's side: dials reversed connections and answers what the host asks on them.

use std::{
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use h2::{RecvStream, server::SendResponse};
use http::{HeaderValue, Method, Request, Response};
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::opening::say_reversed;
use crate::{
    chunk::Chunk,
    config::Tuning,
    dial::dial,
    endpoint::Endpoint,
    error::{LinkError, Refusal},
    identity,
    pool::Jitter,
    server::refuse,
    session,
    stream::Stream,
    wire::ingress::{self, Hello, Incoming},
};

/// What the guest does with the clients that the host has for it.
pub trait Ingress: Send + Sync + 'static {
    /// Connects a client with the program, and returns when its connection has ended.
    ///
    /// The host may ask for any port: whether it is wanted is decided here.
    fn serve(&self, incoming: Incoming, client: Pending) -> impl Future<Output = ()> + Send;
}

/// A client that waits for an answer. Dropping it resets its connection.
#[derive(Debug)]
pub struct Pending {
    respond: SendResponse<Chunk>,
    body: RecvStream,
    tuning: Arc<Tuning>,
}

impl Pending {
    /// Waits until the host has given the client up, or is gone itself.
    pub async fn gone(&mut self) {
        let reset = poll_fn(|cx| self.respond.poll_reset(cx)).await;
        debug!(?reset, "a client went before the program answered");
    }

    /// The client's end of the connection; `None` when it has gone.
    pub fn accept(mut self) -> Option<Stream> {
        let send = self.respond.send_response(Response::new(()), false).ok()?;
        Some(Stream::new(send, self.body, self.tuning, None, None))
    }

    /// There is no connection for it: the client's is reset.
    pub fn refuse(mut self, refusal: Refusal) {
        refuse(&mut self.respond, refusal);
    }
}

/// Configuration of the reversed connections of a guest.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReverseConfig {
    /// What both halves share.
    pub tuning: Tuning,
    /// Connections that are kept open.
    pub connections: usize,
    /// Longest wait for the transport to connect.
    pub dial_timeout: Duration,
    /// First pause before dialling again; doubled at each failure, with jitter.
    pub backoff_min: Duration,
    /// Longest pause before dialling again: short, for a dial of the same machine costs little and
    /// a host half that was restarted shall have its guests back at once.
    pub backoff_max: Duration,
}

impl Default for ReverseConfig {
    fn default() -> Self {
        Self {
            tuning: Tuning::default(),
            connections: 2,
            dial_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_millis(250),
        }
    }
}

/// The reversed connections of a guest. They end by [`Reverse::drain`], or when it is dropped.
#[derive(Debug)]
pub struct Reverse {
    stop: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

/// What the connections share.
struct Offer<I> {
    endpoint: Endpoint,
    config: ReverseConfig,
    tuning: Arc<Tuning>,
    hello: Hello,
    handler: Arc<I>,
    stop: CancellationToken,
}

impl Reverse {
    /// Starts to dial `endpoint`, says `hello` there, and has `handler` serve the clients.
    ///
    /// Must be called in a tokio runtime.
    pub fn start<I: Ingress>(
        endpoint: Endpoint,
        config: ReverseConfig,
        hello: Hello,
        handler: Arc<I>,
    ) -> Self {
        let stop = CancellationToken::new();
        let cut = CancellationToken::new();
        let tasks = TaskTracker::new();
        let offer = Arc::new(Offer {
            tuning: Arc::new(config.tuning.clone()),
            endpoint,
            config,
            hello,
            handler,
            stop: stop.clone(),
        });
        for _ in 0..offer.config.connections.max(1) {
            let keep = Arc::clone(&offer).keep();
            tasks.spawn(cut.clone().run_until_cancelled_owned(keep));
        }
        tasks.close();
        Self { stop, cut, tasks }
    }

    /// Tells the host that there will be no more clients, and waits for the connections of those
    /// that are there to end. Cancel safe; see [`Reverse::cut`].
    pub async fn drain(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Drops the connections with all that is on them.
    pub fn cut(&self) {
        self.cut.cancel();
    }
}

impl Drop for Reverse {
    fn drop(&mut self) {
        self.cut();
    }
}

impl<I: Ingress> Offer<I> {
    /// Keeps one connection.
    async fn keep(self: Arc<Self>) {
        let mut pause = self.config.backoff_min;
        let mut jitter = Jitter::new();
        let mut reason = String::new();
        while !self.stop.is_cancelled() {
            let greeted = Arc::new(AtomicBool::new(false));
            let since = Instant::now();
            let ended = self.once(&greeted).await;
            if greeted.load(Ordering::Relaxed) && since.elapsed() >= STEADY {
                pause = self.config.backoff_min;
                reason.clear();
                match ended {
                    Ok(()) => debug!("the host closed a connection for ingress"),
                    Err(error) => info!(%error, "a connection for ingress was lost"),
                }
            } else if let Err(error) = ended {
                let error = error.to_string();
                if error != reason {
                    warn!(endpoint = %self.endpoint, error, "no connection for ingress");
                    reason = error;
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = sleep(jitter.spread(pause)) => {}
            }
            pause = (pause * 2).min(self.config.backoff_max);
        }
    }

    /// Dials and serves one connection to its end. `greeted` tells whether the host spoke.
    async fn once(self: &Arc<Self>, greeted: &Arc<AtomicBool>) -> Result<(), LinkError> {
        let mut transport = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            dialled = dial(&self.endpoint, &self.tuning, self.config.dial_timeout) => dialled?,
        };
        say_reversed(&mut transport, self.tuning.handshake_timeout).await?;
        session::drive(
            transport,
            &self.tuning,
            NO_LIMIT,
            &self.stop.clone().into(),
            |request, respond| {
                greeted.store(true, Ordering::Relaxed);
                Arc::clone(self).answer(request, respond)
            },
        )
        .await
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Chunk>,
    ) {
        match (request.method(), request.uri().path()) {
            (&Method::CONNECT, _) => match incoming(&request) {
                Ok(incoming) => {
                    let client = Pending {
                        respond,
                        body: request.into_body(),
                        tuning: Arc::clone(&self.tuning),
                    };
                    self.handler.serve(incoming, client).await;
                }
                Err(refusal) => refuse(&mut respond, refusal),
            },
            (&Method::GET, ingress::PATH) => match self.say_hello() {
                Ok(response) => {
                    let _ = respond.send_response(response, true);
                }
                Err(error) => {
                    debug!(%error, "the hello is not a response");
                    refuse(&mut respond, Refusal::Internal);
                }
            },
            _ => refuse(&mut respond, Refusal::BadRequest),
        }
    }

    fn say_hello(&self) -> Result<Response<()>, http::Error> {
        let Hello { identity, ports } = &self.hello;
        Response::builder()
            .header(identity::GUEST, identity.name.as_str())
            .header(identity::RUN, identity.run.to_string())
            .header(ingress::PORTS, ingress::write_ports(ports))
            .body(())
    }
}

/// A connection that ended sooner than this was no success: a host that takes connections and
/// drops them is dialled as seldom as one that is away.
const STEADY: Duration = Duration::from_secs(1);

/// The drain has its limit from whoever waits for it.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

fn incoming(request: &Request<RecvStream>) -> Result<Incoming, Refusal> {
    // Extended CONNECT is for other things.
    if request.extensions().get::<h2::ext::Protocol>().is_some() {
        return Err(Refusal::BadRequest);
    }
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let authority = request.uri().authority().ok_or(Refusal::BadRequest)?;
    ingress::parse_incoming(
        authority.as_str(),
        header(ingress::CLIENT),
        header(ingress::LOCAL),
    )
    .map_err(|_| Refusal::BadRequest)
}
