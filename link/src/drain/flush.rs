//! `POST /flush`, from both sides: see [`odyn_proto::wire::flush`].

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, Method, Response, StatusCode, header};
use odyn_proto::wire::flush;
use odyn_proto::wire::flush::Undelivered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{debug, warn};

use crate::drain::delivery::DeliveryTable;
use crate::drain::{Phase, PhaseStep};
use crate::error::LinkError;
use crate::http2::chunk::{Chunk, InFlight};
use crate::http2::message::{GUEST, HOST, path_uri, plain_request, read_body};

/// Between two looks at what is not delivered: the first pause, and the longest.
const POLL_INTERVALS: (Duration, Duration) =
    (Duration::from_micros(500), Duration::from_millis(20));

/// How much later than its time the host's answer may come.
const ANSWER_GRACE: Duration = Duration::from_millis(500);

/// What is known of the delivery of a connection's flows when all was sent on it.
#[derive(Debug)]
pub(crate) enum FlushReport {
    /// The host answered; what is not in here is delivered.
    Answered(Mutex<HashMap<u32, Undelivered>>),
    /// The host is leaving itself (GOAWAY) and can't be asked any more; it delivers before it
    /// goes, or says what it did not.
    HandedOver,
    /// The host gave no answer that one could use.
    Unconfirmed,
    /// The connection ended before.
    Lost,
}

impl FlushReport {
    pub(crate) fn delivered() -> Self {
        Self::answered(Vec::new())
    }

    fn answered(list: Vec<Undelivered>) -> Self {
        let flows = list.into_iter().map(|flow| (flow.stream, flow));
        Self::Answered(Mutex::new(flows.collect()))
    }

    /// What is not delivered of a stream, asked for once.
    pub(crate) fn take(&self, stream: u32) -> Option<Undelivered> {
        match self {
            Self::Answered(flows) => lock(flows).remove(&stream),
            Self::HandedOver | Self::Unconfirmed | Self::Lost => None,
        }
    }

    /// Those that no flow has asked for: flows that had ended before.
    pub(crate) fn rest(&self) -> Vec<Undelivered> {
        match self {
            Self::Answered(flows) => lock(flows).drain().map(|(_, flow)| flow).collect(),
            Self::HandedOver | Self::Unconfirmed | Self::Lost => Vec::new(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A report that is to come. Clones wait for the same.
#[derive(Debug, Clone)]
pub(crate) struct FlushResult(Arc<watch::Sender<Option<Arc<FlushReport>>>>);

impl Default for FlushResult {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl FlushResult {
    /// The first one counts.
    pub(crate) fn set(&self, report: FlushReport) {
        self.0.send_if_modified(|known| {
            let is_first = known.is_none();
            if is_first {
                *known = Some(Arc::new(report));
            }
            is_first
        });
    }

    pub(crate) async fn wait(&self) -> Arc<FlushReport> {
        let mut verdicts = self.0.subscribe();
        loop {
            if let Some(report) = verdicts.borrow_and_update().as_ref() {
                return Arc::clone(report);
            }
            if verdicts.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Asks the host whether all that came on a connection is delivered, and gives it until the
/// end of a phase to make it so; in [`Phase::Forced`], no time.
pub(crate) async fn ask(requests: SendRequest<Chunk>, step: PhaseStep) -> FlushReport {
    let (wait, limit) = answer_limit(step);
    let answer = async { request(requests, wait).await.map(FlushReport::answered) };
    report(limit, answer, "what it has delivered").await
}

/// What the host answers until `limit`; `what` it was asked stands in the log when it does not.
async fn report(
    limit: Instant,
    answer: impl Future<Output = Result<FlushReport, &'static str>>,
    what: &str,
) -> FlushReport {
    match timeout_at(limit, answer).await {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => {
            warn!(error, "the host does not say {what}");
            FlushReport::Unconfirmed
        }
        Err(_) => {
            warn!("the host did not say in time {what}");
            FlushReport::Unconfirmed
        }
    }
}

async fn request(
    requests: SendRequest<Chunk>,
    wait: Duration,
) -> Result<Vec<Undelivered>, &'static str> {
    let failed = |error: h2::Error| {
        debug!(%error, "flush");
        "the request failed"
    };
    let uri = path_uri(HOST, flush::PATH).map_err(|_| "the path is not a URI")?;
    let wait = HeaderValue::try_from(flush::write_wait(wait)).map_err(|_| "not a header")?;
    let mut request = plain_request(Method::POST, uri);
    request.headers_mut().insert(flush::WAIT, wait);
    let mut requests = requests.ready().await.map_err(failed)?;
    let (response, _body) = requests.send_request(request, true).map_err(failed)?;
    let response = response.await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err("it refuses to");
    }
    let body = read_body(&mut response.into_body(), flush::MAX_ANSWER)
        .await
        .map_err(|_| "its answer is broken off or too long")?;
    flush::parse_answer(&body).ok_or("its answer is malformed")
}

/// Waits until everything that `deliveries` has now is delivered, or `wait` is over, and says what
/// is not. Ends early when `gone` does.
pub(crate) async fn answer(
    deliveries: &DeliveryTable,
    wait: Duration,
    respond: &mut SendResponse<Chunk>,
    gone: impl Future<Output = ()>,
) {
    let list = tokio::select! {
        biased;
        list = settle(deliveries, wait, gone) => list,
        () = reset(respond) => return,
    };
    let mut response = Response::new(());
    let media_type = HeaderValue::from_static(flush::TYPE);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    let body = Bytes::from(flush::write_answer(&list));
    if let Ok(mut send) = respond.send_response(response, body.is_empty())
        && !body.is_empty()
    {
        let in_flight = Arc::new(InFlight::default());
        if send.send_data(in_flight.chunk(body), true).is_ok() {
            in_flight.empty().await;
        }
    }
}

/// Waits until everything that `deliveries` has now is delivered, `wait` is over, or `gone` is ready.
/// Says what is not delivered.
async fn settle(
    deliveries: &DeliveryTable,
    wait: Duration,
    gone: impl Future<Output = ()>,
) -> Vec<Undelivered> {
    let until = Instant::now() + wait;
    let mut flows = deliveries.flush();
    let settled = async {
        let (mut pause, longest) = POLL_INTERVALS;
        while !flows.look() && Instant::now() < until {
            sleep_until(until.min(Instant::now() + pause)).await;
            pause = (pause * 2).min(longest);
        }
    };
    tokio::select! {
        biased;
        () = settled => {}
        () = gone => {}
    }
    let list = flows.finish();
    debug!(undelivered = list.len(), "flush");
    list
}

async fn reset(respond: &mut SendResponse<Chunk>) {
    let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
    debug!(?reset, "the guest does not wait for its flush any more");
}

/// Requests that the host parks on each reversed connection: one for
/// [`Phase::Flushing`], one for [`Phase::Forced`].
pub(crate) const DEFERRED_FLUSHES: usize = 2;

/// `POST /flush` with the roles reversed: the guest can't ask, so the host does, at once. The
/// guest answers when it wants to know; the answer's headers say how long the host may wait,
/// and what would be its answer is the body of its request.
pub(crate) struct DeferredFlush {
    response: ResponseFuture,
    body: SendStream<Chunk>,
}

impl DeferredFlush {
    /// Sends the request.
    ///
    /// # Errors
    /// The connection takes no more.
    pub(crate) fn send(requests: &mut SendRequest<Chunk>) -> Result<Self, LinkError> {
        let uri = path_uri(GUEST, flush::PATH)?;
        let request = plain_request(Method::POST, uri);
        let (response, body) = requests.send_request(request, false)?;
        Ok(Self { response, body })
    }

    /// Waits until the guest wants to know, and then for the delivery; tells it. When it is `over`
    /// before, and nothing more can change, tells it unasked: a connection that closes without a
    /// word looks like one that was lost. Waits no longer when `force` is ready.
    pub(crate) async fn answer_when_asked(
        self,
        deliveries: &DeliveryTable,
        over: impl Future<Output = ()>,
        force: impl Future<Output = ()>,
    ) {
        let Self { response, mut body } = self;
        let asked = tokio::select! {
            biased;
            response = response => Some(response),
            () = over => None,
        };
        let is_asked = asked.is_some();
        let wait = match asked {
            Some(Ok(response)) => {
                let wait = response.headers().get(flush::WAIT);
                let wait = wait.and_then(|value| flush::parse_wait(value.as_bytes()));
                let (StatusCode::OK, Some(wait)) = (response.status(), wait) else {
                    return;
                };
                wait
            }
            Some(Err(_)) => return,
            None => Duration::ZERO,
        };
        let mut force = pin!(force);
        let list = settle(deliveries, wait, &mut force).await;
        let in_flight = Arc::new(InFlight::default());
        let lines = flush::write_answer(&list) + flush::LAST_LINE;
        let answer = in_flight.chunk(Bytes::from(lines));
        if body.send_data(answer, true).is_ok() {
            tokio::select! {
                () = in_flight.empty() => {}
                () = force, if !is_asked => {}
            }
        }
    }
}

/// Answers a request that the host has parked as soon as there is a `step`, and learns from
/// its body what is delivered. Without a word when the flush_result is known before.
pub(crate) async fn answer_deferred(
    step: impl Future<Output = PhaseStep>,
    respond: SendResponse<Chunk>,
    mut body: RecvStream,
    flush_result: &FlushResult,
) {
    let mut lines = BytesMut::new();
    let step = tokio::select! {
        biased;
        _ = flush_result.wait() => return,
        // It leaves, and says so unasked.
        told = read_lines(&mut body, &mut lines) => {
            return flush_result.set(told.unwrap_or(FlushReport::Lost));
        }
        step = step => step,
    };
    let (wait, limit) = answer_limit(step);
    let answer = exchange_deferred(wait, respond, body, lines);
    flush_result.set(report(limit, answer, "what its clients got").await);
}

async fn exchange_deferred(
    wait: Duration,
    mut respond: SendResponse<Chunk>,
    mut body: RecvStream,
    mut lines: BytesMut,
) -> Result<FlushReport, &'static str> {
    let wait = HeaderValue::try_from(flush::write_wait(wait)).map_err(|_| "not a header")?;
    let mut response = Response::new(());
    response.headers_mut().insert(flush::WAIT, wait);
    // When it has left meanwhile, it has said what is to be said.
    let _ = respond.send_response(response, true);
    read_lines(&mut body, &mut lines).await
}

/// Reads up to the last line. Not to the end of the stream: the host may close the connection
/// right behind it, and h2 forgets an END_STREAM that was not asked for before. May be given up and
/// begun again with the same `lines`.
async fn read_lines(
    body: &mut RecvStream,
    lines: &mut BytesMut,
) -> Result<FlushReport, &'static str> {
    let last = flush::LAST_LINE.as_bytes();
    loop {
        let bytes = match std::future::poll_fn(|cx| body.poll_data(cx)).await {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) if lines.is_empty() && has_left(&error) => {
                return Ok(FlushReport::HandedOver);
            }
            Some(Err(_)) | None => return Err("its answer is broken off"),
        };
        let _ = body.flow_control().release_capacity(bytes.len());
        if lines.len() + bytes.len() > flush::MAX_ANSWER + last.len() {
            return Err("its answer is too long");
        }
        lines.extend_from_slice(&bytes);
        if lines.ends_with(last) {
            lines.truncate(lines.len() - last.len());
            let list = flush::parse_answer(lines).ok_or("its answer is malformed")?;
            return Ok(FlushReport::answered(list));
        }
    }
}

/// Whether the host has dropped a request that it had parked.
fn has_left(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(Reason::CANCEL)
}

/// How long the host may wait, and until when its answer is waited for.
fn answer_limit(step: PhaseStep) -> (Duration, Instant) {
    let until = Instant::from_std(step.until);
    match step.phase {
        Phase::Forced => (Duration::ZERO, until),
        _ => (step.rest(Instant::now().into_std()), until + ANSWER_GRACE),
    }
}

/// Waits for the bytes of a socket to be acknowledged: `look` says how many are not.
pub(crate) async fn acknowledged(mut look: impl FnMut() -> bool) {
    let (mut pause, longest) = POLL_INTERVALS;
    while !look() {
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
