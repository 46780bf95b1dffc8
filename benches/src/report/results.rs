//! The results, as they stand in the JSON file.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::median;
use crate::choice::Rows;
use crate::contenders::Family;
use crate::loads::Figure;

/// A whole run.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    /// Rounds that were finished.
    pub(crate) rounds: usize,
    /// Rounds that were wanted.
    #[serde(default)]
    pub(crate) planned: usize,
    pub(crate) seconds: f64,
    /// The contenders, with their kinds.
    pub(crate) contenders: BTreeMap<String, Family>,
    /// The contenders' names as they stand in tables.
    pub(crate) order: Vec<String>,
    pub(crate) rows: Vec<Row>,
    /// Loads that were left out or failed.
    pub(crate) notes: Vec<String>,
}

/// A figure with all samples of all contenders.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) figure: Figure,
    pub(crate) samples: BTreeMap<String, Vec<f64>>,
    /// How often a contender could not do it.
    #[serde(default)]
    pub(crate) failures: BTreeMap<String, usize>,
}

impl Row {
    pub(crate) fn new(figure: Figure) -> Self {
        Self {
            figure,
            samples: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// The median of a contender, if it has any.
    pub(crate) fn median(&self, contender: &str) -> Option<f64> {
        self.samples.get(contender).map(|samples| median(samples))
    }
}

/// The machine of the measurement.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// The load average of the last minute before the run.
    pub(crate) load: String,
    pub(crate) build: String,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned());
        let first = |text: String| text.split_whitespace().next().unwrap_or("").to_owned();
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: model.unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            load: first(read("/proc/loadavg")),
            build: match cfg!(debug_assertions) {
                true => "DEBUG BUILD: figures mean nothing".to_owned(),
                false => "release".to_owned(),
            },
        }
    }

    pub(crate) fn describe(&self, results: &Results) -> String {
        let seconds = results.seconds;
        let rounds = match (results.rounds, results.planned) {
            (done, planned) if done < planned => format!("{done} of {planned}"),
            (done, _) => done.to_string(),
        };
        format!(
            "{} cores ({}), Linux {}, load average {} before the run, {}. {rounds} rounds, {seconds} s \
             each; medians, with the range in parentheses.\n",
            self.cores, self.cpu, self.kernel, self.load, self.build
        )
    }
}

impl Results {
    /// Says something now, loudly, and keeps it for the report.
    pub(crate) fn note(&mut self, note: String) {
        eprintln!("NOTE: {note}");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// How often a contender has failed at the load whose first row this is.
    pub(crate) fn failed(&self, contender: &str, first_row: usize) -> usize {
        let row = self.rows.get(first_row);
        row.and_then(|row| row.failures.get(contender).copied())
            .unwrap_or(0)
    }

    /// Counts a failure.
    pub(crate) fn fail(&mut self, contender: &str, first_row: usize) {
        if let Some(row) = self.rows.get_mut(first_row) {
            *row.failures.entry(contender.to_owned()).or_default() += 1;
        }
    }

    /// The rows of a group.
    pub(crate) fn group(&self, group: &str) -> Vec<&Row> {
        let rows = self.rows.iter();
        rows.filter(|row| row.figure.group == group).collect()
    }

    pub(crate) fn row(&self, id: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.figure.id == id)
    }

    pub(crate) fn family(&self, contender: &str) -> Option<Family> {
        self.contenders.get(contender).copied()
    }

    /// Names of a family, in order.
    pub(crate) fn of(&self, family: Family) -> impl Iterator<Item = &str> {
        let names = self.order.iter().map(String::as_str);
        names.filter(move |name| self.family(name) == Some(family))
    }

    /// The measured rows.
    pub(crate) fn of_rows(&self, rows: &Rows) -> Self {
        let mut results = self.clone();
        results
            .rows
            .retain(|row| !row.samples.is_empty() && rows.has(&row.figure));
        results
    }

    /// Checks, before anything is measured, that results can be written there.
    pub(crate) fn writable(path: &Path) -> anyhow::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        let file = File::options().append(true).create(true).open(path);
        file.map(drop).with_context(|| path.display().to_string())
    }

    /// Writes them in one step: a kill meanwhile leaves the file as it was.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        let mut next = path.as_os_str().to_owned();
        next.push(".next");
        std::fs::write(&next, text + "\n")
            .and_then(|()| std::fs::rename(&next, path))
            .with_context(|| path.display().to_string())
    }

    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_has_written_says_how_far_it_got() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.json");
        Results::writable(&path).unwrap();
        let mut results = Results {
            planned: 5,
            seconds: 1.5,
            ..Results::default()
        };
        for rounds in 1..=2 {
            results.rounds = rounds;
            results.write(&path).unwrap();
        }
        let read = Results::read(&path).unwrap();
        let text = read.machine.describe(&read);
        assert!(text.contains("2 of 5 rounds, 1.5 s each"), "{text}");
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 1);
    }
}
