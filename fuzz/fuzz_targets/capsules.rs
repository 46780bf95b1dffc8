//! A stream of capsules, however it is cut: the same datagrams, none too
//! long, and what we write can be read.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use odyn_proto::wire::capsule::{CapsuleDecoder, MAX_DATAGRAM, encode};

/// Datagrams, and whether the stream ended well.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Bytes>, bool) {
    let mut decoder = CapsuleDecoder::default();
    let mut datagrams = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next() {
                Ok(Some(datagram)) => datagrams.push(datagram),
                Ok(None) => break,
                Err(_) => return (datagrams, false),
            }
        }
    }
    (datagrams, decoder.finish().is_ok())
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, stream)) = bytes.split_first() else {
        return;
    };
    let whole = decode(std::iter::once(stream));
    let size = usize::from(cut).max(1);
    assert_eq!(
        whole,
        decode(stream.chunks(size)),
        "cut at every {size} bytes"
    );
    let mut total = 0;
    for datagram in &whole.0 {
        assert!(datagram.len() <= MAX_DATAGRAM);
        total += datagram.len();
    }
    assert!(total <= stream.len(), "more came out than went in");
    if stream.len() <= MAX_DATAGRAM {
        let again = decode(encode(stream).chunks(size));
        assert_eq!(again, (vec![Bytes::copy_from_slice(stream)], true));
    }
});
