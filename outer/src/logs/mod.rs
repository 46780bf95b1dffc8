//! Where the logs of the guests go. Whatever it is, it takes no more than it can write: a guest
//! waits, and its flows and the other guests do not.

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

/// Pause after a write failed, as on a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// Where the logs of the guests go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GuestLogs {
    /// Nowhere.
    #[default]
    None,
    /// To standard output, each line with its time, its guest and its stream.
    Stdout,
    /// To files, byte for byte: `DIR/NAME/stdout.log`, `stderr.log` and `log.log`.
    Directory(PathBuf),
}

impl FromStr for GuestLogs {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "none" => Ok(Self::None),
            path if path.contains('/') => Ok(Self::Directory(path.into())),
            _ => Err("expected stdout, none or a directory, which has a slash in it"),
        }
    }
}

/// The same, ready to be written to.
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

    /// For one feed of one guest.
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
    /// Which record is next after those that a host half before this one has written.
    pub(crate) async fn recover(&self) -> Option<u64> {
        match self {
            Self::File(file, run) => file.recover(*run).await,
            Self::Discard | Self::Lines(..) => None,
        }
    }

    /// Writes records, of which the last is the one before `next`. Waits for as long as it takes.
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
    fn destinations_are_told_apart() {
        assert_eq!("stdout".parse(), Ok(GuestLogs::Stdout));
        assert_eq!("none".parse(), Ok(GuestLogs::None));
        assert_eq!("./logs".parse(), Ok(GuestLogs::Directory("./logs".into())));
        assert!("stdot".parse::<GuestLogs>().is_err());
    }
}
