//! Who announced themselves to us, for which swarm: capped, and forgotten after 45 minutes.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;
use std::time::Duration;

use sha1::{Digest as _, Sha1};

use crate::address::Scope;
use crate::ids::InfoHash;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::krpc::{Blooms, Samples};

#[derive(Debug)]
pub(crate) struct Store {
    swarms: BTreeMap<InfoHash, Swarm>,
    peers: usize,
    /// How many entries each public host has.
    hosts: BTreeMap<IpAddr, usize>,
    rng: Rng,
    /// When the expired are looked for again in all swarms.
    sweep_at: Instant,
    /// Where the samples of this interval begin, and until when.
    sampled: ([u8; 20], Instant),
}

#[derive(Debug, Default)]
struct Swarm {
    peers: BTreeMap<SocketAddr, Peer>,
    /// The latest announce.
    latest: Instant,
}

#[derive(Debug)]
struct Peer {
    since: Instant,
    is_seed: bool,
}

impl Store {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            swarms: BTreeMap::new(),
            peers: 0,
            hosts: BTreeMap::new(),
            rng,
            sweep_at: Instant::START,
            sampled: ([0; 20], Instant::START),
        }
    }

    /// How many swarms and peers there are, expired ones not yet forgotten included.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.swarms.len(), self.peers)
    }

    /// A peer says that it is in a swarm; it has proved its address.
    pub(crate) fn announce(&mut self, now: Instant, info_hash: InfoHash, address: SocketAddr, is_seed: bool) {
        let peer = Peer { since: now, is_seed };
        if let Some(swarm) = self.swarms.get_mut(&info_hash)
            && let Some(known) = swarm.peers.get_mut(&address)
        {
            (*known, swarm.latest) = (peer, now);
            return;
        }
        let host = Some(address.ip().to_canonical()).filter(|ip| Scope::of(*ip) == Scope::Public);
        let entries = host.and_then(|ip| self.hosts.get(&ip)).copied().unwrap_or(0);
        if entries >= ENTRIES_PER_HOST_MAX {
            return;
        }
        self.make_room(now, info_hash);
        let swarm = self.swarms.entry(info_hash).or_default();
        if swarm.peers.len() >= PEERS_PER_SWARM_MAX {
            let oldest = swarm.peers.iter().min_by_key(|(_, peer)| peer.since).map(|(address, _)| *address);
            oldest.into_iter().for_each(|oldest| self.remove(info_hash, oldest));
        }
        let swarm = self.swarms.entry(info_hash).or_default();
        swarm.peers.insert(address, peer);
        swarm.latest = now;
        self.peers += 1;
        if let Some(ip) = host {
            *self.hosts.entry(ip).or_default() += 1;
        }
    }

    /// Some peers of a swarm and of a family, drawn by chance.
    pub(crate) fn peers(
        &mut self,
        now: Instant,
        info_hash: InfoHash,
        ipv6: bool,
        no_seed: bool,
        max: usize,
    ) -> Vec<SocketAddr> {
        self.expire(now, info_hash);
        let Some(swarm) = self.swarms.get(&info_hash) else { return Vec::new() };
        let fits =
            |(address, peer): &(&SocketAddr, &Peer)| address.is_ipv6() == ipv6 && !(no_seed && peer.is_seed);
        let mut peers: Vec<_> = swarm.peers.iter().filter(fits).map(|(address, _)| *address).collect();
        self.rng.shuffle(&mut peers);
        peers.truncate(max);
        peers
    }

    /// The size of a swarm (BEP 33); none where we know of nobody.
    pub(crate) fn blooms(&mut self, now: Instant, info_hash: InfoHash) -> Option<Blooms> {
        self.expire(now, info_hash);
        let swarm = self.swarms.get(&info_hash)?;
        let mut blooms = Blooms { seeds: [0; 256], peers: [0; 256] };
        for (address, peer) in &swarm.peers {
            add_to_bloom(if peer.is_seed { &mut blooms.seeds } else { &mut blooms.peers }, address.ip());
        }
        Some(blooms)
    }

    /// Some of the swarms (BEP 51), the same ones within an interval.
    pub(crate) fn samples(&mut self, now: Instant) -> Samples {
        if self.sampled.1 <= now {
            let mut from = [0; 20];
            self.rng.fill(&mut from);
            self.sampled = (from, now + SAMPLE_TIME);
        }
        let from = InfoHash(self.sampled.0);
        let some = self.swarms.range(from..).chain(self.swarms.range(..from)).take(SAMPLES);
        Samples {
            interval: SAMPLE_TIME.as_secs() as i64,
            count: self.swarms.len() as i64,
            info_hashes: some.map(|(hash, _)| *hash).collect(),
        }
    }

    fn make_room(&mut self, now: Instant, info_hash: InfoHash) {
        let is_new = !self.swarms.contains_key(&info_hash);
        let is_full = |this: &Self| (is_new && this.swarms.len() >= SWARMS_MAX) || this.peers >= PEERS_MAX;
        if is_full(self) && self.sweep_at <= now {
            self.sweep_at = now + SWEEP_TIME;
            let all: Vec<_> = self.swarms.keys().copied().collect();
            all.into_iter().for_each(|hash| self.expire(now, hash));
        }
        while is_full(self) {
            let quietest = self.swarms.iter().min_by_key(|(_, swarm)| swarm.latest).map(|(hash, _)| *hash);
            let Some(quietest) = quietest else { return };
            let peers =
                self.swarms.get(&quietest).map(|swarm| swarm.peers.keys().copied().collect::<Vec<_>>());
            peers.unwrap_or_default().into_iter().for_each(|address| self.remove(quietest, address));
        }
    }

    fn expire(&mut self, now: Instant, info_hash: InfoHash) {
        let Some(swarm) = self.swarms.get(&info_hash) else { return };
        let old = swarm.peers.iter().filter(|(_, peer)| now.since(peer.since) >= PEER_TIME);
        let old: Vec<_> = old.map(|(address, _)| *address).collect();
        old.into_iter().for_each(|address| self.remove(info_hash, address));
    }

    fn remove(&mut self, info_hash: InfoHash, address: SocketAddr) {
        let Some(swarm) = self.swarms.get_mut(&info_hash) else { return };
        if swarm.peers.remove(&address).is_none() {
            return;
        }
        if swarm.peers.is_empty() {
            self.swarms.remove(&info_hash);
        }
        self.peers -= 1;
        let ip = address.ip().to_canonical();
        if let Some(entries) = self.hosts.get_mut(&ip) {
            *entries -= 1;
            if *entries == 0 {
                self.hosts.remove(&ip);
            }
        }
    }
}

/// Two bits of 2,048 for each address (BEP 33).
fn add_to_bloom(bloom: &mut [u8; 256], ip: IpAddr) {
    let hash = match ip.to_canonical() {
        IpAddr::V4(ip) => Sha1::digest(ip.octets()),
        IpAddr::V6(ip) => Sha1::digest(&ip.octets()[..8]),
    };
    for pair in [[hash[0], hash[1]], [hash[2], hash[3]]] {
        let bit = usize::from(u16::from_le_bytes(pair)) % 2048;
        bloom[bit / 8] |= 1 << (bit % 8);
    }
}

/// Swarms remembered; libtorrent's.
const SWARMS_MAX: usize = 2000;
/// Peers of one swarm; libtorrent's.
const PEERS_PER_SWARM_MAX: usize = 500;
/// Peers in all: some two megabytes.
const PEERS_MAX: usize = 20_000;
/// Entries of one public host: enough for a seedbox, of whose swarms each node sees a few.
const ENTRIES_PER_HOST_MAX: usize = 64;
/// How long an announce is believed; others come again after 15 to 30 minutes.
const PEER_TIME: Duration = Duration::from_secs(45 * 60);
/// A full store looks at everything it has no oftener, however much is announced.
const SWEEP_TIME: Duration = Duration::from_secs(60);
/// Info-hashes given at once, and for how long the same (BEP 51: at most six hours).
const SAMPLES: usize = 20;
const SAMPLE_TIME: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        Store::new(Rng::stream(1, "test", 0))
    }

    fn hash(n: u32) -> InfoHash {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        InfoHash(hash)
    }

    fn peer(n: u32) -> SocketAddr {
        (IpAddr::from((0x0b00_0000 + n).to_be_bytes()), 6881).into()
    }

    #[test]
    fn peers_are_given_by_family_and_kind_until_they_expire() {
        let mut store = store();
        let later = Instant::START + Duration::from_secs(60);
        store.announce(Instant::START, hash(1), peer(1), true);
        store.announce(later, hash(1), peer(2), false);
        store.announce(later, hash(1), "[2001:db8::1]:1".parse().unwrap(), false);
        assert_eq!(store.peers(later, hash(1), false, false, 9).len(), 2);
        assert_eq!(store.peers(later, hash(1), false, true, 9), [peer(2)]);
        assert_eq!(store.peers(later, hash(1), true, false, 9).len(), 1);
        assert_eq!(store.peers(Instant::START + PEER_TIME, hash(1), false, false, 9), [peer(2)]);
        assert!(store.peers(later + PEER_TIME, hash(1), false, false, 9).is_empty());
        assert_eq!((store.counts(), store.hosts.len()), ((0, 0), 0));
    }

    #[test]
    fn memory_is_bounded_whoever_announces() {
        let mut store = store();
        for n in 0..50_000 {
            store.announce(Instant(u64::from(n)), hash(n % 3000), peer(n), false);
        }
        for n in 0..1000 {
            store.announce(Instant(100_000), hash(1), peer(100_000 + n), false);
            store.announce(Instant(100_000), hash(n), peer(7), false);
        }
        let (swarms, peers) = store.counts();
        assert!(swarms <= SWARMS_MAX && peers <= PEERS_MAX, "{swarms} {peers}");
        assert_eq!(store.swarms[&hash(1)].peers.len(), PEERS_PER_SWARM_MAX);
        assert!(store.hosts[&peer(7).ip()] <= ENTRIES_PER_HOST_MAX);
        assert_eq!(store.swarms.values().map(|swarm| swarm.peers.len()).sum::<usize>(), peers);
        assert_eq!(store.hosts.values().sum::<usize>(), peers);
    }

    #[test]
    fn samples_are_the_same_within_an_interval() {
        let mut store = store();
        (0..100).for_each(|n| store.announce(Instant::START, hash(n << 24), peer(n), false));
        let samples = store.samples(Instant::START);
        assert_eq!((samples.info_hashes.len(), samples.count), (20, 100));
        assert_eq!(store.samples(Instant::START + SAMPLE_TIME / 2), samples);
    }
}
