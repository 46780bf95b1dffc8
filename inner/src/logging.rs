//! odyn-net's own log.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::exit::{Failure, StartError};

/// What the libraries below us may say. hickory_proto warns of each malformed message, and h2
/// traces each frame: the program could fill the disk with either.
const LIBRARIES: &str = "warn,hickory_proto=error";
/// The targets of our own crates.
const OURS: [&str; 4] = ["odyn_net", "odyn_link", "odyn_dns", "enclaver_outer"];

/// Sends the log to a file, to standard error (`-`), or nowhere.
///
/// # Errors
/// The file cannot be opened or the filter is not one.
pub fn start(destination: Option<&Path>, level: &str) -> Result<(), StartError> {
    let filter = EnvFilter::try_new(directives(level)).map_err(|error| {
        StartError::new(Failure::Usage, format!("--log-level {level}: {error}"))
    })?;
    let Some(path) = destination else {
        return Ok(());
    };
    let writer = if path == Path::new("-") {
        BoxMakeWriter::new(io::stderr)
    } else {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| {
                StartError::new(
                    Failure::Output,
                    format!("--log {}: {error}", path.display()),
                )
            })?;
        BoxMakeWriter::new(Mutex::new(file))
    };
    // Fails only when a log was set up before, which main does not do.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(writer)
        .try_init();
    Ok(())
}

/// A bare level is meant for our own crates; a filter is taken as it is.
fn directives(level: &str) -> String {
    if level.contains(['=', ',']) {
        return level.to_owned();
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
        assert_eq!(directives("h2=trace,info"), "h2=trace,info");
    }

    #[test]
    fn a_wrong_level_is_a_usage_error() {
        let error = start(None, "loud").unwrap_err();
        assert_eq!(error.failure, Failure::Usage);
        assert!(error.message.contains("loud"));
    }
}
