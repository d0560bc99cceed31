//! What must hold in every run, in both worlds: seen from what goes into engines and comes out of them, and from what
//! is really on their disks.
//!
//! Each rule has an id, which is what a failure is known by: S1 a piece that is had is right on disk; S2 nothing
//! unverified is announced or served; S3 what arrives is what was sent; S4, S5, S6 what may be said to a peer, and S4
//! that nothing is asked for while the disk is full; S8 nobody dials whom it banned; S9 what may be said to a tracker,
//! and to which; S12 resume data never claims what is not there, nor loses what it may not; S14 no panic; S15 nothing is
//! left after a shutdown; S19 no honest peer is banned; S20 liars are, by all whom they hurt, soon enough; L1 everybody
//! completes in time; L8 something is left to happen; L9 nothing happened that must not; L10 little is received for nothing; V1 every fault had an effect;
//! V2 marks were reached; V5 something happened at all.

mod announce;
mod expect;
mod liars;
mod wire;

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::Serialize;
use sha1::{Digest as _, Sha1};
use taipei_engine::disk::{JobResult, StorageErrorKind, Work};
use taipei_engine::wire::Message;
use taipei_engine::wire::tracker_udp::{UdpAnswer, UdpRequest};
use taipei_engine::{Alert, ConnectionId, HttpId, InfoHash, Input, JobId, Output, TorrentId};

use self::announce::{Announce, AnnounceWatch, TierWatch};
use self::liars::LiarWatch;
use self::wire::{Claim, ConnectionWatch};
use crate::disk::{Payload, SimDisk};
use crate::plan::{Action, FaultPlan, Materials, Plan, ROOT};
use crate::scenario::FaultKind;
use crate::trace::{Kind, Trace, digest};

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The rule's id.
    pub oracle: &'static str,
    /// When, nanoseconds since the world began.
    pub at_ns: u64,
    /// Where; empty for the whole world.
    pub host: String,
    /// What happened.
    pub message: String,
}

/// What every world must agree on: no times in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EndState {
    /// By host.
    pub hosts: BTreeMap<String, HostEnd>,
}

/// How one host ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostEnd {
    /// By torrent.
    pub torrents: BTreeMap<String, TorrentEnd>,
    /// Hosts that it banned.
    pub banned: BTreeSet<String>,
    /// By tracker, then by event: announces that were taken.
    pub announces: BTreeMap<String, BTreeMap<&'static str, u32>>,
}

/// How one torrent ended on one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TorrentEnd {
    /// Pieces had, and of how many.
    pub pieces: String,
    /// A digest of which.
    pub have: String,
    /// SHA-1 of each file that is there, in the torrent's order.
    pub files: Vec<String>,
}

/// Looks at everything.
#[derive(Debug)]
pub struct Watch {
    materials: Arc<Materials>,
    plan: Arc<Plan>,
    hosts: Vec<HostWatch>,
    marks: BTreeSet<&'static str>,
    violation: Option<Violation>,
    steps: u64,
    connections_opened: u64,
    blocks: u64,
    announces: u64,
    /// By fault: when it began, and what it had done when it was over.
    fault_began: Vec<Option<u64>>,
    /// Whether somebody has more than when conditions were last looked at.
    copies_changed: bool,
    fault_effects: Vec<Option<u64>>,
    /// What happened, of all hosts.
    pub trace: Trace,
}

#[derive(Debug, Default)]
struct HostWatch {
    process: Option<ProcessWatch>,
    incarnation: u64,
    /// By torrent: pieces that are in the journal, in a snapshot that was synced.
    recorded: BTreeMap<usize, BTreeSet<u32>>,
    saved: BTreeMap<usize, BTreeSet<u32>>,
    last_end: Option<FaultKind>,
    have: BTreeMap<usize, BTreeSet<u32>>,
    completed_at: BTreeMap<usize, u64>,
    received_bytes: u64,
    banned: BTreeSet<String>,
    announces: BTreeMap<String, BTreeMap<&'static str, u32>>,
    /// By tracker: when it last took an announce.
    announced_at: BTreeMap<String, u64>,
    claimed_but_bad: u32,
    liars: LiarWatch,
}

#[derive(Debug, Default)]
struct ProcessWatch {
    /// By job: of which torrent, what, and at which step it was asked for.
    jobs: BTreeMap<JobId, (usize, Pending, u64)>,
    connections: BTreeMap<ConnectionId, ConnectionWatch>,
    http: BTreeMap<HttpId, (usize, String, Announce)>,
    /// By tracker and transaction, with the time of the first copy.
    udp: BTreeMap<(SocketAddr, u32), (u64, usize, String, Announce)>,
    announces: BTreeMap<(usize, String), AnnounceWatch>,
    tiers: BTreeMap<usize, TierWatch>,
    /// Where connections lead to.
    remotes: BTreeMap<ConnectionId, IpAddr>,
    banned: BTreeSet<IpAddr>,
    /// Torrents that were told that the disk is full, and at which step, until there is room or a later write fits.
    full: BTreeMap<usize, u64>,
    /// Torrents of which a piece was fetched.
    fetched: BTreeSet<usize>,
    /// Torrents that were whole before any piece of them was fetched.
    whole_from_start: BTreeSet<usize>,
    stopped: bool,
}

#[derive(Debug)]
enum Pending {
    Open,
    Check(Vec<u32>),
    Record(Vec<u32>),
    Snapshot(BTreeSet<u32>),
    Other,
}

impl HostWatch {
    fn note_if_whole(&mut self, torrent: usize, piece_count: u32) {
        let whole = self.have.get(&torrent).is_some_and(|have| have.len() as u32 == piece_count);
        if let Some(process) =
            self.process.as_mut().filter(|process| whole && !process.fetched.contains(&torrent))
        {
            process.whole_from_start.insert(torrent);
        }
    }
}

impl Watch {
    /// Looks at a world that has not begun.
    pub fn new(materials: Arc<Materials>, plan: Arc<Plan>, keep_trace: bool) -> Self {
        let names: Vec<String> = plan.hosts.iter().map(|host| host.name.clone()).collect();
        Self {
            hosts: names.iter().map(|_| HostWatch::default()).collect(),
            marks: BTreeSet::new(),
            violation: None,
            steps: 0,
            connections_opened: 0,
            blocks: 0,
            announces: 0,
            fault_began: vec![None; plan.faults.len()],
            copies_changed: false,
            fault_effects: vec![None; plan.faults.len()],
            trace: Trace::new(&names, keep_trace),
            materials,
            plan,
        }
    }

    /// The first rule that was broken.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// A rule is broken. The first one stays.
    pub fn break_rule(&mut self, oracle: &'static str, at_ns: u64, host: Option<usize>, message: String) {
        let host = host.map_or_else(String::new, |host| self.plan.hosts[host].name.clone());
        self.violation.get_or_insert(Violation { oracle, at_ns, host, message });
    }

    /// A process begins.
    pub fn on_start(&mut self, now: u64, host: usize) {
        let watch = &mut self.hosts[host];
        watch.incarnation += 1;
        watch.process = Some(ProcessWatch::default());
        watch.have.clear();
        self.trace.event(now, host as u32 + 1, Kind::Start, [watch.incarnation, 0, 0]);
    }

    /// A fault takes a process away; `effects` is what it destroyed.
    pub fn on_killed(&mut self, now: u64, fault: usize, effects: u64) {
        let action = &self.plan.faults[fault].action;
        (self.fault_began[fault], self.fault_effects[fault]) = (Some(now), Some(effects));
        let (kind, Some(host)) = (action.kind(), action.host()) else { return };
        let watch = &mut self.hosts[host];
        watch.process = None;
        watch.last_end = Some(kind);
        self.trace.event(now, host as u32 + 1, Kind::Stop, [kind as u64 + 1, effects, 0]);
    }

    /// A fault has asked a process to end, for good.
    pub fn on_left(&mut self, now: u64, fault: usize, effects: u64) {
        self.on_fault_begun(now, fault);
        self.on_fault_over(now, fault, effects);
    }

    /// A fault begins that leaves processes alone.
    pub fn on_fault_begun(&mut self, now: u64, fault: usize) {
        let action = &self.plan.faults[fault].action;
        self.fault_began[fault] = Some(now);
        let host = action.host().map_or(0, |host| host as u32 + 1);
        self.trace.event(now, host, Kind::Fault, [action.kind() as u64 + 1, 0, 0]);
    }

    /// Such a fault is over; `effects` is how often anybody met it.
    pub fn on_fault_over(&mut self, now: u64, fault: usize, effects: u64) {
        let action = &self.plan.faults[fault].action;
        self.fault_effects[fault] = Some(effects);
        if let Action::DiskFull { host, .. } = action
            && let Some(process) = &mut self.hosts[*host].process
        {
            process.full.clear();
        }
        let host = action.host().map_or(0, |host| host as u32 + 1);
        self.trace.event(now, host, Kind::Fault, [action.kind() as u64 + 1, effects, 1]);
    }

    /// A fault whose condition is met now, once.
    pub fn take_triggered(&mut self, now: u64) -> Option<usize> {
        let waits = |(fault, began): (&FaultPlan, &Option<u64>)| fault.at.is_none() && began.is_none();
        let number = self.plan.faults.iter().zip(&self.fault_began).position(waits)?;
        if !std::mem::take(&mut self.copies_changed) || !self.is_one_copy_out() {
            return None;
        }
        self.fault_began[number] = Some(now);
        Some(number)
    }

    /// Whether those that had nothing at the start have every piece among them.
    fn is_one_copy_out(&self) -> bool {
        let hosts = || self.plan.hosts.iter().zip(&self.hosts).filter(|(plan, _)| !plan.has_all);
        self.materials.torrents.iter().enumerate().all(|(number, material)| {
            let have = hosts().filter_map(|(_, watch)| watch.have.get(&number));
            have.flatten().collect::<BTreeSet<_>>().len() as u32 == material.piece_count()
        })
    }

    /// Something goes into an engine; `now` is the world's time.
    pub fn on_input(&mut self, now: u64, host: usize, input: &Input, disk: &SimDisk) {
        self.steps += 1;
        self.trace.event(now, host as u32 + 1, Kind::Input, [input_number(input), digest(input), 0]);
        if let Err((oracle, message)) = self.input(now, host, input, disk) {
            self.break_rule(oracle, now, Some(host), message);
        }
        if self.steps.is_multiple_of(RECHECK_STEPS) {
            self.recheck(now, host, disk);
        }
    }

    /// Something comes out of an engine.
    pub fn on_output(&mut self, now: u64, host: usize, output: &Output, disk: &SimDisk) {
        self.trace.event(now, host as u32 + 1, Kind::Output, [output_number(output), digest(output), 0]);
        if let Err((oracle, message)) = self.output(now, host, output, disk) {
            self.break_rule(oracle, now, Some(host), message);
        }
    }

    fn input(
        &mut self,
        now: u64,
        host: usize,
        input: &Input,
        disk: &SimDisk,
    ) -> Result<(), (&'static str, String)> {
        let materials = self.materials.clone();
        let HostWatch { process: Some(process), received_bytes, announces, announced_at, liars, .. } =
            &mut self.hosts[host]
        else {
            return Ok(());
        };
        if let Input::Accepted { connection, remote } = input {
            process.remotes.insert(*connection, remote.ip());
        }
        match input {
            Input::Accepted { connection, .. } | Input::Connected { connection, .. } => {
                self.connections_opened += 1;
                process.connections.insert(*connection, ConnectionWatch::new());
            }
            Input::Closed { connection, .. } => {
                process.connections.remove(connection);
                process.remotes.remove(connection);
            }
            Input::Received { connection, messages, .. } => {
                let Some(watch) = process.connections.get_mut(connection) else { return Ok(()) };
                for message in messages {
                    watch.on_received(message, &materials);
                    match message {
                        Message::Piece { piece, begin, data } => {
                            self.blocks += 1;
                            *received_bytes += u64::from(data.len());
                            let from = process.remotes.get(connection);
                            let from = from.and_then(|remote| self.plan.host_at(*remote));
                            if let (Some(torrent), Some(from)) = (watch.torrent(), from)
                                && !materials.torrents[torrent].is_right(*piece, *begin, data)
                            {
                                if self.plan.hosts[from].lies.is_none() {
                                    return Err(("S3", "a block was changed on its way".to_owned()));
                                }
                                liars.on_lie(torrent, *piece, from);
                            }
                        }
                        Message::Choke => {
                            self.marks.insert("choked");
                        }
                        _ => {}
                    }
                }
            }
            Input::HttpDone { request, result } => {
                let Some((torrent, tracker, announce)) = process.http.remove(request) else { return Ok(()) };
                let watch = process.announces.entry((torrent, tracker.clone())).or_default();
                let taken = watch.on_answered(now, &announce, result.as_ref().ok());
                process.tiers.entry(torrent).or_default().on_answered(&tracker, taken);
                if taken {
                    self.announces += 1;
                    announced_at.insert(tracker.clone(), now);
                    if !announce.event().is_empty() {
                        *announces.entry(tracker).or_default().entry(announce.event()).or_default() += 1;
                    }
                }
            }
            Input::Datagram { remote, payload } => {
                let answer = UdpAnswer::parse(payload, remote.is_ipv6());
                let Some(UdpAnswer::Announced { transaction, interval, .. }) = answer else { return Ok(()) };
                let Some((at, torrent, tracker, announce)) = process.udp.remove(&(*remote, transaction))
                else {
                    return Ok(());
                };
                // Later it is none any more to who asked.
                if now < at + UDP_PATIENCE {
                    let watch = process.announces.entry((torrent, tracker.clone())).or_default();
                    watch.on_taken(now, &announce, u64::from(interval));
                    process.tiers.entry(torrent).or_default().on_answered(&tracker, true);
                    self.announces += 1;
                    if !announce.event().is_empty() {
                        *announces.entry(tracker).or_default().entry(announce.event()).or_default() += 1;
                    }
                }
            }
            Input::JobDone { job, result } => {
                if let Some((torrent, pending, asked_at)) = process.jobs.remove(job) {
                    if error_of(result) == Some(StorageErrorKind::Full) {
                        process.full.insert(torrent, self.steps);
                    } else if matches!(result, JobResult::Written(Ok(_)))
                        && process.full.get(&torrent).is_some_and(|told_at| *told_at <= asked_at)
                    {
                        process.full.remove(&torrent);
                    }
                    return self.job_done(host, torrent, pending, result, disk);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn job_done(
        &mut self,
        host: usize,
        torrent: usize,
        pending: Pending,
        result: &JobResult,
        disk: &SimDisk,
    ) -> Result<(), (&'static str, String)> {
        let material = &self.materials.torrents[torrent];
        let watch = &mut self.hosts[host];
        match (pending, result) {
            (Pending::Open, JobResult::Opened(Ok(opened))) => {
                let claimed: BTreeSet<u32> = opened.have.iter().map(|piece| piece.get()).collect();
                if opened.unchecked.count() > 0 {
                    self.marks.insert("rechecked");
                }
                if !claimed.is_empty() && watch.incarnation > 1 {
                    self.marks.insert("resumed");
                }
                let bad: Vec<u32> = claimed
                    .iter()
                    .copied()
                    .filter(|piece| {
                        let (offset, length) = material.piece(*piece);
                        !disk.holds(torrent as u32, offset, length)
                    })
                    .collect();
                watch.claimed_but_bad += bad.len() as u32;
                let none = BTreeSet::new();
                let kept = match watch.last_end {
                    Some(FaultKind::PowerCut) => watch.saved.get(&torrent),
                    _ => watch.recorded.get(&torrent),
                }
                .unwrap_or(&none);
                let lost: Vec<u32> = kept
                    .iter()
                    .copied()
                    .filter(|piece| {
                        !claimed.contains(piece)
                            && !opened.unchecked.iter().any(|unchecked| unchecked.get() == *piece)
                    })
                    .collect();
                watch.have.insert(torrent, claimed);
                watch.note_if_whole(torrent, material.piece_count());
                if !bad.is_empty() {
                    return Err((
                        "S12",
                        format!("resume data claims pieces {bad:?}, which are not right on disk"),
                    ));
                }
                if !lost.is_empty() {
                    return Err(("S12", format!("resume data lost pieces {lost:?}, which were saved")));
                }
                Ok(())
            }
            (Pending::Check(pieces), JobResult::Checked(Ok(good))) => {
                let have = watch.have.entry(torrent).or_default();
                for (piece, good) in pieces.into_iter().zip(good) {
                    let (offset, length) = material.piece(piece);
                    let right = disk.holds(torrent as u32, offset, length);
                    if *good != right {
                        return Err((
                            "S1",
                            format!("piece {piece} was found {good} by a check, but is {right}"),
                        ));
                    }
                    if *good {
                        have.insert(piece);
                    }
                }
                watch.note_if_whole(torrent, material.piece_count());
                Ok(())
            }
            (Pending::Record(pieces), JobResult::Recorded(Ok(()))) => {
                watch.recorded.entry(torrent).or_default().extend(pieces);
                Ok(())
            }
            (Pending::Snapshot(have), JobResult::Saved(Ok(()))) => {
                self.marks.insert("snapshot");
                watch.recorded.insert(torrent, have.clone());
                watch.saved.insert(torrent, have);
                Ok(())
            }
            (_, JobResult::Hashed(Ok(hashes))) => {
                let bad = hashes.iter().any(|hash| !hash.good);
                self.marks.insert(if bad { "piece_hash_bad" } else { "piece_hash_ok" });
                Ok(())
            }
            (_, result) if error_of(result).is_some() => {
                self.marks.insert("disk_error");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn output(
        &mut self,
        now: u64,
        host: usize,
        output: &Output,
        disk: &SimDisk,
    ) -> Result<(), (&'static str, String)> {
        let materials = self.materials.clone();
        let Some(process) = self.hosts[host].process.as_mut() else { return Ok(()) };
        if process.stopped {
            return Err(("S15", "an output after it had stopped".to_owned()));
        }
        match output {
            Output::Send { connection, messages } => {
                let Some(watch) = process.connections.get_mut(connection) else { return Ok(()) };
                let is_full = watch.torrent().is_some_and(|torrent| process.full.contains_key(&torrent));
                let mut claims = Vec::new();
                for message in messages {
                    if is_full && matches!(message, Message::Request(_)) {
                        return Err(("S4", "a request while the disk is full".to_owned()));
                    }
                    claims.push(watch.on_sent(message, &materials)?);
                }
                for claim in claims {
                    check_claim(claim, &materials, disk)?;
                }
            }
            Output::Connect { connection, remote } => {
                process.remotes.insert(*connection, remote.ip());
                if process.banned.contains(&remote.ip()) {
                    return Err(("S8", format!("dials {remote}, which it banned")));
                }
            }
            Output::Close { connection } => {
                process.connections.remove(connection);
                process.remotes.remove(connection);
            }
            Output::Job { job, work } => {
                let Some(torrent) = materials.by_info_hash(work.place.info_hash) else { return Ok(()) };
                let numbers = |pieces: &[taipei_engine::PieceIndex]| {
                    pieces.iter().map(|piece| piece.get()).collect::<Vec<u32>>()
                };
                let pending = match &work.work {
                    Work::Open { .. } => Pending::Open,
                    Work::Check { pieces } => {
                        if process.fetched.contains(&torrent) {
                            self.marks.insert("checked_again");
                        }
                        Pending::Check(numbers(pieces))
                    }
                    Work::Record { good, .. } => Pending::Record(numbers(good)),
                    Work::Snapshot { have, .. } => {
                        Pending::Snapshot(have.iter().map(|piece| piece.get()).collect())
                    }
                    _ => Pending::Other,
                };
                process.jobs.insert(*job, (torrent, pending, self.steps));
            }
            Output::HttpGet(get) => {
                let Some(announce) = Announce::parse(&get.path) else { return Ok(()) };
                let Some(torrent) = materials.by_info_hash(InfoHash(announce.info_hash)) else {
                    return Err(("S9", "an announce of an unknown torrent".to_owned()));
                };
                let tracker = self.plan.tracker_name(get.target);
                let whole = process.whole_from_start.contains(&torrent);
                let watch = process.announces.entry((torrent, tracker.clone())).or_default();
                let asked = watch.on_asked(now, &announce, whole).and_then(|()| {
                    let names = tiers_of(&materials, &self.plan, torrent);
                    process.tiers.entry(torrent).or_default().on_asked(names, &tracker, announce.event())
                });
                process.http.insert(get.request, (torrent, tracker.clone(), announce));
                asked.map_err(|message| ("S9", format!("{message} (tracker {tracker})")))?;
            }
            Output::SendDatagram { remote, payload } => {
                let Some(UdpRequest::Announce { transaction, announce, .. }) = UdpRequest::parse(payload)
                else {
                    return Ok(());
                };
                let announce = Announce::over_udp(&announce);
                let Some(torrent) = materials.by_info_hash(InfoHash(announce.info_hash)) else {
                    return Err(("S9", "an announce of an unknown torrent".to_owned()));
                };
                // A copy says nothing new.
                if process.udp.contains_key(&(*remote, transaction)) {
                    return Ok(());
                }
                let tracker = self.plan.tracker_name(*remote);
                let whole = process.whole_from_start.contains(&torrent);
                let watch = process.announces.entry((torrent, tracker.clone())).or_default();
                let asked = watch.on_asked(now, &announce, whole).and_then(|()| {
                    let names = tiers_of(&materials, &self.plan, torrent);
                    process.tiers.entry(torrent).or_default().on_asked(names, &tracker, announce.event())
                });
                process.udp.insert((*remote, transaction), (now, torrent, tracker.clone(), announce));
                asked.map_err(|message| ("S9", format!("{message} (tracker {tracker})")))?;
            }
            Output::HttpCancel { request } => {
                process.http.remove(request);
            }
            Output::Alert(alert) => return self.alert(now, host, alert, disk),
            _ => {}
        }
        Ok(())
    }

    fn alert(
        &mut self,
        now: u64,
        host: usize,
        alert: &Alert,
        disk: &SimDisk,
    ) -> Result<(), (&'static str, String)> {
        let watch = &mut self.hosts[host];
        match alert {
            Alert::PieceFinished { torrent, piece } => {
                let (number, piece) = (number_of(*torrent), piece.get());
                self.trace.event(now, host as u32 + 1, Kind::Piece, [number as u64, u64::from(piece), 0]);
                let (offset, length) = self.materials.torrents[number].piece(piece);
                watch.have.entry(number).or_default().insert(piece);
                watch.liars.on_good(number, piece);
                self.copies_changed = true;
                if let Some(process) = &mut watch.process {
                    process.fetched.insert(number);
                }
                if !disk.holds(number as u32, offset, length) {
                    return Err(("S1", format!("piece {piece} is finished, but is not right on disk")));
                }
            }
            Alert::PieceFailed { torrent, piece } => {
                self.marks.insert("piece_hash_bad");
                let spoiled = watch.liars.on_bad(number_of(*torrent), piece.get());
                let expects = &self.materials.scenario.expects;
                let most = expects.iter().filter_map(|expect| Some(expect.banned?.bad_pieces)).min();
                for (liar, count) in spoiled {
                    if most.is_some_and(|most| count > most) {
                        let name = &self.plan.hosts[liar].name;
                        return Err(("S20", format!("{name} spoiled {count} pieces and is not banned")));
                    }
                }
            }
            Alert::Completed { torrent } => {
                let number = number_of(*torrent);
                self.trace.event(now, host as u32 + 1, Kind::Complete, [number as u64, 0, 0]);
                watch.completed_at.insert(number, now);
                if !disk.holds(number as u32, 0, self.materials.torrents[number].content.len()) {
                    return Err(("S1", "completed, but its files are not right".to_owned()));
                }
            }
            Alert::PeerBanned { address, .. } => {
                let banned = self.plan.host_at(address.ip()).map(|host| &self.plan.hosts[host]);
                watch.banned.insert(banned.map_or_else(|| address.to_string(), |plan| plan.name.clone()));
                if let Some(process) = &mut watch.process {
                    process.banned.insert(address.ip());
                }
                if banned.is_none_or(|plan| plan.lies.is_none()) {
                    return Err(("S19", format!("bans {address}, which never lied")));
                }
            }
            Alert::AddFailed { error, .. } => {
                return Err(("S14", format!("a torrent could not be added: {error}")));
            }
            Alert::DiskFailed { .. } => {
                self.marks.insert("disk_error");
            }
            Alert::Stopped => {
                if let Some(process) = &mut watch.process {
                    process.stopped = true;
                    let left = process.connections.len();
                    if left > 0 {
                        return Err(("S15", format!("stopped with {left} connections open")));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Compares everything that a host claims with what is on its disk: S1.
    pub fn recheck(&mut self, now: u64, host: usize, disk: &SimDisk) {
        let mut bad = None;
        for (torrent, have) in &self.hosts[host].have {
            let material = &self.materials.torrents[*torrent];
            if have.len() as u32 == material.piece_count()
                && disk.holds(*torrent as u32, 0, material.content.len())
            {
                continue;
            }
            bad = bad.or_else(|| {
                have.iter().copied().find(|piece| {
                    let (offset, length) = material.piece(*piece);
                    !disk.holds(*torrent as u32, offset, length)
                })
            });
        }
        if let Some(piece) = bad {
            self.break_rule("S1", now, Some(host), format!("piece {piece} is had, but is not right on disk"));
        }
    }

    /// Whether every host of a group has everything.
    pub fn is_complete(&self, group: &str) -> bool {
        self.plan
            .hosts
            .iter()
            .zip(&self.hosts)
            .filter(|(plan, _)| plan.group == group)
            .all(|(_, watch)| watch.process.is_some() && self.has_all(watch))
    }

    fn has_all(&self, watch: &HostWatch) -> bool {
        self.materials.torrents.iter().enumerate().all(|(number, material)| {
            watch.have.get(&number).is_some_and(|have| have.len() as u32 == material.piece_count())
        })
    }

    /// Connections that a host has open.
    pub fn connection_count(&self, host: usize) -> u64 {
        self.hosts[host].process.as_ref().map_or(0, |process| process.connections.len() as u64)
    }

    /// Whether a host has a process.
    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].process.is_some()
    }

    /// Whether the engine on a host has said that it stopped.
    pub fn has_stopped(&self, host: usize) -> bool {
        self.hosts[host].process.as_ref().is_none_or(|process| process.stopped)
    }

    /// What both worlds must agree on.
    pub fn end_state(&self, disks: &[&SimDisk]) -> EndState {
        let mut state = EndState::default();
        for ((plan, watch), disk) in self.plan.hosts.iter().zip(&self.hosts).zip(disks) {
            let torrents = self.materials.torrents.iter().enumerate().map(|(number, material)| {
                let have = watch.have.get(&number).cloned().unwrap_or_default();
                let files = material.files.iter().filter_map(|file| {
                    Some(match disk.payload(&format!("{ROOT}/{}", file.path))? {
                        Payload::Canonical => HEXLOWER.encode(&file.sha1),
                        Payload::Other(bytes) => HEXLOWER.encode(&Sha1::digest(&bytes)),
                    })
                });
                let end = TorrentEnd {
                    pieces: format!("{} of {}", have.len(), material.piece_count()),
                    have: format!("{:016x}", digest(&have)),
                    files: files.collect(),
                };
                (material.name.clone(), end)
            });
            let end = HostEnd {
                torrents: torrents.collect(),
                banned: watch.banned.clone(),
                announces: watch.announces.clone(),
            };
            state.hosts.insert(plan.name.clone(), end);
        }
        state
    }

    /// Figures for people and snapshots, by name.
    pub fn summary(&self) -> Summary {
        Summary {
            connections: self.connections_opened,
            blocks: self.blocks,
            announces: self.announces,
            marks: self.marks.iter().copied().collect(),
            completed_ms: self
                .plan
                .hosts
                .iter()
                .zip(&self.hosts)
                .flat_map(|(plan, watch)| {
                    watch.completed_at.iter().map(|(torrent, at)| {
                        (format!("{} {}", plan.name, self.materials.torrents[*torrent].name), at / 1_000_000)
                    })
                })
                .collect(),
            received_bytes: self
                .plan
                .hosts
                .iter()
                .zip(&self.hosts)
                .map(|(plan, watch)| (plan.name.clone(), watch.received_bytes))
                .collect(),
            fault_effects: self.fault_effects.iter().map(|effects| effects.unwrap_or(0)).collect(),
            bad_pieces: self
                .plan
                .hosts
                .iter()
                .zip(&self.hosts)
                .flat_map(|(plan, watch)| {
                    let name = |liar: usize| format!("{} by {}", plan.name, self.plan.hosts[liar].name);
                    watch.liars.bad_pieces().map(move |(liar, count)| (name(liar), count))
                })
                .collect(),
        }
    }
}

/// Figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Ends of connections that were opened.
    pub connections: u64,
    /// Blocks received, over all hosts.
    pub blocks: u64,
    /// Announces taken.
    pub announces: u64,
    /// What was reached.
    pub marks: Vec<&'static str>,
    /// By host and torrent, simulated milliseconds.
    pub completed_ms: BTreeMap<String, u64>,
    /// Payload by host.
    pub received_bytes: BTreeMap<String, u64>,
    /// By fault.
    pub fault_effects: Vec<u64>,
    /// By victim and liar: pieces spoiled.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bad_pieces: BTreeMap<String, u32>,
}

fn check_claim(claim: Claim, materials: &Materials, disk: &SimDisk) -> Result<(), (&'static str, String)> {
    let holds = |torrent: usize, piece: u32| {
        let (offset, length) = materials.torrents[torrent].piece(piece);
        disk.holds(torrent as u32, offset, length)
    };
    let bad = match claim {
        Claim::None => None,
        Claim::All(torrent) => (!disk.holds(torrent as u32, 0, materials.torrents[torrent].content.len()))
            .then_some("everything".to_owned()),
        Claim::Piece(torrent, piece) => (!holds(torrent, piece)).then(|| format!("piece {piece}")),
        Claim::Bits(torrent, pieces) => {
            pieces.into_iter().find(|piece| !holds(torrent, *piece)).map(|piece| format!("piece {piece}"))
        }
    };
    match bad {
        Some(what) => Err(("S2", format!("announced or served {what}, which is not right on disk"))),
        None => Ok(()),
    }
}

/// What went wrong with a job, if anything did.
fn error_of(result: &JobResult) -> Option<StorageErrorKind> {
    match result {
        JobResult::Opened(Err(error))
        | JobResult::Checked(Err(error))
        | JobResult::Written(Err(error))
        | JobResult::Hashed(Err(error))
        | JobResult::Read(Err(error))
        | JobResult::Recorded(Err(error))
        | JobResult::Saved(Err(error)) => Some(error.kind),
        _ => None,
    }
}

/// Torrents are added under their number.
fn number_of(torrent: TorrentId) -> usize {
    torrent.0 as usize
}

fn input_number(input: &Input) -> u64 {
    match input {
        Input::Timeout => 1,
        Input::Command(_) => 2,
        Input::Listening { .. } => 3,
        Input::Accepted { .. } => 4,
        Input::Connected { .. } => 5,
        Input::Closed { .. } => 6,
        Input::Received { .. } => 7,
        Input::Sent { .. } => 8,
        Input::JobDone { .. } => 9,
        Input::Resolved { .. } => 10,
        Input::HttpDone { .. } => 11,
        Input::Datagram { .. } => 12,
    }
}

fn output_number(output: &Output) -> u64 {
    match output {
        Output::Connect { .. } => 1,
        Output::Send { .. } => 2,
        Output::Grant { .. } => 3,
        Output::Close { .. } => 4,
        Output::Job { .. } => 5,
        Output::Resolve { .. } => 6,
        Output::HttpGet(_) => 7,
        Output::HttpCancel { .. } => 8,
        Output::Alert(_) => 9,
        Output::SendDatagram { .. } => 10,
        Output::Revoke { .. } => 11,
    }
}

/// The trackers of a torrent by name, tier by tier.
fn tiers_of<'a>(
    materials: &'a Materials,
    plan: &'a Plan,
    torrent: usize,
) -> impl Iterator<Item = impl Iterator<Item = &'a str>> {
    let tiers = materials.torrents[torrent].tiers.iter();
    tiers.map(|tier| tier.iter().map(|one| plan.trackers[*one].name.as_str()))
}

/// Everything a host claims is compared with its disk this often.
const RECHECK_STEPS: u64 = 1024;
/// How long a question over UDP is open.
const UDP_PATIENCE: u64 = 45_000_000_000;

#[cfg(test)]
mod tests;
