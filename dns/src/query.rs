//! The client's query, or the answer to a malformed one.
//!
//! | message | answer |
//! |---|---|
//! | shorter than a header, or a response (QR=1) | none: dropped |
//! | opcode other than QUERY | NOTIMP |
//! | question count other than one (RFC 9619), records in answer or authority, unreadable question or additional section, two OPT records | FORMERR |
//! | EDNS version other than 0 | BADVERS (RFC 6891 section 6.1.3) |
//! | class other than IN | REFUSED |
//! | OPT or TSIG as question type | FORMERR |
//! | other meta types than ANY: zone transfers, TKEY, MAILA … (128–255, RFC 6895 section 3.1) | NOTIMP |
//!
//! EDNS options are skipped: a cookie needs no answer (RFC 7873 section 5.2.1).

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Most additional records of a query. Queries have OPT, and TSIG or SIG(0).
const MAX_ADDITIONALS: u16 = 8;

/// A parsed message, by what follows from it.
#[derive(Debug)]
pub(crate) enum ParsedQuery {
    /// No answer: the message is not a query.
    Drop,
    /// An answer without a question, which could not be read.
    Bare(Vec<u8>),
    /// An answer with this code.
    Reject(ClientQuery, ResponseCode),
    /// A question to answer.
    Ask(ClientQuery),
}

/// A well-formed question.
#[derive(Debug)]
pub(crate) struct ClientQuery {
    pub(crate) id: u16,
    pub(crate) recursion_desired: bool,
    pub(crate) checking_disabled: bool,
    /// The question in the client's spelling (0x20).
    pub(crate) question: Query,
    pub(crate) edns: Option<ClientEdns>,
}

/// The content of the client's OPT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientEdns {
    pub(crate) payload: u16,
    pub(crate) dnssec_ok: bool,
}

/// Reads one message.
pub(crate) fn parse(bytes: &[u8]) -> ParsedQuery {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(header) = Header::read(&mut decoder) else {
        return ParsedQuery::Drop;
    };
    if header.message_type == MessageType::Response {
        return ParsedQuery::Drop;
    }
    if header.op_code != OpCode::Query {
        return bare(bytes, ResponseCode::NotImp);
    }
    let counts = header.counts;
    if counts.queries != 1
        || counts.answers != 0
        || counts.authorities != 0
        || counts.additionals > MAX_ADDITIONALS
    {
        return bare(bytes, ResponseCode::FormErr);
    }
    let Ok(question) = Query::read(&mut decoder) else {
        return bare(bytes, ResponseCode::FormErr);
    };
    let mut query = ClientQuery {
        id: header.id,
        recursion_desired: header.recursion_desired,
        checking_disabled: header.checking_disabled,
        question,
        edns: None,
    };
    let additionals = usize::from(counts.additionals);
    let Ok((_, edns, _)) = Message::read_records(&mut decoder, additionals, true, OpCode::Query)
    else {
        return ParsedQuery::Reject(query, ResponseCode::FormErr);
    };
    if let Some(edns) = edns {
        query.edns = Some(ClientEdns {
            payload: edns.max_payload(),
            dnssec_ok: edns.flags().dnssec_ok,
        });
        if edns.version() != 0 {
            return ParsedQuery::Reject(query, ResponseCode::BADVERS);
        }
    }
    if query.question.query_class() != DNSClass::IN {
        return ParsedQuery::Reject(query, ResponseCode::Refused);
    }
    match query.question.query_type() {
        RecordType::OPT | RecordType::TSIG => ParsedQuery::Reject(query, ResponseCode::FormErr),
        RecordType::ANY => ParsedQuery::Ask(query),
        other if (128..=255).contains(&u16::from(other)) => {
            ParsedQuery::Reject(query, ResponseCode::NotImp)
        }
        _ => ParsedQuery::Ask(query),
    }
}

/// A header-only answer, made from the header of the query.
fn bare(query: &[u8], rcode: ResponseCode) -> ParsedQuery {
    let Some(&[id_high, id_low, flags, ..]) = query.first_chunk::<12>() else {
        return ParsedQuery::Drop;
    };
    // QR set; opcode and RD kept; RA set.
    let mut reply = vec![0; 12];
    for (to, from) in
        reply
            .iter_mut()
            .zip([id_high, id_low, 0x80 | (flags & 0x79), 0x80 | rcode.low()])
    {
        *to = from;
    }
    ParsedQuery::Bare(reply)
}

#[cfg(test)]
mod tests {

    use hickory_proto::op::Edns;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record};

    use super::*;

    fn message() -> Message {
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        let name = Name::from_ascii("WwW.example.com.").expect("test name");
        message.add_query(Query::query(name, RecordType::A));
        message
    }

    fn parsed(message: &Message) -> ParsedQuery {
        parse(&message.to_vec().expect("test message"))
    }

    #[test]
    fn a_plain_question_is_asked_in_its_own_spelling() {
        let ParsedQuery::Ask(query) = parsed(&message()) else {
            panic!("not asked");
        };
        assert_eq!(query.id, 0x1234);
        assert!(query.recursion_desired && query.edns.is_none());
        assert_eq!(query.question.name().to_ascii(), "WwW.example.com.");
    }

    #[test]
    fn short_messages_and_responses_are_dropped() {
        let bytes = message().to_vec().expect("test message");
        for end in 0..12 {
            assert!(matches!(parse(&bytes[..end]), ParsedQuery::Drop));
        }
        assert!(matches!(
            parsed(&message().into_response()),
            ParsedQuery::Drop
        ));
    }

    #[test]
    fn cut_questions_are_formerr() {
        let bytes = message().to_vec().expect("test message");
        for end in 12..bytes.len() {
            let ParsedQuery::Bare(reply) = parse(&bytes[..end]) else {
                panic!("no bare answer at {end}");
            };
            let reply = Message::from_vec(&reply).expect("readable");
            assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
            assert_eq!((reply.metadata.id, reply.queries.len()), (0x1234, 0));
            assert!(reply.metadata.recursion_desired);
        }
    }

    #[test]
    fn other_opcodes_are_notimp_with_the_opcode_kept() {
        for op_code in [
            OpCode::Status,
            OpCode::Notify,
            OpCode::Update,
            OpCode::Unknown(9),
        ] {
            let mut message = message();
            message.metadata.op_code = op_code;
            let ParsedQuery::Bare(reply) = parsed(&message) else {
                panic!("{op_code} not answered");
            };
            let reply = Message::from_vec(&reply).expect("readable");
            assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
            assert_eq!(reply.metadata.op_code, op_code);
        }
    }

    #[test]
    fn other_counts_than_one_question_are_formerr() {
        let mut none = message();
        none.queries.clear();
        let mut two = message();
        two.add_query(two.queries[0].clone());
        let mut answered = message();
        answered.add_answer(Record::from_rdata(
            Name::root(),
            1,
            RData::A(A::new(1, 2, 3, 4)),
        ));
        for wrong in [none, two, answered] {
            assert!(matches!(parsed(&wrong), ParsedQuery::Bare(reply) if reply[3] & 15 == 1));
        }
    }

    #[test]
    fn edns_is_read_and_its_version_checked() {
        let mut edns = Edns::new();
        edns.set_max_payload(4096).set_dnssec_ok(true);
        let mut versioned = message();
        versioned.set_edns(edns.clone());
        let ParsedQuery::Ask(query) = parsed(&versioned) else {
            panic!("not asked");
        };
        let expected = ClientEdns {
            payload: 4096,
            dnssec_ok: true,
        };
        assert_eq!(query.edns, Some(expected));
        edns.set_version(1);
        versioned.set_edns(edns);
        assert!(matches!(
            parsed(&versioned),
            ParsedQuery::Reject(_, ResponseCode::BADVERS)
        ));
    }

    #[test]
    fn classes_and_meta_types() {
        for (class, qtype, expected) in [
            (DNSClass::CH, RecordType::TXT, ResponseCode::Refused),
            (DNSClass::ANY, RecordType::A, ResponseCode::Refused),
            (DNSClass::IN, RecordType::AXFR, ResponseCode::NotImp),
            (DNSClass::IN, RecordType::IXFR, ResponseCode::NotImp),
            (DNSClass::IN, RecordType::Unknown(249), ResponseCode::NotImp),
            (DNSClass::IN, RecordType::OPT, ResponseCode::FormErr),
            (DNSClass::IN, RecordType::TSIG, ResponseCode::FormErr),
        ] {
            let mut message = message();
            message.queries[0].set_query_class(class);
            message.queries[0].set_query_type(qtype);
            assert!(
                matches!(parsed(&message), ParsedQuery::Reject(_, rcode) if rcode == expected),
                "{class} {qtype}"
            );
        }
    }
}
