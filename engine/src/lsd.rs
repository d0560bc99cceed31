//! Local service discovery (BEP 14): tells the local network in which swarms we are, and hears who else is.
//!
//! [`Lsd`] is a plain machine: torrents, datagrams and the time in, datagrams and peers out. A torrent is announced soon
//! after it opens, then every five minutes, and sooner when somebody new is heard who may not know of us. One datagram a
//! minute goes to each family's group, with as many torrents as fit, those that have waited longest first.
//!
//! What is heard is believed of senders on local networks alone, and of each host and of all together no more often than
//! an honest crowd speaks: what is more is not even read. Our own announces come back and are known by their cookie.
//!
//! What it never does: announce a torrent that was not opened to it, or answer to one address. Everything goes to the
//! groups, at its own pace, so that nobody can be flooded by it.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::address::{Scope, is_dialable};
use crate::allowance::Allowance;
use crate::ids::{InfoHash, TorrentId};
use crate::limits::{LSD_GREETED_MAX, LSD_HASHES_MAX, LSD_HOSTS_MAX};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::lsd::{GROUP_V4, GROUP_V6, LsdAnnounce};

/// Announces and hears.
#[derive(Debug)]
pub(crate) struct Lsd {
    /// Where peers reach us.
    port: u16,
    /// IPv4, IPv6.
    families: (bool, bool),
    cookie: Vec<u8>,
    rng: Rng,
    torrents: BTreeMap<TorrentId, Announced>,
    by_info_hash: BTreeMap<InfoHash, TorrentId>,
    due: BTreeSet<(Instant, TorrentId)>,
    /// Nothing goes out before.
    free_at: Instant,
    /// What all together may say.
    heard: Allowance,
    /// What each host may say, and when it last said something.
    hosts: BTreeMap<IpAddr, (Allowance, Instant)>,
    /// Clients in a swarm of ours, and when they were last heard: they need not hear from us at once.
    greeted: BTreeMap<(SocketAddr, TorrentId), Instant>,
    packets: VecDeque<(SocketAddr, Bytes)>,
}

#[derive(Debug)]
struct Announced {
    info_hash: InfoHash,
    due: Instant,
    /// When it was announced last.
    told_at: Option<Instant>,
}

impl Lsd {
    /// Without torrents. `families`: whether peers can reach us at `port` over IPv4, over IPv6.
    pub(crate) fn new(seed: u64, port: u16, families: (bool, bool)) -> Self {
        let mut rng = Rng::stream(seed, "lsd", 0);
        Self {
            port,
            families,
            cookie: format!("{:08x}", rng.next_u32()).into_bytes(),
            rng,
            torrents: BTreeMap::new(),
            by_info_hash: BTreeMap::new(),
            due: BTreeSet::new(),
            free_at: Instant::START,
            heard: Allowance::new(HEARD_PER_SECOND, HEARD_BURST),
            hosts: BTreeMap::new(),
            greeted: BTreeMap::new(),
            packets: VecDeque::new(),
        }
    }

    /// A torrent may be told of, or no longer.
    pub(crate) fn set_open(&mut self, now: Instant, torrent: TorrentId, info_hash: InfoHash, is_open: bool) {
        if is_open == self.torrents.contains_key(&torrent) {
            return;
        }
        if is_open {
            let due = now + SETTLE + Duration::from_nanos(self.rng.below(SETTLE.as_nanos() as u64));
            self.torrents.insert(torrent, Announced { info_hash, due, told_at: None });
            self.by_info_hash.insert(info_hash, torrent);
            self.due.insert((due, torrent));
        } else if let Some(announced) = self.torrents.remove(&torrent) {
            self.by_info_hash.remove(&announced.info_hash);
            self.due.remove(&(announced.due, torrent));
            self.greeted.retain(|(_, other), _| *other != torrent);
        }
    }

    /// A datagram came that begins as an announce does: who is where, in which torrent of ours.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        payload: &[u8],
    ) -> Vec<(TorrentId, SocketAddr)> {
        let host = remote.ip().to_canonical();
        if !is_near(host) || !self.admit(now, host) {
            return Vec::new();
        }
        let Some(announce) = LsdAnnounce::parse(payload) else { return Vec::new() };
        let peer = SocketAddr::new(host, announce.port);
        if announce.cookie == self.cookie || !is_dialable(peer) {
            return Vec::new();
        }
        let ours = announce.info_hashes.iter().filter_map(|info_hash| self.by_info_hash.get(info_hash));
        let ours: Vec<_> = ours.copied().collect();
        for torrent in &ours {
            self.greet(now, peer, *torrent);
        }
        ours.into_iter().map(|torrent| (torrent, peer)).collect()
    }

    /// The time of [`Self::poll_timeout`] has come: announces what is due, and what soon would be, as far as it fits.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if now < self.free_at || self.due.first().is_none_or(|(at, _)| *at > now) {
            return;
        }
        let soon = self.due.iter().take_while(|(at, _)| *at <= now + EARLY).take(LSD_HASHES_MAX);
        let round: Vec<_> = soon.copied().collect();
        let mut info_hashes = Vec::with_capacity(round.len());
        let next = now + INTERVAL;
        for (at, torrent) in round {
            let Some(announced) = self.torrents.get_mut(&torrent) else { continue };
            info_hashes.push(announced.info_hash);
            (announced.due, announced.told_at) = (next, Some(now));
            self.due.remove(&(at, torrent));
            self.due.insert((next, torrent));
        }
        self.free_at = now + PACE;
        let announce = LsdAnnounce { port: self.port, info_hashes, cookie: self.cookie.clone() };
        for (group, is_there) in [(GROUP_V4, self.families.0), (GROUP_V6, self.families.1)] {
            if is_there {
                self.packets.push_back((group, announce.encode(group).into()));
            }
        }
    }

    /// The network may be another one: everybody there is new, and so are we.
    pub(crate) fn renew(&mut self, now: Instant) {
        self.greeted.clear();
        self.due.clear();
        for (torrent, announced) in &mut self.torrents {
            announced.due = announced.due.min(now + SETTLE);
            self.due.insert((announced.due, *torrent));
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| (*at).max(self.free_at))
    }

    /// The next datagram to send, to a group.
    pub(crate) fn poll_packet(&mut self) -> Option<(SocketAddr, Bytes)> {
        self.packets.pop_front()
    }

    /// Whether one more of a host is read.
    fn admit(&mut self, now: Instant, host: IpAddr) -> bool {
        if !self.hosts.contains_key(&host) && self.hosts.len() >= LSD_HOSTS_MAX {
            self.hosts.retain(|_, (_, last)| now.since(*last) < HOST_KEPT);
            if self.hosts.len() >= LSD_HOSTS_MAX {
                return false;
            }
        }
        let fresh = || (Allowance::new(HOST_PER_SECOND, HOST_BURST), now);
        let (allowance, last) = self.hosts.entry(host).or_insert_with(fresh);
        *last = now;
        // In this order, so that one host alone cannot use up what is there for all.
        allowance.take(now, 1) && self.heard.take(now, 1)
    }

    /// Somebody was heard. Who is new hears from us as soon as the pace allows, unless he was there when we spoke last.
    fn greet(&mut self, now: Instant, peer: SocketAddr, torrent: TorrentId) {
        if let Some(last) = self.greeted.get_mut(&(peer, torrent)) {
            *last = now;
            return;
        }
        if self.greeted.len() >= LSD_GREETED_MAX {
            self.greeted.retain(|_, last| now.since(*last) < GREETED_KEPT);
            if self.greeted.len() >= LSD_GREETED_MAX {
                return;
            }
        }
        self.greeted.insert((peer, torrent), now);
        let Some(announced) = self.torrents.get_mut(&torrent) else { return };
        let sooner = now + Duration::from_nanos(self.rng.below(SETTLE.as_nanos() as u64));
        if announced.due > sooner && announced.told_at.is_some() {
            self.due.remove(&(announced.due, torrent));
            announced.due = sooner;
            self.due.insert((sooner, torrent));
        }
    }
}

/// Whether an address is of a local network or of this machine, and can be dialled by its number alone: not so those of
/// IPv6 that only an interface makes unambiguous.
fn is_near(ip: IpAddr) -> bool {
    let needs_interface = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    Scope::of(ip) != Scope::Public && !needs_interface
}

/// Between two announces of a torrent (BEP 14).
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Between two datagrams to a group (BEP 14).
const PACE: Duration = Duration::from_secs(60);
/// What is due so soon goes with what is due now: the next datagram would be for it alone.
const EARLY: Duration = PACE;
/// Between opening and the first announce, at least, so that torrents that open together are announced together; as much
/// is added at random, so that machines that start together do not speak together.
const SETTLE: Duration = Duration::from_secs(1);
/// Announces read a second, of all together; Transmission reads as many.
const HEARD_PER_SECOND: u64 = 10;
/// Those of a busy moment.
const HEARD_BURST: u64 = 100;
/// The same of one host: there are clients that send a datagram for each torrent.
const HOST_PER_SECOND: u64 = 1;
const HOST_BURST: u64 = 30;
/// A host that was silent for so long makes room for another.
const HOST_KEPT: Duration = Duration::from_secs(60);
/// A client that missed so much may be gone, and new when it is back.
const GREETED_KEPT: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn info_hash(n: u32) -> InfoHash {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        InfoHash(hash)
    }

    fn with_torrents(count: u32, families: (bool, bool)) -> Lsd {
        let mut lsd = Lsd::new(7, 6881, families);
        (0..count).for_each(|n| lsd.set_open(at(0), TorrentId(n), info_hash(n), true));
        lsd
    }

    /// What is announced until then: when, to whom, what.
    fn run(lsd: &mut Lsd, until: u64) -> Vec<(Instant, SocketAddr, LsdAnnounce)> {
        let mut said = Vec::new();
        while let Some(due) = lsd.poll_timeout().filter(|due| *due <= at(until)) {
            lsd.handle_timeout(due);
            assert!(lsd.poll_timeout() > Some(due), "it goes on");
            while let Some((group, payload)) = lsd.poll_packet() {
                said.push((due, group, LsdAnnounce::parse(&payload).unwrap()));
            }
        }
        said
    }

    fn say(port: u16, hashes: &[u32], cookie: &[u8]) -> Vec<u8> {
        let info_hashes = hashes.iter().map(|n| info_hash(*n)).collect();
        LsdAnnounce { port, info_hashes, cookie: cookie.to_vec() }.encode(GROUP_V4)
    }

    fn hear(lsd: &mut Lsd, now: Instant, from: &str, payload: &[u8]) -> Vec<(TorrentId, SocketAddr)> {
        lsd.handle_datagram(now, SocketAddr::new(from.parse().unwrap(), 6771), payload)
    }

    #[test]
    fn a_torrent_is_announced_soon_and_every_five_minutes_in_each_family() {
        let mut lsd = with_torrents(1, (true, true));
        let said = run(&mut lsd, 1502);
        let groups: Vec<_> = said.iter().map(|(_, group, _)| *group).collect();
        assert_eq!(groups, [GROUP_V4, GROUP_V6].repeat(6));
        assert!(said[0].0 >= at(1) && said[0].0 <= at(2), "{:?}", said[0].0);
        for pair in said.chunks(2).collect::<Vec<_>>().windows(2) {
            assert_eq!(pair[1][0].0.since(pair[0][0].0), INTERVAL);
        }
        assert!(said.iter().all(|(_, _, announce)| announce.info_hashes == [info_hash(0)]));
        assert!(said.iter().all(|(_, _, announce)| announce.port == 6881 && announce.cookie.len() == 8));
        assert_eq!(run(&mut with_torrents(1, (true, false)), 600).len(), 2);
    }

    #[test]
    fn many_torrents_take_turns_with_a_datagram_a_minute() {
        let mut lsd = with_torrents(200, (true, false));
        let said = run(&mut lsd, 3600);
        assert!(said.windows(2).all(|pair| pair[1].0.since(pair[0].0) >= PACE));
        let mut counts = BTreeMap::new();
        for (.., announce) in &said {
            assert_eq!(announce.info_hashes.len(), LSD_HASHES_MAX);
            announce.info_hashes.iter().for_each(|hash| *counts.entry(*hash).or_insert(0) += 1);
        }
        // Eight datagrams are one turn of all.
        assert_eq!((said.len(), counts.len()), (60, 200));
        assert!(counts.values().all(|count| (7..=8).contains(count)), "{counts:?}");
        // Torrents of one datagram stay together.
        assert_eq!(run(&mut with_torrents(20, (true, false)), 1502).len(), 6);
    }

    #[test]
    fn what_is_closed_is_not_said_any_more() {
        let mut lsd = with_torrents(2, (true, false));
        lsd.set_open(at(0), TorrentId(0), info_hash(0), false);
        assert!(run(&mut lsd, 600).iter().all(|(.., announce)| announce.info_hashes == [info_hash(1)]));
        lsd.set_open(at(600), TorrentId(1), info_hash(1), false);
        assert_eq!((run(&mut lsd, 6000).len(), lsd.poll_timeout()), (0, None));
        assert!(hear(&mut lsd, at(6000), "10.0.0.1", &say(1, &[0, 1], b"")).is_empty());
    }

    #[test]
    fn local_senders_alone_are_believed_and_ourselves_never() {
        let mut lsd = with_torrents(2, (true, true));
        let other = say(51413, &[1, 9], b"other");
        for near in ["10.1.2.3", "192.168.1.9", "169.254.7.7", "127.0.0.1", "fd00::7", "::ffff:10.0.0.9"] {
            let ip: IpAddr = near.parse().unwrap();
            let peer = SocketAddr::new(ip.to_canonical(), 51413);
            assert_eq!(hear(&mut lsd, at(1), near, &other), [(TorrentId(1), peer)], "{near}");
        }
        for far in ["8.8.8.8", "2001:db8::1", "fe80::1", "0.0.0.0", "224.0.0.1"] {
            assert!(hear(&mut lsd, at(1), far, &other).is_empty(), "{far}");
        }
        let own = lsd.cookie.clone();
        assert!(hear(&mut lsd, at(1), "10.1.2.3", &say(51413, &[1], &own)).is_empty());
        assert!(hear(&mut lsd, at(1), "10.1.2.3", b"BT-SEARCH * HTTP/1.1\r\n\r\n").is_empty());
    }

    #[test]
    fn who_is_new_hears_from_us_sooner_but_never_twice_a_minute() {
        let mut lsd = with_torrents(1, (true, false));
        let first = run(&mut lsd, 5)[0].0;
        hear(&mut lsd, at(10), "10.0.0.1", &say(1, &[0], b"a"));
        let second = run(&mut lsd, 299);
        assert_eq!(second.len(), 1);
        assert_eq!(second[0].0.since(first), PACE);
        // It is known now: nobody answers answers.
        hear(&mut lsd, at(100), "10.0.0.1", &say(1, &[0], b"a"));
        assert!(run(&mut lsd, 350).is_empty());
        hear(&mut lsd, at(200), "10.0.0.2", &say(1, &[0], b"b"));
        let third = run(&mut lsd, 350);
        assert!(third.len() == 1 && third[0].0 >= at(200) && third[0].0 <= at(202), "{third:?}");
    }

    #[test]
    fn a_storm_costs_bounded_memory_and_is_mostly_not_read() {
        let mut lsd = with_torrents(1, (true, false));
        let mut believed = 0;
        for n in 0..50_000u32 {
            let now = Instant(u64::from(n) * 1_000_000);
            let from = format!("10.{}.{}.{}", n % 7, n / 256 % 256, n % 256);
            believed += hear(&mut lsd, now, &from, &say((n % 60_000) as u16 + 1, &[0], b"x")).len();
        }
        assert!(believed as u64 <= HEARD_BURST + 51 * HEARD_PER_SECOND, "{believed}");
        assert!(lsd.hosts.len() <= LSD_HOSTS_MAX && lsd.greeted.len() <= LSD_GREETED_MAX);
        // One host that storms leaves the others their share.
        let mut lsd = with_torrents(1, (true, false));
        let storm =
            (1..=5000).filter(|n| !hear(&mut lsd, at(1), "10.0.0.1", &say(*n, &[0], b"x")).is_empty());
        assert_eq!(storm.count() as u64, HOST_BURST);
        assert_eq!(hear(&mut lsd, at(1), "10.0.0.2", &say(1, &[0], b"y")).len(), 1);
        assert!(run(&mut lsd, 61).len() <= 2, "and makes us say no more");
    }

    #[test]
    fn after_a_sleep_the_network_may_be_another_one() {
        let mut lsd = with_torrents(1, (true, false));
        run(&mut lsd, 10);
        lsd.renew(at(100));
        let said = run(&mut lsd, 102);
        assert_eq!(said.len(), 1);
        assert!(run(&mut lsd, 300).is_empty());
    }
}
