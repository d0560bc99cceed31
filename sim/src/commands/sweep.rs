//! `sweep`: many seeds, each in a process that another's end does not touch.
//!
//! The parent hands out seeds one by one to as many workers as it has jobs and writes down what they say. A worker that
//! dies, or says nothing for too long, loses the one seed that it had.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use taipei_sim::report::sweep_page;
use taipei_sim::scenario::World;
use taipei_sim::sweep::{Head, SeedLine, Source, Summary, Unit, read_left};

use super::{SourceArgs, WorldArg, parse_seed, say};

#[derive(Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// How many seeds; without it what the scenario or the profile says
    #[arg(long)]
    seeds: Option<u32>,
    /// The first seed
    #[arg(long, default_value = "1", alias = "from", value_parser = parse_seed)]
    base_seed: u64,
    /// Only in this world
    #[arg(long)]
    world: Option<WorldArg>,
    /// Run every seed again in a fresh process and compare the traces
    #[arg(long)]
    twice: bool,
    /// Processes at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only a part of the seeds: the I-th of N, for machines that share a sweep
    #[arg(long, value_name = "I/N", default_value = "1/1", value_parser = parse_shard)]
    shard: (u32, u32),
    /// Write one line of JSON a seed to this file, for `merge` and `diff`
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
    /// Begin no seed after so many minutes; without `--seeds` a million are there to take from
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: Option<u64>,
    /// Go on where the same sweep, by the same build, left the file of `--out`
    #[arg(long, requires = "out")]
    resume: bool,
    /// Write a page to look at to this file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[arg(long)]
    world: WorldArg,
}

fn parse_shard(text: &str) -> Result<(u32, u32), String> {
    let parsed = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    parsed.filter(|(part, of)| (1..=*of).contains(part)).ok_or_else(|| "wants I/N, as 1/4 to 4/4".to_owned())
}

pub(crate) fn sweep(args: &SweepArgs) -> Result<u8, String> {
    let source = args.source.load()?;
    let seeds = args.seeds.or(args.minutes.map(|_| SEEDS_OF_A_LONG_RUN)).unwrap_or_else(|| source.seeds());
    if seeds == 0 || args.jobs == 0 {
        return Err("`--seeds` and `--jobs` want at least 1".to_owned());
    }
    let worlds = args.world.map_or_else(|| source.worlds(), |world| vec![world.into()]);
    if worlds.len() > 1 && (args.out.is_some() || args.report.is_some() || args.minutes.is_some()) {
        return Err("`--out`, `--report` and `--minutes` want `--world`: they are of one world".to_owned());
    }
    let until = args.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let interrupted = AtomicBool::new(false);
    let mut worst = 0;
    for world in worlds {
        let head = Head {
            source: source.id().to_owned(),
            world,
            build: taipei_sim::BUILD.to_owned(),
            base_seed: args.base_seed,
            seeds,
            cells: source.cells(),
            shard: args.shard,
        };
        let lines = std::thread::scope(|scope| {
            let (done, ended) = tokio::sync::oneshot::channel::<()>();
            scope.spawn(|| watch_for_interrupt(ended, &interrupted));
            let lines = run_all(args, &source, &head, until, &interrupted);
            drop(done);
            lines
        })?;
        let mut summary = Summary::new(&source, &head, &lines);
        if until.is_some() && !interrupted.load(Ordering::Relaxed) {
            // As many were wanted as there was time for.
            summary.wanted = summary.runs;
        }
        print_summary(&summary, args.json);
        if let Some(path) = &args.report {
            write_sweep_report(path, &source, &head, &lines, &args.source.shown())?;
        }
        worst = match (worst, summary.exit_status()) {
            (3, _) | (_, 3) => 3,
            (one, other) => one.max(other),
        };
        if interrupted.load(Ordering::Relaxed) {
            return Ok(INTERRUPTED);
        }
    }
    Ok(worst)
}

/// Sets the flag when the user interrupts; returns when the sweep has ended too.
fn watch_for_interrupt(ended: tokio::sync::oneshot::Receiver<()>, interrupted: &AtomicBool) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        tokio::select! {
            biased;
            _ = ended => {}
            Ok(()) = tokio::signal::ctrl_c() => interrupted.store(true, Ordering::Relaxed),
        }
    });
}

/// What all threads of a sweep share.
struct Shared<'a> {
    runs: Box<dyn Iterator<Item = Unit> + Send + 'a>,
    lines: Vec<SeedLine>,
    out: Option<io::BufWriter<File>>,
    failures: u32,
    error: Option<String>,
}

fn run_all(
    args: &SweepArgs,
    source: &Source,
    head: &Head,
    until: Option<Instant>,
    interrupted: &AtomicBool,
) -> Result<Vec<SeedLine>, String> {
    let (out, lines) = match &args.out {
        Some(path) => {
            let (out, lines) = begin_file(args, path, head)?;
            (Some(out), lines)
        }
        None => (None, Vec::new()),
    };
    for line in &lines {
        if let Some(replay) = line.replay_line(&args.source.shown(), head.world) {
            eprintln!("{replay}");
        }
    }
    let done: BTreeSet<Unit> = lines.iter().map(|line| line.run).collect();
    let count = head.own_runs().filter(|run| !done.contains(run)).count();
    let bar = progress(count as u64, until, args.json);
    let in_time = move |_: &Unit| until.is_none_or(|until| Instant::now() < until);
    let shared = Mutex::new(Shared {
        runs: Box::new(head.own_runs().filter(move |run| !done.contains(run)).take_while(in_time)),
        lines,
        out,
        failures: 0,
        error: None,
    });
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.min(count) {
            scope.spawn(|| run_some(args, source, head.world, &shared, interrupted, &bar));
        }
    });
    bar.finish_and_clear();
    let shared = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    shared.error.map_or(Ok(shared.lines), Err)
}

/// The file of a sweep: a new one, or what an earlier run left of it, with the lines that are whole.
fn begin_file(
    args: &SweepArgs,
    path: &Path,
    head: &Head,
) -> Result<(io::BufWriter<File>, Vec<SeedLine>), String> {
    let to_error = |error: io::Error| out_error(args, &error);
    if args.resume && path.exists() {
        let (bytes, lines) = read_left(path, head).map_err(|error| error.to_string())?;
        let mut file = File::options().write(true).open(path).map_err(to_error)?;
        file.set_len(bytes).and_then(|()| file.seek(io::SeekFrom::End(0))).map_err(to_error)?;
        return Ok((io::BufWriter::new(file), lines));
    }
    let mut out = io::BufWriter::new(File::create(path).map_err(to_error)?);
    write_line(&mut out, head).map_err(to_error)?;
    Ok((out, Vec::new()))
}

/// One job: takes seeds until there are none.
fn run_some(
    args: &SweepArgs,
    source: &Source,
    world: World,
    shared: &Mutex<Shared<'_>>,
    interrupted: &AtomicBool,
    bar: &ProgressBar,
) {
    let lock = || shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut worker: Option<Worker> = None;
    loop {
        let unit = {
            let mut shared = lock();
            if interrupted.load(Ordering::Relaxed) || shared.error.is_some() {
                return;
            }
            shared.runs.next()
        };
        let Some(unit) = unit else { return };
        let ask = |worker: &mut Option<Worker>, salt: usize| -> Result<SeedLine, String> {
            if worker.is_none() {
                *worker =
                    Some(Worker::start(args, world, salt).map_err(|error| format!("a worker: {error}"))?);
            }
            let answer = worker.as_mut().map(|worker| worker.run(unit));
            Ok(match answer {
                Some(Ok(line)) => line,
                Some(Err(why)) => {
                    *worker = None;
                    SeedLine::crashed(unit, why)
                }
                None => SeedLine::crashed(unit, "no worker".to_owned()),
            })
        };
        let line = ask(&mut worker, 0).and_then(|mut line| {
            if args.twice || source.is_rechecked(unit.seed) {
                // A process of its own, whose environment has another size.
                line.recheck(&ask(&mut None, 1 + (unit.seed % 4096) as usize)?);
            }
            Ok(line)
        });
        let mut shared = lock();
        // A worker hears of an interrupt too, and its seed has not failed by that.
        if interrupted.load(Ordering::Relaxed) {
            return;
        }
        match line {
            Err(error) => shared.error = Some(error),
            Ok(line) => {
                bar.inc(1);
                if let Some(replay) = line.replay_line(&args.source.shown(), world) {
                    shared.failures += 1;
                    bar.set_message(format!("{} failed", shared.failures));
                    bar.suspend(|| eprintln!("{replay}"));
                }
                let written = shared.out.as_mut().map(|out| write_line(out, &line));
                if let Some(Err(error)) = written {
                    shared.error = Some(out_error(args, &error));
                }
                shared.lines.push(line);
            }
        }
    }
}

fn out_error(args: &SweepArgs, error: &io::Error) -> String {
    format!("{}: {error}", args.out.as_deref().unwrap_or(Path::new("")).display())
}

fn write_line(out: &mut impl io::Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn progress(count: u64, until: Option<Instant>, quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::hidden());
    }
    let template = match until {
        None => "{wide_bar} {pos}/{len} seeds, {per_sec}, {eta} left {msg}",
        Some(_) => "{spinner} {elapsed}: {pos} seeds, {per_sec} {msg}",
    };
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A process that runs seeds.
struct Worker {
    child: Child,
    answers: mpsc::Receiver<String>,
}

impl Worker {
    fn start(args: &SweepArgs, world: World, salt: usize) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("worker")
            .args(args.source.arguments())
            .args(["--world", world.name()])
            .env("TAIPEI_SIM_SALT", "x".repeat(salt))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (sender, answers) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { child, answers })
    }

    /// Runs a seed there; why not, when the process ended or never answered.
    fn run(&mut self, unit: Unit) -> Result<SeedLine, String> {
        let sent = self
            .child
            .stdin
            .as_mut()
            .map(|stdin| writeln!(stdin, "{} {}", unit.seed, unit.cell).and_then(|()| stdin.flush()));
        if !matches!(sent, Some(Ok(()))) {
            return Err(self.end());
        }
        // By the second: while both of us are stopped (Ctrl-Z), nobody is late.
        for _ in 0..SEED_TIME_MAX.as_secs() {
            match self.answers.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => {
                    return serde_json::from_str(&line)
                        .map_err(|error| format!("its worker said nonsense: {error}"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.end()),
            }
        }
        Err(format!("no end after {} s wall", SEED_TIME_MAX.as_secs()))
    }

    fn end(&mut self) -> String {
        let status = self.child.wait();
        status.map_or_else(|error| error.to_string(), |status| format!("its process ended: {status}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let until = Instant::now() + Duration::from_millis(200);
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // It hangs in a seed; when it is gone already there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The worker's side: a seed and a cell a line in, an answer a line out.
pub(crate) fn work(args: &WorkerArgs) -> Result<u8, String> {
    let source = args.source.load()?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let unit = line
            .split_once(' ')
            .and_then(|(seed, cell)| Some(Unit { seed: seed.parse().ok()?, cell: cell.parse().ok()? }));
        let line = unit.and_then(|unit| SeedLine::of(&source, unit, args.world.into()));
        let line = line.ok_or("a worker wants a seed and a cell that there is")?;
        write_line(&mut io::stdout().lock(), &line).map_err(|error| error.to_string())?;
    }
    Ok(0)
}

pub(crate) fn write_sweep_report(
    path: &Path,
    source: &Source,
    head: &Head,
    lines: &[SeedLine],
    shown: &str,
) -> Result<(), String> {
    std::fs::write(path, sweep_page(source, head, lines, shown))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Says what a sweep came to.
pub(crate) fn print_summary(summary: &Summary, as_json: bool) {
    if as_json {
        say(format_args!("{}", serde_json::json!(summary)));
        return;
    }
    let verdicts = summary.verdicts.iter().map(|(verdict, count)| format!("{count} {verdict}"));
    say(format_args!(
        "{} {}: {} of {} runs from seed {}: {}",
        summary.source,
        summary.world.name(),
        summary.runs,
        summary.wanted,
        summary.base_seed,
        verdicts.collect::<Vec<_>>().join(", ")
    ));
    say(format_args!(
        "  {} run again, {} of them differ; {} hosts, {} events, {} simulated s",
        summary.rechecked,
        summary.not_deterministic,
        summary.hosts,
        summary.events,
        summary.simulated_ns / 1_000_000_000
    ));
    for (name, family) in &summary.families {
        say(format_args!(
            "  {name:<10} in {:>5} seeds, struck in {:>5}, {:>8} effects",
            family.there, family.struck, family.effects
        ));
    }
    if !summary.marks.is_empty() {
        let marks: Vec<String> =
            summary.marks.iter().map(|(mark, count)| format!("{mark} {count}")).collect();
        say(format_args!("  marks: {}", marks.join(", ")));
    }
    for (oracle, count) in &summary.oracles {
        say(format_args!("  {oracle} broke {count} times"));
    }
    if !summary.holes.is_empty() {
        say(format_args!("  never reached: {}", summary.holes.join(", ")));
    }
    if let Some((run, wall_us)) = summary.slowest.first() {
        say(format_args!(
            "  slowest: seed {} cell {}, {:.2} s wall",
            run.seed,
            run.cell,
            Duration::from_micros(*wall_us).as_secs_f64()
        ));
    }
}

/// What a user who interrupts gets.
const INTERRUPTED: u8 = 130;
/// Seeds of a sweep that ends when its time is over.
const SEEDS_OF_A_LONG_RUN: u32 = 1_000_000;
/// A seed that takes longer hangs.
const SEED_TIME_MAX: Duration = Duration::from_secs(300);
