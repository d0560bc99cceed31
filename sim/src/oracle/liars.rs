//! Who lied to one host, what that spoiled, and whether it found out: the figures of S20.

use std::collections::{BTreeMap, BTreeSet};

/// One host's dealings with liars.
#[derive(Debug, Default)]
pub(super) struct LiarWatch {
    /// By torrent and piece: who sent a wrong block for it since it was last hashed.
    lied: BTreeMap<(usize, u32), BTreeSet<usize>>,
    bad_pieces: BTreeMap<usize, u32>,
}

impl LiarWatch {
    /// A wrong block came.
    pub(super) fn on_lie(&mut self, torrent: usize, piece: u32, from: usize) {
        self.lied.entry((torrent, piece)).or_default().insert(from);
    }

    /// A piece was good: the lie came too late to be taken.
    pub(super) fn on_good(&mut self, torrent: usize, piece: u32) {
        self.lied.remove(&(torrent, piece));
    }

    /// A piece was bad. Gives the liars who had a part in it, each with how many it has spoiled by now.
    pub(super) fn on_bad(&mut self, torrent: usize, piece: u32) -> Vec<(usize, u32)> {
        let liars = self.lied.remove(&(torrent, piece)).unwrap_or_default();
        let count = |liar| {
            let count = self.bad_pieces.entry(liar).or_default();
            *count += 1;
            (liar, *count)
        };
        liars.into_iter().map(count).collect()
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
        watch.on_lie(0, 5, 2);
        watch.on_lie(0, 5, 2);
        watch.on_lie(0, 5, 3);
        assert_eq!(watch.on_bad(0, 5), [(2, 1), (3, 1)]);
        assert_eq!(watch.on_bad(0, 5), [], "somebody else's fault");
        watch.on_lie(0, 6, 2);
        watch.on_good(0, 6);
        assert_eq!(watch.on_bad(0, 6), []);
        watch.on_lie(0, 7, 2);
        assert_eq!(watch.on_bad(0, 7), [(2, 2)]);
        assert_eq!(watch.bad_pieces().collect::<Vec<_>>(), [(2, 2), (3, 1)]);
    }
}
