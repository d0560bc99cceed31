//! `cost`: does one thing many times, for its instructions to be counted.

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use taipei_sim::cost::{ALL, find};

use super::say;

#[derive(Args)]
pub(crate) struct CostArgs {
    /// What to do
    #[arg(value_name = "NAME", value_parser = names())]
    name: String,
    /// How many times; without it as often as takes a moment
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    times: Option<u64>,
}

pub(crate) fn cost(args: &CostArgs) -> Result<u8, String> {
    let bench = find(&args.name).ok_or_else(|| format!("no bench `{}`", args.name))?;
    let times = args.times.unwrap_or(bench.times);
    say(format_args!("{}, {times} times: {}", bench.name, bench.run(times)));
    Ok(0)
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(ALL.iter().map(|bench| PossibleValue::new(bench.name).help(bench.about)))
}
