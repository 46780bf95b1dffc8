//! Parses a kernel configuration: `CONFIG_NAME=value` and `# CONFIG_NAME is not set`.

use std::collections::HashMap;

/// Characters of a wrong line that the error shows.
const SHOWN: usize = 60;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A parsed configuration.
#[derive(Debug, Clone, Default)]
pub(in crate::doctor) struct KernelConfig {
    /// The kernel's version in the file's heading, if there is one.
    pub(in crate::doctor) release: Option<String>,
    values: HashMap<String, Setting>,
}

/// The value of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doctor) enum Setting {
    /// `=y`, or a value that is no tristate.
    BuiltIn,
    /// `=m`.
    Module,
    /// `is not set`, `=n`, or absent because its dependencies are not met.
    No,
}

/// The reason why a file is no kernel configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is compressed.
    #[error("this is gzip; unpack it: zcat FILE | enclaver doctor --kernel-config -")]
    Gzip,
    /// The file is empty.
    #[error("the file is empty; a kernel configuration has lines such as CONFIG_NET=y")]
    Empty,
    /// No line of the file sets an option.
    #[error(
        "line {line}: {text:?} is no line of a kernel configuration, and no other line is one; \
         expected lines such as CONFIG_NET=y"
    )]
    NoOptions {
        /// The number of the first line that is neither empty nor a comment; else of the first
        /// line.
        line: usize,
        /// The beginning of that line.
        text: String,
    },
}

impl KernelConfig {
    /// The value of an option, named without `CONFIG_`.
    pub(in crate::doctor) fn setting(&self, option: &str) -> Setting {
        self.values.get(option).copied().unwrap_or(Setting::No)
    }

    /// The first two numbers of the version.
    pub(in crate::doctor) fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.as_deref()?.split(['.', '-']);
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// Parses a configuration. Unknown lines are ignored if at least one line sets an option.
pub(super) fn parse(bytes: &[u8]) -> Result<KernelConfig, ConfigError> {
    if bytes.starts_with(&GZIP) {
        return Err(ConfigError::Gzip);
    }
    let text = String::from_utf8_lossy(bytes);
    let mut config = KernelConfig::default();
    let mut stranger = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some((option, setting)) = option(line) {
            config.values.insert(option.to_owned(), setting);
        } else if let Some(comment) = line.strip_prefix('#') {
            config.release = config.release.or_else(|| release(comment));
        } else if !line.is_empty() {
            stranger.get_or_insert((index + 1, line));
        }
    }
    if !config.values.is_empty() {
        return Ok(config);
    }
    let first = || {
        let mut lines = text.lines().enumerate();
        lines
            .find(|(_, line)| !line.trim().is_empty())
            .map(|(index, line)| (index + 1, line))
    };
    match stranger.or_else(first) {
        Some((line, text)) => Err(ConfigError::NoOptions {
            line,
            text: text.chars().take(SHOWN).collect(),
        }),
        None => Err(ConfigError::Empty),
    }
}

fn option(line: &str) -> Option<(&str, Setting)> {
    if let Some(assignment) = line.strip_prefix("CONFIG_") {
        let (name, value) = assignment.split_once('=')?;
        let setting = match value.trim() {
            "n" | "" => Setting::No,
            "m" => Setting::Module,
            _ => Setting::BuiltIn,
        };
        return is_name(name).then_some((name, setting));
    }
    let comment = line.strip_prefix('#')?.trim_start();
    let name = comment
        .strip_prefix("CONFIG_")?
        .strip_suffix(" is not set")?;
    is_name(name).then_some((name, Setting::No))
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Parses the version from a heading such as ` Linux/x86 6.1.192 Kernel Configuration`.
fn release(comment: &str) -> Option<String> {
    let words = comment.trim().strip_suffix("Kernel Configuration")?;
    let version = words.split_whitespace().next_back()?;
    version
        .starts_with(|first: char| first.is_ascii_digit())
        .then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_settings_and_version() {
        let config = parse(
            b"#\n# Automatically generated file; DO NOT EDIT.\n\
              # Linux/x86 6.1.192 Kernel Configuration\n#\n\
              CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"text\"\r\nCONFIG_E=n\n\
              some line of another tool\n",
        )
        .unwrap();
        assert_eq!(config.release.as_deref(), Some("6.1.192"));
        assert_eq!(config.version(), Some((6, 1)));
        for (name, setting) in [
            ("A", Setting::BuiltIn),
            ("B", Setting::Module),
            ("C", Setting::No),
            ("D", Setting::BuiltIn),
            ("E", Setting::No),
            ("F", Setting::No),
        ] {
            assert_eq!(config.setting(name), setting, "{name}");
        }
    }

    #[test]
    fn versions_of_vendors_are_read_too() {
        let heading =
            b"# Linux/x86_64 4.14.246-198.474.amzn2.x86_64 Kernel Configuration\nCONFIG_A=y";
        assert_eq!(parse(heading).unwrap().version(), Some((4, 14)));
        assert_eq!(parse(b"CONFIG_A=y").unwrap().version(), None);
    }

    #[test]
    fn what_is_no_configuration_is_said_with_its_line() {
        let error = parse(b"# a comment\n\nversion: v1\nname: x\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 3: \"version: v1\" is no line of a kernel configuration, and no other line is \
             one; expected lines such as CONFIG_NET=y"
        );
        assert!(matches!(
            parse(b"# only\n"),
            Err(ConfigError::NoOptions { line: 1, .. })
        ));
        assert_eq!(parse(b" \n").unwrap_err(), ConfigError::Empty);
        assert_eq!(parse(b"\x1f\x8b\x08").unwrap_err(), ConfigError::Gzip);
        // The start of a binary file, such as a kernel image.
        let binary: Vec<u8> = (0..=255).cycle().take(4096).collect();
        assert!(matches!(parse(&binary), Err(ConfigError::NoOptions { .. })));
        assert!(parse(b"CONFIG_=y\nCONFIG_A-B=y\n# CONFIG_ is not set\n").is_err());
    }
}
