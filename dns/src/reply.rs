//! Building the answer message.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::Record;

use crate::ede::Ede;
use crate::gate::Transport;
use crate::query::ClientQuery;

/// The least that every client takes (RFC 1035 section 4.2.1).
const MINIMUM: u16 = 512;

/// What to say; the rest of the message follows from the query.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) rcode: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) errors: Vec<Ede>,
}

impl Reply {
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

    /// The message for the client, cut to what it can take: `payload` is our own largest datagram.
    ///
    /// A datagram that would be too long carries no records at all, only TC: part of a record set
    /// is better left out (RFC 2181 section 9), and the client comes back over TCP.
    pub(crate) fn encode(self, query: &ClientQuery, transport: Transport, payload: u16) -> Vec<u8> {
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
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => {
                let client = query.edns.map_or(MINIMUM, |edns| edns.payload);
                usize::from(client.clamp(MINIMUM, payload.max(MINIMUM)))
            }
        };
        match message.to_vec() {
            Ok(bytes) if bytes.len() <= limit => return bytes,
            Ok(_) if transport == Transport::Udp => message.metadata.truncation = true,
            // Records that were read from one message fit into another; this is for the day when
            // that turns out not to be so.
            Ok(_) | Err(_) => message.metadata.response_code = ResponseCode::ServFail,
        }
        message.answers.clear();
        message.authorities.clear();
        message.to_vec().unwrap_or_default()
    }
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

    fn text(bytes: usize) -> Reply {
        let name = Name::from_ascii("example.com.").expect("test name");
        let texts = vec!["x".repeat(249); bytes / 250];
        Reply {
            errors: vec![Ede::new(15, "why")],
            ..Reply::answer(Record::from_rdata(name, 9, RData::TXT(TXT::new(texts))))
        }
    }

    fn encoded(reply: Reply, payload: Option<u16>, transport: Transport) -> (usize, Message) {
        let bytes = reply.encode(&query(payload), transport, 1232);
        let message = Message::from_vec(&bytes).expect("readable");
        (bytes.len(), message)
    }

    #[test]
    fn the_header_follows_the_query() {
        let (_, message) = encoded(text(250), Some(4096), Transport::Udp);
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
        let (_, message) = encoded(text(250), None, Transport::Udp);
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
            let (length, message) = encoded(text(bytes), payload, Transport::Udp);
            assert_eq!(message.metadata.truncation, !fits, "{bytes} {payload:?}");
            assert_eq!(message.answers.len(), usize::from(fits));
            assert_eq!(message.edns.is_some(), payload.is_some());
            assert!(length <= 1232);
        }
        let (length, message) = encoded(text(60_000), None, Transport::Tcp);
        assert!(length > 60_000 && !message.metadata.truncation);
    }

    #[test]
    fn extended_codes_reach_the_client() {
        let (_, message) = encoded(
            Reply::code(ResponseCode::BADVERS),
            Some(512),
            Transport::Udp,
        );
        // The number has two names: BADVERS here, BADSIG in TSIG.
        assert_eq!(u16::from(message.metadata.response_code), 16);
    }
}
