//! What must hold in every run, in both worlds: seen from what goes into engines and comes out of them, and from what
//! is really on their disks.
//!
//! Each rule has an id and a sentence in [`RULES`]. Most are shadows that follow every input and output; what a host
//! claims is compared as a whole every 1,024 inputs, and at the end. What is demanded of an engine whose disk was spoiled
//! by the world itself is written in [`damage`].

mod announce;
mod connections;
mod damage;
mod end;
mod expect;
mod host;
mod input;
mod ledger;
mod liars;
mod limits;
mod liveness;
mod look;
mod loss;
mod observe;
mod output;
mod private;
mod rules;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use taipei_engine::wire::Message;
use taipei_engine::{ConnectionId, Input, Output};
use tracing::level_filters::LevelFilter;
use tracing::trace;

pub use self::end::{EndState, HostEnd, Summary, TorrentEnd};
use self::host::{HostWatch, ProcessWatch};
use self::ledger::Ledger;
use self::liars::LiarWatch;
use self::liveness::{CutOff, Minute, PULSE};
pub use self::rules::{RULES, Rule, rule};
use crate::disk::{SimDisk, Spoiled};
use crate::observer::Observer;
use crate::plan::{Action, FaultPlan, Materials, Plan};
use crate::run::BUDGET;
use crate::scenario::FaultKind;
use crate::trace::{Kind, Trace, digest};
use crate::units::SECOND;

/// A rule that was broken, and how.
type Broken = (&'static str, String);

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

/// Looks at everything.
#[derive(Debug)]
pub struct Watch {
    materials: Arc<Materials>,
    plan: Arc<Plan>,
    hosts: Vec<HostWatch>,
    marks: BTreeSet<&'static str>,
    /// Whether rules are looked at; without them only what a run needs to know its end.
    is_looking: bool,
    ledger: Ledger,
    /// Whether ends of streams are found by their addresses.
    pairs_by_address: bool,
    /// Digests of the messages at hand.
    digests: Vec<u64>,
    pulse_at: u64,
    minute: Minute,
    cut_off: Vec<CutOff>,
    /// Until then a fault goes on.
    troubled_until: u64,
    violation: Option<Violation>,
    steps: u64,
    connections_opened: u64,
    /// Magnets that became torrents.
    metadata_received: u64,
    /// What hosts said of a torrent to nodes of the DHT and to the local network.
    without_trackers: u64,
    blocks: u64,
    announces: u64,
    /// By fault: when it began, and what it had done when it was over.
    fault_began: Vec<Option<u64>>,
    /// Whether anything happened that may have been waited for.
    is_news: bool,
    /// When calls that began to fail will be fine again, or are.
    struck_until: Vec<Option<u64>>,
    /// Whether somebody has more than when conditions were last looked at.
    copies_changed: bool,
    /// By host that it went to: payload that engines gave to their connections.
    uploaded: BTreeMap<Option<usize>, u64>,
    /// Messages that engines read of puppets.
    puppet_messages: u64,
    /// Jobs that were asked for because not all payload fits into memory.
    squeezed: u64,
    /// By family of faults: what its world counts.
    other_effects: BTreeMap<&'static str, u64>,
    fault_effects: Vec<Option<u64>>,
    /// Told what happens, where somebody wants a report.
    observer: Option<Box<Observer>>,
    /// What happened, of all hosts.
    pub trace: Trace,
}

impl Watch {
    /// Looks at a world that has not begun.
    pub fn new(materials: Arc<Materials>, plan: Arc<Plan>, keep_trace: bool) -> Self {
        let names: Vec<String> = plan.hosts.iter().map(|host| host.name.clone()).collect();
        Self {
            hosts: names.iter().map(|_| HostWatch::default()).collect(),
            marks: BTreeSet::new(),
            is_looking: true,
            ledger: Ledger::default(),
            pairs_by_address: false,
            digests: Vec::new(),
            pulse_at: 0,
            minute: Minute::default(),
            cut_off: Vec::new(),
            troubled_until: 0,
            violation: None,
            steps: 0,
            connections_opened: 0,
            metadata_received: 0,
            without_trackers: 0,
            blocks: 0,
            announces: 0,
            fault_began: vec![None; plan.faults.len()],
            is_news: true,
            struck_until: vec![None; plan.faults.len()],
            copies_changed: false,
            uploaded: BTreeMap::new(),
            puppet_messages: 0,
            squeezed: 0,
            other_effects: BTreeMap::new(),
            fault_effects: vec![None; plan.faults.len()],
            observer: None,
            trace: Trace::new(&names, keep_trace),
            materials,
            plan,
        }
    }

    /// Looks at no rule: for measuring what looking costs.
    pub fn look_away(&mut self) {
        self.is_looking = false;
        self.trace.stop();
    }

    /// Finds out by addresses which ends belong together, as this world does not say it.
    pub fn pair_by_address(&mut self) {
        self.pairs_by_address = true;
    }

    /// Two hosts' ends are of one stream; what one writes is told before the other can read it.
    pub fn on_paired(&mut self, a: (usize, ConnectionId), b: (usize, ConnectionId)) {
        let end = |(host, connection): (usize, ConnectionId)| {
            Some(self.hosts[host].process.as_ref()?.connections.get(connection)?.end.number)
        };
        if let (Some(a), Some(b)) = (end(a), end(b)) {
            self.ledger.pair(a, b, true);
        }
    }

    /// The first rule that was broken.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// A rule is broken. The first one stays.
    pub fn break_rule(&mut self, oracle: &'static str, at_ns: u64, host: Option<usize>, message: String) {
        if !self.is_looking && !matches!(oracle, "S14" | "L1" | "L7" | "L8" | BUDGET) {
            return;
        }
        debug_assert!(oracle == BUDGET || rule(oracle).is_some(), "{oracle} is in the table");
        let host = host.map_or_else(String::new, |host| self.plan.hosts[host].name.clone());
        self.violation.get_or_insert(Violation { oracle, at_ns, host, message });
    }

    /// A process begins.
    pub fn on_start(&mut self, now: u64, host: usize) {
        self.is_news = true;
        self.observe_time(now);
        if let Some(observer) = &mut self.observer {
            observer.on_start(now, host);
        }
        let watch = &mut self.hosts[host];
        watch.incarnation += 1;
        watch.process = Some(ProcessWatch::default());
        watch.have.clear();
        // Nobody is blamed for what an earlier process knew.
        watch.liars = LiarWatch::default();
        self.trace.event(now, host as u32 + 1, Kind::Start, [watch.incarnation, 0, 0]);
    }

    /// A fault takes a process away; `effects` is what it destroyed.
    pub fn on_killed(&mut self, now: u64, fault: usize, effects: u64) {
        self.observe_fault(now, fault, false);
        let action = &self.plan.faults[fault].action;
        (self.fault_began[fault], self.fault_effects[fault]) = (Some(now), Some(effects));
        self.is_news = true;
        let (kind, Some(host)) = (action.kind(), action.host()) else { return };
        self.on_trouble(now, fault);
        self.on_cut_off(now, fault);
        self.on_gone(now, host, kind, effects);
    }

    /// A process that a fault asked to end has ended, and begins again now.
    pub fn on_restarted(&mut self, now: u64, fault: usize, effects: u64) {
        self.on_fault_over(now, fault, effects);
        let action = &self.plan.faults[fault].action;
        if let (kind, Some(host)) = (action.kind(), action.host()) {
            self.on_gone(now, host, kind, effects);
        }
    }

    /// A process is no more.
    fn on_gone(&mut self, now: u64, host: usize, kind: FaultKind, effects: u64) {
        if let Some(observer) = &mut self.observer {
            observer.on_gone(now, host);
        }
        let watch = &mut self.hosts[host];
        for connection in watch.process.iter().flat_map(|process| process.connections.values()) {
            self.ledger.close(connection.end.number);
        }
        // What strikes a machine that is down already changes only what a power cut takes.
        if watch.process.take().is_some() || kind == FaultKind::PowerCut {
            watch.last_end = Some(kind);
        }
        if kind == FaultKind::PowerCut {
            // What was recorded and not synced may be gone, and nobody misses it later.
            watch.recorded = watch.saved.clone();
        }
        watch.loss.on_killed(now);
        self.trace.event(now, host as u32 + 1, Kind::Stop, [kind as u64 + 1, effects, 0]);
    }

    /// A fault has asked a process to end, for good.
    pub fn on_left(&mut self, now: u64, fault: usize, effects: u64) {
        self.on_fault_begun(now, fault);
        self.on_fault_over(now, fault, effects);
    }

    /// A fault begins that leaves processes alone.
    pub fn on_fault_begun(&mut self, now: u64, fault: usize) {
        self.observe_fault(now, fault, false);
        let action = &self.plan.faults[fault].action;
        self.is_news = true;
        self.fault_began[fault] = Some(now);
        if let Action::Suspend { host } = action {
            let asleep_until = &mut self.hosts[*host].asleep_until;
            *asleep_until = (*asleep_until).max(now + self.plan.faults[fault].lasts);
        }
        let host = action.host().map_or(0, |host| host as u32 + 1);
        self.trace.event(now, host, Kind::Fault, [action.kind() as u64 + 1, 0, 0]);
        self.on_trouble(now, fault);
        self.on_cut_off(now, fault);
    }

    /// Such a fault is over; `effects` is how often anybody met it.
    pub fn on_fault_over(&mut self, now: u64, fault: usize, effects: u64) {
        self.observe_fault(now, fault, true);
        let action = &self.plan.faults[fault].action;
        self.is_news = true;
        self.fault_effects[fault] = Some(effects);
        if let Action::DiskFull { host, .. } = action
            && let Some(process) = &mut self.hosts[*host].process
        {
            process.full.clear();
        }
        let host = action.host().map_or(0, |host| host as u32 + 1);
        self.trace.event(now, host, Kind::Fault, [action.kind() as u64 + 1, effects, 1]);
    }

    /// Calls that were to fail at some point have begun to; `until` that is over.
    pub fn on_struck(&mut self, fault: usize, until: u64) {
        self.struck_until[fault] = Some(until);
    }

    /// Faults that have struck and are not over.
    pub fn unfinished(&self) -> Vec<usize> {
        let open =
            |number: &usize| self.struck_until[*number].is_some() && self.fault_effects[*number].is_none();
        (0..self.fault_effects.len()).filter(open).collect()
    }

    /// The world itself spoiled what is on a disk.
    pub fn on_spoiled(&mut self, host: usize, spoiled: &[Spoiled]) {
        for spoiled in spoiled {
            let torrent = &self.materials.torrents[spoiled.content as usize];
            let watch = &mut self.hosts[host];
            for (torrent, piece) in watch.damage.on_spoiled(spoiled, torrent, self.steps) {
                for kept in [&mut watch.recorded, &mut watch.saved] {
                    kept.get_mut(&torrent).map(|pieces| pieces.remove(&piece));
                }
                watch.loss.on_gone(torrent, piece);
            }
        }
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

    /// An engine finds out, with the next input, that nobody ran for long.
    pub fn on_slept(&mut self, host: usize) {
        if let Some(process) = &mut self.hosts[host].process {
            process.begins_anew = true;
        }
    }

    /// Something goes into an engine; `now` is the world's time.
    pub fn on_input(&mut self, now: u64, host: usize, input: &Input, disk: &SimDisk) {
        self.log(now, host, input);
        self.steps += 1;
        self.observe_input(now, host, input);
        if self.is_looking {
            let digest = match input {
                Input::Received { connection, read_bytes, messages } => {
                    self.digest_messages(&(connection, read_bytes), messages)
                }
                _ => digest(input),
            };
            self.trace.event(now, host as u32 + 1, Kind::Input, [input_number(input), digest, 0]);
            self.check_limits(now, host);
            if now >= self.pulse_at {
                self.pulse_at = now + PULSE;
                self.pulse(now);
            }
        }
        if let Err((oracle, message)) = self.input(now, host, input, disk) {
            self.break_rule(oracle, now, Some(host), message);
        }
        if self.steps.is_multiple_of(RECHECK_STEPS) {
            self.recheck(now, host, disk);
        }
    }

    /// Something comes out of an engine.
    pub fn on_output(&mut self, now: u64, host: usize, output: &Output, disk: &SimDisk) {
        self.log(now, host, output);
        self.observe_output(now, host, output);
        if self.is_looking {
            let digest = match output {
                Output::Send { connection, messages } => self.digest_messages(connection, messages),
                _ => digest(output),
            };
            self.trace.event(now, host as u32 + 1, Kind::Output, [output_number(output), digest, 0]);
        }
        if let Err((oracle, message)) = self.output(now, host, output, disk) {
            self.break_rule(oracle, now, Some(host), message);
        }
    }

    fn log(&self, now: u64, host: usize, what: &dyn fmt::Debug) {
        if LevelFilter::current() == LevelFilter::TRACE {
            trace!(at = seconds(now), host = self.plan.hosts[host].name, ?what);
        }
    }

    /// The digest of a batch, and of each message in it.
    fn digest_messages(&mut self, head: &impl std::hash::Hash, messages: &[Message]) -> u64 {
        self.digests.clear();
        self.digests.extend(messages.iter().map(digest));
        digest(&(head, &self.digests))
    }

    /// Between two steps no limit is passed: S7.
    fn check_limits(&mut self, now: u64, host: usize) {
        let Some(process) = &mut self.hosts[host].process else { return };
        let config = &self.plan.hosts[host].config;
        let result = limits::check(process, config, self.materials.torrents.len());
        (process.is_changed, process.serves_more) = (false, false);
        if let Err(message) = result {
            self.break_rule("S7", now, Some(host), message);
        }
    }

    /// Compares everything that a host claims with what is on its disk: S1, and S13.
    pub fn recheck(&mut self, now: u64, host: usize, disk: &SimDisk) {
        if !self.is_looking {
            return;
        }
        if let Some(name) = disk.trespass() {
            self.break_rule("S13", now, Some(host), format!("{name} is none of its files"));
        }
        let mut bad = None;
        for (torrent, have) in &self.hosts[host].have {
            let material = &self.materials.torrents[*torrent];
            if have.len() as u32 == material.piece_count()
                && disk.holds(*torrent as u32, 0, material.content.len())
            {
                continue;
            }
            let damage = &self.hosts[host].damage;
            bad = bad.or_else(|| {
                have.iter().copied().find(|piece| {
                    let (offset, length) = material.piece(*piece);
                    !disk.holds(*torrent as u32, offset, length) && !damage.may_claim(*torrent, *piece)
                })
            });
        }
        if let Some(piece) = bad {
            self.break_rule("S1", now, Some(host), format!("piece {piece} is had, but is not right on disk"));
        }
    }

    /// Whether every host of a group has everything, and has said so if it was not so from the start.
    pub fn is_complete(&self, group: &str) -> bool {
        self.plan
            .hosts
            .iter()
            .zip(&self.hosts)
            .filter(|(plan, _)| plan.group == group)
            .all(|(_, watch)| self.has_all(watch) && self.knows_it(watch))
    }

    fn knows_it(&self, watch: &HostWatch) -> bool {
        let Some(process) = &watch.process else { return false };
        (0..self.materials.torrents.len()).all(|torrent| {
            process.whole_from_start.contains(&torrent) || watch.completed_at.contains_key(&torrent)
        })
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
}

/// For people.
fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND as f64
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

/// Everything a host claims is compared with its disk this often.
const RECHECK_STEPS: u64 = 1024;

#[cfg(test)]
mod tests;
