//! What a scenario and a seed come to: every host, address, delay and fault written out before the run begins.
//!
//! Each thing draws from a stream of its own, so one more host or fault shifts nobody else's.

mod fault;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use sha1::{Digest as _, Sha1};
use taipei_engine::disk::{Job, JobResult, Work, sha1_each};
use taipei_engine::metainfo::create::{self, CreateError, CreateOptions, CreatePlan, SourceFile};
use taipei_engine::metainfo::{Magnet, Metainfo, PathRules};
use taipei_engine::rng::Rng;
use taipei_engine::{BlockData, Config, InfoHash, bencode};

pub use self::fault::{Action, FaultPlan};
use crate::content::Content;
use crate::disk::{Home, SimDisk};
use crate::network::nat::Nat;
use crate::network::path::Sender;
use crate::scenario::{
    Access, Accesses, ActorKind, Answer, Behaviour, DhtRole, DiskModel, Family, Fault, Has, NatBox, Net,
    Order, Proto, Scenario, Sync, Torrent,
};
use crate::trace::digest;
use crate::units::{CountRange, SECOND, TimeRange};

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
    /// Its magnet link.
    pub link: String,
    /// The raw info dictionary.
    pub info: Bytes,
    /// All payload.
    pub content: Content,
    /// Bytes in each piece but the last.
    pub piece_bytes: u64,
    /// Pieces and their hashes, by how they begin.
    pieces: BTreeMap<[u8; 8], (u32, [u8; 20])>,
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
    /// Hosts that run our engine, then puppets.
    pub hosts: Vec<HostPlan>,
    /// Trackers.
    pub trackers: Vec<TrackerPlan>,
    /// In the order of their times; last those that wait for something else.
    pub faults: Vec<FaultPlan>,
    /// Whether anybody lies.
    has_liars: bool,
    /// Boxes that translate addresses.
    pub nats: Vec<NatPlan>,
    /// What lies between them.
    pub net: Net,
    /// What happens first of that which happens at once.
    pub order: Order,
    /// Hosts and trackers by address, as parties: hosts in their order, then trackers.
    parties: BTreeMap<IpAddr, usize>,
    /// Trackers by where they listen.
    sockets: BTreeMap<SocketAddr, usize>,
    /// Boxes by their address outside.
    outsides: BTreeMap<IpAddr, usize>,
}

/// A host.
#[derive(Debug)]
pub struct HostPlan {
    /// `GROUP-1` and so on.
    pub name: String,
    /// Its place among all that the scenario ever had: what it draws from, so that one host fewer shifts nobody.
    pub id: u64,
    /// Its group's.
    pub group: String,
    /// Where it is; of IPv4 where it has both. Behind a box this is its address inside.
    pub address: IpAddr,
    /// Its address of the other family, if it has one.
    pub second: Option<IpAddr>,
    /// The box that translates its IPv4 address.
    pub nat: Option<usize>,
    /// Its link.
    pub access: Access,
    /// Its disk.
    pub disk: DiskModel,
    /// What its engine is told.
    pub config: Config,
    /// Whether nodes of the DHT begin with it.
    pub is_router: bool,
    /// Whether it has everything at the start.
    pub has_all: bool,
    /// Whether it begins with a magnet link of each torrent, not with its file.
    pub magnet: bool,
    /// Part and whole: blocks that it serves and that are wrong.
    pub lies: Option<(u64, u64)>,
    /// What it does instead of running our engine.
    pub puppet: Option<Behaviour>,
}

impl HostPlan {
    /// Whether it runs our engine and nobody meddles with what it serves.
    pub fn is_honest(&self) -> bool {
        self.lies.is_none() && self.puppet.is_none()
    }

    /// Whether it means to send wrong blocks.
    pub fn poisons(&self) -> bool {
        self.lies.is_some() || self.puppet.is_some_and(Behaviour::poisons)
    }
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
    /// And where else, of the other family.
    pub second: Option<SocketAddr>,
    /// Addresses of its name where nobody is.
    pub stale: Vec<IpAddr>,
    /// Whether it is asked over UDP; it answers both ways.
    pub udp: bool,
    /// What it does with each request; the last one is repeated.
    pub script: Vec<Answer>,
}

/// A box that translates addresses.
#[derive(Debug)]
pub struct NatPlan {
    settings: NatBox,
    outside: IpAddr,
    forwarded: Option<(u16, SocketAddr)>,
}

impl NatPlan {
    /// The host behind it that strangers reach.
    pub fn forwarded_to(&self, plan: &Plan) -> Option<usize> {
        plan.host_at(self.forwarded?.1.ip())
    }

    /// The box, before anything went through.
    pub fn start(&self) -> Nat {
        Nat::new(self.settings.clone(), self.outside, self.forwarded)
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

    /// [`sha1_each`], but for what is a piece of the payload, byte for byte: that was hashed when it was made.
    pub(crate) fn sha1_known(&self, messages: &[Vec<&[u8]>], digests: &mut Vec<[u8; 20]>) {
        for message in messages {
            match self.torrents.iter().find_map(|torrent| torrent.sha1_known(message)) {
                Some(known) => digests.push(known),
                None => sha1_each(slice::from_ref(message), digests),
            }
        }
    }

    /// What a job read, as slices of the payload where it is that: from then on nobody copies or compares it.
    pub(crate) fn share(&self, job: &Job, result: JobResult) -> JobResult {
        let (Work::Read { blocks }, JobResult::Read(Ok(read))) = (&job.work, &result) else { return result };
        let Some(number) = self.by_info_hash(job.place.info_hash) else { return result };
        let torrent = &self.torrents[number];
        let shared = blocks.iter().zip(read).map(|(block, data)| {
            if !torrent.is_right(block.piece.get(), block.begin, data) {
                return data.clone();
            }
            let offset = u64::from(block.piece.get()) * torrent.piece_bytes + u64::from(block.begin);
            torrent.content.slice(offset, u64::from(data.len())).into()
        });
        JobResult::Read(Ok(shared.collect()))
    }

    /// Does what a fault does to the files of a host. Gives how much that was.
    pub fn damage(&self, plan: &Plan, number: usize, disk: &mut SimDisk) -> u64 {
        let fault = &plan.faults[number];
        let Action::Damage { host, damage } = &fault.action else { return 0 };
        let piece_bytes: Vec<u64> = self.torrents.iter().map(|torrent| torrent.piece_bytes).collect();
        let which = digest(&(plan.hosts[*host].id, fault.at));
        disk.damage(damage, &piece_bytes, &mut Rng::stream(plan.seed, "damage", which))
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
        disk.set_time(0, WALL_SECONDS * SECOND as i64);
        if host.disk.sync == Sync::Lies {
            disk.lie_about_syncs();
        }
        if !host.disk.rename_durable {
            disk.forget_renames();
        }
        if host.has_all {
            disk.fill();
        }
        disk.put_foreign(&format!("{ROOT}/notes.txt"), NOT_OURS);
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
        let beginnings = content.as_slice().chunks(piece_bytes as usize).map(<[u8]>::first_chunk);
        let pieces = (0..).zip(beginnings).zip(hashes);
        let pieces = pieces.filter_map(|((piece, begins), sha1)| Some((*begins?, (piece, sha1)))).collect();
        let metainfo = Metainfo::parse(&torrent_file, PathRules::Unix).expect("we read what we make");
        let torrent_file = Bytes::from(torrent_file);
        let info = bencode::raw_entry(&torrent_file, b"info").ok().flatten().expect("it was read");
        Self {
            name: torrent.name.clone(),
            info_hash: metainfo.info_hashes.v1.expect("version 1"),
            link: Magnet::from(&metainfo).to_string(),
            info: torrent_file.slice_ref(info),
            torrent_file,
            piece_bytes,
            pieces,
            files: files.collect(),
            content,
            tiers,
        }
    }

    fn sha1_known(&self, message: &[&[u8]]) -> Option<[u8; 20]> {
        let (piece, sha1) = self.pieces.get(message.first()?.first_chunk()?)?;
        let (begin, length) = self.piece(*piece);
        let end = self.content.end_of(begin, message.iter().copied())?;
        (end == begin + length).then_some(*sha1)
    }

    /// How many pieces.
    pub fn piece_count(&self) -> u32 {
        self.content.len().div_ceil(self.piece_bytes) as u32
    }

    /// Whether a block of a piece is what it should be.
    pub fn is_right(&self, piece: u32, begin: u32, block: &BlockData) -> bool {
        let at = u64::from(piece) * self.piece_bytes + u64::from(begin);
        self.content.end_of(at, block.parts().iter().map(|part| &part[..])).is_some()
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
        private: torrent.private,
        ..CreateOptions::default()
    };
    CreatePlan::new(&torrent.name, content, options)
}

impl Plan {
    /// What the scenario calls the tracker at an address; with [`OTHER_FAMILY`] where that is the second of two, which is
    /// told everything as well (BEP 7).
    pub(crate) fn tracker_name(&self, address: SocketAddr) -> String {
        let (ip, known) = (address.ip(), self.tracker_at(address));
        let tracker = known
            .map(|number| &self.trackers[number])
            .or_else(|| self.trackers.iter().find(|tracker| tracker.stale.contains(&ip)));
        match tracker {
            None => address.to_string(),
            Some(tracker) if tracker.second == Some(address) => format!("{}{OTHER_FAMILY}", tracker.name),
            Some(tracker) => tracker.name.clone(),
        }
    }

    /// What the scenario calls the tracker that a redirect of the tracker `from` leads to; none when it leads to none.
    pub(crate) fn tracker_of(&self, location: &str, from: &str) -> Option<String> {
        if location.starts_with('/') {
            return Some(from.to_owned());
        }
        let (_, rest) = location.split_once("://")?;
        let host = rest.split(['/', ':', '?']).next()?;
        let tracker = self.trackers.iter().find(|tracker| tracker.dns_name == host)?;
        Some(tracker.name.clone())
    }

    /// Writes out what this scenario comes to with this seed.
    pub fn new(scenario: &Scenario, seed: u64) -> Arc<Self> {
        let scenario = &settle(scenario, seed);
        let (hosts, trackers) = (hosts(scenario, seed), trackers(scenario));
        let mut faults: Vec<FaultPlan> = scenario
            .faults
            .iter()
            .map(|fault| FaultPlan {
                at: fault.at.map(|at| at.low),
                lasts: fault.back_after.or(fault.lasts).map_or(0, |lasts| lasts.low),
                action: Action::new(fault, &hosts, &trackers, &scenario.nats),
            })
            .collect();
        faults.sort_by_key(|fault| fault.at.unwrap_or(u64::MAX));
        let nats: Vec<NatPlan> = (0u8..)
            .zip(&scenario.nats)
            .map(|(number, settings)| NatPlan {
                settings: settings.clone(),
                outside: Ipv4Addr::new(96, 0, number + 1, 1).into(),
                forwarded: hosts
                    .iter()
                    .find(|host| settings.forward.as_ref() == Some(&host.name))
                    .map(|host| (PEER_PORT, SocketAddr::new(host.address, PEER_PORT))),
            })
            .collect();
        let mut parties = BTreeMap::new();
        for (number, host) in hosts.iter().enumerate() {
            parties.extend([Some(host.address), host.second].into_iter().flatten().map(|ip| (ip, number)));
        }
        let mut sockets = BTreeMap::new();
        for (number, tracker) in trackers.iter().enumerate() {
            for socket in [Some(tracker.address), tracker.second].into_iter().flatten() {
                sockets.insert(socket, number);
                parties.insert(socket.ip(), hosts.len() + number);
            }
        }
        Arc::new(Self {
            seed,
            has_liars: hosts.iter().any(|host| host.lies.is_some()),
            outsides: nats.iter().enumerate().map(|(number, nat)| (nat.outside, number)).collect(),
            hosts,
            trackers,
            faults,
            nats,
            net: scenario.net.clone(),
            order: scenario.scenario.order,
            parties,
            sockets,
        })
    }

    /// How many hosts and trackers there are.
    pub fn party_count(&self) -> usize {
        self.hosts.len() + self.trackers.len()
    }

    /// The host or tracker at an address, as a party.
    pub fn party_at(&self, address: IpAddr) -> Option<usize> {
        self.parties.get(&address).copied()
    }

    /// The party that a tracker is.
    pub fn tracker_party(&self, tracker: usize) -> usize {
        self.hosts.len() + tracker
    }

    /// The tracker that listens there.
    pub fn tracker_at(&self, socket: SocketAddr) -> Option<usize> {
        self.sockets.get(&socket).copied()
    }

    /// The box whose address outside this is.
    pub fn nat_at(&self, address: IpAddr) -> Option<usize> {
        self.outsides.get(&address).copied()
    }

    /// The paths that begin at each party.
    pub fn senders(&self) -> Vec<Sender> {
        let hosts = self.hosts.iter().map(|host| Rng::stream(self.seed, "loss", host.id));
        let trackers = (0u64..).zip(&self.trackers);
        let trackers = trackers.map(|(number, _)| Rng::stream(self.seed, "tracker-loss", number));
        hosts.chain(trackers).map(Sender::new).collect()
    }

    /// What a name stands for in DNS; none for an unknown one.
    pub fn addresses_of(&self, name: &str) -> Option<Vec<IpAddr>> {
        if name == ROUTER_NAME {
            let routers = self.hosts.iter().filter(|host| host.is_router);
            return Some(routers.flat_map(|host| [Some(host.address), host.second]).flatten().collect());
        }
        let tracker = self.trackers.iter().find(|tracker| tracker.dns_name == name)?;
        let second = tracker.second.map(|socket| socket.ip());
        Some(tracker.stale.iter().copied().chain([tracker.address.ip()]).chain(second).collect())
    }

    /// One way between two addresses, in nanoseconds; the same in both directions.
    pub fn latency(&self, a: IpAddr, b: IpAddr) -> u64 {
        let (a, b) = (self.anchor(a), self.anchor(b));
        if let Some(geography) = self.net.geography {
            let place =
                |anchor| Rng::stream(self.seed, "place", anchor).below(geography.places() as u64) as usize;
            return geography.latency(place(a), place(b));
        }
        draw(&mut Rng::stream(self.seed, "latency", (a.min(b) << 32) | a.max(b)), self.net.latency)
    }

    /// What latency is drawn for: the same whichever of its addresses a party uses.
    fn anchor(&self, address: IpAddr) -> u64 {
        let party = self.party_at(address);
        let ip = match party.map(|party| self.hosts.get(party).ok_or(party)) {
            Some(Ok(host)) => host_address(host.id),
            Some(Err(party)) => tracker_address(party - self.hosts.len()),
            None => address,
        };
        match ip {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits() as u64 & u64::from(u32::MAX),
        }
    }

    /// The box that translates what a host sends to an address: none on the way to a neighbour.
    pub fn nat_towards(&self, host: usize, to: IpAddr) -> Option<usize> {
        let nat = self.hosts[host].nat.filter(|_| to.is_ipv4())?;
        let is_neighbour = self.party_at(to).is_some_and(|there| {
            self.nat_at(to).is_none() && self.hosts.get(there).is_some_and(|other| other.nat == Some(nat))
        });
        (!is_neighbour).then_some(nat)
    }

    /// The host at an address, or the only one behind it.
    pub fn host_at(&self, address: IpAddr) -> Option<usize> {
        let mut hosts = self.hosts_at(address);
        let first = hosts.next();
        first.filter(|_| hosts.next().is_none())
    }

    /// All hosts at an address: behind a box there may be several.
    pub fn hosts_at(&self, address: IpAddr) -> impl Iterator<Item = usize> {
        let nat = self.nat_at(address);
        let (there, boxed) =
            if nat.is_none() { (self.party_at(address), 0) } else { (None, self.hosts.len()) };
        let behind = (0..boxed).filter(move |host| self.hosts[*host].nat == nat);
        there.filter(|party| *party < self.hosts.len()).into_iter().chain(behind)
    }

    /// The host at an address, if it lies.
    pub fn liar_at(&self, address: IpAddr) -> Option<usize> {
        if self.has_liars {
            self.host_at(address).filter(|host| self.hosts[*host].lies.is_some())
        } else {
            None
        }
    }

    /// The least time in which every host of `group` can have `bytes`, by the rates of links alone:
    /// `max(F / u_seed, F / d_min, N F / (u_seed + sum u_i))`, in nanoseconds. Nobody counts on liars.
    pub fn fluid_bound(&self, group: &str, bytes: u64) -> u64 {
        let up = |host: &&HostPlan| u128::from(host.access.up.0);
        let honest = || self.hosts.iter().filter(|host| host.is_honest());
        let seed: u128 = honest().filter(|host| host.has_all).map(|host| up(&host)).sum();
        let all: u128 = honest().map(|host| up(&host)).sum();
        let wanting = self.hosts.iter().filter(|host| !host.has_all && host.puppet.is_none());
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

    /// Hosts that run our engine and begin with nothing.
    pub fn fetching(&self) -> impl Iterator<Item = usize> {
        let hosts = self.hosts.iter().enumerate();
        hosts.filter(|(_, host)| !host.has_all && host.puppet.is_none()).map(|(number, _)| number)
    }

    /// The fluid bound for all that begin with nothing; none where nobody does, or nobody honest has anything.
    pub fn fluid_bound_of_all(&self, bytes: u64) -> Option<u64> {
        let bounds = self.fetching().map(|host| self.fluid_bound(&self.hosts[host].group, bytes));
        bounds.max().filter(|bound| (1..u64::MAX).contains(bound))
    }
}

/// A number from a range of times.
pub fn draw(rng: &mut Rng, range: TimeRange) -> u64 {
    range.low + rng.below(range.high - range.low + 1)
}

/// The same scenario with everything drawn that faults leave to chance: when, for how long, whom, how.
pub fn settle(scenario: &Scenario, seed: u64) -> Scenario {
    let mut settled = Scenario { faults: Vec::new(), ..scenario.clone() };
    let hosts = hosts(scenario, seed);
    for (number, fault) in (0u64..).zip(&scenario.faults) {
        let mut rng = Rng::stream(seed, "fault", number);
        let mut drawn = |range: TimeRange| {
            let time = draw(&mut rng, range);
            TimeRange { low: time, high: time }
        };
        let mut fault = fault.clone();
        fault.at = fault.at.map(&mut drawn);
        fault.back_after = fault.back_after.map(&mut drawn);
        fault.lasts = fault.lasts.map(&mut drawn);
        if fault.kind.draws_host() {
            fault.pick = pick(&mut rng, &hosts, &settled.faults, &fault);
        }
        keep_one(&mut rng, &mut fault.how);
        keep_one(&mut rng, &mut fault.by);
        keep_one(&mut rng, &mut fault.error);
        fault.call = fault.call.map(|CountRange { low, high }| {
            let call = low + rng.below(high - low + 1);
            CountRange { low: call, high: call }
        });
        settled.faults.push(fault);
    }
    settled
}

fn keep_one<T: Copy>(rng: &mut Rng, choices: &mut Vec<T>) {
    if !choices.is_empty() {
        *choices = vec![choices[rng.below(choices.len() as u64) as usize]];
    }
}

/// One of those that a fault may pick, by group or by host. Who is down then already would not notice, and is spared.
fn pick(rng: &mut Rng, hosts: &[HostPlan], settled: &[Fault], fault: &Fault) -> String {
    let named = hosts.iter().filter(|host| host.group == fault.pick || host.name == fault.pick);
    let named: Vec<&str> = named.map(|host| host.name.as_str()).collect();
    let span = |fault: &Fault| {
        let lasts = fault.back_after.or(fault.lasts).map_or(0, |lasts| lasts.low);
        fault.at.map(|at| (at.low, at.low + lasts))
    };
    let is_down = |host: &&&str| {
        let mut others = settled.iter().filter(|other| other.pick == ***host && other.kind.takes_down());
        others.any(|other| match (span(fault), span(other)) {
            (Some((from, to)), Some((other_from, other_to))) => other_from <= to && from <= other_to,
            _ => false,
        })
    };
    let up: Vec<&str> = named.iter().filter(|host| !is_down(host)).copied().collect();
    let choices = if up.is_empty() { named } else { up };
    choices[rng.below(choices.len() as u64) as usize].to_owned()
}

fn hosts(scenario: &Scenario, seed: u64) -> Vec<HostPlan> {
    let mut first = 0;
    let mut hosts = Vec::new();
    for group in &scenario.groups {
        let nat = scenario.nats.iter().position(|nat| group.behind.as_ref() == Some(&nat.name));
        let has = |family| group.interfaces.contains(&family);
        hosts.extend(group.numbers().map(|number| {
            let id = first + u64::from(number) - 1;
            HostPlan {
                name: format!("{}-{number}", group.name),
                id,
                group: group.name.clone(),
                address: match (has(Family::V4), nat) {
                    (true, None) => host_address(id),
                    (true, Some(_)) => inner_address(id),
                    (false, _) => host_address_v6(id),
                },
                second: (has(Family::V4) && has(Family::V6)).then(|| host_address_v6(id)),
                nat,
                access: access_of(&group.access, seed, id),
                disk: group.disk,
                config: group.config.config(),
                is_router: group.config.dht == Some(DhtRole::Router),
                has_all: group.has == Has::All,
                magnet: group.magnet,
                lies: group.lies.map(|share| (share.part, share.of)),
                puppet: None,
            }
        }));
        first += u64::from(group.count);
    }
    hosts.extend(crate::puppet::cast(&scenario.actors, &scenario.nats));
    hosts
}

/// The link that a host has, or draws.
fn access_of(accesses: &Accesses, seed: u64, id: u64) -> Access {
    let share = |access: &Access| u64::from(access.share.unwrap_or(1));
    let mut left = match accesses.0.as_slice() {
        [only] => return *only,
        several => Rng::stream(seed, "access", id).below(several.iter().map(share).sum()),
    };
    let drawn = accesses.0.iter().find(|access| {
        let is_it = left < share(access);
        left = left.saturating_sub(share(access));
        is_it
    });
    *drawn.expect("a draw is below the sum")
}

impl HostPlan {
    /// Whether it has addresses of IPv4, of IPv6.
    pub fn families(&self) -> (bool, bool) {
        let addresses = || [Some(self.address), self.second].into_iter().flatten();
        (addresses().any(|ip| ip.is_ipv4()), addresses().any(|ip| ip.is_ipv6()))
    }

    /// Its own address, of the family of another.
    pub fn address_towards(&self, remote: IpAddr) -> Option<IpAddr> {
        [Some(self.address), self.second].into_iter().flatten().find(|own| own.is_ipv4() == remote.is_ipv4())
    }
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
    let trackers = scenario.actors.iter().filter(|actor| actor.kind == ActorKind::Tracker);
    let named = trackers.enumerate().map(|(number, actor)| {
        let has = |family| actor.interfaces.contains(&family);
        let sockets = [
            has(Family::V4).then(|| tracker_address(number)),
            has(Family::V6).then(|| tracker_address_v6(number)),
        ];
        let mut sockets = sockets.into_iter().flatten().map(|ip| SocketAddr::new(ip, TRACKER_PORT));
        TrackerPlan {
            address: sockets.next().expect("a checked actor has an interface"),
            second: sockets.next(),
            stale: (0..actor.stale_addresses)
                .map(|stale| Ipv4Addr::new(94, 1, number as u8 + 1, stale + 1).into())
                .collect(),
            udp: actor.proto == Some(Proto::Udp),
            dns_name: format!("{}.sim", actor.name),
            name: actor.name.clone(),
            script: actor.script.clone(),
        }
    });
    let mut list: Vec<_> = named.collect();
    if list.is_empty() && !scenario.scenario.trackerless {
        list.push(TrackerPlan {
            name: "tracker".to_owned(),
            dns_name: "tracker.sim".to_owned(),
            address: SocketAddr::new(tracker_address(0), TRACKER_PORT),
            second: scenario
                .groups
                .iter()
                .any(|group| group.interfaces.contains(&Family::V6))
                .then(|| SocketAddr::new(tracker_address_v6(0), TRACKER_PORT)),
            stale: Vec::new(),
            udp: false,
            script: Vec::new(),
        });
    }
    list
}

fn tracker_address(number: usize) -> IpAddr {
    Ipv4Addr::new(94, 0, 0, number as u8 + 1).into()
}

fn tracker_address_v6(number: usize) -> IpAddr {
    Ipv6Addr::new(0x2a01, number as u16 + 1, 0, 0, 0, 0, 0, 1).into()
}

/// Public addresses, each in a range of its own: what comes from a tracker in another scope would be refused, and who
/// shares a range shares a slot.
fn host_address(id: u64) -> IpAddr {
    Ipv4Addr::from_bits((93 << 24) | ((id as u32 + 1) << 8) | 1).into()
}

fn host_address_v6(id: u64) -> IpAddr {
    let number = id as u32 + 1;
    Ipv6Addr::new(0x2a00, (number >> 16) as u16, number as u16, 0, 0, 0, 0, 1).into()
}

/// Behind a box; public ranges are outside.
fn inner_address(id: u64) -> IpAddr {
    Ipv4Addr::from_bits((10 << 24) | (id as u32 + 2)).into()
}

/// After the name of a tracker with two addresses, where it is told something at the second.
pub(crate) const OTHER_FAMILY: &str = " over IPv6";
/// Where every host keeps its files.
pub const ROOT: &str = "/data";
/// Where every engine listens.
pub const PEER_PORT: u16 = 6881;
/// What nodes of the DHT that others begin with are called in DNS.
pub const ROUTER_NAME: &str = "router.sim";
/// When every run begins, seconds since 1970.
pub const WALL_SECONDS: i64 = 1_700_000_000;
const TRACKER_PORT: u16 = 6969;
/// What is in a file that somebody else keeps where every host keeps its own.
const NOT_OURS: &[u8] = b"nobody may touch this";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_has_the_hash_that_it_would_have() {
        let materials = Materials::new(scenario(""));
        let torrent = &materials.torrents[0];
        let (begin, length) = torrent.piece(1);
        let piece = torrent.content.slice(begin, length);
        let mut spoilt = piece.to_vec();
        *spoilt.last_mut().unwrap() ^= 1;
        let (last, last_length) = torrent.piece(torrent.piece_count() - 1);
        let last = torrent.content.slice(last, last_length);
        let messages: [Vec<&[u8]>; 5] =
            [vec![&piece[..100], &piece[100..]], vec![&spoilt], vec![&piece[..100]], vec![&last], vec![]];
        assert_eq!(
            messages.each_ref().map(|message| torrent.sha1_known(message).is_some()),
            [true, false, false, true, false]
        );
        let (mut known, mut computed) = (Vec::new(), Vec::new());
        materials.sha1_known(&messages, &mut known);
        sha1_each(&messages, &mut computed);
        assert_eq!(known, computed);
    }

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
        assert_eq!(disk.own_bytes(), NOT_OURS.len() as u64, "payload is kept once");
    }
}
