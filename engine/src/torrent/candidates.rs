//! Addresses that may be peers: who to dial next, who not yet, and who never again.
//!
//! A failed address waits 10 s, then four times as long each time up to two hours, with jitter. A banned one is never
//! dialled nor let in. Our own address, found out by meeting ourselves, is never dialled again.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::address::{Scope, is_dialable};
use crate::limits::CANDIDATES_MAX;
use crate::rng::Rng;
use crate::time::Instant;

/// The addresses known for one torrent.
#[derive(Debug)]
pub(crate) struct Candidates {
    known: BTreeMap<SocketAddr, Candidate>,
    /// Idle ones that wait, by when they may be dialled; the draw breaks ties by chance.
    ready: BTreeSet<(Instant, u32, SocketAddr)>,
    /// Idle ones whose time has come, the highest priority last (BEP 40).
    due: BTreeSet<(u32, SocketAddr)>,
    /// Where others reach us, as far as we know; port 0 where we do not.
    local: Option<SocketAddr>,
    banned: BTreeSet<Banned>,
    rng: Rng,
}

#[derive(Debug)]
struct Candidate {
    failures: u32,
    ours: bool,
    /// None while it is dialled or connected, or is ourselves.
    place: Option<Spot>,
}

/// Where an idle one is.
#[derive(Clone, Copy, Debug)]
enum Spot {
    Ready(Instant, u32),
    Due(u32),
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
            rng,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Learns of an address. Known ones are left as they are.
    pub(crate) fn add(&mut self, now: Instant, address: SocketAddr) {
        if !is_dialable(address) || self.is_banned(address) || self.known.contains_key(&address) {
            return;
        }
        if self.known.len() >= CANDIDATES_MAX && !self.evict() {
            return;
        }
        self.known.insert(address, Candidate { failures: 0, ours: false, place: None });
        self.place(now, address, 0);
    }

    /// The next one to dial now. It counts as busy from here on.
    pub(crate) fn take_next(&mut self, now: Instant) -> Option<SocketAddr> {
        while let Some((at, draw, address)) = self.ready.first().copied()
            && at <= now
        {
            self.ready.remove(&(at, draw, address));
            let priority = self.local.map_or(draw, |local| priority(local, address));
            self.due.insert((priority, address));
            if let Some(candidate) = self.known.get_mut(&address) {
                candidate.place = Some(Spot::Due(priority));
            }
        }
        let (_, address) = self.due.pop_last()?;
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
        let wait = BACK_OFF.saturating_mul(4u32.saturating_pow(failures)).min(BACK_OFF_MAX);
        let jitter = Duration::from_nanos(self.rng.below(wait.as_nanos() as u64 / 4));
        self.place(now + wait + jitter, address, failures + 1);
    }

    /// A connection that had worked is over.
    pub(crate) fn on_closed(&mut self, now: Instant, address: SocketAddr) {
        let jitter = Duration::from_nanos(self.rng.below(BACK_OFF.as_nanos() as u64));
        self.place(now + BACK_OFF + jitter, address, 0);
    }

    /// It has everything, as we have: not dialled until [`Self::revive`].
    pub(crate) fn on_redundant(&mut self, address: SocketAddr) {
        self.unplace(address);
    }

    /// It is ourselves.
    pub(crate) fn on_ourselves(&mut self, address: SocketAddr) {
        self.unplace(address);
        if let Some(candidate) = self.known.get_mut(&address) {
            candidate.ours = true;
        }
    }

    /// We lack something again: all but ourselves and those connected may be dialled.
    pub(crate) fn revive(&mut self, now: Instant, connected: &BTreeSet<SocketAddr>) {
        let asleep = |(address, candidate): (&SocketAddr, &Candidate)| {
            (candidate.place.is_none() && !connected.contains(address)).then_some(*address)
        };
        let asleep: Vec<_> = self.known.iter().filter_map(asleep).collect();
        asleep.into_iter().for_each(|address| self.place(now, address, 0));
    }

    /// Whatever failed before may work now: all that wait may be dialled at once.
    pub(crate) fn renew(&mut self, now: Instant) {
        let waiting: Vec<_> = self.ready.iter().map(|(.., address)| *address).collect();
        waiting.into_iter().for_each(|address| self.place(now, address, 0));
    }

    /// It sent wrong data.
    pub(crate) fn ban(&mut self, address: SocketAddr) {
        self.banned.insert(ban_of(address));
        let banned: Vec<_> = self.known.keys().copied().filter(|known| self.is_banned(*known)).collect();
        for address in banned {
            self.unplace(address);
            self.known.remove(&address);
        }
    }

    /// Talks to it again.
    pub(crate) fn unban(&mut self, now: Instant, address: SocketAddr) {
        if self.banned.remove(&ban_of(address)) {
            self.add(now, address);
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
            Some(Spot::Due(priority)) => drop(self.due.remove(&(priority, address))),
            None => {}
        };
    }

    /// Makes room by dropping the idle one that would be dialled last, if it has failed before.
    fn evict(&mut self) -> bool {
        let Some((_, _, address)) = self.ready.last().copied() else { return false };
        if self.known.get(&address).is_none_or(|candidate| candidate.failures == 0) {
            return false;
        }
        self.unplace(address);
        self.known.remove(&address).is_some()
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
        candidates.add(at(0), address(1, 1));
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

    #[test]
    fn the_table_is_capped_and_makes_room_by_dropping_failures() {
        let mut candidates = candidates();
        for n in 0..CANDIDATES_MAX as u32 + 10 {
            candidates.add(at(0), address(n, 1));
        }
        assert_eq!(candidates.len(), CANDIDATES_MAX);
        let dialled = candidates.take_next(at(0)).unwrap();
        candidates.on_failed(at(0), dialled);
        candidates.add(at(0), address(9_999, 1));
        assert!(
            !candidates.known.contains_key(&dialled) && candidates.known.contains_key(&address(9_999, 1))
        );
    }

    #[test]
    fn a_ban_is_by_address_but_by_port_on_local_networks() {
        let mut candidates = candidates();
        candidates.ban(address(1, 1));
        assert!(candidates.is_banned(address(1, 2)));
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        candidates.ban(local(1));
        assert_eq!((candidates.is_banned(local(1)), candidates.is_banned(local(2))), (true, false));
        candidates.add(at(0), local(1));
        assert_eq!(candidates.take_next(at(0)), None);
    }

    #[test]
    fn the_highest_priority_is_dialled_first() {
        let mut candidates = candidates();
        let local: SocketAddr = "123.213.32.10:6881".parse().unwrap();
        candidates.set_local(local.ip(), local.port());
        (0..50).for_each(|n| candidates.add(at(n), address(u32::from(n as u8) * 7919, 1)));
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
    fn who_connected_to_us_is_not_dialled() {
        let mut candidates = candidates();
        candidates.add(at(0), address(1, 1));
        candidates.on_connected(address(1, 1));
        assert_eq!(candidates.take_next(at(100)), None);
        candidates.on_closed(at(100), address(1, 1));
        assert_eq!(candidates.take_next(at(130)), Some(address(1, 1)));
    }
}
