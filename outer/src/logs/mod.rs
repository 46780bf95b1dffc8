//! Writes the logs of guests. A destination that is slow slows the logs, and no flow.

mod files;
mod lines;
mod stdout;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use odyn_proto::RunId;
use odyn_proto::wire::feed::FeedRecord;

use self::files::{LogFile, LogFiles};
use self::lines::LinePrefix;
use self::stdout::StdoutWriter;

/// Wait before a failed write is tried again, as on a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// Where the logs of the guests go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GuestLogs {
    /// Nowhere.
    #[default]
    None,
    /// To standard output, each line with time, guest and stream.
    Stdout,
    /// To files, byte for byte: `DIR/NAME/stdout.log`, `stderr.log` and `log.log`.
    Directory(PathBuf),
}

/// A text that is no destination of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected stdout, none or a directory, which has a slash in it")]
pub struct GuestLogsError;

impl FromStr for GuestLogs {
    type Err = GuestLogsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "none" => Ok(Self::None),
            path if path.contains('/') => Ok(Self::Directory(path.into())),
            _ => Err(GuestLogsError),
        }
    }
}

/// An open destination of logs.
#[derive(Debug)]
pub(crate) enum LogDestination {
    Discard,
    Stdout(StdoutWriter),
    LogFiles(LogFiles),
}

impl LogDestination {
    pub(crate) fn new(logs: GuestLogs) -> std::io::Result<Self> {
        Ok(match logs {
            GuestLogs::None => Self::Discard,
            GuestLogs::Stdout => Self::Stdout(StdoutWriter::start(std::io::stdout())?),
            GuestLogs::Directory(root) => Self::LogFiles(LogFiles::new(root)?),
        })
    }

    /// Where one feed of one guest goes.
    pub(crate) fn output(&self, label: &str, feed: &'static str, run: RunId) -> FeedOutput {
        match self {
            Self::Discard => FeedOutput::Discard,
            Self::Stdout(writer) => FeedOutput::Lines(writer.clone(), LinePrefix::new(label, feed)),
            Self::LogFiles(files) => FeedOutput::File(files.file(label, feed), run),
        }
    }
}

/// Where one feed goes.
#[derive(Debug, Clone)]
pub(crate) enum FeedOutput {
    Discard,
    Lines(StdoutWriter, LinePrefix),
    File(Arc<LogFile>, RunId),
}

impl FeedOutput {
    /// The number of the next record, when an earlier host process wrote those before it.
    pub(crate) async fn recover(&self) -> Option<u64> {
        match self {
            Self::File(file, run) => file.recover(*run).await,
            Self::Discard | Self::Lines(..) => None,
        }
    }

    /// Writes records, the last of which has the number before `next`. Waits until they are written.
    pub(crate) async fn write(&self, records: &[FeedRecord], next: u64) {
        match self {
            Self::Discard => {}
            Self::Lines(writer, style) => writer.write(records, style).await,
            Self::File(file, run) => file.append(records, *run, next).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read() {
        assert_eq!("stdout".parse(), Ok(GuestLogs::Stdout));
        assert_eq!("none".parse(), Ok(GuestLogs::None));
        assert_eq!("./logs".parse(), Ok(GuestLogs::Directory("./logs".into())));
        assert!("stdot".parse::<GuestLogs>().is_err());
    }
}
