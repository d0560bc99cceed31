//! `museum`: bugs that other clients had, and that each of them is found here.

use clap::Args;

#[derive(Args)]
pub(crate) struct MuseumArgs {
    /// Only the exhibit of this name
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Seeds of its own scenario that are tried until a rule breaks
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    seeds: u32,
    /// Try so many seeds of the profile `fuzz-small` as well
    #[arg(long, value_name = "SEEDS", default_value_t = 0)]
    fuzz: u32,
    /// Exhibits looked at at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// Show only that each is found, and make none smaller
    #[arg(long)]
    no_shrink: bool,
    /// Print one JSON object for each
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "canaries"))]
pub(crate) fn museum(_: &MuseumArgs) -> Result<u8, String> {
    Err("this build has no bugs to plant: build it with `--features canaries`".to_owned())
}

#[cfg(feature = "canaries")]
pub(crate) use self::planted::museum;

#[cfg(feature = "canaries")]
mod planted {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use serde_json::json;
    use taipei_sim::canary::Tripped;
    use taipei_sim::museum::{self, Exhibit};
    use taipei_sim::scenario::World;
    use taipei_sim::shrink::{Budget, Shrunk, shrink};

    use super::MuseumArgs;
    use crate::commands::canaries::size_of;

    const PROFILE: &str = "fuzz-small";

    /// What came of looking at one.
    struct Seen {
        tripped: Tripped,
        /// In the swarms of the profile, if that was asked for.
        fuzzed: Option<Tripped>,
        smaller: Option<Shrunk>,
    }

    impl Seen {
        fn is_found(&self) -> bool {
            let found = |tripped: &Tripped| tripped.seed.is_some() && tripped.without.is_empty();
            found(&self.tripped) && self.fuzzed.as_ref().is_none_or(found)
        }
    }

    pub(crate) fn museum(args: &MuseumArgs) -> Result<u8, String> {
        let wanted = |exhibit: &&Exhibit| args.only.as_ref().is_none_or(|only| only == exhibit.name);
        let chosen: Vec<&Exhibit> = museum::ALL.iter().filter(wanted).collect();
        if chosen.is_empty() {
            let names: Vec<&str> = museum::ALL.iter().map(|exhibit| exhibit.name).collect();
            let asked = args.only.as_deref().unwrap_or_default();
            return Err(format!("no exhibit `{asked}`: there are {}", names.join(", ")));
        }
        if !args.json {
            println!(
                "{:<28} {:<20} {:<5} {:>5} {:>10}  smaller: hosts, faults, time",
                "bug", "met in", "rule", "seeds", PROFILE
            );
        }
        let (next, (send, receive)) = (AtomicUsize::new(0), mpsc::channel());
        std::thread::scope(|scope| {
            for _ in 0..args.jobs {
                let (send, next, chosen) = (send.clone(), &next, &chosen);
                scope.spawn(move || {
                    while let Some(exhibit) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                        // The receiver stays until all is told.
                        let _ = send.send((*exhibit, look(args, exhibit)));
                    }
                });
            }
            drop(send);
            let mut found = 0;
            for (exhibit, seen) in receive {
                found += usize::from(seen.is_found());
                show(args, exhibit, &seen);
            }
            if !args.json {
                println!("{found} of {} found", chosen.len());
            }
            Ok(u8::from(found < chosen.len()))
        })
    }

    fn look(args: &MuseumArgs, exhibit: &Exhibit) -> Seen {
        let tripped = exhibit.trip(args.seeds);
        let is_drawn = args.fuzz > 0 && exhibit.not_drawn.is_empty();
        let fuzzed = is_drawn.then(|| exhibit.trip_in(PROFILE, args.fuzz));
        let smaller = tripped.seed.filter(|_| !args.no_shrink).and_then(|seed| {
            let (scenario, options) = (exhibit.scenario(), exhibit.options());
            shrink(&scenario, seed, World::Events, &options, Budget::default(), |_, _| {})
        });
        Seen { tripped, fuzzed, smaller }
    }

    fn show(args: &MuseumArgs, exhibit: &Exhibit, seen: &Seen) {
        let Seen { tripped, fuzzed, smaller } = seen;
        if args.json {
            let in_profile = fuzzed.as_ref().map(|fuzzed| {
                json!({ "oracle": fuzzed.oracle, "seeds": fuzzed.seeds, "found": fuzzed.seed, "without": fuzzed.without })
            });
            let object = json!({
                "name": exhibit.name,
                "seen": exhibit.seen,
                "oracle": tripped.oracle,
                "message": tripped.message,
                "seeds": tripped.seeds,
                "found": tripped.seed,
                "without": tripped.without,
                "fuzz_small": in_profile,
                "not_drawn": exhibit.not_drawn,
                "large": exhibit.large,
                "smaller": smaller.as_ref().map(size_of),
                "shrink_runs": smaller.as_ref().map(|shrunk| shrunk.runs),
            });
            println!("{object}");
            return;
        }
        let seeds = |tripped: &Tripped| match tripped.seed {
            Some(_) => tripped.seeds.to_string(),
            None => format!(">{}", tripped.seeds),
        };
        println!(
            "{:<28} {:<20} {:<5} {:>5} {:>10}  {}",
            exhibit.name,
            exhibit.seen,
            tripped.oracle.as_deref().unwrap_or("-"),
            seeds(tripped),
            fuzzed.as_ref().map(seeds).unwrap_or_default(),
            smaller.as_ref().map(size_of).unwrap_or_default(),
        );
        if args.fuzz > 0 && !exhibit.not_drawn.is_empty() {
            println!("   not in {PROFILE}: {}", exhibit.not_drawn);
        }
        if smaller.is_some() && !exhibit.large.is_empty() {
            println!("   no smaller: {}", exhibit.large);
        }
        for without in [Some(tripped), fuzzed.as_ref()].into_iter().flatten().map(|one| &one.without) {
            if !without.is_empty() {
                eprintln!("     without the bug: {without}");
            }
        }
    }
}
