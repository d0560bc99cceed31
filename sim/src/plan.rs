//! What a scenario and a seed come to: every host, address, delay and fault written out before the run begins.
//!
//! Each thing draws from a stream of its own, so one more host or fault shifts nobody else's.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use sha1::{Digest as _, Sha1};
use taipei_engine::metainfo::create::{self, CreateError, CreateOptions, CreatePlan, SourceFile};
use taipei_engine::metainfo::{Metainfo, PathRules};
use taipei_engine::rng::Rng;
use taipei_engine::{BlockData, InfoHash};

use crate::content::Content;
use crate::disk::{Home, SimDisk};
use crate::scenario::{Access, Answer, DiskModel, FaultKind, Has, Outage, Proto, Scenario, Torrent};
use crate::units::{SECOND, TimeRange};

/// What is the same for every seed: made once for a sweep.
#[derive(Debug)]
pub struct Materials {
    /// As read.
    pub scenario: Scenario,
    /// In the scenario's order.
    pub torrents: Vec<Material>,
}

/// A torrent with its payload.
#[derive(Debug)]
pub struct Material {
    /// As the scenario calls it.
    pub name: String,
    /// On the wire.
    pub info_hash: InfoHash,
    /// The torrent file.
    pub torrent_file: Bytes,
    /// All payload.
    pub content: Content,
    /// Bytes in each piece but the last.
    pub piece_bytes: u64,
    /// Files: name on disk below the root, offset, length, SHA-1.
    pub files: Vec<MaterialFile>,
    /// Trackers by their place in the plan, in tiers.
    pub tiers: Vec<Vec<usize>>,
}

/// A file of a torrent.
#[derive(Debug)]
pub struct MaterialFile {
    /// Below the download directory.
    pub path: String,
    /// Of its first byte in the torrent.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Of what it should hold.
    pub sha1: [u8; 20],
}

/// Everything that one run does, but for what the engines decide.
#[derive(Debug)]
pub struct Plan {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Hosts that run our engine.
    pub hosts: Vec<HostPlan>,
    /// Trackers.
    pub trackers: Vec<TrackerPlan>,
    /// In the order of their times; last those that wait for something else.
    pub faults: Vec<FaultPlan>,
    /// Least and most, one way.
    latency: TimeRange,
    /// Part and whole: a segment that comes a retransmission later.
    pub loss: Option<(u64, u64)>,
}

/// A host.
#[derive(Debug)]
pub struct HostPlan {
    /// `GROUP-1` and so on.
    pub name: String,
    /// Its group's.
    pub group: String,
    /// Where it is.
    pub address: IpAddr,
    /// Its link.
    pub access: Access,
    /// Its disk.
    pub disk: DiskModel,
    /// Whether it has everything at the start.
    pub has_all: bool,
    /// Part and whole: blocks that it serves and that are wrong.
    pub lies: Option<(u64, u64)>,
}

/// A tracker.
#[derive(Debug)]
pub struct TrackerPlan {
    /// As the scenario calls it.
    pub name: String,
    /// In DNS.
    pub dns_name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it is asked over UDP; it answers both ways.
    pub udp: bool,
    /// What it does with each request; the last one is repeated.
    pub script: Vec<Answer>,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    /// When; none when as soon as one copy is out among those that had nothing.
    pub at: Option<u64>,
    /// What.
    pub kind: FaultKind,
    /// To which host, or tracker.
    pub target: Target,
    /// How long until the host begins again, or it is over; nothing for what stays.
    pub lasts: u64,
    /// What still fits on a disk that fills up.
    pub space_bytes: u64,
    /// How a tracker is away.
    pub how: Option<Outage>,
    /// How far a wall clock jumps, nanoseconds.
    pub jump_ns: i64,
}

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One of [`Plan::hosts`].
    Host(usize),
    /// One of [`Plan::trackers`].
    Tracker(usize),
}

impl FaultPlan {
    /// The host that it hits; none for a tracker.
    pub fn host(&self) -> Option<usize> {
        match self.target {
            Target::Host(host) => Some(host),
            Target::Tracker(_) => None,
        }
    }
}

impl Materials {
    /// Makes torrents and payload.
    pub fn new(scenario: Scenario) -> Arc<Self> {
        let trackers = trackers(&scenario);
        let torrents = scenario.torrents.iter().map(|torrent| Material::new(torrent, &trackers)).collect();
        Arc::new(Self { scenario, torrents })
    }

    /// Payload of all torrents together.
    pub fn total_bytes(&self) -> u64 {
        self.torrents.iter().map(|torrent| torrent.content.len()).sum()
    }

    /// The torrent with this info-hash.
    pub fn by_info_hash(&self, info_hash: InfoHash) -> Option<usize> {
        self.torrents.iter().position(|torrent| torrent.info_hash == info_hash)
    }

    /// A host's disk at the beginning.
    pub fn disk(&self, host: &HostPlan) -> SimDisk {
        let homes = self.torrents.iter().enumerate().flat_map(|(number, torrent)| {
            torrent.files.iter().map(move |file| Home {
                name: format!("{ROOT}/{}", file.path),
                content: number as u32,
                offset: file.offset,
                length: file.length,
            })
        });
        let contents = self.torrents.iter().map(|torrent| torrent.content.clone()).collect();
        let mut disk = SimDisk::new(contents, homes.collect(), host.disk.torn.0);
        disk.set_wall_ns(WALL_SECONDS * SECOND as i64);
        if host.has_all {
            disk.fill();
        }
        disk
    }
}

impl Material {
    fn new(torrent: &Torrent, trackers: &[TrackerPlan]) -> Self {
        let tiers = tiers_of(torrent, trackers);
        let urls = tiers.iter().map(|tier| tier.iter().map(|tracker| trackers[*tracker].url()).collect());
        let plan = create_plan(torrent, urls.collect()).expect("a scenario is checked when it is read");
        let content = Content::new(&torrent.name, torrent.size.0);
        let files = plan.layout().files().iter().map(|file| MaterialFile {
            path: file.path.to_string(),
            offset: file.offset,
            length: file.length,
            sha1: Sha1::digest(content.slice(file.offset, file.length)).into(),
        });
        let piece_bytes = u64::from(plan.layout().piece_length());
        let hashes: Vec<[u8; 20]> =
            content.as_slice().chunks(piece_bytes as usize).map(|piece| Sha1::digest(piece).into()).collect();
        let torrent_file = plan.encode(&hashes);
        let metainfo = Metainfo::parse(&torrent_file, PathRules::Unix).expect("we read what we make");
        Self {
            name: torrent.name.clone(),
            info_hash: metainfo.info_hashes.v1.expect("version 1"),
            torrent_file: torrent_file.into(),
            piece_bytes,
            files: files.collect(),
            content,
            tiers,
        }
    }

    /// How many pieces.
    pub fn piece_count(&self) -> u32 {
        self.content.len().div_ceil(self.piece_bytes) as u32
    }

    /// Whether a block of a piece is what it should be.
    pub fn is_right(&self, piece: u32, begin: u32, block: &BlockData) -> bool {
        let mut at = u64::from(piece) * self.piece_bytes + u64::from(begin);
        block.parts().iter().all(|part| {
            let right = self.content.is_at(at, part);
            at += part.len() as u64;
            right
        })
    }

    /// Offset and length of a piece.
    pub fn piece(&self, piece: u32) -> (u64, u64) {
        let offset = u64::from(piece) * self.piece_bytes;
        (offset, self.piece_bytes.min(self.content.len().saturating_sub(offset)))
    }
}

/// What a torrent of a scenario is made of.
pub(crate) fn create_plan(
    torrent: &Torrent,
    tracker_tiers: Vec<Vec<String>>,
) -> Result<CreatePlan, CreateError> {
    let (size, count) = (torrent.size.0, u64::from(torrent.files));
    let edge = |index: u64| (u128::from(size) * u128::from(index) / u128::from(count)) as u64;
    let content = if count == 1 {
        create::Content::File { length: size }
    } else {
        let file = |index| SourceFile {
            path: vec![format!("file-{}.bin", index + 1)],
            length: edge(index + 1) - edge(index),
        };
        create::Content::Directory((0..count).map(file).collect())
    };
    let options = CreateOptions {
        piece_length: torrent.piece.map(|piece| u32::try_from(piece.0).unwrap_or(u32::MAX)),
        tracker_tiers,
        ..CreateOptions::default()
    };
    CreatePlan::new(&torrent.name, content, options)
}

impl Plan {
    /// What the scenario calls the tracker at an address.
    pub(crate) fn tracker_name(&self, address: SocketAddr) -> String {
        let tracker = self.trackers.iter().find(|tracker| tracker.address == address);
        tracker.map_or_else(|| address.to_string(), |tracker| tracker.name.clone())
    }

    /// Writes out what this scenario comes to with this seed.
    pub fn new(scenario: &Scenario, seed: u64) -> Arc<Self> {
        let mut hosts = Vec::new();
        for group in &scenario.groups {
            for number in 1..=group.count {
                hosts.push(HostPlan {
                    name: format!("{}-{number}", group.name),
                    group: group.name.clone(),
                    address: host_address(hosts.len()),
                    access: group.access,
                    disk: group.disk,
                    has_all: group.has == Has::All,
                    lies: group.lies.map(|share| (share.part, share.of)),
                });
            }
        }
        let trackers = trackers(scenario);
        let mut faults: Vec<FaultPlan> = Vec::new();
        for (number, fault) in (0u64..).zip(&scenario.faults) {
            let mut rng = Rng::stream(seed, "fault", number);
            let at = fault.at.map(|at| draw(&mut rng, at));
            let lasts = fault.back_after.or(fault.lasts).map_or(0, |lasts| draw(&mut rng, lasts));
            let target = match trackers.iter().position(|tracker| tracker.name == fault.pick) {
                Some(tracker) if fault.kind == FaultKind::TrackerOutage => Target::Tracker(tracker),
                _ => Target::Host(pick(&mut rng, &hosts, &faults, &fault.pick, at, lasts)),
            };
            let how = fault.how.get(rng.below(fault.how.len() as u64) as usize).copied();
            let jump_ns = fault.by.get(rng.below(fault.by.len() as u64) as usize).map_or(0, |jump| jump.0);
            let space_bytes = fault.space.map_or(0, |space| space.0);
            faults.push(FaultPlan { at, kind: fault.kind, target, lasts, space_bytes, how, jump_ns });
        }
        faults.sort_by_key(|fault| fault.at.unwrap_or(u64::MAX));
        Arc::new(Self {
            seed,
            hosts,
            trackers,
            faults,
            latency: scenario.net.latency,
            loss: scenario.net.loss.map(|share| (share.part, share.of)),
        })
    }

    /// One way between two addresses, in nanoseconds; the same in both directions.
    pub fn latency(&self, a: IpAddr, b: IpAddr) -> u64 {
        let (low, high) = (a.min(b), a.max(b));
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits() as u64,
        };
        draw(&mut Rng::stream(self.seed, "latency", (bits(low) << 32) | bits(high)), self.latency)
    }

    /// The host at an address.
    pub fn host_at(&self, address: IpAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.address == address)
    }

    /// The least time in which every host of `group` can have `bytes`, by the rates of links alone:
    /// `max(F / u_seed, F / d_min, N F / (u_seed + sum u_i))`, in nanoseconds. Nobody counts on liars.
    pub fn fluid_bound(&self, group: &str, bytes: u64) -> u64 {
        let up = |host: &&HostPlan| u128::from(host.access.up.0);
        let honest = || self.hosts.iter().filter(|host| host.lies.is_none());
        let seed: u128 = honest().filter(|host| host.has_all).map(|host| up(&host)).sum();
        let all: u128 = honest().map(|host| up(&host)).sum();
        let wanting = self.hosts.iter().filter(|host| !host.has_all);
        let slowest = wanting
            .clone()
            .filter(|host| host.group == group)
            .map(|host| u128::from(host.access.down.0))
            .min();
        let nanobits = u128::from(bytes) * 8 * u128::from(SECOND);
        let over =
            |bits: u128, rate: u128| if rate == 0 { u128::from(u64::MAX) } else { bits.div_ceil(rate) };
        let bound = over(nanobits, seed)
            .max(slowest.map_or(0, |rate| over(nanobits, rate)))
            .max(over(nanobits * wanting.count() as u128, all));
        u64::try_from(bound).unwrap_or(u64::MAX)
    }
}

/// A number from a range of times.
pub fn draw(rng: &mut Rng, range: TimeRange) -> u64 {
    range.low + rng.below(range.high - range.low + 1)
}

/// One of those called `name`, by group or by host. Who is down then already would not notice, and is spared.
fn pick(
    rng: &mut Rng,
    hosts: &[HostPlan],
    faults: &[FaultPlan],
    name: &str,
    at: Option<u64>,
    lasts: u64,
) -> usize {
    let named: Vec<usize> =
        (0..hosts.len()).filter(|host| hosts[*host].group == name || hosts[*host].name == name).collect();
    let down = |host: &usize| {
        let mut others = faults.iter().filter(|other| other.host() == Some(*host) && other.kind.takes_down());
        others.any(|other| match (at, other.at) {
            (Some(at), Some(other_at)) => other_at <= at + lasts && at <= other_at + other.lasts,
            _ => false,
        })
    };
    let up: Vec<usize> = named.iter().copied().filter(|host| !down(host)).collect();
    let choices = if up.is_empty() { named } else { up };
    choices[rng.below(choices.len() as u64) as usize]
}

/// The trackers of a torrent, in tiers.
fn tiers_of(torrent: &Torrent, trackers: &[TrackerPlan]) -> Vec<Vec<usize>> {
    if torrent.tiers.is_empty() {
        return (0..trackers.len()).map(|tracker| vec![tracker]).collect();
    }
    let named = |name: &String| trackers.iter().position(|tracker| tracker.name == *name);
    torrent.tiers.iter().map(|tier| tier.iter().filter_map(named).collect()).collect()
}

impl TrackerPlan {
    fn url(&self) -> String {
        let scheme = if self.udp { "udp" } else { "http" };
        format!("{scheme}://{}:{TRACKER_PORT}/announce", self.dns_name)
    }
}

fn trackers(scenario: &Scenario) -> Vec<TrackerPlan> {
    let named = scenario
        .actors
        .iter()
        .map(|actor| (actor.name.clone(), actor.proto == Proto::Udp, actor.script.clone()));
    let mut list: Vec<_> = named.collect();
    if list.is_empty() {
        list.push(("tracker".to_owned(), false, Vec::new()));
    }
    list.into_iter()
        .enumerate()
        .map(|(number, (name, udp, script))| TrackerPlan {
            udp,
            dns_name: format!("{name}.sim"),
            name,
            address: SocketAddr::new(Ipv4Addr::new(94, 0, 0, number as u8 + 1).into(), TRACKER_PORT),
            script,
        })
        .collect()
}

/// Public addresses, each in a range of its own: what comes from a tracker in another scope would be refused, and who
/// shares a range shares a slot.
fn host_address(number: usize) -> IpAddr {
    Ipv4Addr::from_bits((93 << 24) | ((number as u32 + 1) << 8) | 1).into()
}

/// Where every host keeps its files.
pub const ROOT: &str = "/data";
/// Where every engine listens.
pub const PEER_PORT: u16 = 6881;
/// When every run begins, seconds since 1970.
pub const WALL_SECONDS: i64 = 1_700_000_000;
const TRACKER_PORT: u16 = 6969;

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(faults: &str) -> Scenario {
        let text = format!(
            r#"
            [scenario]
            id = "plan"
            duration = "60 s"
            [[torrent]]
            name = "a"
            size = "100 KiB"
            files = 3
            [[group]]
            name = "seed"
            count = 1
            has = "all"
            access = {{ up = "8 Mbit/s" }}
            [[group]]
            name = "leech"
            count = 3
            access = {{ up = "1 Mbit/s", down = "4 Mbit/s" }}
            [net]
            latency = "10 ms .. 40 ms"
            {faults}
            "#
        );
        Scenario::parse(&text, "plan.toml").expect("parses")
    }

    #[test]
    fn one_more_fault_shifts_nobody() {
        let first = "[[fault]]\nat = \"1 s .. 9 s\"\nkind = \"crash\"\npick = \"leech\"\nback_after = \"1 s .. 3 s\"\n";
        let second =
            "[[fault]]\nat = \"20 s\"\nkind = \"power-cut\"\npick = \"seed\"\nback_after = \"1 s\"\n";
        let (one, two) =
            (Plan::new(&scenario(first), 7), Plan::new(&scenario(&format!("{first}{second}")), 7));
        assert_eq!(one.faults[0], two.faults[0]);
        assert_ne!(one.faults, Plan::new(&scenario(first), 8).faults);
        let (a, b) = (one.hosts[0].address, one.hosts[2].address);
        assert_eq!(one.latency(a, b), two.latency(b, a));
        assert!((10_000_000..=40_000_000).contains(&one.latency(a, b)));
    }

    #[test]
    fn the_fluid_bound_is_the_narrowest_place() {
        let plan = Plan::new(&scenario(""), 0);
        // 8 Mbit: 1 s from the seed, 2 s into a leecher, 24 Mbit over 11 Mbit/s in all.
        assert_eq!(plan.fluid_bound("leech", 1_000_000), 2_181_818_182);
    }

    #[test]
    fn torrents_are_read_by_the_engine_as_they_were_meant() {
        let materials = Materials::new(scenario(""));
        let torrent = &materials.torrents[0];
        assert_eq!(torrent.files.iter().map(|file| file.length).sum::<u64>(), 100 << 10);
        assert_eq!((torrent.piece_count(), torrent.piece(6)), (7, (6 << 14, 4096)));
        let disk = materials.disk(&Plan::new(&materials.scenario, 0).hosts[0]);
        assert!(disk.holds(0, 0, 100 << 10));
        assert_eq!(disk.own_bytes(), 0);
    }
}
