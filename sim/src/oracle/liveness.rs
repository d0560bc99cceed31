//! What must go on: looked at every ten seconds. L2, L3, L4, L6 and L7.

use core::net::SocketAddr;
use std::collections::BTreeSet;

use super::Watch;
use super::host::HostWatch;
use crate::events::STOP_WITHIN;
use crate::observer::Near;
use crate::plan::Action;
use crate::units::SECOND;

/// Two hosts that a fault cuts off from each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutOff {
    a: usize,
    b: usize,
    /// When the fault is over.
    healed_at: u64,
    /// When they must be back.
    by: u64,
}

/// What happened since a minute began: for L4.
#[derive(Debug, Default)]
pub(super) struct Minute {
    began: u64,
    blocks: u64,
    /// Times that an engine was woken, or a job or request of its own was over.
    pub(super) wakes: u64,
    /// Who dialled whom, and the step that was last excused by that.
    dialled: BTreeSet<(usize, SocketAddr)>,
    excused: u64,
}

impl Minute {
    /// Somebody is dialled. A wake that did so is not for nothing, unless they were dialled a moment ago.
    pub(super) fn on_dialled(&mut self, step: u64, host: usize, remote: SocketAddr) {
        if self.dialled.insert((host, remote)) && self.excused != step {
            self.excused = step;
            self.wakes = self.wakes.saturating_sub(1);
        }
    }
}

impl Watch {
    /// Looks whether all goes on.
    pub(super) fn pulse(&mut self, now: u64) {
        self.check_minute(now);
        self.check_cut_off(now);
        for host in 0..self.hosts.len() {
            self.check_stop(now, host);
            self.check_fed(now, host);
        }
        self.check_turns(now);
    }

    /// A fault begins, or is over: until then nobody can be blamed for waiting.
    pub(super) fn on_trouble(&mut self, now: u64, fault: usize) {
        let until = now.saturating_add(self.plan.faults[fault].lasts);
        self.troubled_until = self.troubled_until.max(until);
    }

    /// A fault begins that cuts a host off from those whom it is connected to.
    pub(super) fn on_cut_off(&mut self, now: u64, fault: usize) {
        let lasts = self.plan.faults[fault].lasts;
        let (Action::Crash { host }
        | Action::PowerCut { host }
        | Action::Silence { host }
        | Action::Suspend { host }) = self.plan.faults[fault].action
        else {
            return;
        };
        let expects = &self.materials.scenario.expects;
        let within = expects.iter().filter_map(|expect| expect.reconnected).map(|time| time.0).min();
        let healed_at = now + lasts;
        // Who fails to reach somebody waits twice as long each time.
        let by = healed_at + within.unwrap_or(BACK_WITHIN + 2 * lasts);
        let Some(process) = &self.hosts[host].process else { return };
        let others = process.connections.values().filter(|connection| connection.is_up());
        for other in others.filter_map(|connection| connection.host) {
            self.cut_off.push(CutOff { a: host, b: other, healed_at, by });
        }
    }

    /// One of two hosts hears of the other.
    pub(super) fn on_heard(&mut self, now: u64, a: usize, b: usize) {
        self.cut_off
            .retain(|cut| now <= cut.healed_at || ((cut.a, cut.b) != (a, b) && (cut.b, cut.a) != (a, b)));
    }

    fn check_cut_off(&mut self, now: u64) {
        // Who waits for its disk takes no part in a torrent.
        let waits = |host: usize| {
            let process = self.hosts[host].process.as_ref();
            process.is_some_and(|process| !process.waits_for_disk.is_empty())
        };
        let mut cut_off = std::mem::take(&mut self.cut_off);
        for cut in cut_off.iter_mut().filter(|cut| waits(cut.a) || waits(cut.b)) {
            cut.by = cut.by.max(now + BACK_WITHIN);
        }
        let (late, wait) = cut_off.into_iter().partition(|cut| cut.by < now);
        self.cut_off = wait;
        let late: Vec<CutOff> = late;
        for cut in late {
            if self.troubled_until <= cut.healed_at && self.is_wanted(cut.a, cut.b) {
                let name = &self.plan.hosts[cut.b].name;
                let message =
                    format!("is not back with {name}, {} s after they could", (now - cut.healed_at) / SECOND);
                self.break_rule("L6", now, Some(cut.a), message);
            }
        }
    }

    /// Whether one of two hosts could give the other something, and nothing keeps them apart.
    fn is_wanted(&self, a: usize, b: usize) -> bool {
        let free = |host: usize, other: usize| {
            let watch = &self.hosts[host];
            let config = &self.plan.hosts[host].config;
            let most = config.peers_max.min(config.peers_per_torrent_max) as usize;
            watch.process.as_ref().is_some_and(|process| {
                !process.stopped
                    && process.stop_asked_at.is_none()
                    && process.full.is_empty()
                    && process.connections.len() < most
                    && !process.banned.iter().any(|banned| banned.ip() == self.plan.hosts[other].address)
            })
        };
        let lacks = |a: usize, b: usize| {
            (0..self.materials.torrents.len()).any(|torrent| {
                let have = |host: usize| self.hosts[host].have.get(&torrent);
                have(b).is_some_and(|theirs| {
                    theirs.iter().any(|piece| have(a).is_none_or(|ours| !ours.contains(piece)))
                })
            })
        };
        free(a, b) && free(b, a) && (lacks(a, b) || lacks(b, a))
    }

    /// Nobody goes without a block for long while a peer offers one: L2.
    fn check_fed(&mut self, now: u64, host: usize) {
        let offer = self.offer(host);
        let is_troubled = now < self.troubled_until.saturating_add(SECOND);
        let watch = &mut self.hosts[host];
        let Some(up_bits) = offer.filter(|_| !is_troubled) else {
            watch.offered_since = None;
            return;
        };
        let since = (*watch.offered_since.get_or_insert(now)).max(watch.fed_at);
        let patience = FED_WITHIN + FED_BYTES * 8 * SECOND / up_bits.max(1);
        self.near("L2", "without a block that a peer offers", Near::time(now - since, patience));
        if now > since + patience {
            let message = format!("no block for {} s, though a peer offers some", (now - since) / SECOND);
            self.break_rule("L2", now, Some(host), message);
        }
    }

    /// The slowest link of those who serve a host what it lacks; none when nobody does, or it waits for its disk. Nor does
    /// anybody who waits for a disk.
    fn offer(&self, host: usize) -> Option<u64> {
        let watch = &self.hosts[host];
        let process = watch.process.as_ref().filter(|process| {
            !process.stopped
                && process.stop_asked_at.is_none()
                && process.full.is_empty()
                && process.waits_for_disk.is_empty()
        })?;
        let none = BTreeSet::new();
        let offers = process.connections.values().filter(|connection| {
            let Some(torrent) = connection.torrent().filter(|_| connection.serves() && connection.is_up())
            else {
                return false;
            };
            let have = watch.have.get(&torrent).unwrap_or(&none);
            let count = self.materials.torrents[torrent].piece_count();
            let theirs = connection.host.and_then(|other| self.hosts[other].process.as_ref());
            self.ledger.other(connection.end.number).is_some()
                && theirs.is_none_or(|process| !process.waits_for_disk.contains(&torrent))
                && (have.len() as u32) < count
                && (0..count).any(|piece| !have.contains(&piece) && connection.has(piece))
        });
        offers.filter_map(|connection| Some(self.plan.hosts[connection.host?].access.up.0)).min()
    }

    /// Whoever is interested is not left choked for longer than is said: L3.
    fn check_turns(&mut self, now: u64) {
        let materials = self.materials.clone();
        for turn in materials.scenario.expects.iter().filter_map(|expect| expect.turn.as_ref()) {
            let late =
                self.hosts.iter().enumerate().filter(|(host, _)| self.plan.hosts[*host].group == turn.by);
            let waits: Vec<_> = late.filter_map(|(host, watch)| Some((host, longest_wait(watch)?))).collect();
            let troubled_until = self.troubled_until;
            let waited = |since: u64| now.saturating_sub(since.max(troubled_until));
            if let Some(longest) = waits.iter().map(|(_, (since, _))| waited(*since)).max() {
                self.near("L3", "interested and choked", Near::time(longest, turn.within.0));
            }
            let late = waits.into_iter().find(|(_, (since, _))| waited(*since) > turn.within.0);
            if let Some((host, (since, other))) = late {
                let name = other.map_or("a peer", |other| &self.plan.hosts[other].name);
                let message = format!("{name} is interested and choked for {} s", (now - since) / SECOND);
                self.break_rule("L3", now, Some(host), message);
            }
        }
    }

    /// Where nothing moves, nobody wakes up for nothing: L4.
    fn check_minute(&mut self, now: u64) {
        if now < self.minute.began + MINUTE {
            return;
        }
        let next = Minute { began: now, blocks: self.blocks, ..Minute::default() };
        let minute = std::mem::replace(&mut self.minute, next);
        let is_idle = minute.blocks == self.blocks && self.troubled_until < minute.began;
        let processes = self.hosts.iter().filter_map(|watch| watch.process.as_ref());
        let (hosts, connections) = processes
            .fold((0, 0), |(hosts, sum), process| (hosts + 1, sum + process.connections.len() as u64));
        // Whom nobody answers for is given up: once each.
        let most = (WAKES_PER_SECOND * hosts * (now - minute.began) / SECOND)
            + WAKES_PER_CONNECTION * connections
            + minute.dialled.len() as u64;
        if is_idle {
            self.near("L4", "wakes in an idle minute, over all hosts", Near::count(minute.wakes, most));
        }
        if is_idle && minute.wakes > most {
            let message = format!(
                "{} wakes since {} s ago, while no block moved",
                minute.wakes,
                (now - minute.began) / SECOND
            );
            self.break_rule("L4", now, None, message);
        }
    }

    /// Who was asked to stop stops: L7.
    fn check_stop(&mut self, now: u64, host: usize) {
        let watch = &self.hosts[host];
        let asked = watch.process.as_ref().filter(|process| !process.stopped).and_then(|p| p.stop_asked_at);
        if asked.is_some_and(|at| now > at.max(watch.asleep_until) + STOP_WITHIN) {
            self.break_rule("L7", now, Some(host), "a shutdown takes too long".to_owned());
        }
    }
}

/// Since when somebody is interested and choked, the longest of all, and who that is.
fn longest_wait(watch: &HostWatch) -> Option<(u64, Option<usize>)> {
    let connections = watch.process.as_ref()?.connections.values();
    connections.filter_map(|connection| Some((connection.waits_since()?, connection.host))).min()
}

/// Between looks.
pub(super) const PULSE: u64 = 10 * SECOND;
const MINUTE: u64 = 60 * SECOND;
/// Wakes of an idle host: its connections, trackers and saves have their own times.
const WAKES_PER_SECOND: u64 = 2;
/// And of each connection: keep-alives both ways.
const WAKES_PER_CONNECTION: u64 = 10;
/// Who is offered something has a block within this, and the time that these bytes take on the other's link.
const FED_WITHIN: u64 = 120 * SECOND;
const FED_BYTES: u64 = 1 << 20;
/// After a fault that took no time.
const BACK_WITHIN: u64 = 60 * SECOND;
