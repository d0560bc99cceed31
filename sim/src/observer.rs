//! What a report is drawn from: a run as it looks from outside, in as many figures whether it takes seconds or days.
//!
//! An observer is told what happens and asks nothing. A run with one and a run without have the same trace.

use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

use taipei_engine::wire::krpc::{Ask, Body, Packet};
use taipei_engine::{ConnectionId, InfoHash};

/// A run, seen.
#[derive(Clone, Debug)]
pub struct Observer {
    /// Nanoseconds from one sample to the next.
    pub spacing: u64,
    /// One for each multiple of [`Self::spacing`], from 0 on, and the last one of the end.
    pub samples: Vec<Sample>,
    /// When the last sample was taken.
    pub ended_at: u64,
    /// By host.
    pub hosts: Vec<HostSeen>,
    /// By giver and receiver.
    pub flows: BTreeMap<(usize, usize), Flow>,
    /// By fault of the plan: when it began, and when it was over.
    pub faults: Vec<Option<(u64, Option<u64>)>>,
    /// By rule and what it limits: how near the run came.
    pub nearest: BTreeMap<(&'static str, &'static str), Near>,
    /// Steps of the look-ups in the DHT: those that ask nodes known before are the first.
    pub hops: Vec<Hop>,
    /// The last that happened, oldest first.
    pub last: VecDeque<Moment>,
    unchoked: BTreeMap<(usize, ConnectionId), (usize, u64)>,
    searches: BTreeMap<(usize, InfoHash), Search>,
    asked: BTreeMap<Question, Asked>,
}

/// What there was at one time. All figures only grow, but for pieces, so that leaving out samples loses nothing else.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// By host.
    pub hosts: Vec<HostSample>,
    /// Copies of the rarest piece among hosts that run.
    pub copies_least: u32,
    /// Copies of all pieces, in thousandths of a whole.
    pub copies_thousandths: u64,
}

/// What one host had at one time.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostSample {
    /// Bytes of verified pieces.
    pub have_bytes: u64,
    /// Bytes read from peers since the world began.
    pub read_bytes: u64,
    /// Bytes written to peers since then.
    pub written_bytes: u64,
}

/// One host, over the whole run.
#[derive(Clone, Debug, Default)]
pub struct HostSeen {
    /// Its processes: from when to when.
    pub processes: Vec<(u64, Option<u64>)>,
    /// When it had everything that it lacked at first; of one that breaks rules, when it had been sent as much.
    pub completed_at: Option<u64>,
    /// What it did that a lane shows, capped.
    pub events: Vec<(u64, HostEvent)>,
    /// Payload that arrived; at puppets, that was given to their connections.
    pub taken_bytes: u64,
    read_bytes: u64,
    written_bytes: u64,
}

/// Something that a lane shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// A piece did not fit its hash.
    PieceFailed,
    /// A peer was banned.
    Banned,
}

/// What went from one host to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Payload that arrived; at puppets, that was given to their connections.
    pub bytes: u64,
    /// How long the giver let the receiver ask.
    pub unchoked_ns: u64,
}

/// How near a run came to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// The most there was.
    pub used: u64,
    /// What may be.
    pub most: u64,
    /// What these count.
    pub unit: Unit,
}

impl Near {
    /// Of a time, nanoseconds.
    pub fn time(used: u64, most: u64) -> Self {
        Self { used, most, unit: Unit::Time }
    }

    /// Of bytes.
    pub fn bytes(used: u64, most: u64) -> Self {
        Self { used, most, unit: Unit::Bytes }
    }

    /// Of things.
    pub fn count(used: u64, most: u64) -> Self {
        Self { used, most, unit: Unit::Count }
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Time,
    /// Bytes.
    Bytes,
    /// Things.
    Count,
}

/// One step of the look-ups in the DHT, over all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// Nodes asked for peers.
    pub asked: u64,
    /// Those that answered.
    pub answered: u64,
    /// Those whose answer named peers.
    pub found: u64,
}

/// Something that happened, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: u64,
    /// Where; none for the world itself.
    pub host: Option<usize>,
    /// What.
    pub text: String,
}

/// Who asked whom, and the packet's transaction.
type Question = (usize, SocketAddr, Vec<u8>);

/// When, for which torrent, in which step.
type Asked = (u64, InfoHash, usize);

/// Of a host for peers of one torrent.
#[derive(Clone, Debug, Default)]
struct Search {
    last_at: u64,
    hop_of: BTreeMap<SocketAddr, usize>,
}

impl Observer {
    /// Of a run that has not begun, with so many hosts and faults.
    pub fn new(hosts: usize, faults: usize) -> Self {
        Self {
            spacing: SPACING_LEAST,
            samples: Vec::new(),
            ended_at: 0,
            hosts: vec![HostSeen::default(); hosts],
            flows: BTreeMap::new(),
            faults: vec![None; faults],
            nearest: BTreeMap::new(),
            hops: Vec::new(),
            last: VecDeque::new(),
            unchoked: BTreeMap::new(),
            searches: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    /// Whether the time of the next sample is before `now`, or is it.
    pub fn is_due(&self, now: u64) -> bool {
        self.samples.len() as u64 * self.spacing <= now
    }

    /// What there has been since the last sample. `have` is what each host has, `copies` how many hosts that run have each
    /// piece.
    pub fn sample(&mut self, now: u64, have: &[u64], copies: &[u32]) {
        while self.is_due(now) {
            let sample = self.look(have, copies);
            self.samples.push(sample);
            if self.samples.len() > SAMPLES_MAX {
                let mut number = 0;
                self.samples.retain(|_| {
                    number += 1;
                    number % 2 == 1
                });
                self.spacing *= 2;
            }
        }
    }

    fn look(&self, have: &[u64], copies: &[u32]) -> Sample {
        let hosts = self.hosts.iter().zip(have).map(|(host, have)| HostSample {
            have_bytes: *have,
            read_bytes: host.read_bytes,
            written_bytes: host.written_bytes,
        });
        let sum: u64 = copies.iter().map(|count| u64::from(*count)).sum();
        Sample {
            hosts: hosts.collect(),
            copies_least: copies.iter().copied().min().unwrap_or(0),
            copies_thousandths: sum * 1000 / (copies.len() as u64).max(1),
        }
    }

    /// The run is over: the last sample, which need not fall on a multiple.
    pub fn end(&mut self, now: u64, have: &[u64], copies: &[u32]) {
        for (host, connection) in self.unchoked.keys().copied().collect::<Vec<_>>() {
            self.on_choked(now, host, connection);
        }
        let sample = self.look(have, copies);
        self.samples.push(sample);
        self.ended_at = now;
    }

    /// The times of the samples.
    pub fn times(&self) -> impl Iterator<Item = u64> + '_ {
        let last = self.samples.len().saturating_sub(1);
        (0..self.samples.len()).map(move |number| {
            if number == last { self.ended_at } else { (number as u64 * self.spacing).min(self.ended_at) }
        })
    }

    /// A process begins.
    pub fn on_start(&mut self, now: u64, host: usize) {
        self.hosts[host].processes.push((now, None));
    }

    /// A process is gone.
    pub fn on_gone(&mut self, now: u64, host: usize) {
        let ended: Vec<ConnectionId> =
            self.unchoked.keys().filter(|(of, _)| *of == host).map(|(_, connection)| *connection).collect();
        ended.into_iter().for_each(|connection| self.on_choked(now, host, connection));
        if let Some((_, end)) = self.hosts[host].processes.last_mut() {
            end.get_or_insert(now);
        }
    }

    /// Bytes went to and from peers of a host.
    pub fn on_moved(&mut self, host: usize, read: u64, written: u64) {
        self.hosts[host].read_bytes += read;
        self.hosts[host].written_bytes += written;
    }

    /// A host did something that its lane shows.
    pub fn on_event(&mut self, now: u64, host: usize, event: HostEvent) {
        if self.hosts[host].events.len() < HOST_EVENTS_MAX {
            self.hosts[host].events.push((now, event));
        }
    }

    /// Payload came from one host to another.
    pub fn on_given(&mut self, from: usize, to: usize, bytes: u64) {
        self.flows.entry((from, to)).or_default().bytes += bytes;
        self.hosts[to].taken_bytes += bytes;
    }

    /// A host lets another ask.
    pub fn on_unchoked(&mut self, now: u64, host: usize, connection: ConnectionId, peer: usize) {
        self.unchoked.entry((host, connection)).or_insert((peer, now));
    }

    /// A host lets the other end of a connection ask no more, or the connection is over.
    pub fn on_choked(&mut self, now: u64, host: usize, connection: ConnectionId) {
        if let Some((peer, since)) = self.unchoked.remove(&(host, connection)) {
            self.flows.entry((host, peer)).or_default().unchoked_ns += now - since;
        }
    }

    /// A fault begins.
    pub fn on_fault_begun(&mut self, now: u64, fault: usize) {
        self.faults[fault].get_or_insert((now, None));
    }

    /// A fault is over.
    pub fn on_fault_over(&mut self, now: u64, fault: usize) {
        self.faults[fault].get_or_insert((now, None)).1 = Some(now);
    }

    /// So much there is of something that may not be more than `most`. The nearest stays.
    pub fn on_near(&mut self, rule: &'static str, what: &'static str, near: Near) {
        let nearest = self.nearest.entry((rule, what)).or_insert(near);
        // As parts of the whole, without dividing.
        let is_nearer = u128::from(near.used) * u128::from(nearest.most)
            > u128::from(nearest.used) * u128::from(near.most);
        if is_nearer {
            *nearest = near;
        }
    }

    /// Something happened. `text` is asked for only where it is kept.
    pub fn on_moment(&mut self, at: u64, host: Option<usize>, text: String) {
        if self.last.len() == MOMENTS_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(Moment { at, host, text });
    }

    /// A datagram leaves a host: of the DHT where it asks for peers.
    pub fn on_datagram_out(&mut self, now: u64, host: usize, to: SocketAddr, payload: &[u8]) {
        let Ok(Packet { transaction, body: Body::Query(query), .. }) = Packet::parse(payload) else { return };
        let Ask::GetPeers { info_hash, .. } = query.ask else { return };
        let search = self.searches.entry((host, info_hash)).or_default();
        if now > search.last_at + SEARCH_TIME {
            search.hop_of.clear();
        }
        search.last_at = now;
        let hop = search.hop_of.get(&to).copied().unwrap_or(0).min(HOPS_MAX - 1);
        if self.hops.len() <= hop {
            self.hops.resize(hop + 1, Hop::default());
        }
        self.hops[hop].asked += 1;
        self.asked.retain(|_, (at, ..)| *at + ANSWER_TIME > now);
        self.asked.insert((host, to, transaction), (now, info_hash, hop));
    }

    /// A datagram reaches a host: of the DHT where it answers.
    pub fn on_datagram_in(&mut self, host: usize, from: SocketAddr, payload: &[u8]) {
        if self.asked.is_empty() {
            return;
        }
        let Ok(Packet { transaction, body: Body::Response(answer), .. }) = Packet::parse(payload) else {
            return;
        };
        let Some((_, info_hash, hop)) = self.asked.remove(&(host, from, transaction)) else { return };
        self.hops[hop].answered += 1;
        self.hops[hop].found += u64::from(!answer.peers.is_empty());
        let search = self.searches.entry((host, info_hash)).or_default();
        for node in answer.nodes {
            search.hop_of.entry(node.address).or_insert(hop + 1);
        }
    }
}

/// The first samples are this far apart; each time there are too many, every second one is left out.
const SPACING_LEAST: u64 = 20_000_000;
const SAMPLES_MAX: usize = 320;
/// Of one host.
const HOST_EVENTS_MAX: usize = 200;
const MOMENTS_KEPT: usize = 40;
/// Steps of a look-up are counted one by one up to here.
const HOPS_MAX: usize = 12;
/// A node that is asked later than this after the one before belongs to another look-up.
const SEARCH_TIME: u64 = 60_000_000_000;
/// Who has not answered by then does not count.
const ANSWER_TIME: u64 = 20_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_as_many_samples_as_a_short_one_and_its_figures() {
        let mut observer = Observer::new(1, 0);
        for second in 0..100_000u64 {
            observer.sample(second * 1_000_000_000, &[second], &[1, 3]);
            observer.on_moved(0, 7, 0);
        }
        observer.end(100_000 * 1_000_000_000, &[100_000], &[1, 3]);
        assert!(observer.samples.len() <= SAMPLES_MAX + 1, "{}", observer.samples.len());
        assert!(observer.samples.len() > SAMPLES_MAX / 2);
        let times: Vec<u64> = observer.times().collect();
        assert!(times.is_sorted() && times[0] == 0 && times.last() == Some(&100_000_000_000_000));
        for (at, sample) in times.iter().zip(&observer.samples) {
            let seconds = at.div_ceil(1_000_000_000);
            assert_eq!((sample.hosts[0].have_bytes, sample.hosts[0].read_bytes), (seconds, 7 * seconds));
            assert_eq!((sample.copies_least, sample.copies_thousandths), (1, 2000));
        }
    }

    #[test]
    fn the_nearest_to_a_limit_stays_whatever_the_limits_are() {
        let mut observer = Observer::new(0, 0);
        for (used, most) in [(1, 10), (30, 40), (50, 100)] {
            observer.on_near("S7", "peers", Near::count(used, most));
        }
        assert_eq!(observer.nearest[&("S7", "peers")].used, 30);
    }

    #[test]
    fn who_is_unchoked_until_the_end_was_unchoked_that_long() {
        let mut observer = Observer::new(2, 0);
        let connection = ConnectionId::dialled(1);
        observer.on_unchoked(5, 0, connection, 1);
        observer.on_unchoked(7, 0, connection, 1);
        observer.on_choked(9, 0, connection);
        observer.on_unchoked(20, 0, connection, 1);
        observer.end(30, &[0, 0], &[]);
        assert_eq!(observer.flows[&(0, 1)], Flow { bytes: 0, unchoked_ns: 14 });
    }
}
