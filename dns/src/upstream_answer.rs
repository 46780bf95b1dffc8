//! Upstream answers, checked and reduced to what was asked.
//!
//! The upstream is the untrusted host, so an answer counts only if it is a whole response to
//! exactly the query that was sent. These parts of it are kept:
//! - answer section: the CNAME chain that starts at the name asked for, and the records of the
//!   asked type at its end;
//! - authority section: the SOA of a negative answer (RFC 2308);
//! - additional section: the Extended DNS Errors, and no glue.

use std::net::IpAddr;

use bytes::Bytes;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use odyn_proto::{DnsName, DnsNameError};

use crate::ede::Ede;
use crate::name::canonical;

/// Longest CNAME chain that is followed; BIND and Unbound have about the same limit.
const MAX_CHAIN: usize = 16;
/// Most addresses of one family that are kept for one name.
const MAX_ADDRESSES: usize = 64;
/// Longest time to live of a positive answer, in seconds.
const POSITIVE_TTL: u32 = 24 * 3600;
/// Longest time to live of a negative answer, in seconds.
const NEGATIVE_TTL: u32 = 15 * 60;
/// How long a failure is remembered, in seconds.
///
/// It is the minimum of RFC 9520 section 3.2, so that queries succeed again soon after the link is
/// back.
const FAILURE_TTL: u32 = 1;

/// Why an upstream answer does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAnswer {
    #[error("unreadable upstream answer")]
    Unreadable,
    #[error("upstream answered with something other than a response")]
    NotAResponse,
    #[error("upstream answered another query")]
    OtherQuery,
    #[error("upstream answer is truncated")]
    Truncated,
    #[error("CNAME chain is endless or too long")]
    Chain,
}

/// One step of a CNAME chain.
#[derive(Debug)]
pub(crate) struct Alias {
    /// The CNAME record.
    pub(crate) record: Record,
    /// The record's target.
    pub(crate) target: AliasTarget,
}

/// The target of a CNAME record, as far as the policy can judge it.
#[derive(Debug)]
pub(crate) enum AliasTarget {
    /// A name.
    Name(DnsName),
    /// Letters, digits, hyphens and underscores that IDNA does not allow: no rule matches them.
    Unmatched,
    /// Other bytes, which may read like another name.
    Bad,
}

impl AliasTarget {
    fn read(target: &Name) -> Self {
        match canonical(target) {
            Ok(name) => Self::Name(name),
            Err(DnsNameError::Idna) => Self::Unmatched,
            Err(_) => Self::Bad,
        }
    }

    /// The name, if it is one.
    pub(crate) fn known(&self) -> Option<&DnsName> {
        match self {
            Self::Name(name) => Some(name),
            Self::Unmatched | Self::Bad => None,
        }
    }
}

/// A checked upstream answer.
#[derive(Debug)]
pub(crate) struct UpstreamAnswer {
    /// NOERROR, NXDOMAIN, or SERVFAIL for everything else.
    pub(crate) rcode: ResponseCode,
    /// The aliases on the way, in order.
    pub(crate) chain: Vec<Alias>,
    /// For A and AAAA: the addresses, IPv4-mapped ones as the IPv4 addresses they are.
    pub(crate) addresses: Vec<IpAddr>,
    /// For other types: the records.
    pub(crate) records: Vec<Record>,
    /// The zone's SOA, if the answer is negative.
    pub(crate) soa: Option<Record>,
    /// The upstream's errors, or our own about the upstream.
    pub(crate) errors: Vec<Ede>,
    /// Time to live in seconds: the smallest of all parts.
    pub(crate) ttl: u32,
    /// Approximate memory use in bytes.
    pub(crate) weight: usize,
}

/// A fresh query for the upstream: recursive, EDNS without DO, nothing of the client's but the
/// canonical name and the type.
pub(crate) fn question(name: Name, qtype: RecordType, payload: u16) -> Option<(u16, Bytes)> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, qtype));
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    let bytes = message.to_vec().ok()?;
    Some((message.metadata.id, bytes.into()))
}

impl UpstreamAnswer {
    /// Reads the upstream's answer to the query `id` for `name` and `qtype`.
    pub(crate) fn read(
        bytes: &[u8],
        id: u16,
        name: &Name,
        qtype: RecordType,
    ) -> Result<Self, BadAnswer> {
        let message = checked(bytes, id, name, qtype)?;
        let errors = message.edns.as_ref().map(Ede::read).unwrap_or_default();
        let rcode = message.metadata.response_code;
        if !matches!(rcode, ResponseCode::NoError | ResponseCode::NXDomain) {
            return Ok(Self::refusal(rcode, errors));
        }
        let (chain, last) = chain(&message.answers, name, qtype)?;
        let mut answer = Self {
            rcode,
            chain,
            addresses: Vec::new(),
            records: Vec::new(),
            soa: None,
            errors,
            ttl: POSITIVE_TTL,
            weight: bytes.len() * 4 + size_of::<Self>(),
        };
        if rcode == ResponseCode::NoError {
            for record in message.answers {
                if belongs(&record, &last) && record.record_type() == qtype {
                    answer.add(record);
                }
            }
        }
        if answer.addresses.is_empty() && answer.records.is_empty() {
            answer.soa = message.authorities.into_iter().find(|record| {
                record.record_type() == RecordType::SOA
                    && record.dns_class == DNSClass::IN
                    && record.name.zone_of(&last)
            });
            answer.ttl = negative_ttl(answer.soa.as_ref());
        }
        let chained = answer.chain.iter().map(|link| ttl_of(&link.record)).min();
        answer.ttl = answer.ttl.min(chained.unwrap_or(POSITIVE_TTL));
        Ok(answer)
    }

    /// A failure that this resolver found.
    pub(crate) fn failure(error: Ede) -> Self {
        Self::failed(vec![error])
    }

    /// The upstream answered with an error code.
    ///
    /// The client gets SERVFAIL whatever the code was, as from recursive resolvers: the code was
    /// about our query to the upstream, and musl treats most others as no answer at all.
    fn refusal(rcode: ResponseCode, mut errors: Vec<Ede>) -> Self {
        if rcode != ResponseCode::ServFail {
            let text = format!("upstream answered: {rcode}");
            errors.push(Ede::new(Ede::OTHER, text));
        }
        Self::failed(errors)
    }

    fn failed(errors: Vec<Ede>) -> Self {
        Self {
            rcode: ResponseCode::ServFail,
            chain: Vec::new(),
            addresses: Vec::new(),
            records: Vec::new(),
            soa: None,
            weight: size_of::<Self>() + errors.iter().map(|ede| 32 + ede.text.len()).sum::<usize>(),
            errors,
            ttl: FAILURE_TTL,
        }
    }

    fn add(&mut self, record: Record) {
        self.ttl = self.ttl.min(ttl_of(&record));
        match record.data.ip_addr() {
            Some(address) => {
                let address = address.to_canonical();
                if self.addresses.len() < MAX_ADDRESSES && !self.addresses.contains(&address) {
                    self.addresses.push(address);
                }
            }
            None => self.records.push(record),
        }
    }
}

fn checked(bytes: &[u8], id: u16, name: &Name, qtype: RecordType) -> Result<Message, BadAnswer> {
    // The question count is looked at first: the decoder reserves memory by it.
    let header = bytes.first_chunk::<12>().ok_or(BadAnswer::Unreadable)?;
    if header[4..6] != [0, 1] || bytes.len() > usize::from(u16::MAX) {
        return Err(BadAnswer::OtherQuery);
    }
    let message = Message::from_vec(bytes).map_err(|_| BadAnswer::Unreadable)?;
    let metadata = &message.metadata;
    if metadata.message_type != MessageType::Response || metadata.op_code != OpCode::Query {
        return Err(BadAnswer::NotAResponse);
    }
    let same = message.queries.first().is_some_and(|query| {
        query.name() == name && query.query_type() == qtype && query.query_class() == DNSClass::IN
    });
    if metadata.id != id || !same {
        return Err(BadAnswer::OtherQuery);
    }
    if metadata.truncation {
        return Err(BadAnswer::Truncated);
    }
    Ok(message)
}

/// The CNAME records from `name` on, and the name where they end.
fn chain(
    answers: &[Record],
    name: &Name,
    qtype: RecordType,
) -> Result<(Vec<Alias>, Name), BadAnswer> {
    let mut links = Vec::new();
    let mut last = name.clone();
    if qtype == RecordType::CNAME {
        return Ok((links, last));
    }
    while let Some((record, target)) = answers.iter().find_map(|record| alias(record, &last)) {
        if links.len() == MAX_CHAIN {
            return Err(BadAnswer::Chain);
        }
        last = target.clone();
        links.push(Alias {
            record: record.clone(),
            target: AliasTarget::read(target),
        });
    }
    Ok((links, last))
}

fn alias<'a>(record: &'a Record, owner: &Name) -> Option<(&'a Record, &'a Name)> {
    match &record.data {
        RData::CNAME(target) if belongs(record, owner) => Some((record, &target.0)),
        _ => None,
    }
}

fn belongs(record: &Record, owner: &Name) -> bool {
    record.dns_class == DNSClass::IN && record.name == *owner
}

/// Seconds; a value with the top bit set counts as zero (RFC 2181 section 8).
fn ttl_of(record: &Record) -> u32 {
    match i32::try_from(record.ttl) {
        Ok(_) => record.ttl.min(POSITIVE_TTL),
        Err(_) => 0,
    }
}

/// RFC 2308 section 5: the lesser of the SOA's own time to live and its minimum field; without an
/// SOA the answer is for this once only.
fn negative_ttl(soa: Option<&Record>) -> u32 {
    match soa.map(|record| (ttl_of(record), &record.data)) {
        Some((ttl, RData::SOA(soa))) => ttl.min(soa.minimum).min(NEGATIVE_TTL),
        _ => 0,
    }
}
