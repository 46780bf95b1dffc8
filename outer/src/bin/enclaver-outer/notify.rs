//! What the service manager is told (sd_notify(3)). Without one, nothing happens here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// Longest status; the rest of a line would not be read at 3 a.m.
const LONGEST_STATUS: usize = 500;

/// Tells the service manager.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    status: String,
}

impl Notifier {
    /// The service is there.
    pub(crate) fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// The settings are being read again. Ended by [`Notifier::ready`], whatever came of it.
    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => warn!(%error, "no monotonic clock"),
        }
    }

    /// The service ends; it may take until the extension is over.
    pub(crate) fn stopping(&self, extension: Duration) {
        send(&[NotifyState::Stopping, extend(extension)]);
    }

    /// It takes longer: again so much from now on.
    pub(crate) fn extend(&self, extension: Duration) {
        send(&[extend(extension)]);
    }

    /// One line for an operator. Sent only when it is another than the last one.
    pub(crate) fn status(&mut self, line: &str) {
        // A line end would begin another message.
        let line: String = line
            .chars()
            .take(LONGEST_STATUS)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if line != self.status {
            send(&[NotifyState::Status(&line)]);
            self.status = line;
        }
    }
}

/// Tells the watchdog that the runtime works, until the end of the process.
///
/// The clock is that of the calling task, and the word comes from a task that a worker of the
/// runtime has to run: when neither or only one of them works, the watchdog bites.
pub(crate) async fn beat() {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut interval = tokio::time::interval((interval / 2).max(Duration::from_millis(1)));
    loop {
        interval.tick().await;
        tokio::spawn(async { send(&[NotifyState::Watchdog]) });
    }
}

fn extend(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

fn send(state: &[NotifyState<'_>]) {
    static COMPLAINED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = sd_notify::notify(state)
        && !COMPLAINED.swap(true, Ordering::Relaxed)
    {
        warn!(%error, "can't tell the service manager (NOTIFY_SOCKET)");
    }
}
