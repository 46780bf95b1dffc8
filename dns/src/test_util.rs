//! Fakes for tests and fuzz targets: a gate made of lists and an upstream made of records.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::gate::{AnsweredQuery, Block, Denial, DeniedQuery, Gate, Transport, Verdict};
use crate::pool;
use crate::resolver::Resolver;
use crate::upstream::{Upstream, UpstreamError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the gate was told about one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The name.
    pub name: String,
    /// The type.
    pub qtype: RecordType,
    /// The reason, or `None` if it was answered.
    pub reason: Option<&'static str>,
    /// Whether a denial was enforced.
    pub enforced: bool,
    /// The denied alias.
    pub target: Option<String>,
    /// The denied address.
    pub address: Option<IpAddr>,
    /// How it came.
    pub transport: Transport,
}

/// A policy of plain lists. A name matches an entry that it equals, or that starts with a dot and
/// that it ends with.
#[derive(Debug, Clone, Default)]
pub struct FakeGate {
    inner: Arc<GateLists>,
}

#[derive(Debug, Default)]
struct GateLists {
    lists: Mutex<Lists>,
    records: Mutex<Vec<Recorded>>,
}

#[derive(Debug, Default)]
struct Lists {
    allow: HashSet<String>,
    deny: HashSet<String>,
    addresses: HashSet<IpAddr>,
    report: bool,
}

impl FakeGate {
    /// A gate that allows these names.
    #[must_use]
    pub fn allowing(names: &[&str]) -> Self {
        let gate = Self::default();
        lock(&gate.inner.lists)
            .allow
            .extend(names.iter().map(ToString::to_string));
        gate
    }

    /// Denies a name by a rule on line 7.
    pub fn deny(&self, name: &str) {
        lock(&self.inner.lists).deny.insert(name.to_owned());
    }

    /// Denies an address for every name.
    pub fn deny_address(&self, address: &str) {
        let address = address.parse().expect("a test's address");
        lock(&self.inner.lists).addresses.insert(address);
    }

    /// Turns every denial into a report.
    pub fn report_only(&self) {
        lock(&self.inner.lists).report = true;
    }

    /// Takes what was recorded so far.
    #[must_use]
    pub fn take_records(&self) -> Vec<Recorded> {
        std::mem::take(&mut lock(&self.inner.records))
    }

    fn verdict(&self, denial: Option<Denial>) -> Verdict {
        match denial {
            None => Verdict::Allow,
            Some(denial) if lock(&self.inner.lists).report => Verdict::Report(denial),
            Some(denial) => Verdict::Deny(denial),
        }
    }

    fn denied_by_rule(&self, name: &str) -> Option<Denial> {
        let lists = lock(&self.inner.lists);
        matches(&lists.deny, name).then(|| Denial {
            rule: Some(name.into()),
            line: Some(7),
            block: Block::Filtered,
            ..Denial::new("deny-rule")
        })
    }
}

fn matches(list: &HashSet<String>, name: &str) -> bool {
    list.iter()
        .any(|entry| entry == name || (entry.starts_with('.') && name.ends_with(entry.as_str())))
}

impl Gate for FakeGate {
    fn name(&self, name: &str) -> Verdict {
        let denial = self.denied_by_rule(name).or_else(|| {
            let allowed = matches(&lock(&self.inner.lists).allow, name);
            (!allowed).then(|| Denial::new("no-rule"))
        });
        self.verdict(denial)
    }

    fn cname_target(&self, target: &str) -> Verdict {
        self.verdict(self.denied_by_rule(target))
    }

    fn address(&self, _: &str, address: IpAddr) -> Verdict {
        let denied = address.is_loopback() || lock(&self.inner.lists).addresses.contains(&address);
        self.verdict(denied.then(|| Denial::new("special-address")))
    }

    fn host_alias(&self, name: &str) -> bool {
        name == "host"
    }

    fn denied(&self, record: DeniedQuery<'_>) {
        lock(&self.inner.records).push(Recorded {
            name: record.name.to_owned(),
            qtype: record.qtype,
            reason: Some(record.denial.reason),
            enforced: record.enforced,
            target: record.target.map(str::to_owned),
            address: record.address,
            transport: record.transport,
        });
    }

    fn answered(&self, record: AnsweredQuery<'_>) {
        lock(&self.inner.records).push(Recorded {
            name: record.name.to_owned(),
            qtype: record.qtype,
            reason: None,
            enforced: false,
            target: None,
            address: None,
            transport: record.transport,
        });
    }
}

type Hook = Box<dyn Fn(&Message) -> Result<Bytes, UpstreamError> + Send + Sync>;

/// An upstream made of records, as an honest resolver would answer from them, or of a function.
#[derive(Clone, Default)]
pub struct FakeUpstream {
    inner: Arc<UpstreamState>,
}

struct UpstreamState {
    zone: Mutex<HashMap<Name, Vec<Record>>>,
    soa: Mutex<Option<Record>>,
    hook: Mutex<Option<Hook>>,
    asked: Mutex<Vec<(String, RecordType)>>,
    open: Semaphore,
}

impl Default for UpstreamState {
    fn default() -> Self {
        Self {
            zone: Mutex::default(),
            soa: Mutex::default(),
            hook: Mutex::default(),
            asked: Mutex::default(),
            open: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }
}

impl std::fmt::Debug for FakeUpstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeUpstream").finish_non_exhaustive()
    }
}

/// A name from text, as tests write it.
#[must_use]
pub fn fqdn(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a test's name");
    name.set_fqdn(true);
    name
}

impl FakeUpstream {
    /// Adds a record in zone file form, such as `www.example 60 CNAME example.`
    pub fn add(&self, line: &str) {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().expect("name, ttl, type, data");
        let (name, ttl) = (fqdn(word()), word().parse().expect("ttl"));
        let qtype = RecordType::from_str(word()).expect("type");
        let data = RData::try_from_str(qtype, word()).expect("data");
        let record = Record::from_rdata(name.clone(), ttl, data);
        if qtype == RecordType::SOA {
            *lock(&self.inner.soa) = Some(record);
        } else {
            lock(&self.inner.zone).entry(name).or_default().push(record);
        }
    }

    /// Answers by `hook` from now on.
    pub fn hook(
        &self,
        hook: impl Fn(&Message) -> Result<Bytes, UpstreamError> + Send + Sync + 'static,
    ) {
        *lock(&self.inner.hook) = Some(Box::new(hook));
    }

    /// Answers nothing until [`FakeUpstream::open`].
    pub fn close(&self) {
        self.inner.open.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets one answer out.
    pub fn open(&self) {
        self.inner.open.add_permits(1);
    }

    /// Takes the list of what was asked so far.
    #[must_use]
    pub fn take_asked(&self) -> Vec<(String, RecordType)> {
        std::mem::take(&mut lock(&self.inner.asked))
    }

    /// What an honest resolver answers.
    #[must_use]
    pub fn honest(&self, query: &Message) -> Message {
        let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        let Some(question) = query.queries.first() else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return answer;
        };
        answer.metadata.recursion_available = true;
        answer.add_query(question.clone());
        answer.set_edns(Edns::new());
        let zone = lock(&self.inner.zone);
        let mut name = question.name().clone();
        for _ in 0..64 {
            let Some(records) = zone.get(&name) else {
                answer.metadata.response_code = ResponseCode::NXDomain;
                break;
            };
            let wanted: Vec<_> = records
                .iter()
                .filter(|record| record.record_type() == question.query_type())
                .cloned()
                .collect();
            if !wanted.is_empty() {
                answer.add_answers(wanted);
                return answer;
            }
            let Some(alias) = records
                .iter()
                .find(|record| record.record_type() == RecordType::CNAME)
            else {
                break;
            };
            answer.add_answer(alias.clone());
            if let RData::CNAME(target) = &alias.data {
                name = target.0.clone();
            }
        }
        answer.add_authorities(lock(&self.inner.soa).clone());
        answer
    }
}

impl Upstream for FakeUpstream {
    async fn exchange(&self, query: Bytes) -> Result<Bytes, UpstreamError> {
        let query = Message::from_vec(&query).map_err(|_| UpstreamError::Timeout)?;
        if let Some(question) = query.queries.first() {
            let name = question.name().to_ascii();
            lock(&self.inner.asked).push((name, question.query_type()));
        }
        match self.inner.open.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(UpstreamError::Unavailable(None)),
        }
        if let Some(hook) = &*lock(&self.inner.hook) {
            return hook(&query);
        }
        let answer = self.honest(&query).to_vec();
        answer
            .map(Bytes::from)
            .map_err(|error| UpstreamError::Unavailable(Some(Box::new(error))))
    }
}

/// A query message, with EDNS.
#[must_use]
pub fn query(name: &str, qtype: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(fqdn(name), qtype));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message
}

/// Some client.
#[must_use]
pub fn client() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 40_000))
}

/// One query from a client and one answer from the upstream, both arbitrary bytes: for fuzzing.
///
/// The upstream's bytes get the id of the query they answer, so that they count for more than a
/// lottery ticket. Whatever is answered must be readable, be a response to the query's id, and fit
/// the transport.
///
/// # Panics
/// If one of these promises is broken.
pub fn fuzz_answer(query: &[u8], upstream: &[u8], transport: Transport) {
    let answers = FakeUpstream::default();
    let upstream = upstream.to_vec();
    answers.hook(move |query| {
        let mut answer = upstream.clone();
        for (to, from) in answer.iter_mut().zip(query.metadata.id.to_be_bytes()) {
            *to = from;
        }
        Ok(answer.into())
    });
    let gate = FakeGate::allowing(&[".example"]);
    gate.deny("denied.example");
    let resolver = Resolver::new(Config::default(), gate.clone(), answers.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let answer = runtime.block_on(resolver.answer(query, client(), transport));
    let asked = answers.take_asked();
    assert!(asked.iter().all(|(name, _)| name.ends_with(".example.")));
    let records = gate.take_records();
    assert!(records.len() <= 1, "one record per query: {records:?}");
    let Some(answer) = answer else {
        return;
    };
    let message = Message::from_vec(&answer).expect("a readable answer");
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert_eq!(answer.get(..2), query.get(..2), "the query's id");
    assert!(transport == Transport::Tcp || answer.len() <= 1232);
    for record in &message.answers {
        if let Some(address) = record.data.ip_addr() {
            assert!(pool::is_synthetic(address) || address.is_loopback());
        }
    }
}
