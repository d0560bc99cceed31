//! Who lied to one host, what that spoiled, and whether it found out: the figures of S20.

use std::collections::{BTreeMap, BTreeSet};

/// One process's dealings with liars.
#[derive(Debug, Default)]
pub(super) struct LiarWatch {
    /// By torrent and piece: who sent a wrong block for it since it was last hashed, and when that was asked for.
    lied: BTreeMap<(usize, u32), BTreeMap<usize, u64>>,
    /// By torrent, piece and liar: when a block of it was last asked for.
    asked: BTreeMap<(usize, u32, usize), u64>,
    /// Since when a liar's first spoiled piece is known.
    known: BTreeMap<usize, u64>,
    bad_pieces: BTreeMap<usize, u32>,
    /// By torrent and piece: who spoiled it, until it is good.
    spoiled: BTreeMap<(usize, u32), BTreeSet<usize>>,
    /// Who spoiled a piece that was then found good: the difference tells.
    exposed: BTreeSet<usize>,
}

impl LiarWatch {
    /// A liar is asked for a block.
    pub(super) fn on_asked(&mut self, now: u64, torrent: usize, piece: u32, of: usize) {
        self.asked.insert((torrent, piece, of), now);
    }

    /// A wrong block came.
    pub(super) fn on_lie(&mut self, torrent: usize, piece: u32, from: usize) {
        let asked_at = self.asked.get(&(torrent, piece, from)).copied().unwrap_or(0);
        self.lied.entry((torrent, piece)).or_default().insert(from, asked_at);
    }

    /// A piece was good: a lie that came since is too late to be taken, and those that were told before are plain to see.
    pub(super) fn on_good(&mut self, torrent: usize, piece: u32) {
        self.lied.remove(&(torrent, piece));
        self.exposed.extend(self.spoiled.remove(&(torrent, piece)).unwrap_or_default());
    }

    /// A piece was bad. Gives the liars who had a part in it, each with how many it has spoiled by now. What was asked
    /// for before the first of them was known does not count: nobody could know better.
    pub(super) fn on_bad(&mut self, now: u64, torrent: usize, piece: u32) -> Vec<(usize, u32)> {
        let liars = self.lied.remove(&(torrent, piece)).unwrap_or_default();
        self.spoiled.entry((torrent, piece)).or_default().extend(liars.keys());
        let count = |(liar, asked_at)| {
            let is_first = !self.known.contains_key(&liar);
            let counts = is_first || asked_at > *self.known.entry(liar).or_insert(now);
            self.known.entry(liar).or_insert(now);
            let count = self.bad_pieces.entry(liar).or_default();
            *count += u32::from(counts);
            (liar, *count)
        };
        liars.into_iter().map(count).collect()
    }

    /// Who can be known to lie.
    pub(super) fn exposed(&self) -> impl Iterator<Item = usize> {
        self.exposed.iter().copied()
    }

    /// By liar: pieces that it has spoiled.
    pub(super) fn bad_pieces(&self) -> impl Iterator<Item = (usize, u32)> {
        self.bad_pieces.iter().map(|(liar, count)| (*liar, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_spoiled_is_counted() {
        let mut watch = LiarWatch::default();
        let lie = |watch: &mut LiarWatch, piece, from, asked_at| {
            watch.on_asked(asked_at, 0, piece, from);
            watch.on_lie(0, piece, from);
        };
        lie(&mut watch, 5, 2, 1);
        lie(&mut watch, 5, 2, 1);
        lie(&mut watch, 5, 3, 1);
        lie(&mut watch, 8, 2, 9);
        assert_eq!(watch.on_bad(10, 0, 5), [(2, 1), (3, 1)]);
        assert_eq!(watch.on_bad(10, 0, 5), [], "somebody else's fault");
        lie(&mut watch, 6, 2, 11);
        watch.on_good(0, 6);
        assert_eq!(watch.on_bad(12, 0, 6), []);
        assert_eq!(watch.on_bad(12, 0, 8), [(2, 1)], "asked for before anything was known");
        lie(&mut watch, 7, 2, 11);
        assert_eq!(watch.on_bad(13, 0, 7), [(2, 2)]);
        assert_eq!(watch.exposed().count(), 0, "nothing that was spoiled is good");
        watch.on_good(0, 5);
        assert_eq!(watch.exposed().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(watch.bad_pieces().collect::<Vec<_>>(), [(2, 2), (3, 1)]);
    }
}
