//! SIGHUP: reads the settings again, and applies those that need no restart.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use enclaver_outer::resolver::SystemResolver;
use enclaver_outer::{AddressLimits, ClientRules, RuntimeConfig};
use odyn_settings::SettingsReport;
use tracing::{error, info, warn};

use crate::cli::RunArgs;
use crate::exit::DaemonError;
use crate::logging::LogFilter;
use crate::settings;
use crate::settings::{Invocation, LoadedSettings};

/// The settings that a reload applies. All others need a restart.
const LIVE: &[&str] = &[
    "resolver",
    "allow",
    "deny",
    "max_flows",
    "ingress",
    "proxy_from",
    "max_clients",
    "max_clients_per_source",
    "client_rate",
    "first_byte_timeout",
    "client_idle_timeout",
    "connect_timeout",
    "drain_timeout",
    "log_level",
];

/// Applies settings that were read again.
pub(crate) struct Reloader {
    runtime_config: RuntimeConfig,
    log: LogFilter,
    /// Default of `max_flows`.
    max_flows: usize,
    /// The settings in force, by key.
    running: BTreeMap<String, Vec<String>>,
}

impl Reloader {
    pub(crate) fn new(
        runtime_config: RuntimeConfig,
        log: LogFilter,
        max_flows: usize,
        report: &SettingsReport,
    ) -> Self {
        Self {
            runtime_config,
            log,
            max_flows,
            running: values(report),
        }
    }

    /// Applies settings that were read. Wrong settings change nothing.
    ///
    /// # Errors
    /// The settings are wrong.
    pub(crate) fn apply_if_valid(
        &mut self,
        read: Result<LoadedSettings, ReloadError>,
    ) -> Result<(), ReloadError> {
        let configured = read.inspect_err(|wrong| {
            error!("not reloaded, the settings are as they were: {wrong}");
        })?;
        let mut wanted = values(&configured.report);
        let changed = |key: &&str| self.running.get(*key) != wanted.get(*key);
        let live: Vec<&str> = LIVE.iter().copied().filter(changed).collect();
        let dead: Vec<&str> = wanted
            .keys()
            .map(String::as_str)
            .filter(|key| !LIVE.contains(key) && changed(key))
            .collect();
        if !dead.is_empty() {
            warn!(settings = dead.join(", "), "changed, and need a restart");
        }
        self.apply(&configured.args, &live);
        info!(changed = live.join(", "), "reloaded");
        for key in LIVE {
            if let Some(values) = wanted.remove(*key) {
                self.running.insert((*key).to_owned(), values);
            }
        }
        Ok(())
    }

    fn apply(&self, args: &RunArgs, changed: &[&str]) {
        let mut rules = (*self.runtime_config.rules()).clone();
        rules.limits = limits(args);
        rules.connect_timeout = args.connect_timeout;
        rules.drain_timeout = args.drain_timeout;
        rules.clients = clients(args);
        // A resolver that stays remembers which server answered last.
        if changed.contains(&"resolver") {
            rules.resolver = Arc::new(resolver(args));
        }
        self.runtime_config.set_rules(rules);
        self.runtime_config
            .set_max_flows(args.max_flows.unwrap_or(self.max_flows));
        if changed.contains(&"ingress") {
            self.runtime_config
                .set_mappings(args.ingress.iter().cloned());
        }
        if changed.contains(&"log_level") {
            self.log.set(&args.log_level);
        }
    }
}

/// Why settings were not reloaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The settings are wrong. A status line has one line, and there may be several mistakes.
    #[error("{}", one_line(.0))]
    Settings(#[source] DaemonError),
    /// The command line asks for something else than `run`.
    #[error("the command line asks to print the settings")]
    NotARun,
    /// The thread that read them failed.
    #[error("can't read the settings: {0}")]
    Interrupted(#[source] tokio::task::JoinError),
}

fn one_line(error: &DaemonError) -> String {
    error.to_string().lines().collect::<Vec<_>>().join("; ")
}

/// Reads command line, environment and file again, on a thread that may block.
pub(crate) async fn read(args: Vec<OsString>) -> Result<LoadedSettings, ReloadError> {
    let read = tokio::task::spawn_blocking(|| settings::load(args)).await;
    match read.map_err(ReloadError::Interrupted)? {
        Ok(Invocation::Run(loaded)) => Ok(*loaded),
        Ok(Invocation::Print(_) | Invocation::Status(_)) => Err(ReloadError::NotARun),
        Err(error) => Err(ReloadError::Settings(error)),
    }
}

pub(crate) fn limits(args: &RunArgs) -> AddressLimits {
    AddressLimits::default()
        .allow(args.allow.iter().copied())
        .deny(args.deny.iter().copied())
}

pub(crate) fn clients(args: &RunArgs) -> ClientRules {
    let mut rules = ClientRules::default();
    rules.most = args.max_clients;
    rules.most_per_source = args.max_clients_per_source;
    rules.rate = args.client_rate;
    rules.first_byte = args.first_byte_timeout;
    rules.idle = args.client_idle_timeout;
    rules.proxies.clone_from(&args.proxy_from);
    rules
}

pub(crate) fn resolver(args: &RunArgs) -> SystemResolver {
    if args.resolver.is_empty() {
        SystemResolver::system()
    } else {
        SystemResolver::fixed(args.resolver.clone())
    }
}

fn values(report: &SettingsReport) -> BTreeMap<String, Vec<String>> {
    let settings = report.settings().iter();
    settings
        .map(|setting| (setting.key.clone(), setting.values.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::OuterCli;
    use clap::CommandFactory;

    #[test]
    fn what_is_live_is_a_setting() {
        let command = OuterCli::command();
        let run = command.find_subcommand("run").unwrap();
        let flags: Vec<String> = run
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .map(|flag| flag.replace('-', "_"))
            .collect();
        for key in LIVE {
            assert!(flags.iter().any(|flag| flag == key), "{key}");
        }
    }
}
