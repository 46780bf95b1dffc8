//! The contenders and loads of a run, by name, or by the beginning of names with a `*` behind it.

use crate::contenders::Contender;
use crate::loads::{Figure, Load};

/// The rows that are asked for; all when none is named.
#[derive(Debug, Default)]
pub(crate) struct Rows(Vec<String>);

impl Rows {
    /// Picks figures by name, or by the name of their group.
    ///
    /// # Errors
    /// When there is no such row and no such group.
    pub(crate) fn new(wanted: &[String], loads: &[Box<dyn Load>]) -> anyhow::Result<Self> {
        let figures: Vec<Figure> = loads.iter().flat_map(|load| load.figures()).collect();
        for part in wanted {
            if figures.iter().any(|figure| is_named(figure, part)) {
                continue;
            }
            let mut groups: Vec<&str> = Vec::new();
            for figure in &figures {
                if !groups.contains(&&*figure.group) {
                    groups.push(&figure.group);
                }
            }
            let rows: Vec<&str> = figures.iter().map(|one| &*one.id).collect();
            anyhow::bail!(
                "no row and no group {part}: the rows are {}; the groups are {}",
                rows.join(", "),
                groups.join(", ")
            );
        }
        Ok(Self(wanted.to_vec()))
    }

    /// Whether a figure is among them.
    pub(crate) fn has(&self, figure: &Figure) -> bool {
        self.0.is_empty() || self.0.iter().any(|part| is_named(figure, part))
    }

    /// Whether one of the load's figures is among them.
    pub(crate) fn want(&self, load: &dyn Load) -> bool {
        load.figures().iter().any(|figure| self.has(figure))
    }
}

fn is_named(figure: &Figure, part: &str) -> bool {
    matches(&figure.id, part) || figure.group == part
}

/// The contenders that are asked for.
///
/// # Errors
/// When no contender has a name that is asked for.
pub(crate) fn contenders(
    contenders: Vec<Box<dyn Contender>>,
    wanted: &[String],
) -> anyhow::Result<Vec<Box<dyn Contender>>> {
    if wanted.is_empty() {
        return Ok(contenders);
    }
    let is_unknown = |part: &&String| !contenders.iter().any(|one| matches(one.name(), part));
    if let Some(part) = wanted.iter().find(is_unknown) {
        let names: Vec<&str> = contenders.iter().map(|one| one.name()).collect();
        anyhow::bail!("no contender {part}: there are {}", names.join(", "));
    }
    Ok(contenders
        .into_iter()
        .filter(|one| wanted.iter().any(|part| matches(one.name(), part)))
        .collect())
}

/// The name itself, or with a `*` behind it the beginning of a name.
fn matches(name: &str, part: &str) -> bool {
    match part.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads;
    use crate::loads::Scale;

    fn all() -> Vec<Box<dyn Load>> {
        loads::all(&Scale {
            seconds: 1.0,
            idle: vec![500],
            churn: 10,
        })
    }

    fn rows(wanted: &[&str]) -> anyhow::Result<Vec<String>> {
        let wanted: Vec<String> = wanted.iter().map(|part| (*part).to_owned()).collect();
        let loads = all();
        let rows = Rows::new(&wanted, &loads)?;
        let loads = loads.iter().filter(|load| rows.want(load.as_ref()));
        let figures = loads.flat_map(|load| load.figures());
        let chosen = figures.filter(|figure| rows.has(figure));
        Ok(chosen.map(|figure| figure.id).collect())
    }

    #[test]
    fn a_row_is_named_as_a_whole_or_by_a_star_or_by_its_group() {
        assert_eq!(rows(&["wrk"]).unwrap(), ["wrk"]);
        assert_eq!(rows(&["up-1"]).unwrap(), ["up-1"]);
        assert_eq!(rows(&["cpu-up-1", "dns"]).unwrap(), ["cpu-up-1", "dns"]);
        assert_eq!(rows(&["idle-p*"]).unwrap(), ["idle-p50", "idle-p99"]);
        assert_eq!(rows(&["up-*"]).unwrap(), ["up-1", "up-16"]);
        assert_eq!(rows(&["http"]).unwrap(), ["wrk", "h2load"]);
        let every: usize = all().iter().map(|load| load.figures().len()).sum();
        assert_eq!(rows(&[]).unwrap().len(), every);
        assert_eq!(rows(&["*"]).unwrap().len(), every);
    }

    #[test]
    fn a_name_that_no_row_has_is_an_error_that_says_which_there_are() {
        for wrong in ["idle-p", "up", "ping-pong", "", "wrk2*"] {
            let error = rows(&["wrk", wrong]).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("no row and no group {wrong}:")),
                "{error}"
            );
            assert!(error.contains("idle-p50, idle-p99"), "{error}");
            assert!(error.contains("idle-500-guest"), "{error}");
            assert!(
                error.contains("the groups are bulk, cpu, connections, latency, udp"),
                "{error}"
            );
        }
    }
}
