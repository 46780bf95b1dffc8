//! odyn-net's own log.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::exit::{Failure, StartError};

/// These log a warning for each malformed message: the program could fill the disk with them.
const QUIETED: &str = "hickory_proto=error";

/// Sends the log to a file, to standard error (`-`), or nowhere.
///
/// # Errors
/// The file cannot be opened or the filter is not one.
pub fn start(destination: Option<&Path>, level: &str) -> Result<(), StartError> {
    let filter = EnvFilter::try_new(format!("{QUIETED},{level}")).map_err(|error| {
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
