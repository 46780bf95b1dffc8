//! The host: its guests, their logs and states, and the service that it is.

mod logs;
mod several_guests;
mod status;
mod systemd_service;
