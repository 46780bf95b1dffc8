//! Findings in the three formats.

pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod sarif;
