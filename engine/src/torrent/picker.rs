//! Which missing piece next: a few random ones first, then the rarest (BEP 3), ties by chance.
//!
//! Missing pieces lie in one list ordered by availability, with the place where each availability begins; a change of
//! one piece's availability is a few swaps. Peers that have everything are counted once, not per piece.

use crate::ids::PieceIndex;
use crate::rng::Rng;

/// The order in which missing pieces are begun.
#[derive(Debug)]
pub(crate) struct Picker {
    /// Peers, seeds left out, that have each piece.
    availability: Vec<u32>,
    /// Missing pieces by availability.
    order: Vec<PieceIndex>,
    /// Where each piece is in `order`, or `ABSENT`.
    position: Vec<u32>,
    /// Where each availability begins in `order`; its end is the next one's beginning.
    begins: Vec<u32>,
    rng: Rng,
}

impl Picker {
    pub(crate) fn new(piece_count: u32, rng: Rng) -> Self {
        Self {
            availability: vec![0; piece_count as usize],
            order: Vec::new(),
            position: vec![ABSENT; piece_count as usize],
            begins: vec![0],
            rng,
        }
    }

    /// A piece is missing now.
    pub(crate) fn insert(&mut self, piece: PieceIndex) {
        assert_eq!(self.position[piece.at()], ABSENT, "a piece is missing once");
        let availability = self.availability[piece.at()] as usize;
        self.grow(availability);
        let mut hole = self.order.len() as u32;
        self.order.push(piece);
        for bucket in (availability + 1..self.begins.len()).rev() {
            let first = self.begins[bucket];
            self.fill(hole, first);
            self.begins[bucket] += 1;
            hole = first;
        }
        self.put(hole, piece);
        self.mix(availability, hole);
    }

    /// A piece is no longer missing. Not there is fine.
    pub(crate) fn remove(&mut self, piece: PieceIndex) {
        let mut hole = self.position[piece.at()];
        if hole == ABSENT {
            return;
        }
        let availability = self.availability[piece.at()] as usize;
        for bucket in availability..self.begins.len() {
            let last = self.end(bucket) - 1;
            self.fill(hole, last);
            hole = last;
            if bucket + 1 < self.begins.len() {
                self.begins[bucket + 1] -= 1;
            }
        }
        self.order.pop();
        self.position[piece.at()] = ABSENT;
    }

    /// One more peer has it.
    pub(crate) fn on_gained(&mut self, piece: PieceIndex) {
        let availability = self.availability[piece.at()] as usize;
        self.availability[piece.at()] += 1;
        let position = self.position[piece.at()];
        if position == ABSENT {
            return;
        }
        self.grow(availability + 1);
        let last = self.end(availability) - 1;
        self.swap(position, last);
        self.begins[availability + 1] -= 1;
        self.mix(availability + 1, last);
    }

    /// One peer fewer has it.
    pub(crate) fn on_lost(&mut self, piece: PieceIndex) {
        let availability = self.availability[piece.at()] as usize;
        assert!(availability > 0, "who had a piece was counted");
        self.availability[piece.at()] -= 1;
        let position = self.position[piece.at()];
        if position == ABSENT {
            return;
        }
        let first = self.begins[availability];
        self.swap(position, first);
        self.begins[availability] += 1;
        self.mix(availability - 1, first);
    }

    /// The rarest missing piece that `has` says yes to; any one of them when `random`.
    pub(crate) fn pick(&mut self, random: bool, has: impl Fn(PieceIndex) -> bool) -> Option<PieceIndex> {
        if random {
            for _ in 0..RANDOM_TRIES {
                let at = self.rng.below(self.order.len() as u64) as usize;
                if let Some(piece) = self.order.get(at).copied().filter(|piece| has(*piece)) {
                    return Some(piece);
                }
            }
        }
        self.order.iter().copied().find(|piece| has(*piece))
    }

    fn end(&self, bucket: usize) -> u32 {
        self.begins.get(bucket + 1).copied().unwrap_or(self.order.len() as u32)
    }

    fn grow(&mut self, bucket: usize) {
        while self.begins.len() <= bucket {
            self.begins.push(self.order.len() as u32);
        }
    }

    fn put(&mut self, at: u32, piece: PieceIndex) {
        self.order[at as usize] = piece;
        self.position[piece.at()] = at;
    }

    /// Moves a piece into a hole, which is then where the piece was.
    fn fill(&mut self, hole: u32, from: u32) {
        if hole != from {
            self.put(hole, self.order[from as usize]);
        }
    }

    fn swap(&mut self, a: u32, b: u32) {
        let (first, second) = (self.order[a as usize], self.order[b as usize]);
        self.put(a, second);
        self.put(b, first);
    }

    /// Gives the piece at `at` a random place in its bucket, so that ties fall by chance.
    fn mix(&mut self, bucket: usize, at: u32) {
        let begin = self.begins[bucket];
        let other = begin + self.rng.below(u64::from(self.end(bucket) - begin)) as u32;
        self.swap(at, other);
    }
}

const ABSENT: u32 = u32::MAX;
const RANDOM_TRIES: u32 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    fn piece(n: u32) -> PieceIndex {
        PieceIndex::new(n)
    }

    /// `missing` has a mark for each missing piece, `peers` what each peer has; the picks until nothing is left,
    /// without the order among ties.
    fn check(missing: &str, peers: &[&str], want: &[&str]) {
        let mut picker = Picker::new(missing.len() as u32, Rng::stream(1, "picker", 0));
        for (at, _) in missing.match_indices('x') {
            picker.insert(piece(at as u32));
        }
        for peer in peers {
            peer.match_indices('x').for_each(|(at, _)| picker.on_gained(piece(at as u32)));
        }
        let mut got = Vec::new();
        while let Some(next) = picker.pick(false, |_| true) {
            picker.remove(next);
            got.push(next.get());
        }
        let mut got = got.into_iter();
        for tie in want {
            let mut same: Vec<_> = got.by_ref().take(tie.len()).map(|n| char::from(b'0' + n as u8)).collect();
            same.sort_unstable();
            assert_eq!(same.iter().collect::<String>(), *tie);
        }
        assert_eq!(got.next(), None);
    }

    #[test]
    fn the_rarest_comes_first() {
        check("xxxxxx", &["xx....", "x..xx.", "xx.x.."], &["25", "4", "13", "0"]);
        check("x.x.xx", &["xxxxx.", "..x..."], &["5", "04", "2"]);
        check("......", &["xxxxxx"], &[]);
    }

    proptest! {
        #[test]
        fn the_order_is_kept_through_any_changes(
            steps in proptest::collection::vec((0u8..4, 0u32..24), 0..300),
        ) {
            let mut picker = Picker::new(24, Rng::stream(2, "picker", 0));
            let mut missing = [false; 24];
            let mut had = [0u32; 24];
            for (step, n) in steps {
                let at = n as usize;
                match step {
                    0 if !missing[at] => { picker.insert(piece(n)); missing[at] = true; }
                    1 => { picker.remove(piece(n)); missing[at] = false; }
                    2 => { picker.on_gained(piece(n)); had[at] += 1; }
                    3 if had[at] > 0 => { picker.on_lost(piece(n)); had[at] -= 1; }
                    _ => {}
                }
                let order: Vec<u32> = picker.order.iter().map(|p| had[p.at()]).collect();
                prop_assert!(order.is_sorted());
                prop_assert_eq!(order.len(), missing.iter().filter(|m| **m).count());
                for (at, piece) in picker.order.iter().enumerate() {
                    prop_assert!(missing[piece.at()] && picker.position[piece.at()] == at as u32);
                }
                let rarest = (0..24).filter(|at| missing[*at]).map(|at| had[at]).min();
                prop_assert_eq!(picker.pick(false, |_| true).map(|p| had[p.at()]), rarest);
            }
        }
    }
}
