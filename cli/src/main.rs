//! taipei on the command line.
//!
//! Reads the arguments, runs one command, ends with its status: 0 done, 1 error, 2 wrong use, 3 gave up, 4 `verify` found
//! the data not whole, 130 interrupted. What it prints for programs goes to standard output; bars and errors go to
//! standard error. Text that came from outside is never printed as it came.

mod args;
mod create;
mod demo;
mod dht;
mod hashing;
mod info;
mod items;
mod looks;
mod magnet;
mod old_spellings;
mod on_complete;
mod output;
mod paced;
mod progress;
mod record;
mod resolve;
mod said;
mod scrape;
mod sources;
mod tracker;
mod transfer;
mod verify;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches as _;

use crate::args::{Cli, CliCommand, command_line};
use crate::output::{Exit, print, tell};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let args = match old_spellings::translate(&args) {
        Ok(None) => args,
        Ok(Some(translated)) => {
            tell(format_args!("hint: {}", translated.hint));
            translated.args
        }
        Err(why) => {
            tell(format_args!("error: {why}"));
            return Exit::Usage.into();
        }
    };
    let matches = command_line().get_matches_from(args);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Err(failure) = cli.log.begin() {
        return output::fail(&failure, false).into();
    }
    let exit = match cli.command {
        CliCommand::Download(args) => transfer::download(&args, &cli.log),
        CliCommand::Seed(args) => transfer::seed(&args, &cli.log),
        CliCommand::Create(args) => create::run(&args),
        CliCommand::Info(args) => info::run(&args),
        CliCommand::Magnet(args) => magnet::run(&args),
        CliCommand::Verify(args) => verify::run(&args),
        CliCommand::Tracker(args) => return tracker::run(&args),
        CliCommand::Scrape(args) => scrape::run(&args),
        CliCommand::Dht(args) => dht::run(&args),
        CliCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command_line(), "taipei-cli", &mut script);
            print(String::from_utf8_lossy(&script).trim_end());
            Exit::Done
        }
        CliCommand::Demo(args) => demo::run(&args, &cli.log),
    };
    if exit == Exit::InterruptedTwice {
        // At once: nothing waits for the disk or the network any more.
        std::process::exit(exit.status().into());
    }
    exit.into()
}
