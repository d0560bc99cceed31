//! Who is cut off from whom: what a partition, a one-way cut or a black hole swallows, without telling anybody.
//!
//! Parties are known by number: hosts in the order of the plan, then trackers.

use std::collections::BTreeSet;

/// A cut: nothing passes from the first to the second; where it is both ways, neither back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// On one side.
    pub from: BTreeSet<usize>,
    /// On the other; none for everybody else.
    pub to: Option<BTreeSet<usize>>,
    /// Whether nothing comes back either.
    pub both_ways: bool,
}

/// The cuts there are now.
#[derive(Debug, Default)]
pub struct Cuts {
    /// By the number of their fault, with how much they swallowed.
    cuts: Vec<(usize, Cut, u64)>,
}

impl Cut {
    fn is_between(&self, from: usize, to: usize) -> bool {
        let leads = |from, to| {
            self.from.contains(&from)
                && self.to.as_ref().map_or(!self.from.contains(&to), |there| there.contains(&to))
        };
        leads(from, to) || (self.both_ways && leads(to, from))
    }
}

impl Cuts {
    /// A cut begins.
    pub fn begin(&mut self, number: usize, cut: Cut) {
        self.cuts.push((number, cut, 0));
    }

    /// It heals. Gives how much it swallowed.
    pub fn end(&mut self, number: usize) -> u64 {
        let at = self.cuts.iter().position(|(known, ..)| *known == number);
        at.map_or(0, |at| self.cuts.remove(at).2)
    }

    /// Whether something that leaves `from` now never comes to `to`.
    pub fn swallow(&mut self, from: usize, to: usize) -> bool {
        let mut cuts = self.cuts.iter_mut();
        let Some((.., count)) = cuts.find(|(_, cut, _)| from != to && cut.is_between(from, to)) else {
            return false;
        };
        *count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<const N: usize>(parties: [usize; N]) -> BTreeSet<usize> {
        parties.into_iter().collect()
    }

    /// Which of the four parties hear which.
    fn check(cut: Cut, deaf: &[(usize, usize)]) {
        let mut cuts = Cuts::default();
        cuts.begin(3, cut);
        for from in 0..4 {
            for to in 0..4 {
                assert_eq!(cuts.swallow(from, to), deaf.contains(&(from, to)), "{from} to {to}");
            }
        }
        assert_eq!(cuts.end(3), deaf.len() as u64);
        assert!(!cuts.swallow(0, 1), "healed");
        assert_eq!(cuts.end(3), 0);
    }

    #[test]
    fn a_partition_is_deaf_both_ways_and_a_one_way_cut_is_not() {
        let cut = Cut { from: set([0, 1]), to: Some(set([2])), both_ways: true };
        check(cut.clone(), &[(0, 2), (1, 2), (2, 0), (2, 1)]);
        check(Cut { both_ways: false, ..cut }, &[(0, 2), (1, 2)]);
    }

    #[test]
    fn a_black_hole_hears_nobody_and_is_heard_by_nobody() {
        let cut = Cut { from: set([1]), to: None, both_ways: true };
        check(cut, &[(1, 0), (1, 2), (1, 3), (0, 1), (2, 1), (3, 1)]);
    }
}
