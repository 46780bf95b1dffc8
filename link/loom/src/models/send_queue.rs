//! The send queue of a socket: no thread uses a descriptor that is closed.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::observed::Observed;

/// The kernel's side of a descriptor.
type IsOpen = Arc<AtomicBool>;

/// The owner of a descriptor, which closes it.
struct Socket(IsOpen);

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn open() -> (IsOpen, Observed<Socket, usize>) {
    let is_open = Arc::new(AtomicBool::new(true));
    (Arc::clone(&is_open), Observed::new(Socket(is_open)))
}

/// Two threads look at the descriptor while its owner closes it.
pub(crate) fn look_and_close() {
    let (is_open, mut socket) = open();
    let looks: Vec<_> = (0..2)
        .map(|_| {
            let (lent, is_open) = (socket.lend(|_| 7), Arc::clone(&is_open));
            thread::spawn(move || {
                let look = |_| assert!(is_open.load(Ordering::Relaxed), "closed");
                let _ = lent.with(look);
            })
        })
        .collect();
    let lent = socket.lend(|_| 7);
    drop(socket);
    assert!(lent.with(|_| ()).is_none());
    for look in looks {
        look.join().unwrap();
    }
}

/// The owner gives the descriptor to another one, which fails and closes it.
pub(crate) fn look_and_move() {
    let (is_open, mut socket) = open();
    let lent = socket.lend(|_| 7);
    let looks = thread::spawn(move || {
        for _ in 0..2 {
            let look = |_| assert!(is_open.load(Ordering::Relaxed), "closed");
            let _ = lent.with(look);
        }
    });
    let socket = socket.try_map(Ok::<_, ()>).unwrap();
    let failed = socket.try_map(|socket| {
        drop(socket);
        Err::<Socket, ()>(())
    });
    assert!(failed.is_err());
    looks.join().unwrap();
}
