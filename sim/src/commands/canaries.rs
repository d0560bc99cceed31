//! `oracles` and `canaries`: the rules, and that each of them finds what it is there for.

use clap::Args;
use taipei_sim::oracle::RULES;

pub(crate) fn oracles() -> Result<u8, String> {
    for rule in RULES {
        println!("{:<4} {}", rule.id, rule.rule);
    }
    Ok(0)
}

#[derive(Args)]
pub(crate) struct CanariesArgs {
    /// Only the canary of this rule
    #[arg(long, value_name = "ID")]
    only: Option<String>,
    /// Seeds that are tried until the rule breaks
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    seeds: u32,
    /// Show only that each is found, and make none smaller
    #[arg(long)]
    no_shrink: bool,
    /// Print one JSON object for each
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "canaries"))]
pub(crate) fn canaries(_: &CanariesArgs) -> Result<u8, String> {
    Err("this build has no canaries: build it with `--features canaries`".to_owned())
}

#[cfg(feature = "canaries")]
pub(crate) use self::planted::{canaries, size_of};

#[cfg(feature = "canaries")]
mod planted {
    use serde_json::json;
    use taipei_sim::canary::{self, Canary, Tripped};
    use taipei_sim::oracle::RULES;
    use taipei_sim::plan::settle;
    use taipei_sim::scenario::{Scenario, World};
    use taipei_sim::shrink::{Budget, Shrunk, shrink};
    use taipei_sim::units::Time;

    use super::CanariesArgs;

    pub(crate) fn canaries(args: &CanariesArgs) -> Result<u8, String> {
        let wanted = |canary: &&Canary| args.only.as_ref().is_none_or(|only| only == canary.oracle);
        let chosen: Vec<&Canary> = canary::ALL.iter().filter(wanted).collect();
        if chosen.is_empty() {
            return Err(format!("no canary of `{}`", args.only.as_deref().unwrap_or_default()));
        }
        if !args.json {
            println!(
                "{:<4} {:<7} {:>5}  {:<34} bug",
                "rule", "tripped", "seeds", "smaller: hosts, faults, time"
            );
        }
        let mut wrong = 0;
        for canary in &chosen {
            let tripped = canary.trip(args.seeds);
            let smaller = tripped.seed.filter(|_| !args.no_shrink).and_then(|seed| {
                shrink(
                    &canary.scenario(),
                    seed,
                    World::Events,
                    &canary.options(),
                    Budget::default(),
                    |_, _| {},
                )
            });
            wrong += u32::from(!tripped.is_right(canary.oracle));
            show(args, canary, &tripped, smaller.as_ref());
        }
        if !args.json {
            println!("{} of {} tripped exactly their own rule", chosen.len() as u32 - wrong, chosen.len());
        }
        let lacking = RULES.iter().filter(|rule| canary::ALL.iter().all(|canary| canary.oracle != rule.id));
        let lacking: Vec<&str> = lacking.map(|rule| rule.id).collect();
        if !lacking.is_empty() {
            eprintln!("rules without a canary: {}", lacking.join(" "));
        }
        Ok(u8::from(wrong > 0 || !lacking.is_empty()))
    }

    /// Hosts and faults of a scenario, and when it fails.
    fn size(scenario: &Scenario, at_ns: u64) -> String {
        let hosts: usize = scenario.groups.iter().map(|group| group.numbers().count()).sum();
        format!("{hosts} hosts, {} faults, {}", scenario.faults.len(), Time(at_ns))
    }

    /// The same of what was made smaller.
    pub(crate) fn size_of(shrunk: &Shrunk) -> String {
        let at = shrunk.outcome.violation.as_ref().map_or(0, |violation| violation.at_ns);
        size(&shrunk.scenario, at)
    }

    fn show(args: &CanariesArgs, canary: &Canary, tripped: &Tripped, smaller: Option<&Shrunk>) {
        if args.json {
            let object = json!({
                "oracle": canary.oracle,
                "bug": canary.bug,
                "tripped": tripped.oracle,
                "message": tripped.message,
                "seeds": tripped.seeds,
                "without": tripped.without,
                "began": size(&settle(&canary.scenario(), tripped.seed.unwrap_or(1)), tripped.at_ns),
                "smaller": smaller.map(size_of),
                "shrink_runs": smaller.map(|shrunk| shrunk.runs),
            });
            println!("{object}");
            return;
        }
        let without = if tripped.without.is_empty() { "" } else { ", and without it too" };
        println!(
            "{:<4} {:<7} {:>5}  {:<34} {}{without}",
            canary.oracle,
            tripped.oracle.as_deref().unwrap_or("-"),
            tripped.seeds,
            smaller.map(size_of).unwrap_or_default(),
            canary.bug,
        );
        if !tripped.is_right(canary.oracle) {
            eprintln!("     {} {}", tripped.message, tripped.without);
        }
    }
}
