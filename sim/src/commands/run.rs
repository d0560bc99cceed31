//! `run`: a scenario once in each world, every cell of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::json;
use taipei_sim::plan::Materials;
use taipei_sim::run::{RunOptions, Verdict, run as run_seed};
use taipei_sim::scenario::World;

use super::{RunOf, say, show, worst, write_capture, write_report, write_trace};

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
    /// Write a page to look at to this file (of several worlds, or cells, as with `--trace`)
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write what went over the wires to this file, for Wireshark (event world only; of cells as with `--report`)
    #[arg(long, value_name = "FILE.pcapng")]
    pcap: Option<PathBuf>,
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
        let of_cell = (runs.cells.len() > 1).then_some(*cell);
        verdicts.push(run_cell(args, materials, runs.seed, &runs.worlds, of_cell)?);
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
    cell: Option<u32>,
) -> Result<Verdict, String> {
    let options = RunOptions {
        keep_trace: args.trace.is_some(),
        observe: args.report.is_some(),
        capture: args.pcap.is_some(),
        oracles: !args.no_oracles,
        events_max: args.max_events,
        ..RunOptions::default()
    };
    if args.pcap.is_some() && worlds != [World::Events] {
        return Err("`--pcap` wants `--world events`: no other world knows its packets".to_owned());
    }
    let mut outcomes = Vec::new();
    for world in worlds {
        let began = Instant::now();
        let outcome = run_seed(materials, seed, *world, &options);
        let took = began.elapsed();
        // What a file of one run is called among several.
        let of_run = [cell.map(|cell| cell.to_string()), (worlds.len() > 1).then(|| world.name().to_owned())];
        if let Some(path) = &args.trace {
            let of_run = of_run.iter().flatten();
            let path = of_run.fold(path.clone(), |path, part| path.with_added_extension(part));
            write_trace(&path, &outcome)?;
        }
        if let Some(path) = &args.report {
            let of_run = of_run.iter().flatten();
            let path = of_run.fold(path.clone(), |path, part| before_extension(&path, part));
            write_report(&path, materials, &outcome, &args.run.shown(cell))?;
        }
        if let Some(path) = &args.pcap {
            let of_run = of_run.iter().flatten();
            write_capture(&of_run.fold(path.clone(), |path, part| before_extension(&path, part)), &outcome)?;
        }
        // At last: whoever reads may be gone by then, and end us with it.
        show(&outcome, &args.run.shown(cell), took, args.json);
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

/// `report.html` and `events` are `report.events.html`, so that a browser still knows what it is.
fn before_extension(path: &Path, part: &str) -> PathBuf {
    match path.extension() {
        Some(extension) => path.with_extension(part).with_added_extension(extension),
        None => path.with_added_extension(part),
    }
}
