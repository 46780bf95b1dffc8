//! The start of the app, its processes, and its end.

mod drain;
mod first_process;
mod start_and_exit;
mod supervision;
