//! The phase of a drain: who waits for it is woken.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use loom::future::block_on;
use loom::thread;

use crate::drain::phase::Phase;
use crate::drain::signal::PhaseSignal;

/// Two tasks wait for two phases, which come while they begin to.
pub(crate) fn advance() {
    let now = Instant::now();
    let signal = Arc::new(PhaseSignal::new(now));
    let other = thread::spawn({
        let signal = Arc::clone(&signal);
        move || {
            block_on(signal.reached(Phase::Forced));
            assert!(signal.has_reached(Phase::Forced));
        }
    });
    let advances = thread::spawn({
        let signal = Arc::clone(&signal);
        move || {
            assert!(signal.advance(Phase::Draining, now, Duration::ZERO));
            assert!(signal.advance(Phase::Forced, now, Duration::ZERO));
            assert!(!signal.advance(Phase::Flushing, now, Duration::ZERO));
        }
    });
    block_on(signal.reached(Phase::Draining));
    assert!(signal.step().phase >= Phase::Draining);
    other.join().unwrap();
    advances.join().unwrap();
}

/// A task waits no more just when the phase comes; another one has its place then.
pub(crate) fn give_up() {
    let now = Instant::now();
    let signal = Arc::new(PhaseSignal::new(now));
    let advances = thread::spawn({
        let signal = Arc::clone(&signal);
        move || assert!(signal.advance(Phase::Draining, now, Duration::ZERO))
    });
    block_on(async {
        let mut once = Some(Box::pin(signal.reached(Phase::Draining)));
        poll_fn(|cx| {
            if let Some(reached) = &mut once {
                let _ = reached.as_mut().poll(cx);
            }
            once = None;
            Poll::Ready(())
        })
        .await;
        let mut again = pin!(signal.reached(Phase::Draining));
        again.as_mut().await;
    });
    advances.join().unwrap();
}
