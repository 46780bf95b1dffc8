//! Flows of the app that the policy allows arrive whole, and end as they would without us.

mod address_choice;
mod databases;
mod dns;
mod flow_ends;
mod http;
mod large_transfers;
mod parallel_flows;
mod quic;
mod real_apps;
mod resolv_conf;
mod tun;
mod udp;
