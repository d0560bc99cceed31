//! One run of a scenario: a world, a seed, and what came of them.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use serde::Serialize;
use serde_json::{Value, json};

use crate::observer::Observer;
use crate::oracle::{EndState, Summary, Violation, Watch};
use crate::plan::{Materials, Plan};
use crate::scenario::World;
use crate::trace::Kind;
use crate::units::Time;

/// What a run may be told beside its scenario and seed.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Whether all events are kept for a file.
    pub keep_trace: bool,
    /// Whether the run is observed, for a report.
    pub observe: bool,
    /// Whether rules are looked at and events are traced; without, only how a run costs can be told.
    pub oracles: bool,
    /// Whether packets are kept for a capture file (event world only).
    pub capture: bool,
    /// Events before the run is given up.
    pub events_max: u64,
    /// A host whose first process is recorded, as `taipei-cli download --record` would (event world only).
    pub record: Option<String>,
    /// A fault that nobody is told of, which an oracle must find.
    pub plant: Option<Plant>,
    /// A bug of an engine or of the world (event world only).
    #[cfg(feature = "canaries")]
    pub canary: Option<crate::canary::Bug>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            keep_trace: false,
            observe: false,
            capture: false,
            oracles: true,
            events_max: 200_000_000,
            record: None,
            plant: None,
            #[cfg(feature = "canaries")]
            canary: None,
        }
    }
}

/// What a negative control does behind everybody's back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Turns a byte of each piece of the first torrent around on a host's disk.
    Rot {
        /// Which host.
        host: String,
        /// When, nanoseconds.
        at: u64,
    },
    /// Panics inside a step.
    Panic {
        /// When, nanoseconds.
        at: u64,
    },
}

impl Plant {
    /// Does it, if it is about a disk; false when nothing of the payload is there yet.
    pub(crate) fn rot(
        host: &str,
        materials: &Materials,
        plan: &Plan,
        mut disk: impl FnMut(usize, u64) -> bool,
    ) -> bool {
        let Some(number) = plan.hosts.iter().position(|known| known.name == host) else { return false };
        let torrent = &materials.torrents[0];
        let mut any = false;
        for piece in 0..torrent.piece_count() {
            any |= disk(number, torrent.piece(piece).0);
        }
        any
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything that was expected, and no rule broken.
    Pass,
    /// A rule was broken.
    Failed,
    /// It proved nothing: a fault without effect, a mark never reached.
    Vacuous,
    /// It did not end within its budget.
    BudgetExceeded,
}

impl Verdict {
    /// As it is written everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Failed => "failed",
            Self::Vacuous => "vacuous",
            Self::BudgetExceeded => "budget-exceeded",
        }
    }

    /// The exit status that says so.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Failed => 1,
            Self::BudgetExceeded => 4,
            Self::Vacuous => 5,
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The scenario's id.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// Where it ran.
    pub world: World,
    /// How it ended.
    pub verdict: Verdict,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// Simulated nanoseconds from the beginning to the end.
    pub ended_at_ns: u64,
    /// The hash of everything that happened.
    pub trace: String,
    /// How many events that were.
    pub events: u64,
    /// The last of them, oldest first.
    pub tail: Vec<String>,
    /// All of them, as a file, when asked for.
    pub trace_file: Option<Vec<u8>>,
    /// What a report is drawn from, when asked for.
    pub observed: Option<Box<Observer>>,
    /// The recording, when asked for.
    pub recording: Option<Vec<u8>>,
    /// The capture file, when asked for, and whether it ends before the run does.
    pub capture: Option<(Vec<u8>, bool)>,
    /// What both worlds must agree on.
    pub end_state: EndState,
    /// Figures.
    pub summary: Summary,
}

impl Outcome {
    /// From what was watched.
    pub fn new(
        materials: &Materials,
        plan: &Plan,
        world: World,
        now: u64,
        mut watch: Watch,
        end_state: EndState,
    ) -> Self {
        let violation = watch.violation().cloned();
        let verdict = match &violation {
            None => Verdict::Pass,
            Some(violation) if violation.oracle.starts_with('V') => Verdict::Vacuous,
            Some(violation) if violation.oracle == BUDGET => Verdict::BudgetExceeded,
            Some(_) => Verdict::Failed,
        };
        watch.trace.event(now, 0, Kind::End, [u64::from(verdict.exit_status()), 0, 0]);
        let tail = if violation.is_some() {
            watch.trace.tail(20).map(|event| format!("{event:?}")).collect()
        } else {
            Vec::new()
        };
        Self {
            scenario: materials.scenario.scenario.id.clone(),
            seed: plan.seed,
            world,
            verdict,
            violation,
            ended_at_ns: now,
            trace: watch.trace.hash(),
            events: watch.trace.count(),
            tail,
            recording: None,
            capture: None,
            end_state,
            observed: watch.take_observer(now),
            summary: watch.summary(),
            trace_file: watch.trace.into_file(),
        }
    }

    /// The object that `run --json` ends with.
    pub fn to_json(&self) -> Value {
        json!({
            "scenario": self.scenario,
            "seed": self.seed,
            "world": self.world,
            "verdict": self.verdict,
            "oracle": self.violation.as_ref().map(|violation| violation.oracle),
            "message": self.violation.as_ref().map(|violation| violation.message.as_str()),
            "host": self.violation.as_ref().map(|violation| violation.host.as_str()),
            "at_ns": self.violation.as_ref().map_or(self.ended_at_ns, |violation| violation.at_ns),
            "trace": self.trace,
            "events": self.events,
            "summary": self.summary,
            "end_state": self.end_state,
        })
    }

    /// One line that repeats the run, with why somebody would.
    pub fn replay_line(&self, file: &str) -> String {
        let why = match &self.violation {
            Some(violation) => format!("{} at {}", violation.oracle, Time(violation.at_ns)),
            None => format!("passed at {}", Time(self.ended_at_ns)),
        };
        format!(
            "taipei-sim replay {file} --seed {} --world {}  # {why}, trace {}",
            self.seed,
            self.world.name(),
            self.trace
        )
    }
}

/// Runs a scenario in a world with a seed.
pub fn run(materials: &Arc<Materials>, seed: u64, world: World, options: &RunOptions) -> Outcome {
    let plan = Plan::new(&materials.scenario, seed);
    match world {
        World::Events => crate::events::run(materials, &plan, options),
        World::Turmoil => crate::turmoil::run(materials, &plan, options),
    }
}

/// Calls `step`; a panic in it, or in a task that it ran, becomes its message and place.
pub(crate) fn catch<T>(step: impl FnOnce() -> T) -> Result<T, String> {
    thread_local!(static FIRST: RefCell<Option<String>> = const { RefCell::new(None) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHING.with_borrow(|catching| *catching > 0) {
                FIRST.with_borrow_mut(|first| {
                    first.get_or_insert_with(|| info.to_string().replace('\n', " "));
                });
            } else {
                before(info);
            }
        }));
    });
    CATCHING.with_borrow_mut(|catching| *catching += 1);
    let result = catch_unwind(AssertUnwindSafe(step));
    CATCHING.with_borrow_mut(|catching| *catching -= 1);
    match (result, FIRST.with_borrow_mut(Option::take)) {
        (Ok(value), None) => Ok(value),
        // A runtime catches what its tasks panic with.
        (_, Some(panic)) => Err(panic),
        (Err(_), None) => Err("panicked".to_owned()),
    }
}

thread_local!(static CATCHING: RefCell<u32> = const { RefCell::new(0) });

/// The id of a run that did not end within its budget.
pub(crate) const BUDGET: &str = "budget";
