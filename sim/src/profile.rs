//! Profiles: what a sweep draws a scenario from, for each seed another.
//!
//! A seed gives a whole [`Scenario`] with nothing left to chance in its faults, which is written, run and made smaller
//! like one that somebody wrote. Each family of faults draws from a stream of its own and is switched off as a whole by
//! chance, so that the rest gets further.

use serde::Deserialize;
use taipei_engine::limits::BLOCK_BYTES;
use taipei_engine::rng::Rng;

use crate::families::FAMILIES;
use crate::plan::Plan;
use crate::scenario::{Scenario, ScenarioError};
use crate::units::{CountRange, Rate, RateRange, SECOND, Share, SizeRange, Time, TimeRange};

/// A profile's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    profile: Profile,
}

/// What is drawn, and what every scenario drawn must keep.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is called.
    pub id: String,
    /// When a run has failed if it is not over; simulated time.
    pub duration: Time,
    /// How long everybody has to complete after the last fault has healed.
    pub within: Time,
    /// How many seeds when the command line does not say.
    pub seeds: u32,
    /// Families of faults that may be there.
    pub families: Vec<String>,
    /// The chance of each of them to be there at all.
    pub each_family: Share,
    /// Of all seeds: they are run again in a fresh process, and the traces compared.
    pub recheck: Share,
    /// From so many seeds on, a mark that none reached is a failure, and a family that never had an effect.
    pub holes_count_from: u32,
    /// What a swarm is drawn from.
    pub draw: Draw,
}

/// What a swarm is drawn from. Sizes and rates are drawn by their magnitude: as many small ones as large ones.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draw {
    /// Hosts that have everything.
    pub seeders: CountRange,
    /// Hosts that have nothing.
    pub leechers: CountRange,
    /// Torrents, all of them on every host.
    pub torrents: CountRange,
    /// Of each torrent.
    pub size: SizeRange,
    /// Powers of two between these.
    pub piece: SizeRange,
    /// The chance of a torrent's pieces to be longer than that by less than a block.
    pub odd_pieces: Share,
    /// Of each torrent.
    pub files: CountRange,
    /// Of access links, either way.
    pub rate: RateRange,
    /// One way.
    pub latency: TimeRange,
}

/// The profiles that need no file.
const BUILT_IN: &[(&str, &str)] = &[("fuzz-small", include_str!("../../scenarios/profiles/fuzz-small.toml"))];

impl Profile {
    /// One that is built in, by its name, or one from a file that ends in `.toml`.
    ///
    /// # Errors
    /// When there is none of that name, or its file is wrong.
    pub fn load(name: &str) -> Result<Self, ScenarioError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(text, name);
        }
        if !name.ends_with(".toml") {
            let known: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            let message =
                format!("no such profile: there are {}, and files ending in .toml", known.join(" "));
            return Err(ScenarioError::whole(name, message));
        }
        let text =
            std::fs::read_to_string(name).map_err(|error| ScenarioError::whole(name, error.to_string()))?;
        Self::parse(&text, name)
    }

    fn parse(text: &str, shown: &str) -> Result<Self, ScenarioError> {
        let file: File = toml::from_str(text).map_err(|error| ScenarioError::syntax(&error, text, shown))?;
        let unknown = |name: &&String| FAMILIES.iter().all(|(known, _)| known != name);
        if let Some(name) = file.profile.families.iter().find(unknown) {
            return Err(ScenarioError::whole(shown, format!("`families`: there is no `{name}`")));
        }
        Ok(file.profile)
    }

    /// The scenario that a seed gives.
    pub fn scenario(&self, seed: u64) -> Scenario {
        let mut swarm = Swarm::new(self, seed);
        let mut text = swarm.write(self, "");
        let quiet = parse(&text);
        let bound = Plan::new(&quiet, seed).fluid_bound("leech", swarm.size_bytes);
        // Most of what happens, happens before this.
        swarm.span_ns = bound + bound / 4 + 2 * SECOND;
        for (name, add) in FAMILIES.iter().filter(|(name, _)| self.families.iter().any(|own| own == name)) {
            let mut rng = Rng::stream(seed, name, 0);
            if rng.below(self.each_family.of) < self.each_family.part {
                swarm.families.push(name);
                add(&mut rng, &mut swarm);
            }
        }
        text = swarm.write(self, &swarm.expects.clone());
        parse(&text)
    }
}

fn parse(text: &str) -> Scenario {
    Scenario::parse(text, "drawn")
        .unwrap_or_else(|error| panic!("a profile drew what cannot be read: {error}\n{text}"))
}

/// A scenario on its way: what families add to. Everything is text of a scenario file.
pub(crate) struct Swarm {
    id: String,
    torrents: String,
    /// How long everybody has to complete after the last fault has healed.
    pub(crate) within: String,
    /// Keys of `[scenario]`.
    pub(crate) head: String,
    /// Keys of the group `seed`, and of the group `leech`.
    pub(crate) seed_keys: String,
    pub(crate) leech_keys: String,
    /// Keys of their engines' settings, each with a comma behind it.
    pub(crate) seed_config: String,
    pub(crate) leech_config: String,
    /// Keys of the disks of the group `leech`, each with a comma behind it.
    pub(crate) leech_disk: String,
    /// Keys of `[net]`.
    pub(crate) net: String,
    /// Further tables.
    pub(crate) parts: String,
    /// Further entries of `[[expect]]`.
    pub(crate) expects: String,
    /// Hosts, as they are called.
    pub(crate) seeders: u64,
    pub(crate) leechers: u64,
    /// Trackers that a family has made; without any there is one that works.
    pub(crate) has_trackers: bool,
    /// All torrents together.
    pub(crate) size_bytes: u64,
    /// Faults strike before this, nanoseconds.
    pub(crate) span_ns: u64,
    /// Which families are in.
    pub(crate) families: Vec<&'static str>,
}

impl Swarm {
    fn new(profile: &Profile, seed: u64) -> Self {
        let draw = &profile.draw;
        let mut rng = Rng::stream(seed, "swarm", 0);
        let mut odd = Rng::stream(seed, "odd pieces", 0);
        let (mut torrents, mut size_bytes) = (String::new(), 0);
        for number in 0..between(&mut rng, draw.torrents.low, draw.torrents.high) {
            let size = magnitude(&mut rng, draw.size.low, draw.size.high);
            let exponents = (draw.piece.low.ilog2(), draw.piece.high.ilog2());
            // A torrent of one piece is a torrent too, but not the usual one.
            let most = exponents.1.min((size / 2).max(1).ilog2()).max(exponents.0);
            let whole = 1u64 << between(&mut rng, u64::from(exponents.0), u64::from(most));
            let is_odd = odd.below(draw.odd_pieces.of) < draw.odd_pieces.part;
            let piece = whole + if is_odd { 1 + odd.below(u64::from(BLOCK_BYTES) - 1) } else { 0 };
            let files = between(&mut rng, draw.files.low, draw.files.high);
            size_bytes += size;
            torrents += &format!(
                "[[torrent]]\nname = \"{}\"\nsize = \"{size} B\"\npiece = \"{piece} B\"\nfiles = {files}\n",
                char::from(b'a' + number as u8)
            );
        }
        let mut access = || {
            let mut rate = || Rate(magnitude(&mut rng, draw.rate.low, draw.rate.high)).exact();
            format!("access = {{ up = \"{}\", down = \"{}\" }}\n", rate(), rate())
        };
        let (seed_keys, leech_keys) = (access(), access());
        let seeders = between(&mut rng, draw.seeders.low, draw.seeders.high);
        let leechers = between(&mut rng, draw.leechers.low, draw.leechers.high);
        let (a, b) = (
            magnitude(&mut rng, draw.latency.low, draw.latency.high),
            magnitude(&mut rng, draw.latency.low, draw.latency.high),
        );
        let latency = format!("latency = \"{} .. {}\"\n", Time(a.min(b)).exact(), Time(a.max(b)).exact());
        Self {
            id: format!("{}-{seed}", profile.id),
            torrents,
            within: profile.within.exact(),
            head: String::new(),
            seed_keys,
            leech_keys,
            seed_config: String::new(),
            leech_config: String::new(),
            leech_disk: String::new(),
            net: latency,
            parts: String::new(),
            expects: String::new(),
            seeders,
            leechers,
            has_trackers: false,
            size_bytes,
            span_ns: 0,
            families: Vec::new(),
        }
    }

    fn write(&self, profile: &Profile, expects: &str) -> String {
        let Self {
            id,
            torrents,
            within,
            head,
            seed_keys,
            leech_keys,
            seed_config,
            leech_config,
            leech_disk,
            net,
            parts,
            seeders,
            leechers,
            ..
        } = self;
        let duration = profile.duration.exact();
        let table = |name: &str, keys: &str| {
            keys.strip_suffix(", ").map_or(String::new(), |keys| format!("{name} = {{ {keys} }}\n"))
        };
        let (seed_config, leech_config) = (table("config", seed_config), table("config", leech_config));
        let leech_disk = table("disk", leech_disk);
        let families = self.families.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        format!(
            "[scenario]\nid = \"{id}\"\nduration = \"{duration}\"\nfaults_may_miss = true\nfamilies = [{families}]\n{head}\
             {torrents}\
             [[group]]\nname = \"seed\"\ncount = {seeders}\nhas = \"all\"\n{seed_keys}{seed_config}\
             [[group]]\nname = \"leech\"\ncount = {leechers}\n{leech_keys}{leech_config}{leech_disk}\
             [net]\n{net}{parts}\
             [[expect]]\ncomplete = \"leech\"\nwithin = \"{within}\"\n{expects}"
        )
    }

    /// One of the seeders or leechers, by name.
    pub(crate) fn host(&self, rng: &mut Rng) -> String {
        let number = rng.below(self.seeders + self.leechers);
        if number < self.seeders {
            format!("seed-{}", number + 1)
        } else {
            format!("leech-{}", number - self.seeders + 1)
        }
    }

    /// One of the leechers, by name.
    pub(crate) fn leecher(&self, rng: &mut Rng) -> String {
        format!("leech-{}", rng.below(self.leechers) + 1)
    }

    /// When a fault strikes, as a scenario says it.
    pub(crate) fn moment(&self, rng: &mut Rng) -> String {
        Time(rng.below(self.span_ns / MOMENT * MOMENT)).exact_to(MOMENT)
    }
}

/// Uniform, both ends included.
pub(crate) fn between(rng: &mut Rng, low: u64, high: u64) -> u64 {
    low + rng.below(high - low + 1)
}

/// As likely between 1 and 2 as between 1,000 and 2,000.
pub(crate) fn magnitude(rng: &mut Rng, low: u64, high: u64) -> u64 {
    let low = low.max(1);
    let octave = low.saturating_mul(1 << rng.below(u64::from((high / low).max(1).ilog2()) + 1));
    between(rng, octave, octave.saturating_mul(2).min(high).max(octave))
}

/// How long something lasts, between these, as a scenario says it.
pub(crate) fn length(rng: &mut Rng, low: u64, high: u64) -> String {
    Time(magnitude(rng, low, high)).exact_to(MOMENT)
}

/// Times that are drawn are whole numbers of these, for people to read.
const MOMENT: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_scenario_and_another_seed_another() {
        let profile = Profile::load("fuzz-small").expect("built in");
        assert_eq!(profile.scenario(7), profile.scenario(7));
        assert_ne!(profile.scenario(7), profile.scenario(8));
        let text = profile.scenario(7).to_toml();
        assert_eq!(Scenario::parse(&text, "again").as_ref(), Ok(&profile.scenario(7)), "{text}");
    }

    #[test]
    fn all_that_is_drawn_can_be_read_and_every_family_is_drawn() {
        let profile = Profile::load("fuzz-small").expect("built in");
        let (mut hosts, mut sizes) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        let mut odd = 0;
        let mut families = std::collections::BTreeMap::<String, u32>::new();
        for seed in 0..400 {
            let scenario = profile.scenario(seed);
            hosts.insert(scenario.groups.iter().map(|group| group.count).sum::<u32>());
            sizes.insert(scenario.torrents[0].size.0.ilog2());
            let piece = scenario.torrents[0].piece.as_ref().map_or(0, |piece| piece.0);
            odd += u32::from(!piece.is_multiple_of(u64::from(BLOCK_BYTES)));
            for family in scenario.scenario.families {
                *families.entry(family).or_default() += 1;
            }
        }
        assert!(hosts.first() <= Some(&4) && hosts.last() >= Some(&14), "{hosts:?}");
        assert_eq!((sizes.first(), sizes.last()), (Some(&16), Some(&23)), "{sizes:?}");
        assert!((25..75).contains(&odd), "{odd} of 400 have odd pieces");
        for name in &profile.families {
            let count = families.get(name).copied().unwrap_or(0);
            assert!((140..260).contains(&count), "{name}: {count} of 400");
        }
    }

    #[test]
    fn magnitudes_are_drawn_evenly_and_stay_within() {
        let mut rng = Rng::stream(1, "test", 0);
        let drawn: Vec<u64> = (0..1000).map(|_| magnitude(&mut rng, 1 << 16, 8 << 20)).collect();
        assert!(drawn.iter().all(|size| (1 << 16..=8 << 20).contains(size)));
        let small = drawn.iter().filter(|size| **size < 1 << 20).count();
        assert!((400..700).contains(&small), "{small}");
    }
}
