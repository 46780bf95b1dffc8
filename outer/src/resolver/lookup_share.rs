//! Divides the lookups of a resolver between the guests.

use std::sync::Arc;

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

/// Most lookups of one guest at once: a quarter, so that one guest cannot take all.
const MAX_LOOKUPS_OF_ONE_GUEST: usize = 64;

/// The lookups that one guest may have at once, also across a change of the resolver. Clones share.
#[derive(Debug, Clone)]
pub struct LookupShare(Arc<Semaphore>);

impl Default for LookupShare {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS_OF_ONE_GUEST)))
    }
}

impl LookupShare {
    pub(super) async fn acquire(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.0.acquire().await
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{honest, query, server};
    use super::super::{MAX_LOOKUPS, SystemResolver};
    use super::*;
    use hickory_proto::op::{Message, ResponseCode};
    use hickory_proto::rr::RecordType;

    #[tokio::test]
    async fn a_guest_that_asks_without_end_leaves_room_for_the_others() {
        let (address, _) = server(|message| {
            let name = message.queries[0].name().to_ascii();
            match name.starts_with("silent") {
                true => Vec::new(),
                false => honest(message),
            }
        })
        .await;
        let resolver = Arc::new(SystemResolver::fixed(vec![address]));
        let (greedy, modest) = (LookupShare::default(), LookupShare::default());
        let mut flood = tokio::task::JoinSet::new();
        for _ in 0..2 * MAX_LOOKUPS {
            let (resolver, greedy) = (Arc::clone(&resolver), greedy.clone());
            let query = query("silent.test.", RecordType::A);
            flood.spawn(async move { resolver.exchange(query, &greedy).await });
        }
        while resolver.permits.available_permits() > MAX_LOOKUPS - MAX_LOOKUPS_OF_ONE_GUEST {
            tokio::task::yield_now().await;
        }
        let answer = resolver.exchange(query("www.test.", RecordType::A), &modest);
        let answer = Message::from_vec(&answer.await.expect("a query")).expect("readable");
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(answer.answers.len(), 1);
        let free = resolver.permits.available_permits();
        assert_eq!(
            free,
            MAX_LOOKUPS - MAX_LOOKUPS_OF_ONE_GUEST,
            "the others are under way"
        );
    }
}
