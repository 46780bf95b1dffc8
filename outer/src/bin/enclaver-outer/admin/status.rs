//! `GET /status?watch=1`: the status again after each change.

use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::control_socket::AdminView;
use super::{Body, json_line};

/// The status now, and a line for each change of it.
pub(super) fn changes(view: &AdminView) -> Body {
    let mut guests = view.guests.changes();
    guests.mark_changed();
    let changes = (guests, view.listeners.changes());
    let lines = futures::stream::unfold(
        (view.clone(), changes, None),
        |(view, (mut guests, mut listeners), last)| async move {
            loop {
                tokio::select! {
                    changed = guests.changed() => changed.ok()?,
                    changed = listeners.changed() => changed.ok()?,
                }
                let report = view.report();
                if last.as_ref() != Some(&report) {
                    let frame = Frame::data(json_line(&report));
                    return Some((Ok(frame), (view, (guests, listeners), Some(report))));
                }
            }
        },
    );
    StreamBody::new(lines).boxed()
}
