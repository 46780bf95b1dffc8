//! A hash table from texts to numbers, made for few cache misses.
//!
//! An entry is eight bytes: a hash, and a number that the caller gave. The caller stores the text
//! and compares it. So a lookup reads one cache line of the table and one of the caller, where a
//! map of strings would read four. The hash need not resist attacks: only the trusted policy adds
//! entries, and a chosen name can at most make a lookup compare an entry in vain.

use super::NONE;

#[derive(Clone, Copy, Debug)]
struct TableEntry {
    hash: u32,
    /// [`NONE`] when the entry is free.
    id: u32,
}

const FREE: TableEntry = TableEntry { hash: 0, id: NONE };

/// The table. Its length is a power of two, and at least half of it is free.
#[derive(Debug, Default)]
pub(crate) struct HashIndex {
    entries: Vec<TableEntry>,
    used: usize,
}

impl HashIndex {
    pub(crate) fn insert(&mut self, hash: u32, id: u32) {
        if (self.used + 1) * 2 > self.entries.len() {
            let larger = (self.entries.len() * 2).max(8);
            let old = std::mem::replace(&mut self.entries, vec![FREE; larger]);
            for entry in old.into_iter().filter(|entry| entry.id != NONE) {
                self.put(entry);
            }
        }
        self.used += 1;
        self.put(TableEntry { hash, id });
    }

    fn put(&mut self, entry: TableEntry) {
        let mask = self.entries.len().wrapping_sub(1);
        let mut at = entry.hash as usize & mask;
        while let Some(place) = self.entries.get_mut(at) {
            if place.id == NONE {
                *place = entry;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// The numbers of the entries with this hash.
    pub(crate) fn find(&self, hash: u32) -> impl Iterator<Item = u32> {
        let mask = self.entries.len().wrapping_sub(1);
        let start = hash as usize & mask;
        // A free entry ends the search; the table always has one.
        (0..self.entries.len())
            .map_while(move |step| self.entries.get((start + step) & mask))
            .take_while(|entry| entry.id != NONE)
            .filter(move |entry| entry.hash == hash)
            .map(|entry| entry.id)
    }
}

/// A hash of a text in a context.
pub(crate) fn hash(context: u32, text: &str) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = (u64::from(context) + 1).wrapping_mul(FACTOR) ^ text.len() as u64;
    let mut words = text.as_bytes().chunks_exact(8);
    let mut add = |word: [u8; 8]| {
        hash = (hash.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
    };
    for word in &mut words {
        if let Ok(word) = word.try_into() {
            add(word);
        }
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(words.remainder()) {
        *to = *from;
    }
    add(last);
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(FACTOR);
    // The upper half is mixed better.
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_put_in_and_ends_otherwise() {
        let mut table = HashIndex::default();
        assert_eq!(table.find(7).count(), 0);
        for id in 0..1000 {
            // Many share a hash.
            table.insert(hash(id % 3, "x") & 0xff, id);
        }
        for id in 0..1000 {
            assert!(
                table
                    .find(hash(id % 3, "x") & 0xff)
                    .any(|found| found == id)
            );
        }
        assert_eq!(table.find(0xffff_ffff).count(), 0);
    }

    #[test]
    fn hashes_of_like_texts_differ() {
        let mut seen = std::collections::HashSet::new();
        let mut clashes = 0;
        for i in 0..100_000 {
            clashes += u32::from(!seen.insert(hash(5, &format!("api{i}"))));
        }
        // Of 100 000 random numbers of 32 bits, one or two pairs are equal.
        assert!(clashes < 12, "{clashes}");
        assert_ne!(hash(1, "a"), hash(2, "a"));
        assert_ne!(hash(1, "a"), hash(1, "a\0"));
    }
}
