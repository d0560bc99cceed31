//! `diff`: the first thing in which two files differ.

use std::path::{Path, PathBuf};

use super::say;
use clap::Args;
use taipei_sim::run::Verdict;
use taipei_sim::sweep::read_parts;
use taipei_sim::trace::TraceFile;

#[derive(Args)]
pub(crate) struct DiffArgs {
    /// A trace file, or what `sweep --out` wrote
    a: PathBuf,
    /// Another of the same kind
    b: PathBuf,
}

pub(crate) fn diff(args: &DiffArgs) -> Result<u8, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    match (TraceFile::parse(&read(&args.a)?), TraceFile::parse(&read(&args.b)?)) {
        (Some(first), Some(second)) => Ok(diff_traces(args, &first, &second)),
        (None, None) => diff_sweeps(&args.a, &args.b),
        _ => Err("one is a trace file and the other is not".to_owned()),
    }
}

fn diff_traces(args: &DiffArgs, first: &TraceFile, second: &TraceFile) -> u8 {
    let Some(at) = first.first_difference(second) else {
        say(format_args!("the same: {} events", first.events.len()));
        return 0;
    };
    say(format_args!("event {at} differs"));
    for (path, file) in [(&args.a, first), (&args.b, second)] {
        say(format_args!("{}", path.display()));
        for (number, event) in file.events.iter().enumerate().skip(at.saturating_sub(20)).take(41) {
            say(format_args!("{} {event:?}", if number == at { ">" } else { " " }));
        }
    }
    Verdict::Failed.exit_status()
}

/// Compares the traces of two sweeps, as of two builds.
fn diff_sweeps(a: &Path, b: &Path) -> Result<u8, String> {
    let read = |path: &Path| read_parts(&[path]).map_err(|error| error.to_string());
    let ((_, first), (_, second)) = (read(a)?, read(b)?);
    let mut differ = 0;
    for line in &first {
        match second.iter().find(|other| other.run == line.run) {
            Some(other) if other.trace == line.trace => {}
            Some(other) => {
                differ += 1;
                say(format_args!("seed {}: trace {} and {}", line.run.seed, line.trace, other.trace));
            }
            None => {
                differ += 1;
                say(format_args!("seed {}: only in {}", line.run.seed, a.display()));
            }
        }
    }
    for line in second.iter().filter(|line| first.iter().all(|other| other.run != line.run)) {
        differ += 1;
        say(format_args!("seed {}: only in {}", line.run.seed, b.display()));
    }
    say(format_args!(
        "{} seeds, {} with equal traces, {differ} not",
        first.len(),
        first.len().saturating_sub(differ)
    ));
    Ok(if differ == 0 { 0 } else { Verdict::Failed.exit_status() })
}
