//! Scalars, and what plain ones are.

/// A scalar as it was written.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// Its text, without quotes.
    pub text: String,
    /// Written with quotes, as a block, or tagged `!!str`: a string whatever it looks like.
    pub is_string: bool,
}

/// What a plain scalar is under the YAML 1.2 core schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, `~` or `null`.
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
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        if self.is_string {
            return Kind::String;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" => Kind::Bool(true),
            "false" | "False" | "FALSE" => Kind::Bool(false),
            text if is_integer(text) => Kind::Integer,
            text if is_float(text) => Kind::Float,
            _ => Kind::String,
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
            ("", Kind::Null),
            ("~", Kind::Null),
            ("null", Kind::Null),
            ("True", Kind::Bool(true)),
            ("yes", Kind::String),
            ("on", Kind::String),
            ("0", Kind::Integer),
            ("-12", Kind::Integer),
            ("0x1F", Kind::Integer),
            ("0o17", Kind::Integer),
            ("0x", Kind::String),
            ("-", Kind::String),
            ("1.5", Kind::Float),
            (".5", Kind::Float),
            ("1e3", Kind::Float),
            ("1e", Kind::String),
            (".", Kind::String),
            (".inf", Kind::Float),
            ("10.0.0.1", Kind::String),
            ("1:30", Kind::String),
        ] {
            let scalar = |is_string| Scalar {
                text: text.to_owned(),
                is_string,
            };
            assert_eq!(scalar(false).kind(), wanted, "{text}");
            assert_eq!(scalar(true).kind(), Kind::String, "{text}");
        }
    }
}
