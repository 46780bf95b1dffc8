//! What `GET /status` answers.

use enclaver_outer::GuestView;
use enclaver_outer::ingress::ListenerView;
use serde::{Deserialize, Serialize};

/// The guests and the listeners for their clients at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StatusReport {
    /// All guests that are remembered, by name and then by age.
    pub(super) guests: Vec<GuestView>,
    /// The listeners for clients, in the order of their mappings.
    #[serde(default)]
    pub(super) listeners: Vec<ListenerView>,
}
