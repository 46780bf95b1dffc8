//! The audit record as a reader of the file sees it.

use std::path::Path;

use serde::Deserialize;

/// One line of the audit file: one flow.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRecord {
    /// When the flow began, RFC 3339 in UTC.
    pub time: String,
    /// Unique in the process that wrote it.
    pub flow: u64,
    /// `allow`, `deny` or `report`.
    pub verdict: String,
    /// The rule that decided, as it stands in the policy.
    pub rule: Option<String>,
    /// The rule's line in the policy.
    pub line: Option<u64>,
    /// Why it was denied (or would have been).
    #[serde(default)]
    pub reason: Option<String>,
    /// `tcp`, `udp`, `dns`, or what the kernel rejected.
    pub protocol: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// The client, of ingress.
    #[serde(default)]
    pub client: Option<String>,
    /// The name that the flow's destination stands for.
    pub name: Option<String>,
    /// The destination that the app used.
    pub destination: String,
    /// The address that the host dialled.
    pub dialled: Option<String>,
    /// Payload bytes from the app to the peer.
    pub bytes_sent: u64,
    /// Payload bytes from the peer to the app.
    pub bytes_received: u64,
    /// Bytes of a flow that was cut, which are not known to have arrived.
    #[serde(default)]
    pub bytes_undelivered: Option<u64>,
    /// How long the flow lived, in milliseconds.
    pub duration_ms: f64,
    /// How the flow ended.
    pub end: String,
}

impl AuditRecord {
    /// The port of the destination, 0 where the protocol has none.
    pub fn port(&self) -> u16 {
        self.destination
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .unwrap_or(0)
    }

    /// Whether the record is about this name, or about this literal address.
    pub fn is_about(&self, who: &str) -> bool {
        match &self.name {
            Some(name) => name.eq_ignore_ascii_case(who),
            None => {
                self.destination.starts_with(&format!("{who}:"))
                    || self.destination.starts_with(&format!("[{who}]:"))
                    || self.destination == who
            }
        }
    }
}

/// Reads an audit file; a line that is not a record fails the test.
///
/// # Panics
/// When a line does not parse. A missing file is an empty one.
pub fn read(path: &Path) -> Vec<AuditRecord> {
    let text = text(path);
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "the audit file's last line is torn: {text:?}"
    );
    parse(&text)
}

/// Like [`read`], while odyn-net writes: a reader may then find half of what one write()
/// appends, and the last line then has no end yet.
///
/// # Panics
/// When a whole line does not parse.
pub fn read_so_far(path: &Path) -> Vec<AuditRecord> {
    let text = text(path);
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    parse(&text[..whole])
}

fn text(path: &Path) -> String {
    match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => panic!("audit file {}: {error}", path.display()),
    }
}

fn parse(text: &str) -> Vec<AuditRecord> {
    text.lines()
        .map(|line| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("audit line is not a record: {error}\n{line}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: Option<&str>, destination: &str) -> AuditRecord {
        AuditRecord {
            time: String::new(),
            flow: 1,
            verdict: "allow".into(),
            rule: None,
            line: None,
            reason: None,
            protocol: "tcp".into(),
            direction: "egress".into(),
            client: None,
            name: name.map(Into::into),
            destination: destination.into(),
            dialled: None,
            bytes_sent: 0,
            bytes_received: 0,
            bytes_undelivered: None,
            duration_ms: 0.0,
            end: "closed".into(),
        }
    }

    #[test]
    fn a_line_that_is_being_written_is_not_read_yet() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let line = r#"{"time":"","flow":1,"verdict":"allow","rule":null,"line":null,"protocol":"tcp",
            "direction":"egress","name":null,"destination":"x","dialled":null,"bytes_sent":0,
            "bytes_received":0,"duration_ms":0.0,"end":"closed"}"#;
        let line = line.replace('\n', "");
        for (text, count) in [
            ("", 0),
            (&line[..50], 0),
            (&format!("{line}\n"), 1),
            (&format!("{line}\n{}", &line[..50]), 1),
        ] {
            std::fs::write(file.path(), text).expect("own file");
            assert_eq!(read_so_far(file.path()).len(), count, "{text}");
        }
    }

    #[test]
    fn a_record_is_about_a_name_or_else_about_its_address() {
        assert!(record(Some("a.example"), "198.18.0.5:443").is_about("A.example"));
        assert!(!record(Some("a.example"), "198.18.0.5:443").is_about("198.18.0.5"));
        assert!(record(None, "[2001:db8::1]:80").is_about("2001:db8::1"));
        assert!(!record(None, "203.0.113.10:80").is_about("203.0.113.1"));
        assert_eq!(record(None, "[2001:db8::1]:80").port(), 80);
        assert_eq!(record(None, "203.0.113.1").port(), 0);
    }
}
