//! `replay`: what a failure line names, or a recording of a real session.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;
use taipei_engine::record;
use taipei_sim::recording;
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
        let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        if record::is_recording(&bytes) {
            return replay_recording(file, &bytes, args.json);
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
fn replay_recording(file: &Path, bytes: &[u8], as_json: bool) -> Result<u8, String> {
    let (status, verdict, message, done) = match recording::replay(bytes) {
        Ok(done) => (0, "pass", String::new(), Some(done)),
        Err(recording::Failure::Differs(message)) => (NOT_DETERMINISTIC, "differs", message, None),
        Err(recording::Failure::Broken(message)) => (1, "failed", message, None),
        Err(recording::Failure::Unreadable(message)) => {
            return Err(format!("{}: {message}", file.display()));
        }
    };
    if as_json {
        say(format_args!(
            "{}",
            json!({
                "recording": file.display().to_string(),
                "verdict": verdict,
                "message": message,
                "inputs": done.map_or(0, |done| done.inputs),
                "outputs": done.map_or(0, |done| done.outputs),
                "at_ns": done.map_or(0, |done| done.end.0),
                "digest": format!("{:016x}", done.map_or(0, |done| done.digest)),
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
    if status != 0 {
        eprintln!("{}: {message}", file.display());
    }
    Ok(status)
}
