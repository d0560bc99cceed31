//! Makes a failing run smaller: fewer faults, hosts and bytes, a simpler network, as long as the same rule breaks.
//!
//! What is made smaller is the scenario, with everything drawn, never the seed: hosts draw from streams of their own, so
//! taking one away does not disturb the others. Stages go from what takes most away to what only reads better; each is
//! repeated until nothing in it helps. A candidate that breaks another rule is no smaller version of the same failure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use toml::{Table, Value};

use crate::oracle::Violation;
use crate::plan::{Materials, settle};
use crate::run::{Outcome, RunOptions, run};
use crate::scenario::{Fault, Found, Has, Scenario, World};
use crate::units::{SECOND, Size, Time, TimeRange};

/// What making it smaller may cost.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Runs at most.
    pub runs: u32,
    /// Wall time at most; what runs then is not begun again.
    pub wall: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { runs: 400, wall: Duration::from_secs(60) }
    }
}

/// A failing run, as small as it got.
#[derive(Debug)]
pub struct Shrunk {
    /// What to run, with [`Found`] in it.
    pub scenario: Scenario,
    /// What came of it.
    pub outcome: Outcome,
    /// Runs that it took.
    pub runs: u32,
    /// What was taken away, in order.
    pub steps: Vec<String>,
    /// Whether the same rule breaks in the other world; none where the scenario cannot run there.
    pub other_world: Option<bool>,
}

/// Makes a failing run smaller; none when it does not fail. `each` is told of every step that helped.
pub fn shrink(
    scenario: &Scenario,
    seed: u64,
    world: World,
    options: &RunOptions,
    budget: Budget,
    each: impl FnMut(&str, &Scenario),
) -> Option<Shrunk> {
    let settled = settle(scenario, seed);
    let outcome = run(&Materials::new(settled.clone()), seed, world, options);
    let violation = outcome.violation.clone()?;
    let began = Instant::now();
    let mut search = Search {
        best: settled,
        outcome,
        wanted: violation,
        seed,
        world,
        options: options.clone(),
        left: budget.runs,
        ends: began + budget.wall,
        tried: BTreeSet::new(),
        steps: Vec::new(),
        each,
    };
    let mut before = usize::MAX;
    while before != search.steps.len() && search.left > 0 {
        before = search.steps.len();
        for stage in STAGES {
            search.exhaust(*stage);
        }
    }
    // When it is mended it is to pass, for which it needs its time.
    let mut whole = search.best.clone();
    whole.scenario.duration = scenario.scenario.duration;
    search.left = search.left.max(1);
    search.ends += budget.wall;
    search.accept("nothing", whole);
    let other_world = search.other_world();
    let Search { mut best, outcome, left, steps, .. } = search;
    let steps: Vec<String> = steps.into_iter().filter(|what| what != "nothing").collect();
    best.found = outcome.violation.as_ref().map(|violation| Found {
        seed,
        world,
        oracle: violation.oracle.to_owned(),
        message: violation.message.clone(),
        build: crate::BUILD.to_owned(),
    });
    best.scenario.id = corpus_id(&best, seed);
    Some(Shrunk { scenario: best, outcome, runs: budget.runs - left, steps, other_world })
}

/// A name that says where a failure came from and what broke.
fn corpus_id(scenario: &Scenario, seed: u64) -> String {
    let id = &scenario.scenario.id;
    let stem = id.strip_suffix(&format!("-{seed}")).unwrap_or(id);
    let oracle = scenario.found.as_ref().map_or("", |found| &found.oracle).to_lowercase();
    format!("{stem}-{oracle}-{seed:x}")
}

/// Smaller versions of a scenario, the smallest first, with what was taken away.
type Stage = fn(&Scenario, &Violation) -> Vec<(String, Scenario)>;

const STAGES: &[Stage] = &[cut, kinds, faults, parties, hosts, payload, keys, numbers];

struct Search<F> {
    best: Scenario,
    outcome: Outcome,
    wanted: Violation,
    seed: u64,
    world: World,
    options: RunOptions,
    left: u32,
    ends: Instant,
    /// Digests of what was run, so that nothing is run twice.
    tried: BTreeSet<u64>,
    steps: Vec<String>,
    each: F,
}

impl<F: FnMut(&str, &Scenario)> Search<F> {
    /// Repeats a stage until nothing in it helps.
    fn exhaust(&mut self, stage: Stage) {
        loop {
            let candidates = stage(&self.best, self.outcome.violation.as_ref().unwrap_or(&self.wanted));
            if !candidates.into_iter().any(|(what, candidate)| self.accept(&what, candidate)) {
                return;
            }
        }
    }

    /// Takes a candidate that still fails in the same way.
    fn accept(&mut self, what: &str, candidate: Scenario) -> bool {
        if self.left == 0 || Instant::now() >= self.ends || candidate == self.best || !candidate.is_sound() {
            return false;
        }
        // Where nobody can become whole, that would be another failure with the same name.
        if !can_complete(&candidate) && can_complete(&self.best) {
            return false;
        }
        if !self.tried.insert(crate::trace::digest(&candidate.to_toml())) {
            return false;
        }
        self.left -= 1;
        let outcome = run(&Materials::new(candidate.clone()), self.seed, self.world, &self.options);
        if !outcome.violation.as_ref().is_some_and(|violation| is_same(violation, &self.wanted)) {
            return false;
        }
        if self.fails_without_bug(&candidate) {
            return false;
        }
        (self.each)(what, &candidate);
        self.steps.push(what.to_owned());
        (self.best, self.outcome) = (candidate, outcome);
        true
    }

    /// Whether it fails without the bug that was planted, too: then it is no smaller version of what the bug does.
    #[cfg(feature = "canaries")]
    fn fails_without_bug(&self, candidate: &Scenario) -> bool {
        let without = RunOptions { canary: None, ..self.options.clone() };
        self.options.canary.is_some()
            && run(&Materials::new(candidate.clone()), self.seed, self.world, &without).violation.is_some()
    }

    /// Whether it fails without the bug that was planted, too: there is none.
    #[cfg(not(feature = "canaries"))]
    fn fails_without_bug(&self, _: &Scenario) -> bool {
        false
    }

    /// Whether the same rule breaks in the world that it was not found in: then the fault is not that world's.
    fn other_world(&self) -> Option<bool> {
        let other = match self.world {
            World::Events => World::Turmoil,
            World::Turmoil => World::Events,
        };
        let mut scenario = self.best.clone();
        scenario.scenario.worlds = vec![other];
        let hosts: usize = scenario.groups.iter().map(|group| group.numbers().count()).sum();
        if !scenario.is_sound()
            || hosts > TURMOIL_HOSTS_MAX
            || scenario.scenario.duration.0 > TURMOIL_TIME_MAX
        {
            return None;
        }
        let outcome = run(&Materials::new(scenario), self.seed, other, &self.options);
        Some(outcome.violation.is_some_and(|violation| is_same(&violation, &self.wanted)))
    }
}

/// Whether an honest host has everything, another wants it, and both look for others in the same way.
fn can_complete(scenario: &Scenario) -> bool {
    let there =
        || scenario.groups.iter().filter(|group| group.lies.is_none() && group.numbers().next().is_some());
    let can_meet = !scenario.scenario.trackerless
        || there().all(|group| group.config.dht.is_some())
        || there().all(|group| group.config.lsd == Some(true));
    can_meet && there().any(|group| group.has == Has::All) && there().any(|group| group.has != Has::All)
}

/// The same rule; of panics, at the same place in the source.
fn is_same(one: &Violation, other: &Violation) -> bool {
    let place = |violation: &Violation| {
        let mut words = violation.message.split_whitespace();
        words.find(|word| word.contains(".rs:")).map(str::to_owned)
    };
    one.oracle == other.oracle && (one.oracle != "S14" || place(one) == place(other))
}

/// Nothing after the failure matters. What was not in time cannot be told before its time is over.
fn cut(scenario: &Scenario, violation: &Violation) -> Vec<(String, Scenario)> {
    let mut shorter = scenario.clone();
    shorter.faults.retain(|fault| fault.at.is_none_or(|at| at.low <= violation.at_ns));
    let mut candidates = Vec::new();
    if !violation.oracle.starts_with('L') {
        let mut cut = shorter.clone();
        cut.scenario.duration = Time((violation.at_ns / SECOND + 2) * SECOND).min(scenario.scenario.duration);
        candidates.push(("all after the failure".to_owned(), cut));
    }
    candidates.push(("faults after the failure".to_owned(), shorter));
    candidates
}

/// Without all faults of one kind.
fn kinds(scenario: &Scenario, _: &Violation) -> Vec<(String, Scenario)> {
    let names: BTreeSet<&str> = scenario.faults.iter().map(|fault| fault.kind.name()).collect();
    let mut candidates = Vec::new();
    if names.len() > 1 {
        candidates.push(("every fault".to_owned(), Scenario { faults: Vec::new(), ..scenario.clone() }));
    }
    candidates.extend(names.into_iter().map(|name| {
        let mut fewer = scenario.clone();
        fewer.faults.retain(|fault| fault.kind.name() != name);
        (format!("every {name}"), fewer)
    }));
    candidates
}

/// Without some of the faults: halves first, single ones last.
fn faults(scenario: &Scenario, _: &Violation) -> Vec<(String, Scenario)> {
    chunks(scenario.faults.len())
        .map(|range| {
            let mut fewer = scenario.clone();
            let count = range.len();
            fewer.faults.drain(range);
            (format!("{count} of {} faults", scenario.faults.len()), fewer)
        })
        .collect()
}

/// Without an actor, a torrent, or something that is expected.
fn parties(scenario: &Scenario, _: &Violation) -> Vec<(String, Scenario)> {
    let mut candidates = Vec::new();
    for number in 0..scenario.actors.len() {
        let mut fewer = scenario.clone();
        let name = fewer.actors.remove(number).name;
        fewer.faults.retain(|fault| fault.pick != name);
        fewer
            .torrents
            .iter_mut()
            .flat_map(|torrent| &mut torrent.tiers)
            .for_each(|tier| tier.retain(|one| *one != name));
        fewer.torrents.iter_mut().for_each(|torrent| torrent.tiers.retain(|tier| !tier.is_empty()));
        candidates.push((format!("actor {name}"), fewer));
    }
    for number in 0..scenario.torrents.len() {
        let mut fewer = scenario.clone();
        let name = fewer.torrents.remove(number).name;
        candidates.push((format!("torrent {name}"), fewer));
    }
    for number in 0..scenario.expects.len() {
        let mut fewer = scenario.clone();
        fewer.expects.remove(number);
        candidates.push(("an expectation".to_owned(), fewer));
    }
    candidates
}

/// Without some of the hosts of a group, and the faults that hit them.
fn hosts(scenario: &Scenario, _: &Violation) -> Vec<(String, Scenario)> {
    let mut candidates = Vec::new();
    for (place, group) in scenario.groups.iter().enumerate() {
        let numbers: Vec<u32> = group.numbers().collect();
        for range in chunks(numbers.len()) {
            let mut fewer = scenario.clone();
            let mut left = numbers.clone();
            let gone: Vec<String> =
                left.drain(range).map(|number| format!("{}-{number}", group.name)).collect();
            fewer.groups[place].only = Some(left);
            fewer.faults.retain(|fault| !gone.contains(&fault.pick));
            candidates.push((gone.join(" "), fewer));
        }
    }
    candidates
}

/// Fewer bytes, pieces and files.
fn payload(scenario: &Scenario, _: &Violation) -> Vec<(String, Scenario)> {
    let mut candidates = Vec::new();
    for (place, torrent) in scenario.torrents.iter().enumerate() {
        let mut change = |what: &str, size: u64, piece: Option<Size>, files: u32| {
            let mut fewer = scenario.clone();
            let torrent = &mut fewer.torrents[place];
            (torrent.size, torrent.piece, torrent.files) = (Size(size), piece, files);
            candidates.push((what.to_owned(), fewer));
        };
        let (size, piece, files) = (torrent.size.0, torrent.piece, torrent.files);
        change("all files but one", size, piece, 1);
        for part in [16, 4, 2] {
            change("bytes", (size / part).next_power_of_two().min(size / 2).max(1), piece, files);
        }
        if let Some(piece) = piece {
            change("pieces", size, Some(Size(piece.0 * 2)), files);
        }
    }
    candidates
}

/// Without one of the keys that may be left out: loss, jitter, unequal links, whatever there is.
fn keys(scenario: &Scenario, _: &Violation) -> Vec<(String, Scenario)> {
    let Ok(table) = Table::try_from(scenario) else { return Vec::new() };
    let mut candidates = Vec::new();
    for (name, part) in &table {
        let entries = match part {
            Value::Table(table) if name != "found" => vec![(None, table)],
            Value::Array(list) if name != "fault" => {
                (0..).zip(list).filter_map(|(at, entry)| Some((Some(at), entry.as_table()?))).collect()
            }
            _ => continue,
        };
        for (at, entry) in entries {
            for key in entry.keys().filter(|key| !matches!(key.as_str(), "name" | "id" | "only" | "duration"))
            {
                let mut fewer = table.clone();
                let within = fewer.get_mut(name).and_then(|part| match at {
                    Some(at) => part.get_mut::<usize>(at)?.as_table_mut(),
                    None => part.as_table_mut(),
                });
                within.and_then(|entry| entry.remove(key));
                if let Ok(fewer) = fewer.try_into() {
                    candidates.push((format!("{name}.{key}"), fewer));
                }
            }
        }
    }
    candidates
}

/// Rounder numbers, which read better.
fn numbers(scenario: &Scenario, _: &Violation) -> Vec<(String, Scenario)> {
    let round = |time: TimeRange| {
        let unit = if time.low < SECOND { SECOND / 10 } else { SECOND };
        let low = (time.low / unit).max(1) * unit;
        TimeRange { low, high: low }
    };
    let mut candidates = Vec::new();
    for number in 0..scenario.faults.len() {
        for (what, change) in [
            (
                "at",
                (|fault, round| fault.at = fault.at.map(round))
                    as fn(&mut Fault, &dyn Fn(TimeRange) -> TimeRange),
            ),
            ("for", |fault, round| fault.lasts = fault.lasts.map(round)),
            ("back_after", |fault, round| fault.back_after = fault.back_after.map(round)),
        ] {
            let mut rounder = scenario.clone();
            change(&mut rounder.faults[number], &round);
            candidates.push((format!("digits of fault.{what}"), rounder));
        }
    }
    let mut even = scenario.clone();
    let low = even.net.latency.low.div_ceil(SECOND / 1000) * (SECOND / 1000);
    even.net.latency = TimeRange { low, high: low };
    candidates.push(("different latencies".to_owned(), even));
    candidates
}

/// Parts of a list to take away: all, halves, quarters, down to single ones.
fn chunks(length: usize) -> impl Iterator<Item = core::ops::Range<usize>> {
    let sizes = std::iter::successors(Some(length), |size| Some(size / 2)).take_while(|size| *size > 0);
    sizes.flat_map(move |size| (0..length).step_by(size).map(move |from| from..(from + size).min(length)))
}

/// The turmoil world is slow: it is tried only where that takes seconds.
const TURMOIL_HOSTS_MAX: usize = 8;
const TURMOIL_TIME_MAX: u64 = 600 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_halves_down_to_single_ones() {
        let ranges: Vec<_> = chunks(4).collect();
        assert_eq!(ranges, [0..4, 0..2, 2..4, 0..1, 1..2, 2..3, 3..4]);
        assert_eq!(chunks(0).count(), 0);
        assert_eq!(chunks(5).last(), Some(4..5));
    }

    #[test]
    fn panics_at_two_places_are_two_failures() {
        let panic = |message: &str| Violation {
            oracle: "S14",
            at_ns: 0,
            host: String::new(),
            message: message.to_owned(),
        };
        let (one, same, other) = (
            panic("panicked at engine/src/a.rs:5:1: index 3"),
            panic("panicked at engine/src/a.rs:5:1: index 4"),
            panic("panicked at engine/src/a.rs:9:1: index 3"),
        );
        assert!(is_same(&one, &same) && !is_same(&one, &other));
    }
}
