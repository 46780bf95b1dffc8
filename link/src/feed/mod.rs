//! Feeds: records that the guest hands to the host, each written there before it is forgotten
//! here.
//!
//! A [`Feed`] is a queue of bounded size. The client carries its records on a stream of the link
//! and keeps each until the host has acknowledged it, which the host does only when its
//! [`FeedSink`] has written it. When the connection is lost, the feed is opened again on another
//! one: the host says which record it wants next, so none is lost, and while the host half lives
//! none comes twice. What the records mean is not known here. The format is in
//! [`wire::feed`](odyn_proto::wire::feed).

pub(crate) mod carry;
mod queue;
pub(crate) mod serve;

use futures::future::BoxFuture;

pub use queue::{Feed, FeedBacklog, now};

use odyn_proto::Refusal;
use odyn_proto::wire::feed::FeedRecord;

/// Where the host writes one feed, while it is open.
///
/// The futures are dropped when the stream is reset or the connection is lost. What was begun must
/// be finished all the same, before the sink that is made for the next opening says what it wants.
pub trait FeedSink: Send {
    /// Number of the record that comes next: all before it are written for good.
    fn next(&self) -> u64;

    /// Writes records. Ready when they are written for good: they are acknowledged then.
    fn write(&mut self, records: Vec<FeedRecord>) -> BoxFuture<'_, Result<(), Refusal>>;

    /// The feed has ended: nothing comes any more.
    fn end(&mut self) -> BoxFuture<'_, Result<(), Refusal>>;
}
