//! Who is served (BEP 3): the best while we download, everybody in turn once we seed.
//!
//! A round every 10 s while somebody is interested. While we download, the peers that give most keep the regular slots.
//! As a seed, rates earn nothing (a few fast peers would keep all others out): a peer that had its quota, 20 pieces and a
//! minute, goes to the end of the line, and who has waited longest comes first. One slot is optimistic: it turns every
//! 30 s among the rest, newcomers three times as likely. Without a limit, who is served and asks for nothing holds no slot.
//! Peers behind one address range share one slot, so that nobody holds them all with many addresses; local networks are
//! spared. Between rounds a free slot is given at once. Nobody is choked within 10 s of being unchoked, and it never unchokes
//! who is not interested or will not download.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::address::Scope;
use crate::ids::ConnectionId;
use crate::limits::UPLOAD_SLOTS_MAX;
use crate::rng::Rng;
use crate::time::Instant;

/// The choker of one torrent.
#[derive(Debug)]
pub(crate) struct Choker {
    next_round: Option<Instant>,
    optimistic: Option<ConnectionId>,
    optimistic_until: Instant,
    rng: Rng,
}

/// Somebody who wants something of us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender {
    pub(crate) connection: ConnectionId,
    /// Its address range; none for those of local networks.
    pub(crate) range: Option<Range>,
    /// Payload per second from it, while we download.
    pub(crate) rate: u64,
    /// Payload that it was sent since it was last unchoked.
    pub(crate) sent_bytes: u64,
    pub(crate) unchoked: bool,
    /// When it was last choked or unchoked; the longest waiting wins a tie.
    pub(crate) since: Instant,
    /// Connected for less than three optimistic turns.
    pub(crate) newcomer: bool,
}

/// Addresses that may well be one party's: a /24 of IPv4, a /48 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range([u8; 7]);

impl Range {
    /// The range of an address; none on local networks, where many share one.
    pub(crate) fn of(address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        if Scope::of(address) != Scope::Public {
            return None;
        }
        Some(Self(match address {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                [4, a, b, c, 0, 0, 0]
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                [6, a, b, c, d, e, f]
            }
        }))
    }
}

/// What a round goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) slots: u32,
    pub(crate) seeding: bool,
    pub(crate) piece_bytes: u32,
}

impl Choker {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { next_round: None, optimistic: None, optimistic_until: Instant::START, rng }
    }

    /// When the next round is due; none while nobody is interested.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next_round
    }

    /// Somebody became interested. True if it is to be unchoked at once: these others are now.
    pub(crate) fn on_interested(
        &mut self,
        now: Instant,
        range: Option<Range>,
        unchoked: &[Option<Range>],
        slots: u32,
    ) -> bool {
        self.next_round.get_or_insert(now + ROUND);
        unchoked.len() < slots as usize && (range.is_none() || !unchoked.contains(&range))
    }

    /// Decides anew: exactly these are to be unchoked.
    pub(crate) fn round(
        &mut self,
        now: Instant,
        interested: &[Contender],
        terms: Terms,
    ) -> BTreeSet<ConnectionId> {
        self.next_round = (!interested.is_empty()).then_some(now + ROUND);
        let mut line: Vec<_> = interested.to_vec();
        line.sort_by_key(|peer| rank(now, peer, terms));
        let regular = terms.slots.saturating_sub(1) as usize;
        let mut taken = Taken::default();
        // Who was unchoked just now stays, whatever its rank: flapping costs both sides a round trip of requests.
        let fresh = |peer: &&Contender| peer.unchoked && now.since(peer.since) < ROUND;
        for peer in line.iter().filter(fresh).chain(line.iter()) {
            if taken.unchoked.len() < regular {
                taken.admit(peer);
            }
        }
        let rest: Vec<_> = line.iter().filter(|peer| taken.may(peer)).collect();
        let stays =
            rest.iter().any(|peer| Some(peer.connection) == self.optimistic) && now < self.optimistic_until;
        if !stays {
            let tickets: Vec<_> = rest
                .iter()
                .flat_map(|peer| std::iter::repeat_n(peer.connection, if peer.newcomer { 3 } else { 1 }))
                .collect();
            let drawn = tickets.get(self.rng.below(tickets.len() as u64) as usize).copied();
            let stays = rest.iter().find(|peer| fresh(peer)).map(|peer| peer.connection);
            self.optimistic = stays.or(drawn);
            self.optimistic_until = now + OPTIMISTIC;
        }
        taken.unchoked.extend(self.optimistic);
        assert!(taken.unchoked.len() <= terms.slots as usize, "slots are kept");
        taken.unchoked
    }
}

/// Who has a slot, and the address ranges that have one.
#[derive(Default)]
struct Taken {
    unchoked: BTreeSet<ConnectionId>,
    ranges: BTreeSet<Range>,
}

impl Taken {
    fn may(&self, peer: &Contender) -> bool {
        !self.unchoked.contains(&peer.connection)
            && peer.range.is_none_or(|range| !self.ranges.contains(&range))
    }

    fn admit(&mut self, peer: &Contender) {
        if self.may(peer) {
            self.unchoked.insert(peer.connection);
            self.ranges.extend(peer.range);
        }
    }
}

/// The place in line, the first first.
fn rank(now: Instant, peer: &Contender, terms: Terms) -> impl Ord + use<> {
    use core::cmp::Reverse;
    let (class, rate) = if terms.seeding {
        let quota = QUOTA_PIECES * u64::from(terms.piece_bytes);
        let had_its_turn = peer.sent_bytes >= quota && now.since(peer.since) >= TURN;
        (
            if !peer.unchoked {
                1
            } else if had_its_turn {
                2
            } else {
                0
            },
            0,
        )
    } else {
        (u8::from(!peer.unchoked), peer.rate)
    };
    (Reverse(rate), class, peer.since, peer.connection)
}

/// How many are served at once, by the `limit` in bytes per second, or by what sockets were measured to take: few, so that
/// each has something whole to pass on soon.
pub(crate) fn slots(limit: Option<u64>, measured: u64) -> u32 {
    let most = (SLOTS + limit.unwrap_or(measured) / BYTES_FOR_ONE_MORE).min(u64::from(UPLOAD_SLOTS_MAX));
    limit.map_or(most, |limit| (limit / BYTES_FOR_EACH).clamp(SLOTS_MIN, most)) as u32
}

/// Served at once by a link of which nothing is known yet; as libtorrent.
const SLOTS: u64 = 8;
/// A faster link serves one more for each of these per second: its peers may all be slow.
const BYTES_FOR_ONE_MORE: u64 = 2 << 20;
/// Under a limit there is this much per second for each that is served, and more than one is.
const BYTES_FOR_EACH: u64 = 25 << 10;
const SLOTS_MIN: u64 = 4;
/// A peer that is served, and asks for nothing after this long, holds no slot where there is no limit.
pub(crate) const IDLE: Duration = Duration::from_secs(3);

const ROUND: Duration = Duration::from_secs(10);
const OPTIMISTIC: Duration = Duration::from_secs(30);
/// How long a peer counts as a newcomer.
pub(crate) const NEWCOMER: Duration = Duration::from_secs(90);
/// What a seed sends to one peer before others have their turn; as libtorrent.
const QUOTA_PIECES: u64 = 20;
/// The least time of a turn, so that a fast peer does not lose it at once.
const TURN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn contenders(rates: &[u64]) -> Vec<Contender> {
        let contender = |(n, rate): (usize, &u64)| Contender {
            connection: ConnectionId::dialled(n as u64),
            range: None,
            rate: *rate,
            sent_bytes: 0,
            unchoked: false,
            since: Instant::START,
            newcomer: false,
        };
        rates.iter().enumerate().map(contender).collect()
    }

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn terms(slots: u32, seeding: bool) -> Terms {
        Terms { slots, seeding, piece_bytes: 1 << 18 }
    }

    #[test]
    fn the_best_keep_their_slots_and_one_turns() {
        let mut choker = Choker::new(Rng::stream(3, "choker", 0));
        let peers = contenders(&[10, 90, 70, 0, 80, 0, 0]);
        let mut optimistic = BTreeSet::new();
        for round in 1..60 {
            let unchoked = choker.round(at(round * 10), &peers, terms(4, false));
            for best in [1, 2, 4] {
                assert!(unchoked.contains(&ConnectionId::dialled(best)));
            }
            assert_eq!(unchoked.len(), 4);
            optimistic.extend(unchoked);
        }
        assert_eq!(optimistic.len(), 7, "everybody has a turn");
    }

    /// What a seed sends to each of `peers` in `rounds` rounds, at up to `fast` bytes a second a slot.
    fn seed(peers: &mut [Contender], capacity: &[u64], rounds: u64) -> Vec<u64> {
        let mut choker = Choker::new(Rng::stream(8, "choker", 0));
        let mut sent = vec![0; peers.len()];
        for round in 1..=rounds {
            let unchoked = choker.round(at(round * 10), peers, terms(4, true));
            for (n, peer) in peers.iter_mut().enumerate() {
                let unchoke = unchoked.contains(&peer.connection);
                if unchoke != peer.unchoked {
                    (peer.unchoked, peer.since, peer.sent_bytes) = (unchoke, at(round * 10), 0);
                }
                if unchoke {
                    let bytes = 10 * capacity[n];
                    peer.sent_bytes += bytes;
                    sent[n] += bytes;
                }
            }
        }
        sent
    }

    #[test]
    fn a_seed_serves_everybody_in_turn() {
        let mut peers = contenders(&[0; 12]);
        let sent = seed(&mut peers, &[1 << 20; 12], 600);
        let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
        assert!(*least > 0 && most / least < 2, "{sent:?}");
    }

    #[test]
    fn a_turn_lasts_a_minute_and_twenty_pieces() {
        let mut peers = contenders(&[0, 0]);
        let ranks = |peers: &[Contender]| {
            rank(at(59), &peers[0], terms(4, true)) < rank(at(59), &peers[1], terms(4, true))
        };
        (peers[0].unchoked, peers[0].sent_bytes) = (true, 1 << 30);
        assert!(ranks(&peers), "not before a minute");
        let after = |peers: &[Contender]| {
            rank(at(60), &peers[0], terms(4, true)) > rank(at(60), &peers[1], terms(4, true))
        };
        assert!(after(&peers));
        peers[0].sent_bytes = 19 << 18;
        assert!(!after(&peers), "not before twenty pieces");
    }

    /// The study of 2014: three attackers that take whatever they are given, against a seed that goes by rate, leave
    /// the others up to five times slower. Here they come from one range, and then from three.
    #[test]
    fn fast_takers_do_not_keep_others_from_a_seed() {
        for one_range in [true, false] {
            let mut honest = contenders(&[0; 8]);
            let alone = seed(&mut honest, &[100 << 10; 8], 720).iter().sum::<u64>() / 8;
            let mut peers = contenders(&[0; 11]);
            for (n, peer) in peers.iter_mut().enumerate().skip(8) {
                let third = if one_range { 1 } else { n as u8 };
                peer.range = Range::of(IpAddr::from([8, 8, third, n as u8]));
            }
            let capacity: Vec<_> = (0..11).map(|n| if n < 8 { 100 << 10 } else { 10 << 20 }).collect();
            let sent = seed(&mut peers, &capacity, 720);
            let least = *sent[..8].iter().min().unwrap();
            assert!(least * 2 > alone, "one_range {one_range}: {least} against {alone}");
        }
    }

    #[test]
    fn one_address_range_has_one_slot() {
        let mut choker = Choker::new(Rng::stream(9, "choker", 0));
        let mut peers = contenders(&[90, 80, 70, 60, 50, 0, 0]);
        for peer in &mut peers[..5] {
            peer.range = Range::of("9.9.9.1".parse().unwrap());
        }
        let unchoked = choker.round(at(10), &peers, terms(4, false));
        let expected = [0, 5, 6].map(ConnectionId::dialled);
        assert_eq!(unchoked, BTreeSet::from(expected), "the best of the range alone");
        let range = peers[0].range;
        assert!(!choker.on_interested(at(1), range, &[range], 4));
        assert!(choker.on_interested(at(1), None, &[None, None], 4), "local networks are spared");
        assert_eq!(Range::of("192.168.1.1".parse().unwrap()), None);
    }

    #[test]
    fn nobody_is_choked_within_ten_seconds() {
        let mut choker = Choker::new(Rng::stream(9, "choker", 0));
        let mut peers = contenders(&[90, 80, 70, 60, 50, 0]);
        (peers[5].unchoked, peers[5].since) = (true, at(5));
        assert!(choker.round(at(14), &peers, terms(4, false)).contains(&peers[5].connection));
    }

    #[test]
    fn the_optimistic_slot_stays_for_thirty_seconds() {
        let mut choker = Choker::new(Rng::stream(4, "choker", 0));
        let peers = contenders(&[9, 8, 7, 0, 0, 0, 0, 0, 0]);
        let mut round = |seconds| choker.round(at(seconds), &peers, terms(4, false));
        let first = round(0);
        assert_eq!((round(10), round(20)), (first.clone(), first));
    }

    #[test]
    fn newcomers_are_three_times_as_likely() {
        let mut choker = Choker::new(Rng::stream(5, "choker", 0));
        let mut peers = contenders(&[9, 8, 7, 0, 0]);
        peers[4].newcomer = true;
        let turns = (1..1000).filter(|round| {
            choker.round(at(round * 30), &peers, terms(4, false)).contains(&ConnectionId::dialled(4))
        });
        let turns = turns.count();
        assert!((680..820).contains(&turns), "{turns}");
    }

    #[test]
    fn rounds_stop_when_nobody_is_interested() {
        let mut choker = Choker::new(Rng::stream(5, "choker", 0));
        assert_eq!(choker.deadline(), None);
        assert!(choker.on_interested(at(1), None, &[None; 3], 4));
        assert!(!choker.on_interested(at(2), None, &[None; 4], 4));
        assert_eq!(choker.deadline(), Some(at(11)));
        assert!(choker.round(at(11), &[], terms(4, false)).is_empty());
        assert_eq!(choker.deadline(), None);
    }

    #[test]
    fn fewer_than_slots_are_all_served() {
        let mut choker = Choker::new(Rng::stream(6, "choker", 0));
        assert_eq!(choker.round(at(0), &contenders(&[0, 0]), terms(4, false)).len(), 2);
    }

    #[test]
    fn a_faster_link_serves_more_and_a_limit_fewer() {
        assert_eq!([0, 10 << 20, 1 << 30].map(|measured| slots(None, measured)), [8, 13, 32]);
        let limits = [1, 150 << 10, 1 << 20, 10 << 20, u64::MAX];
        assert_eq!(limits.map(|limit| slots(Some(limit), 0)), [4, 6, 8, 13, 32]);
    }
}
