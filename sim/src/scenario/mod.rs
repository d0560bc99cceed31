//! Scenario files: what happens in a run, written down once and run in every world.
//!
//! The syntax is TOML. Unknown keys are errors, every quantity carries a unit, things are called by name and never by
//! number, and `id` equals the file's name. What is read can be written again ([`Scenario::to_toml`]): a failing run that
//! was made smaller is a file like any other.

mod actor;
mod answer;
mod behaviour;
mod check;
mod error;
mod expect;
mod fault;
mod hosts;
mod marks;
mod matrix;
mod nat;
mod net;

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Table;

pub use self::actor::{Actor, ActorKind, Proto};
pub use self::answer::{Answer, Plain};
pub use self::behaviour::Behaviour;
pub use self::error::ScenarioError;
use self::error::Wrong;
pub use self::expect::{
    Expect, ExpectAnnounces, ExpectBanned, ExpectResume, ExpectTurn, ExpectUploadShare, Lost,
};
pub use self::fault::{Errno, Fault, FaultKind, Outage, When};
pub use self::hosts::{Access, Accesses, DhtRole, DiskModel, Family, Group, Has, Settings, Sync};
pub use self::marks::{MARKS, Mark};
pub use self::nat::{NatBox, Rule};
pub use self::net::Net;
use crate::units::{MILLISECOND, Size, Time};

/// One scenario file.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
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
    #[serde(default, skip_serializing_if = "is_default")]
    pub net: Net,
    /// Boxes that translate addresses.
    #[serde(default, rename = "nat", skip_serializing_if = "Vec::is_empty")]
    pub nats: Vec<NatBox>,
    /// Other parties.
    #[serde(default, rename = "actor", skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<Actor>,
    /// What goes wrong.
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// What must be true at the end.
    #[serde(default, rename = "expect", skip_serializing_if = "Vec::is_empty")]
    pub expects: Vec<Expect>,
    /// How `sweep` runs it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sweep: Sweep,
    /// Which run failed that this was made from.
    pub found: Option<Found>,
}

/// `[scenario]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The file's name without `.toml`.
    pub id: String,
    /// Where it runs.
    #[serde(default = "events_only")]
    pub worlds: Vec<World>,
    /// When it has failed if its expectations are not met; simulated time.
    pub duration: Time,
    /// What happens first of that which happens at the same nanosecond.
    #[serde(default, skip_serializing_if = "is_default")]
    pub order: Order,
    /// How often hosts on turmoil take turns: whole milliseconds. Hours are cheaper when it is coarse.
    #[serde(default = "tick_default", skip_serializing_if = "is_tick_default")]
    pub tick: Time,
    /// Whether a fault may come too late to strike, and a liar find nobody to lie to: of what was drawn by chance only a
    /// whole sweep can say that it did something.
    #[serde(default, skip_serializing_if = "is_default")]
    pub faults_may_miss: bool,
    /// Whether there is no tracker. Otherwise there is one where no actor is one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub trackerless: bool,
    /// Which families of faults a profile drew it from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<String>,
}

/// `[found]`: which run failed that this was made from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// The seed of the run; what `run` and `replay` take when the command line has none.
    pub seed: u64,
    /// In which world.
    pub world: World,
    /// The rule that was broken.
    pub oracle: String,
    /// How.
    pub message: String,
    /// By which build.
    pub build: String,
}

/// What happens first in the event world of that which happens at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Drawn from the seed.
    #[default]
    Seeded,
    /// What was asked for first.
    Fifo,
}

/// Which of the two simulated worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Torrent {
    /// Its name, here and in the torrent file.
    pub name: String,
    /// All files together.
    pub size: Size,
    /// The length of its pieces; as `taipei-cli create` chooses when left out.
    pub piece: Option<Size>,
    /// How many files; sizes differ by at most a byte, so pieces straddle them.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub files: u32,
    /// Trackers by name, in tiers; when left out each tracker is a tier of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Vec<String>>,
    /// No DHT, PEX or LSD (BEP 27).
    #[serde(default, skip_serializing_if = "is_default")]
    pub private: bool,
}

/// `[sweep]`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// How many seeds when the command line does not say.
    pub seeds: Option<u32>,
}

impl Scenario {
    /// Reads a scenario file: every cell of its matrix, or the one scenario that it is.
    ///
    /// # Errors
    /// Says which file, line and key, and what was expected there.
    pub fn load(path: &Path) -> Result<Vec<Self>, ScenarioError> {
        let shown = path.display().to_string();
        let text = read(path)?;
        let mut table: Table = text.parse().map_err(|error| ScenarioError::syntax(&error, &text, &shown))?;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let id = table.get("scenario").and_then(|head| head.get("id")).and_then(|id| id.as_str());
        if id.is_some_and(|id| id != stem) {
            let message = format!("wants the file's name, \"{stem}\"");
            return Err(Wrong::at("scenario", "id", message).place(&text, &shown));
        }
        let base = table.get_mut("scenario").and_then(|head| head.as_table_mut()?.remove("extends"));
        if base.is_none() && !table.contains_key("matrix") {
            return Self::parse(&text, &shown).map(|scenario| vec![scenario]);
        }
        if let Some(base) = base {
            let name = base.as_str().unwrap_or_default();
            let base_path = path.with_file_name(format!("{name}.toml"));
            let base_text = read(&base_path)?;
            let mut whole: Table = base_text.parse().map_err(|error| {
                ScenarioError::syntax(&error, &base_text, &base_path.display().to_string())
            })?;
            matrix::extend(&mut whole, table);
            table = whole;
        }
        let cells = matrix::cells(table).map_err(|wrong| wrong.place(&text, &shown))?;
        let read = |(number, cell): (usize, Table)| {
            // A cell has no place in the file, so it is read as text of its own.
            let cell_text = toml::to_string(&cell).expect("it was TOML");
            Self::parse(&cell_text, &shown).map_err(|error| ScenarioError {
                place: None,
                message: format!("{} (cell {number})", error.message),
                ..error
            })
        };
        (1..).zip(cells).map(read).collect()
    }

    /// Reads a scenario from text; `shown` names it in errors.
    ///
    /// # Errors
    /// Says which line and key, and what was expected there.
    pub fn parse(text: &str, shown: &str) -> Result<Self, ScenarioError> {
        let scenario: Self =
            toml::from_str(text).map_err(|error| ScenarioError::syntax(&error, text, shown))?;
        scenario.check().map_err(|wrong| wrong.place(text, shown))?;
        Ok(scenario)
    }

    /// Whether it could be a file: it does not contradict itself.
    pub fn is_sound(&self) -> bool {
        self.check().is_ok()
    }

    /// The file that this would be read from.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a scenario is tables of plain values")
    }

    /// The group of the host with this name (`leech-3`).
    pub fn host_group(&self, host: &str) -> Option<(&Group, u32)> {
        let (group, number) = host.rsplit_once('-')?;
        let number: u32 = number.parse().ok()?;
        let group = self.groups.iter().find(|known| known.name == group)?;
        group.numbers().any(|known| known == number).then_some((group, number))
    }
}

fn read(path: &Path) -> Result<String, ScenarioError> {
    let wrong = |error: std::io::Error| ScenarioError::whole(&path.display().to_string(), error.to_string());
    std::fs::read_to_string(path).map_err(wrong)
}

fn events_only() -> Vec<World> {
    vec![World::Events]
}

fn tick_default() -> Time {
    Time(MILLISECOND)
}

fn is_tick_default(tick: &Time) -> bool {
    *tick == tick_default()
}

fn one() -> u32 {
    1
}

fn is_one(count: &u32) -> bool {
    *count == 1
}

/// What need not be written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

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

    fn disk_fault(kind: &str, keys: &str) -> String {
        format!("[[fault]]\nat = \"1 s\"\nkind = \"{kind}\"\npick = \"leech\"\n{keys}\n")
    }

    #[test]
    fn a_small_scenario_has_defaults() {
        let scenario = parse("").expect("parses");
        assert_eq!(scenario.scenario.worlds, [World::Events]);
        assert_eq!(scenario.groups[1].access, Accesses::default());
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
    fn an_error_names_line_column_and_key() {
        for (text, want) in [
            (
                "[scenario]\nid = \"x\"\nduration = \"60\"\n",
                "x.toml:3:12: `scenario.duration`: `60`: wants a number",
            ),
            (
                "[scenario]\nid = \"x\"\nlength = \"1 s\"\n",
                "x.toml:3:1: `scenario.length`: unknown field `length`",
            ),
            ("[scenario\n", "x.toml:1:10: "),
        ] {
            let error = Scenario::parse(text, "x.toml").expect_err(text).to_string();
            assert!(error.starts_with(want), "{error}");
        }
        let fault = "[[fault]]\nat = \"1 s\"\nkind = \"crash\"\nback_after = \"1 s\"\n";
        let two = format!("{fault}pick = \"leech\"\n{fault}pick = \"nobody\"\n");
        let error = parse(&two).expect_err("picks nobody");
        assert!(error.contains(": `fault.2.pick`: no such group, host or tracker: `nobody`"), "{error}");
        let line = SMALL.lines().count() + 10;
        assert!(error.starts_with(&format!("small.toml:{line}:1: ")), "{error}");
        let error =
            parse("[[fault]]\nat = \"1 s\"\nkind = \"flood\"\npick = \"leech\"\n").expect_err("no such kind");
        assert!(
            error.contains("`fault.1.kind`: unknown variant `flood`, expected one of `crash`"),
            "{error}"
        );
    }

    #[test]
    fn what_is_written_reads_back_as_the_same() {
        let scenario = parse(
            "[net]\nlatency = \"1 ms .. 20 ms\"\nloss = \"1/200\"\n\
             [[actor]]\nkind = \"tracker\"\nname = \"t\"\nscript = [\"500\", \"hang 40 s\", \"ok interval=60\"]\n\
             [[fault]]\nat = \"1.5 s\"\nkind = \"clock-jump\"\nby = [\"-3 h\"]\nfor = \"1 s\"\npick = \"leech\"\n\
             [[fault]]\nwhen = \"one copy out\"\nkind = \"leave\"\npick = \"seed\"\n\
             [[fault]]\nat = \"1 s\"\nkind = \"disk-call\"\ncall = \"3 .. 9\"\nerror = [\"EIO\", \"EACCES\"]\nfor = \"20 s\"\npick = \"leech\"\n\
             [[fault]]\nat = \"1 s\"\nkind = \"disk-call\"\ncall = 3\nerror = [\"EROFS\"]\ncalls = 2\npick = \"leech\"\n\
             [[fault]]\nat = \"1 s\"\nkind = \"disk-slow\"\nlatency = \"1 s .. 2 s\"\nfor = \"1 s\"\npick = \"leech\"\n\
             [[fault]]\nat = \"1 s\"\nkind = \"file-truncated\"\nfile = \"a\"\nto = \"3 B\"\npick = \"leech\"\n\
             [[group]]\nname = \"odd\"\ncount = 1\ndisk = { sync = \"lies\", rename_durable = false }\n\
             [[expect]]\ncomplete = \"leech\"\nwithin_bound = 1.5\nresume = { refetched = \"<= 8 MiB\", lost = \"<= 5 s\" }\n",
        )
        .expect("parses");
        let text = scenario.to_toml();
        assert_eq!(Scenario::parse(&text, "small.toml").as_ref(), Ok(&scenario), "{text}");
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
            (&disk_fault("disk-call", "call = 3\nerror = [\"EIO\"]"), "either `calls` or `for`"),
            (&disk_fault("disk-call", "call = 0\nerror = [\"EIO\"]\ncalls = 1"), "at least 1"),
            (&disk_fault("disk-call", "call = 3\nerror = [\"EDOM\"]\ncalls = 1"), "unknown variant `EDOM`"),
            (&disk_fault("bit-rot", "pieces = 0"), "at least 1"),
            (&disk_fault("bit-rot", "pieces = 1\nfile = \"a\""), "takes no `file`"),
            (&disk_fault("file-removed", "file = \"a/file-1.bin\""), "no torrent has a file"),
            (&disk_fault("disk-slow", "for = \"1 s\""), "wants `latency`"),
            ("[[expect]]\nbanned = { bad_pieces = 3 }", "a group that lies"),
            ("[[expect]]\nby = \"3 s\"", "wants `complete`"),
            ("[[expect]]\nturn = { by = \"nobody\", within = \"3 s\" }", "`by`: no such group"),
            ("[[group]]\nname = \"x\"\ncount = 1\nconfig = { peers = 0 }", "wants at least 1"),
            ("[[expect]]\nannounces = { of = \"leech\", to = \"t\" }", "no such tracker"),
            ("[[torrent]]\nname = \"b\"\nsize = \"1 MiB\"\npiece = \"3 GiB\"", "`torrent.2.piece`"),
        ] {
            let error = parse(more).expect_err(more);
            assert!(error.contains(word), "{error}");
        }
    }
}
