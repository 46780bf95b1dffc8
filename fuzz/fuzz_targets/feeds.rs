//! A stream of records or of acknowledgements, however it is cut, and what a request for a feed
//! says: the same result, nothing too long, and what we write can be read.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use odyn_proto::wire::feed::{
    AckDecoder, FIRST, FeedRecord, MAX_NAME, MAX_RECORD, PREFIX, RecordDecoder, parse_opening,
};

/// Records, and whether the stream ended well.
fn records<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<FeedRecord>, bool) {
    let mut decoder = RecordDecoder::default();
    let mut records = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(_) => return (records, false),
            }
        }
    }
    (records, decoder.finish().is_ok())
}

fn acks<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u64>, bool) {
    let mut decoder = AckDecoder::default();
    let mut numbers = Vec::new();
    for piece in pieces {
        let each = |number| {
            numbers.push(number);
            Ok::<_, ()>(())
        };
        assert_eq!(decoder.push(piece, each), Ok(()));
    }
    (numbers, decoder.finish().is_ok())
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, stream)) = bytes.split_first() else {
        return;
    };
    let size = usize::from(cut).max(1);
    let whole = records(std::iter::once(stream));
    assert_eq!(whole, records(stream.chunks(size)), "cut at every {size}");
    assert_eq!(acks(std::iter::once(stream)), acks(stream.chunks(size)));
    let mut wire = BytesMut::new();
    for record in &whole.0 {
        assert!(record.bytes.len() <= MAX_RECORD);
        record.encode(&mut wire);
    }
    assert!(stream.starts_with(&wire), "what was read is what was there");

    let mut parts = stream.split(|&byte| byte == b'\n');
    let path = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let values: Vec<&[u8]> = parts.collect();
    let header = |name: &str| {
        let number = ["odyn-guest", "odyn-run", FIRST]
            .iter()
            .position(|known| *known == name);
        values.get(number?).copied()
    };
    if let Ok(opening) = parse_opening(&path, header) {
        assert!(opening.name.len() <= MAX_NAME && !opening.name.contains(['/', '.']));
        assert_eq!(format!("{PREFIX}{}", opening.name), path);
        assert_eq!(opening.guest.name.as_str().as_bytes(), values[0]);
        assert_eq!(opening.guest.run.to_string().as_bytes(), values[1]);
    }
});
