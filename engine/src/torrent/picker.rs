//! Which missing piece next: by class, and within one a few random ones first, then the rarest (BEP 3), ties by
//! chance; or all in order.
//!
//! The missing pieces of a class lie in one list ordered by availability, with the place where each availability
//! begins; a change of one piece's availability is a few swaps. Peers that have everything are counted once, not per
//! piece.

use std::collections::BTreeSet;

use crate::ids::PieceIndex;
use crate::rng::Rng;

/// The order in which missing pieces are begun.
#[derive(Debug)]
pub(crate) struct Picker {
    /// Peers, seeds left out, that have each piece.
    availability: Vec<u32>,
    /// Where each missing piece is: its class, and its place there.
    places: Vec<Option<(Class, u32)>>,
    /// Missing pieces by class.
    ranks: [Rank; CLASSES.len()],
    /// The same in order, when they are fetched in order.
    sequence: Option<BTreeSet<(Class, PieceIndex)>>,
    rng: Rng,
}

/// What comes before what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Failed before: who lied is known when it passes.
    Suspect,
    High,
    Normal,
    Low,
}

const CLASSES: [Class; 4] = [Class::Suspect, Class::High, Class::Normal, Class::Low];

/// The missing pieces of one class.
#[derive(Debug)]
struct Rank {
    /// By availability.
    order: Vec<PieceIndex>,
    /// Where each availability begins in `order`; its end is the next one's beginning.
    begins: Vec<u32>,
}

impl Picker {
    /// In order if `sequential`, else the rarest first.
    pub(crate) fn new(piece_count: u32, sequential: bool, rng: Rng) -> Self {
        Self {
            availability: vec![0; piece_count as usize],
            places: vec![None; piece_count as usize],
            ranks: CLASSES.map(|_| Rank { order: Vec::new(), begins: vec![0] }),
            sequence: sequential.then(BTreeSet::new),
            rng,
        }
    }

    /// The pieces are known now. Nothing of them is missing yet, and nobody has any.
    pub(crate) fn take_shape(&mut self, piece_count: u32) {
        self.availability = vec![0; piece_count as usize];
        self.places = vec![None; piece_count as usize];
    }

    /// Of each piece, how many peers have it; those that have all are left out.
    pub(crate) fn availability(&self) -> &[u32] {
        &self.availability
    }

    /// Whether pieces are begun in order.
    pub(crate) fn is_sequential(&self) -> bool {
        self.sequence.is_some()
    }

    /// A piece is missing now, and of this class.
    pub(crate) fn insert(&mut self, piece: PieceIndex, class: Class) {
        assert_eq!(self.places[piece.at()], None, "a piece is missing once");
        if let Some(sequence) = &mut self.sequence {
            sequence.insert((class, piece));
        }
        let availability = self.availability[piece.at()] as usize;
        let rank = &mut self.ranks[class as usize];
        rank.grow(availability);
        let mut hole = rank.order.len() as u32;
        rank.order.push(piece);
        let buckets = rank.begins.len();
        for bucket in (availability + 1..buckets).rev() {
            let first = self.rank(class).begins[bucket];
            self.fill(class, hole, first);
            self.ranks[class as usize].begins[bucket] = first + 1;
            hole = first;
        }
        self.put(class, hole, piece);
        self.mix(class, availability, hole);
    }

    /// A piece is no longer missing. Not there is fine.
    pub(crate) fn remove(&mut self, piece: PieceIndex) {
        let Some((class, mut hole)) = self.places[piece.at()].take() else { return };
        if let Some(sequence) = &mut self.sequence {
            sequence.remove(&(class, piece));
        }
        let availability = self.availability[piece.at()] as usize;
        for bucket in availability..self.rank(class).begins.len() {
            let last = self.rank(class).end(bucket) - 1;
            self.fill(class, hole, last);
            hole = last;
            if let Some(begin) = self.ranks[class as usize].begins.get_mut(bucket + 1) {
                *begin -= 1;
            }
        }
        self.ranks[class as usize].order.pop();
    }

    /// One more peer has it.
    pub(crate) fn on_gained(&mut self, piece: PieceIndex) {
        let availability = self.availability[piece.at()] as usize;
        self.availability[piece.at()] += 1;
        let Some((class, at)) = self.places[piece.at()] else { return };
        let rank = &mut self.ranks[class as usize];
        rank.grow(availability + 1);
        let last = rank.end(availability) - 1;
        rank.begins[availability + 1] -= 1;
        self.swap(class, at, last);
        self.mix(class, availability + 1, last);
    }

    /// One peer fewer has it.
    pub(crate) fn on_lost(&mut self, piece: PieceIndex) {
        let availability = self.availability[piece.at()] as usize;
        assert!(availability > 0, "who had a piece was counted");
        self.availability[piece.at()] -= 1;
        let Some((class, at)) = self.places[piece.at()] else { return };
        let rank = &mut self.ranks[class as usize];
        let first = rank.begins[availability];
        rank.begins[availability] += 1;
        self.swap(class, at, first);
        self.mix(class, availability - 1, first);
    }

    /// The next missing piece that `has` says yes to; any one of its class when `random`.
    pub(crate) fn pick(&mut self, random: bool, has: impl Fn(PieceIndex) -> bool) -> Option<PieceIndex> {
        if let Some(sequence) = &self.sequence {
            return sequence.iter().map(|(_, piece)| *piece).find(|piece| has(*piece));
        }
        for class in CLASSES {
            let order = &self.ranks[class as usize].order;
            for _ in 0..if random && !order.is_empty() { RANDOM_TRIES } else { 0 } {
                let at = self.rng.below(order.len() as u64) as usize;
                if let Some(piece) = order.get(at).copied().filter(|piece| has(*piece)) {
                    return Some(piece);
                }
            }
            if let Some(piece) = order.iter().copied().find(|piece| has(*piece)) {
                return Some(piece);
            }
        }
        None
    }

    /// Whether a missing piece is no worse a choice than another one, which was picked.
    pub(crate) fn is_as_good(&self, piece: PieceIndex, picked: PieceIndex) -> bool {
        let class = |piece: PieceIndex| self.places[piece.at()].map(|(class, _)| class);
        class(piece) == class(picked)
            && !self.is_sequential()
            && self.availability[piece.at()] <= self.availability[picked.at()]
    }

    fn rank(&self, class: Class) -> &Rank {
        &self.ranks[class as usize]
    }

    fn put(&mut self, class: Class, at: u32, piece: PieceIndex) {
        self.ranks[class as usize].order[at as usize] = piece;
        self.places[piece.at()] = Some((class, at));
    }

    /// Moves a piece into a hole, which is then where the piece was.
    fn fill(&mut self, class: Class, hole: u32, from: u32) {
        if hole != from {
            let moved = self.rank(class).order[from as usize];
            self.put(class, hole, moved);
        }
    }

    fn swap(&mut self, class: Class, a: u32, b: u32) {
        let order = &self.rank(class).order;
        let (first, second) = (order[a as usize], order[b as usize]);
        self.put(class, a, second);
        self.put(class, b, first);
    }

    /// Gives the piece at `at` a random place in its bucket, so that ties fall by chance.
    fn mix(&mut self, class: Class, bucket: usize, at: u32) {
        let (begin, end) = (self.rank(class).begins[bucket], self.rank(class).end(bucket));
        let other = begin + self.rng.below(u64::from(end - begin)) as u32;
        self.swap(class, at, other);
    }
}

impl Rank {
    fn end(&self, bucket: usize) -> u32 {
        self.begins.get(bucket + 1).copied().unwrap_or(self.order.len() as u32)
    }

    fn grow(&mut self, bucket: usize) {
        while self.begins.len() <= bucket {
            self.begins.push(self.order.len() as u32);
        }
    }
}

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
        let mut picker = Picker::new(missing.len() as u32, false, Rng::stream(1, "picker", 0));
        for (at, _) in missing.match_indices('x') {
            picker.insert(piece(at as u32), Class::Normal);
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

    #[test]
    fn classes_come_one_after_the_other_and_the_rarest_of_each_first() {
        let class = |n: u32| [Class::Low, Class::High, Class::Normal, Class::Suspect][n as usize % 4];
        for random in [false, true] {
            let mut picker = Picker::new(12, false, Rng::stream(3, "picker", 0));
            (0..12).for_each(|n| picker.insert(piece(n), class(n)));
            (0..4).for_each(|n| picker.on_gained(piece(n)));
            let mut got = Vec::new();
            while let Some(next) = picker.pick(random, |_| true) {
                picker.remove(next);
                got.push(next.get());
            }
            assert!(got.iter().map(|n| class(*n)).is_sorted(), "{got:?}");
            let last_of_each: Vec<_> = got.chunks(3).map(|three| three[2]).collect();
            assert!(random || last_of_each == [3, 1, 2, 0], "{got:?}");
        }
    }

    #[test]
    fn in_order_is_in_order_within_a_class() {
        let mut picker = Picker::new(6, true, Rng::stream(3, "picker", 0));
        (0..6).for_each(|n| picker.insert(piece(n), if n == 4 { Class::High } else { Class::Normal }));
        picker.on_gained(piece(0));
        picker.remove(piece(2));
        let mut got = Vec::new();
        while let Some(next) = picker.pick(true, |piece| piece.get() != 3) {
            picker.remove(next);
            got.push(next.get());
        }
        assert_eq!(got, [4, 0, 1, 5]);
    }

    proptest! {
        #[test]
        fn the_order_is_kept_through_any_changes(
            steps in proptest::collection::vec((0u8..4, 0u32..24, 0usize..4), 0..300),
            sequential: bool,
        ) {
            let mut picker = Picker::new(24, sequential, Rng::stream(2, "picker", 0));
            let mut missing = [None; 24];
            let mut had = [0u32; 24];
            for (step, n, class) in steps {
                let at = n as usize;
                match step {
                    0 if missing[at].is_none() => {
                        picker.insert(piece(n), CLASSES[class]);
                        missing[at] = Some(CLASSES[class]);
                    }
                    1 => { picker.remove(piece(n)); missing[at] = None; }
                    2 => { picker.on_gained(piece(n)); had[at] += 1; }
                    3 if had[at] > 0 => { picker.on_lost(piece(n)); had[at] -= 1; }
                    _ => {}
                }
                for class in CLASSES {
                    let order: Vec<u32> = picker.rank(class).order.iter().map(|p| had[p.at()]).collect();
                    prop_assert!(order.is_sorted());
                    prop_assert_eq!(order.len(), missing.iter().filter(|m| **m == Some(class)).count());
                    for (at, piece) in picker.rank(class).order.iter().enumerate() {
                        prop_assert_eq!(picker.places[piece.at()], Some((class, at as u32)));
                    }
                }
                let by_rarity = |at: &usize| (missing[*at], had[*at]);
                let by_number = |at: &usize| (missing[*at], *at as u32);
                let left = (0..24).filter(|at| missing[*at].is_some());
                let got = picker.pick(false, |_| true).map(PieceIndex::at);
                if sequential {
                    prop_assert_eq!(got.as_ref().map(by_number), left.map(|at| by_number(&at)).min());
                } else {
                    prop_assert_eq!(got.as_ref().map(by_rarity), left.map(|at| by_rarity(&at)).min());
                }
            }
        }
    }
}
