//! The answer message.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::OPT;

use crate::ede::Ede;
use crate::name_policy::QueryTransport;
use crate::query::ClientQuery;

/// Datagram size that every client accepts (RFC 1035 section 4.2.1).
const MIN_PAYLOAD: u16 = 512;

/// The content of an answer; the rest of the message follows from the query.
#[derive(Debug, Default)]
pub(crate) struct DnsReply {
    pub(crate) rcode: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) errors: Vec<Ede>,
    /// The answer of a datagram that is too short for all answers.
    ///
    /// Its TC bit sends clients to TCP; old ones (musl before 1.2.4) use this record.
    pub(crate) short: Option<Record>,
}

impl DnsReply {
    pub(crate) fn code(rcode: ResponseCode) -> Self {
        Self {
            rcode,
            ..Self::default()
        }
    }

    pub(crate) fn failure(error: Ede) -> Self {
        Self {
            rcode: ResponseCode::ServFail,
            errors: vec![error],
            ..Self::default()
        }
    }

    pub(crate) fn answer(record: Record) -> Self {
        Self {
            answers: vec![record],
            ..Self::default()
        }
    }

    /// The message for the client, within the size it accepts and within `payload` for datagrams.
    ///
    /// A datagram that would be too long loses its errors first (RFC 8914 section 3), then all
    /// records, for part of a record set is worse than none (RFC 2181 section 9).
    pub(crate) fn encode(
        self,
        query: &ClientQuery,
        transport: QueryTransport,
        payload: u16,
    ) -> Vec<u8> {
        let mut message = Message::new(query.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = query.recursion_desired;
        message.metadata.checking_disabled = query.checking_disabled;
        message.metadata.recursion_available = true;
        message.metadata.response_code = self.rcode;
        message.queries.push(query.question.clone());
        message.answers = self.answers;
        message.authorities = self.authorities;
        if let Some(client) = query.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload)
                .set_dnssec_ok(client.dnssec_ok);
            for error in &self.errors {
                edns.options_mut().insert(error.option());
            }
            message.set_edns(edns);
        }
        let limit = match transport {
            QueryTransport::Tcp => usize::from(u16::MAX),
            QueryTransport::Udp => {
                let client = query.edns.map_or(MIN_PAYLOAD, |edns| edns.payload);
                usize::from(client.clamp(MIN_PAYLOAD, payload.max(MIN_PAYLOAD)))
            }
        };
        if let Some(bytes) = whole(&message, limit) {
            return bytes;
        }
        if let Some(edns) = &mut message.edns {
            *edns.options_mut() = OPT::default();
        }
        if let Some(bytes) = whole(&message, limit) {
            return bytes;
        }
        message.authorities.clear();
        message.answers.clear();
        match transport {
            QueryTransport::Udp => {
                message.answers.extend(self.short);
                message.metadata.truncation = true;
            }
            // Records that fit into the upstream's message fit here, unless they compress worse.
            QueryTransport::Tcp => message.metadata.response_code = ResponseCode::ServFail,
        }
        message.to_vec().unwrap_or_default()
    }
}

/// The message in bytes, if all of it fits.
fn whole(message: &Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    // The encoder cuts at 64 KiB and then sets TC, the second bit of the third byte.
    let cut = bytes.get(2).is_some_and(|flags| flags & 2 != 0);
    (bytes.len() <= limit && !cut).then_some(bytes)
}

#[cfg(test)]
mod tests {

    use hickory_proto::op::Query;
    use hickory_proto::rr::rdata::TXT;
    use hickory_proto::rr::{Name, RData, RecordType};

    use super::*;
    use crate::query::ClientEdns;

    fn query(payload: Option<u16>) -> ClientQuery {
        let name = Name::from_ascii("ExAmple.com.").expect("test name");
        ClientQuery {
            id: 7,
            recursion_desired: true,
            checking_disabled: true,
            question: Query::query(name, RecordType::TXT),
            edns: payload.map(|payload| ClientEdns {
                payload,
                dnssec_ok: true,
            }),
        }
    }

    fn text(bytes: usize) -> DnsReply {
        let name = Name::from_ascii("example.com.").expect("test name");
        let texts = vec!["x".repeat(249); bytes / 250];
        DnsReply {
            errors: vec![Ede::new(15, "why")],
            ..DnsReply::answer(Record::from_rdata(name, 9, RData::TXT(TXT::new(texts))))
        }
    }

    fn encoded(
        reply: DnsReply,
        payload: Option<u16>,
        transport: QueryTransport,
    ) -> (usize, Message) {
        let bytes = reply.encode(&query(payload), transport, 1232);
        let message = Message::from_vec(&bytes).expect("readable");
        (bytes.len(), message)
    }

    #[test]
    fn the_header_follows_the_query() {
        let (_, message) = encoded(text(250), Some(4096), QueryTransport::Udp);
        let metadata = message.metadata;
        assert_eq!(
            (metadata.id, metadata.message_type),
            (7, MessageType::Response)
        );
        assert!(metadata.recursion_desired && metadata.recursion_available);
        assert!(metadata.checking_disabled && !metadata.authentic_data);
        assert!(!metadata.truncation);
        assert_eq!(message.queries[0].name().to_ascii(), "ExAmple.com.");
        let edns = message.edns.expect("EDNS echoed");
        assert_eq!(Ede::read(&edns), [Ede::new(15, "why")]);
        assert!(edns.flags().dnssec_ok);
        assert_eq!((edns.version(), edns.max_payload()), (0, 1232));
    }

    #[test]
    fn no_opt_record_for_a_client_that_sent_none() {
        let (_, message) = encoded(text(250), None, QueryTransport::Udp);
        assert!(message.edns.is_none());
        assert_eq!(message.answers.len(), 1);
    }

    #[test]
    fn datagrams_fit_and_streams_take_all() {
        for (bytes, payload, fits) in [
            (250, None, true),
            (500, None, false),
            (750, Some(100), false),
            (1000, Some(1232), true),
            (1250, Some(4096), false),
        ] {
            let (length, message) = encoded(text(bytes), payload, QueryTransport::Udp);
            assert_eq!(message.metadata.truncation, !fits, "{bytes} {payload:?}");
            assert_eq!(message.answers.len(), usize::from(fits));
            assert_eq!(message.edns.is_some(), payload.is_some());
            assert!(length <= 1232);
        }
        let (length, message) = encoded(text(60_000), None, QueryTransport::Tcp);
        assert!(length > 60_000 && !message.metadata.truncation);
    }

    #[test]
    fn errors_go_before_records_and_the_short_answer_stays() {
        let mut reply = text(1000);
        reply.errors = vec![Ede::new(0, "x".repeat(500))];
        let (_, message) = encoded(reply, Some(1232), QueryTransport::Udp);
        assert!(!message.metadata.truncation && message.answers.len() == 1);
        assert_eq!(Ede::read(&message.edns.expect("EDNS echoed")), []);
        let mut reply = text(1000);
        reply.short = text(250).answers.pop();
        let (_, message) = encoded(reply, None, QueryTransport::Udp);
        assert!(message.metadata.truncation && message.answers.len() == 1);
    }

    #[test]
    fn what_does_not_fit_a_stream_is_a_failure() {
        let mut reply = text(40_000);
        reply.answers.extend(text(40_000).answers);
        let (_, message) = encoded(reply, None, QueryTransport::Tcp);
        assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
        assert!(message.answers.is_empty() && !message.metadata.truncation);
    }

    #[test]
    fn extended_codes_reach_the_client() {
        let (_, message) = encoded(
            DnsReply::code(ResponseCode::BADVERS),
            Some(512),
            QueryTransport::Udp,
        );
        // The number has two names: BADVERS here, BADSIG in TSIG.
        assert_eq!(u16::from(message.metadata.response_code), 16);
    }
}
