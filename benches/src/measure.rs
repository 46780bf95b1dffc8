//! The rounds: every load with every contender, in turn.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::contenders::Contender;
use crate::loads::{Entrant, Load};
use crate::report::results::{Machine, Results, Row};
use crate::stage::Stage;

/// After so many failures a contender is not asked for the same again: each may take a time-out.
const ENOUGH: usize = 2;

/// How often, how long, and of what.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// After this long nothing new is begun.
    pub(crate) limit: Duration,
    /// Only loads with a figure whose id, name or group has one of these in it.
    pub(crate) only: Vec<String>,
}

/// Runs all of it. What is missing or fails is named and left out.
pub(crate) fn run(
    plan: &Plan,
    contenders: Vec<Box<dyn Contender>>,
    loads: Vec<Box<dyn Load>>,
) -> anyhow::Result<Results> {
    let began = Instant::now();
    let stage = Stage::new()?;
    let mut results = Results {
        machine: Machine::here(),
        rounds: plan.rounds,
        seconds: plan.seconds,
        ..Results::default()
    };
    let mut entrants = enter(&stage, contenders, &mut results);
    let loads: Vec<_> = loads
        .into_iter()
        .filter(|load| wanted(&plan.only, load.as_ref()))
        .collect();
    for note in loads.iter().filter_map(|load| load.note()) {
        results.note(note);
    }
    let mut first_rows = Vec::new();
    for load in &loads {
        first_rows.push(results.rows.len());
        results
            .rows
            .extend(load.figures().into_iter().map(Row::new));
    }
    'rounds: for round in 0..plan.rounds {
        for (load, first_row) in loads.iter().zip(&first_rows) {
            if round >= load.most_rounds() {
                continue;
            }
            // Nobody is always the one after the same other.
            let count = entrants.len().max(1);
            for turn in 0..entrants.len() {
                let Some(entrant) = entrants.get_mut((turn + round) % count) else {
                    continue;
                };
                if began.elapsed() > plan.limit {
                    results.note(format!("stopped in round {}: out of time", round + 1));
                    break 'rounds;
                }
                one(&stage, load.as_ref(), entrant, *first_row, &mut results);
                if let Err(last) = entrant.rest() {
                    let (name, load) = (entrant.contender.name(), load.figures());
                    let figure = load.first().map_or("", |figure| &figure.name);
                    results.note(format!(
                        "{name} was still busy after its turn at `{figure}`, and was ended{last}"
                    ));
                }
            }
        }
        eprintln!(
            "round {} of {} done after {} s",
            round + 1,
            plan.rounds,
            began.elapsed().as_secs()
        );
    }
    results.rows.retain(|row| !row.samples.is_empty());
    Ok(results)
}

/// One load with one contender.
fn one(
    stage: &Stage,
    load: &dyn Load,
    entrant: &mut Entrant,
    first_row: usize,
    results: &mut Results,
) {
    let name = entrant.contender.name().to_owned();
    // Starts it again if it has ended: whether a load fits is known of what runs.
    if results.failed(&name, first_row) >= ENOUGH {
        return;
    }
    let started = entrant.running(stage).map(drop);
    if started.is_ok() && !load.fits(entrant) {
        return;
    }
    let done = started.and_then(|()| load.once(stage, entrant));
    match done {
        Ok(values) => {
            let count = load.figures().len();
            let rows = results.rows.iter_mut().skip(first_row).take(count);
            for (row, value) in rows.zip(values) {
                let Some(value) = value.filter(|value| value.is_finite()) else {
                    continue;
                };
                eprintln!(
                    "  {name}: {}: {value:.2} {}",
                    row.figure.name, row.figure.unit
                );
                row.samples.entry(name.clone()).or_default().push(value);
            }
        }
        Err(error) => {
            let figure = results.rows.get(first_row);
            let figure = figure.map_or("", |row| &row.figure.name).to_owned();
            let last = entrant.stop();
            results.fail(&name, first_row);
            results.note(format!("{name} failed at `{figure}`: {error:#}{last}"));
        }
    }
}

/// Starts everyone who is here.
fn enter(
    stage: &Stage,
    contenders: Vec<Box<dyn Contender>>,
    results: &mut Results,
) -> Vec<Entrant> {
    let mut entrants = Vec::new();
    for (contender, number) in contenders.into_iter().zip(0..) {
        let name = contender.name().to_owned();
        if let Some(why) = contender.missing() {
            results.note(format!("{name} left out: {why}"));
            continue;
        }
        let mut entrant = Entrant::new(contender, number);
        if let Err(error) = entrant.running(stage) {
            results.note(format!("{name} left out: it did not start: {error:#}"));
            continue;
        }
        eprintln!("{name} runs");
        results.contenders.insert(name.clone(), entrant.family());
        results.order.push(name);
        entrants.push(entrant);
    }
    entrants
}

fn wanted(only: &[String], load: &dyn Load) -> bool {
    only.is_empty()
        || load.figures().iter().any(|figure| {
            let words = [&figure.id, &figure.name, &figure.group];
            only.iter()
                .any(|part| words.iter().any(|word| word.contains(&**part)))
        })
}

/// Those that are asked for; a name that nobody has is an error.
pub(crate) fn choose(
    contenders: Vec<Box<dyn Contender>>,
    wanted: &[String],
) -> anyhow::Result<Vec<Box<dyn Contender>>> {
    if wanted.is_empty() {
        return Ok(contenders);
    }
    let known: BTreeMap<String, usize> = wanted
        .iter()
        .map(|part| {
            let count = contenders
                .iter()
                .filter(|one| matches(one.name(), part))
                .count();
            (part.clone(), count)
        })
        .collect();
    if let Some((part, _)) = known.iter().find(|(_, count)| **count == 0) {
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
