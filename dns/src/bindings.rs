//! The bindings of names to synthetic addresses.
//!
//! A binding is made when a query for a name is answered, and lives until another name needs its
//! slot. A slot may be given to another name only when both are true:
//! - no flow holds it ([`Lease`]),
//! - no answer that carried it is still in use: its time to live and the grace have passed.
//!
//! Slots that no flow holds are in a list, ordered by last use. Each use protects a slot for the
//! same time, so the list is also ordered by expiry: if its oldest slot is protected, all are, and
//! the table is exhausted.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use odyn_proto::DnsName;
use parking_lot::{Mutex, MutexGuard};

use crate::clock::now;
use crate::lru::Lru;
use crate::pool;
use crate::pool::Family;

/// The name and family that a synthetic address stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The canonical name that owns the address.
    pub name: DnsName,
    /// The family of the address.
    pub family: Family,
}

/// All slots are held, or protected after a recent answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all synthetic addresses are in use")]
pub(crate) struct Exhausted;

#[derive(Debug)]
struct BoundSlot {
    name: DnsName,
    /// From this time on, no answer that carries the slot is in use.
    free_from: Instant,
    /// The number of flows that hold the slot.
    holds: u32,
}

/// The table. Time is passed in.
#[derive(Debug)]
pub(crate) struct Bindings {
    capacity: usize,
    protect: Duration,
    slots: Vec<BoundSlot>,
    by_name: HashMap<DnsName, u32>,
    /// Slots with no holds.
    idle: Lru,
}

impl Bindings {
    /// At most `capacity` names; a slot is protected for `protect` after each use.
    pub(crate) fn new(capacity: usize, protect: Duration) -> Self {
        Self {
            capacity: capacity.min(pool::MAX_NAMES),
            protect,
            slots: Vec::new(),
            by_name: HashMap::new(),
            idle: Lru::new(),
        }
    }

    /// The slot of `name`, which is protected from now on. Makes one if there is none.
    pub(crate) fn bind(&mut self, name: &DnsName, now: Instant) -> Result<u32, Exhausted> {
        let index = match self.by_name.get(name) {
            Some(&index) => index,
            None => self.allocate(name, now)?,
        };
        self.protect(index, now);
        Ok(index)
    }

    fn allocate(&mut self, name: &DnsName, now: Instant) -> Result<u32, Exhausted> {
        let slot = BoundSlot {
            name: name.clone(),
            free_from: now,
            holds: 0,
        };
        let index = if self.slots.len() < self.capacity {
            let index = u32::try_from(self.slots.len()).map_err(|_| Exhausted)?;
            self.slots.push(slot);
            index
        } else {
            let index = self.idle.oldest().ok_or(Exhausted)?;
            let oldest = self.slots.get_mut(index as usize).ok_or(Exhausted)?;
            if oldest.free_from > now {
                return Err(Exhausted);
            }
            let evicted = std::mem::replace(oldest, slot);
            self.by_name.remove(&evicted.name);
            index
        };
        self.by_name.insert(name.clone(), index);
        Ok(index)
    }

    fn protect(&mut self, index: u32, now: Instant) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.free_from = now + self.protect;
            if slot.holds == 0 {
                self.idle.touch(index);
            }
        }
    }

    /// The name that owns slot `index`.
    pub(crate) fn name(&self, index: u32) -> Option<&DnsName> {
        self.slots.get(index as usize).map(|slot| &slot.name)
    }

    /// Keeps slot `index` from being reused until as many [`Bindings::release`] calls follow.
    pub(crate) fn hold(&mut self, index: u32) -> Option<DnsName> {
        let slot = self.slots.get_mut(index as usize)?;
        slot.holds = slot.holds.checked_add(1)?;
        self.idle.remove(index);
        Some(slot.name.clone())
    }

    /// Ends one hold. The app may use the address again soon, so the slot is protected as after an
    /// answer.
    pub(crate) fn release(&mut self, index: u32, now: Instant) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.holds = slot.holds.saturating_sub(1);
            self.protect(index, now);
        }
    }
}

/// The table, shared with the leases.
#[derive(Debug, Clone)]
pub(crate) struct SharedBindings(Arc<Mutex<Bindings>>);

impl SharedBindings {
    pub(crate) fn new(bindings: Bindings) -> Self {
        Self(Arc::new(Mutex::new(bindings)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Bindings> {
        self.0.lock()
    }

    pub(crate) fn owner(&self, address: IpAddr) -> Option<Binding> {
        let index = pool::slot(address)?;
        Some(Binding {
            name: self.lock().name(index)?.clone(),
            family: Family::of(address),
        })
    }

    pub(crate) fn hold(&self, address: IpAddr) -> Option<Lease> {
        let slot = pool::slot(address)?;
        let name = self.lock().hold(slot)?;
        Some(Lease {
            bindings: self.clone(),
            slot,
            binding: Binding {
                name,
                family: Family::of(address),
            },
        })
    }
}

/// A flow's claim on a binding: as long as it lives, the address belongs to the same name.
pub struct Lease {
    bindings: SharedBindings,
    slot: u32,
    binding: Binding,
}

impl Lease {
    /// The name and family of the address.
    #[must_use]
    pub fn binding(&self) -> &Binding {
        &self.binding
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.binding).finish()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.bindings.lock().release(self.slot, now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTECT: Duration = Duration::from_secs(90);
    const MOMENT: Duration = Duration::from_millis(1);

    fn name(index: usize) -> DnsName {
        DnsName::parse(&format!("n{index}.example")).expect("a name")
    }

    #[test]
    fn a_name_keeps_its_slot_for_itself() {
        let start = Instant::now();
        let mut table = Bindings::new(10, PROTECT);
        let slots: Vec<_> = (0..10).map(|i| table.bind(&name(i), start)).collect();
        for (i, slot) in slots.iter().enumerate() {
            assert_eq!(table.bind(&name(i), start + PROTECT), *slot);
            let index = slot.expect("room for ten");
            assert_eq!(table.name(index), Some(&name(i)));
        }
        let mut distinct: Vec<_> = slots.into_iter().flatten().collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 10);
    }

    #[test]
    fn reused_only_after_the_last_answer_has_gone_stale_oldest_first() {
        let start = Instant::now();
        let mut table = Bindings::new(2, PROTECT);
        let first = table.bind(&name(0), start).expect("empty");
        let second = table.bind(&name(1), start + MOMENT).expect("one left");
        // An answer from the cache counts as a use.
        table.bind(&name(0), start + 2 * MOMENT).expect("known");
        assert_eq!(table.bind(&name(2), start + PROTECT), Err(Exhausted));
        let later = start + PROTECT + MOMENT;
        assert_eq!(table.bind(&name(2), later), Ok(second));
        assert_eq!(table.name(second), Some(&name(2)));
        assert_eq!(table.name(first), Some(&name(0)));
        assert_eq!(table.bind(&name(1), later), Err(Exhausted));
    }

    #[test]
    fn a_held_slot_is_never_reused_however_old() {
        let start = Instant::now();
        let mut table = Bindings::new(1, PROTECT);
        let slot = table.bind(&name(0), start).expect("empty");
        assert_eq!(table.hold(slot), Some(name(0)));
        assert_eq!(table.hold(slot), Some(name(0)));
        let later = start + 100 * PROTECT;
        assert_eq!(table.bind(&name(1), later), Err(Exhausted));
        table.release(slot, later);
        assert_eq!(table.bind(&name(1), later + PROTECT), Err(Exhausted));
        table.release(slot, later);
        assert_eq!(table.bind(&name(1), later), Err(Exhausted), "protected");
        assert_eq!(table.bind(&name(1), later + PROTECT), Ok(slot));
    }

    #[test]
    fn operations_in_any_order_keep_the_promises() {
        let start = Instant::now();
        let mut table = Bindings::new(8, PROTECT);
        let mut holds: Vec<(u32, DnsName)> = Vec::new();
        let mut answers: Vec<(u32, DnsName, Instant)> = Vec::new();
        let mut clock = start;
        let mut state = 7_u32;
        for _ in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let pick = (state >> 16) as usize;
            clock += PROTECT / 16;
            match (state >> 8) % 4 {
                0 | 1 => {
                    let name = name(pick % 24);
                    if let Ok(slot) = table.bind(&name, clock) {
                        answers.push((slot, name, clock + PROTECT));
                    }
                }
                2 if holds.len() < 6 => {
                    if let Some((slot, name, _)) = answers.last().cloned()
                        && table.hold(slot).is_some()
                    {
                        holds.push((slot, name));
                    }
                }
                _ => {
                    if !holds.is_empty() {
                        let (slot, _) = holds.swap_remove(pick % holds.len());
                        table.release(slot, clock);
                    }
                }
            }
            answers.retain(|(_, _, until)| *until > clock);
            for (slot, name) in &holds {
                assert_eq!(table.name(*slot), Some(name), "held");
            }
            for (slot, name, _) in &answers {
                assert_eq!(table.name(*slot), Some(name), "answered");
            }
            assert!(table.by_name.len() <= 8);
        }
    }

    #[test]
    fn a_lease_releases_when_dropped() {
        let shared = SharedBindings::new(Bindings::new(1, Duration::ZERO));
        let slot = shared.lock().bind(&name(0), now()).expect("empty");
        let address = pool::address(slot, Family::V6);
        let lease = shared.hold(address).expect("bound");
        assert_eq!(lease.binding().name, name(0));
        assert_eq!(lease.binding().family, Family::V6);
        assert_eq!(shared.lock().bind(&name(1), now()), Err(Exhausted));
        drop(lease);
        assert_eq!(shared.lock().bind(&name(1), now()), Ok(slot));
        assert_eq!(
            shared.owner(address).map(|binding| binding.name),
            Some(name(1))
        );
    }
}
