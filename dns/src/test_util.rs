//! Fakes for tests and fuzz targets: a policy made of lists and an upstream made of records.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use odyn_proto::{DnsName, synthetic};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::name_policy::{
    AnsweredQuery, BlockKind, DeniedQuery, MatchedRule, NamePolicy, NameVerdict, QueryDenial,
    QueryTransport,
};
use crate::resolver::Resolver;
use crate::upstream::{Upstream, UpstreamError};

/// What the policy recorded about one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The name.
    pub name: String,
    /// The type.
    pub qtype: RecordType,
    /// The reason, or `None` if it was answered.
    pub reason: Option<&'static str>,
    /// The line of the rule that allowed or denied the name.
    pub line: Option<u32>,
    /// Whether a denial was enforced.
    pub enforced: bool,
    /// The denied alias.
    pub target: Option<String>,
    /// The denied address.
    pub address: Option<IpAddr>,
    /// The transport of the query.
    pub transport: QueryTransport,
}

/// A policy of plain lists.
///
/// A name matches an entry that it equals, or an entry with a dot in front that it ends with.
#[derive(Debug, Clone, Default)]
pub struct FakePolicy {
    inner: Arc<FakePolicyState>,
}

#[derive(Debug, Default)]
struct FakePolicyState {
    lists: Mutex<PolicyLists>,
    records: Mutex<Vec<Recorded>>,
}

#[derive(Debug, Default)]
struct PolicyLists {
    allow: HashSet<String>,
    deny: HashSet<String>,
    addresses: HashSet<IpAddr>,
    report: bool,
}

impl FakePolicy {
    /// A policy that allows these names.
    #[must_use]
    pub fn allowing(names: &[&str]) -> Self {
        let policy = Self::default();
        policy
            .inner
            .lists
            .lock()
            .allow
            .extend(names.iter().map(ToString::to_string));
        policy
    }

    /// Denies a name by a rule on line 7.
    pub fn deny(&self, name: &str) {
        self.inner.lists.lock().deny.insert(name.to_owned());
    }

    /// Denies an address for every name.
    pub fn deny_address(&self, address: &str) {
        let address = address.parse().expect("a test's address");
        self.inner.lists.lock().addresses.insert(address);
    }

    /// Turns every denial into a report.
    pub fn report_only(&self) {
        self.inner.lists.lock().report = true;
    }

    /// Takes what was recorded so far.
    #[must_use]
    pub fn take_records(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.inner.records.lock())
    }

    fn verdict<T>(&self, denial: Option<QueryDenial>, allowed: T) -> NameVerdict<T> {
        match denial {
            None => NameVerdict::Allow(allowed),
            Some(denial) if self.inner.lists.lock().report => NameVerdict::Report(denial),
            Some(denial) => NameVerdict::Deny(denial),
        }
    }

    fn denied_by_rule(&self, name: &DnsName) -> Option<QueryDenial> {
        let lists = self.inner.lists.lock();
        matches(&lists.deny, name).then(|| QueryDenial {
            rule: Some(MatchedRule {
                text: name.as_str().into(),
                line: 7,
            }),
            block: BlockKind::Filtered,
            ..QueryDenial::new("deny-rule")
        })
    }
}

fn matches(list: &HashSet<String>, name: &DnsName) -> bool {
    let name = name.as_str();
    list.iter()
        .any(|entry| entry == name || (entry.starts_with('.') && name.ends_with(entry.as_str())))
}

impl NamePolicy for FakePolicy {
    fn name(&self, name: &DnsName) -> NameVerdict<Option<MatchedRule>> {
        let denial = self.denied_by_rule(name).or_else(|| {
            let allowed = matches(&self.inner.lists.lock().allow, name);
            (!allowed).then(|| QueryDenial::new("no-rule"))
        });
        let rule = MatchedRule {
            text: name.as_str().into(),
            line: 3,
        };
        self.verdict(denial, Some(rule))
    }

    fn cname_target(&self, target: &DnsName) -> NameVerdict {
        self.verdict(self.denied_by_rule(target), ())
    }

    fn address(&self, _: &DnsName, address: IpAddr) -> NameVerdict {
        let denied = address.is_loopback() || self.inner.lists.lock().addresses.contains(&address);
        self.verdict(denied.then(|| QueryDenial::new("special-address")), ())
    }

    fn denied(&self, record: DeniedQuery<'_>) {
        self.inner.records.lock().push(Recorded {
            name: record.name.to_owned(),
            qtype: record.qtype,
            reason: Some(record.denial.reason),
            line: record.denial.rule.as_ref().map(|rule| rule.line),
            enforced: record.enforced,
            target: record.target.map(ToString::to_string),
            address: record.address,
            transport: record.transport,
        });
    }

    fn answered(&self, record: AnsweredQuery<'_>) {
        self.inner.records.lock().push(Recorded {
            name: record.name.to_owned(),
            qtype: record.qtype,
            reason: None,
            line: record.rule.map(|rule| rule.line),
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
    inner: Arc<FakeUpstreamState>,
}

struct FakeUpstreamState {
    zone: Mutex<HashMap<Name, Vec<Record>>>,
    soa: Mutex<Option<Record>>,
    hook: Mutex<Option<Hook>>,
    asked: Mutex<Vec<(String, RecordType)>>,
    open: Semaphore,
}

impl Default for FakeUpstreamState {
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
            *self.inner.soa.lock() = Some(record);
        } else {
            self.inner.zone.lock().entry(name).or_default().push(record);
        }
    }

    /// Answers by `hook` from now on.
    pub fn hook(
        &self,
        hook: impl Fn(&Message) -> Result<Bytes, UpstreamError> + Send + Sync + 'static,
    ) {
        *self.inner.hook.lock() = Some(Box::new(hook));
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
        std::mem::take(&mut self.inner.asked.lock())
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
        let zone = self.inner.zone.lock();
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
        answer.add_authorities(self.inner.soa.lock().clone());
        answer
    }
}

impl Upstream for FakeUpstream {
    async fn exchange(&self, query: Bytes) -> Result<Bytes, UpstreamError> {
        let query = Message::from_vec(&query).map_err(|_| UpstreamError::Timeout)?;
        if let Some(question) = query.queries.first() {
            let name = question.name().to_ascii();
            self.inner.asked.lock().push((name, question.query_type()));
        }
        match self.inner.open.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(UpstreamError::Unavailable(None)),
        }
        if let Some(hook) = &*self.inner.hook.lock() {
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

/// The address of a client.
#[must_use]
pub fn client() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 40_000))
}

/// One query from a client and one answer from the upstream, both arbitrary bytes: for fuzzing.
///
/// The upstream's bytes get the id of the query they answer, or nearly all would be ignored. An
/// answer must be readable, be a response to the query's id, and fit the transport.
///
/// # Panics
/// If one of these promises is broken.
pub fn fuzz_answer(query: &[u8], upstream: &[u8], transport: QueryTransport) {
    let answers = FakeUpstream::default();
    let upstream = upstream.to_vec();
    answers.hook(move |query| {
        let mut answer = upstream.clone();
        for (to, from) in answer.iter_mut().zip(query.metadata.id.to_be_bytes()) {
            *to = from;
        }
        Ok(answer.into())
    });
    let policy = FakePolicy::allowing(&[".example"]);
    policy.deny("denied.example");
    let resolver = Resolver::new(Config::default(), policy.clone(), answers.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let answer = runtime.block_on(resolver.answer(query, client(), transport));
    let asked = answers.take_asked();
    assert!(asked.iter().all(|(name, _)| name.ends_with(".example.")));
    let records = policy.take_records();
    assert!(records.len() <= 1, "one record per query: {records:?}");
    let Some(answer) = answer else {
        return;
    };
    let message = Message::from_vec(&answer).expect("a readable answer");
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert_eq!(answer.get(..2), query.get(..2), "the query's id");
    assert!(transport == QueryTransport::Tcp || answer.len() <= 1232);
    for record in &message.answers {
        if let Some(address) = record.data.ip_addr() {
            assert!(synthetic::contains(address) || address.is_loopback());
        }
    }
}
