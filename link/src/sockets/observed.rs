//! A descriptor that others use for as long as its owner has it open.

use std::sync::Arc;

use crate::sync::Mutex;

/// The descriptor as others have it. `None`: the owner has closed it, or is about to.
#[derive(Debug)]
pub(crate) struct Lent<D>(Mutex<Option<D>>);

impl<D: Copy> Lent<D> {
    /// Does something with the descriptor while it is certainly open; `None` when it is closed.
    pub(crate) fn with<R>(&self, work: impl FnOnce(D) -> R) -> Option<R> {
        let descriptor = self.0.lock();
        // Under the lock: the owner takes the descriptor back under it before it closes it.
        (*descriptor).map(work)
    }
}

/// The owner of a descriptor, with what is lent of it. The descriptor is taken back before the
/// owner is dropped.
#[derive(Debug)]
pub(crate) struct Observed<S, D> {
    // In this order they are dropped.
    loan: Loan<D>,
    owner: S,
}

#[derive(Debug)]
struct Loan<D>(Option<Arc<Lent<D>>>);

impl<S, D> Observed<S, D> {
    /// An owner of which nothing is lent yet.
    pub(crate) fn new(owner: S) -> Self {
        Self {
            loan: Loan(None),
            owner,
        }
    }

    /// Lends the descriptor, which must be the owner's; the same loan each time.
    pub(crate) fn lend(&mut self, descriptor: impl FnOnce(&S) -> D) -> Arc<Lent<D>> {
        let lent = self
            .loan
            .0
            .get_or_insert_with(|| Arc::new(Lent(Mutex::new(Some(descriptor(&self.owner))))));
        Arc::clone(lent)
    }

    /// Has the owner changed into another of the same descriptor. Where that fails, the descriptor
    /// is closed. No thread uses it meanwhile.
    pub(crate) fn try_map<T, E>(
        self,
        change: impl FnOnce(S) -> Result<T, E>,
    ) -> Result<Observed<T, D>, E> {
        let Self { loan, owner } = self;
        let mut lent = loan.0.as_ref().map(|lent| lent.0.lock());
        let changed = change(owner);
        if let (Err(_), Some(lent)) = (&changed, &mut lent) {
            **lent = None;
        }
        drop(lent);
        Ok(Observed {
            loan,
            owner: changed?,
        })
    }

    pub(crate) fn get(&self) -> &S {
        &self.owner
    }

    /// The owner must keep its descriptor.
    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.owner
    }
}

impl<D> Drop for Loan<D> {
    fn drop(&mut self) {
        if let Some(lent) = &self.0 {
            *lent.0.lock() = None;
        }
    }
}
