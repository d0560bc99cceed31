//! `run`: a scenario once in each world, every cell of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::json;
use taipei_sim::plan::Materials;
use taipei_sim::run::{RunOptions, Verdict, run as run_seed};
use taipei_sim::scenario::World;

use super::{RunOf, say, show, worst, write_trace};

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    run: RunOf,
    /// Print one JSON object for each run
    #[arg(long)]
    json: bool,
    /// Write all events to this file (of several worlds to FILE.events and FILE.turmoil, of cells to FILE.1 and so on)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Give up after so many events
    #[arg(long, default_value_t = RunOptions::default().events_max)]
    max_events: u64,
    /// Look at no rule and trace nothing: for measuring what that costs
    #[arg(long)]
    no_oracles: bool,
}

pub(crate) fn run(args: &RunArgs) -> Result<u8, String> {
    let runs = args.run.load()?;
    let mut verdicts = Vec::new();
    for (cell, materials) in &runs.cells {
        let path = args.trace.as_deref().map(|path| match runs.cells.len() {
            1 => path.to_owned(),
            _ => path.with_added_extension(cell.to_string()),
        });
        verdicts.push(run_cell(args, materials, runs.seed, &runs.worlds, path.as_deref())?);
    }
    if runs.cells.len() > 1 && !args.json {
        say(format_args!("{} cells ran", runs.cells.len()));
    }
    Ok(worst(verdicts.into_iter()))
}

/// One cell in all its worlds, which have to agree.
fn run_cell(
    args: &RunArgs,
    materials: &Arc<Materials>,
    seed: u64,
    worlds: &[World],
    trace: Option<&Path>,
) -> Result<Verdict, String> {
    let options = RunOptions {
        keep_trace: trace.is_some(),
        oracles: !args.no_oracles,
        events_max: args.max_events,
        ..RunOptions::default()
    };
    let mut outcomes = Vec::new();
    for world in worlds {
        let began = Instant::now();
        let outcome = run_seed(materials, seed, *world, &options);
        show(&outcome, &args.run.source.shown(), began, args.json);
        if let Some(path) = trace {
            let path =
                if worlds.len() > 1 { path.with_added_extension(world.name()) } else { path.to_owned() };
            write_trace(&path, &outcome)?;
        }
        outcomes.push(outcome);
    }
    if let Some(failed) = outcomes.iter().find(|outcome| outcome.verdict != Verdict::Pass) {
        return Ok(failed.verdict);
    }
    if let [first, rest @ ..] = outcomes.as_slice()
        && let Some(other) = rest.iter().find(|other| other.end_state != first.end_state)
    {
        eprintln!("{} and {} end differently:", first.world.name(), other.world.name());
        eprintln!("{}\n{}", json!(first.end_state), json!(other.end_state));
        return Ok(Verdict::Failed);
    }
    Ok(Verdict::Pass)
}
