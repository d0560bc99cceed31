//! Addresses that may be peers: who to dial next, who not yet, and who never again.
//!
//! A failed address waits 10 s, then four times as long each time up to two hours, with jitter. A banned one is never
//! dialled nor let in. Our own address, found out by meeting ourselves, is never dialled again.
//!
//! The table is bounded, and so is the share of each origin: who names many addresses displaces its own, those that
//! failed most first, and then those of whoever named most. So no tracker can fill the table, nor flush it. What peers name
//! of each other (BEP 11) has a smaller share for each host and the usual one for all together; it is forgotten when it
//! fails, so that nobody is dialled over and over because another said so, and so is who was on the local network.

use core::cmp::Reverse;
use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::address::{Scope, is_dialable};
use crate::limits::{
    CANDIDATES_MAX, CANDIDATES_PER_ORIGIN_MAX, CANDIDATES_PER_PEX_SOURCE_MAX, KEEP_OUT_TIME, KEPT_OUT_MAX,
    PEX_DIALS_MAX,
};
use crate::rng::Rng;
use crate::time::Instant;

/// The addresses known for one torrent.
#[derive(Debug)]
pub(crate) struct Candidates {
    known: BTreeMap<SocketAddr, Candidate>,
    /// Idle ones that wait, by when they may be dialled; the draw breaks ties by chance.
    ready: BTreeSet<(Instant, u32, SocketAddr)>,
    /// Idle ones whose time has come: those that failed least often last, the highest priority last of them (BEP 40). Else a
    /// crowd of dead addresses would be dialled over and over, and one that lives never.
    due: BTreeSet<(Reverse<u32>, u32, SocketAddr)>,
    /// Where others reach us, as far as we know; port 0 where we do not.
    local: Option<SocketAddr>,
    banned: BTreeSet<Banned>,
    /// How many each origin has named first.
    shares: BTreeMap<Origin, usize>,
    /// Hosts where a peer misbehaved, and until when nobody is let in from there.
    kept_out: BTreeMap<IpAddr, Instant>,
    rng: Rng,
}

/// Who named an address first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The user.
    User,
    /// A tracker, by its number in the torrent.
    Tracker(usize),
    /// A peer that says where it listens itself.
    Peer,
    /// A peer of ours, by its host, in peer exchange (BEP 11).
    Pex(IpAddr),
    /// Nodes of the DHT, all together.
    Dht,
    /// Hosts of the local network, all together, each about itself (BEP 14).
    Lsd,
}

#[derive(Debug)]
struct Candidate {
    origin: Origin,
    failures: u32,
    failed_at: Instant,
    ours: bool,
    /// None while it is dialled or connected, or is ourselves.
    place: Option<Spot>,
}

/// Where an idle one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    Ready(Instant, u32),
    Due(Reverse<u32>, u32),
    /// It has everything, as we have.
    Asleep,
}

/// A ban holds for the whole address; on local networks, where many share one, for the port as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Banned {
    Host(IpAddr),
    Socket(SocketAddr),
}

impl Candidates {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            known: BTreeMap::new(),
            ready: BTreeSet::new(),
            due: BTreeSet::new(),
            local: None,
            banned: BTreeSet::new(),
            shares: BTreeMap::new(),
            kept_out: BTreeMap::new(),
            rng,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Learns of an address. A known one that failed is tried again soon when somebody names it who does not repeat what
    /// others say.
    pub(crate) fn add(&mut self, now: Instant, address: SocketAddr, origin: Origin) {
        if !is_dialable(address) || self.is_banned(address) {
            return;
        }
        if let Some(candidate) = self.known.get(&address) {
            if let Some(Spot::Ready(at, _)) = candidate.place
                && candidate.failures > 0
                && !matches!(origin, Origin::Pex(_))
            {
                let soon = now.max(candidate.failed_at + NAMED_AGAIN);
                if soon < at {
                    self.place(soon, address, candidate.failures);
                }
            }
            return;
        }
        let named = self.shares.get(&origin).copied().unwrap_or(0);
        let is_spent = match origin {
            Origin::Pex(_) => {
                let exchanged = self.shares.iter().filter(|(origin, _)| matches!(origin, Origin::Pex(_)));
                let exchanged: usize = exchanged.map(|(_, count)| count).sum();
                named >= CANDIDATES_PER_PEX_SOURCE_MAX || exchanged >= CANDIDATES_PER_ORIGIN_MAX
            }
            _ => named >= CANDIDATES_PER_ORIGIN_MAX,
        };
        let most = self.shares.iter().map(|(other, count)| (*count, *other)).max();
        let room = if is_spent {
            self.evict(origin, true)
        } else if self.known.len() < CANDIDATES_MAX {
            true
        } else {
            // Who has named more than this one makes room for it, whatever it is worth.
            most.is_some_and(|(count, other)| {
                if count > named + 1 { self.evict(other, false) } else { self.evict(origin, true) }
            })
        };
        if !room {
            return;
        }
        *self.shares.entry(origin).or_default() += 1;
        let candidate =
            Candidate { origin, failures: 0, failed_at: Instant::START, ours: false, place: None };
        self.known.insert(address, candidate);
        self.place(now, address, 0);
    }

    /// The next one to dial now. It counts as busy from here on.
    pub(crate) fn take_next(&mut self, now: Instant) -> Option<SocketAddr> {
        while let Some((at, draw, address)) = self.ready.first().copied()
            && at <= now
        {
            self.ready.remove(&(at, draw, address));
            let priority = self.local.map_or(draw, |local| priority(local, address));
            if let Some(candidate) = self.known.get_mut(&address) {
                let failures = Reverse(candidate.failures);
                self.due.insert((failures, priority, address));
                candidate.place = Some(Spot::Due(failures, priority));
            }
        }
        let (.., address) = self.due.pop_last()?;
        if let Some(candidate) = self.known.get_mut(&address) {
            candidate.place = None;
        }
        Some(address)
    }

    /// When the next one may be dialled.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        if self.due.is_empty() { self.ready.first().map(|(at, ..)| *at) } else { Some(Instant::START) }
    }

    /// It connected to us: it need not be dialled.
    pub(crate) fn on_connected(&mut self, address: SocketAddr) {
        self.unplace(address);
    }

    /// A dial or a handshake failed.
    pub(crate) fn on_failed(&mut self, now: Instant, address: SocketAddr) {
        let failures = self.known.get(&address).map_or(0, |candidate| candidate.failures);
        let of_exchange = |candidate: &Candidate| matches!(candidate.origin, Origin::Pex(_) | Origin::Lsd);
        if failures + 1 >= PEX_DIALS_MAX && self.known.get(&address).is_some_and(of_exchange) {
            // Nobody else knows of it, and whoever named it may want us to trouble a stranger. Who is on the local network
            // says so again.
            return self.remove(address);
        }
        let wait = BACK_OFF.saturating_mul(4u32.saturating_pow(failures)).min(BACK_OFF_MAX);
        let jitter = Duration::from_nanos(self.rng.below(wait.as_nanos() as u64 / 4));
        self.place(now + wait + jitter, address, failures + 1);
        if let Some(candidate) = self.known.get_mut(&address) {
            candidate.failed_at = now;
        }
    }

    /// It made room for another: its turn comes after that of others.
    pub(crate) fn on_displaced(&mut self, now: Instant, address: SocketAddr) {
        let jitter = Duration::from_nanos(self.rng.below(DISPLACED.as_nanos() as u64));
        self.put_off(now + DISPLACED + jitter, address);
    }

    /// It is not dialled now, and not before `at`.
    pub(crate) fn put_off(&mut self, at: Instant, address: SocketAddr) {
        let failures = self.known.get(&address).map_or(0, |candidate| candidate.failures);
        self.place(at, address, failures);
    }

    /// A connection that had worked is over.
    pub(crate) fn on_closed(&mut self, now: Instant, address: SocketAddr) {
        let jitter = Duration::from_nanos(self.rng.below(BACK_OFF.as_nanos() as u64));
        self.place(now + BACK_OFF + jitter, address, 0);
    }

    /// It has everything, as we have: not dialled until [`Self::revive`].
    pub(crate) fn on_redundant(&mut self, address: SocketAddr) {
        self.unplace(address);
        if let Some(candidate) = self.known.get_mut(&address) {
            candidate.place = Some(Spot::Asleep);
        }
    }

    /// Forgets whom only peers, nodes of the DHT and the local network have named; gives them.
    pub(crate) fn forget_exchanged(&mut self) -> Vec<SocketAddr> {
        let of_exchange = |(_, candidate): &(&SocketAddr, &Candidate)| {
            matches!(candidate.origin, Origin::Pex(_) | Origin::Dht | Origin::Lsd)
        };
        let named: Vec<_> = self.known.iter().filter(of_exchange).map(|(address, _)| *address).collect();
        named.iter().for_each(|address| self.remove(*address));
        named
    }

    /// It is ourselves.
    pub(crate) fn on_ourselves(&mut self, address: SocketAddr) {
        self.unplace(address);
        if let Some(candidate) = self.known.get_mut(&address) {
            candidate.ours = true;
        }
    }

    /// We lack something again: those that have everything may be dialled.
    pub(crate) fn revive(&mut self, now: Instant) {
        let asleep = |(address, candidate): (&SocketAddr, &Candidate)| {
            (candidate.place == Some(Spot::Asleep)).then_some(*address)
        };
        let asleep: Vec<_> = self.known.iter().filter_map(asleep).collect();
        asleep.into_iter().for_each(|address| self.place(now, address, 0));
    }

    /// Whatever failed before may work now: all that wait may be dialled at once.
    pub(crate) fn renew(&mut self, now: Instant) {
        let waiting: Vec<_> = self.ready.iter().map(|(.., address)| *address).collect();
        waiting.into_iter().for_each(|address| self.place(now, address, 0));
    }

    /// What failed since then may work now; it is forgiven nothing.
    pub(crate) fn renew_since(&mut self, now: Instant, since: Instant) {
        let failed = |(address, candidate): (&SocketAddr, &Candidate)| {
            let waits = matches!(candidate.place, Some(Spot::Ready(at, _)) if at > now);
            (waits && candidate.failures > 0 && candidate.failed_at >= since)
                .then_some((*address, candidate.failures))
        };
        let failed: Vec<_> = self.known.iter().filter_map(failed).collect();
        failed.into_iter().for_each(|(address, failures)| self.place(now, address, failures));
    }

    /// It sent wrong data.
    pub(crate) fn ban(&mut self, address: SocketAddr) {
        self.banned.insert(ban_of(address));
        let banned: Vec<_> = self.known.keys().copied().filter(|known| self.is_banned(*known)).collect();
        banned.into_iter().for_each(|address| self.remove(address));
    }

    /// A peer there misbehaved: nobody is let in from that host for a while. On local networks, where many share one
    /// address, nobody is blamed for another.
    pub(crate) fn keep_out(&mut self, now: Instant, address: SocketAddr) {
        let ip = address.ip().to_canonical();
        if Scope::of(ip) == Scope::Public {
            self.kept_out.retain(|_, until| *until > now);
            if self.kept_out.len() < KEPT_OUT_MAX {
                self.kept_out.insert(ip, now + KEEP_OUT_TIME);
            }
        }
    }

    /// Whether a peer there misbehaved a moment ago.
    pub(crate) fn is_kept_out(&self, now: Instant, address: SocketAddr) -> bool {
        self.kept_out.get(&address.ip().to_canonical()).is_some_and(|until| *until > now)
    }

    /// Talks to it again.
    pub(crate) fn unban(&mut self, now: Instant, address: SocketAddr) {
        if self.banned.remove(&ban_of(address)) {
            self.add(now, address, Origin::User);
        }
    }

    /// One of our addresses. A public one tells more: the priorities of others are reckoned from it.
    pub(crate) fn set_local(&mut self, address: IpAddr, port: u16) {
        let address = address.to_canonical();
        let better = self.local.is_none_or(|local| Scope::of(local.ip()) < Scope::of(address));
        if better {
            self.local = Some(SocketAddr::new(address, port));
        }
    }

    pub(crate) fn is_banned(&self, address: SocketAddr) -> bool {
        self.banned.contains(&ban_of(address))
    }

    fn place(&mut self, at: Instant, address: SocketAddr, failures: u32) {
        self.unplace(address);
        let draw = self.rng.next_u32();
        if let Some(candidate) = self.known.get_mut(&address).filter(|candidate| !candidate.ours) {
            candidate.failures = failures;
            candidate.place = Some(Spot::Ready(at, draw));
            self.ready.insert((at, draw, address));
        }
    }

    fn unplace(&mut self, address: SocketAddr) {
        match self.known.get_mut(&address).and_then(|candidate| candidate.place.take()) {
            Some(Spot::Ready(at, draw)) => drop(self.ready.remove(&(at, draw, address))),
            Some(Spot::Due(failures, priority)) => drop(self.due.remove(&(failures, priority, address))),
            Some(Spot::Asleep) | None => {}
        };
    }

    /// Makes room by dropping an idle one of this origin: that which failed most, or is no use now, or would be dialled
    /// last. With `useless` only if it failed, or is no use now. False if there is none.
    fn evict(&mut self, origin: Origin, useless: bool) -> bool {
        let worth = |(address, candidate): (&SocketAddr, &Candidate)| {
            let place = candidate.place.filter(|_| candidate.origin == origin)?;
            let asleep = place == Spot::Asleep;
            let at = if let Spot::Ready(at, _) = place { at } else { Instant::START };
            (!useless || asleep || candidate.failures > 0).then_some((
                candidate.failures,
                asleep,
                at,
                *address,
            ))
        };
        let Some((.., address)) = self.known.iter().filter_map(worth).max() else { return false };
        self.remove(address);
        true
    }

    fn remove(&mut self, address: SocketAddr) {
        self.unplace(address);
        let Some(candidate) = self.known.remove(&address) else { return };
        if let Some(count) = self.shares.get_mut(&candidate.origin) {
            *count -= 1;
            if *count == 0 {
                self.shares.remove(&candidate.origin);
            }
        }
    }
}

/// The priority of a connection between two peers (BEP 40): the same from both ends, and none of them chose it. Where
/// both have one address their ports decide.
pub(super) fn priority(a: SocketAddr, b: SocketAddr) -> u32 {
    match (a.ip().to_canonical(), b.ip().to_canonical()) {
        (one, other) if one == other => {
            let (low, high) = (a.port().min(b.port()), a.port().max(b.port()));
            crc32c::crc32c_append(crc32c::crc32c(&low.to_be_bytes()), &high.to_be_bytes())
        }
        (IpAddr::V4(a), IpAddr::V4(b)) => masked(a.octets(), b.octets(), 2),
        (IpAddr::V6(a), IpAddr::V6(b)) => masked(a.octets(), b.octets(), 6),
        _ => 0,
    }
}

/// Bytes after the first `shared` are halved by a mask, unless so many are equal; one byte more for each byte equal.
fn masked<const N: usize>(mut a: [u8; N], mut b: [u8; N], shared: usize) -> u32 {
    let equal = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let keep = if equal < shared { shared } else { (equal + 1).min(N) };
    for at in keep..N {
        a[at] &= 0x55;
        b[at] &= 0x55;
    }
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    crc32c::crc32c_append(crc32c::crc32c(&low), &high)
}

fn ban_of(address: SocketAddr) -> Banned {
    match Scope::of(address.ip()) {
        Scope::Public => Banned::Host(address.ip().to_canonical()),
        Scope::Loopback | Scope::Private => Banned::Socket(address),
    }
}

const BACK_OFF: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(2 * 3600);
/// From a failure to the next dial at most, while it is named.
const NAMED_AGAIN: Duration = Duration::from_secs(600);
/// Until who made room for others may be dialled again, before as much is added at random.
const DISPLACED: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Candidates {
        Candidates::new(Rng::stream(7, "candidates", 0))
    }

    fn address(n: u32, port: u16) -> SocketAddr {
        (core::net::Ipv4Addr::from(0x0101_0000 + n), port).into()
    }

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn failures_wait_longer_each_time() {
        let mut candidates = candidates();
        candidates.add(at(0), address(1, 1), Origin::User);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(candidates.take_next(now), Some(address(1, 1)));
            candidates.on_failed(now, address(1, 1));
            let next = candidates.next_at().unwrap();
            waits.push(next.since(now).as_secs());
            now = next;
        }
        assert!(waits.is_sorted_by(|a, b| a <= b || *b >= 7200), "{waits:?}");
        assert!((10..=12).contains(&waits[0]) && (7200..=9000).contains(&waits[7]), "{waits:?}");
    }

    /// With fewer dials than would be needed to try all of them again in time.
    #[test]
    fn the_dead_do_not_keep_the_living_waiting() {
        let mut candidates = candidates();
        candidates.set_local(IpAddr::from([9, 9, 9, 9]), 6881);
        name(&mut candidates, Origin::Tracker(0), 0, 100);
        let dialled: BTreeSet<_> = (0..100)
            .map(|turn| {
                let now = at(turn * 11);
                let address = candidates.take_next(now).unwrap();
                candidates.on_failed(now, address);
                address
            })
            .collect();
        assert_eq!(dialled.len(), 100, "each once before any twice");
    }

    #[test]
    fn who_is_named_again_is_not_left_alone_for_hours() {
        let mut candidates = candidates();
        candidates.add(at(0), address(1, 1), Origin::Tracker(0));
        let mut now = at(0);
        for _ in 0..6 {
            assert_eq!(candidates.take_next(now), Some(address(1, 1)));
            candidates.on_failed(now, address(1, 1));
            now = candidates.next_at().unwrap();
        }
        let (failed, again) = (now, at(600));
        assert_eq!(candidates.take_next(now), Some(address(1, 1)));
        candidates.on_failed(now, address(1, 1));
        let late = candidates.next_at().unwrap();
        candidates.add(failed + Duration::from_secs(60), address(1, 1), Origin::Pex(address(2, 1).ip()));
        assert_eq!(candidates.next_at(), Some(late), "a peer may repeat what it heard");
        candidates.add(failed + Duration::from_secs(60), address(1, 1), Origin::Tracker(1));
        assert_eq!(candidates.next_at(), Some(failed + Duration::from_nanos(again.0)));
    }

    /// `origin` names `count` addresses from the `first` on.
    fn name(candidates: &mut Candidates, origin: Origin, first: u32, count: usize) {
        (first..first + count as u32).for_each(|n| candidates.add(at(0), address(n, 1), origin));
    }

    fn share(candidates: &Candidates, origin: Origin) -> usize {
        candidates.known.values().filter(|candidate| candidate.origin == origin).count()
    }

    #[test]
    fn one_origin_has_its_share_and_makes_room_by_dropping_failures() {
        let mut candidates = candidates();
        name(&mut candidates, Origin::Tracker(0), 0, CANDIDATES_MAX);
        assert_eq!(candidates.len(), CANDIDATES_PER_ORIGIN_MAX);
        let dialled = candidates.take_next(at(0)).unwrap();
        candidates.on_failed(at(0), dialled);
        name(&mut candidates, Origin::Tracker(0), 9_990, 1);
        assert!(!candidates.known.contains_key(&dialled));
        assert!(candidates.known.contains_key(&address(9_990, 1)));
        assert_eq!(candidates.len(), CANDIDATES_PER_ORIGIN_MAX);
    }

    #[test]
    fn a_full_table_takes_from_whoever_named_most_and_nobody_flushes_it() {
        let mut candidates = candidates();
        let trackers = [0, 1].map(Origin::Tracker);
        name(&mut candidates, trackers[0], 0, CANDIDATES_MAX);
        name(&mut candidates, trackers[1], 10_000, CANDIDATES_MAX);
        name(&mut candidates, Origin::User, 20_000, 10);
        assert_eq!((candidates.len(), share(&candidates, Origin::User)), (CANDIDATES_MAX, 10));
        name(&mut candidates, Origin::Tracker(2), 30_000, 5_000);
        let shares = trackers.map(|tracker| share(&candidates, tracker));
        assert_eq!(candidates.len(), CANDIDATES_MAX);
        assert_eq!(share(&candidates, Origin::User), 10, "who named few keeps them");
        assert!(shares.iter().all(|share| *share >= CANDIDATES_MAX / 3 - 10), "{shares:?}");
        for origin in [trackers[0], trackers[1], Origin::Tracker(2), Origin::User, Origin::Peer] {
            let counted = candidates.shares.get(&origin).copied().unwrap_or(0);
            assert_eq!(counted, share(&candidates, origin), "{origin:?}");
        }
    }

    #[test]
    fn connected_ones_stay_and_seeds_that_a_seed_has_met_make_room() {
        let mut candidates = candidates();
        name(&mut candidates, Origin::Tracker(0), 0, CANDIDATES_PER_ORIGIN_MAX);
        let connected = candidates.take_next(at(0)).unwrap();
        while let Some(seed) = candidates.take_next(at(0)) {
            candidates.on_redundant(seed);
        }
        name(&mut candidates, Origin::Tracker(0), 50_000, CANDIDATES_MAX);
        assert!(candidates.known.contains_key(&connected));
        let new = candidates.known.keys().filter(|known| **known >= address(50_000, 1)).count();
        assert_eq!(new, CANDIDATES_PER_ORIGIN_MAX - 1);
    }

    #[test]
    fn what_failed_while_there_was_no_network_is_dialled_when_it_is_back() {
        let mut candidates = candidates();
        name(&mut candidates, Origin::User, 1, 2);
        for (seconds, failures) in [(0, 6), (1000, 1)] {
            let peer = candidates.take_next(at(seconds)).unwrap();
            (0..failures).for_each(|_| candidates.on_failed(at(seconds), peer));
        }
        let before = candidates.known.len();
        candidates.renew_since(at(1001), at(900));
        assert!(candidates.take_next(at(1001)).is_some() && candidates.known.len() == before);
        assert_eq!(candidates.take_next(at(1001)), None, "the other failed before");
    }

    #[test]
    fn a_ban_is_by_address_but_by_port_on_local_networks() {
        let mut candidates = candidates();
        candidates.ban(address(1, 1));
        assert!(candidates.is_banned(address(1, 2)));
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        candidates.ban(local(1));
        assert_eq!((candidates.is_banned(local(1)), candidates.is_banned(local(2))), (true, false));
        candidates.add(at(0), local(1), Origin::User);
        assert_eq!(candidates.take_next(at(0)), None);
    }

    #[test]
    fn the_highest_priority_is_dialled_first() {
        let mut candidates = candidates();
        let local: SocketAddr = "123.213.32.10:6881".parse().unwrap();
        candidates.set_local(local.ip(), local.port());
        (0..50).for_each(|n| candidates.add(at(n), address(u32::from(n as u8) * 7919, 1), Origin::User));
        let order = std::iter::from_fn(|| candidates.take_next(at(60))).map(|peer| priority(local, peer));
        let order: Vec<_> = order.collect();
        assert!(order.len() == 50 && order.is_sorted_by(|a, b| a >= b), "{order:?}");
    }

    #[test]
    fn a_lifted_ban_lets_it_be_dialled_again() {
        let mut candidates = candidates();
        candidates.ban(address(1, 1));
        candidates.unban(at(1), address(1, 1));
        assert!(!candidates.is_banned(address(1, 2)));
        assert_eq!(candidates.take_next(at(1)), Some(address(1, 1)));
    }

    #[test]
    fn what_peers_name_of_each_other_has_a_share_and_is_forgotten_when_it_fails() {
        let mut candidates = candidates();
        let source = |n: u8| Origin::Pex(IpAddr::from([9, 9, 9, n]));
        for n in 0..30 {
            name(&mut candidates, source(n), 1 + u32::from(n) * 1000, 500);
        }
        assert_eq!(candidates.known.len(), CANDIDATES_PER_ORIGIN_MAX, "all hosts together");
        assert_eq!(candidates.shares[&source(0)], CANDIDATES_PER_PEX_SOURCE_MAX);
        name(&mut candidates, Origin::Tracker(0), 100_000, 1000);
        assert_eq!(candidates.shares[&Origin::Tracker(0)], CANDIDATES_PER_ORIGIN_MAX, "others have theirs");
        assert_eq!(candidates.forget_exchanged().len(), CANDIDATES_PER_ORIGIN_MAX);
        assert!(candidates.shares.keys().all(|origin| *origin == Origin::Tracker(0)));
        candidates.add(at(0), address(7, 1), source(1));
        for dial in 1..=PEX_DIALS_MAX {
            candidates.on_connected(address(7, 1));
            candidates.on_failed(at(0), address(7, 1));
            assert_eq!(candidates.known.contains_key(&address(7, 1)), dial < PEX_DIALS_MAX);
        }
    }

    #[test]
    fn who_is_on_the_local_network_is_forgotten_when_it_is_gone_and_known_when_it_is_back() {
        let mut candidates = candidates();
        let peer = SocketAddr::from(([10, 0, 0, 9], 6881));
        for _ in 0..3 {
            candidates.add(at(0), peer, Origin::Lsd);
            for _ in 0..PEX_DIALS_MAX {
                assert_eq!(candidates.take_next(at(1000)), Some(peer));
                candidates.on_failed(at(0), peer);
            }
            assert_eq!(candidates.len(), 0);
        }
        candidates.add(at(0), peer, Origin::Lsd);
        assert_eq!(candidates.forget_exchanged(), [peer]);
    }

    #[test]
    fn who_connected_to_us_is_not_dialled() {
        let mut candidates = candidates();
        candidates.add(at(0), address(1, 1), Origin::User);
        candidates.on_connected(address(1, 1));
        assert_eq!(candidates.take_next(at(100)), None);
        candidates.on_closed(at(100), address(1, 1));
        assert_eq!(candidates.take_next(at(130)), Some(address(1, 1)));
    }
}
