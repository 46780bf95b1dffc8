//! `enclaver-outer status`.

use std::io;
use std::io::{IsTerminal, Write};
use std::path::Path;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::report::StatusReport;
use super::table;
use crate::cli::StatusArgs;

/// Longest line of an answer, in bytes.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    /// Nothing listens at the control socket, or it may not be opened.
    #[error("no enclaver-outer answers at {path}: {source} (is it running, with --control?)")]
    NoAnswer { path: String, source: io::Error },
    /// The connection broke, or the answer is no HTTP.
    #[error("the connection to enclaver-outer failed: {0}")]
    Connection(#[source] hyper::Error),
    /// The request can't be made.
    #[error("can't ask for the status: {0}")]
    Request(#[source] hyper::http::Error),
    /// The answer is an error.
    #[error("enclaver-outer answers {0}")]
    Refused(StatusCode),
    /// A line is longer than [`MAX_LINE`].
    #[error("the answer of enclaver-outer is too long")]
    TooLong,
    /// A line is no status.
    #[error("the answer of enclaver-outer is no status: {0}")]
    NotAStatus(#[source] serde_json::Error),
    /// The answer has no line.
    #[error("the answer of enclaver-outer is empty")]
    Empty,
    /// The daemon stopped while it was watched.
    #[error("enclaver-outer has stopped")]
    Stopped,
    /// Standard output can't be written.
    #[error("can't print the status: {0}")]
    Print(#[source] io::Error),
}

/// Asks the daemon for the status, and prints it.
pub(crate) async fn print_status(args: &StatusArgs) -> Result<(), StatusError> {
    let mut body = ask(&args.control, args.watch).await?;
    let mut buffer = BytesMut::new();
    let mut first = true;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(StatusError::Connection)?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if buffer.len() + data.len() > MAX_LINE {
            return Err(StatusError::TooLong);
        }
        buffer.extend_from_slice(data);
        while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
            let line = buffer.split_to(end).freeze();
            buffer.advance(1);
            print(&line, args.json, first)?;
            first = false;
        }
    }
    if args.watch {
        return Err(StatusError::Stopped);
    }
    if first {
        return Err(StatusError::Empty);
    }
    Ok(())
}

async fn ask(path: &Path, watch: bool) -> Result<hyper::body::Incoming, StatusError> {
    let socket = UnixStream::connect(path)
        .await
        .map_err(|source| StatusError::NoAnswer {
            path: path.display().to_string(),
            source,
        })?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(socket))
        .await
        .map_err(StatusError::Connection)?;
    tokio::spawn(connection);
    let request = Request::get(if watch { "/status?watch=1" } else { "/status" })
        .header(header::HOST, "enclaver-outer")
        .body(Empty::<Bytes>::new())
        .map_err(StatusError::Request)?;
    let response = requests
        .send_request(request)
        .await
        .map_err(StatusError::Connection)?;
    if response.status() != StatusCode::OK {
        return Err(StatusError::Refused(response.status()));
    }
    Ok(response.into_body())
}

fn print(line: &[u8], json: bool, first: bool) -> Result<(), StatusError> {
    let mut out = io::stdout().lock();
    let mut text = if json {
        [line, b"\n"].concat()
    } else {
        let snapshot: StatusReport =
            serde_json::from_slice(line).map_err(StatusError::NotAStatus)?;
        table::render(&snapshot).into_bytes()
    };
    if !json && !first {
        // On a terminal, each table replaces the last one.
        let between: &[u8] = if out.is_terminal() {
            b"\x1b[H\x1b[2J"
        } else {
            b"\n"
        };
        text.splice(..0, between.iter().copied());
    }
    out.write_all(&text)
        .and_then(|()| out.flush())
        .map_err(StatusError::Print)
}
