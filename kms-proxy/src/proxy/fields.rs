//! A JSON object whose members keep their bytes and their order, except those that are replaced.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// Most members of a request or an answer; KMS has some twenty.
const MAX_MEMBERS: usize = 256;

/// The members of an object.
pub(super) struct JsonFields<'a>(Vec<(Cow<'a, str>, JsonValue<'a>)>);

/// A member's value, as JSON.
enum JsonValue<'a> {
    /// The original bytes.
    Came(&'a RawValue),
    Ours(Box<RawValue>),
    /// A new value, overwritten when it is dropped.
    Secret(Zeroizing<Vec<u8>>),
}

impl JsonValue<'_> {
    fn json(&self) -> &[u8] {
        match self {
            Self::Came(value) => value.get().as_bytes(),
            Self::Ours(value) => value.get().as_bytes(),
            Self::Secret(value) => value,
        }
    }
}

impl<'a> JsonFields<'a> {
    /// Reads an object. `None` if a name stands twice, since two readers could take different ones.
    pub(super) fn parse(json: &'a [u8]) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let fields = reader.deserialize_map(JsonMembers).ok()?;
        reader.end().ok()?;
        Some(fields)
    }

    /// Whether a member exists and is not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != b"null")
    }

    /// A member that is a text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_slice(self.get(name)?).ok()
    }

    /// Whether a member is an object that is not empty.
    pub(super) fn has_members(&self, name: &str) -> bool {
        self.get(name)
            .and_then(JsonFields::parse)
            .is_some_and(|inner| !inner.0.is_empty())
    }

    /// Replaces a member in its place, or adds it at the end.
    pub(super) fn set(&mut self, name: &'static str, value: Box<RawValue>) {
        self.put(name, JsonValue::Ours(value));
    }

    /// Sets a member to the base64 of a secret.
    ///
    /// The text is written into its final buffer, so that no copy is left. `None` if its length
    /// overflows.
    pub(super) fn set_secret(&mut self, name: &'static str, secret: &[u8]) -> Option<()> {
        let length = base64::encoded_len(secret.len(), true)?;
        let mut json = Zeroizing::new(vec![b'"'; length.checked_add(2)?]);
        STANDARD
            .encode_slice(secret, json.get_mut(1..=length)?)
            .ok()?;
        self.put(name, JsonValue::Secret(json));
        Some(())
    }

    fn put(&mut self, name: &'static str, value: JsonValue<'a>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.into(), value)),
        }
    }

    /// Removes a member.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// The object as text.
    ///
    /// It may contain secrets, so it is overwritten when it is dropped, and its buffer does not
    /// grow: growing would leave copies.
    pub(super) fn write(&self) -> Zeroizing<Vec<u8>> {
        let names = self.0.iter();
        let names = names.map(|(name, _)| serde_json::Value::from(name.as_ref()).to_string());
        let names: Vec<String> = names.collect();
        let members = names.iter().zip(&self.0);
        // Each member has a colon, and a comma or brace.
        let lengths = members.map(|(name, (_, value))| name.len() + value.json().len() + 2);
        let mut out = Zeroizing::new(Vec::with_capacity(lengths.sum::<usize>() + 2));
        out.push(b'{');
        for (index, (name, (_, value))) in names.iter().zip(&self.0).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            out.extend_from_slice(value.json());
        }
        out.push(b'}');
        out
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.json())
    }
}

struct JsonMembers;

impl<'de> Visitor<'de> for JsonMembers {
    type Value = JsonFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(Cow<'de, str>, JsonValue<'de>)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            let is_known = members.iter().any(|(known, _)| *known == name);
            if is_known || members.len() >= MAX_MEMBERS {
                return Err(A::Error::custom("a name that is there twice, or too many"));
            }
            members.push((Cow::Owned(name), JsonValue::Came(value)));
        }
        Ok(JsonFields(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_stays_as_it_is() {
        let json = br#"{"b":1.0e+02 , "a":{"x" : [1,2 ]},"Plaintext":null,"n":12345678901234567890123,"\u0041":"\u00e9"}"#;
        let mut fields = JsonFields::parse(json).expect("an object");
        fields.set_secret("Plaintext", b"x").expect("set");
        let new = serde_json::value::to_raw_value("\"").expect("a text");
        fields.set("New", new);
        fields.remove("b");
        let written = String::from_utf8(fields.write().to_vec()).expect("UTF-8");
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
            assert!(JsonFields::parse(json).is_none());
        }
        assert!(JsonFields::parse(b" { } ").is_some());
    }

    #[test]
    fn members_are_looked_at() {
        let json = br#"{"k":"x","n":null,"c":{"a":"b"},"e":{}}"#;
        let fields = JsonFields::parse(json).expect("an object");
        assert!(fields.has("k") && !fields.has("n") && !fields.has("z"));
        assert!(fields.has_members("c") && !fields.has_members("e") && !fields.has_members("k"));
        assert_eq!(fields.text("k").as_deref(), Some("x"));
        assert_eq!(fields.text("c"), None);
    }

    /// Overwriting is for naught when a buffer has moved before.
    #[test]
    fn secrets_are_written_without_copies_on_the_way() {
        for length in [0, 1, 2, 3, 32, 4096, 5000] {
            let mut fields = JsonFields::parse(br#"{"a":1,"\u0022":[2]}"#).expect("an object");
            let room = fields.write().capacity();
            fields
                .set_secret("Plaintext", &vec![7; length])
                .expect("set");
            let value = fields.text("Plaintext").expect("a text");
            assert_eq!(STANDARD.decode(&value).expect("base64"), vec![7; length]);
            let written = fields.write();
            let added = r#","Plaintext":"""#.len() + value.len();
            assert_eq!(written.capacity(), room + added);
            assert!(written.len() <= written.capacity());
        }
    }
}
