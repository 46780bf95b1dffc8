//! Computes the Internet checksum (RFC 1071) and updates it (RFC 1624).

use std::net::IpAddr;

/// A sum of 16-bit words in one's complement, not yet folded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd last one is the high half of a word.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(2);
        for pair in &mut words {
            if let [high, low] = *pair {
                self.0 += u64::from(u16::from_be_bytes([high, low]));
            }
        }
        if let [high] = *words.remainder() {
            self.0 += u64::from(high) << 8;
        }
        self
    }

    /// Adds one word.
    #[must_use]
    pub fn word(mut self, word: u16) -> Self {
        self.0 += u64::from(word);
        self
    }

    /// Subtracts bytes that the sum contains. Their number is even.
    #[must_use]
    pub fn without(mut self, bytes: &[u8]) -> Self {
        for pair in bytes.chunks_exact(2) {
            if let [high, low] = *pair {
                self.0 += u64::from(!u16::from_be_bytes([high, low]));
            }
        }
        self
    }

    /// Adds the pseudo-header of a transport (RFC 9293 section 3.1, RFC 8200 section 8.1).
    #[must_use]
    pub fn pseudo(self, from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Self {
        let sum = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.bytes(&from.octets()).bytes(&to.octets()),
            (IpAddr::V6(from), IpAddr::V6(to)) => self.bytes(&from.octets()).bytes(&to.octets()),
            _ => self,
        };
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        sum.bytes(&length.to_be_bytes()).word(u16::from(protocol))
    }

    /// Folds the sum into one word: the form of a partial checksum.
    #[must_use]
    pub fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The value of the checksum field: the complement of the sum.
    #[must_use]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// Updates a checksum field after bytes that it covers were replaced (RFC 1624, equation 3).
#[must_use]
pub fn updated(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    Sum::default()
        .word(!checksum)
        .without(old)
        .bytes(new)
        .checksum()
}

/// Updates a partial checksum, the bare sum of the pseudo-header, after its addresses were
/// replaced.
#[must_use]
pub fn updated_partial(sum: u16, old: &[u8], new: &[u8]) -> u16 {
    Sum::default().word(sum).without(old).bytes(new).folded()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // HC = 0xdd2f, m = 0x5555, m' = 0x3285: 0x0000 and not 0xffff.
        assert_eq!(updated(0xdd2f, &[0x55, 0x55], &[0x32, 0x85]), 0x0000);
    }

    #[test]
    fn an_odd_end_counts_as_a_high_byte() {
        assert_eq!(Sum::default().bytes(&[0xab]).folded(), 0xab00);
    }
}
