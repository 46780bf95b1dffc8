//! A running app, and the result of its run.

use std::path::PathBuf;
use std::time::Duration;

use crate::audit;
use crate::audit::AuditRecord;
use crate::process::{Process, code};

/// The result of an app's run.
#[derive(Debug)]
pub struct Output {
    /// The exit code; 128 + n when signal n ended the app.
    pub code: i32,
    /// The standard output.
    pub stdout: String,
    /// The standard error.
    pub stderr: String,
    /// The audit records of its run.
    pub audit: Vec<AuditRecord>,
    /// Whether `odyn-net` was left out: there is no audit then.
    pub direct: bool,
}

/// An app that runs in a guest.
#[derive(Debug)]
pub struct Running {
    /// `odyn-net`, or in the control run the app itself.
    pub process: Process,
    pub(super) audit: PathBuf,
    pub(super) limit: Duration,
    pub(super) direct: bool,
}

impl Running {
    /// The audit records so far.
    pub fn audit(&self) -> Vec<AuditRecord> {
        audit::read_so_far(&self.audit)
    }

    /// The path of the audit file.
    pub fn audit_path(&self) -> &std::path::Path {
        &self.audit
    }

    /// Waits for its end, however it comes, and looks at nothing but the exit code.
    #[track_caller]
    pub fn into_code(mut self) -> i32 {
        code(self.process.wait(self.limit))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        let status = self.process.wait(self.limit);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output {
            code: code(status),
            stdout: text(self.process.stdout()),
            stderr: text(self.process.stderr()),
            audit: audit::read(&self.audit),
            direct: self.direct,
        }
    }
}

impl Output {
    /// The app's output, which must have exited with 0.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{}", self.describe());
        &self.stdout
    }

    /// Asserts that the app failed.
    ///
    /// # Panics
    /// When it exited with 0.
    #[track_caller]
    pub fn failed(&self) -> &Self {
        assert_ne!(self.code, 0, "{}", self.describe());
        self
    }

    /// The one record of the flow to `who` (a name, or a literal address) and
    /// `port`; `None` in the control run.
    ///
    /// # Panics
    /// When there is no record, or more than one.
    #[track_caller]
    pub fn flow(&self, protocol: &str, who: &str, port: u16) -> Option<&AuditRecord> {
        if self.direct {
            return None;
        }
        let found: Vec<_> = self.flows(protocol, who, port);
        assert_eq!(
            found.len(),
            1,
            "want one {protocol} record of {who}:{port}\n{}",
            self.describe()
        );
        Some(found[0])
    }

    /// All records of flows to `who` and `port`.
    pub fn flows(&self, protocol: &str, who: &str, port: u16) -> Vec<&AuditRecord> {
        self.audit
            .iter()
            .filter(|record| record.protocol == protocol)
            .filter(|record| record.is_about(who) && record.port() == port)
            .collect()
    }

    /// Asserts that exactly one flow to `who` was allowed, by this rule.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn allowed(&self, protocol: &str, who: &str, port: u16, rule: &str) -> &Self {
        if let Some(record) = self.flow(protocol, who, port) {
            assert_eq!(record.verdict, "allow", "{}", self.describe());
            assert_eq!(record.rule.as_deref(), Some(rule), "{}", self.describe());
            assert!(record.reason.is_none(), "{}", self.describe());
        }
        self
    }

    /// Asserts that exactly one flow to `who` was denied, for this reason.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn denied(&self, protocol: &str, who: &str, port: u16, reason: &str) -> &Self {
        if let Some(record) = self.flow(protocol, who, port) {
            assert_eq!(record.verdict, "deny", "{}", self.describe());
            assert_eq!(
                record.reason.as_deref(),
                Some(reason),
                "{}",
                self.describe()
            );
            assert_eq!(record.dialled, None, "{}", self.describe());
            assert_eq!(record.end, "denied", "{}", self.describe());
        }
        self
    }

    /// Asserts that the resolver refused the name: each query has its record,
    /// and no flow came of it.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn dns_denied(&self, name: &str, reason: &str) -> &Self {
        if self.direct {
            return self;
        }
        let (dns, other): (Vec<_>, Vec<_>) = self
            .audit
            .iter()
            .filter(|record| record.is_about(name))
            .partition(|record| record.protocol == "dns");
        assert!(!dns.is_empty(), "no record of {name}\n{}", self.describe());
        for record in dns {
            assert_eq!(record.verdict, "deny", "{}", self.describe());
            assert_eq!(
                record.reason.as_deref(),
                Some(reason),
                "{}",
                self.describe()
            );
        }
        assert!(other.is_empty(), "{}", self.describe());
        self
    }

    /// Everything, for a failure's message.
    pub fn describe(&self) -> String {
        let records: Vec<String> = self.audit.iter().map(|r| format!("  {r:?}")).collect();
        format!(
            "exit code {}\nstdout: {}\nstderr: {}\naudit:\n{}",
            self.code,
            self.stdout,
            self.stderr,
            records.join("\n")
        )
    }
}
