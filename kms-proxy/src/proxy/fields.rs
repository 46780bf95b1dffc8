//! A JSON object whose members stay as they are, byte for byte and in their order, but for those that
//! are replaced.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Most members of a request or an answer; KMS has some twenty.
const MAX_MEMBERS: usize = 256;

/// The members of an object.
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> Fields<'a> {
    /// Reads an object; none for anything else, and when a name is there twice: two readers could
    /// take different ones.
    pub(super) fn parse(json: &'a [u8]) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let fields = reader.deserialize_map(Members).ok()?;
        reader.end().ok()?;
        Some(fields)
    }

    /// Whether a member is there and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.get() != "null")
    }

    /// A member that is a text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// Whether a member is an object with anything in it.
    pub(super) fn has_members(&self, name: &str) -> bool {
        let value = self.get(name).map(|value| value.get().as_bytes());
        value
            .and_then(Fields::parse)
            .is_some_and(|inner| !inner.0.is_empty())
    }

    /// Replaces a member in its place, or adds it at the end.
    pub(super) fn set(&mut self, name: &'static str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = Cow::Owned(value),
            None => self.0.push((name.into(), Cow::Owned(value))),
        }
    }

    /// Takes a member out.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// The object as text.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        out.push(b'{');
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(
                serde_json::Value::from(name.as_ref())
                    .to_string()
                    .as_bytes(),
            );
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        out.push(b'}');
        out
    }

    fn get(&self, name: &str) -> Option<&RawValue> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_ref())
    }
}

/// A text as a value.
pub(super) fn text(value: &str) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Cow<'de, RawValue>)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            let is_known = members.iter().any(|(known, _)| *known == name);
            if is_known || members.len() >= MAX_MEMBERS {
                return Err(A::Error::custom("a name that is there twice, or too many"));
            }
            members.push((Cow::Owned(name), Cow::Borrowed(value)));
        }
        Ok(Fields(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_stays_as_it_is() {
        let json = br#"{"b":1.0e+02 , "a":{"x" : [1,2 ]},"Plaintext":null,"n":12345678901234567890123,"\u0041":"\u00e9"}"#;
        let mut fields = Fields::parse(json).expect("an object");
        fields.set("Plaintext", text("eA==").expect("a text"));
        fields.set("New", text("\"").expect("a text"));
        fields.remove("b");
        let written = String::from_utf8(fields.write()).expect("UTF-8");
        assert_eq!(
            written,
            r#"{"a":{"x" : [1,2 ]},"Plaintext":"eA==","n":12345678901234567890123,"A":"\u00e9","New":"\""}"#
        );
    }

    #[test]
    fn only_an_object_with_each_name_once_is_taken() {
        for json in [
            &b""[..],
            b"[]",
            b"{",
            b"{} x",
            b"null",
            br#"{"a":1,"a":2}"#,
            b"\xff",
        ] {
            assert!(Fields::parse(json).is_none());
        }
        assert!(Fields::parse(b" { } ").is_some());
    }

    #[test]
    fn members_are_looked_at() {
        let json = br#"{"k":"x","n":null,"c":{"a":"b"},"e":{}}"#;
        let fields = Fields::parse(json).expect("an object");
        assert!(fields.has("k") && !fields.has("n") && !fields.has("z"));
        assert!(fields.has_members("c") && !fields.has_members("e") && !fields.has_members("k"));
        assert_eq!(fields.text("k").as_deref(), Some("x"));
        assert_eq!(fields.text("c"), None);
    }
}
