//! Runs scenarios in simulated worlds, from a seed, and says what came of them.
//!
//! Exit status: 0 passed, 1 a rule was broken, 2 bad scenario or use, 3 not deterministic, 4 budget exceeded, 5 vacuous.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;
use taipei_engine::record::{self, Replayed};
use taipei_sim::plan::Materials;
use taipei_sim::recording;
use taipei_sim::run::{Outcome, RunOptions, Verdict, run};
use taipei_sim::scenario::{Scenario, World};
use taipei_sim::sweep::{self, Sweep};
use taipei_sim::trace::TraceFile;
use taipei_sim::units::Time;

/// Runs swarms of the real engine in simulated worlds.
#[derive(Parser)]
#[command(name = "taipei-sim", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs a scenario once in each world it names
    Run(RunArgs),
    /// Runs a scenario with many seeds
    Sweep(SweepArgs),
    /// Runs again what a failure line names, or a recording of a real session
    Replay(ReplayArgs),
    /// Shows the first event that differs between two trace files
    Diff {
        /// A trace file
        a: PathBuf,
        /// Another
        b: PathBuf,
    },
}

#[derive(Args)]
struct RunArgs {
    /// The scenario file
    file: PathBuf,
    /// Where all randomness comes from
    #[arg(long, default_value = "1", value_parser = parse_seed)]
    seed: u64,
    /// Only in this world
    #[arg(long)]
    world: Option<WorldArg>,
    /// Print one JSON object for each world
    #[arg(long)]
    json: bool,
    /// Write all events to this file (with two worlds, FILE.events and FILE.turmoil)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Give up after so many events
    #[arg(long, default_value_t = RunOptions::default().events_max)]
    max_events: u64,
}

#[derive(Args)]
struct SweepArgs {
    /// The scenario file
    file: PathBuf,
    /// How many seeds; without it what the scenario says, or 10
    #[arg(long)]
    seeds: Option<u32>,
    /// The first seed
    #[arg(long, default_value = "1", value_parser = parse_seed)]
    from: u64,
    /// Only in this world
    #[arg(long)]
    world: Option<WorldArg>,
    /// Run each seed twice and compare the traces
    #[arg(long)]
    twice: bool,
    /// Runs at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ReplayArgs {
    /// A scenario file, or a recording made by `taipei-cli download --record`
    file: PathBuf,
    /// The seed of the failure
    #[arg(long, default_value = "1", value_parser = parse_seed)]
    seed: u64,
    /// The world of the failure; without it the first that the scenario names
    #[arg(long)]
    world: Option<WorldArg>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write all events to this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum WorldArg {
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

fn parse_seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "wants a number, or 0x and hexadecimal digits".to_owned())
}

fn main() -> ExitCode {
    let status = match Cli::parse().verb {
        Verb::Run(args) => run_scenario(&args),
        Verb::Sweep(args) => sweep_scenario(&args),
        Verb::Replay(args) => replay(&args),
        Verb::Diff { a, b } => diff(&a, &b),
    };
    ExitCode::from(status.unwrap_or_else(|message| {
        eprintln!("taipei-sim: {message}");
        BAD_USE
    }))
}

fn load(file: &Path) -> Result<Arc<Materials>, String> {
    Scenario::load(file).map(Materials::new).map_err(|error| error.to_string())
}

fn worlds(materials: &Materials, only: Option<WorldArg>) -> Vec<World> {
    only.map_or_else(|| materials.scenario.scenario.worlds.clone(), |world| vec![world.into()])
}

fn run_scenario(args: &RunArgs) -> Result<u8, String> {
    let materials = load(&args.file)?;
    let worlds = worlds(&materials, args.world);
    let options =
        RunOptions { keep_trace: args.trace.is_some(), events_max: args.max_events, ..RunOptions::default() };
    let mut outcomes = Vec::new();
    for world in &worlds {
        let began = Instant::now();
        let outcome = run(&materials, args.seed, *world, &options);
        show(&outcome, &args.file, began, args.json);
        if let Some(path) = &args.trace {
            let path = if worlds.len() > 1 { path.with_added_extension(world.name()) } else { path.clone() };
            write_trace(&path, &outcome)?;
        }
        outcomes.push(outcome);
    }
    if let [first, rest @ ..] = outcomes.as_slice()
        && outcomes.iter().all(|outcome| outcome.verdict == Verdict::Pass)
        && let Some(other) = rest.iter().find(|other| other.end_state != first.end_state)
    {
        eprintln!("{} and {} end differently:", first.world.name(), other.world.name());
        eprintln!("{}\n{}", json!(first.end_state), json!(other.end_state));
        return Ok(Verdict::Failed.exit_status());
    }
    Ok(worst(outcomes.iter().map(|outcome| outcome.verdict)))
}

fn show(outcome: &Outcome, file: &Path, began: Instant, as_json: bool) {
    if as_json {
        println!("{}", outcome.to_json());
    } else {
        let wall = began.elapsed();
        let speed = outcome.ended_at_ns as u128 / wall.as_nanos().max(1);
        println!(
            "{} seed {} {}: {} after {} simulated, {:.2} s wall ({speed}x), {} events",
            outcome.scenario,
            outcome.seed,
            outcome.world.name(),
            word(outcome.verdict),
            Time(outcome.ended_at_ns),
            wall.as_secs_f64(),
            outcome.events,
        );
        for (what, at_ms) in &outcome.summary.completed_ms {
            println!("  {what} complete at {}", Time(at_ms * 1_000_000));
        }
        println!("  trace {}", outcome.trace);
    }
    if let Some(violation) = &outcome.violation {
        eprintln!("{} on {}: {}", violation.oracle, at(&violation.host), violation.message);
        for event in &outcome.tail {
            eprintln!("  {event}");
        }
        eprintln!("{}", outcome.replay_line(&file.display().to_string()));
    }
}

fn at(host: &str) -> &str {
    if host.is_empty() { "the whole" } else { host }
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

fn sweep_scenario(args: &SweepArgs) -> Result<u8, String> {
    let materials = load(&args.file)?;
    let seeds = args.seeds.or(materials.scenario.sweep.seeds).unwrap_or(10);
    if seeds == 0 || args.jobs == 0 {
        return Err("`--seeds` and `--jobs` want at least 1".to_owned());
    }
    let mut status = 0;
    for world in worlds(&materials, args.world) {
        let began = Instant::now();
        let sweep = Sweep { from: args.from, seeds, world, twice: args.twice, jobs: args.jobs };
        let file = args.file.display().to_string();
        let result = sweep::sweep(&materials, &sweep, |seed| {
            for line in &seed.lines(&file) {
                eprintln!("{line}");
            }
        });
        if args.json {
            println!("{}", result.to_json(&materials, &sweep));
        } else {
            let wall = began.elapsed().as_secs_f64();
            println!(
                "{} {}: {} seeds{}, {} passed, {} failed, {} not deterministic, {:.1} simulated s a wall s",
                materials.scenario.scenario.id,
                world.name(),
                result.seeds,
                if args.twice { " twice" } else { "" },
                result.passed,
                result.failed,
                result.different,
                result.simulated_ns as f64 / 1e9 / wall.max(1e-9),
            );
            if !result.marks_missing.is_empty() {
                println!("  never reached: {}", result.marks_missing.join(" "));
            }
        }
        // What is not deterministic cannot be replayed: that is the worst of all.
        let this = result.exit_status();
        status = if status == NOT_DETERMINISTIC || this == NOT_DETERMINISTIC {
            NOT_DETERMINISTIC
        } else {
            status.max(this)
        };
    }
    Ok(status)
}

fn replay(args: &ReplayArgs) -> Result<u8, String> {
    let shown = args.file.display();
    let bytes = std::fs::read(&args.file).map_err(|error| format!("{shown}: {error}"))?;
    if bytes.starts_with(record::MAGIC) {
        return replay_recording(args, &bytes);
    }
    if args.file.extension().is_none_or(|extension| extension != "toml") {
        return Err(format!("{shown}: neither a scenario file (.toml) nor a recording"));
    }
    let materials = load(&args.file)?;
    let Some(world) = worlds(&materials, args.world).first().copied() else {
        return Err("no world".to_owned());
    };
    let began = Instant::now();
    let options = RunOptions { keep_trace: args.trace.is_some(), ..RunOptions::default() };
    let outcome = run(&materials, args.seed, world, &options);
    show(&outcome, &args.file, began, args.json);
    if let Some(path) = &args.trace {
        write_trace(path, &outcome)?;
    }
    Ok(outcome.verdict.exit_status())
}

/// Gives what happened to a real engine to a fresh one.
fn replay_recording(args: &ReplayArgs, bytes: &[u8]) -> Result<u8, String> {
    let (status, verdict, message, done) = match recording::replay(bytes) {
        Ok(done) => (0, "pass", String::new(), done),
        Err(recording::Failure::Differs(message)) => {
            (NOT_DETERMINISTIC, "differs", message, Replayed::default())
        }
        Err(recording::Failure::Broken(message)) => (1, "failed", message, Replayed::default()),
        Err(recording::Failure::Unreadable(message)) => {
            return Err(format!("{}: {message}", args.file.display()));
        }
    };
    if args.json {
        println!(
            "{}",
            json!({
                "recording": args.file.display().to_string(),
                "verdict": verdict,
                "message": message,
                "inputs": done.inputs,
                "outputs": done.outputs,
                "at_ns": done.end.0,
                "digest": format!("{:016x}", done.digest),
            })
        );
    } else if status == 0 {
        println!(
            "the same {} outputs from {} inputs over {}, digest {:016x}",
            done.outputs,
            done.inputs,
            Time(done.end.0),
            done.digest
        );
    }
    if status != 0 {
        eprintln!("{}: {message}", args.file.display());
    }
    Ok(status)
}

fn diff(a: &Path, b: &Path) -> Result<u8, String> {
    let read = |path: &Path| {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        TraceFile::parse(&bytes).ok_or_else(|| format!("{}: not a trace file", path.display()))
    };
    let (first, second) = (read(a)?, read(b)?);
    let Some(at) = first.first_difference(&second) else {
        println!("the same: {} events", first.events.len());
        return Ok(0);
    };
    println!("event {at} differs");
    for (path, file) in [(a, &first), (b, &second)] {
        println!("{}", path.display());
        for (number, event) in file.events.iter().enumerate().skip(at.saturating_sub(20)).take(41) {
            println!("{} {event:?}", if number == at { ">" } else { " " });
        }
    }
    Ok(1)
}

const BAD_USE: u8 = 2;
const NOT_DETERMINISTIC: u8 = 3;
