//! Names to slots.
//!
//! A tree over the literal labels at the right end of the patterns, read from the right:
//! `*.s3.example.com` hangs on the node `com` → `example` → `s3`. A lookup walks down the labels of
//! the name as long as the tree goes and asks at each node what hangs there. What is neither
//! exact nor `*` or `**` in front of literal labels (`api-*.example.com`, `foo.*.example.com`)
//! hangs on its node in groups by a literal piece of it, found by hashing that part of the name, so that many
//! such patterns under one domain cost no more than a few.

use std::collections::HashMap;

use super::{NONE, Slot};
use crate::pattern::{Label, Pattern};

/// The tree.
#[derive(Debug, Default)]
pub(crate) struct NameIndex {
    /// Numbers of the literal labels.
    labels: HashMap<Box<str>, u32>,
    /// From a node by a label to a node.
    edges: HashMap<(u32, u32), u32>,
    nodes: Vec<Node>,
    slots: Vec<Slot>,
}

/// The root is node 0.
const ROOT: u32 = 0;

#[derive(Debug)]
struct Node {
    /// Slot of the name that ends here.
    exact: u32,
    /// Slot of `*` in front of this.
    one: u32,
    /// Slot of `**` in front of this.
    many: u32,
    odd: Option<Box<Odd>>,
}

/// Patterns with more than one star label, or stars elsewhere than in front.
#[derive(Debug, Default)]
struct Odd {
    groups: Vec<Group>,
    /// Patterns of star labels only: few, since only their number of labels differs.
    bare: Vec<Candidate>,
}

/// Patterns that have a literal piece of the same kind and length at the same place.
#[derive(Debug)]
struct Group {
    place: Place,
    by_piece: HashMap<Box<str>, Vec<Candidate>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    label: Which,
    part: Part,
    len: usize,
}

/// Which label of the part of the name that the tree did not consume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    FromLeft(usize),
    FromRight(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Start,
    End,
    Inside,
}

#[derive(Debug)]
struct Candidate {
    pattern: Pattern,
    slot: u32,
}

impl NameIndex {
    /// Adds what is known of one pattern; each pattern is added once.
    pub(crate) fn insert(&mut self, pattern: &Pattern, slot: Slot) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::new());
        }
        let id = index(self.slots.len());
        self.slots.push(slot);
        match pattern {
            Pattern::Exact(name) => {
                let node = self.grow(name.as_str().rsplit('.'));
                if let Some(node) = self.nodes.get_mut(node as usize) {
                    node.exact = id;
                }
            }
            Pattern::Wild(labels) => {
                let node = self.grow(labels.iter().rev().map_while(|label| match label {
                    Label::Literal(text) => Some(&**text),
                    _ => None,
                }));
                let Some(node) = self.nodes.get_mut(node as usize) else {
                    return;
                };
                let front = labels.len() - pattern.literal_suffix();
                match labels.get(..front) {
                    Some([Label::One]) => node.one = id,
                    Some([Label::Many]) => node.many = id,
                    front => node.odd.get_or_insert_default().insert(
                        front.unwrap_or_default(),
                        Candidate {
                            pattern: pattern.clone(),
                            slot: id,
                        },
                    ),
                }
            }
        }
    }

    /// The node of these labels, from right to left, made where it is missing.
    fn grow<'a>(&mut self, labels: impl Iterator<Item = &'a str>) -> u32 {
        let mut node = ROOT;
        for text in labels {
            let fresh = index(self.labels.len());
            let label = match self.labels.get(text) {
                Some(label) => *label,
                None => {
                    self.labels.insert(text.into(), fresh);
                    fresh
                }
            };
            let next = index(self.nodes.len());
            let nodes = &mut self.nodes;
            node = *self.edges.entry((node, label)).or_insert_with(|| {
                nodes.push(Node::new());
                next
            });
        }
        node
    }

    /// Hands every slot whose pattern matches the name to `found`. Allocates nothing.
    pub(crate) fn visit<'a>(&'a self, name: &str, mut found: impl FnMut(&'a Slot)) {
        let mut give = |slot: u32| {
            if let Some(slot) = self.slots.get(slot as usize) {
                found(slot);
            }
        };
        let mut at = ROOT;
        // The part of the name that is left of what the tree consumed.
        let mut rest = Some(name);
        while let Some(node) = self.nodes.get(at as usize) {
            let Some(left) = rest else {
                give(node.exact);
                return;
            };
            give(node.many);
            let (before, label) = match left.rsplit_once('.') {
                Some((before, label)) => (Some(before), label),
                None => (None, left),
            };
            if before.is_none() {
                give(node.one);
            }
            if let Some(odd) = &node.odd {
                odd.visit(name, left, &mut give);
            }
            let next = self
                .labels
                .get(label)
                .and_then(|label| self.edges.get(&(at, *label)));
            let Some(next) = next else { return };
            at = *next;
            rest = before;
        }
    }
}

/// A policy text is bounded, so that numbers of things in it fit; if they did not, what is lost
/// is the rule, and what no rule allows is denied.
fn index(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(NONE)
}

impl Node {
    fn new() -> Self {
        Self {
            exact: NONE,
            one: NONE,
            many: NONE,
            odd: None,
        }
    }
}

impl Odd {
    /// `front` is the pattern without its literal labels at the right.
    fn insert(&mut self, front: &[Label], candidate: Candidate) {
        let Some((place, piece)) = hook(front) else {
            self.bare.push(candidate);
            return;
        };
        let group = match self.groups.iter_mut().position(|g| g.place == place) {
            Some(at) => self.groups.get_mut(at),
            None => {
                self.groups.push(Group {
                    place,
                    by_piece: HashMap::new(),
                });
                self.groups.last_mut()
            }
        };
        if let Some(group) = group {
            group
                .by_piece
                .entry(piece.into())
                .or_default()
                .push(candidate);
        }
    }

    fn visit(&self, name: &str, left: &str, give: &mut impl FnMut(u32)) {
        let mut check = |candidates: &[Candidate]| {
            for candidate in candidates {
                if candidate.pattern.matches(name) {
                    give(candidate.slot);
                }
            }
        };
        check(&self.bare);
        for group in &self.groups {
            let Place { label, part, len } = group.place;
            let label = match label {
                Which::FromLeft(n) => left.split('.').nth(n),
                Which::FromRight(n) => left.rsplit('.').nth(n),
            };
            let Some(label) = label else { continue };
            let mut look_up = |piece: Option<&str>| {
                if let Some(candidates) = piece.and_then(|p| group.by_piece.get(p)) {
                    check(candidates);
                }
            };
            match part {
                Part::Whole => look_up(Some(label)),
                Part::Start => look_up(label.get(..len)),
                Part::End => look_up(label.len().checked_sub(len).and_then(|n| label.get(n..))),
                // A piece that stands twice in the label gives its slots twice: harmless, since
                // of all slots only the smallest rule number counts.
                Part::Inside => {
                    for start in 0..=label.len().saturating_sub(len) {
                        look_up(label.get(start..start + len));
                    }
                }
            }
        }
    }
}

/// The literal piece by which a pattern is found: that of the label nearest to the literal ones at
/// the right, or left of `**` that of the leftmost.
fn hook(front: &[Label]) -> Option<(Place, &str)> {
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
        Some((
            Place {
                label: which,
                part,
                len: if part == Part::Whole { 0 } else { piece.len() },
            },
            piece,
        ))
    })
}

fn piece_of(label: &Label) -> Option<(Part, &str)> {
    match label {
        Label::Literal(text) => Some((Part::Whole, text)),
        Label::One | Label::Many => None,
        Label::Glob(glob) => {
            let pieces = glob.pieces();
            let first = pieces.first().map(|p| (Part::Start, &**p));
            let last = pieces.last().map(|p| (Part::End, &**p));
            let inside = pieces
                .iter()
                .max_by_key(|p| p.len())
                .map(|p| (Part::Inside, &**p));
            // Start and end cost one lookup, inside one for each place in the label.
            let longer_end = [first, last]
                .into_iter()
                .flatten()
                .max_by_key(|(_, piece)| piece.len());
            [longer_end, inside]
                .into_iter()
                .flatten()
                .find(|(_, piece)| !piece.is_empty())
        }
    }
}
