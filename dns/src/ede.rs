//! Extended DNS Errors (RFC 8914).

use hickory_proto::op::Edns;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};

use crate::name_policy::{BlockKind, QueryDenial};

const OPTION: u16 = 15;
/// Most errors of one upstream answer that are passed on.
const MAX_ERRORS: usize = 4;
/// Most characters of an error's text that are passed on.
const MAX_TEXT: usize = 160;

/// An Extended DNS Error: a code of the IANA registry and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ede {
    pub(crate) code: u16,
    pub(crate) text: String,
}

impl Ede {
    pub(crate) const OTHER: u16 = 0;
    pub(crate) const BLOCKED: u16 = 15;
    pub(crate) const FILTERED: u16 = 17;
    pub(crate) const NOT_SUPPORTED: u16 = 21;
    pub(crate) const NO_REACHABLE_AUTHORITY: u16 = 22;
    pub(crate) const NETWORK_ERROR: u16 = 23;
    pub(crate) const INVALID_DATA: u16 = 24;

    pub(crate) fn new(code: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    pub(crate) fn denial(denial: &QueryDenial) -> Self {
        let code = match denial.block {
            BlockKind::Blocked => Self::BLOCKED,
            BlockKind::Filtered => Self::FILTERED,
        };
        let text = match &denial.rule {
            Some(rule) => format!("policy: {} (line {})", denial.reason, rule.line),
            None => format!("policy: {}", denial.reason),
        };
        Self { code, text }
    }

    pub(crate) fn option(&self) -> EdnsOption {
        let mut data = Vec::with_capacity(2 + self.text.len());
        data.extend_from_slice(&self.code.to_be_bytes());
        data.extend_from_slice(self.text.as_bytes());
        EdnsOption::Unknown(OPTION, data)
    }

    /// The errors of an upstream answer, limited in number and length.
    ///
    /// The untrusted host wrote the text. It is shown and never interpreted, so control characters
    /// are removed.
    pub(crate) fn read(edns: &Edns) -> Vec<Self> {
        edns.options()
            .as_ref()
            .iter()
            .filter(|(code, _)| *code == EdnsCode::Unknown(OPTION))
            .filter_map(|(_, option)| match option {
                EdnsOption::Unknown(_, data) => Self::parse(data),
                _ => None,
            })
            .take(MAX_ERRORS)
            .collect()
    }

    fn parse(data: &[u8]) -> Option<Self> {
        let (code, text) = data.split_first_chunk::<2>()?;
        let text = String::from_utf8_lossy(text)
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_TEXT)
            .collect();
        Some(Self {
            code: u16::from_be_bytes(*code),
            text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name_policy::MatchedRule;

    #[test]
    fn survives_the_wire_and_is_cleaned() {
        let mut edns = Edns::new();
        edns.options_mut()
            .insert(Ede::new(22, "no\u{7} server\r\n").option());
        edns.options_mut()
            .insert(EdnsOption::Unknown(OPTION, vec![1]));
        edns.options_mut()
            .insert(EdnsOption::Unknown(10, vec![0, 1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(Ede::read(&edns), [Ede::new(22, "no server")]);
    }

    #[test]
    fn a_flood_of_errors_is_cut() {
        let mut edns = Edns::new();
        for _ in 0..100 {
            edns.options_mut()
                .insert(Ede::new(0, "x".repeat(1000)).option());
        }
        let read = Ede::read(&edns);
        assert_eq!(read.len(), MAX_ERRORS);
        assert!(read.iter().all(|ede| ede.text.len() == MAX_TEXT));
    }

    #[test]
    fn a_denial_names_its_reason_and_line() {
        let denial = QueryDenial {
            rule: Some(MatchedRule {
                text: "*.example".into(),
                line: 12,
            }),
            block: BlockKind::Filtered,
            ..QueryDenial::new("deny-rule")
        };
        assert_eq!(
            Ede::denial(&denial),
            Ede::new(17, "policy: deny-rule (line 12)")
        );
        assert_eq!(Ede::denial(&QueryDenial::new("no-rule")).code, 15);
    }
}
