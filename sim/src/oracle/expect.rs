//! What a scenario expects: whether it is met, until when it must be, and the last looks at the end.

use std::collections::BTreeSet;

use super::{HostWatch, Watch};
use crate::disk::SimDisk;
use crate::observer::Near;
use crate::plan::{FaultPlan, HostPlan};
use crate::scenario::{Expect, ExpectAnnounces, ExpectUploadShare};
use crate::units::Share;

impl Watch {
    /// Whether everything that can be waited for is met, and every fault has come and gone.
    pub fn is_done(&mut self) -> bool {
        std::mem::take(&mut self.is_news) && self.is_all_met()
    }

    fn is_all_met(&self) -> bool {
        let faults = self.plan.faults.iter().zip(&self.fault_effects).zip(&self.struck_until);
        // For a call that is never made nobody waits; that it was not is for V1 to say.
        let waits = |((fault, effects), struck): ((&FaultPlan, &Option<u64>), &Option<u64>)| {
            effects.is_none() && (struck.is_some() || !fault.action.waits_for_call())
        };
        !faults.into_iter().any(waits)
            && self.engines().all(|(_, watch)| watch.process.is_some())
            && self.trackers_have_heard()
            && self.materials.scenario.expects.iter().all(|expect| self.is_met(expect))
    }

    /// Whether every host has told some tracker that it is there, so that announce counts are final.
    fn trackers_have_heard(&self) -> bool {
        self.plan.trackers.is_empty() || self.engines().all(|(_, host)| host.was_heard)
    }

    /// Hosts that run our engine.
    fn engines(&self) -> impl Iterator<Item = (&HostPlan, &HostWatch)> {
        self.plan.hosts.iter().zip(&self.hosts).filter(|(plan, _)| plan.puppet.is_none())
    }

    fn is_met(&self, expect: &Expect) -> bool {
        expect.complete.as_deref().is_none_or(|group| self.is_complete(group))
            && expect.announces.as_ref().is_none_or(|announces| self.are_told(announces))
    }

    /// Whether trackers were told at least as much as is expected; `stopped` comes later.
    fn are_told(&self, expect: &ExpectAnnounces) -> bool {
        self.not_told(expect).is_none()
    }

    /// The first host that has not told the tracker enough.
    fn not_told(&self, expect: &ExpectAnnounces) -> Option<usize> {
        let late = self.told(expect).find(|(_, started, completed, _, last)| {
            *started < expect.started.unwrap_or(0)
                || *completed < expect.completed.unwrap_or(0)
                || (expect.again && self.healed_at().is_none_or(|healed| *last <= healed))
        });
        late.map(|told| told.0)
    }

    /// By host: how often `started`, `completed` and `stopped`, and when for the last time anything.
    fn told(&self, expect: &ExpectAnnounces) -> impl Iterator<Item = (usize, u32, u32, u32, u64)> {
        self.hosts.iter().enumerate().filter(|(host, _)| self.plan.hosts[*host].group == expect.of).map(
            |(host, watch)| {
                let counts = watch.announces.get(&expect.to);
                let count = |event| counts.and_then(|counts| counts.get(event)).copied().unwrap_or(0);
                let last = watch.announced_at.get(&expect.to).copied().unwrap_or(0);
                (host, count("started"), count("completed"), count("stopped"), last)
            },
        )
    }

    /// When the last fault has healed; none while one waits for its condition.
    fn healed_at(&self) -> Option<u64> {
        let faults = self.plan.faults.iter().zip(&self.fault_began).zip(&self.struck_until);
        let mut over = faults.map(|((fault, began), struck)| match struck {
            Some(until) => Some(*until),
            None if fault.action.waits_for_call() => None,
            None => Some(fault.at.or(*began)? + fault.lasts),
        });
        over.try_fold(0, |latest: u64, at| Some(latest.max(at?)))
    }

    /// When an entry has failed unless it is met: L1.
    pub(super) fn deadline(&self, expect: &Expect) -> u64 {
        let scenario = &self.materials.scenario;
        let healed = self.healed_at();
        let bound = expect.complete.as_deref().zip(expect.within_bound).zip(healed).map(
            |((group, times), healed)| {
                // Written with a decimal point; from here on it is thousandths.
                let thousandths = (times * 1000.0).round() as u64;
                let bound = self.plan.fluid_bound(group, self.materials.total_bytes());
                healed.saturating_add(bound / 1000 * thousandths).saturating_add(START_SLACK)
            },
        );
        let within = expect.within.zip(healed).map(|(within, healed)| healed.saturating_add(within.0));
        let ends = [bound, within, expect.by.map(|by| by.0), Some(scenario.scenario.duration.0)];
        ends.into_iter().flatten().min().unwrap_or(0)
    }

    /// When to look whether the run has failed, as far as is known now.
    pub fn deadlines(&self) -> BTreeSet<u64> {
        let scenario = &self.materials.scenario;
        let ends = scenario.expects.iter().map(|expect| self.deadline(expect));
        ends.chain([scenario.scenario.duration.0]).collect()
    }

    /// Looks whether anything is late: L1.
    pub fn check_deadlines(&mut self, now: u64) {
        let scenario = &self.materials.scenario;
        let mut late = scenario.expects.iter().filter(|expect| self.deadline(expect) <= now);
        let (host, message) = match late.find(|expect| !self.is_met(expect)) {
            Some(Expect { complete: Some(group), .. }) if !self.is_complete(group) => {
                let hosts = 0..self.hosts.len();
                let lacks = |host: &usize| {
                    self.plan.hosts[*host].group == *group && !self.has_all(&self.hosts[*host])
                };
                (hosts.into_iter().find(lacks), "not complete in time".to_owned())
            }
            Some(Expect { announces: Some(announces), .. }) => {
                (self.not_told(announces), format!("{} was not told in time", announces.to))
            }
            _ if now >= scenario.scenario.duration.0 => (None, "not everything is over in time".to_owned()),
            _ => return,
        };
        self.break_rule("L1", now, host, message);
    }

    /// Last looks, when the world has ended by itself.
    pub fn finish(&mut self, now: u64, disks: &[&SimDisk]) {
        if !self.is_looking {
            return;
        }
        for (host, disk) in disks.iter().enumerate() {
            self.recheck(now, host, disk);
        }
        let materials = self.materials.clone();
        for expect in &materials.scenario.expects {
            if let Some(resume) = &expect.resume {
                let hit: BTreeSet<usize> =
                    self.plan.faults.iter().filter_map(|fault| fault.action.host()).collect();
                let bad: u32 = hit.iter().map(|host| self.hosts[*host].claimed_but_bad).sum();
                if resume.claimed_but_bad.is_some_and(|most| bad > most) {
                    self.break_rule("S12", now, None, format!("{bad} pieces were claimed that were bad"));
                }
                let again = |host: &usize| {
                    self.hosts[*host].received_bytes.saturating_sub(self.materials.total_bytes())
                };
                let refetched: u64 = hit.iter().map(again).sum();
                if let Some(most) = resume.refetched.filter(|most| refetched > most.0) {
                    let message = format!("{refetched} bytes were fetched again, {} allowed", most.0);
                    self.break_rule("S12", now, None, message);
                }
            }
            if let (Some(group), Some(most)) = (&expect.complete, expect.wasted) {
                self.finish_waste(now, group, most);
            }
            if let Some(announces) = &expect.announces {
                self.finish_announces(now, announces);
            }
            if expect.banned.is_some() {
                self.finish_bans(now);
            }
            if let Some(share) = &expect.upload_share {
                self.finish_upload_share(now, share);
            }
        }
        self.finish_vacuity(now);
    }

    /// Not much was received for nothing.
    fn finish_waste(&mut self, now: u64, group: &str, most: Share) {
        let hosts = self.plan.hosts.iter().zip(&self.hosts).filter(|(plan, _)| plan.group == group);
        let size = u128::from(self.materials.total_bytes());
        let (wanted, received) = hosts.fold((0, 0), |(wanted, received), (_, watch)| {
            (wanted + size, received + u128::from(watch.received_bytes))
        });
        let wasted = received.saturating_sub(wanted);
        let may = wanted * u128::from(most.part) / u128::from(most.of.max(1));
        self.near("L10", "received for nothing", Near::bytes(wasted as u64, may as u64));
        if wasted * u128::from(most.of) > wanted * u128::from(most.part) {
            self.break_rule(
                "L10",
                now,
                None,
                format!("{wasted} of {wanted} bytes were received for nothing"),
            );
        }
    }

    /// Nobody got more than it may: L11.
    fn finish_upload_share(&mut self, now: u64, expect: &ExpectUploadShare) {
        let all: u128 = self.uploaded.values().map(|bytes| u128::from(*bytes)).sum();
        let is_theirs = |to: &Option<usize>| to.is_some_and(|to| self.plan.hosts[to].group == expect.to);
        let theirs = self.uploaded.iter().filter(|(to, _)| is_theirs(to));
        let theirs: u128 = theirs.map(|(_, bytes)| u128::from(*bytes)).sum();
        let may = all * u128::from(expect.most.part) / u128::from(expect.most.of.max(1));
        self.near("L11", "uploaded to those who get little", Near::bytes(theirs as u64, may as u64));
        if theirs * u128::from(expect.most.of) > all * u128::from(expect.most.part) {
            let message = format!("{theirs} of {all} bytes that were uploaded went to {}", expect.to);
            self.break_rule("L11", now, None, message);
        }
        if theirs == 0 {
            self.break_rule("V1", now, None, format!("{} got nothing at all", expect.to));
        }
    }

    /// Nothing was told more often than expected, and everybody said goodbye.
    fn finish_announces(&mut self, now: u64, expect: &ExpectAnnounces) {
        let wrong = self.told(expect).find_map(|(host, started, completed, stopped, _)| {
            [
                ("started", expect.started, started),
                ("completed", expect.completed, completed),
                ("stopped", expect.stopped, stopped),
            ]
            .into_iter()
            .find(|(_, wanted, count)| wanted.is_some_and(|wanted| wanted != *count))
            .map(|(event, _, count)| (host, format!("{} was told `{event}` {count} times", expect.to)))
        });
        if let Some((host, message)) = wrong {
            self.break_rule("S9", now, Some(host), message);
        }
    }

    /// Whoever was hurt has banned who did it, and somebody was.
    fn finish_bans(&mut self, now: u64) {
        let hurt = self.hosts.iter().enumerate();
        let hurt: Vec<(usize, usize)> = hurt
            .flat_map(|(host, watch)| watch.liars.bad_pieces().map(move |(liar, _)| (host, liar)))
            .collect();
        let exposed: Vec<(usize, usize)> = (0..self.hosts.len())
            .flat_map(|host| self.hosts[host].liars.exposed().map(move |liar| (host, liar)))
            .collect();
        for (host, liar) in exposed {
            let name = self.plan.hosts[liar].name.clone();
            if !self.hosts[host].banned.contains(&name) {
                self.break_rule("S20", now, Some(host), format!("was hurt by {name} and did not ban it"));
            }
        }
        let idle = (0..self.hosts.len())
            .filter(|host| self.plan.hosts[*host].poisons())
            .find(|host| hurt.iter().all(|(_, liar)| liar != host));
        if let Some(host) = idle.filter(|_| !self.materials.scenario.scenario.faults_may_miss) {
            self.break_rule("V1", now, Some(host), "its lies hurt nobody".to_owned());
        }
    }

    /// The run proved something.
    fn finish_vacuity(&mut self, now: u64) {
        let may_miss = self.materials.scenario.scenario.faults_may_miss;
        for number in 0..self.fault_effects.len() {
            if self.fault_effects[number].unwrap_or(0) == 0 && !may_miss {
                let action = &self.plan.faults[number].action;
                let (at, host) = (self.fault_began[number].unwrap_or(0), action.host());
                let message = format!("the {} at {at} ns did nothing", action.kind().name());
                self.break_rule("V1", now, host, message);
            }
        }
        let materials = self.materials.clone();
        for expect in &materials.scenario.expects {
            if let Some(mark) = expect.mark.iter().find(|mark| !self.marks.contains(mark.as_str())) {
                self.break_rule("V2", now, None, format!("the mark `{mark}` was never reached"));
            }
            if let Some(mark) = expect.never.iter().find(|mark| self.marks.contains(mark.as_str())) {
                self.break_rule("L9", now, None, format!("the mark `{mark}` was reached"));
            }
        }
        let no_announce = self.announces == 0 && !self.plan.trackers.is_empty();
        if self.connections_opened == 0 || self.blocks == 0 || no_announce {
            let message = format!(
                "{} connections, {} blocks, {} announces",
                self.connections_opened, self.blocks, self.announces
            );
            self.break_rule("V5", now, None, message);
        }
    }
}

/// For finding the tracker and each other, on top of the bound of L1.
const START_SLACK: u64 = 5_000_000_000;
