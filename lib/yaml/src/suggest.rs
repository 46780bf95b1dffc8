//! Suggestions for misspelt words.

/// The known word that is nearest to `text`. Words are in lower case, with underscores.
#[must_use]
pub fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > 64 {
        return None;
    }
    let folded = text.to_ascii_lowercase().replace('-', "_");
    known
        .map(|word| (strsim::damerau_levenshtein(&folded, word), word))
        .filter(|(distance, word)| *distance <= word.len().div_ceil(3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let known = ["egress", "ingress", "listen_port", "to"];
        for (text, wanted) in [
            ("egres", Some("egress")),
            ("Egress", Some("egress")),
            ("listen-port", Some("listen_port")),
            ("lsiten_port", Some("listen_port")),
            ("ot", Some("to")),
            ("banana", None),
        ] {
            assert_eq!(nearest(text, known.into_iter()), wanted, "{text}");
        }
    }
}
