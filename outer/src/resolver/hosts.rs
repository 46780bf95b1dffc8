//! Reads hosts(5), and answers from it.

use std::collections::HashMap;
use std::net::IpAddr;

use bytes::Bytes;
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};

use super::question::DnsQuestion;

/// TTL of an answer from the file, in seconds. The file can change at any moment.
const TTL: u32 = 5;

/// Addresses by lower-case name without a trailing dot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostsFile(HashMap<String, Vec<IpAddr>>);

impl HostsFile {
    /// Reads the text of a hosts file. Malformed lines are skipped.
    pub(super) fn parse(text: &str) -> Self {
        let mut hosts = HashMap::<_, Vec<_>>::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse) else {
                continue;
            };
            for name in words {
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                let addresses = hosts.entry(name).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Self(hosts)
    }

    /// The answer to `question`, if the file has the name.
    ///
    /// A name with addresses of one family has none of the other: the file replaces DNS for it.
    pub(super) fn answer(&self, question: &DnsQuestion) -> Option<Bytes> {
        let v4 = match question.qtype {
            RecordType::A => true,
            RecordType::AAAA => false,
            _ => return None,
        };
        let name = question.name.to_lowercase().to_ascii();
        let addresses = self.0.get(name.strip_suffix('.').unwrap_or(&name))?;
        let records = addresses.iter().filter(|address| address.is_ipv4() == v4);
        let records = records.map(|address| {
            let data = match *address {
                IpAddr::V4(v4) => RData::A(A(v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
            };
            Record::from_rdata(question.name.clone(), TTL, data)
        });
        question.answer(records.collect())
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, ResponseCode};

    use super::super::tests::query;
    use super::*;

    fn addresses(hosts: &HostsFile, name: &str, qtype: RecordType) -> Option<Vec<String>> {
        let question = DnsQuestion::parse(&query(name, qtype)).expect("a question");
        let answer = Message::from_vec(&hosts.answer(&question)?).expect("readable");
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(answer.metadata.id, question.id);
        let data = answer
            .answers
            .iter()
            .filter_map(|record| record.data.ip_addr());
        Some(data.map(|address| address.to_string()).collect())
    }

    #[test]
    fn names_and_aliases_in_both_families() {
        let hosts = HostsFile::parse(
            "127.0.0.1 localhost\n\
             192.0.2.7\tDB.Internal db # the old one\n\
             192.0.2.8 db.internal\n\
             2001:db8::7 db.internal.\n\
             #192.0.2.9 commented\n\
             not-an-address broken\n\
             192.0.2.10\n",
        );
        let found = |name, qtype| addresses(&hosts, name, qtype);
        let both = Some(vec!["192.0.2.7".to_owned(), "192.0.2.8".to_owned()]);
        assert_eq!(found("db.internal.", RecordType::A), both);
        assert_eq!(found("dB.inTernal.", RecordType::A), both);
        let v6 = Some(vec!["2001:db8::7".to_owned()]);
        assert_eq!(found("db.internal.", RecordType::AAAA), v6);
        assert_eq!(found("db.", RecordType::AAAA), Some(Vec::new()));
        assert_eq!(found("db.", RecordType::TXT), None);
        for unknown in ["commented.", "broken.", "db.internal.test.", "."] {
            assert_eq!(found(unknown, RecordType::A), None, "{unknown}");
        }
    }
}
