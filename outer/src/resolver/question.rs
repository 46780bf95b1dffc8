//! A guest's question, and the messages that are made from it.

use bytes::Bytes;
use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::name_server::LookupFailure;

/// Longest query that is read, in bytes.
const MAX_QUERY: usize = 4096;
/// Largest datagram that servers may send. Longer answers come over TCP.
const PAYLOAD: u16 = 1232;
/// The option of Extended DNS Errors (RFC 8914).
const EDE: u16 = 15;

/// One question of class IN.
#[derive(Debug)]
pub(super) struct DnsQuestion {
    pub(super) id: u16,
    pub(super) name: Name,
    pub(super) qtype: RecordType,
}

impl DnsQuestion {
    /// Reads a guest's message. Only the question is used: no other byte of it is ever sent on.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_QUERY {
            return None;
        }
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).ok()?;
        let counts = header.counts;
        let proper = header.message_type == MessageType::Query
            && header.op_code == OpCode::Query
            && (counts.queries, counts.answers, counts.authorities) == (1, 0, 0);
        if !proper {
            return None;
        }
        let query = Query::read(&mut decoder).ok()?;
        let qtype = query.query_type();
        // Data types only. Zone transfers and other meta types (RFC 6895 section 3.1) are no
        // questions for a resolver, and answers to ANY are useless.
        let data = !matches!(u16::from(qtype), 0 | 41 | 128..=255);
        (query.query_class() == DNSClass::IN && data).then(|| Self {
            id: header.id,
            name: query.name().clone(),
            qtype,
        })
    }

    /// A new query for the same question, with a random id.
    pub(super) fn query(&self, edns: bool) -> Option<(u16, Vec<u8>)> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.qtype));
        if edns {
            message.set_edns(self.edns());
        }
        Some((message.metadata.id, message.to_vec().ok()?))
    }

    /// Whether `message` is an answer to this question.
    pub(super) fn is_answered_by(&self, message: &[u8], id: u16) -> bool {
        let mut decoder = BinDecoder::new(message);
        let Ok(header) = Header::read(&mut decoder) else {
            return false;
        };
        if header.id != id
            || header.message_type != MessageType::Response
            || header.op_code != OpCode::Query
        {
            return false;
        }
        // Some servers leave the question out of an error.
        if header.counts.queries == 0 {
            return !super::is_good(header.response_code);
        }
        header.counts.queries == 1
            && Query::read(&mut decoder).is_ok_and(|query| {
                query.name() == &self.name
                    && query.query_type() == self.qtype
                    && query.query_class() == DNSClass::IN
            })
    }

    /// The answer with these records.
    pub(super) fn answer(&self, records: Vec<Record>) -> Option<Bytes> {
        let mut message = self.response(ResponseCode::NoError);
        message.answers = records;
        message.to_vec().ok().map(Bytes::from)
    }

    /// SERVFAIL with an Extended DNS Error that says why.
    pub(super) fn failure(&self, failure: LookupFailure) -> Bytes {
        let mut message = self.response(ResponseCode::ServFail);
        let mut edns = self.edns();
        let mut data = failure.code().to_be_bytes().to_vec();
        data.extend_from_slice(failure.to_string().as_bytes());
        edns.options_mut().insert(EdnsOption::Unknown(EDE, data));
        message.set_edns(edns);
        message.to_vec().unwrap_or_default().into()
    }

    fn response(&self, rcode: ResponseCode) -> Message {
        let mut message = Message::new(self.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.recursion_available = true;
        message.metadata.response_code = rcode;
        message.add_query(Query::query(self.name.clone(), self.qtype));
        message.set_edns(self.edns());
        message
    }

    fn edns(&self) -> Edns {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        edns
    }
}
