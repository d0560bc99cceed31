//! One scenario with many seeds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::plan::Materials;
use crate::run::{Outcome, RunOptions, Verdict, run};
use crate::scenario::World;

/// What to sweep.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u32,
    /// Where.
    pub world: World,
    /// Whether each is run again and the traces are compared.
    pub twice: bool,
    /// Runs at once, at least 1.
    pub jobs: usize,
}

/// What came of one seed.
#[derive(Debug)]
pub struct SeedResult {
    /// The first run.
    pub outcome: Outcome,
    /// The second run's trace hash, when it was another.
    pub other_trace: Option<String>,
}

/// What came of all of them.
#[derive(Clone, Debug, Default)]
pub struct SweepResult {
    /// Seeds run.
    pub seeds: u32,
    /// Of those, how many passed.
    pub passed: u32,
    /// How many did not.
    pub failed: u32,
    /// How many gave two traces.
    pub different: u32,
    /// All runs together.
    pub simulated_ns: u64,
    /// Every failure's line, by seed.
    pub failures: Vec<(u64, String)>,
    /// The worst verdict's exit status.
    status: u8,
    /// Marks that the scenario names and no seed reached.
    pub marks_missing: Vec<String>,
}

impl SeedResult {
    /// What to print about it: nothing when it passed.
    pub fn lines(&self, file: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(violation) = &self.outcome.violation {
            lines.push(format!("{} {}: {}", violation.oracle, violation.host, violation.message));
            lines.push(self.outcome.replay_line(file));
        }
        if let Some(other) = &self.other_trace {
            lines.push(format!(
                "seed {} gave trace {} and then {other}",
                self.outcome.seed, self.outcome.trace
            ));
        }
        lines
    }
}

impl SweepResult {
    /// The exit status that says it all.
    pub fn exit_status(&self) -> u8 {
        if self.different > 0 { 3 } else { self.status }
    }

    /// The object that `sweep --json` ends with.
    pub fn to_json(&self, materials: &Materials, sweep: &Sweep) -> Value {
        json!({
            "scenario": materials.scenario.scenario.id,
            "world": sweep.world,
            "from": sweep.from,
            "seeds": self.seeds,
            "twice": sweep.twice,
            "passed": self.passed,
            "failed": self.failed,
            "not_deterministic": self.different,
            "simulated_ns": self.simulated_ns,
            "marks_missing": self.marks_missing,
            "failures": self.failures.iter().map(|(seed, line)| json!({"seed": seed, "why": line})).collect::<Vec<_>>(),
        })
    }
}

/// Runs all seeds, on several threads; tells `each` of every one, in no particular order.
pub fn sweep(materials: &Arc<Materials>, sweep: &Sweep, each: impl FnMut(&SeedResult) + Send) -> SweepResult {
    let next = AtomicU32::new(0);
    let state = Mutex::new((SweepResult::default(), BTreeSet::new(), each));
    std::thread::scope(|scope| {
        for _ in 0..sweep.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= sweep.seeds {
                        return;
                    }
                    let result = run_seed(materials, sweep, sweep.from.wrapping_add(u64::from(number)));
                    let mut state = state.lock().expect("no holder panics");
                    let (sum, marks, each) = &mut *state;
                    each(&result);
                    sum.add(&result);
                    marks.extend(result.outcome.summary.marks.iter().copied());
                }
            });
        }
    });
    let (mut sum, marks, _) = state.into_inner().expect("no holder panics");
    sum.failures.sort();
    let wanted = materials.scenario.expects.iter().flat_map(|expect| &expect.mark);
    sum.marks_missing = wanted.filter(|mark| !marks.contains(mark.as_str())).cloned().collect();
    sum
}

fn run_seed(materials: &Arc<Materials>, sweep: &Sweep, seed: u64) -> SeedResult {
    let options = RunOptions::default();
    let outcome = run(materials, seed, sweep.world, &options);
    let other = sweep.twice.then(|| run(materials, seed, sweep.world, &options).trace);
    SeedResult { other_trace: other.filter(|other| *other != outcome.trace), outcome }
}

impl SweepResult {
    fn add(&mut self, result: &SeedResult) {
        self.seeds += 1;
        self.simulated_ns += result.outcome.ended_at_ns;
        self.different += u32::from(result.other_trace.is_some());
        if result.outcome.verdict == Verdict::Pass {
            self.passed += 1;
        } else {
            self.failed += 1;
            let why = result.outcome.violation.as_ref().map_or_else(String::new, |violation| {
                format!("{} {}: {}", violation.oracle, violation.host, violation.message)
            });
            self.failures.push((result.outcome.seed, why));
            // A broken rule says more than a budget, a budget more than a vacuous run.
            let rank = |status: u8| [1, 4, 5].iter().position(|known| *known == status).unwrap_or(9);
            let status = result.outcome.verdict.exit_status();
            if rank(status) < rank(self.status) {
                self.status = status;
            }
        }
    }
}
