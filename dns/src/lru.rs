//! A list of small indices in order of use, with constant-time moves.
//!
//! The entries themselves are in a vector of the caller; the list has their indices. An index need
//! not be in the list.

/// The value that stands for no index.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Links {
    newer: u32,
    older: u32,
    listed: bool,
}

/// Indices from the most to the least recently used.
#[derive(Debug)]
pub(crate) struct Lru {
    links: Vec<Links>,
    newest: u32,
    oldest: u32,
}

impl Lru {
    pub(crate) fn new() -> Self {
        Self {
            links: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// The least recently used index.
    pub(crate) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Makes `index` the most recently used one, and adds it if it is not in the list.
    pub(crate) fn touch(&mut self, index: u32) {
        if self.newest == index {
            return;
        }
        self.remove(index);
        let wanted = index as usize + 1;
        if self.links.len() < wanted {
            let unlisted = Links {
                newer: NONE,
                older: NONE,
                listed: false,
            };
            self.links.resize(wanted, unlisted);
        }
        let second = self.newest;
        if let Some(links) = self.links.get_mut(index as usize) {
            *links = Links {
                newer: NONE,
                older: second,
                listed: true,
            };
        }
        match self.links.get_mut(second as usize) {
            Some(links) => links.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
    }

    /// Removes `index` from the list, if it is there.
    pub(crate) fn remove(&mut self, index: u32) {
        let Some(links) = self.links.get_mut(index as usize) else {
            return;
        };
        if !std::mem::replace(&mut links.listed, false) {
            return;
        }
        let Links { newer, older, .. } = *links;
        match self.links.get_mut(newer as usize) {
            Some(links) => links.older = older,
            None => self.newest = older,
        }
        match self.links.get_mut(older as usize) {
            Some(links) => links.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn agrees_with_a_naive_list() {
        let mut lru = Lru::new();
        let mut naive = VecDeque::new();
        let mut state = 1_u32;
        for _ in 0..10_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let index = (state >> 24) % 17;
            naive.retain(|other| *other != index);
            if (state >> 16).is_multiple_of(3) {
                lru.remove(index);
            } else {
                lru.touch(index);
                naive.push_front(index);
            }
            assert_eq!(lru.oldest(), naive.back().copied());
        }
        while let Some(index) = lru.oldest() {
            assert_eq!(naive.pop_back(), Some(index));
            lru.remove(index);
        }
        assert!(naive.is_empty());
    }
}
