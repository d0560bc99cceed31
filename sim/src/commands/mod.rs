//! What the command line can do, one file a command, and what they have in common.

pub(crate) mod canaries;
pub(crate) mod cost;
pub(crate) mod diff;
pub(crate) mod merge;
pub(crate) mod museum;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod shrink;
pub(crate) mod swarms;
pub(crate) mod sweep;
pub(crate) mod write;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use taipei_sim::oracle::rule;
use taipei_sim::plan::Materials;
use taipei_sim::report::run_page;
use taipei_sim::run::{Outcome, Verdict};
use taipei_sim::scenario::World;
use taipei_sim::sweep::{Source, Unit};
use taipei_sim::units::Time;

/// Where scenarios come from.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SourceArgs {
    /// A scenario file
    file: Option<PathBuf>,
    /// Draw another scenario for each seed: the name of a profile, or its file
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
}

impl SourceArgs {
    fn load(&self) -> Result<Source, String> {
        match (&self.file, &self.profile) {
            (Some(file), _) => Source::file(file),
            (None, name) => Source::profile(name.as_deref().unwrap_or_default()),
        }
        .map_err(|error| error.to_string())
    }

    /// As the command line would name it again.
    fn shown(&self) -> String {
        match (&self.file, &self.profile) {
            (Some(file), _) => file.display().to_string(),
            (None, name) => format!("--profile {}", name.as_deref().unwrap_or_default()),
        }
    }

    /// The same, as arguments.
    fn arguments(&self) -> Vec<std::ffi::OsString> {
        match (&self.file, &self.profile) {
            (Some(file), _) => vec![file.into()],
            (None, name) => vec!["--profile".into(), name.clone().unwrap_or_default().into()],
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum WorldArg {
    /// Engines stepped from a queue of events
    Events,
    /// The real driver on turmoil hosts
    Turmoil,
}

impl From<WorldArg> for World {
    fn from(world: WorldArg) -> Self {
        match world {
            WorldArg::Events => Self::Events,
            WorldArg::Turmoil => Self::Turmoil,
        }
    }
}

pub(crate) fn parse_seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "wants a number, or 0x and hexadecimal digits".to_owned())
}

/// Which run is meant.
#[derive(Args)]
pub(crate) struct RunOf {
    #[command(flatten)]
    source: SourceArgs,
    /// Where all randomness comes from; without it that of the file's `[found]`, or 1
    #[arg(long, value_parser = parse_seed)]
    seed: Option<u64>,
    /// Only this cell of the file's matrix, from 1 on
    #[arg(long)]
    cell: Option<u32>,
    /// Only in this world; without it that of `[found]`, or those that the scenario names
    #[arg(long)]
    world: Option<WorldArg>,
}

/// Runs that a command line names: one for each cell and world.
struct Runs {
    seed: u64,
    cells: Vec<(u32, Arc<Materials>)>,
    worlds: Vec<World>,
}

impl RunOf {
    fn load(&self) -> Result<Runs, String> {
        let source = self.source.load()?;
        let found = match &source {
            Source::Cells(cells) => cells[0].scenario.found.clone(),
            Source::Profile(_) => None,
        };
        let seed = self.seed.or(found.as_ref().map(|found| found.seed)).unwrap_or(1);
        let world = self.world.map(World::from).or(found.map(|found| found.world));
        let cells = self.cell.map_or(1..=source.cells(), |cell| cell..=cell);
        let materials = |cell| source.materials(Unit { seed, cell }).map(|materials| (cell, materials));
        let cells: Option<Vec<_>> = cells.map(materials).collect();
        Ok(Runs {
            seed,
            cells: cells.ok_or_else(|| format!("no such cell: there are {}", source.cells()))?,
            worlds: world.map_or_else(|| source.worlds(), |world| vec![world]),
        })
    }

    /// As the command line would name what runs again.
    fn shown(&self, cell: Option<u32>) -> String {
        let cell = cell.map_or_else(String::new, |cell| format!(" --cell {cell}"));
        self.source.shown() + &cell
    }

    /// The one run that is meant, in its first world.
    fn load_one(&self) -> Result<(u64, Arc<Materials>, World), String> {
        let mut runs = self.load()?;
        let (_, materials) = runs.cells.swap_remove(0);
        if runs.cells.is_empty() {
            Ok((runs.seed, materials, runs.worlds.first().copied().unwrap_or(World::Events)))
        } else {
            Err(format!("this file has {} cells: `--cell` says which", runs.cells.len() + 1))
        }
    }
}

/// Says what came of a run: to people, or as one JSON object.
fn show(outcome: &Outcome, source: &str, took: Duration, as_json: bool) {
    if as_json {
        say(format_args!("{}", outcome.to_json()));
    } else {
        let speed = outcome.ended_at_ns as u128 / took.as_nanos().max(1);
        say(format_args!(
            "{} seed {} {}: {} after {} simulated, {:.2} s wall ({speed}x), {} events",
            outcome.scenario,
            outcome.seed,
            outcome.world.name(),
            word(outcome.verdict),
            Time(outcome.ended_at_ns),
            took.as_secs_f64(),
            outcome.events,
        ));
        for (what, at_ms) in &outcome.summary.completed_ms {
            say(format_args!("  {what} complete at {}", Time(at_ms * 1_000_000)));
        }
        say(format_args!("  trace {}", outcome.trace));
    }
    if let Some(violation) = &outcome.violation {
        let host = if violation.host.is_empty() { "the whole" } else { &violation.host };
        eprintln!("{} on {host}: {}", violation.oracle, violation.message);
        if let Some(rule) = rule(violation.oracle) {
            eprintln!("  the rule: {}", rule.rule);
        }
        for event in &outcome.tail {
            eprintln!("  {event}");
        }
        eprintln!("{}", outcome.replay_line(source));
    }
}

/// Prints a line. Whoever reads it may have seen enough.
fn say(line: impl std::fmt::Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        let status = if error.kind() == std::io::ErrorKind::BrokenPipe { 0 } else { 1 };
        std::process::exit(status);
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "passed",
        Verdict::Failed => "FAILED",
        Verdict::Vacuous => "VACUOUS",
        Verdict::BudgetExceeded => "BUDGET EXCEEDED",
    }
}

fn worst(verdicts: impl Iterator<Item = Verdict>) -> u8 {
    // A broken rule says more than a budget, a budget more than a vacuous run.
    let statuses: Vec<u8> = verdicts.map(Verdict::exit_status).collect();
    [1, 4, 5].into_iter().find(|status| statuses.contains(status)).unwrap_or(0)
}

fn write_trace(path: &Path, outcome: &Outcome) -> Result<(), String> {
    let bytes = outcome.trace_file.as_deref().unwrap_or_default();
    std::fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn write_report(path: &Path, materials: &Materials, outcome: &Outcome, shown: &str) -> Result<(), String> {
    let page = run_page(materials, outcome, shown).unwrap_or_default();
    std::fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()))
}

fn write_capture(path: &Path, outcome: &Outcome) -> Result<(), String> {
    let Some((file, is_cut)) = &outcome.capture else { return Ok(()) };
    if *is_cut {
        eprintln!("note: {} is full and ends before the run does", path.display());
    }
    std::fs::write(path, file).map_err(|error| format!("{}: {error}", path.display()))
}
