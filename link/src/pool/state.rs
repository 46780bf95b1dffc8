//! Whether the other half can be reached.

/// Whether the peer can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// At least one connection has answered.
    Up,
    /// No connection has answered; with the last failure.
    Down(String),
}
