//! Sets up odyn-net's own log.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::telemetry::LogFeed;

/// Levels of libraries whose log lines an app can cause. hickory_proto warns of each malformed
/// message, and h2 traces each frame: the app could fill the disk with either.
const LIBRARIES: &str = "warn,hickory_proto=error";
/// aws_sigv4 traces what it signs, session tokens included. No filter of the user enables that.
const NEVER: &str = "aws_sigv4=warn";
/// The log targets of our own crates.
const OURS: [&str; 4] = ["odyn_net", "odyn_link", "odyn_dns", "odyn_kms"];

/// The reason why the log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The value of `--log-level` is neither a level nor a filter.
    #[error("--log-level {level}: {source}")]
    Level {
        /// The value.
        level: String,
        /// The parser's message.
        source: ParseError,
    },
    /// The file cannot be opened.
    #[error("--log {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Sends the log to a file or standard error (`-`), to the host, to both, or nowhere.
///
/// # Errors
/// The file cannot be opened, or the filter cannot be parsed.
pub fn start(
    destination: Option<&Path>,
    level: &str,
    host: Option<LogFeed>,
) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(directives(level)).map_err(|source| LogError::Level {
        level: level.to_owned(),
        source,
    })?;
    let file = destination.map(open).transpose()?;
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
    if let Some(writer) = file {
        layers.push(fmt::layer().with_ansi(false).with_writer(writer).boxed());
    }
    if let Some(feed) = host {
        let lines = fmt::layer().with_ansi(false).with_writer(feed);
        layers.push(lines.with_filter(filter_fn(is_for_the_host)).boxed());
    }
    if layers.is_empty() {
        return Ok(());
    }
    // This fails only when a log was set up before, which main does not do.
    let _ = tracing_subscriber::registry()
        .with(layers)
        .with(filter)
        .try_init();
    Ok(())
}

fn open(path: &Path) -> Result<BoxMakeWriter, LogError> {
    if path == Path::new("-") {
        return Ok(BoxMakeWriter::new(io::stderr));
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| LogError::Open {
            path: path.to_owned(),
            source,
        })?;
    Ok(BoxMakeWriter::new(Mutex::new(file)))
}

/// The link carries the host's copy of the log. Events of the link's frames are left out: each
/// would be carried in a frame and cause the next.
fn is_for_the_host(event: &Metadata<'_>) -> bool {
    let is = |target: &str| event.target().split("::").next() == Some(target);
    *event.level() <= Level::WARN
        || (OURS.into_iter().any(is) && !event.target().starts_with("odyn_link::feed"))
}

/// A level alone applies to our own crates; a filter is used as it is.
fn directives(level: &str) -> String {
    if level.contains(['=', ',']) {
        return format!("{level},{NEVER}");
    }
    OURS.iter()
        .fold(LIBRARIES.to_owned(), |directives, target| {
            format!("{directives},{target}={level}")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_leaves_the_libraries_quiet() {
        assert!(directives("debug").starts_with("warn,hickory_proto=error,odyn_net=debug"));
        assert_eq!(directives("h2=trace,info"), "h2=trace,info,aws_sigv4=warn");
    }

    #[test]
    fn a_wrong_level_is_a_usage_error() {
        let error = start(None, "loud", None).unwrap_err();
        assert!(matches!(error, LogError::Level { .. }));
        assert!(error.to_string().contains("loud"));
    }
}
