//! A host that does not say what it has delivered, or says nonsense: the end of the guest
//! comes in time all the same, and nothing counts as delivered.
#![allow(missing_docs)]

mod common;

use std::future::pending;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, Request, Response, StatusCode};
use odyn_link::{End, HostLink};
use odyn_proto::Target;
use tokio::io::AsyncWriteExt;

use common::{App, LIMIT, bad_host, hold, soon};

const SENT: u64 = 100_000;

/// How the host answers `POST /flush`.
#[derive(Clone, Copy)]
enum Flush {
    Never,
    Refused,
    Reset,
    Body(&'static [u8]),
    Endless,
    /// In pieces, and then no end.
    NoEnd,
}

/// A host that takes every flow and reads it to its end.
async fn host(flush: Flush) -> (tempfile::TempDir, HostLink) {
    let held = Mutex::new(Vec::new());
    bad_host(move |request, respond| {
        if request.method() == Method::CONNECT {
            take(request, respond);
        } else {
            answer(flush, respond, &held);
        }
    })
    .await
}

fn take(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    hold(respond.send_response(Response::new(()), false).unwrap());
    let mut body = request.into_body();
    tokio::spawn(async move {
        while let Some(Ok(bytes)) = body.data().await {
            let _ = body.flow_control().release_capacity(bytes.len());
        }
        pending::<()>().await;
    });
}

fn answer(flush: Flush, mut respond: SendResponse<Bytes>, held: &Mutex<Vec<SendResponse<Bytes>>>) {
    let mut response = Response::new(());
    match flush {
        Flush::Never => held.lock().unwrap().push(respond),
        Flush::Refused => {
            *response.status_mut() = StatusCode::BAD_REQUEST;
            let _ = respond.send_response(response, true);
        }
        Flush::Reset => respond.send_reset(h2::Reason::INTERNAL_ERROR),
        Flush::Body(body) => {
            let mut send = respond.send_response(response, false).unwrap();
            let _ = send.send_data(Bytes::from_static(body), true);
        }
        Flush::NoEnd => {
            let mut send = respond.send_response(response, false).unwrap();
            let _ = send.send_data(Bytes::from_static(b"1 2 3 "), false);
            hold(send);
        }
        Flush::Endless => {
            let mut send = respond.send_response(response, false).unwrap();
            tokio::spawn(async move {
                let junk = Bytes::from(vec![b'1'; 16_384]);
                loop {
                    send.reserve_capacity(junk.len());
                    let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
                    if !matches!(room, Some(Ok(_))) || send.send_data(junk.clone(), false).is_err()
                    {
                        return;
                    }
                }
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_usable_answer_nothing_counts_as_delivered() {
    for flush in [
        Flush::Never,
        Flush::Refused,
        Flush::Reset,
        Flush::Body(b"\n"),
        Flush::Body(b"all is well"),
        Flush::Body(b"1 2 3 203.0.113.7:443"),
        Flush::Endless,
        Flush::NoEnd,
    ] {
        let (_dir, client) = host(flush).await;
        let mut app = App::relayed(
            client
                .connect_tcp(&Target::host_loopback(80))
                .await
                .unwrap(),
        )
        .await;
        app.tcp.write_all(&vec![7; SENT as usize]).await.unwrap();
        drop(app.tcp);
        soon("all of it taken", async {
            while app.counters.get().0 < SENT {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let start = Instant::now();
        let limit = Duration::from_millis(300);
        client.begin_drain(limit);
        let drained = soon("drain", client.drain(pending())).await;
        assert!(start.elapsed() < LIMIT / 2);
        assert_eq!((drained.cut, drained.undelivered), (1, SENT));
        assert_eq!(
            soon("end", app.relay).await.unwrap(),
            End::Cut { undelivered: SENT }
        );
        soon("close", client.close(Duration::from_millis(100))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_that_make_no_sense_are_bounded_by_what_was_sent() {
    for (body, undelivered) in [
        (b"1 0 0 203.0.113.7:443\n".as_slice(), SENT),
        (b"1 99999 5 203.0.113.7:443\n", 1),
        (b"1 18446744073709551615 5 203.0.113.7:443\n", 0),
        (b"3 0 18446744073709551615 203.0.113.7:443\n", 0),
    ] {
        let (_dir, client) = host(Flush::Body(body)).await;
        let mut app = App::relayed(
            client
                .connect_tcp(&Target::host_loopback(80))
                .await
                .unwrap(),
        )
        .await;
        app.tcp.write_all(&vec![7; SENT as usize]).await.unwrap();
        drop(app.tcp);
        client.begin_drain(LIMIT);
        let drained = soon("drain", client.drain(pending())).await;
        assert_eq!(drained.undelivered, undelivered);
        let cut = soon("end", app.relay).await.unwrap() != End::Closed;
        assert_eq!(cut, undelivered > 0);
        assert_eq!(drained.earlier.len(), usize::from(body.starts_with(b"3")));
    }
}
