//! Who lied to one host, what that spoiled, and whether it found out: the figures of S20.
//!
//! A wrong block spoils a piece when it is written as a part of it. One that came too late, or for a piece that was begun
//! anew with another since, spoils nothing, whoever asked for it: it has no part in what fails then.

use std::collections::{BTreeMap, BTreeSet};

use taipei_engine::BlockData;

/// One process's dealings with liars.
#[derive(Debug, Default)]
pub(super) struct LiarWatch {
    /// By torrent and piece: wrong blocks that came since it was last hashed, and from whom.
    told: BTreeMap<(usize, u32), Vec<Lie>>,
    /// By torrent and piece: whose wrong block was written, by where it begins.
    written: BTreeMap<(usize, u32), BTreeMap<u32, usize>>,
    /// By torrent, piece and liar: when a block of it was last asked for.
    asked: BTreeMap<(usize, u32, usize), u64>,
    /// By torrent and liar: since when the first piece that it spoiled there is known.
    known: BTreeMap<(usize, usize), u64>,
    /// By torrent and liar. Torrents have nothing in common but the ban: who is not known yet may spoil as many in each.
    bad_pieces: BTreeMap<(usize, usize), u32>,
    /// By torrent and piece: who spoiled it, until it is good.
    spoiled: BTreeMap<(usize, u32), BTreeSet<usize>>,
    /// Who spoiled a piece that was then found good: the difference tells.
    exposed: BTreeSet<usize>,
}

#[derive(Debug)]
struct Lie {
    begin: u32,
    data: BlockData,
    from: usize,
}

impl LiarWatch {
    /// A liar is asked for a block.
    pub(super) fn on_asked(&mut self, now: u64, torrent: usize, piece: u32, of: usize) {
        self.asked.insert((torrent, piece, of), now);
    }

    /// A wrong block came.
    pub(super) fn on_lie(&mut self, torrent: usize, piece: u32, begin: u32, data: &BlockData, from: usize) {
        let lie = Lie { begin, data: data.clone(), from };
        self.told.entry((torrent, piece)).or_default().push(lie);
    }

    /// A block is written to disk.
    pub(super) fn on_write(&mut self, torrent: usize, piece: u32, begin: u32, data: &BlockData) {
        let Some(told) = self.told.get(&(torrent, piece)) else { return };
        let lie = told.iter().find(|lie| lie.begin == begin && is_same(&lie.data, data));
        let written = self.written.entry((torrent, piece)).or_default();
        match lie {
            Some(lie) => written.insert(begin, lie.from),
            None => written.remove(&begin),
        };
    }

    /// A piece was good: those that spoiled it before are plain to see.
    pub(super) fn on_good(&mut self, torrent: usize, piece: u32) {
        self.told.remove(&(torrent, piece));
        self.written.remove(&(torrent, piece));
        self.exposed.extend(self.spoiled.remove(&(torrent, piece)).unwrap_or_default());
    }

    /// A piece was bad. Gives the liars who had a part in it, each with how many of the torrent it has spoiled by now. What
    /// was asked for before the first of them was known does not count: nobody could know better.
    pub(super) fn on_bad(&mut self, now: u64, torrent: usize, piece: u32) -> Vec<(usize, u32)> {
        self.told.remove(&(torrent, piece));
        let written = self.written.remove(&(torrent, piece)).unwrap_or_default();
        let liars: BTreeSet<usize> = written.into_values().collect();
        self.spoiled.entry((torrent, piece)).or_default().extend(&liars);
        let count = |liar| {
            let asked_at = self.asked.get(&(torrent, piece, liar)).copied().unwrap_or(0);
            let counts = self.known.get(&(torrent, liar)).is_none_or(|known_at| asked_at > *known_at);
            self.known.entry((torrent, liar)).or_insert(now);
            let count = self.bad_pieces.entry((torrent, liar)).or_default();
            *count += u32::from(counts);
            (liar, *count)
        };
        liars.into_iter().map(count).collect()
    }

    /// A piece was bad that the world itself spoiled: nothing is known of who had a part in it.
    pub(super) fn on_unsure(&mut self, torrent: usize, piece: u32) {
        self.told.remove(&(torrent, piece));
        self.written.remove(&(torrent, piece));
    }

    /// Who can be known to lie.
    pub(super) fn exposed(&self) -> impl Iterator<Item = usize> {
        self.exposed.iter().copied()
    }

    /// By liar, once for each torrent: pieces that it has spoiled.
    pub(super) fn bad_pieces(&self) -> impl Iterator<Item = (usize, u32)> {
        self.bad_pieces.iter().map(|((_, liar), count)| (*liar, *count))
    }
}

/// Whether both are the same bytes in memory: nothing is copied on the way to the disk, and two may tell the same lie.
fn is_same(one: &BlockData, other: &BlockData) -> bool {
    let places = |data: &BlockData| data.parts().iter().map(|part| part.as_ptr()).collect::<Vec<_>>();
    places(one) == places(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> BlockData {
        bytes::Bytes::from(vec![7]).into()
    }

    /// A wrong block comes and is written.
    fn lie(watch: &mut LiarWatch, piece: u32, from: usize, asked_at: u64) {
        let data = data();
        watch.on_asked(asked_at, 0, piece, from);
        watch.on_lie(0, piece, from as u32, &data, from);
        watch.on_write(0, piece, from as u32, &data);
    }

    #[test]
    fn only_what_was_spoiled_is_counted() {
        let mut watch = LiarWatch::default();
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
        watch.on_asked(11, 1, 7, 2);
        watch.on_lie(1, 7, 0, &data(), 2);
        let other = data();
        watch.on_lie(1, 7, 0, &other, 2);
        watch.on_write(1, 7, 0, &other);
        assert_eq!(watch.on_bad(13, 1, 7), [(2, 1)], "another torrent");
        assert_eq!(watch.exposed().count(), 0, "nothing that was spoiled is good");
        watch.on_good(0, 5);
        assert_eq!(watch.exposed().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(watch.bad_pieces().collect::<Vec<_>>(), [(2, 2), (3, 1), (2, 1)]);
    }

    #[test]
    fn a_lie_that_is_not_in_the_piece_spoils_nothing() {
        let mut watch = LiarWatch::default();
        watch.on_lie(0, 5, 0, &data(), 2);
        assert_eq!(watch.on_bad(1, 0, 5), [], "thrown away");
        let (first, second) = (data(), data());
        watch.on_lie(0, 5, 0, &first, 2);
        watch.on_lie(0, 5, 0, &second, 3);
        watch.on_write(0, 5, 0, &second);
        assert_eq!(watch.on_bad(2, 0, 5), [(3, 1)], "the same lie of another");
        lie(&mut watch, 6, 2, 1);
        watch.on_write(0, 6, 2, &data());
        assert_eq!(watch.on_bad(3, 0, 6), [], "written early, and written over since");
    }
}
