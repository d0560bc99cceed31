//! Bugs that other clients had, each with the scenario that it would have shown in and the engine that has it.
//!
//! What is planted is in the engine itself ([`taipei_engine::museum`]); the scenarios are files of `scenarios/museum/`, and pass
//! without it. Only in builds with the feature `canaries`, and only in the event world.

use taipei_engine::museum::OldBug;

use crate::canary::{Bug, Tripped, hunt};
use crate::plan::Materials;
use crate::run::RunOptions;
use crate::scenario::Scenario;
use crate::sweep::Source;

/// A bug that somebody met.
#[derive(Debug)]
pub struct Exhibit {
    /// The name of its scenario.
    pub name: &'static str,
    /// What is planted.
    pub bug: OldBug,
    /// Where it was met, first things first.
    pub seen: &'static str,
    /// Why the swarms that a profile draws do not show it; empty where they do.
    pub not_drawn: &'static str,
    /// Why it takes many hosts or faults; empty where it does not.
    pub large: &'static str,
    /// The scenario's file.
    text: &'static str,
}

impl Exhibit {
    /// Where it shows.
    pub fn scenario(&self) -> Scenario {
        Scenario::parse(self.text, self.name).expect("the scenarios of the museum are sound")
    }

    /// Tries seeds of its scenario until a rule breaks.
    pub fn trip(&self, seeds: u32) -> Tripped {
        hunt(&Source::Cells(vec![Materials::new(self.scenario())]), Bug::Old(self.bug), seeds)
    }

    /// The same with the swarms of a profile that is built in.
    ///
    /// # Panics
    /// When there is no such profile.
    pub fn trip_in(&self, profile: &str, seeds: u32) -> Tripped {
        hunt(&Source::profile(profile).expect("a profile that is built in"), Bug::Old(self.bug), seeds)
    }

    /// What a run with the bug in it is told, to be made smaller.
    pub fn options(&self) -> RunOptions {
        RunOptions { canary: Some(Bug::Old(self.bug)), events_max: EVENTS_MAX, ..RunOptions::default() }
    }
}

/// A smaller swarm may be one that does nothing but ask again, faster than the whole one: it is given up.
const EVENTS_MAX: u64 = 5_000_000;

macro_rules! exhibits {
    ($($name:literal $bug:ident $seen:literal $(not drawn: $not_drawn:literal)? $(large: $large:literal)?)*) => {
        /// All of them; what users complained about most comes first.
        pub const ALL: &[Exhibit] = &[$(Exhibit {
            name: $name,
            bug: OldBug::$bug,
            seen: $seen,
            not_drawn: concat!($($not_drawn)?),
            large: concat!($($large)?),
            text: include_str!(concat!("../../scenarios/museum/", $name, ".toml")),
        }),*];
    };
}

exhibits! {
    "stuck-on-one-slow-peer" NoEndgame "Transmission #7834"
        not drawn: "a slow peer has four blocks at most: some minutes, of the quarter of an hour that the profile gives"
    "bad-piece-at-the-end" BadPieceForgotten "Transmission #8644"
    "odd-piece-length" TailForgotten "Transmission #3111"
    "dead-peer-keeps-its-pieces" DeadPeerKeepsPieces "rqbit #532"
    "a-piece-in-two-states" HaveAndQueued "rqbit #655"
    "nobody-is-unchoked-again" NoTurn "rqbit #199"
        large: "nobody waits for a turn before all slots are taken, of which there are four at least"
    "the-disk-refused-one-write" RefusedWriteForgotten "qBittorrent #7893"
    "rejected-and-asked-again" AskedAgainAtOnce "libtorrent #3747"
    "the-disk-was-full" FullForEver "Transmission #1835"
    "power-cut-and-believed" BelievedAfterPowerCut "qBittorrent #13199"
    "trackers-never-asked-again" TrackersGivenUp "qBittorrent #15735"
    "started-said-again" StartedAgain "rqbit #160"
    "dht-offline-at-start" BootstrapOnce "aria2 #362"
    "magnet-stuck-on-metadata" MetadataOfOne "libtorrent #1202"
    "silent-peer-holds-pieces" SilenceKeepsPieces "libtorrent #77"
    "corrupt-for-ever" LiarForgiven "WebTorrent #2432"
    "innocents-banned" AllBlamed "libtorrent #3843"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_own_scenario_and_only_with_the_bug() {
        for exhibit in ALL {
            let tripped = exhibit.trip(20);
            assert!(tripped.seed.is_some() && tripped.without.is_empty(), "{}: {tripped:?}", exhibit.name);
        }
    }
}
