//! The developer's commands: `doctor` and `simulate`.

mod doctor;
mod simulate;
