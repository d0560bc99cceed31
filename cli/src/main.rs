//! taipei on the command line.

mod tracker;

use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "taipei-cli")]
enum Cli {
    /// Run a tracker
    Tracker(tracker::TrackerArgs),
}

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::Tracker(args) => tracker::run(&args),
    }
}
