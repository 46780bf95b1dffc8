//! Members of CBOR values (RFC 8949), by ciborium.

use ciborium::Value;

use crate::DocumentFault;

/// Reads one value with nothing after it.
pub(super) fn read(bytes: &[u8]) -> Option<Value> {
    let mut rest = bytes;
    // Attestation documents do not nest deeper.
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, 8).ok()?;
    rest.is_empty().then_some(value)
}

/// A map with text keys, each once.
pub(super) struct CborMembers(Vec<(String, Value)>);

impl CborMembers {
    pub(super) fn of(value: Value) -> Option<Self> {
        let entries = value.into_map().ok()?;
        let mut members: Vec<(String, Value)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = key.into_text().ok()?;
            if members.iter().any(|(known, _)| *known == key) {
                return None;
            }
            members.push((key, value));
        }
        Some(Self(members))
    }

    /// Takes a member. Absent and null are the same.
    pub(super) fn optional(&mut self, member: &'static str) -> Option<Value> {
        let at = self.0.iter().position(|(key, _)| key == member)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.is_null())
    }

    pub(super) fn required(&mut self, member: &'static str) -> Result<Value, DocumentFault> {
        self.optional(member).ok_or(fault(member, "is missing"))
    }

    /// A byte string of a length in a range, if the member is there.
    pub(super) fn bytes(
        &mut self,
        member: &'static str,
        length: std::ops::RangeInclusive<usize>,
    ) -> Result<Option<Vec<u8>>, DocumentFault> {
        self.optional(member)
            .map(|value| sized(member, value, &length))
            .transpose()
    }
}

/// A byte string of a length in a range.
pub(super) fn sized(
    member: &'static str,
    value: Value,
    length: &std::ops::RangeInclusive<usize>,
) -> Result<Vec<u8>, DocumentFault> {
    let bytes = value
        .into_bytes()
        .map_err(|_| fault(member, "is no byte string"))?;
    if length.contains(&bytes.len()) {
        Ok(bytes)
    } else {
        Err(fault(member, "has a length that it cannot have"))
    }
}

pub(super) fn fault(member: &'static str, problem: &'static str) -> DocumentFault {
    DocumentFault::Member { member, problem }
}
