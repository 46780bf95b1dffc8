//! Members of CBOR values (RFC 8949), by ciborium.

use ciborium::Value;

use crate::DocumentFault;

/// One value, and nothing behind it.
pub(super) fn read(bytes: &[u8]) -> Option<Value> {
    let mut rest = bytes;
    // Arrays in arrays in arrays are none of ours.
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, 8).ok()?;
    rest.is_empty().then_some(value)
}

/// A map with names as its keys, each once.
pub(super) struct Members(Vec<(String, Value)>);

impl Members {
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

    /// Takes a member; absent and null are the same.
    pub(super) fn optional(&mut self, member: &'static str) -> Option<Value> {
        let at = self.0.iter().position(|(key, _)| key == member)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.is_null())
    }

    pub(super) fn required(&mut self, member: &'static str) -> Result<Value, DocumentFault> {
        self.optional(member).ok_or(fault(member, "is missing"))
    }

    /// A byte string of so many bytes, if it is there.
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

/// A byte string of so many bytes.
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
