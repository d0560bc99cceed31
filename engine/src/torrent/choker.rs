//! Who is served: tit for tat with one optimistic slot (BEP 3).
//!
//! A round every 10 s while somebody is interested. The best peers by rate (theirs to us while we download, ours to
//! them once we seed) get the regular slots; one slot turns every 30 s among the rest, newcomers three times as
//! likely. Between rounds a free slot is given at once. It never unchokes who is not interested.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::ConnectionId;
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
    /// Payload per second: from it while we download, to it while we seed.
    pub(crate) rate: u64,
    pub(crate) unchoked: bool,
    /// When it was last choked or unchoked; the longest waiting wins a tie.
    pub(crate) since: Instant,
    /// Connected for less than three optimistic turns.
    pub(crate) newcomer: bool,
}

impl Choker {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { next_round: None, optimistic: None, optimistic_until: Instant::START, rng }
    }

    /// When the next round is due; none while nobody is interested.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next_round
    }

    /// Somebody became interested. True if it is to be unchoked at once: `unchoked_count` others are now.
    pub(crate) fn on_interested(&mut self, now: Instant, unchoked_count: u32, slots: u32) -> bool {
        self.next_round.get_or_insert(now + ROUND);
        unchoked_count < slots
    }

    /// Decides anew: exactly these are to be unchoked.
    pub(crate) fn round(
        &mut self,
        now: Instant,
        interested: &[Contender],
        slots: u32,
    ) -> BTreeSet<ConnectionId> {
        self.next_round = (!interested.is_empty()).then_some(now + ROUND);
        let mut best: Vec<_> = interested.to_vec();
        best.sort_by_key(|peer| {
            (core::cmp::Reverse((peer.rate, peer.unchoked)), peer.since, peer.connection)
        });
        let regular = slots.saturating_sub(1) as usize;
        let mut unchoked: BTreeSet<_> = best.iter().take(regular).map(|peer| peer.connection).collect();
        let rest: Vec<_> = best.iter().skip(regular).collect();
        let stays =
            rest.iter().any(|peer| Some(peer.connection) == self.optimistic) && now < self.optimistic_until;
        if !stays {
            let tickets: Vec<_> = rest
                .iter()
                .flat_map(|peer| std::iter::repeat_n(peer.connection, if peer.newcomer { 3 } else { 1 }))
                .collect();
            self.optimistic = tickets.get(self.rng.below(tickets.len() as u64) as usize).copied();
            self.optimistic_until = now + OPTIMISTIC;
        }
        unchoked.extend(self.optimistic);
        assert!(unchoked.len() <= slots as usize, "slots are kept");
        unchoked
    }
}

/// How many are served at once, at `per_second` bytes of upload: 25 KiB/s each, 4 to 32.
pub(crate) fn slots(per_second: u64) -> u32 {
    (per_second / (25 << 10)).clamp(4, 32) as u32
}

const ROUND: Duration = Duration::from_secs(10);
const OPTIMISTIC: Duration = Duration::from_secs(30);
/// How long a peer counts as a newcomer.
pub(crate) const NEWCOMER: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use super::*;

    fn contenders(rates: &[u64]) -> Vec<Contender> {
        let contender = |(n, rate): (usize, &u64)| Contender {
            connection: ConnectionId::dialled(n as u64),
            rate: *rate,
            unchoked: false,
            since: Instant::START,
            newcomer: false,
        };
        rates.iter().enumerate().map(contender).collect()
    }

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn the_best_keep_their_slots_and_one_turns() {
        let mut choker = Choker::new(Rng::stream(3, "choker", 0));
        let peers = contenders(&[10, 90, 70, 0, 80, 0, 0]);
        let mut optimistic = BTreeSet::new();
        for round in 0..60 {
            let unchoked = choker.round(at(round * 10), &peers, 4);
            for best in [1, 2, 4] {
                assert!(unchoked.contains(&ConnectionId::dialled(best)));
            }
            assert_eq!(unchoked.len(), 4);
            optimistic.extend(unchoked);
        }
        assert_eq!(optimistic.len(), 7, "everybody has a turn");
    }

    #[test]
    fn the_optimistic_slot_stays_for_thirty_seconds() {
        let mut choker = Choker::new(Rng::stream(4, "choker", 0));
        let peers = contenders(&[9, 8, 7, 0, 0, 0, 0, 0, 0]);
        let first = choker.round(at(0), &peers, 4);
        assert_eq!(
            (choker.round(at(10), &peers, 4), choker.round(at(20), &peers, 4)),
            (first.clone(), first)
        );
    }

    #[test]
    fn rounds_stop_when_nobody_is_interested() {
        let mut choker = Choker::new(Rng::stream(5, "choker", 0));
        assert_eq!(choker.deadline(), None);
        assert!(choker.on_interested(at(1), 3, 4));
        assert!(!choker.on_interested(at(2), 4, 4));
        assert_eq!(choker.deadline(), Some(at(11)));
        assert!(choker.round(at(11), &[], 4).is_empty());
        assert_eq!(choker.deadline(), None);
    }

    #[test]
    fn fewer_than_slots_are_all_served() {
        let mut choker = Choker::new(Rng::stream(6, "choker", 0));
        assert_eq!(choker.round(at(0), &contenders(&[0, 0]), 4).len(), 2);
        assert_eq!(slots(0), 4);
        assert_eq!(slots(1 << 30), 32);
    }
}
