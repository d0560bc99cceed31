//! `shrink`: a failing run, as small as it gets.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use taipei_sim::run::RunOptions;
use taipei_sim::scenario::Scenario;
use taipei_sim::shrink::{Budget, shrink as make_smaller};
use taipei_sim::units::Time;

use super::{RunOf, say};

#[derive(Args)]
pub(crate) struct ShrinkArgs {
    #[command(flatten)]
    run: RunOf,
    /// Where the smaller scenario goes; its name is made from the rule that breaks
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Runs at most
    #[arg(long, default_value_t = Budget::default().runs)]
    runs: u32,
    /// Seconds at most
    #[arg(long, default_value_t = Budget::default().wall.as_secs())]
    seconds: u64,
}

pub(crate) fn shrink(args: &ShrinkArgs) -> Result<u8, String> {
    let (seed, materials, world) = args.run.load_one()?;
    let scenario = &materials.scenario;
    let budget = Budget { runs: args.runs, wall: Duration::from_secs(args.seconds) };
    let began = Instant::now();
    let shrunk = make_smaller(scenario, seed, world, &RunOptions::default(), budget, |what, smaller| {
        eprintln!("without {what:<32} {}", size(smaller));
    });
    let Some(shrunk) = shrunk else {
        eprintln!("{} --seed {seed} passes: there is nothing to make smaller", args.run.source.shown());
        return Ok(0);
    };
    let path = args.out.join(format!("{}.toml", shrunk.scenario.scenario.id));
    std::fs::create_dir_all(&args.out)
        .and_then(|()| std::fs::write(&path, shrunk.scenario.to_toml()))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    say(format_args!(
        "{}, from {}, in {} runs and {:.1} s: {}",
        size(&shrunk.scenario),
        size(scenario),
        shrunk.runs,
        began.elapsed().as_secs_f64(),
        path.display()
    ));
    match shrunk.other_world {
        Some(true) => say(format_args!("it fails in the other world too")),
        Some(false) => say(format_args!("it passes in the other world: look at this one first")),
        None => {}
    }
    say(format_args!("{}", shrunk.outcome.replay_line(&path.display().to_string())));
    Ok(shrunk.outcome.verdict.exit_status())
}

fn size(scenario: &Scenario) -> String {
    format!(
        "{} hosts, {} faults, {} torrents, {} KiB, {}",
        scenario.groups.iter().map(|group| group.numbers().count()).sum::<usize>(),
        scenario.faults.len(),
        scenario.torrents.len(),
        scenario.torrents.iter().map(|torrent| torrent.size.0).sum::<u64>() >> 10,
        Time(scenario.scenario.duration.0),
    )
}
