//! What goes wrong, done to hosts and actors.

use taipei_engine::rng::Rng;
use taipei_engine::{Command, Input};

use super::stream::Side;
use super::{Event, World, wall_ns};
use crate::plan::Action;
use crate::run::Plant;
use crate::units::{Rate, SECOND};

impl World {
    pub(super) fn fault(&mut self, number: usize) {
        let plan = self.plan.clone();
        let fault = &plan.faults[number];
        #[cfg(feature = "canaries")]
        if self.canary.spares_all() {
            self.watch.on_fault_begun(self.now, number);
            self.at(self.now + fault.lasts, Event::FaultOver { number });
            return;
        }
        match fault.action {
            Action::Crash { host } | Action::PowerCut { host } => return self.kill(number, host),
            Action::Leave { host } => {
                let effects = self.watch.connection_count(host);
                self.step(host, Input::Command(Command::Shutdown));
                self.watch.on_left(self.now, number, effects);
                return;
            }
            Action::Restart { host } => {
                let is_running = self.hosts[host].process.as_ref().is_some_and(|process| !process.stopped);
                let effects = if is_running { 1 + self.watch.connection_count(host) } else { 0 };
                self.watch.on_fault_begun(self.now, number);
                self.step(host, Input::Command(Command::Shutdown));
                if !is_running {
                    return self.watch.on_fault_over(self.now, number, effects);
                }
                let incarnation = self.hosts[host].incarnation;
                return self.at(self.now + fault.lasts, Event::Again { number, incarnation, effects });
            }
            Action::DiskFull { host, space_bytes } => self.hosts[host].disk.fill_up(space_bytes),
            Action::Silence { host } => {
                let host = &mut self.hosts[host];
                (host.silent_until, host.silenced) = (self.now + fault.lasts, 0);
            }
            Action::Suspend { host } => {
                let host = &mut self.hosts[host];
                // It does not wake for one sleep in the midst of another: what was put off would lose its order.
                (host.asleep_until, host.put_off) = (host.asleep_until.max(self.now + fault.lasts), 0);
            }
            Action::ClockJump { host, by_ns } => {
                let host = &mut self.hosts[host];
                (host.clock_error_ns, host.misdated) = (by_ns, 0);
            }
            Action::TrackerOutage { tracker, how } => self.trackers[tracker].go_away(how),
            Action::Cut { ref cut, .. } => self.cuts.begin(number, cut.clone()),
            Action::LossBurst { host, share } => self.senders[host].worsen(share),
            Action::SlowLink { host, rate } => self.slow_down(host, Some(rate)),
            Action::DnsOutage { host, how } => {
                (self.hosts[host].dns_outage, self.hosts[host].unresolved) = (Some(how), 0);
            }
            Action::Reset { host } => {
                let effects = self.reset_all(host);
                return self.struck(number, effects);
            }
            Action::NatReboot { nat } => {
                let effects = self.nats[nat].reboot();
                return self.struck(number, effects);
            }
            Action::Trouble { host, trouble } => self.hosts[host].disk.begin_trouble(number, trouble),
            Action::Damage { host, .. } => {
                let disk = &mut self.hosts[host].disk;
                disk.set_time(self.now, wall_ns(self.now));
                let effects = self.materials.damage(&plan, number, disk);
                self.watch.on_spoiled(host, &disk.take_spoiled());
                return self.struck(number, effects);
            }
        }
        self.watch.on_fault_begun(self.now, number);
        if fault.action.waits_for_call() {
            return;
        }
        self.at(self.now + fault.lasts, Event::FaultOver { number });
    }

    pub(super) fn fault_over(&mut self, number: usize) {
        let effects = match self.plan.faults[number].action {
            Action::TrackerOutage { tracker, .. } => self.trackers[tracker].come_back(),
            Action::DiskFull { host, .. } => self.hosts[host].disk.make_room(),
            Action::Suspend { host } => self.hosts[host].put_off,
            Action::ClockJump { host, .. } => {
                self.hosts[host].clock_error_ns = 0;
                self.hosts[host].misdated
            }
            Action::Silence { host } => self.hosts[host].silenced,
            Action::Trouble { host, .. } => self.hosts[host].disk.end_trouble(number),
            Action::Cut { .. } => self.cuts.end(number),
            Action::LossBurst { host, .. } => self.senders[host].recover(),
            Action::SlowLink { host, .. } => {
                self.slow_down(host, None);
                self.hosts[host].slowed
            }
            Action::DnsOutage { host, .. } => {
                self.hosts[host].dns_outage = None;
                self.hosts[host].unresolved
            }
            // These are over when they have happened.
            Action::Crash { .. }
            | Action::PowerCut { .. }
            | Action::Leave { .. }
            | Action::Restart { .. }
            | Action::Reset { .. }
            | Action::NatReboot { .. }
            | Action::Damage { .. } => return,
        };
        self.watch.on_fault_over(self.now, number, effects);
    }

    /// A fault is over as soon as it has happened.
    fn struck(&mut self, number: usize, effects: u64) {
        self.watch.on_fault_begun(self.now, number);
        self.watch.on_fault_over(self.now, number, effects);
    }

    /// A link passes no more than a rate, or what it should.
    fn slow_down(&mut self, host: usize, most: Option<Rate>) {
        let access = self.plan.hosts[host].access;
        let host = &mut self.hosts[host];
        let rate = |rate: Rate| most.map_or(rate, |most| most.min(rate)).0;
        host.uplink.clock.set_rate(rate(access.up));
        host.downlink.set_rate(rate(access.down));
        host.is_slow = most.is_some();
        if most.is_some() {
            host.slowed = 0;
        }
    }

    /// Both ends of all connections of a host are told that there is no such connection.
    fn reset_all(&mut self, host: usize) -> u64 {
        let Some(process) = &self.hosts[host].process else { return 0 };
        let streams = process.connections.values().copied();
        let streams: Vec<u32> = streams
            .filter(|(stream, side)| self.streams.is_open(*stream, *side))
            .map(|(stream, _)| stream)
            .collect();
        for stream in &streams {
            for side in [Side::Dialler, Side::Acceptor] {
                self.at(self.now, Event::Reset { stream: *stream, side });
            }
        }
        streams.len() as u64
    }

    /// Calls on a disk that were to fail at some point have begun to.
    pub(super) fn on_struck(&mut self, host: usize) {
        for (number, over) in self.hosts[host].disk.take_struck() {
            self.watch.on_struck(number, over);
            self.at(over, Event::FaultOver { number });
            self.arm_deadlines();
        }
    }

    /// A process or its machine dies.
    fn kill(&mut self, number: usize, host: usize) {
        self.end_recording(host);
        let Some(process) = self.hosts[host].process.take() else {
            // Down already, and to come back in its own time.
            let effects = self.break_disk(number, host);
            self.watch.on_killed(self.now, number, effects);
            return;
        };
        let is_power_cut = matches!(self.plan.faults[number].action, Action::PowerCut { .. });
        let connections: Vec<(u32, Side)> = process.connections.into_values().collect();
        let mut effects = 1 + connections.len() as u64;
        effects += self.break_disk(number, host);
        for (stream, side) in connections {
            if is_power_cut {
                self.streams.vanish(stream, side);
            } else {
                self.end_by_system(stream, side);
            }
        }
        self.watch.on_killed(self.now, number, effects);
        self.at(self.now + self.plan.faults[number].lasts, Event::Start { host });
    }

    /// Whoever was asked to end begins again, when it has ended. If it died meanwhile it comes back by itself.
    pub(super) fn again(&mut self, number: usize, incarnation: u32, effects: u64) {
        let Some(host) = self.plan.faults[number].action.host() else { return };
        let this = &mut self.hosts[host];
        if this.incarnation != incarnation || this.process.is_none() || self.stop_by.is_some() {
            return self.watch.on_fault_over(self.now, number, effects);
        }
        if this.process.as_ref().is_some_and(|process| !process.stopped) {
            return self.at(self.now + LOOK_AGAIN, Event::Again { number, incarnation, effects });
        }
        self.end_recording(host);
        self.hosts[host].process = None;
        self.watch.on_restarted(self.now, number, effects);
        self.start(host);
    }

    /// What a fault does to a machine that has or has not a process. Gives how much that was.
    fn break_disk(&mut self, number: usize, host: usize) -> u64 {
        let is_power_cut = matches!(self.plan.faults[number].action, Action::PowerCut { .. });
        let id = self.plan.hosts[host].id;
        let this = &mut self.hosts[host];
        if !is_power_cut {
            return this.disk.crash() as u64;
        }
        this.powered = false;
        this.boots += 1;
        this.uplink.waiting.clear();
        let mut rng = Rng::stream(self.plan.seed, "power-cut", (id << 32) | this.boots);
        let lost = this.disk.power_cut(&mut rng);
        self.watch.on_spoiled(host, &this.disk.take_spoiled());
        lost as u64
    }

    pub(super) fn plant(&mut self) {
        match self.options.plant.clone() {
            Some(Plant::Rot { host, .. }) => {
                let hosts = &mut self.hosts;
                Plant::rot(&host, &self.materials, &self.plan, |number, at| hosts[number].disk.rot(0, at));
            }
            Some(Plant::Panic { .. }) => panic!("planted"),
            None => {}
        }
    }
}

/// How soon somebody who is still ending is looked at again.
const LOOK_AGAIN: u64 = SECOND;
