//! The handshake of hybrid vsock.
//!
//! Firecracker, Cloud Hypervisor and vhost-device-vsock offer a guest's vsock as a Unix socket.

/// Longest answer, its newline included, in bytes. `OK 4294967295\n` has 14.
pub const MAX_REPLY: usize = 64;

/// Why the virtual machine monitor did not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HybridError {
    /// The monitor closed before a whole line: Firecracker does so if nothing listens in the guest.
    #[error("nothing listens on that port in the guest")]
    Closed,
    /// The line is too long.
    #[error("the monitor's answer is longer than {MAX_REPLY} bytes")]
    TooLong,
    /// The answer is not OK.
    #[error("the monitor answered {0:?}")]
    NotOk(String),
}

/// The line that asks for a port.
pub fn request(port: u32) -> String {
    format!("CONNECT {port}\n")
}

/// Reads the answer so far; `None` if the line is not complete.
///
/// # Errors
/// The answer cannot become `OK …` any more.
pub fn parse_reply(bytes: &[u8]) -> Result<Option<()>, HybridError> {
    let Some(end) = bytes.iter().position(|&b| b == b'\n') else {
        return if bytes.len() >= MAX_REPLY {
            Err(HybridError::TooLong)
        } else {
            Ok(None)
        };
    };
    let line = bytes.get(..end).unwrap_or_default();
    if line == b"OK" || line.starts_with(b"OK ") {
        return Ok(Some(()));
    }
    let shown = String::from_utf8_lossy(line.get(..MAX_REPLY.min(line.len())).unwrap_or_default());
    Err(HybridError::NotOk(shown.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        assert_eq!(request(5000), "CONNECT 5000\n");
        assert_eq!(parse_reply(b""), Ok(None));
        assert_eq!(parse_reply(b"OK 1073741824"), Ok(None));
        assert_eq!(parse_reply(b"OK 1073741824\n"), Ok(Some(())));
        assert_eq!(parse_reply(b"OK\n"), Ok(Some(())));
        assert_eq!(
            parse_reply(b"OKAY\n"),
            Err(HybridError::NotOk("OKAY".into()))
        );
        assert_eq!(parse_reply(b"\n"), Err(HybridError::NotOk(String::new())));
        assert_eq!(parse_reply(&[b'O'; MAX_REPLY]), Err(HybridError::TooLong));
    }
}
