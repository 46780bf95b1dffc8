//! Messages to the service manager (sd_notify(3)). Without one, nothing is sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// Longest status line, in characters.
const MAX_STATUS: usize = 500;

/// Sends messages to the service manager.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    status: String,
}

impl Notifier {
    /// The service is ready, or a reload is over.
    pub(crate) fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// A reload begins. [`Notifier::ready`] ends it, also when the reload failed.
    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => warn!(%error, "no monotonic clock"),
        }
    }

    /// The service stops, which may take as long as the extension.
    pub(crate) fn stopping(&self, extension: Duration) {
        send(&[NotifyState::Stopping, extend(extension)]);
    }

    /// Asks for more time: the extension counts from now.
    pub(crate) fn extend(&self, extension: Duration) {
        send(&[extend(extension)]);
    }

    /// The status line for the operator. Sent only when it changes.
    pub(crate) fn status(&mut self, line: &str) {
        // A line end would begin another variable of the message.
        let line: String = line
            .chars()
            .take(MAX_STATUS)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if line != self.status {
            send(&[NotifyState::Status(&line)]);
            self.status = line;
        }
    }
}

/// Feeds the watchdog for as long as the runtime works. Never ends.
///
/// The calling task keeps the time, and another task of the runtime sends the message: when either
/// of them hangs, the service manager restarts the service.
pub(crate) async fn feed_watchdog() {
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
