//! Names as DNS messages carry them.
//!
//! The policy compares text, DNS compares labels of arbitrary bytes: a label may contain a dot or
//! an escape that reads like another name as text. So every name of a message becomes a
//! [`DnsName`] first. A name that cannot is a *bad name*: it is denied without asking the policy.

use hickory_proto::rr::Name;
use odyn_proto::{DnsName, DnsNameError};

/// The name of a message in canonical form.
///
/// # Errors
/// The name is not the name of a host. The root is not one.
pub(crate) fn canonical(name: &Name) -> Result<DnsName, DnsNameError> {
    DnsName::from_labels(name.iter())
}

/// The name as a message carries it. `None` would be a bug: a canonical name fits a message.
pub(crate) fn wire(name: &DnsName) -> Option<Name> {
    let name = Name::from_labels(name.labels().map(str::as_bytes)).ok();
    debug_assert!(name.is_some(), "a canonical name fits a message");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions() {
        let label = [b'a'; 63];
        let longest = [&label[..], &label, &label, &label[..61]];
        for labels in [&longest[..], &[b"API", b"_x-1", b"Example", b"cOm"]] {
            let name = Name::from_labels(labels.iter().copied()).expect("test labels");
            let canonical = canonical(&name).expect("a good name");
            let back = wire(&canonical).expect("a name");
            assert!(back.is_fqdn());
            assert_eq!(back, name, "DNS compares without case");
        }
    }

    #[test]
    fn the_root_and_labels_that_read_like_other_names_are_bad() {
        for labels in [
            &[][..],
            &[&b"api.example"[..], b"com"],
            &[b"api\\.example", b"com"],
            &[b"a\0", b"com"],
            &[b"10", b"0", b"0", b"1"],
        ] {
            let name = Name::from_labels(labels.iter().copied()).expect("test labels");
            assert!(canonical(&name).is_err(), "{name}");
        }
    }
}
