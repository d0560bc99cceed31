//! Runs scenarios in simulated worlds, from a seed, and says what came of them.
//!
//! Exit status: 0 passed, 1 a rule was broken, 2 bad scenario or use, 3 not deterministic, 4 budget exceeded, 5 vacuous,
//! 130 interrupted.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::commands::{canaries, cost, diff, merge, museum, replay, run, shrink, swarms, sweep, write};

/// Runs swarms of the real engine in simulated worlds.
#[derive(Parser)]
#[command(name = "taipei-sim", version = taipei_sim::BUILD, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs a scenario once in each world it names
    Run(run::RunArgs),
    /// Runs many seeds, of one scenario or each of what a profile draws
    Sweep(sweep::SweepArgs),
    /// Adds up the files that the shards of a sweep wrote
    Merge(merge::MergeArgs),
    /// Runs again what a failure line names, or a recording of a real session
    Replay(replay::ReplayArgs),
    /// Makes a failing run as small as it gets, and writes it as a scenario
    Shrink(shrink::ShrinkArgs),
    /// Writes out what a seed comes to, as a scenario with nothing left to chance
    Scenario(write::ScenarioArgs),
    /// Writes a trace file as lines of JSON
    Trace(write::TraceArgs),
    /// Shows the first thing in which two trace files, or two sweeps, differ
    Diff(diff::DiffArgs),
    /// Lists the rules that every run is held to
    Oracles,
    /// Plants a bug for each rule and shows that exactly this rule finds it
    Canaries(canaries::CanariesArgs),
    /// Plants bugs that other clients had and shows that each of them is found
    Museum(museum::MuseumArgs),
    /// Shows how soon crowds have everything, against what their links allow
    Swarms(swarms::SwarmsArgs),
    /// Does one thing many times, for its instructions to be counted
    Cost(cost::CostArgs),
    /// Runs the seeds that it reads from its input, for `sweep`
    #[command(hide = true)]
    Worker(sweep::WorkerArgs),
}

fn main() -> ExitCode {
    // `RUST_LOG=taipei_engine=debug` shows what every engine of a run decides, `taipei_sim=trace` what goes in and comes out.
    let filter = EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let status = match Cli::parse().verb {
        Verb::Run(args) => run::run(&args),
        Verb::Sweep(args) => sweep::sweep(&args),
        Verb::Merge(args) => merge::merge(&args),
        Verb::Replay(args) => replay::replay(&args),
        Verb::Shrink(args) => shrink::shrink(&args),
        Verb::Scenario(args) => write::scenario(&args),
        Verb::Trace(args) => write::trace(&args),
        Verb::Diff(args) => diff::diff(&args),
        Verb::Oracles => canaries::oracles(),
        Verb::Canaries(args) => canaries::canaries(&args),
        Verb::Museum(args) => museum::museum(&args),
        Verb::Swarms(args) => swarms::swarms(&args),
        Verb::Cost(args) => cost::cost(&args),
        Verb::Worker(args) => sweep::work(&args),
    };
    ExitCode::from(status.unwrap_or_else(|message| {
        eprintln!("taipei-sim: {message}");
        BAD_USE
    }))
}

const BAD_USE: u8 = 2;
