//! Whether a pool has connections.

/// Whether the host can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// At least one connection has answered.
    Up,
    /// None has; the last failure.
    Down(String),
}
