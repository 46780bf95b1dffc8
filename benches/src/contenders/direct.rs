//! No proxy: programs on the host itself.

use super::{Contender, Family, Running};
use crate::stage::{HOST, HTTP, Stage};

pub(crate) struct Direct;

impl Contender for Direct {
    fn name(&self) -> &str {
        "direct"
    }

    fn family(&self) -> Family {
        Family::Direct
    }

    fn missing(&self) -> Option<String> {
        None
    }

    fn start(&self, _stage: &Stage, _number: u16) -> anyhow::Result<Running> {
        Ok(Running {
            guest_half: Vec::new(),
            host_half: Vec::new(),
            app: None,
            guest: None,
            http: HTTP.map(|port| format!("{HOST}:{port}")),
            resolver: None,
            udp: true,
            files_per_flow: 1,
        })
    }
}
