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

/// Longest answer that is taken, in bytes.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    #[error("no host half answers at {path}: {source} (is it running, with --control?)")]
    NotThere { path: String, source: io::Error },
    #[error("the host half is gone: {0}")]
    Gone(String),
    #[error("can't print the status: {0}")]
    Print(#[source] io::Error),
}

/// Asks the host half, and prints what it says.
pub(crate) async fn print_status(args: &StatusArgs) -> Result<(), StatusError> {
    let mut body = ask(&args.control, args.watch).await?;
    let mut buffer = BytesMut::new();
    let mut first = true;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(gone)?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if buffer.len() + data.len() > MAX_LINE {
            return Err(StatusError::Gone("its answer is too long".into()));
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
        return Err(StatusError::Gone("it has stopped".into()));
    }
    if first {
        return Err(StatusError::Gone("it said nothing".into()));
    }
    Ok(())
}

async fn ask(path: &Path, watch: bool) -> Result<hyper::body::Incoming, StatusError> {
    let socket = UnixStream::connect(path)
        .await
        .map_err(|source| StatusError::NotThere {
            path: path.display().to_string(),
            source,
        })?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(gone)?;
    tokio::spawn(connection);
    let request = Request::get(if watch { "/status?watch=1" } else { "/status" })
        .header(header::HOST, "enclaver-outer")
        .body(Empty::<Bytes>::new())
        .map_err(gone)?;
    let response = requests.send_request(request).await.map_err(gone)?;
    if response.status() != StatusCode::OK {
        return Err(StatusError::Gone(format!(
            "it answers {}",
            response.status()
        )));
    }
    Ok(response.into_body())
}

fn gone(error: impl std::fmt::Display) -> StatusError {
    StatusError::Gone(error.to_string())
}

fn print(line: &[u8], json: bool, first: bool) -> Result<(), StatusError> {
    let mut out = io::stdout().lock();
    let mut text = if json {
        [line, b"\n"].concat()
    } else {
        let snapshot: StatusReport = serde_json::from_slice(line).map_err(gone)?;
        table::render(&snapshot).into_bytes()
    };
    if !json && !first {
        // Each table over the last one, where that can be.
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
