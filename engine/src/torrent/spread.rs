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
    given: BTreeMap<PieceIndex, Given>,
    /// Where the search for the next one goes on.
    next: u32,
}

#[derive(Debug)]
struct Given {
    to: ConnectionId,
    /// It was asked for: it is more than an offer.
    asked: bool,
}

impl Spread {
    /// What is suggested to a peer that has `has`, so that some offers wait for it. `availability` counts others.
    pub(super) fn offer(
        &mut self,
        to: ConnectionId,
        has: &Bitfield,
        availability: &[u32],
    ) -> Vec<PieceIndex> {
        let waiting = self.given.values().filter(|given| given.to == to && !given.asked).count();
        let mut offers = Vec::new();
        for _ in 0..LOOKS_MAX.min(availability.len()) {
            if waiting + offers.len() >= OFFERS {
                break;
            }
            let piece = PieceIndex::new(self.next);
            self.next = (self.next + 1) % has.piece_count();
            if availability[piece.at()] == 0 && !has.has(piece) && !self.given.contains_key(&piece) {
                self.given.insert(piece, Given { to, asked: false });
                offers.push(piece);
            }
        }
        offers
    }

    /// A served peer asks for a block of a piece that nobody else has. Gives whether it may be ready for another offer.
    pub(super) fn on_request(&mut self, from: ConnectionId, piece: PieceIndex) -> bool {
        let given = self.given.entry(piece).or_insert(Given { to: from, asked: false });
        given.to != from || !std::mem::replace(&mut given.asked, true)
    }

    /// Whether such a piece is on its way to somebody.
    pub(super) fn is_busy(&self) -> bool {
        self.given.values().any(|given| given.asked)
    }

    /// Somebody else has a piece.
    pub(super) fn on_gained(&mut self, piece: PieceIndex) {
        self.given.remove(&piece);
    }

    /// Somebody else has these pieces.
    pub(super) fn on_all_gained(&mut self, pieces: &Bitfield) {
        self.given.retain(|piece, _| !pieces.has(*piece));
    }

    /// A peer is not served any more: what it was to fetch is free for others.
    pub(super) fn on_choked(&mut self, connection: ConnectionId) {
        self.given.retain(|_, given| given.to != connection);
    }
}

/// Offers that wait for a peer: it may choose the next piece before it hears of another.
const OFFERS: usize = 2;
/// Pieces looked at for one peer at a time.
const LOOKS_MAX: usize = 512;

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
        assert!(spread.on_request(a, piece(0)) && !spread.on_request(a, piece(0)) && spread.is_busy());
        assert_eq!(ids(spread.offer(a, &none, &availability)), [5]);
        // What others chose for themselves is not offered either.
        spread.on_gained(piece(3));
        availability[3] = 1;
        assert!(spread.on_request(a, piece(4)), "it was for somebody else");
        assert_eq!(ids(spread.offer(b, &none, &availability)), [0; 0], "nothing is left");
        // Who is gone leaves everything.
        spread.on_choked(a);
        assert!(!spread.is_busy());
        assert_eq!(ids(spread.offer(b, &none, &availability)), [0]);
        spread.on_all_gained(&Bitfield::full(6));
        assert!(spread.given.is_empty());
    }

    #[test]
    fn a_peer_is_not_offered_what_it_has() {
        let mut spread = Spread::default();
        let mut has = Bitfield::new(3);
        has.set(PieceIndex::new(1));
        assert_eq!(ids(spread.offer(ConnectionId::accepted(0), &has, &[0; 3])), [0, 2]);
    }
}
