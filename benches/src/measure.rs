//! The rounds: every load with every contender, in turn.

use std::time::{Duration, Instant};

use crate::choice::Rows;
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
    pub(crate) only: Rows,
}

/// Runs all of it. What is missing or fails is named and left out. What there is so far is
/// reported after each round: a run is long, and may be killed.
///
/// # Errors
/// When the namespaces can't be made, or the last report fails.
pub(crate) fn run(
    plan: &Plan,
    contenders: Vec<Box<dyn Contender>>,
    loads: Vec<Box<dyn Load>>,
    report: impl Fn(&Results) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let stage = Stage::new()?;
    let mut results = Results {
        machine: Machine::here(),
        planned: plan.rounds,
        seconds: plan.seconds,
        ..Results::default()
    };
    let mut entrants = enter(&stage, contenders, &mut results);
    let loads: Vec<_> = loads
        .into_iter()
        .filter(|load| plan.only.want(load.as_ref()))
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
            // The order of contenders differs in each round.
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
        results.rounds = round + 1;
        eprintln!(
            "round {} of {} done after {} s",
            results.rounds,
            plan.rounds,
            began.elapsed().as_secs()
        );
        if results.rounds < plan.rounds
            && let Err(error) = report(&results.of_rows(&plan.only))
        {
            results.note(format!("not reported after round {}: {error:#}", round + 1));
        }
    }
    report(&results.of_rows(&plan.only))
}

/// Runs a load with a contender.
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
