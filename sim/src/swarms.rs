//! How good a swarm of this engine is: how soon crowds have everything, and what that costs a seed.
//!
//! The scenarios are files of `scenarios/swarms/`. Times are told as multiples of what links alone allow ([`Plan::fluid_bound`]),
//! counted with the heads of the messages that blocks come in; where hosts die or leave, as if none did.

use taipei_engine::limits::BLOCK_BYTES;

use crate::plan::{Materials, Plan};
use crate::run::{Outcome, RunOptions, Verdict, run};
use crate::scenario::{Scenario, World};

/// A swarm that is looked at.
#[derive(Debug)]
pub struct Swarm {
    /// The name of its scenario.
    pub name: &'static str,
    /// The scenario's file.
    text: &'static str,
}

macro_rules! swarms {
    ($($name:literal)*) => {
        /// All of them.
        pub const ALL: &[Swarm] = &[$(Swarm {
            name: $name,
            text: include_str!(concat!("../../scenarios/swarms/", $name, ".toml")),
        }),*];
    };
}

swarms! {
    "crowd-of-10"
    "crowd-of-50"
    "crowd-of-200"
    "crowd-of-50-mixed"
    "churn"
    "seed-leaves-early"
    "crowd-with-riders"
}

/// How one run went. Multiples are in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Whether all that the scenario expects came, and no rule broke.
    pub verdict: Verdict,
    /// When half of those that fetch and give had all, over the bound.
    pub median: u64,
    /// The same of the last of them.
    pub last: u64,
    /// What those that had all at the start sent, over one copy.
    pub seeds_sent: u64,
    /// How alike those that fetch and give were in what they gave for what they took: Jain's index, 1000 when all are.
    pub fairness: u64,
    /// When the first of those that give nothing had been sent all, over the bound; none where nobody had before all others.
    pub first_rider: Option<u64>,
}

impl Figures {
    /// Whether somebody who gives nothing had all before half of those that give.
    pub fn riders_win(&self) -> bool {
        self.first_rider.is_some_and(|rider| rider < self.median)
    }
}

impl Swarm {
    /// Its scenario.
    ///
    /// # Panics
    /// Never: the files are part of the build, and a test reads them all.
    pub fn scenario(&self) -> Scenario {
        Scenario::parse(self.text, self.name).expect("the scenarios of swarms are sound")
    }

    /// Runs it with this seed, in the event world.
    pub fn run(&self, seed: u64) -> (Figures, Outcome) {
        let materials = Materials::new(self.scenario());
        let options = RunOptions { observe: true, ..RunOptions::default() };
        let outcome = run(&materials, seed, World::Events, &options);
        (figures(&materials, &Plan::new(&materials.scenario, seed), &outcome), outcome)
    }
}

fn figures(materials: &Materials, plan: &Plan, outcome: &Outcome) -> Figures {
    let observer = outcome.observed.as_deref().expect("the run was observed");
    let payload = materials.total_bytes();
    let bound =
        plan.fluid_bound_of_all(payload + payload.div_ceil(u64::from(BLOCK_BYTES)) * PIECE_HEAD_BYTES);
    let over_bound = |at: u64| thousandths(at, bound.unwrap_or(u64::MAX));
    let given = |from: usize| {
        let flows = observer.flows.range((from, 0)..=(from, usize::MAX));
        flows.map(|(_, flow)| flow.bytes).sum::<u64>()
    };
    let mut completed: Vec<u64> =
        plan.fetching().map(|host| observer.hosts[host].completed_at.unwrap_or(u64::MAX)).collect();
    completed.sort_unstable();
    let hosts = || plan.hosts.iter().enumerate();
    let seeds_sent: u64 = hosts().filter(|(_, host)| host.has_all).map(|(number, _)| given(number)).sum();
    let riders = hosts().filter(|(_, host)| host.puppet.is_some());
    let first_rider = riders.filter_map(|(number, _)| observer.hosts[number].completed_at).min();
    let shares = plan.fetching().map(|host| thousandths(given(host), observer.hosts[host].taken_bytes));
    Figures {
        verdict: outcome.verdict,
        median: completed.get(completed.len() / 2).copied().map_or(0, over_bound),
        last: completed.last().copied().map_or(0, over_bound),
        seeds_sent: thousandths(seeds_sent, payload),
        fairness: jain(&shares.collect::<Vec<_>>()),
        first_rider: first_rider.map(over_bound),
    }
}

fn thousandths(part: u64, of: u64) -> u64 {
    u64::try_from(u128::from(part) * 1000 / u128::from(of.max(1))).unwrap_or(u64::MAX)
}

/// `(sum x)^2 / (n sum x^2)` in thousandths: 1000 when all are equal, 1000 / n when one has everything.
fn jain(shares: &[u64]) -> u64 {
    let sum: u128 = shares.iter().map(|share| u128::from(*share)).sum();
    let squares: u128 = shares.iter().map(|share| u128::from(*share) * u128::from(*share)).sum();
    u64::try_from(sum * sum * 1000 / (shares.len() as u128 * squares).max(1)).unwrap_or(u64::MAX)
}

/// The length, the kind, the piece and where in it, before each block (BEP 3).
const PIECE_HEAD_BYTES: u64 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_have_all_soon_and_the_seed_sends_little_twice() {
        let (figures, _) = ALL[0].run(1);
        assert_eq!(figures.verdict, Verdict::Pass);
        assert!((1000..1200).contains(&figures.last) && figures.median <= figures.last, "{figures:?}");
        assert!((1000..1250).contains(&figures.seeds_sent), "{figures:?}");
        assert!((500..=1000).contains(&figures.fairness) && figures.first_rider.is_none(), "{figures:?}");
    }

    #[test]
    fn all_can_be_read() {
        for swarm in ALL {
            assert_eq!(swarm.scenario().scenario.id, swarm.name);
        }
    }

    #[test]
    fn the_index_is_one_when_all_are_alike() {
        assert_eq!([jain(&[7, 7, 7]), jain(&[9, 0, 0]), jain(&[0, 0])], [1000, 333, 0]);
    }
}
