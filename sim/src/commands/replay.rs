//! `replay`: what a failure line names, or a recording of a real session.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;
use taipei_engine::record::{self, Replayed};
use taipei_sim::recording::{self, Ending, Failure};
use taipei_sim::report::recording_page;
use taipei_sim::run::{RunOptions, run};
use taipei_sim::scenario::World;
use taipei_sim::sweep::NOT_DETERMINISTIC;
use taipei_sim::units::Time;

use super::{RunOf, say, show, write_capture, write_report, write_trace};

#[derive(Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    run: RunOf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write all events to this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write a page to look at to this file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write what went over the wires to this file, for Wireshark (event world only)
    #[arg(long, value_name = "FILE.pcapng")]
    pcap: Option<PathBuf>,
}

pub(crate) fn replay(args: &ReplayArgs) -> Result<u8, String> {
    if let Some(file) = &args.run.source.file {
        let failed = |error| format!("{}: {error}", file.display());
        let mut opened = File::open(file).map_err(failed)?;
        let mut begin = Vec::new();
        opened.by_ref().take(record::MAGIC.len() as u64).read_to_end(&mut begin).map_err(failed)?;
        if record::is_recording(&begin) {
            opened.rewind().map_err(failed)?;
            return replay_recording(args, file, opened);
        }
        if file.extension().is_none_or(|extension| extension != "toml") {
            return Err(format!("{}: neither a scenario file (.toml) nor a recording", file.display()));
        }
    }
    let (seed, materials, world) = args.run.load_one()?;
    if let Some(found) = materials.scenario.found.as_ref().filter(|found| found.build != taipei_sim::BUILD) {
        eprintln!(
            "note: found by build {}, and this is {}: it may go another way",
            found.build,
            taipei_sim::BUILD
        );
    }
    if args.pcap.is_some() && world != World::Events {
        return Err("`--pcap` wants `--world events`: no other world knows its packets".to_owned());
    }
    let began = Instant::now();
    let options = RunOptions {
        keep_trace: args.trace.is_some(),
        observe: args.report.is_some(),
        capture: args.pcap.is_some(),
        ..RunOptions::default()
    };
    let outcome = run(&materials, seed, world, &options);
    let took = began.elapsed();
    if let Some(path) = &args.trace {
        write_trace(path, &outcome)?;
    }
    if let Some(path) = &args.report {
        write_report(path, &materials, &outcome, &args.run.shown(args.run.cell))?;
    }
    if let Some(path) = &args.pcap {
        write_capture(path, &outcome)?;
    }
    show(&outcome, &args.run.source.shown(), took, args.json);
    Ok(outcome.verdict.exit_status())
}

/// Gives what happened to a real engine to a fresh one.
fn replay_recording(args: &ReplayArgs, path: &Path, file: File) -> Result<u8, String> {
    if args.trace.is_some() || args.pcap.is_some() {
        return Err("`--trace` and `--pcap` are of simulated runs: a recording has no network".to_owned());
    }
    let replay =
        recording::replay(BufReader::new(file)).map_err(|error| format!("{}: {error}", path.display()))?;
    if replay.seen.version != env!("CARGO_PKG_VERSION") {
        eprintln!(
            "note: recorded by version {}, and this is {}: it may go another way",
            replay.seen.version,
            env!("CARGO_PKG_VERSION")
        );
    }
    if let Some(report) = &args.report {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        std::fs::write(report, recording_page(&replay, &name))
            .map_err(|error| format!("{}: {error}", report.display()))?;
    }
    let (status, verdict, message) = verdict(&replay.outcome);
    // Those that were repeated.
    let inputs = match &replay.outcome {
        Ok(done) => Some(done.inputs),
        Err(Failure::Differs { same, .. }) => Some(*same),
        Err(Failure::Broken { .. }) => None,
    };
    let done = replay.outcome.ok();
    if args.json {
        say(format_args!(
            "{}",
            json!({
                "recording": path.display().to_string(),
                "verdict": verdict,
                "message": message,
                "version": replay.seen.version,
                "inputs": inputs,
                "outputs": done.map(|done| done.outputs),
                "at_ns": replay.seen.ended_at,
                "digest": done.map(|done| format!("{:016x}", done.digest)),
            })
        ));
    } else if let Some(done) = done {
        say(format_args!(
            "the same {} outputs from {} inputs over {}, digest {:016x}",
            done.outputs,
            done.inputs,
            Time(done.end.0),
            done.digest
        ));
    }
    if !message.is_empty() {
        let kind = if status == 0 { "note: " } else { "" };
        eprintln!("{kind}{}: {message}", path.display());
    }
    Ok(status)
}

/// Exit status, word, and what is to be said beside. An end that is missing is what a killed process leaves, and no error.
fn verdict(outcome: &Result<Replayed, Failure>) -> (u8, &'static str, String) {
    match outcome {
        Ok(done) => match done.ending {
            Ending::Finished => (0, "pass", String::new()),
            Ending::Full => (
                0,
                "pass",
                "the recording was as large as it might be there, and the session went on".to_owned(),
            ),
            Ending::Damaged(damage) if damage.is_cut() => (0, "cut", damage.to_string()),
            Ending::Damaged(damage) => {
                (BAD_INPUT, "damaged", format!("what is whole was repeated, but {damage}"))
            }
        },
        Err(Failure::Differs { same, among, words }) => {
            let inputs = match among {
                1 => format!("input {same}"),
                _ => format!("one of inputs {same} to {}", same + among - 1),
            };
            (NOT_DETERMINISTIC, "differs", format!("outputs differ at {inputs}: {}", words.join("; ")))
        }
        Err(Failure::Broken { message, .. }) => {
            (1, "failed", message.replace("panicked at", "the engine gave up at"))
        }
    }
}

/// As for a bad scenario.
const BAD_INPUT: u8 = 2;
