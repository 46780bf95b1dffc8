//! The header of the PROXY protocol, in whatever pieces it comes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use odyn_proto::proxy_header::{Header, HeaderDecoder, HeaderError, MAX_V2, write_v1, write_v2};

/// Reads a header from pieces of this size; says what it is and how long.
fn read(bytes: &[u8], size: usize) -> Result<Option<(usize, Header)>, HeaderError> {
    let mut decoder = HeaderDecoder::default();
    let mut taken = 0;
    for piece in bytes.chunks(size) {
        let (count, header) = decoder.feed(piece)?;
        taken += count;
        assert!(taken <= MAX_V2, "more than any header has");
        if let Some(header) = header {
            return Ok(Some((taken, header)));
        }
        assert_eq!(count, piece.len(), "all is taken while it is not complete");
    }
    Ok(None)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, bytes.len().max(1));
    for size in [1, 2, 7, 16] {
        assert_eq!(read(bytes, size), whole, "in pieces of {size}");
    }
    let Ok(Some((length, header))) = whole else {
        return;
    };
    // What follows the header is not looked at, and less is not enough.
    assert_eq!(read(&bytes[..length], length), whole);
    assert_eq!(read(&bytes[..length - 1], length), Ok(None));
    if let Header::Proxied {
        source,
        destination,
    } = header
    {
        for written in [
            write_v1(source, destination),
            write_v2(source, destination, &[]),
        ] {
            let Ok(Some((length, again))) = read(&written, written.len()) else {
                panic!("not read: {written:?}");
            };
            assert_eq!(length, written.len());
            let plain = |a: std::net::SocketAddr| (a.ip().to_canonical(), a.port());
            if let Header::Proxied {
                source: from,
                destination: to,
            } = again
            {
                assert_eq!(plain(from), plain(source));
                assert_eq!(plain(to), plain(destination));
            } else {
                // A line can't have both families.
                assert_ne!(
                    plain(source).0.is_ipv4(),
                    plain(destination).0.is_ipv4(),
                    "{again:?}"
                );
            }
        }
    }
});
