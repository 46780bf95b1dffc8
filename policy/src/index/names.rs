//! Names to slots.
//!
//! The index is a tree over the literal labels at the right end of the patterns, read from the
//! right: `*.s3.example.com` belongs to the node `com` → `example` → `s3`. A lookup walks down the
//! labels of the name and collects the slots of each node. Patterns of other forms, such as
//! `api-*.example.com` or `foo.*.example.com`, are *odd*: a node has them in groups by a literal
//! piece, found by a hash of that part of the name. So many odd patterns below one domain cost no
//! more than a few.

use super::table::{HashIndex, hash};
use super::{NONE, RuleSlot, number};
use crate::pattern;
use crate::pattern::{Label, Pattern};

/// The tree.
#[derive(Debug, Default)]
pub(crate) struct NameIndex {
    nodes: Vec<NameNode>,
    /// From a node and a label to a node.
    edges: HashIndex,
    /// The odd patterns of the nodes that have some.
    odd: Vec<Odd>,
    candidates: Vec<Candidate>,
    /// From a group and a literal piece to candidates.
    pieces: HashIndex,
    groups: u32,
}

/// The root is node 0.
const ROOT: u32 = 0;

/// One cache line, its label included.
#[derive(Debug)]
#[repr(align(64))]
struct NameNode {
    parent: u32,
    /// Slot of the name that ends here.
    exact: RuleSlot,
    /// Slot of `*` in front of this name.
    one: RuleSlot,
    /// Slot of `**` in front of this name.
    many: RuleSlot,
    /// Number of the odd patterns in front of this name, or [`NONE`].
    odd: u32,
    label: LabelText,
}

/// A label. Most are short enough to be stored in the node.
#[derive(Debug)]
enum LabelText {
    Short { len: u8, bytes: [u8; 38] },
    Long(Box<str>),
}

/// The odd patterns of a node: more than one star label, or stars elsewhere than in front.
#[derive(Debug, Default)]
struct Odd {
    groups: Vec<Group>,
    /// Patterns of star labels only: few, since only their number of labels differs.
    bare: Vec<u32>,
}

/// Patterns that have a literal piece of the same kind and length at the same place.
#[derive(Debug)]
struct Group {
    /// Number among all groups.
    id: u32,
    place: PiecePlace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PiecePlace {
    label: Which,
    part: PiecePart,
    len: usize,
}

/// The position of a label in the part of the name that the tree did not consume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    FromLeft(usize),
    FromRight(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PiecePart {
    Whole,
    Start,
    End,
    Inside,
}

/// An odd pattern, as text: a lookup reads one piece of memory instead of one per label.
#[derive(Debug)]
struct Candidate {
    pattern: Box<str>,
    slot: RuleSlot,
}

impl LabelText {
    fn new(text: &str) -> Self {
        let mut bytes = [0; 38];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Short { len, bytes }
            }
            _ => Self::Long(text.into()),
        }
    }

    fn is(&self, text: &str) -> bool {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)) == Some(text.as_bytes()),
            Self::Long(long) => **long == *text,
        }
    }
}

impl NameNode {
    fn new(parent: u32, label: &str) -> Self {
        Self {
            parent,
            exact: RuleSlot::EMPTY,
            one: RuleSlot::EMPTY,
            many: RuleSlot::EMPTY,
            odd: NONE,
            label: LabelText::new(label),
        }
    }
}

impl NameIndex {
    /// Adds a pattern with its slot; each pattern is added once.
    pub(crate) fn insert(&mut self, pattern: &Pattern, slot: RuleSlot) {
        if self.nodes.is_empty() {
            self.nodes.push(NameNode::new(NONE, ""));
        }
        match pattern {
            Pattern::Exact(name) => {
                let at = self.grow(name.as_str().rsplit('.'));
                if let Some(node) = self.nodes.get_mut(at as usize) {
                    node.exact = slot;
                }
            }
            Pattern::Wild(labels) => {
                let at = self.grow(labels.iter().rev().map_while(|label| match label {
                    Label::Literal(text) => Some(&**text),
                    _ => None,
                }));
                let Some(node) = self.nodes.get_mut(at as usize) else {
                    return;
                };
                let front = labels.len() - pattern.literal_suffix();
                match labels.get(..front).unwrap_or_default() {
                    [Label::One] => node.one = slot,
                    [Label::Many] => node.many = slot,
                    front => {
                        let candidate = Candidate {
                            pattern: pattern.to_string().into(),
                            slot,
                        };
                        self.insert_odd(at, front, candidate);
                    }
                }
            }
        }
    }

    /// The node of these labels, from right to left, made where it is missing.
    fn grow<'a>(&mut self, labels: impl Iterator<Item = &'a str>) -> u32 {
        let mut at = ROOT;
        for label in labels {
            at = self.child(at, label).unwrap_or_else(|| {
                let fresh = number(self.nodes.len());
                self.nodes.push(NameNode::new(at, label));
                self.edges.insert(hash(at, label), fresh);
                fresh
            });
        }
        at
    }

    fn child(&self, parent: u32, label: &str) -> Option<u32> {
        self.edges.find(hash(parent, label)).find(|id| {
            let node = self.nodes.get(*id as usize);
            node.is_some_and(|node| node.parent == parent && node.label.is(label))
        })
    }

    /// `front` is the pattern without its literal labels at the right.
    fn insert_odd(&mut self, at: u32, front: &[Label], candidate: Candidate) {
        let id = number(self.candidates.len());
        self.candidates.push(candidate);
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return;
        };
        if node.odd == NONE {
            node.odd = number(self.odd.len());
            self.odd.push(Odd::default());
        }
        let Some(odd) = self.odd.get_mut(node.odd as usize) else {
            return;
        };
        let Some((place, piece)) = hook(front) else {
            odd.bare.push(id);
            return;
        };
        let group = match odd.groups.iter().find(|group| group.place == place) {
            Some(group) => group.id,
            None => {
                let id = self.groups;
                self.groups += 1;
                odd.groups.push(Group { id, place });
                id
            }
        };
        self.pieces.insert(hash(group, piece), id);
    }

    /// Calls `found` with the slot of every pattern that matches the name. Allocates nothing.
    pub(crate) fn visit(&self, name: &str, mut found: impl FnMut(RuleSlot)) {
        let mut at = ROOT;
        // The part of the name to the left of the labels that the tree consumed.
        let mut rest = Some(name);
        while let Some(node) = self.nodes.get(at as usize) {
            let Some(left) = rest else {
                found(node.exact);
                return;
            };
            found(node.many);
            let (before, label) = match left.rsplit_once('.') {
                Some((before, label)) => (Some(before), label),
                None => (None, left),
            };
            if before.is_none() {
                found(node.one);
            }
            if node.odd != NONE {
                self.visit_odd(node.odd, name, left, &mut found);
            }
            let Some(next) = self.child(at, label) else {
                return;
            };
            at = next;
            rest = before;
        }
    }

    fn visit_odd(&self, odd: u32, name: &str, left: &str, found: &mut impl FnMut(RuleSlot)) {
        let Some(odd) = self.odd.get(odd as usize) else {
            return;
        };
        let mut check = |id: u32| {
            if let Some(candidate) = self.candidates.get(id as usize)
                && pattern::matches_text(&candidate.pattern, name)
            {
                found(candidate.slot);
            }
        };
        for id in &odd.bare {
            check(*id);
        }
        for Group { id, place } in &odd.groups {
            let PiecePlace { label, part, len } = *place;
            let label = match label {
                Which::FromLeft(n) => left.split('.').nth(n),
                Which::FromRight(n) => left.rsplit('.').nth(n),
            };
            let Some(label) = label else { continue };
            let mut look_up = |piece: Option<&str>| {
                if let Some(piece) = piece {
                    self.pieces.find(hash(*id, piece)).for_each(&mut check);
                }
            };
            match part {
                PiecePart::Whole => look_up(Some(label)),
                PiecePart::Start => look_up(label.get(..len)),
                PiecePart::End => {
                    look_up(label.len().checked_sub(len).and_then(|n| label.get(n..)))
                }
                // A piece that stands twice in the label gives its slots twice. That is harmless:
                // only the smallest rule number counts.
                PiecePart::Inside => {
                    for start in 0..=label.len().saturating_sub(len) {
                        look_up(label.get(start..start + len));
                    }
                }
            }
        }
    }
}

/// The literal piece by which a pattern is found.
///
/// It is a piece of the label nearest to the literal labels at the right. Left of `**`, it is one
/// of the leftmost label.
fn hook(front: &[Label]) -> Option<(PiecePlace, &str)> {
    let from_right = front
        .iter()
        .rev()
        .take_while(|label| **label != Label::Many)
        .enumerate()
        .map(|(n, label)| (Which::FromRight(n), label));
    let from_left = front
        .iter()
        .take_while(|label| **label != Label::Many)
        .enumerate()
        .map(|(n, label)| (Which::FromLeft(n), label));
    from_right.chain(from_left).find_map(|(which, label)| {
        let (part, piece) = piece_of(label)?;
        let place = PiecePlace {
            label: which,
            part,
            len: if part == PiecePart::Whole {
                0
            } else {
                piece.len()
            },
        };
        Some((place, piece))
    })
}

fn piece_of(label: &Label) -> Option<(PiecePart, &str)> {
    match label {
        Label::Literal(text) => Some((PiecePart::Whole, text)),
        Label::One | Label::Many => None,
        Label::Glob(glob) => {
            let pieces = glob.pieces();
            let first = pieces.first().map(|p| (PiecePart::Start, &**p));
            let last = pieces.last().map(|p| (PiecePart::End, &**p));
            let longest = pieces.iter().max_by_key(|p| p.len());
            let inside = longest.map(|p| (PiecePart::Inside, &**p));
            // A piece at the start or the end costs one lookup. A piece inside costs one lookup for
            // each position in the label.
            let longer_end = [first, last]
                .into_iter()
                .flatten()
                .max_by_key(|(_, p)| p.len());
            let choices = [longer_end, inside].into_iter().flatten();
            choices.into_iter().find(|(_, piece)| !piece.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_cache_line() {
        assert_eq!(size_of::<NameNode>(), 64);
    }

    #[test]
    fn labels_with_the_same_hash_are_told_apart() {
        let mut seen = std::collections::HashMap::new();
        let (first, second) = (0..1_000_000)
            .find_map(|i| {
                let label = format!("label{i}");
                let before = seen.insert(hash(ROOT, &label), label.clone());
                before.map(|before| (before, label))
            })
            .expect("two of a million labels share one of 2^32 hashes");
        let mut slots = crate::index::Slots::default();
        let mut index = NameIndex::default();
        index.insert(&Pattern::parse(&first).unwrap(), slots.add(&[], &[]));
        for (name, wanted) in [(&first, 1), (&second, 0)] {
            let mut found = 0;
            index.visit(name, |slot| found += usize::from(slot != RuleSlot::EMPTY));
            assert_eq!(found, wanted, "{name}");
        }
    }

    #[test]
    fn long_labels_are_told_apart() {
        let (a, b) = ("a".repeat(63), "a".repeat(62));
        for text in ["", "a", &a[..38], &a[..39], &a] {
            assert!(LabelText::new(text).is(text));
            assert!(!LabelText::new(text).is(&b));
        }
    }
}
