//! Feeds: records that the guest keeps until the host has written them.
//!
//! A [`Feed`] is a queue of bounded size. The guest carries its records on a stream of the link,
//! and keeps each until the host has acknowledged it. The host does so only when its [`FeedSink`]
//! has written the record. When the connection is lost, the guest opens the feed again on another.
//! The host then says which record it wants next: none is lost, and none comes twice while the host
//! process lives. This module does not know what the records mean.
//! [`wire::feed`](odyn_proto::wire::feed) specifies the format.

pub(crate) mod carry;
mod queue;
pub(crate) mod serve;

use futures::future::BoxFuture;

pub use queue::{Feed, FeedBacklog, now};

use odyn_proto::Refusal;
use odyn_proto::wire::feed::FeedRecord;

/// Where the host writes one open feed.
///
/// The futures are dropped when the stream is reset or the connection is lost. The sink must still
/// finish what it began, before the sink of the next opening says what it wants.
pub trait FeedSink: Send {
    /// Number of the record that comes next; all before it are written for good.
    fn next(&self) -> u64;

    /// Writes records. Ready when they are written for good; the host acknowledges them then.
    fn write(&mut self, records: Vec<FeedRecord>) -> BoxFuture<'_, Result<(), Refusal>>;

    /// Notes that the feed has ended: no record follows.
    fn end(&mut self) -> BoxFuture<'_, Result<(), Refusal>>;
}
