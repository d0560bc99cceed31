//! Scenario files: what happens in a run, written down once and run in every world.
//!
//! The syntax is TOML. Unknown keys are errors, every quantity carries a unit, things are called by name and never by
//! number, and `id` equals the file's name. Keys that the syntax has but that nothing here performs yet are refused
//! with a word of their own, so that no file ever seems to test what it does not.

use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use crate::units::{Jump, Rate, Share, Size, SizeMax, Time, TimeRange};

/// One scenario file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is called, where and how long it runs.
    pub scenario: Head,
    /// What is shared.
    #[serde(rename = "torrent")]
    pub torrents: Vec<Torrent>,
    /// Hosts that run our engine.
    #[serde(rename = "group")]
    pub groups: Vec<Group>,
    /// What lies between hosts.
    #[serde(default)]
    pub net: Net,
    /// Other parties.
    #[serde(default, rename = "actor")]
    pub actors: Vec<Actor>,
    /// What goes wrong.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
    /// What must be true at the end.
    #[serde(default, rename = "expect")]
    pub expects: Vec<Expect>,
    /// How `sweep` runs it.
    #[serde(default)]
    pub sweep: Sweep,
}

/// `[scenario]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The file's name without `.toml`.
    pub id: String,
    /// Where it runs.
    #[serde(default = "events_only")]
    pub worlds: Vec<World>,
    /// When it has failed if its expectations are not met; simulated time.
    pub duration: Time,
    /// How often hosts on turmoil take turns: whole milliseconds. Hours are cheaper when it is coarse.
    #[serde(default = "tick_default")]
    pub tick: Time,
}

/// Which of the two simulated worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// Engines stepped directly from a queue of events.
    Events,
    /// The real driver on turmoil hosts.
    Turmoil,
}

impl World {
    /// As written in scenario files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Turmoil => "turmoil",
        }
    }
}

/// `[[torrent]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Torrent {
    /// Its name, here and in the torrent file.
    pub name: String,
    /// All files together.
    pub size: Size,
    /// The length of its pieces; as `taipei-cli create` chooses when left out.
    pub piece: Option<Size>,
    /// How many files; sizes differ by at most a byte, so pieces straddle them.
    #[serde(default = "one")]
    pub files: u32,
    /// Trackers by name, in tiers; when left out each tracker is a tier of its own.
    #[serde(default)]
    pub tiers: Vec<Vec<String>>,
}

/// `[[group]]`: hosts alike.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Hosts are called `NAME-1`, `NAME-2` and so on.
    pub name: String,
    /// How many.
    pub count: u32,
    /// What they have at the start.
    #[serde(default)]
    pub has: Has,
    /// Their access link.
    #[serde(default)]
    pub access: Access,
    /// Their disk.
    #[serde(default)]
    pub disk: DiskModel,
    /// Of the blocks that they serve: they are wrong.
    pub lies: Option<Share>,
}

/// What a host has at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Has {
    /// Nothing.
    #[default]
    None,
    /// All of every torrent.
    All,
}

/// An access link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// To the network.
    #[serde(default = "gigabit")]
    pub up: Rate,
    /// From the network.
    #[serde(default = "gigabit")]
    pub down: Rate,
    /// How long a byte may wait for the way up.
    #[serde(default = "queue_default")]
    pub queue: Time,
}

impl Default for Access {
    fn default() -> Self {
        Self { up: gigabit(), down: gigabit(), queue: queue_default() }
    }
}

/// What a disk costs and how it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskModel {
    /// Of one job, before its bytes.
    #[serde(default = "disk_latency")]
    pub latency: TimeRange,
    /// What a power cut tears unsynced writes into.
    #[serde(default = "sector")]
    pub torn: Size,
}

impl Default for DiskModel {
    fn default() -> Self {
        Self { latency: disk_latency(), torn: sector() }
    }
}

/// `[net]`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// One way, between any two hosts; with a range, each pair draws its own.
    #[serde(default)]
    pub latency: TimeRange,
    /// Of a segment of a stream: it arrives a retransmission later.
    pub loss: Option<Share>,
}

/// `[[actor]]`: a party that is not our engine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// What it is.
    pub kind: ActorKind,
    /// Its name; also in DNS, as `NAME.sim`.
    pub name: String,
    /// How it is asked.
    #[serde(default)]
    pub proto: Proto,
    /// What it does, one entry a request; the last one is repeated. Empty: it does its work.
    #[serde(default)]
    pub script: Vec<Answer>,
}

/// What an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActorKind {
    /// A tracker.
    Tracker,
}

/// How a tracker is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proto {
    /// BEP 3.
    #[default]
    Http,
    /// BEP 15. A status in its script is silence there.
    Udp,
}

/// What a scripted tracker does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Answer {
    /// `ok`, `ok interval=1800 min=900`: a proper answer, with these seconds where given.
    Ok {
        /// Seconds between announces.
        interval: Option<u32>,
        /// Seconds below which nobody may announce.
        min: Option<u32>,
    },
    /// `500`: that status and no body.
    Status(u16),
    /// `hang 40 s`: a proper answer, that much later.
    Hang(u64),
}

/// `[[fault]]`. Which keys it has depends on its kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When; or `when`.
    pub at: Option<TimeRange>,
    /// What it waits for.
    pub when: Option<When>,
    /// What.
    pub kind: FaultKind,
    /// A group: one of its hosts is drawn; or one host, or a tracker, by its name.
    pub pick: String,
    /// How long a host that dies stays away.
    pub back_after: Option<TimeRange>,
    /// How long anything else lasts.
    #[serde(rename = "for")]
    pub lasts: Option<TimeRange>,
    /// What still fits on a disk that fills up.
    pub space: Option<Size>,
    /// How a tracker fails: one of these is drawn.
    #[serde(default)]
    pub how: Vec<Outage>,
    /// How far a clock jumps: one of these is drawn.
    #[serde(default)]
    pub by: Vec<Jump>,
}

/// What a fault waits for, when not for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum When {
    /// Those that had nothing at the start have every piece among them.
    #[serde(rename = "one copy out")]
    OneCopyOut,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The process dies: what was written stays, its sockets are closed by the system.
    Crash,
    /// The machine dies: what was not synced is lost or torn, its peers hear nothing.
    PowerCut,
    /// The user ends it, for good.
    Leave,
    /// Little more fits on the disk, until somebody makes room.
    DiskFull,
    /// A tracker is away.
    TrackerOutage,
    /// Nothing that a host sends arrives before the end of it.
    Silence,
    /// The machine sleeps: nothing happens on it, and then all that came meanwhile.
    Suspend,
    /// The wall clock is wrong, and then right again.
    ClockJump,
}

impl FaultKind {
    /// As written in scenario files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::PowerCut => "power-cut",
            Self::Leave => "leave",
            Self::DiskFull => "disk-full",
            Self::TrackerOutage => "tracker-outage",
            Self::Silence => "silence",
            Self::Suspend => "suspend",
            Self::ClockJump => "clock-jump",
        }
    }

    /// Whether the host is gone meanwhile.
    pub fn takes_down(self) -> bool {
        matches!(self, Self::Crash | Self::PowerCut | Self::Leave)
    }

    /// The keys that it wants of `back_after`, `for`, `space`, `how` and `by`; it takes no other of them.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Crash | Self::PowerCut => &["back_after"],
            Self::Leave => &[],
            Self::DiskFull => &["for", "space"],
            Self::TrackerOutage => &["for", "how"],
            Self::Silence | Self::Suspend => &["for"],
            Self::ClockJump => &["for", "by"],
        }
    }
}

/// How a tracker is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outage {
    /// Nobody listens there.
    Refuse,
    /// Requests are taken and never answered.
    Hang,
}

/// `[[expect]]`: all that is written in one entry must hold.
#[derive(Clone, Debug, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The group whose hosts all have everything.
    pub complete: Option<String>,
    /// How many times the fluid bound the entry may take, after the last fault has healed.
    pub within_bound: Option<f64>,
    /// How long the entry may take after the last fault has healed.
    pub within: Option<Time>,
    /// When the entry must hold, whatever else goes on.
    pub by: Option<Time>,
    /// Of the payload: the most that the hosts of `complete` together receive for nothing.
    pub wasted: Option<Share>,
    /// What a tracker was told by each host of a group.
    pub announces: Option<ExpectAnnounces>,
    /// What liars may do before they are banned.
    pub banned: Option<ExpectBanned>,
    /// What resuming costs.
    pub resume: Option<ExpectResume>,
    /// What must have happened somewhere.
    #[serde(default)]
    pub mark: Vec<String>,
    /// What must not have happened anywhere.
    #[serde(default)]
    pub never: Vec<String>,
}

/// What a tracker was told: announces that it took, over all processes of a host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectAnnounces {
    /// By each host of this group.
    pub of: String,
    /// Which tracker.
    pub to: String,
    /// How often `started`.
    pub started: Option<u32>,
    /// How often `completed`.
    pub completed: Option<u32>,
    /// How often `stopped`.
    pub stopped: Option<u32>,
    /// Whether something must be told after the last fault has healed.
    #[serde(default)]
    pub again: bool,
}

/// Whoever was hurt by a liar bans it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectBanned {
    /// The most pieces that one liar may spoil for one host.
    pub bad_pieces: u32,
}

/// What resuming costs.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectResume {
    /// Pieces believed that are not right on disk.
    pub claimed_but_bad: Option<u32>,
    /// `<= unsynced`: after a crash nothing recorded is lost, after a power cut nothing synced.
    pub lost: Option<Lost>,
    /// Payload received beyond the torrents' size, over all hosts picked by faults.
    pub refetched: Option<SizeMax>,
}

/// What a power cut may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Lost {
    /// Only what was not synced.
    #[serde(rename = "<= unsynced")]
    Unsynced,
}

/// `[sweep]`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// How many seeds when the command line does not say.
    pub seeds: Option<u32>,
}

/// Marks that runs can reach.
pub const MARKS: &[&str] = &[
    "piece_hash_ok",
    "piece_hash_bad",
    "resumed",
    "rechecked",
    "checked_again",
    "choked",
    "snapshot",
    "disk_error",
];

/// Why a scenario is refused.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Read(String, std::io::Error),
    /// Not TOML, an unknown key, or a value of the wrong form.
    #[error("{0}: {1}")]
    Syntax(String, String),
    /// In the syntax, but nothing performs it yet.
    #[error("{0}: `{1}` is not supported yet")]
    NotYet(String, String),
    /// It contradicts itself.
    #[error("{0}: {1}")]
    Wrong(String, String),
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// Says which key is wrong.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let shown = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|error| ScenarioError::Read(shown.clone(), error))?;
        let scenario = Self::parse(&text, &shown)?;
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(&scenario.scenario.id) {
            return Err(ScenarioError::Wrong(
                shown,
                format!("id `{}` is not the file's name", scenario.scenario.id),
            ));
        }
        Ok(scenario)
    }

    /// Reads a scenario from text; `shown` names it in errors.
    ///
    /// # Errors
    /// Says which key is wrong.
    pub fn parse(text: &str, shown: &str) -> Result<Self, ScenarioError> {
        let syntax = |error: toml::de::Error| {
            ScenarioError::Syntax(shown.to_owned(), error.to_string().trim().to_owned())
        };
        let table: Table = text.parse().map_err(syntax)?;
        if let Some(key) = not_yet(&table) {
            return Err(ScenarioError::NotYet(shown.to_owned(), key));
        }
        let scenario: Self = toml::from_str(text).map_err(syntax)?;
        scenario.check().map_err(|message| ScenarioError::Wrong(shown.to_owned(), message))?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        let group = |name: &str| self.groups.iter().any(|group| group.name == name);
        let mut names: Vec<&str> = self.groups.iter().map(|group| group.name.as_str()).collect();
        names.extend(self.actors.iter().map(|actor| actor.name.as_str()));
        for name in
            names.iter().chain(&self.torrents.iter().map(|torrent| torrent.name.as_str()).collect::<Vec<_>>())
        {
            if name.is_empty()
                || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            {
                return Err(format!("`{name}`: names are letters, digits, `-` and `_`"));
            }
        }
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two parties are called `{}`", twice[0]));
        }
        if self.torrents.is_empty()
            || self.groups.iter().map(|group| u64::from(group.count)).sum::<u64>() == 0
        {
            return Err("wants at least one torrent and one host".to_owned());
        }
        if self.groups.iter().map(|group| u64::from(group.count)).sum::<u64>() > HOSTS_MAX {
            return Err(format!("more than {HOSTS_MAX} hosts"));
        }
        if self.scenario.worlds.is_empty() {
            return Err("`worlds` names none".to_owned());
        }
        let tick = self.scenario.tick.0;
        if tick == 0 || !tick.is_multiple_of(crate::units::MILLISECOND) {
            return Err("`tick` is whole milliseconds".to_owned());
        }
        for torrent in &self.torrents {
            if torrent.size.0 == 0 || torrent.size.0 > TORRENT_BYTES_MAX {
                return Err(format!("torrent `{}`: between 1 B and 4 GiB", torrent.name));
            }
            if torrent.files == 0 || u64::from(torrent.files) > torrent.size.0 {
                return Err(format!("torrent `{}`: {} files do not fit", torrent.name, torrent.files));
            }
            crate::plan::create_plan(torrent, Vec::new())
                .map_err(|error| format!("torrent `{}`: {error}", torrent.name))?;
        }
        let tracker = |name: &str| self.actors.iter().any(|actor| actor.name == name);
        for torrent in &self.torrents {
            if let Some(name) = torrent.tiers.iter().flatten().find(|name| !tracker(name)) {
                return Err(format!("torrent `{}`: no tracker `{name}`", torrent.name));
            }
        }
        for fault in &self.faults {
            fault.check()?;
            let there = match fault.kind {
                FaultKind::TrackerOutage => tracker(&fault.pick),
                _ => group(&fault.pick) || self.host_group(&fault.pick).is_some(),
            };
            if !there {
                return Err(format!("`pick = \"{}\"`: no such group, host or tracker", fault.pick));
            }
        }
        for expect in &self.expects {
            if let Some(name) = expect.complete.as_deref().filter(|name| !group(name)) {
                return Err(format!("`complete = \"{name}\"`: no such group"));
            }
            if expect.within_bound.is_some_and(|bound| !(1.0..=1000.0).contains(&bound)) {
                return Err("`within_bound` is between 1 and 1000".to_owned());
            }
            if expect.within_bound.is_some() && expect.complete.is_none() {
                return Err("`within_bound` wants `complete`".to_owned());
            }
            if expect.wasted.is_some() && expect.complete.is_none() {
                return Err("`wasted` wants `complete`".to_owned());
            }
            if (expect.within.is_some() || expect.by.is_some())
                && expect.complete.is_none()
                && expect.announces.is_none()
            {
                return Err("`within` and `by` want `complete` or `announces`".to_owned());
            }
            if let Some(announces) = &expect.announces {
                if !group(&announces.of) {
                    return Err(format!("`of = \"{}\"`: no such group", announces.of));
                }
                if !tracker(&announces.to) {
                    return Err(format!("`to = \"{}\"`: no such tracker", announces.to));
                }
            }
            if expect.banned.is_some() && self.groups.iter().all(|group| group.lies.is_none()) {
                return Err("`banned` wants a group that lies".to_owned());
            }
            let marks = expect.mark.iter().chain(&expect.never);
            if let Some(mark) = marks.into_iter().find(|mark| !MARKS.contains(&mark.as_str())) {
                return Err(format!("`mark`: no `{mark}` (there are {})", MARKS.join(" ")));
            }
        }
        Ok(())
    }

    /// The group of the host with this name (`leech-3`).
    pub fn host_group(&self, host: &str) -> Option<(&Group, u32)> {
        let (group, number) = host.rsplit_once('-')?;
        let number: u32 = number.parse().ok()?;
        let group = self.groups.iter().find(|known| known.name == group)?;
        (1..=group.count).contains(&number).then_some((group, number))
    }
}

impl Fault {
    /// Whether it has the keys of its kind and no others.
    fn check(&self) -> Result<(), String> {
        let kind = self.kind.name();
        if self.at.is_some() == self.when.is_some() {
            return Err(format!("{kind}: wants either `at` or `when`"));
        }
        for (name, has) in [
            ("back_after", self.back_after.is_some()),
            ("for", self.lasts.is_some()),
            ("space", self.space.is_some()),
            ("how", !self.how.is_empty()),
            ("by", !self.by.is_empty()),
        ] {
            match (self.kind.keys().contains(&name), has) {
                (true, false) => return Err(format!("{kind}: wants `{name}`")),
                (false, true) => return Err(format!("{kind}: takes no `{name}`")),
                _ => {}
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Answer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        match words.next() {
            Some("ok") => {
                let (mut interval, mut min) = (None, None);
                for word in words {
                    let slot = match word.split_once('=') {
                        Some(("interval", value)) => (&mut interval, value),
                        Some(("min", value)) => (&mut min, value),
                        _ => return Err(format!("`{text}`: `{word}` is not supported yet")),
                    };
                    *slot.0 = Some(slot.1.parse().map_err(|_| format!("`{text}`: wants seconds"))?);
                }
                Ok(Self::Ok { interval, min })
            }
            Some("hang") => {
                let time = text.trim_start().strip_prefix("hang").unwrap_or_default().to_owned();
                Time::try_from(time).map(|time| Self::Hang(time.0)).map_err(|error| error.to_string())
            }
            Some(status) if status.len() == 3 && words.next().is_none() => match status.parse() {
                Ok(status @ 100..=599) => Ok(Self::Status(status)),
                _ => Err(format!("`{text}`: no such status")),
            },
            _ => Err(format!("`{text}` is not supported yet in a script")),
        }
    }
}

/// The first key that the syntax has and that nothing performs yet.
fn not_yet(table: &Table) -> Option<String> {
    let whole = ["nat", "matrix"];
    if let Some(key) = whole.iter().find(|key| table.contains_key(**key)) {
        return Some((*key).to_owned());
    }
    let parts: &[(&str, &[&str])] = &[
        ("scenario", &["extends", "fidelity"]),
        ("torrent", &["count", "webseeds", "private"]),
        (
            "group",
            &[
                "arrive",
                "stay",
                "behind",
                "public",
                "config",
                "script",
                "interfaces",
                "transport",
                "proxy",
                "at",
            ],
        ),
        ("net", &["geography", "jitter", "duplicate", "reorder"]),
        ("actor", &["addr", "count", "behaviour", "from_group", "at", "for", "udp"]),
        ("fault", &["rate", "until", "from", "every_k", "error", "from_group", "to_group", "count"]),
        (
            "expect",
            &[
                "of_those_online",
                "honest_banned",
                "upload_share",
                "after_heal",
                "queue_delay",
                "share",
                "limits",
                "counters",
                "leaks",
                "secrets_sent_to_other_origin",
                "direct_connections",
                "dht",
            ],
        ),
        ("sweep", &["hosts", "torrent", "families", "each_family", "heal_at", "determinism_recheck"]),
    ];
    for (part, keys) in parts {
        for entry in entries(table, part) {
            if let Some(key) = keys.iter().find(|key| entry.contains_key(**key)) {
                return Some(format!("{part}.{key}"));
            }
        }
    }
    let built: &[(&str, &str, &[&str])] = &[
        ("actor", "kind", &["tracker"]),
        (
            "fault",
            "kind",
            &[
                "crash",
                "power-cut",
                "leave",
                "disk-full",
                "tracker-outage",
                "silence",
                "suspend",
                "clock-jump",
            ],
        ),
        ("group", "has", &["all", "none"]),
    ];
    for (part, key, values) in built {
        for entry in entries(table, part) {
            if let Some(value) =
                entry.get(*key).and_then(Value::as_str).filter(|value| !values.contains(value))
            {
                return Some(format!("{part}.{key} = \"{value}\""));
            }
        }
    }
    let tables: &[(&str, &str)] = &[("group", "access"), ("net", "loss")];
    for (part, key) in tables {
        for entry in entries(table, part) {
            match entry.get(*key) {
                Some(Value::Array(_)) => return Some(format!("{part}.{key} with shares")),
                Some(Value::Table(loss)) if *key == "loss" => {
                    return Some(format!("net.loss.{}", loss.keys().next().map_or("", String::as_str)));
                }
                _ => {}
            }
        }
    }
    None
}

fn entries<'a>(table: &'a Table, part: &str) -> Vec<&'a Table> {
    match table.get(part) {
        Some(Value::Table(entry)) => vec![entry],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_table).collect(),
        _ => Vec::new(),
    }
}

fn events_only() -> Vec<World> {
    vec![World::Events]
}

fn tick_default() -> Time {
    Time(crate::units::MILLISECOND)
}

fn one() -> u32 {
    1
}

fn gigabit() -> Rate {
    Rate(1_000_000_000)
}

fn queue_default() -> Time {
    Time(100 * crate::units::MILLISECOND)
}

fn disk_latency() -> TimeRange {
    TimeRange { low: 100_000, high: 100_000 }
}

fn sector() -> Size {
    Size(512)
}

/// More hosts than this would be a mistake in the file.
const HOSTS_MAX: u64 = 10_000;
/// Content is kept once in memory, as one slice.
const TORRENT_BYTES_MAX: u64 = 4 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        [scenario]
        id = "small"
        duration = "60 s"
        [[torrent]]
        name = "a"
        size = "1 MiB"
        [[group]]
        name = "seed"
        count = 1
        has = "all"
        [[group]]
        name = "leech"
        count = 2
    "#;

    fn parse(more: &str) -> Result<Scenario, String> {
        Scenario::parse(&format!("{SMALL}\n{more}"), "small.toml").map_err(|error| error.to_string())
    }

    #[test]
    fn a_small_scenario_has_defaults() {
        let scenario = parse("").expect("parses");
        assert_eq!(scenario.scenario.worlds, [World::Events]);
        assert_eq!(scenario.groups[1].access, Access::default());
        assert_eq!(
            scenario.host_group("leech-2").map(|(group, number)| (group.name.as_str(), number)),
            Some(("leech", 2))
        );
        assert!(scenario.host_group("leech-3").is_none());
    }

    #[test]
    fn unknown_keys_are_errors() {
        for more in [
            "[net]\nlatencie = \"1 ms\"",
            "[[expect]]\ncompleted = \"leech\"",
            "[[fault]]\nat = \"1 s\"\nkind = \"crash\"\npick = \"leech\"\nback_after = \"1 s\"\nhard = true",
            "[weather]\nrain = true",
        ] {
            let error = parse(more).expect_err(more);
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn keys_that_nothing_performs_yet_are_refused_by_name() {
        for (more, key) in [
            ("[[nat]]\nname = \"home\"", "nat"),
            ("[net]\ngeography = \"three-continents\"", "net.geography"),
            ("[net]\nloss = { burst = { enter = \"1/2\" } }", "net.loss.burst"),
            ("[[fault]]\nrate = \"1 per 30 s\"\nkind = \"crash\"", "fault.rate"),
            ("[[fault]]\nat = \"1 s\"\nkind = \"swizzle\"\npick = \"leech\"", "fault.kind = \"swizzle\""),
            ("[[actor]]\nkind = \"peer\"\nname = \"p\"", "actor.kind = \"peer\""),
            ("[[expect]]\nhonest_banned = 0", "expect.honest_banned"),
            ("[sweep]\nfamilies = [\"loss\"]", "sweep.families"),
            ("[matrix]\ncells = 3", "matrix"),
        ] {
            let error = parse(more).expect_err(more);
            assert!(error.contains(&format!("`{key}` is not supported yet")), "{error}");
        }
    }

    #[test]
    fn scenarios_that_contradict_themselves_are_refused() {
        for (more, word) in [
            ("[[expect]]\ncomplete = \"nobody\"", "no such group"),
            ("[[expect]]\nmark = [\"fireworks\"]", "no `fireworks`"),
            ("[[expect]]\ncomplete = \"leech\"\nwithin_bound = 0.5", "within_bound"),
            (
                "[[fault]]\nat = \"1 s\"\nkind = \"crash\"\npick = \"leech-9\"\nback_after = \"1 s\"",
                "no such group, host",
            ),
            ("[[group]]\nname = \"seed\"\ncount = 1", "two parties"),
            ("[[fault]]\nkind = \"leave\"\npick = \"seed\"", "either `at` or `when`"),
            ("[[fault]]\nat = \"1 s\"\nkind = \"crash\"\npick = \"seed\"", "wants `back_after`"),
            (
                "[[fault]]\nat = \"1 s\"\nkind = \"silence\"\nfor = \"1 s\"\nspace = \"1 B\"\npick = \"seed\"",
                "takes no `space`",
            ),
            (
                "[[fault]]\nat = \"1 s\"\nkind = \"tracker-outage\"\nfor = \"1 s\"\nhow = [\"hang\"]\npick = \"seed\"",
                "no such group, host or tracker",
            ),
            ("[[expect]]\nbanned = { bad_pieces = 3 }", "a group that lies"),
            ("[[expect]]\nby = \"3 s\"", "want `complete`"),
            ("[[expect]]\nannounces = { of = \"leech\", to = \"t\" }", "no such tracker"),
            ("[[torrent]]\nname = \"b\"\nsize = \"1 MiB\"\npiece = \"3 GiB\"", "torrent `b`"),
        ] {
            let error = parse(more).expect_err(more);
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn tracker_scripts_are_words() {
        let answer = |text: &str| Answer::try_from(text.to_owned());
        assert_eq!(answer("ok"), Ok(Answer::Ok { interval: None, min: None }));
        assert_eq!(
            answer("ok interval=1800 min=900"),
            Ok(Answer::Ok { interval: Some(1800), min: Some(900) })
        );
        assert_eq!(answer("500"), Ok(Answer::Status(500)));
        assert_eq!(answer("hang 40 s"), Ok(Answer::Hang(40_000_000_000)));
        for text in ["", "drop 3", "hang 40", "ok limit=3", "999", "500 500"] {
            assert!(answer(text).is_err(), "{text}");
        }
    }
}
