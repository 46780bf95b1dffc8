//! Writes the feeds of guests to the logs, or to the registry of guests.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use odyn_link::{FeedSink, Peer};
use odyn_proto::wire::feed::{FeedRecord, Opening};
use odyn_proto::{GuestState, Refusal};
use tokio::sync::OwnedMutexGuard;

use super::Guests;
use super::registry::{FeedProgress, RunKey, WriterState};
use crate::logs::FeedOutput;

/// The feed that carries the state of a guest.
const STATUS: &str = "status";

impl Guests {
    /// Opens a feed. Waits for a write to the same feed that is still going on.
    pub(crate) async fn open(
        &self,
        opening: Opening,
        peer: Peer,
    ) -> Result<Box<dyn FeedSink>, Refusal> {
        let (key, progress, feed) = self.registry().admit(&opening.guest, &opening.name, peer)?;
        let open_feed = Arc::new(OpenFeed {
            guests: self.clone(),
            key,
        });
        self.changed();
        let output = if feed == STATUS {
            None
        } else {
            let label = self.label(key).ok_or(Refusal::Internal)?;
            Some(
                self.shared
                    .destination
                    .output(&label, feed, opening.guest.run),
            )
        };
        let mut turn = Arc::clone(&progress.turn).lock_owned().await;
        turn.opening += 1;
        // The guest may have had the feed open with an earlier host process: a file knows how far
        // that one wrote.
        let known = match &output {
            Some(output) if turn.next == 0 => output.recover().await,
            _ => None,
        };
        let next = turn.next.max(opening.first).max(known.unwrap_or(0));
        turn.next = next;
        progress.written.store(next, Ordering::Release);
        Ok(Box::new(GuestFeedSink {
            open_feed,
            opening: turn.opening,
            next,
            progress,
            output,
        }))
    }

    fn label(&self, key: RunKey) -> Option<String> {
        let registry = self.registry();
        Some(registry.guests.get(&key)?.label.clone())
    }
}

/// Counts a feed as open until it is dropped.
#[derive(Debug)]
struct OpenFeed {
    guests: Guests,
    key: RunKey,
}

impl Drop for OpenFeed {
    fn drop(&mut self) {
        self.guests.leave(self.key);
    }
}

struct GuestFeedSink {
    open_feed: Arc<OpenFeed>,
    progress: Arc<FeedProgress>,
    /// The number of this opening of the feed.
    opening: u64,
    next: u64,
    /// `None` for the feed that carries the state.
    output: Option<FeedOutput>,
}

impl GuestFeedSink {
    /// Waits for the right to write; refused once the guest has opened the feed again.
    async fn turn(
        progress: &FeedProgress,
        opening: u64,
    ) -> Result<OwnedMutexGuard<WriterState>, Refusal> {
        let turn = Arc::clone(&progress.turn).lock_owned().await;
        if turn.opening == opening {
            Ok(turn)
        } else {
            Err(Refusal::BadRequest)
        }
    }
}

impl FeedSink for GuestFeedSink {
    fn next(&self) -> u64 {
        self.next
    }

    fn write(&mut self, records: Vec<FeedRecord>) -> BoxFuture<'_, Result<(), Refusal>> {
        let (progress, opening, output) = (
            Arc::clone(&self.progress),
            self.opening,
            self.output.clone(),
        );
        let open_feed = Arc::clone(&self.open_feed);
        // A task: the write goes on when the connection that asked for it breaks, and the next
        // opening of the feed waits for it.
        let task = tokio::spawn(async move {
            let mut turn = Self::turn(&progress, opening).await?;
            let next = turn.next + records.len() as u64;
            match output {
                Some(output) => output.write(&records, next).await,
                None => {
                    for state in records.iter().filter_map(state_of) {
                        open_feed.guests.set_state(open_feed.key, state);
                    }
                }
            }
            turn.next = next;
            progress.written.store(next, Ordering::Release);
            Ok(())
        });
        Box::pin(async move { task.await.unwrap_or(Err(Refusal::Internal)) })
    }

    fn end(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async {
            drop(Self::turn(&self.progress, self.opening).await?);
            self.progress.ended.store(true, Ordering::Release);
            self.open_feed.guests.changed();
            Ok(())
        })
    }
}

fn state_of(record: &FeedRecord) -> Option<GuestState> {
    GuestState::from_record(&record.bytes)
}
