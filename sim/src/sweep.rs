//! Many seeds: where each one's scenario comes from, what a run of it leaves in a sweep's file, and what they add up to.
//!
//! A sweep's file has one JSON object a line: a [`Head`], then a [`SeedLine`] for every seed, in no particular order.
//! Shards of one sweep are files with the same head but for the shard, and [`Summary`] is the same of one file or many.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::oracle::Violation;
use crate::plan::{Materials, Plan};
use crate::profile::Profile;
use crate::run::{Outcome, RunOptions, Verdict, run};
use crate::scenario::{MARKS, Scenario, ScenarioError, World};
use crate::units::Time;

/// Where the scenario of a seed comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The same for every seed: all cells of a file.
    Cells(Vec<Arc<Materials>>),
    /// Another for every seed.
    Profile(Box<Profile>),
}

impl Source {
    /// A scenario's file.
    ///
    /// # Errors
    /// When it is none.
    pub fn file(path: &Path) -> Result<Self, ScenarioError> {
        Scenario::load(path).map(|cells| Self::Cells(cells.into_iter().map(Materials::new).collect()))
    }

    /// A profile, by name or file.
    ///
    /// # Errors
    /// When there is none.
    pub fn profile(name: &str) -> Result<Self, ScenarioError> {
        Profile::load(name).map(|profile| Self::Profile(Box::new(profile)))
    }

    /// What it is called.
    pub fn id(&self) -> &str {
        match self {
            Self::Cells(cells) => &cells[0].scenario.scenario.id,
            Self::Profile(profile) => &profile.id,
        }
    }

    /// How many scenarios it has for each seed.
    pub fn cells(&self) -> u32 {
        match self {
            Self::Cells(cells) => cells.len() as u32,
            Self::Profile(_) => 1,
        }
    }

    /// What a run is made of; none when there is no such cell.
    pub fn materials(&self, run: Unit) -> Option<Arc<Materials>> {
        match self {
            Self::Cells(cells) => cells.get((run.cell as usize).checked_sub(1)?).cloned(),
            Self::Profile(profile) => (run.cell == 1).then(|| Materials::new(profile.scenario(run.seed))),
        }
    }

    /// The worlds that it names.
    pub fn worlds(&self) -> Vec<World> {
        match self {
            Self::Cells(cells) => cells[0].scenario.scenario.worlds.clone(),
            Self::Profile(_) => vec![World::Events],
        }
    }

    /// How many seeds when nobody says.
    pub fn seeds(&self) -> u32 {
        match self {
            Self::Cells(cells) => cells[0].scenario.sweep.seeds.unwrap_or(10),
            Self::Profile(profile) => profile.seeds,
        }
    }

    /// Whether a seed is one of those that are run again in a fresh process.
    pub fn is_rechecked(&self, seed: u64) -> bool {
        match self {
            Self::Cells(_) => false,
            Self::Profile(profile) => seed % profile.recheck.of < profile.recheck.part,
        }
    }

    /// What some seed of `seeds` must reach: marks, and families of faults with an effect.
    fn must_reach(&self, seeds: usize) -> (BTreeSet<String>, BTreeSet<String>) {
        match self {
            Self::Cells(cells) => {
                let expects = cells.iter().flat_map(|materials| &materials.scenario.expects);
                (expects.flat_map(|expect| expect.mark.iter().cloned()).collect(), BTreeSet::new())
            }
            Self::Profile(profile) if seeds >= profile.holes_count_from as usize => {
                let marks = MARKS.iter().filter(|mark| !mark.is_rare).map(|mark| mark.name.to_owned());
                (marks.collect(), profile.families.iter().cloned().collect())
            }
            Self::Profile(_) => (BTreeSet::new(), BTreeSet::new()),
        }
    }
}

/// One run of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unit {
    /// Its seed.
    pub seed: u64,
    /// Which cell of the scenario's matrix, from 1 on.
    pub cell: u32,
}

/// The first line of a sweep's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The scenario's or the profile's id.
    pub source: String,
    /// Where it ran.
    pub world: World,
    /// By which build.
    pub build: String,
    /// The first seed of the whole sweep.
    pub base_seed: u64,
    /// How many the whole sweep has.
    pub seeds: u32,
    /// Cells that each seed has.
    pub cells: u32,
    /// Which part of it this is, from 1 on, and of how many.
    pub shard: (u32, u32),
}

impl Head {
    fn expect_same(&self, from: &str, other: &Self, shown: String) -> Result<(), MergeError> {
        if self == other {
            return Ok(());
        }
        Err(MergeError::Other(shown, from.to_owned(), format!("{self:?} and {other:?}")))
    }

    /// The runs of this part: every `N`-th.
    pub fn own_runs(&self) -> impl Iterator<Item = Unit> + use<> {
        let ((part, of), cells, base) = (self.shard, u64::from(self.cells.max(1)), self.base_seed);
        let all = 0..u64::from(self.seeds) * cells;
        all.skip(part as usize - 1).step_by(of as usize).map(move |number| Unit {
            seed: base.wrapping_add(number / cells),
            cell: (number % cells) as u32 + 1,
        })
    }
}

/// What a seed came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedLine {
    /// Which.
    #[serde(flatten)]
    pub run: Unit,
    /// `pass`, `failed`, `vacuous`, `budget-exceeded`, or `crashed` when its process ended.
    pub verdict: String,
    /// The rule that was broken.
    pub violation: Option<SeedViolation>,
    /// The hash of everything that happened.
    pub trace: String,
    /// Another that a second run gave.
    pub other_trace: Option<String>,
    /// Whether there was a second run.
    pub rechecked: bool,
    /// How many events.
    pub events: u64,
    /// Simulated time.
    pub simulated_ns: u64,
    /// Wall time of the first run.
    pub wall_us: u64,
    /// Hosts.
    pub hosts: u32,
    /// Families of faults that were there.
    pub families: Vec<String>,
    /// How much each of them did.
    pub effects: BTreeMap<String, u64>,
    /// What was reached.
    pub marks: Vec<String>,
    /// When the last host was complete of those that began with nothing; none where one was not.
    #[serde(default)]
    pub completed_ns: Option<u64>,
    /// The least that this can take, by the rates of links.
    #[serde(default)]
    pub bound_ns: Option<u64>,
}

/// A broken rule, as a sweep's file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedViolation {
    /// Its id.
    pub oracle: String,
    /// When.
    pub at_ns: u64,
    /// Where; empty for the whole world.
    pub host: String,
    /// What.
    pub message: String,
}

impl From<&Violation> for SeedViolation {
    fn from(violation: &Violation) -> Self {
        Self {
            oracle: violation.oracle.to_owned(),
            at_ns: violation.at_ns,
            host: violation.host.clone(),
            message: violation.message.clone(),
        }
    }
}

impl SeedLine {
    /// Runs it; none when there is no such cell.
    pub fn of(source: &Source, unit: Unit, world: World) -> Option<Self> {
        let began = std::time::Instant::now();
        let materials = source.materials(unit)?;
        let outcome = run(&materials, unit.seed, world, &RunOptions::default());
        Some(Self::new(unit, &materials, &outcome, began.elapsed().as_micros() as u64))
    }

    fn new(unit: Unit, materials: &Materials, outcome: &Outcome, wall_us: u64) -> Self {
        let scenario = &materials.scenario;
        let plan = Plan::new(scenario, unit.seed);
        Self {
            run: unit,
            verdict: outcome.verdict.name().to_owned(),
            violation: outcome.violation.as_ref().map(SeedViolation::from),
            trace: outcome.trace.clone(),
            other_trace: None,
            rechecked: false,
            events: outcome.events,
            simulated_ns: outcome.ended_at_ns,
            wall_us,
            hosts: scenario.groups.iter().map(|group| group.numbers().count() as u32).sum(),
            families: scenario.scenario.families.clone(),
            effects: outcome
                .summary
                .effects
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            marks: outcome.summary.marks.iter().map(|mark| (*mark).to_owned()).collect(),
            completed_ns: completed_ns(materials, &plan, outcome),
            bound_ns: plan.fluid_bound_of_all(materials.total_bytes()),
        }
    }

    /// Of a seed whose process ended before it could say anything.
    pub fn crashed(run: Unit, message: String) -> Self {
        let violation = SeedViolation { oracle: "S14".to_owned(), at_ns: 0, host: String::new(), message };
        Self {
            run,
            verdict: CRASHED.to_owned(),
            violation: Some(violation),
            trace: String::new(),
            other_trace: None,
            rechecked: false,
            events: 0,
            simulated_ns: 0,
            wall_us: 0,
            hosts: 0,
            families: Vec::new(),
            effects: BTreeMap::new(),
            marks: Vec::new(),
            completed_ns: None,
            bound_ns: None,
        }
    }

    /// Takes the trace of a second run.
    pub fn recheck(&mut self, again: &Self) {
        self.rechecked = true;
        self.other_trace = Some(again.trace.clone()).filter(|other| *other != self.trace);
    }

    /// The line that repeats it, with why; none when all is well. `what` is how the command line names the source.
    pub fn replay_line(&self, what: &str, world: World) -> Option<String> {
        let why = match (&self.violation, &self.other_trace) {
            (_, Some(other)) => format!("not deterministic: another run had trace {other}"),
            (Some(violation), _) => {
                let at =
                    if violation.host.is_empty() { String::new() } else { format!(" on {}", violation.host) };
                format!("{} at {}{at}: {}", violation.oracle, Time(violation.at_ns), violation.message)
            }
            (None, None) => return None,
        };
        let cell = if self.run.cell == 1 { String::new() } else { format!(" --cell {}", self.run.cell) };
        Some(format!(
            "taipei-sim replay {what} --seed {}{cell} --world {}  # {why}, trace {}",
            self.run.seed,
            world.name(),
            self.trace
        ))
    }
}

/// When the last host was complete of those that began with nothing.
fn completed_ns(materials: &Materials, plan: &Plan, outcome: &Outcome) -> Option<u64> {
    let ends = plan.fetching().flat_map(|host| {
        let name = &plan.hosts[host].name;
        materials.torrents.iter().map(move |torrent| format!("{name} {}", torrent.name))
    });
    let ends = ends.map(|what| outcome.summary.completed_ms.get(&what).map(|ms| ms * 1_000_000));
    ends.collect::<Option<Vec<u64>>>()?.into_iter().max()
}

/// What a sweep came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The scenario's or the profile's id.
    pub source: String,
    /// Where it ran.
    pub world: World,
    /// By which build.
    pub build: String,
    /// The first seed.
    pub base_seed: u64,
    /// How many runs were wanted: of seeds, or of seeds and cells.
    pub wanted: u32,
    /// How many there were.
    pub runs: u32,
    /// How each ended.
    pub verdicts: BTreeMap<String, u32>,
    /// How often each rule was broken.
    pub oracles: BTreeMap<String, u32>,
    /// How many were run again.
    pub rechecked: u32,
    /// How many of these gave another trace.
    pub not_deterministic: u32,
    /// Hosts of all runs.
    pub hosts: u64,
    /// Events of all runs.
    pub events: u64,
    /// Simulated time of all runs.
    pub simulated_ns: u64,
    /// Seeds that reached each mark.
    pub marks: BTreeMap<String, u32>,
    /// By family: in how many seeds it was there, in how many it did something, and how much in all.
    pub families: BTreeMap<String, FamilySum>,
    /// Marks and families that no seed reached, though some should have.
    pub holes: Vec<String>,
    /// The runs that failed.
    pub failures: Vec<Unit>,
    /// The slowest runs, and wall time in microseconds. Not part of a record: it differs from run to run.
    #[serde(skip)]
    pub slowest: Vec<(Unit, u64)>,
}

/// What a family of faults did in a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FamilySum {
    /// Seeds in which it was there.
    pub there: u32,
    /// Seeds in which it had an effect.
    pub struck: u32,
    /// How much, in all.
    pub effects: u64,
}

impl Summary {
    /// Adds up.
    pub fn new<'a>(source: &Source, head: &Head, lines: impl IntoIterator<Item = &'a SeedLine>) -> Self {
        let mut sum = Self {
            source: head.source.clone(),
            world: head.world,
            build: head.build.clone(),
            base_seed: head.base_seed,
            wanted: head.own_runs().count() as u32,
            runs: 0,
            verdicts: BTreeMap::new(),
            oracles: BTreeMap::new(),
            rechecked: 0,
            not_deterministic: 0,
            hosts: 0,
            events: 0,
            simulated_ns: 0,
            marks: BTreeMap::new(),
            families: BTreeMap::new(),
            holes: Vec::new(),
            failures: Vec::new(),
            slowest: Vec::new(),
        };
        for line in lines {
            sum.add(line);
        }
        let (marks, families) = source.must_reach(sum.runs as usize);
        let unmarked =
            marks.into_iter().filter(|mark| !sum.marks.contains_key(mark)).map(|mark| format!("mark {mark}"));
        let struck = |name: &String| sum.families.get(name).is_some_and(|family| family.struck > 0);
        let idle = families.into_iter().filter(|name| !struck(name)).map(|name| format!("family {name}"));
        sum.holes = unmarked.chain(idle).collect();
        sum.failures.sort_unstable();
        sum.slowest.sort_unstable_by_key(|(run, wall_us)| (std::cmp::Reverse(*wall_us), *run));
        sum.slowest.truncate(SLOWEST_SHOWN);
        sum
    }

    fn add(&mut self, line: &SeedLine) {
        self.runs += 1;
        *self.verdicts.entry(line.verdict.clone()).or_default() += 1;
        if let Some(violation) = &line.violation {
            *self.oracles.entry(violation.oracle.clone()).or_default() += 1;
        }
        self.rechecked += u32::from(line.rechecked);
        self.not_deterministic += u32::from(line.other_trace.is_some());
        self.hosts += u64::from(line.hosts);
        self.events += line.events;
        self.simulated_ns += line.simulated_ns;
        line.marks.iter().for_each(|mark| *self.marks.entry(mark.clone()).or_default() += 1);
        for name in &line.families {
            let effects = line.effects.get(name).copied().unwrap_or(0);
            let family = self.families.entry(name.clone()).or_default();
            family.there += 1;
            family.struck += u32::from(effects > 0);
            family.effects += effects;
        }
        if line.verdict != Verdict::Pass.name() || line.other_trace.is_some() {
            self.failures.push(line.run);
        }
        self.slowest.push((line.run, line.wall_us));
    }

    /// What it comes to as an exit status: what is not deterministic cannot be replayed, and is the worst of all.
    pub fn exit_status(&self) -> u8 {
        let some = |verdict: Verdict| self.verdicts.contains_key(verdict.name());
        if self.not_deterministic > 0 {
            NOT_DETERMINISTIC
        } else if some(Verdict::Failed) || self.verdicts.contains_key(CRASHED) {
            Verdict::Failed.exit_status()
        } else if some(Verdict::BudgetExceeded) {
            Verdict::BudgetExceeded.exit_status()
        } else if some(Verdict::Vacuous) || !self.holes.is_empty() || self.runs != self.wanted {
            Verdict::Vacuous.exit_status()
        } else {
            0
        }
    }
}

/// Why files are not the parts of one sweep.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(String, std::io::Error),
    /// A line of it is not what a sweep writes.
    #[error("{0}:{1}: {2}")]
    Line(String, usize, serde_json::Error),
    /// It has no first line.
    #[error("{0}: empty")]
    Empty(String),
    /// It belongs to another sweep, or was made by another build.
    #[error("{0}: not of the same sweep as {1}: {2}")]
    Other(String, String, String),
    /// A seed is in two of them.
    #[error("{0}: seed {1} is there twice")]
    Twice(String, u64),
    /// None was given.
    #[error("no files")]
    None,
}

/// Reads the parts of a sweep: its head as a whole, and all lines.
///
/// # Errors
/// When they are not parts of one sweep, or a seed is there twice.
pub fn read_parts(files: &[impl AsRef<Path>]) -> Result<(Head, Vec<SeedLine>), MergeError> {
    let mut whole: Option<(Head, String)> = None;
    let (mut lines, mut seen) = (Vec::new(), BTreeSet::new());
    for path in files {
        let (shown, text) = read(path.as_ref())?;
        let part = parse(&shown, &text, &mut seen, &mut lines)?;
        let head = Head { shard: (1, 1), ..part };
        match &whole {
            Some((known, from)) => known.expect_same(from, &head, shown)?,
            None => whole = Some((head, shown)),
        }
    }
    lines.sort_unstable_by_key(|line| line.run);
    whole.map(|(head, _)| (head, lines)).ok_or(MergeError::None)
}

/// What an earlier run of a sweep left of its file: how many bytes of it are whole lines, and the seeds in these.
///
/// # Errors
/// When it is not of this sweep, or by another build.
pub fn read_left(path: &Path, head: &Head) -> Result<(u64, Vec<SeedLine>), MergeError> {
    let (shown, text) = read(path)?;
    // The end of a process can cut off its last line.
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let mut lines = Vec::new();
    let known = parse(&shown, whole, &mut BTreeSet::new(), &mut lines)?;
    head.expect_same("the one that is wanted", &known, shown)?;
    Ok((whole.len() as u64, lines))
}

fn read(path: &Path) -> Result<(String, String), MergeError> {
    let shown = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((shown, text)),
        Err(error) => Err(MergeError::Read(shown, error)),
    }
}

/// The head of a file, and its lines to those of others.
fn parse(
    shown: &str,
    text: &str,
    seen: &mut BTreeSet<Unit>,
    lines: &mut Vec<SeedLine>,
) -> Result<Head, MergeError> {
    let wrong = |number: usize| move |error| MergeError::Line(shown.to_owned(), number, error);
    let mut rows = (1..).zip(text.lines());
    let (_, first) = rows.next().ok_or_else(|| MergeError::Empty(shown.to_owned()))?;
    let head = serde_json::from_str(first).map_err(wrong(1))?;
    for (number, row) in rows {
        let line: SeedLine = serde_json::from_str(row).map_err(wrong(number))?;
        if !seen.insert(line.run) {
            return Err(MergeError::Twice(shown.to_owned(), line.run.seed));
        }
        lines.push(line);
    }
    Ok(head)
}

/// The verdict of a seed whose process ended by itself.
pub const CRASHED: &str = "crashed";
/// The exit status of a sweep in which a seed gave two traces.
pub const NOT_DETERMINISTIC: u8 = 3;
const SLOWEST_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(shard: (u32, u32)) -> Head {
        Head {
            source: "fuzz-small".to_owned(),
            world: World::Events,
            build: "b".to_owned(),
            base_seed: 100,
            seeds: 7,
            cells: 1,
            shard,
        }
    }

    fn line(seed: u64, verdict: &str) -> SeedLine {
        SeedLine {
            verdict: verdict.to_owned(),
            violation: None,
            trace: seed.to_string(),
            ..SeedLine::crashed(Unit { seed, cell: 1 }, String::new())
        }
    }

    fn sum(lines: &[SeedLine]) -> Summary {
        let source = Source::profile("fuzz-small").expect("built in");
        Summary::new(&source, &Head { seeds: lines.len() as u32, ..head((1, 1)) }, lines)
    }

    #[test]
    fn shards_have_every_seed_once() {
        let mut all: Vec<u64> = (1..=3)
            .flat_map(|part| head((part, 3)).own_runs().map(|run| run.seed).collect::<Vec<_>>())
            .collect();
        all.sort_unstable();
        assert_eq!(all, (100..107).collect::<Vec<u64>>());
        let cells: Vec<Unit> = Head { seeds: 2, cells: 3, ..head((2, 2)) }.own_runs().collect();
        assert_eq!(cells, [(100, 2), (101, 1), (101, 3)].map(|(seed, cell)| Unit { seed, cell }));
    }

    #[test]
    fn the_worst_of_all_seeds_is_the_status() {
        let mut two = line(2, "pass");
        two.recheck(&line(9, "pass"));
        for (lines, status) in [
            (vec![line(1, "pass")], 0),
            (vec![line(1, "pass"), line(2, "vacuous")], 5),
            (vec![line(1, "vacuous"), line(2, "budget-exceeded")], 4),
            (vec![line(1, "budget-exceeded"), line(2, "failed")], 1),
            (vec![line(1, "crashed"), line(2, "pass")], 1),
            (vec![line(1, "failed"), two], 3),
        ] {
            assert_eq!(sum(&lines).exit_status(), status, "{lines:?}");
        }
    }

    #[test]
    fn many_seeds_that_reach_nothing_have_holes_and_few_have_none() {
        let lines: Vec<SeedLine> = (0..1000).map(|seed| line(seed, "pass")).collect();
        assert!(sum(&lines[..999]).holes.is_empty());
        let holes = sum(&lines).holes;
        let families = Profile::load("fuzz-small").expect("built in").families.len();
        let marks = MARKS.iter().filter(|mark| !mark.is_rare).count();
        assert_eq!(holes.len(), marks + families, "{holes:?}");
        assert_eq!(sum(&lines).exit_status(), 5);
    }
}
