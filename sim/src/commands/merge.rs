//! `merge`: what the shards of a sweep come to together.

use std::path::PathBuf;

use clap::Args;
use taipei_sim::sweep::{Source, Summary, read_parts};

use super::sweep::{print_summary, write_sweep_report};

#[derive(Args)]
pub(crate) struct MergeArgs {
    /// What `sweep --out` wrote, one file a shard
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The scenario that was swept; a profile that is built in is known by its name
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Write a page to look at to this file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn merge(args: &MergeArgs) -> Result<u8, String> {
    let (head, lines) = read_parts(&args.files).map_err(|error| error.to_string())?;
    let (source, shown) = match &args.scenario {
        Some(file) => (Source::file(file), file.display().to_string()),
        None => (Source::profile(&head.source), format!("--profile {}", head.source)),
    };
    let source = source.map_err(|error| format!("{error} (a scenario's file is named by `--scenario`)"))?;
    if source.id() != head.source {
        return Err(format!("these are of `{}`, not of `{}`", head.source, source.id()));
    }
    for line in &lines {
        if let Some(replay) = line.replay_line(&shown, head.world) {
            eprintln!("{replay}");
        }
    }
    let summary = Summary::new(&source, &head, &lines);
    print_summary(&summary, args.json);
    if let Some(path) = &args.report {
        write_sweep_report(path, &source, &head, &lines, &shown)?;
    }
    Ok(summary.exit_status())
}
