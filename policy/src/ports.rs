//! Ports and transport protocols of a rule.

use std::fmt;

/// A transport protocol that a flow can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Tcp => Self::Udp,
            Self::Udp => Self::Tcp,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The protocols of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocols {
    Any,
    Only(Protocol),
}

impl Protocols {
    pub(crate) fn contains(self, protocol: Protocol) -> bool {
        match self {
            Self::Any => true,
            Self::Only(only) => only == protocol,
        }
    }

    pub(crate) fn covers(self, other: Self) -> bool {
        self == Self::Any || self == other
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

/// Ports from `first` to `last`, both included; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// The ports of a rule: sorted ranges that neither touch nor overlap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PortSet(Box<[PortRange]>);

impl PortSet {
    /// Every port. Port 0 is not one: no flow can have it.
    pub(crate) fn all() -> Self {
        Self(Box::new([PortRange {
            first: 1,
            last: u16::MAX,
        }]))
    }

    /// The ports of these ranges, without port 0; can be empty.
    pub(crate) fn new(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut sorted: Vec<(u16, u16)> = ranges
            .into_iter()
            .map(|(first, last)| (first.max(1), last))
            .filter(|(first, last)| first <= last)
            .collect();
        sorted.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some(before) if first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(last);
                }
                _ => merged.push(PortRange { first, last }),
            }
        }
        Self(merged.into_boxed_slice())
    }

    pub(crate) fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    pub(crate) fn is_all(&self) -> bool {
        matches!(
            *self.0,
            [PortRange {
                first: 1,
                last: u16::MAX
            }]
        )
    }

    pub(crate) fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|r| r.first <= port && port <= r.last)
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|inner| {
            self.0
                .iter()
                .any(|outer| outer.first <= inner.first && inner.last <= outer.last)
        })
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|a| {
            other
                .0
                .iter()
                .any(|b| a.first <= b.last && b.first <= a.last)
        })
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("any port");
        }
        for (i, range) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if range.first == range.last {
                write!(f, "{}", range.first)?;
            } else {
                write!(f, "{}-{}", range.first, range.last)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_merged_and_without_port_0() {
        for (given, wanted) in [
            (vec![(80, 80), (443, 443)], "80, 443"),
            (vec![(443, 443), (80, 80)], "80, 443"),
            (vec![(80, 90), (85, 100), (101, 101)], "80-101"),
            (vec![(0, 10)], "1-10"),
            (vec![(0, 0)], ""),
            (vec![(0, 65535)], "any port"),
            (vec![(60000, 65535), (1, 65534)], "any port"),
        ] {
            assert_eq!(PortSet::new(given.clone()).to_string(), wanted, "{given:?}");
        }
    }

    #[test]
    fn covering_and_overlapping() {
        let narrow = PortSet::new([(80, 80), (443, 443)]);
        let wide = PortSet::new([(1, 1023)]);
        let high = PortSet::new([(1024, 65535)]);
        assert!(wide.covers(&narrow) && !narrow.covers(&wide));
        assert!(PortSet::all().covers(&wide) && wide.covers(&wide));
        assert!(wide.overlaps(&narrow) && !wide.overlaps(&high));
        assert!(narrow.contains(443) && !narrow.contains(81));
    }
}
