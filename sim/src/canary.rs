//! Negative controls: for each rule a bug that it must find, and a small scenario in which it does.
//!
//! A bug sits where an engine meets its world, never in the engine: what comes to a host is not what was sent, the engine
//! does not hear what happened, it says something else than it meant, or the world breaks a rule of its own. A rule
//! whose canary lives finds nothing. Only in builds with the feature `canaries`, and only in the event world.

use std::sync::Arc;

use bytes::Bytes;
use taipei_engine::disk::{Job, JobResult, Place, StorageError, StorageErrorKind, Totals, Work};
use taipei_engine::museum::{self, OldBug};
use taipei_engine::wire::krpc::{Ask, Body, Packet, Query, Want};
use taipei_engine::wire::{Message, Request};
use taipei_engine::{Alert, BlockData, Command, Config, ConnectionId, Input, NodeId, Output};

use crate::plan::{HostPlan, Materials, PEER_PORT, Plan};
use crate::run::{Outcome, RunOptions, Verdict, run};
use crate::scenario::{Scenario, World};
use crate::sweep::{Source, Unit};
use crate::units::SECOND;

/// A rule, a bug that breaks it, and where that shows.
#[derive(Debug)]
pub struct Canary {
    /// The rule that must find it, and no other.
    pub oracle: &'static str,
    /// The bug in words.
    pub bug: &'static str,
    /// What is planted.
    pub plant: Bug,
    /// The scenario but for what all have.
    more: &'static str,
}

/// What came of runs with a bug, and of one without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tripped {
    /// The rule that found it.
    pub oracle: Option<String>,
    /// What it says.
    pub message: String,
    /// Seeds until then.
    pub seeds: u32,
    /// The last of them, if the bug was found.
    pub seed: Option<u64>,
    /// When, simulated nanoseconds.
    pub at_ns: u64,
    /// What is wrong without the bug; empty when all is well.
    pub without: String,
}

impl Tripped {
    /// Whether the bug was found by this rule, and all is well without it.
    pub fn is_right(&self, oracle: &str) -> bool {
        self.oracle.as_deref() == Some(oracle) && self.without.is_empty()
    }
}

impl Canary {
    /// Where the bug shows.
    pub fn scenario(&self) -> Scenario {
        let id = format!("canary-{}", self.oracle.to_lowercase());
        let text = format!("[scenario]\nid = \"{id}\"\n{}", self.more);
        Scenario::parse(&text, &id).expect("a canary's scenario is sound")
    }

    /// A run with the bug in it: with these anybody can run the scenario, or a smaller one, again.
    pub fn options(&self) -> RunOptions {
        RunOptions { canary: Some(self.plant), ..RunOptions::default() }
    }

    /// Tries seeds until a rule breaks, and the same without the bug.
    pub fn trip(&self, seeds: u32) -> Tripped {
        hunt(&Source::Cells(vec![Materials::new(self.scenario())]), self.plant, seeds)
    }
}

/// Tries seeds with a bug until a rule breaks, and the last of them without.
pub fn hunt(source: &Source, bug: Bug, seeds: u32) -> Tripped {
    let with = RunOptions { canary: Some(bug), ..RunOptions::default() };
    let once = |seed, options: &RunOptions| {
        let materials = source.materials(Unit { seed, cell: 1 }).expect("every source has a first cell");
        run(&materials, seed, World::Events, options)
    };
    let mut tripped = Tripped::default();
    for seed in 1..=u64::from(seeds) {
        let outcome = once(seed, &with);
        tripped.seeds += 1;
        if let Outcome { verdict: Verdict::Failed | Verdict::Vacuous, violation: Some(violation), .. } =
            outcome
        {
            tripped.seed = Some(seed);
            tripped.oracle = Some(violation.oracle.to_owned());
            tripped.at_ns = violation.at_ns;
            tripped.message = violation.message;
            break;
        }
    }
    if let Some(violation) = once(tripped.seed.unwrap_or(1), &RunOptions::default()).violation {
        tripped.without = format!("{} {}", violation.oracle, violation.message);
    }
    tripped
}

/// What is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is said in words in `ALL`")]
pub enum Bug {
    BadIsGood,
    ClaimsAll,
    CorruptsBlock,
    AsksTwice,
    ServesTwice,
    BitfieldTwice,
    IgnoresRates,
    DialsBanned,
    StartsTwice,
    AsksTheDht,
    RecordsTooMuch,
    WritesElsewhere,
    Panics,
    SpeaksAfterStop,
    IgnoresBudget,
    BansHonest,
    ForgetsToBan,
    CompletesTwice,
    MissesHave,
    MissesReject,
    ForgetsTotals,
    MissesUnchoke,
    UnchokesInSilence,
    WakesOften,
    DialsNever,
    MissesShutdown,
    WakesAtOnce,
    ChokesInBetween,
    AsksAgain,
    FaultsSpare,
    ResumesNothing,
    IsAlone,
    /// In the engine itself; see [`crate::museum`].
    Old(OldBug),
}

/// All of them, in the order of the rules.
pub const ALL: &[Canary] = &[
    Canary { oracle: "S1", bug: "every hash is found right", plant: Bug::BadIsGood, more: LIAR },
    Canary {
        oracle: "S2",
        bug: "a leecher that has nothing says that it has all",
        plant: Bug::ClaimsAll,
        more: TWO,
    },
    Canary {
        oracle: "S3",
        bug: "the network turns a bit of a block around",
        plant: Bug::CorruptsBlock,
        more: TWO,
    },
    Canary { oracle: "S4", bug: "a block is asked for twice at once", plant: Bug::AsksTwice, more: TWO },
    Canary { oracle: "S5", bug: "a block is sent twice", plant: Bug::ServesTwice, more: TWO },
    Canary {
        oracle: "S6",
        bug: "what one has is said again after other messages",
        plant: Bug::BitfieldTwice,
        more: TWO,
    },
    Canary { oracle: "S7", bug: "a limit on upload is not kept", plant: Bug::IgnoresRates, more: SLOW },
    Canary { oracle: "S8", bug: "who was banned is dialled", plant: Bug::DialsBanned, more: LIAR },
    Canary {
        oracle: "S9",
        bug: "`started` is said in place of `completed`",
        plant: Bug::StartsTwice,
        more: TWO,
    },
    Canary {
        oracle: "S10",
        bug: "the DHT is asked about a private torrent",
        plant: Bug::AsksTheDht,
        more: PRIVATE,
    },
    Canary {
        oracle: "S12",
        bug: "the journal records pieces that did not come",
        plant: Bug::RecordsTooMuch,
        more: CRASH,
    },
    Canary {
        oracle: "S13",
        bug: "pieces are written below another root",
        plant: Bug::WritesElsewhere,
        more: TWO,
    },
    Canary { oracle: "S14", bug: "an input panics", plant: Bug::Panics, more: TWO },
    Canary {
        oracle: "S15",
        bug: "a job goes on when everything has stopped",
        plant: Bug::SpeaksAfterStop,
        more: TWO,
    },
    Canary {
        oracle: "S16",
        bug: "reading goes on, however much waits for the disk",
        plant: Bug::IgnoresBudget,
        more: SLOW_DISK,
    },
    Canary { oracle: "S19", bug: "an honest seed is banned", plant: Bug::BansHonest, more: TWO },
    Canary { oracle: "S20", bug: "a liar is not banned", plant: Bug::ForgetsToBan, more: LIAR },
    Canary { oracle: "S21", bug: "complete is said twice", plant: Bug::CompletesTwice, more: TWO },
    Canary { oracle: "S22", bug: "a have is not heard", plant: Bug::MissesHave, more: CROWD },
    Canary {
        oracle: "S23",
        bug: "the reject of a block that cannot be read is not heard",
        plant: Bug::MissesReject,
        more: LONGER,
    },
    Canary {
        oracle: "S24",
        bug: "counters begin anew with each process",
        plant: Bug::ForgetsTotals,
        more: CRASH,
    },
    Canary { oracle: "L1", bug: "an unchoke is not heard", plant: Bug::MissesUnchoke, more: SHORT },
    Canary { oracle: "L2", bug: "an unchoke is not heard", plant: Bug::MissesUnchoke, more: TWO },
    Canary {
        oracle: "L3",
        bug: "an unchoke is decided and not said",
        plant: Bug::UnchokesInSilence,
        more: TURN,
    },
    Canary {
        oracle: "L4",
        bug: "an engine wakes fifty times a second",
        plant: Bug::WakesOften,
        more: LINGER,
    },
    Canary { oracle: "L6", bug: "nobody is dialled a second time", plant: Bug::DialsNever, more: CRASH },
    Canary { oracle: "L7", bug: "a shutdown is not heard", plant: Bug::MissesShutdown, more: TWO },
    Canary {
        oracle: "L8",
        bug: "an engine wants to be woken at once, for ever",
        plant: Bug::WakesAtOnce,
        more: TWO,
    },
    Canary {
        oracle: "L9",
        bug: "a peer is choked and unchoked again at once",
        plant: Bug::ChokesInBetween,
        more: NEVER_CHOKED,
    },
    Canary {
        oracle: "L10",
        bug: "blocks that came are asked for again",
        plant: Bug::AsksAgain,
        more: NO_WASTE,
    },
    Canary {
        oracle: "L11",
        bug: "an unchoke is not heard, and who gives nothing has all",
        plant: Bug::MissesUnchoke,
        more: RIDER,
    },
    Canary { oracle: "V1", bug: "a fault is declared and not done", plant: Bug::FaultsSpare, more: SILENCE },
    Canary {
        oracle: "V2",
        bug: "a process that goes on hashes everything again",
        plant: Bug::ResumesNothing,
        more: MUST_RESUME,
    },
    Canary { oracle: "V5", bug: "nobody is ever dialled", plant: Bug::IsAlone, more: NOTHING_WANTED },
];

macro_rules! scenario {
    ($duration:literal, $size:literal, $($more:literal)*) => {
        concat!(
            "duration = \"", $duration, "\"\n",
            "[[torrent]]\nname = \"a\"\nsize = \"", $size, "\"\npiece = \"64 KiB\"\n",
            "[net]\nlatency = \"5 ms .. 20 ms\"\n",
            $($more, "\n"),*
        )
    };
}

const TWO: &str = scenario!("300 s", "1 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[expect]]\ncomplete = \"leech\"");

const PRIVATE: &str = "duration = \"300 s\"
[[torrent]]
name = \"a\"
size = \"1 MiB\"
private = true
[[group]]
name = \"seed\"
count = 1
has = \"all\"
access = { up = \"1 Mbit/s\" }
config = { dht = \"router\" }
[[group]]
name = \"leech\"
count = 1
config = { dht = \"node\" }
[[expect]]
complete = \"leech\"
";

const SHORT: &str = scenario!("60 s", "1 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[expect]]\ncomplete = \"leech\"");

const LONGER: &str = scenario!("300 s", "2 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[expect]]\ncomplete = \"leech\"");

const LIAR: &str = scenario!("300 s", "1 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"500 kbit/s\" }"
    "[[group]]\nname = \"liar\"\ncount = 1\nhas = \"all\"\nlies = \"1/2\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[expect]]\ncomplete = \"leech\"\nbanned = { bad_pieces = 3 }");

const SLOW: &str = scenario!("300 s", "1 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"10 Mbit/s\" }\nconfig = { upload = \"400 kbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[expect]]\ncomplete = \"leech\"");

const CRASH: &str = scenario!("300 s", "2 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[fault]]\nat = \"8 s\"\nkind = \"crash\"\npick = \"leech\"\nback_after = \"1 s\""
    "[[expect]]\ncomplete = \"leech\"");

const MUST_RESUME: &str = scenario!("300 s", "2 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[fault]]\nat = \"8 s\"\nkind = \"crash\"\npick = \"leech\"\nback_after = \"1 s\""
    "[[expect]]\ncomplete = \"leech\"\nmark = [\"resumed\"]");

const SLOW_DISK: &str = scenario!("300 s", "16 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"200 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1\ndisk = { latency = \"500 ms\" }\nconfig = { buffer = \"64 KiB\" }"
    "[[expect]]\ncomplete = \"leech\"");

const CROWD: &str = scenario!("600 s", "4 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 8\naccess = { up = \"500 kbit/s\" }"
    "[[expect]]\ncomplete = \"leech\"");

const TURN: &str = scenario!("300 s", "1 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[expect]]\ncomplete = \"leech\"\nturn = { by = \"seed\", within = \"30 s\" }");

const LINGER: &str = scenario!("600 s", "1 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[fault]]\nat = \"200 s\"\nkind = \"crash\"\npick = \"leech\"\nback_after = \"1 s\""
    "[[expect]]\ncomplete = \"leech\"");

const NEVER_CHOKED: &str = scenario!("300 s", "1 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[expect]]\ncomplete = \"leech\"\nnever = [\"choked\"]");

const NO_WASTE: &str = scenario!("300 s", "1 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[expect]]\ncomplete = \"leech\"\nwasted = \"5 %\"");

const SILENCE: &str = scenario!("300 s", "1 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[fault]]\nat = \"3 s\"\nkind = \"silence\"\npick = \"seed\"\nfor = \"2 s\""
    "[[expect]]\ncomplete = \"leech\"");

const NOTHING_WANTED: &str = scenario!("300 s", "1 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[fault]]\nat = \"3 s\"\nkind = \"crash\"\npick = \"leech\"\nback_after = \"1 s\"");

const RIDER: &str = scenario!("300 s", "16 MiB",
    "[[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = { up = \"200 kbit/s\" }"
    "[[group]]\nname = \"leech\"\ncount = 1"
    "[[actor]]\nkind = \"peer\"\nname = \"rider\"\ncount = 1\nbehaviour = [\"free rider\"]"
    "[[fault]]\nat = \"100 s\"\nkind = \"crash\"\npick = \"seed\"\nback_after = \"1 s\""
    "[[expect]]\nupload_share = { to = \"rider\", most = \"65 %\" }");

/// A bug in a world.
#[derive(Debug)]
pub(crate) struct Planted {
    bug: Option<Bug>,
    /// It has struck, if it strikes once.
    done: bool,
    /// Blocks that came, to be asked for again.
    came: Vec<Request>,
}

impl Planted {
    pub(crate) fn new(bug: Option<Bug>) -> Self {
        Self { bug, done: false, came: Vec::new() }
    }

    /// Whether this bug is there and has not struck; it has, then.
    fn strikes_once(&mut self) -> bool {
        !std::mem::replace(&mut self.done, true)
    }

    /// What an engine is told when it begins.
    pub(crate) fn with_old_bug(&self, mut config: Config) -> Config {
        if let Some(Bug::Old(bug)) = self.bug {
            config.planted = museum::Planted::new(bug);
        }
        config
    }

    /// The world breaks a rule: faults do nothing.
    pub(crate) fn spares_all(&self) -> bool {
        self.bug == Some(Bug::FaultsSpare)
    }

    /// When an engine is woken, in place of when it wants to be.
    pub(crate) fn wakes_at(&self, now: u64) -> Option<u64> {
        match self.bug {
            Some(Bug::WakesOften) => Some(now + SECOND / 50),
            Some(Bug::WakesAtOnce) => Some(now),
            _ => None,
        }
    }

    /// Whether an engine is told the time though it is not due.
    pub(crate) fn wakes_early(&self) -> bool {
        matches!(self.bug, Some(Bug::WakesOften | Bug::WakesAtOnce))
    }

    /// What really comes to a host.
    pub(crate) fn arrives(&mut self, host: &HostPlan, incarnation: u32, mut input: Input) -> Input {
        match (self.bug, &mut input) {
            (Some(Bug::BadIsGood), Input::JobDone { result: JobResult::Hashed(Ok(hashes)), .. }) => {
                hashes.iter_mut().for_each(|hash| hash.good = true);
            }
            // Something that is rejected.
            (Some(Bug::MissesReject), Input::JobDone { result: JobResult::Read(read), .. })
                if host.has_all && self.strikes_once() =>
            {
                *read = Err(StorageError { path: String::new(), kind: StorageErrorKind::Io });
            }
            (Some(Bug::CorruptsBlock), Input::Received { messages, .. }) => {
                for message in messages {
                    if let Message::Piece { data, .. } = message
                        && self.strikes_once()
                    {
                        let mut bytes = data.parts().concat();
                        bytes[0] ^= 1;
                        *data = BlockData::from(Bytes::from(bytes));
                    }
                }
            }
            (Some(Bug::AsksAgain), Input::Received { messages, .. }) if !host.has_all => {
                self.came.extend(messages.iter().filter_map(|message| match message {
                    Message::Piece { piece, begin, data } => {
                        Some(Request { piece: *piece, begin: *begin, length: data.len() })
                    }
                    _ => None,
                }));
            }
            (Some(Bug::ForgetsTotals), Input::JobDone { result: JobResult::Opened(Ok(opened)), .. }) => {
                opened.totals = Totals::default();
            }
            (Some(Bug::ResumesNothing), Input::JobDone { result: JobResult::Opened(Ok(opened)), .. })
                if incarnation > 1 =>
            {
                opened.unchecked = std::mem::replace(
                    &mut opened.have,
                    taipei_engine::Bitfield::new(opened.unchecked.piece_count()),
                );
            }
            _ => {}
        }
        input
    }

    /// What the engine hears of it; none for nothing.
    pub(crate) fn hears(&mut self, host: &HostPlan, mut input: Input) -> Option<Input> {
        let is_leech = !host.has_all;
        match (self.bug, &mut input) {
            (Some(Bug::Panics), Input::Received { .. }) => panic!("planted"),
            (Some(Bug::MissesShutdown), Input::Command(Command::Shutdown)) => return None,
            (Some(Bug::MissesHave), Input::Received { messages, .. }) => {
                messages.retain(|message| !matches!(message, Message::Have(_)));
            }
            (Some(Bug::MissesReject), Input::Received { messages, .. }) => {
                messages.retain(|message| !matches!(message, Message::RejectRequest(_)));
            }
            (Some(Bug::MissesUnchoke), Input::Received { messages, .. }) if is_leech => {
                messages.retain(|message| !matches!(message, Message::Unchoke));
            }
            _ => {}
        }
        Some(input)
    }

    /// What the engine says in place of what it meant.
    pub(crate) fn says(&mut self, plan: &Plan, host: usize, now: u64, mut output: Output) -> Vec<Output> {
        let is_leech = !plan.hosts[host].has_all;
        match (self.bug, &mut output) {
            (Some(Bug::ClaimsAll), Output::Send { messages, .. }) if is_leech => {
                for message in messages.iter_mut().filter(|message| matches!(message, Message::HaveNone)) {
                    *message = Message::HaveAll;
                }
            }
            (Some(Bug::AsksTwice), Output::Send { messages, .. }) => {
                again(messages, |message| matches!(message, Message::Request(_)));
            }
            (Some(Bug::ServesTwice), Output::Send { messages, .. }) => {
                again(messages, |message| matches!(message, Message::Piece { .. }));
            }
            (Some(Bug::BitfieldTwice), Output::Send { messages, .. }) => {
                again(messages, |message| matches!(message, Message::HaveAll));
            }
            (Some(Bug::ChokesInBetween), Output::Send { messages, .. })
                if messages.contains(&Message::Unchoke) && self.strikes_once() =>
            {
                messages.extend([Message::Choke, Message::Unchoke]);
            }
            (Some(Bug::UnchokesInSilence), Output::Send { messages, .. }) if !is_leech => {
                messages.retain(|message| !matches!(message, Message::Unchoke));
            }
            (Some(Bug::AsksAgain), Output::Send { messages, .. })
                if is_leech && messages.iter().any(|message| matches!(message, Message::Request(_))) =>
            {
                messages.extend(self.came.pop().map(Message::Request));
            }
            (Some(Bug::IgnoresRates), Output::Grant { write_bytes, .. }) if !is_leech => {
                *write_bytes += 1 << 40
            }
            (Some(Bug::IgnoresBudget), Output::Grant { read_bytes, .. }) if is_leech => {
                *read_bytes += 1 << 40
            }
            (Some(Bug::StartsTwice), Output::HttpGet(get)) => {
                get.path = get.path.replace("event=completed", "event=started");
            }
            (
                Some(Bug::RecordsTooMuch),
                Output::Job { work: Job { place, work: Work::Record { good, .. } }, .. },
            ) => {
                let last = good.iter().map(|piece| piece.get()).max().unwrap_or(0);
                *good = (0..=last).filter_map(|piece| place.layout.piece(piece)).collect();
            }
            (Some(Bug::WritesElsewhere), Output::Job { work: job, .. })
                if matches!(job.work, Work::Write { .. }) =>
            {
                job.place = elsewhere(&job.place);
            }
            (Some(Bug::ForgetsToBan), Output::Alert(Alert::PeerBanned { .. })) => return Vec::new(),
            (Some(Bug::IsAlone), Output::Connect { .. }) => return Vec::new(),
            (Some(Bug::DialsNever), Output::Connect { .. }) if now > 8 * SECOND => return Vec::new(),
            _ => {}
        }
        let more = self.adds(plan, &output);
        [output].into_iter().chain(more).collect()
    }

    /// What the engine says on top.
    fn adds(&mut self, plan: &Plan, output: &Output) -> Option<Output> {
        match (self.bug?, output) {
            (Bug::DialsBanned, Output::Alert(Alert::PeerBanned { address, .. })) => {
                let remote = (address.ip(), PEER_PORT).into();
                Some(Output::Connect { connection: ConnectionId::dialled(1 << 40), remote })
            }
            (Bug::BansHonest, Output::Alert(Alert::PieceFinished { torrent, .. })) if self.strikes_once() => {
                let seed = plan.hosts.iter().find(|host| host.has_all)?;
                let address = (seed.address, PEER_PORT).into();
                Some(Output::Alert(Alert::PeerBanned { torrent: *torrent, address }))
            }
            (Bug::CompletesTwice, Output::Alert(alert @ Alert::Completed { .. })) => {
                Some(Output::Alert(alert.clone()))
            }
            (Bug::AsksTheDht, Output::Send { messages, .. }) => {
                let info_hash = messages.iter().find_map(|message| match message {
                    Message::Handshake(handshake) => Some(handshake.info_hash),
                    _ => None,
                })?;
                let ask = Ask::GetPeers { info_hash, no_seed: false, scrape: false };
                let body = Body::Query(Query { id: NodeId([0; 20]), want: Want::default(), ask });
                let packet = Packet { transaction: vec![0], body, read_only: false, external: None };
                let seed = plan.hosts.iter().find(|host| host.has_all)?;
                let remote = (seed.address, PEER_PORT).into();
                Some(Output::SendDatagram { remote, payload: packet.encode().into() })
            }
            (Bug::SpeaksAfterStop, Output::Alert(Alert::Stopped)) => {
                let query = taipei_engine::ResolveId(1 << 40);
                Some(Output::Resolve { query, host: "tracker.sim".to_owned() })
            }
            _ => None,
        }
    }
}

/// Says the first such message again, at the end.
fn again(messages: &mut Vec<Message>, wanted: impl Fn(&Message) -> bool) {
    let first = messages.iter().find(|message| wanted(message)).cloned();
    messages.extend(first);
}

/// The same torrent below another root.
fn elsewhere(place: &Place) -> Arc<Place> {
    Arc::new(Place {
        info_hash: place.info_hash,
        root: "/elsewhere".to_owned(),
        state_root: place.state_root.clone(),
        layout: place.layout.clone(),
        piece_hashes: place.piece_hashes.clone(),
        boot_id: place.boot_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::RULES;

    #[test]
    fn every_rule_has_its_canary() {
        let rules: Vec<&str> = RULES.iter().map(|rule| rule.id).collect();
        let canaries: Vec<&str> = ALL.iter().map(|canary| canary.oracle).collect();
        assert_eq!(canaries, rules);
    }

    #[test]
    fn every_canary_trips_its_own_rule() {
        for canary in ALL {
            let tripped = canary.trip(8);
            assert!(tripped.is_right(canary.oracle), "{}: {tripped:?}", canary.oracle);
        }
    }
}
