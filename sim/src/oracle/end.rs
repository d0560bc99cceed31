//! How a run ended: what both worlds must agree on, and figures.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use serde::Serialize;
use sha1::{Digest as _, Sha1};

use super::Watch;
use crate::disk::{Payload, SimDisk};
use crate::plan::ROOT;
use crate::trace::{Kind, digest};

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

/// Figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Ends of connections that were opened.
    pub connections: u64,
    /// Blocks received, over all hosts.
    pub blocks: u64,
    /// Announces taken.
    pub announces: u64,
    /// Streams of which what was sent is compared with what was read.
    #[serde(skip)]
    pub streams_compared: u64,
    /// What was reached.
    pub marks: Vec<&'static str>,
    /// By host and torrent, simulated milliseconds.
    pub completed_ms: BTreeMap<String, u64>,
    /// Payload by host.
    pub received_bytes: BTreeMap<String, u64>,
    /// By fault.
    pub fault_effects: Vec<u64>,
    /// By family of faults: how much it did.
    #[serde(skip)]
    pub effects: BTreeMap<&'static str, u64>,
    /// By puppet: payload that hosts gave to its connections.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub given_to_puppets: BTreeMap<String, u64>,
    /// The greatest age of a verified piece that the end of a process, or of its machine, cost.
    #[serde(skip)]
    pub worst_loss_ns: u64,
    /// By victim and liar: pieces spoiled.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bad_pieces: BTreeMap<String, u32>,
}

impl Watch {
    /// What both worlds must agree on.
    pub fn end_state(&self, disks: &[&SimDisk]) -> EndState {
        let mut state = EndState::default();
        let hosts = self.plan.hosts.iter().zip(&self.hosts).zip(disks);
        for ((plan, watch), disk) in hosts.filter(|((plan, _), _)| plan.puppet.is_none()) {
            let torrents = self.materials.torrents.iter().enumerate().map(|(number, material)| {
                let have = watch.have.get(&number).cloned().unwrap_or_default();
                // What the world spoiled silently depends on when.
                let files = material.files.iter().filter(|_| !watch.damage.is_rotten());
                let files = files.filter_map(|file| {
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

    /// How much each family of faults did.
    fn effects_by_family(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for (fault, effects) in self.plan.faults.iter().zip(&self.fault_effects) {
            *sums.entry(fault.action.kind().family()).or_default() += effects.unwrap_or(0);
        }
        *sums.entry("loss").or_default() += self.trace.count_of(Kind::Lost);
        *sums.entry("magnet").or_default() += self.metadata_received;
        *sums.entry("dht").or_default() += self.without_trackers;
        let spoiled = self.hosts.iter().flat_map(|watch| watch.liars.bad_pieces());
        *sums.entry("hostile").or_default() += spoiled.map(|(_, count)| u64::from(count)).sum::<u64>();
        *sums.entry("puppets").or_default() += self.puppet_messages;
        *sums.entry("config").or_default() += self.squeezed;
        for (family, effects) in &self.other_effects {
            *sums.entry(family).or_default() += effects;
        }
        sums
    }

    fn bad_pieces(&self) -> BTreeMap<String, u32> {
        let mut sums = BTreeMap::new();
        for (victim, watch) in self.plan.hosts.iter().zip(&self.hosts) {
            for (liar, count) in watch.liars.bad_pieces() {
                let name = format!("{} by {}", victim.name, self.plan.hosts[liar].name);
                *sums.entry(name).or_default() += count;
            }
        }
        sums
    }

    /// What a family of faults did that its world counts, not the watch.
    pub fn on_effects(&mut self, family: &'static str, count: u64) {
        *self.other_effects.entry(family).or_default() += count;
    }

    /// Figures for people and snapshots, by name.
    pub fn summary(&self) -> Summary {
        Summary {
            connections: self.connections_opened,
            blocks: self.blocks,
            announces: self.announces,
            streams_compared: self.ledger.paired,
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
                .filter(|(plan, _)| plan.puppet.is_none())
                .map(|(plan, watch)| (plan.name.clone(), watch.received_bytes))
                .collect(),
            fault_effects: self.fault_effects.iter().map(|effects| effects.unwrap_or(0)).collect(),
            effects: self.effects_by_family(),
            given_to_puppets: self
                .uploaded
                .iter()
                .filter_map(|(to, bytes)| Some((&self.plan.hosts[(*to)?], *bytes)))
                .filter(|(plan, _)| plan.puppet.is_some())
                .map(|(plan, bytes)| (plan.name.clone(), bytes))
                .collect(),
            worst_loss_ns: self.hosts.iter().map(|watch| watch.loss.worst()).max().unwrap_or(0),
            bad_pieces: self.bad_pieces(),
        }
    }
}
