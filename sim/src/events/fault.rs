//! What goes wrong, done to hosts and actors.

use taipei_engine::rng::Rng;
use taipei_engine::{Command, Input};

use super::stream::Side;
use super::{Event, World};
use crate::plan::Action;
use crate::run::Plant;

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
        }
        self.watch.on_fault_begun(self.now, number);
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
            // These are over when they have happened.
            Action::Crash { .. } | Action::PowerCut { .. } | Action::Leave { .. } => return,
        };
        self.watch.on_fault_over(self.now, number, effects);
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

    /// What a fault does to a machine that has or has not a process. Gives how much that was.
    fn break_disk(&mut self, number: usize, host: usize) -> u64 {
        let is_power_cut = matches!(self.plan.faults[number].action, Action::PowerCut { .. });
        let id = self.plan.hosts[host].id;
        let host = &mut self.hosts[host];
        (if is_power_cut {
            host.powered = false;
            host.boots += 1;
            host.uplink.waiting.clear();
            host.disk.power_cut(&mut Rng::stream(self.plan.seed, "power-cut", (id << 32) | host.boots))
        } else {
            host.disk.crash()
        }) as u64
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
