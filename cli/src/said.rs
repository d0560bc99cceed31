//! What trackers said last, so that each thing is told once.

use std::collections::BTreeMap;

use taipei_engine::TorrentId;

/// What each tracker said last of each torrent, by the tracker's host.
#[derive(Default)]
pub(crate) struct Said(BTreeMap<(String, TorrentId), String>);

impl Said {
    /// Whether this is another thing than it said last of the torrent; with `once`, and than it says of any other.
    pub(crate) fn is_new(&mut self, host: &str, torrent: TorrentId, words: &str, once: bool) -> bool {
        let is_known = once && self.of(host).any(|said| said == words);
        let before = self.0.insert((host.to_owned(), torrent), words.to_owned());
        !is_known && before.as_deref() != Some(words)
    }

    /// It has nothing to say of the torrent any more. Whether it had; with `once`, and says the same of no other.
    pub(crate) fn is_over(&mut self, host: &str, torrent: TorrentId, once: bool) -> bool {
        let Some(words) = self.0.remove(&(host.to_owned(), torrent)) else { return false };
        !(once && self.of(host).any(|said| *said == words))
    }

    /// The torrent is out.
    pub(crate) fn forget(&mut self, torrent: TorrentId) {
        self.0.retain(|(_, other), _| *other != torrent);
    }

    fn of(&self, host: &str) -> impl Iterator<Item = &String> {
        let of = |torrent| (host.to_owned(), TorrentId(torrent));
        self.0.range(of(u32::MIN)..=of(u32::MAX)).map(|(_, said)| said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TorrentId = TorrentId(0);
    const B: TorrentId = TorrentId(1);

    #[test]
    fn what_one_torrent_is_told_is_not_what_another_is() {
        let mut said = Said::default();
        assert!(said.is_new("t", A, "unregistered", false));
        assert!(!said.is_over("t", B, false), "it never said anything of this one");
        assert!(!said.is_new("t", A, "unregistered", false));
        assert!(said.is_new("t", B, "unregistered", false) && said.is_new("u", A, "unregistered", false));
        assert!(said.is_over("t", A, false) && said.is_new("t", A, "unregistered", false));
    }

    #[test]
    fn among_many_a_tracker_says_it_once() {
        let mut said = Said::default();
        assert!(said.is_new("t", A, "timed out", true));
        assert!(!said.is_new("t", B, "timed out", true));
        assert!(!said.is_over("t", A, true) && said.is_over("t", B, true), "when it answers for all");
        assert!(said.is_new("t", B, "timed out", true) && said.is_new("t", A, "unregistered", true));
        assert!(said.is_over("t", B, true), "that is another matter");
        assert!(!said.is_new("t", B, "unregistered", true));
        said.forget(A);
        assert!(said.is_over("t", B, true));
    }
}
