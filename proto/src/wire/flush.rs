//! `POST /flush`: is everything delivered?
//!
//! The guest sends this request on each connection when it has nothing more to send on it. The
//! header [`WAIT`] limits how long the host may wait for delivery, in milliseconds. The answer
//! (200) has a line for each flow of that connection that is not delivered by then:
//!
//! ```text
//! STREAM ACKNOWLEDGED PENDING ADDRESS
//! ```
//!
//! These are the number of the stream, the bytes that the peer's kernel has acknowledged, the bytes
//! that the host still holds, and the dialled address. An answer without lines: all is delivered.
//!
//! On a reversed connection the host opens the streams, so it sends the request twice, as soon as
//! the connection is up. The guest asks by answering one of them: [`WAIT`] is in the answer, and
//! the lines are the body of the request, followed by [`LAST_LINE`]. The address is the client's. A
//! host without flows that closes the connection sends the lines without being asked.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

/// Path of the request.
pub const PATH: &str = "/flush";

/// Header with the time that the host may wait, in milliseconds.
pub const WAIT: &str = "odyn-wait";

/// End of the lines on a reversed connection. No other line begins with a dot.
pub const LAST_LINE: &str = ".\n";

/// Media type of the answer.
pub const TYPE: &str = "text/plain";

/// Longest wait; longer values count as this.
pub const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Most lines of an answer.
///
/// That is all streams that can be open on a connection, and as many that have ended for the guest.
pub const MAX_LINES: usize = 8192;

/// Longest line: four numbers and an address with a scope, in bytes.
const MAX_LINE: usize = 128;

/// Longest answer, in bytes.
pub const MAX_ANSWER: usize = MAX_LINES * MAX_LINE;

/// A flow whose bytes have not all arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undelivered {
    /// The HTTP/2 stream of the flow.
    pub stream: u32,
    /// Bytes that the peer's kernel has acknowledged.
    pub acknowledged: u64,
    /// Bytes that the host holds, in its memory and in the socket.
    pub pending: u64,
    /// The address that was dialled.
    pub dialled: SocketAddr,
}

/// The value of [`WAIT`].
pub fn write_wait(wait: Duration) -> String {
    wait.min(MAX_WAIT).as_millis().to_string()
}

/// Reads the value of [`WAIT`], limited to [`MAX_WAIT`].
pub fn parse_wait(value: &[u8]) -> Option<Duration> {
    let millis = number(std::str::from_utf8(value).ok()?)?;
    Some(Duration::from_millis(millis).min(MAX_WAIT))
}

/// The answer's body.
///
/// A list of more than [`MAX_LINES`] flows becomes one line more than that. A reader refuses such a
/// body, so it takes nothing for delivered.
pub fn write_answer(list: &[Undelivered]) -> String {
    let mut body = String::new();
    for flow in list.iter().take(MAX_LINES + 1) {
        let Undelivered {
            stream,
            acknowledged,
            pending,
            dialled,
        } = flow;
        // Writing to a String does not fail.
        let _ = writeln!(body, "{stream} {acknowledged} {pending} {dialled}");
    }
    body
}

/// Reads an answer's body; `None` if it is malformed.
pub fn parse_answer(body: &[u8]) -> Option<Vec<Undelivered>> {
    if body.len() > MAX_ANSWER {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    if text.is_empty() {
        return Some(Vec::new());
    }
    let lines = text.strip_suffix('\n')?.split('\n');
    let list: Vec<_> = lines
        .take(MAX_LINES + 1)
        .map(parse_line)
        .collect::<Option<_>>()?;
    (list.len() <= MAX_LINES).then_some(list)
}

fn parse_line(line: &str) -> Option<Undelivered> {
    let mut words = line.split(' ');
    let flow = Undelivered {
        stream: u32::try_from(number(words.next()?)?).ok()?,
        acknowledged: number(words.next()?)?,
        pending: number(words.next()?)?,
        dialled: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(flow)
}

/// A decimal number without a sign.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(stream: u32, dialled: &str) -> Undelivered {
        Undelivered {
            stream,
            acknowledged: 7,
            pending: u64::MAX,
            dialled: dialled.parse().unwrap(),
        }
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        let list = [
            flow(1, "203.0.113.7:443"),
            flow(u32::MAX, "[fe80::1%4294967295]:65535"),
        ];
        let body = write_answer(&list);
        assert!(body.lines().all(|line| line.len() < MAX_LINE), "{body}");
        assert_eq!(parse_answer(body.as_bytes()), Some(list.to_vec()));
        assert_eq!(parse_answer(b""), Some(Vec::new()));
    }

    #[test]
    fn nonsense_is_no_answer() {
        for body in [
            "1 2 3 203.0.113.7:443",
            "\n",
            "1 2 3\n",
            "1 2 3 203.0.113.7:443 5\n",
            "1 2 3 203.0.113.7\n",
            "+1 2 3 203.0.113.7:443\n",
            "1 2 -3 203.0.113.7:443\n",
            "4294967296 2 3 203.0.113.7:443\n",
            "1 18446744073709551616 3 203.0.113.7:443\n",
            "1  2 3 203.0.113.7:443\n",
            "1 2 3 203.0.113.7:443\n\n",
        ] {
            assert_eq!(parse_answer(body.as_bytes()), None, "{body:?}");
        }
        assert_eq!(parse_answer(&[0xff, b'\n']), None);
        let line = write_answer(&[flow(1, "203.0.113.7:443")]);
        assert!(parse_answer(line.repeat(MAX_LINES).as_bytes()).is_some());
        assert_eq!(parse_answer(line.repeat(MAX_LINES + 1).as_bytes()), None);
        let many = vec![flow(1, "203.0.113.7:443"); MAX_LINES + 2];
        assert_eq!(parse_answer(write_answer(&many).as_bytes()), None);
    }

    #[test]
    fn waits_are_bounded() {
        let wait = Duration::from_millis(29_500);
        assert_eq!(parse_wait(write_wait(wait).as_bytes()), Some(wait));
        assert_eq!(parse_wait(b"18446744073709551615"), Some(MAX_WAIT));
        for value in ["", "-1", "1s", " 1", "18446744073709551616"] {
            assert_eq!(parse_wait(value.as_bytes()), None, "{value:?}");
        }
    }
}
