//! A tracker without sockets: announce and scrape requests in, answers out, over HTTP (BEP 3, BEP 7, BEP 23, BEP 48) and
//! over UDP (BEP 15).
//!
//! A peer is an address with a port, so nobody can speak for another; an announce keeps it for the expiry time. Every
//! table has a cap: what is beyond is refused in words. Peers are forgotten when requests come in, not by a timer, so an
//! idle tracker costs nothing.
//!
//! It never hands a peer to itself, never hands seeds to a seed, and believes an address in a request only when that
//! comes from this machine or a local network.

mod udp;

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::address::{Scope, is_dialable};
use crate::ids::{InfoHash, PeerId};
use crate::limits::{SCRAPE_ALL_MAX, TRACKER_QUERY_BYTES_MAX};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::tracker_http::{
    AnnounceAnswer, AnnounceEvent, AnnounceRequest, Announced, PeersForm, ScrapeEntry, TrackerPeer,
    encode_scrape, parse_scrape_query,
};

/// Settings of a tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerConfig {
    /// Between the announces of a peer.
    pub interval: Duration,
    /// Said to peers as the least between announces.
    pub min_interval: Duration,
    /// How long a peer is kept after its last announce.
    pub expiry: Duration,
    /// Peers handed out to who does not say how many it wants.
    pub numwant_default: u32,
    /// Peers handed out at most.
    pub numwant_max: u32,
    /// Torrents kept at most.
    pub torrents_max: usize,
    /// Peers kept per torrent at most.
    pub peers_per_torrent_max: usize,
    /// Peers kept over all torrents at most.
    pub peers_max: usize,
    /// Peers kept per torrent and address at most, for addresses that are not local.
    pub peers_per_address_max: usize,
    /// The torrents served; none: any.
    pub allow: Option<BTreeSet<InfoHash>>,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self::with_interval(Duration::from_secs(30 * 60))
    }
}

impl TrackerConfig {
    /// The defaults that follow from an interval: at least 1 s; the minimum is half of it, 60 s at most; a peer that
    /// missed one announce and is late with the next is forgotten.
    pub fn with_interval(interval: Duration) -> Self {
        let interval = interval.max(Duration::from_secs(1));
        Self {
            interval,
            min_interval: (interval / 2).min(Duration::from_secs(60)),
            expiry: interval * 2 + (interval / 4).max(Duration::from_secs(30)),
            numwant_default: 50,
            numwant_max: 200,
            torrents_max: 100_000,
            peers_per_torrent_max: 20_000,
            peers_max: 1_000_000,
            peers_per_address_max: 32,
            allow: None,
        }
    }
}

/// A tracker.
#[derive(Debug)]
pub struct TrackerServer {
    config: TrackerConfig,
    rng: Rng,
    /// Makes connection ids that nobody can guess.
    secret: [u8; 16],
    swarms: BTreeMap<InfoHash, Swarm>,
    /// All peers by their last announce.
    ages: BTreeSet<(Instant, InfoHash, SocketAddr)>,
    /// All torrents by their last announce, to make room.
    idle: BTreeSet<(Instant, InfoHash)>,
}

/// What a tracker counts for one torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SwarmStats {
    /// Peers now that have everything.
    pub complete: u64,
    /// Peers now that do not.
    pub incomplete: u64,
    /// Peers that said `completed`, each once as long as it is kept.
    pub downloaded: u64,
    /// Announces taken with `started`.
    pub started: u64,
    /// Announces taken with `completed`.
    pub completed: u64,
    /// Announces taken with `stopped`.
    pub stopped: u64,
    /// Announces taken without an event.
    pub regular: u64,
}

#[derive(Debug, Default)]
struct Swarm {
    /// All peers by family, and by whether they have everything; in no order that matters.
    lists: [Vec<SocketAddr>; 4],
    peers: BTreeMap<SocketAddr, Peer>,
    stats: SwarmStats,
    announced_at: Instant,
}

#[derive(Debug)]
struct Peer {
    peer_id: PeerId,
    is_seed: bool,
    /// Its place in its list.
    at: usize,
    announced_at: Instant,
    said_completed: bool,
}

/// Which peers an answer has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Families {
    Both,
    V4,
    V6,
}

impl Families {
    /// The places in [`Swarm::lists`].
    fn lists(self, is_seed: bool) -> impl Iterator<Item = usize> {
        let families = match self {
            Self::Both => 0..2,
            Self::V4 => 0..1,
            Self::V6 => 1..2,
        };
        families.map(move |family| family * 2 + usize::from(is_seed))
    }
}

/// Why an announce is not taken; said to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Request(#[from] crate::wire::tracker_http::RequestError),
    #[error("this tracker does not serve that torrent")]
    NotServed,
    #[error("this tracker is full: no more torrents")]
    TorrentsFull,
    #[error("this tracker is full: no more peers")]
    PeersFull,
    #[error("too many peers at one address")]
    AddressFull,
    #[error("nobody can connect to that address and port")]
    NotDialable,
}

impl TrackerServer {
    /// A tracker that knows nobody. Which peers are handed out is drawn from `rng`.
    pub fn new(config: TrackerConfig, mut rng: Rng) -> Self {
        let mut secret = [0; 16];
        rng.fill(&mut secret);
        Self { config, rng, secret, swarms: BTreeMap::new(), ages: BTreeSet::new(), idle: BTreeSet::new() }
    }

    /// Answers a GET request: HTTP status and body. `from` is the other end of the connection, `path_and_query` what
    /// stands in the request line. A refusal is a good answer in HTTP (200) with a failure reason in it.
    pub fn handle_http(&mut self, now: Instant, from: SocketAddr, path_and_query: &str) -> (u16, Bytes) {
        if path_and_query.len() > TRACKER_QUERY_BYTES_MAX {
            return (414, Bytes::from_static(b"the request is too long\n"));
        }
        self.forget_silent(now);
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        match path.trim_end_matches('/') {
            "/announce" => (200, self.announce(now, from, query)),
            "/scrape" => (200, self.scrape(query)),
            "" => (200, Bytes::from_static(b"this is a BitTorrent tracker: announce at /announce\n")),
            _ => (404, Bytes::from_static(b"not here: announce at /announce\n")),
        }
    }

    /// What is known of every torrent that was announced or is served by name.
    pub fn stats(&self) -> BTreeMap<InfoHash, SwarmStats> {
        let served = self.config.allow.iter().flatten().map(|hash| (*hash, SwarmStats::default()));
        served.chain(self.swarms.iter().map(|(hash, swarm)| (*hash, swarm.stats()))).collect()
    }

    /// The peers of a torrent that are kept now, by address.
    pub fn peers(&self, info_hash: InfoHash) -> impl Iterator<Item = SocketAddr> + '_ {
        self.swarms.get(&info_hash).into_iter().flat_map(|swarm| swarm.peers.keys().copied())
    }

    fn announce(&mut self, now: Instant, from: SocketAddr, query: &str) -> Bytes {
        let request = AnnounceRequest::parse(query);
        let form = match &request {
            Ok(AnnounceRequest { compact: Some(false), .. }) => PeersForm::Dictionaries,
            _ => PeersForm::Compact,
        };
        let answer = match request.map_err(Refusal::from).and_then(|request| {
            let (form, most) = (Families::Both, self.config.numwant_max);
            self.take(now, from, &request, form, most)
        }) {
            Ok(announced) => AnnounceAnswer::Taken(Box::new(announced)),
            Err(refusal) => AnnounceAnswer::Refused { reason: refusal.to_string(), retry: None },
        };
        answer.encode(form).into()
    }

    fn take(
        &mut self,
        now: Instant,
        from: SocketAddr,
        request: &AnnounceRequest,
        families: Families,
        most: u32,
    ) -> Result<Announced, Refusal> {
        let hash = request.info_hash;
        if self.config.allow.as_ref().is_some_and(|allow| !allow.contains(&hash)) {
            return Err(Refusal::NotServed);
        }
        let source = from.ip().to_canonical();
        let claimed = request.ip.filter(|_| Scope::of(source) != Scope::Public).map(|ip| ip.to_canonical());
        let address = SocketAddr::new(claimed.unwrap_or(source), request.port);
        let stopped = request.event == Some(AnnounceEvent::Stopped);
        // Port 0: it accepts nobody, but may dial.
        let keeps = !stopped && request.port != 0;
        if keeps && !is_dialable(address) {
            return Err(Refusal::NotDialable);
        }
        let known = self.swarms.get(&hash);
        let old = known.and_then(|swarm| swarm.peers.get(&address));
        let old = old.map(|peer| (peer.announced_at, peer.said_completed));
        if keeps && old.is_none() {
            self.may_come(known, address)?;
        }
        if known.is_none() && !keeps {
            return Ok(self.announced(SwarmStats::default(), Vec::new(), source));
        }
        self.make_room(hash)?;
        let swarm = self.swarms.entry(hash).or_default();
        self.idle.remove(&(swarm.announced_at, hash));
        self.idle.insert((now, hash));
        swarm.announced_at = now;
        match request.event {
            Some(AnnounceEvent::Started) => swarm.stats.started += 1,
            Some(AnnounceEvent::Completed) => swarm.stats.completed += 1,
            Some(AnnounceEvent::Stopped) => swarm.stats.stopped += 1,
            None => swarm.stats.regular += 1,
        }
        if let Some((announced_at, _)) = old {
            self.ages.remove(&(announced_at, hash, address));
            swarm.remove(address);
        }
        let is_seed = request.left == 0;
        if keeps {
            let before = old.is_some_and(|(_, said_completed)| said_completed);
            let completes = request.event == Some(AnnounceEvent::Completed);
            swarm.stats.downloaded += u64::from(completes && !before);
            let said_completed = before || completes;
            let peer = Peer { peer_id: request.peer_id, is_seed, at: 0, announced_at: now, said_completed };
            swarm.insert(address, peer);
            self.ages.insert((now, hash, address));
        }
        let wanted = request.numwant.unwrap_or(self.config.numwant_default).min(most);
        let wanted = if stopped { 0 } else { wanted as usize };
        let mut peers = swarm.draw(&mut self.rng, wanted, is_seed, families, address, request.peer_id);
        if request.no_peer_id {
            peers.iter_mut().for_each(|peer| peer.peer_id = None);
        }
        let stats = swarm.stats();
        Ok(self.announced(stats, peers, source))
    }

    fn announced(&self, stats: SwarmStats, peers: Vec<TrackerPeer>, source: IpAddr) -> Announced {
        let count = |count: u64| i64::try_from(count).ok();
        Announced {
            interval: count(self.config.interval.as_secs()),
            min_interval: count(self.config.min_interval.as_secs()),
            complete: count(stats.complete),
            incomplete: count(stats.incomplete),
            downloaded: count(stats.downloaded),
            peers,
            external_ip: Some(source),
            ..Announced::default()
        }
    }

    /// Whether there is room for one peer more in a swarm, if that is known.
    fn may_come(&self, swarm: Option<&Swarm>, address: SocketAddr) -> Result<(), Refusal> {
        if self.ages.len() >= self.config.peers_max {
            return Err(Refusal::PeersFull);
        }
        let Some(swarm) = swarm else { return Ok(()) };
        if swarm.peers.len() >= self.config.peers_per_torrent_max {
            return Err(Refusal::PeersFull);
        }
        let same = SocketAddr::new(address.ip(), 0)..=SocketAddr::new(address.ip(), u16::MAX);
        let many = swarm.peers.range(same).nth(self.config.peers_per_address_max.saturating_sub(1)).is_some();
        if many && Scope::of(address.ip()) == Scope::Public {
            return Err(Refusal::AddressFull);
        }
        Ok(())
    }

    fn scrape(&mut self, query: &str) -> Bytes {
        let hashes = match parse_scrape_query(query) {
            Ok(hashes) => hashes,
            Err(error) => {
                let answer = AnnounceAnswer::Refused { reason: error.to_string(), retry: None };
                return answer.encode(PeersForm::Compact).into();
            }
        };
        let files: BTreeMap<InfoHash, ScrapeEntry> = if hashes.is_empty() {
            let served = self.config.allow.iter().flatten().map(|hash| (*hash, ScrapeEntry::default()));
            let known = self.swarms.iter().map(|(hash, swarm)| (*hash, swarm.scraped()));
            served.take(SCRAPE_ALL_MAX).chain(known.take(SCRAPE_ALL_MAX)).collect()
        } else {
            hashes.into_iter().filter_map(|hash| Some((hash, self.scraped(hash)?))).collect()
        };
        encode_scrape(&files).into()
    }

    /// The counts of a torrent that was announced or is served by name.
    fn scraped(&self, hash: InfoHash) -> Option<ScrapeEntry> {
        let served = || self.config.allow.as_ref().is_some_and(|allow| allow.contains(&hash));
        let known = self.swarms.get(&hash).map(Swarm::scraped);
        known.or_else(|| served().then(ScrapeEntry::default))
    }

    /// Forgets peers that did not announce in time; at most so many at once, which keeps pace with those that come.
    fn forget_silent(&mut self, now: Instant) {
        for _ in 0..FORGOTTEN_AT_ONCE_MAX {
            let Some((announced_at, hash, address)) = self.ages.first().copied() else { return };
            if now.since(announced_at) <= self.config.expiry {
                return;
            }
            self.ages.pop_first();
            if let Some(swarm) = self.swarms.get_mut(&hash) {
                swarm.remove(address);
            }
        }
    }

    /// Sees to it that a torrent may be kept: the one that was silent for longest goes if all its peers are gone.
    fn make_room(&mut self, hash: InfoHash) -> Result<(), Refusal> {
        if self.swarms.contains_key(&hash) || self.swarms.len() < self.config.torrents_max {
            return Ok(());
        }
        let Some((_, oldest)) = self.idle.first().copied() else {
            return Err(Refusal::TorrentsFull);
        };
        if self.swarms.get(&oldest).is_some_and(|swarm| !swarm.peers.is_empty()) {
            return Err(Refusal::TorrentsFull);
        }
        self.idle.pop_first();
        self.swarms.remove(&oldest);
        Ok(())
    }
}

impl Swarm {
    fn stats(&self) -> SwarmStats {
        let count = |is_seed| Families::Both.lists(is_seed).map(|list| self.lists[list].len() as u64).sum();
        SwarmStats { complete: count(true), incomplete: count(false), ..self.stats }
    }

    fn scraped(&self) -> ScrapeEntry {
        let SwarmStats { complete, incomplete, downloaded, .. } = self.stats();
        ScrapeEntry { complete, downloaded, incomplete }
    }

    fn list(&mut self, address: SocketAddr, is_seed: bool) -> &mut Vec<SocketAddr> {
        &mut self.lists[usize::from(address.is_ipv6()) * 2 + usize::from(is_seed)]
    }

    fn insert(&mut self, address: SocketAddr, mut peer: Peer) {
        let list = self.list(address, peer.is_seed);
        peer.at = list.len();
        list.push(address);
        let old = self.peers.insert(address, peer);
        assert!(old.is_none(), "a peer is kept once");
    }

    fn remove(&mut self, address: SocketAddr) {
        let Some(Peer { is_seed, at, .. }) = self.peers.remove(&address) else { return };
        let list = self.list(address, is_seed);
        let removed = list.swap_remove(at);
        assert_eq!(removed, address, "a peer knows its place");
        let moved = list.get(at).copied();
        if let Some(moved) = moved.and_then(|moved| self.peers.get_mut(&moved)) {
            moved.at = at;
        }
    }

    /// Draws peers, each set as likely as any other, in random order. A seed has no use for seeds.
    fn draw(
        &self,
        rng: &mut Rng,
        wanted: usize,
        for_seed: bool,
        families: Families,
        to: SocketAddr,
        id: PeerId,
    ) -> Vec<TrackerPeer> {
        let seeds = families.lists(true).filter(|_| !for_seed);
        let lists: Vec<&[SocketAddr]> =
            families.lists(false).chain(seeds).map(|list| self.lists[list].as_slice()).collect();
        let total = lists.iter().map(|list| list.len()).sum::<usize>();
        // Two more than wanted, since the asker may be among them, in both families. Floyd's draw of some out of many.
        let some = wanted.saturating_add(2).min(total);
        let mut chosen = BTreeSet::new();
        for last in total - some..total {
            let at = rng.below(last as u64 + 1) as usize;
            chosen.insert(if chosen.contains(&at) { last } else { at });
        }
        let address = |mut at: usize| {
            lists.iter().find_map(|list| {
                let found = list.get(at).copied();
                at = at.saturating_sub(list.len());
                found
            })
        };
        let of = |address: SocketAddr| {
            let peer_id = self.peers.get(&address)?.peer_id;
            (address != to && peer_id != id).then_some(TrackerPeer { address, peer_id: Some(peer_id) })
        };
        let mut drawn: Vec<TrackerPeer> = chosen.into_iter().filter_map(address).filter_map(of).collect();
        rng.shuffle(&mut drawn);
        drawn.truncate(wanted);
        drawn
    }
}

/// Peers forgotten within one request at most: far more than one request can bring.
const FORGOTTEN_AT_ONCE_MAX: usize = 1000;

#[cfg(test)]
mod tests;
