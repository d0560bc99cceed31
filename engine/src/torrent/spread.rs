//! What a seed offers first (BEP 6, suggest): each piece that nobody else has, to one peer.
//!
//! Who fetches the rarest piece knows what others have, not what they fetch: of many pieces that only the seed has,
//! several peers choose the same one, and the seed sends it several times. The seed sees what each of them fetches. It
//! suggests to each what it has suggested to nobody else. Whoever does not listen fetches as before.

use std::collections::BTreeMap;

use crate::bitfield::Bitfield;
use crate::ids::{ConnectionId, PieceIndex};

/// Pieces that nobody else has, and to whom they go first.
#[derive(Debug, Default)]
pub(super) struct Spread {
    given: BTreeMap<PieceIndex, ConnectionId>,
    /// Of those, what was suggested to a peer and not asked for yet.
    waiting: BTreeMap<ConnectionId, Vec<PieceIndex>>,
    /// Where the search for the next one goes on.
    next: u32,
    /// Pieces passed over since one was found or became free: a whole round means that there is none.
    passed: usize,
}

impl Spread {
    /// What is suggested to a peer that has `has`, so that some offers wait for it. `availability` counts others.
    pub(super) fn offer(
        &mut self,
        to: ConnectionId,
        has: &Bitfield,
        availability: &[u32],
    ) -> Vec<PieceIndex> {
        let waiting = self.waiting.entry(to).or_default();
        let mut offers = Vec::new();
        for _ in 0..LOOKS_MAX {
            let is_full = waiting.len() == OFFERS || self.given.len() == GIVEN_MAX;
            if is_full || self.passed >= availability.len() {
                break;
            }
            let piece = PieceIndex::new(self.next);
            self.next = (self.next + 1) % has.piece_count();
            self.passed += 1;
            if availability[piece.at()] == 0 && !has.has(piece) && !self.given.contains_key(&piece) {
                self.passed = 0;
                self.given.insert(piece, to);
                waiting.push(piece);
                offers.push(piece);
            }
        }
        offers
    }

    /// Whether nobody else fetches a piece that nobody else has. What was offered to another is whose who asks first.
    pub(super) fn is_first(&self, from: ConnectionId, piece: PieceIndex) -> bool {
        let waits_for = |to| self.waiting.get(to).is_some_and(|waiting| waiting.contains(&piece));
        self.given.get(&piece).is_none_or(|to| *to == from || waits_for(to))
    }

    /// A served peer asks for a block of a piece that nobody else has. Gives whether it may be ready for another offer.
    pub(super) fn on_request(&mut self, from: ConnectionId, piece: PieceIndex) -> bool {
        let is_known = self.given.len() < GIVEN_MAX || self.given.contains_key(&piece);
        if is_known
            && self.is_first(from, piece)
            && let Some(to) = self.given.insert(piece, from)
            && let Some(waiting) = self.waiting.get_mut(&to)
        {
            waiting.retain(|offer| *offer != piece);
        }
        let Some(waiting) = self.waiting.get_mut(&from) else { return true };
        waiting.retain(|offer| *offer != piece);
        waiting.len() < OFFERS
    }

    /// Whether such a piece is on its way to somebody.
    pub(super) fn is_busy(&self) -> bool {
        self.given.len() > self.waiting.values().map(Vec::len).sum()
    }

    /// Somebody else has a piece.
    pub(super) fn on_gained(&mut self, piece: PieceIndex) {
        if let Some(to) = self.given.remove(&piece)
            && let Some(waiting) = self.waiting.get_mut(&to)
        {
            waiting.retain(|offer| *offer != piece);
        }
    }

    /// Somebody else has these pieces.
    pub(super) fn on_all_gained(&mut self, pieces: &Bitfield) {
        self.given.retain(|piece, _| !pieces.has(*piece));
        self.waiting.values_mut().for_each(|waiting| waiting.retain(|offer| !pieces.has(*offer)));
    }

    /// A peer is not served any more, or gone: what it was to fetch, or alone had, is free for others.
    pub(super) fn on_choked(&mut self, connection: ConnectionId) {
        self.given.retain(|_, to| *to != connection);
        self.waiting.remove(&connection);
        self.passed = 0;
    }
}

/// Offers that wait for a peer: it may choose the next piece before it hears of another.
const OFFERS: usize = 2;
/// Pieces looked at for one peer at a time.
const LOOKS_MAX: usize = 512;
/// Pieces remembered: whoever never says what it has leaves no trace of having fetched them.
const GIVEN_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(pieces: Vec<PieceIndex>) -> Vec<u32> {
        pieces.into_iter().map(PieceIndex::get).collect()
    }

    #[test]
    fn each_piece_is_offered_to_one_peer_until_that_is_over() {
        let [a, b] = [0, 1].map(ConnectionId::accepted);
        let mut spread = Spread::default();
        let none = Bitfield::new(6);
        let mut availability = [0; 6];
        availability[1] = 1;
        assert_eq!(ids(spread.offer(a, &none, &availability)), [0, 2], "one piece is somewhere else");
        assert_eq!(ids(spread.offer(b, &none, &availability)), [3, 4]);
        assert_eq!(ids(spread.offer(a, &none, &availability)), [0; 0], "two offers wait");
        assert!(!spread.is_busy());
        // An offer is taken once, and makes room for another.
        let piece = PieceIndex::new;
        assert!(spread.on_request(a, piece(0)) && spread.is_busy());
        assert_eq!(ids(spread.offer(a, &none, &availability)), [5]);
        assert!(!spread.on_request(a, piece(0)), "two offers wait again");
        assert!(!spread.is_first(b, piece(0)), "it is under way to another");
        // What others chose for themselves is not offered either.
        spread.on_gained(piece(3));
        availability[3] = 1;
        assert!(spread.is_first(a, piece(4)), "it waits for another, who may never want it");
        assert!(!spread.on_request(a, piece(4)), "two offers wait");
        assert!(!spread.is_first(b, piece(4)) && spread.waiting[&b].is_empty());
        assert_eq!(ids(spread.offer(b, &none, &availability)), [0; 0], "nothing is left");
        // Who is gone leaves everything.
        spread.on_choked(a);
        assert!(!spread.is_busy());
        assert_eq!(ids(spread.offer(b, &none, &availability)), [0, 2]);
        spread.on_all_gained(&Bitfield::full(6));
        assert!(spread.given.is_empty() && spread.waiting[&b].is_empty());
    }

    #[test]
    fn who_fetches_much_and_never_says_so_is_remembered_up_to_a_limit() {
        let mut spread = Spread::default();
        let [silent, other] = [0, 1].map(ConnectionId::accepted);
        let (none, availability) = (Bitfield::new(100_000), vec![0; 100_000]);
        for n in 0..50_000 {
            spread.on_request(silent, PieceIndex::new(n));
        }
        assert_eq!(spread.given.len(), GIVEN_MAX);
        assert_eq!(spread.offer(other, &none, &availability), []);
        spread.on_choked(silent);
        assert_eq!(ids(spread.offer(other, &none, &availability)), [0, 1]);
    }

    #[test]
    fn what_is_nowhere_to_be_found_is_not_looked_for_again_and_again() {
        let mut spread = Spread::default();
        let [a, b] = [0, 1].map(ConnectionId::accepted);
        let (none, mut availability) = (Bitfield::new(2000), vec![1; 2000]);
        availability[1999] = 0;
        // Of many pieces a part at a time.
        let offers: Vec<_> = (0..5).flat_map(|_| spread.offer(a, &none, &availability)).collect();
        assert_eq!(ids(offers), [1999]);
        (0..5).for_each(|_| assert_eq!(spread.offer(b, &none, &availability), []));
        let next = spread.next;
        assert_eq!((spread.offer(b, &none, &availability), spread.next), (Vec::new(), next));
        spread.on_choked(a);
        let offers: Vec<_> = (0..5).flat_map(|_| spread.offer(b, &none, &availability)).collect();
        assert_eq!(ids(offers), [1999]);
    }

    #[test]
    fn a_peer_is_not_offered_what_it_has() {
        let mut spread = Spread::default();
        let mut has = Bitfield::new(3);
        has.set(PieceIndex::new(1));
        assert_eq!(ids(spread.offer(ConnectionId::accepted(0), &has, &[0; 3])), [0, 2]);
    }
}
