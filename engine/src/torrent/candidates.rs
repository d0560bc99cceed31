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
    /// Idle ones by when they may be dialled; the draw breaks ties by chance.
    ready: BTreeSet<(Instant, u32, SocketAddr)>,
    banned: BTreeSet<Banned>,
    rng: Rng,
}

#[derive(Debug)]
struct Candidate {
    failures: u32,
    ours: bool,
    /// Its place in `ready`; none while it is dialled or connected, or is ourselves.
    place: Option<(Instant, u32)>,
}

/// A ban holds for the whole address; on local networks, where many share one, for the port as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Banned {
    Host(IpAddr),
    Socket(SocketAddr),
}

impl Candidates {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { known: BTreeMap::new(), ready: BTreeSet::new(), banned: BTreeSet::new(), rng }
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
        let place = (now, self.rng.next_u32());
        self.ready.insert((place.0, place.1, address));
        self.known.insert(address, Candidate { failures: 0, ours: false, place: Some(place) });
    }

    /// The next one to dial now. It counts as busy from here on.
    pub(crate) fn take_next(&mut self, now: Instant) -> Option<SocketAddr> {
        let (at, draw, address) = *self.ready.first()?;
        if at > now {
            return None;
        }
        self.ready.remove(&(at, draw, address));
        if let Some(candidate) = self.known.get_mut(&address) {
            candidate.place = None;
        }
        Some(address)
    }

    /// When the next one may be dialled.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.ready.first().map(|(at, ..)| *at)
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

    pub(crate) fn is_banned(&self, address: SocketAddr) -> bool {
        self.banned.contains(&ban_of(address))
    }

    fn place(&mut self, at: Instant, address: SocketAddr, failures: u32) {
        self.unplace(address);
        let draw = self.rng.next_u32();
        if let Some(candidate) = self.known.get_mut(&address).filter(|candidate| !candidate.ours) {
            candidate.failures = failures;
            candidate.place = Some((at, draw));
            self.ready.insert((at, draw, address));
        }
    }

    fn unplace(&mut self, address: SocketAddr) {
        if let Some((at, draw)) = self.known.get_mut(&address).and_then(|candidate| candidate.place.take()) {
            self.ready.remove(&(at, draw, address));
        }
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
    fn who_connected_to_us_is_not_dialled() {
        let mut candidates = candidates();
        candidates.add(at(0), address(1, 1));
        candidates.on_connected(address(1, 1));
        assert_eq!(candidates.take_next(at(100)), None);
        candidates.on_closed(at(100), address(1, 1));
        assert_eq!(candidates.take_next(at(130)), Some(address(1, 1)));
    }
}
