//! The audit record: one JSON line per flow, written when the flow ends.

mod writer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use odyn_link::Counters;
use odyn_proto::{ClientAddr, Dialled};
use serde::Serialize;

pub use writer::{Sink, Writer};

/// Opens records. Clones share one writer.
#[derive(Clone)]
pub struct Audit {
    shared: Arc<Shared>,
}

struct Shared {
    writer: Writer,
    next: AtomicU64,
}

/// The verdict on a flow, by the policy or by a check before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A rule allowed it.
    Allow,
    /// A rule or a check denied it.
    Deny,
    /// `mode: report` allowed it; otherwise it would have been denied.
    Report,
}

/// The side that began a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The app.
    Egress,
    /// A client of the app.
    Ingress,
}

/// The way in which a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Both sides finished.
    Closed,
    /// The app reset it.
    ResetByApp,
    /// The peer reset it.
    ResetByPeer,
    /// The peer refused the connection.
    Refused,
    /// The peer did not answer in time.
    Timeout,
    /// No route to the peer.
    Unreachable,
    /// The host does not allow it, or has reached its limits.
    HostRefused,
    /// The name could not be resolved when the flow began.
    Unresolved,
    /// A UDP flow without datagrams for its idle time.
    Idle,
    /// The policy denied it.
    Denied,
    /// A DNS query that got its answer.
    Answered,
    /// The link to the host broke.
    LinkLost,
    /// The link received what its protocol does not allow.
    LinkFault,
    /// The guest had no descriptors or memory left for it.
    Exhausted,
    /// A client did not finish its TLS handshake.
    TlsFailed,
    /// A client's TLS ended without close_notify.
    Truncated,
    /// Still open when odyn-net had to stop.
    Cut,
}

/// The reason why a flow was denied.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The reason, in kebab case.
    pub reason: &'static str,
    /// The text of the rule that denied it.
    pub rule: Option<Arc<str>>,
    /// The rule's line in the policy.
    pub line: Option<u32>,
}

impl Refusal {
    /// A refusal that comes from no rule of the policy.
    pub const fn of(reason: &'static str) -> Self {
        Self {
            reason,
            rule: None,
            line: None,
        }
    }
}

/// The record of an open flow. Dropping it writes the line.
pub struct Record {
    audit: Audit,
    started: Instant,
    line: Line,
    counters: Arc<Counters>,
}

#[derive(Serialize)]
struct Line {
    #[serde(serialize_with = "rfc3339")]
    time: SystemTime,
    flow: u64,
    verdict: Verdict,
    rule: Option<Arc<str>>,
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    protocol: String,
    direction: Direction,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<SocketAddr>,
    name: Option<Arc<str>>,
    destination: String,
    dialled: Option<SocketAddr>,
    bytes_sent: u64,
    bytes_received: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_undelivered: Option<u64>,
    duration_ms: f64,
    end: End,
}

impl Audit {
    /// Starts an audit that writes to `sink`.
    ///
    /// # Errors
    /// The writer's thread could not be started.
    pub fn new(sink: Sink) -> std::io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                writer: Writer::start(sink)?,
                next: AtomicU64::new(1),
            }),
        })
    }

    /// Opens the record of a flow, with the verdict "deny" until [`Record::allowed`] is called.
    pub fn flow(&self, protocol: impl Into<String>, destination: impl ToString) -> Record {
        Record {
            audit: self.clone(),
            started: Instant::now(),
            line: Line {
                time: SystemTime::now(),
                flow: self.shared.next.fetch_add(1, Ordering::Relaxed),
                verdict: Verdict::Deny,
                rule: None,
                line: None,
                reason: None,
                protocol: protocol.into(),
                direction: Direction::Egress,
                client: None,
                name: None,
                destination: destination.to_string(),
                dialled: None,
                bytes_sent: 0,
                bytes_received: 0,
                bytes_undelivered: None,
                duration_ms: 0.0,
                end: End::Cut,
            },
            counters: Arc::new(Counters::default()),
        }
    }

    /// Opens the record of a client's connection to the app. The client's address comes from the
    /// host.
    pub fn incoming(&self, client: ClientAddr, destination: impl ToString) -> Record {
        let mut record = self.flow("tcp", destination);
        record.line.direction = Direction::Ingress;
        record.line.client = Some(client.0);
        record
    }

    /// Whether records go anywhere. If not, callers need not make them.
    pub fn is_kept(&self) -> bool {
        self.shared.writer.is_kept()
    }

    /// Waits until every record that was closed before this call is written.
    pub fn flush(&self) {
        self.shared.writer.flush();
    }
}

impl Record {
    /// Notes the name that the destination stands for.
    pub fn name(&mut self, name: Arc<str>) {
        self.line.name = Some(name);
    }

    /// Notes that the flow began this long before its record was opened.
    pub fn began(&mut self, ago: Duration) {
        self.started = self.started.checked_sub(ago).unwrap_or(self.started);
        self.line.time = self.line.time.checked_sub(ago).unwrap_or(self.line.time);
    }

    /// Notes that the policy allows the flow. `report` is the refusal that `mode: report` did not
    /// enforce.
    pub fn allowed(&mut self, rule: Option<(Arc<str>, u32)>, report: Option<Refusal>) {
        self.line.verdict = if report.is_some() {
            Verdict::Report
        } else {
            Verdict::Allow
        };
        self.line.reason = report.as_ref().map(|refusal| refusal.reason);
        match (rule, report) {
            (Some((text, line)), _) => {
                self.line.rule = Some(text);
                self.line.line = Some(line);
            }
            (None, Some(refusal)) => {
                self.line.rule = refusal.rule;
                self.line.line = refusal.line;
            }
            (None, None) => {}
        }
    }

    /// Denies the flow and writes the record.
    pub fn denied(mut self, refusal: Refusal) {
        self.line.verdict = Verdict::Deny;
        self.line.reason = Some(refusal.reason);
        self.line.rule = refusal.rule;
        self.line.line = refusal.line;
        self.line.end = End::Denied;
    }

    /// Notes that `mode: report` let the flow pass, and writes the record.
    pub fn reported(mut self, refusal: Refusal) {
        self.allowed(None, Some(refusal));
        self.line.end = End::Answered;
    }

    /// Notes the address that the host connected to.
    pub fn dialled(&mut self, address: Option<Dialled>) {
        self.line.dialled = address.map(|address| address.0);
    }

    /// The byte counters, which the relay shares.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Notes how many bytes of the app are not known to have arrived.
    pub fn undelivered(&mut self, bytes: u64) {
        self.line.bytes_undelivered = Some(bytes);
    }

    /// Ends the flow this way and writes the record.
    pub fn ended(mut self, end: End) {
        self.line.end = end;
    }

    /// The flow's number.
    pub fn id(&self) -> u64 {
        self.line.flow
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        (self.line.bytes_sent, self.line.bytes_received) = self.counters.get();
        if self.line.end == End::Cut {
            self.line.report_cut();
        }
        if !self.audit.is_kept() {
            return;
        }
        let micros = self.started.elapsed().as_micros();
        self.line.duration_ms = micros as f64 / 1000.0;
        match serde_json::to_vec(&self.line) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                self.audit.shared.writer.write(bytes);
            }
            Err(error) => tracing::error!(%error, "cannot encode an audit record"),
        }
    }
}

impl Line {
    /// Logs a flow that was cut, for readers of the log without audit records.
    fn report_cut(&self) {
        tracing::warn!(
            flow = self.flow,
            protocol = self.protocol,
            name = self.name.as_deref(),
            destination = self.destination,
            bytes_sent = self.bytes_sent,
            bytes_undelivered = self.bytes_undelivered,
            "flow cut"
        );
    }
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&humantime::format_rfc3339_micros(*time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(run: impl FnOnce(&Audit)) -> Vec<serde_json::Value> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let audit = Audit::new(Sink::file(file.path()).unwrap()).unwrap();
        run(&audit);
        audit.flush();
        std::fs::read_to_string(file.path())
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_dropped_record_is_written_once_as_cut() {
        let lines = lines(|audit| {
            let mut record = audit.flow("tcp", "198.18.1.1:443");
            record.allowed(Some(("a.example".into(), 3)), None);
            record.counters().up.fetch_add(5, Ordering::Relaxed);
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["end"], "cut");
        assert_eq!(lines[0]["verdict"], "allow");
        assert_eq!(lines[0]["bytes_sent"], 5);
        assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_denial_names_its_reason_and_rule() {
        let lines = lines(|audit| {
            audit.flow("udp", "8.8.8.8:443").denied(Refusal {
                reason: "deny-rule",
                rule: Some("8.8.8.0/24".into()),
                line: Some(9),
            });
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["verdict"], "deny");
        assert_eq!(lines[0]["end"], "denied");
        assert_eq!(lines[0]["line"], 9);
    }

    #[test]
    fn a_record_that_nobody_judged_is_not_called_allowed() {
        let lines = lines(|audit| drop(audit.flow("tcp", "x")));
        assert_eq!(lines[0]["verdict"], "deny");
    }

    #[test]
    fn a_panicking_flow_leaves_its_record() {
        let lines = lines(|audit| {
            let audit = audit.clone();
            let _ = std::thread::spawn(move || {
                let _record = audit.flow("tcp", "x");
                panic!("on purpose");
            })
            .join();
        });
        assert_eq!(lines.len(), 1);
    }
}
