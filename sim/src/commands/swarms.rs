//! `swarms`: how soon crowds have everything, as a table.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use taipei_sim::run::Verdict;
use taipei_sim::swarms::{ALL, Figures, Swarm};

use super::{say, worst};

#[derive(Args)]
pub(crate) struct SwarmsArgs {
    /// Only these; without any, all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How many seeds; without it what each scenario says
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    seeds: Option<u32>,
    /// Runs at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// Print one JSON object for each
    #[arg(long)]
    json: bool,
}

pub(crate) fn swarms(args: &SwarmsArgs) -> Result<u8, String> {
    if let Some(unknown) = args.names.iter().find(|name| ALL.iter().all(|swarm| swarm.name != *name)) {
        let names: Vec<&str> = ALL.iter().map(|swarm| swarm.name).collect();
        return Err(format!("no swarm `{unknown}`: there are {}", names.join(", ")));
    }
    let is_chosen =
        |swarm: &&Swarm| args.names.is_empty() || args.names.iter().any(|name| name == swarm.name);
    if !args.json {
        say(format_args!(
            "{:<20} {:>5} {:>8} {:>8} {:>8} {:>10} {:>8} {:>12}",
            "", "seeds", "half", "last", "worst", "seed sent", "fair", "first rider"
        ));
    }
    let mut verdicts = Vec::new();
    for swarm in ALL.iter().filter(is_chosen) {
        let seeds = args.seeds.unwrap_or_else(|| swarm.scenario().sweep.seeds.unwrap_or(1));
        let runs = run_all(swarm, seeds, args.jobs as usize);
        show(args, swarm, &runs);
        verdicts.extend(runs.iter().map(|run| if run.riders_win() { Verdict::Failed } else { run.verdict }));
    }
    if !args.json {
        say(format_args!(
            "half, last: when half, and the last, of those that give have all, as a multiple of what links allow; of all seeds the \
             median, and the worst\nseed sent: by seeds, in copies; fair: Jain's index of what each gave for what it took; first \
             rider: of those that give nothing"
        ));
    }
    Ok(worst(verdicts.into_iter()))
}

/// A swarm with its seeds, several at once.
fn run_all(swarm: &Swarm, seeds: u32, jobs: usize) -> Vec<Figures> {
    let style = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} {eta}");
    let bar = ProgressBar::new(u64::from(seeds)).with_message(swarm.name);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (next, (send, receive)) = (AtomicUsize::new(1), mpsc::channel());
    let mut runs = std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if seed > u64::from(seeds) {
                        return;
                    }
                    let (figures, outcome) = swarm.run(seed);
                    // The receiver stays until all is told.
                    let _ = send.send((seed, figures, outcome.violation));
                }
            });
        }
        drop(send);
        let mut runs = Vec::new();
        for (seed, figures, violation) in receive {
            bar.inc(1);
            let riders = "who gives nothing had all before half of the others".to_owned();
            let wrong = violation.map(|broken| format!("{}: {}", broken.oracle, broken.message));
            if let Some(wrong) = wrong.or(figures.riders_win().then_some(riders)) {
                let line = format!("taipei-sim run scenarios/swarms/{}.toml --seed {seed}", swarm.name);
                bar.suspend(|| eprintln!("{line}  # {wrong}"));
            }
            runs.push((seed, figures));
        }
        runs
    });
    bar.finish_and_clear();
    runs.sort_unstable_by_key(|(seed, _)| *seed);
    runs.into_iter().map(|(_, figures)| figures).collect()
}

fn show(args: &SwarmsArgs, swarm: &Swarm, runs: &[Figures]) {
    let half = median(runs.iter().map(|run| run.median));
    let last = median(runs.iter().map(|run| run.last));
    let worst = runs.iter().map(|run| run.last).max().unwrap_or(0);
    let seed_sent = median(runs.iter().map(|run| run.seeds_sent));
    let fairness = median(runs.iter().map(|run| run.fairness));
    let rider = runs.iter().filter_map(|run| run.first_rider).min();
    if args.json {
        let passed = runs.iter().filter(|run| run.verdict == Verdict::Pass).count();
        say(json!({
            "swarm": swarm.name,
            "seeds": runs.len(),
            "passed": passed,
            "half_over_bound": float(half),
            "last_over_bound": float(last),
            "worst_over_bound": float(worst),
            "seed_sent": float(seed_sent),
            "fairness": float(fairness),
            "first_rider_over_bound": rider.map(float),
        }));
        return;
    }
    let times = |value: u64| format!("{:.2}", float(value));
    say(format_args!(
        "{:<20} {:>5} {:>8} {:>8} {:>8} {:>10} {:>8} {:>12}",
        swarm.name,
        runs.len(),
        times(half),
        times(last),
        times(worst),
        times(seed_sent),
        times(fairness),
        match rider {
            Some(rider) => times(rider),
            None if swarm.scenario().actors.is_empty() => String::new(),
            None => "after all".to_owned(),
        },
    ));
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

fn float(thousandths: u64) -> f64 {
    thousandths as f64 / 1000.0
}
