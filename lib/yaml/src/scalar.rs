//! Scalars, and the types of plain ones.

/// A scalar as it was written.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The text, without quotes.
    pub text: String,
    /// True for a quoted, block or `!!str` scalar, which is always a string.
    pub is_string: bool,
}

/// The type of a plain scalar under the YAML 1.2 core schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarKind {
    /// An empty value, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer,
    /// Another number.
    Float,
    /// Anything else.
    String,
}

impl Scalar {
    /// The type of the scalar.
    #[must_use]
    pub fn kind(&self) -> ScalarKind {
        if self.is_string {
            return ScalarKind::String;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
            "true" | "True" | "TRUE" => ScalarKind::Bool(true),
            "false" | "False" | "FALSE" => ScalarKind::Bool(false),
            text if is_integer(text) => ScalarKind::Integer,
            text if is_float(text) => ScalarKind::Float,
            _ => ScalarKind::String,
        }
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = digits.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(octal) = digits.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_float(text: &str) -> bool {
    let number = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(number, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (number, None),
    };
    let exponent_fits = exponent.is_none_or(|e| {
        let digits = e.strip_prefix(['-', '+']).unwrap_or(e);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    exponent_fits
        && !(whole.is_empty() && fraction.is_empty())
        && whole
            .bytes()
            .chain(fraction.bytes())
            .all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_the_core_schema() {
        for (text, wanted) in [
            ("", ScalarKind::Null),
            ("~", ScalarKind::Null),
            ("null", ScalarKind::Null),
            ("True", ScalarKind::Bool(true)),
            ("yes", ScalarKind::String),
            ("on", ScalarKind::String),
            ("0", ScalarKind::Integer),
            ("-12", ScalarKind::Integer),
            ("0x1F", ScalarKind::Integer),
            ("0o17", ScalarKind::Integer),
            ("0x", ScalarKind::String),
            ("-", ScalarKind::String),
            ("1.5", ScalarKind::Float),
            (".5", ScalarKind::Float),
            ("1e3", ScalarKind::Float),
            ("1e", ScalarKind::String),
            (".", ScalarKind::String),
            (".inf", ScalarKind::Float),
            ("10.0.0.1", ScalarKind::String),
            ("1:30", ScalarKind::String),
        ] {
            let scalar = |is_string| Scalar {
                text: text.to_owned(),
                is_string,
            };
            assert_eq!(scalar(false).kind(), wanted, "{text}");
            assert_eq!(scalar(true).kind(), ScalarKind::String, "{text}");
        }
    }
}
