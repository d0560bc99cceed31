//! How far the files of a torrent are known to reach.
//!
//! Whoever writes beyond the end of a file that another program cut, or makes one again that it removed, fills with zeros
//! what was there, and reading that is no error any more. So every write says how long its files should be, and nothing is
//! written to one that is shorter before what we have of it is in doubt. From then on nothing is known of that file but what
//! is found there, or written.

use std::collections::{BTreeMap, BTreeSet};

use crate::disk::Run;
use crate::ids::{FileIndex, PieceIndex};
use crate::metainfo::Layout;

/// What is known of the files of one torrent.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Bytes; none of a file of which nothing is there.
    lengths: BTreeMap<FileIndex, u64>,
}

impl Reach {
    /// All of a piece was found on disk.
    pub(super) fn on_found(&mut self, layout: &Layout, piece: PieceIndex) {
        self.on_there(layout, piece, 0, layout.piece_bytes(piece));
    }

    /// These parts of a piece were written.
    pub(super) fn on_written(&mut self, layout: &Layout, piece: PieceIndex, runs: &[Run]) {
        for run in runs {
            self.on_there(layout, piece, run.begin, run.bytes());
        }
    }

    /// What was in a file may be gone.
    pub(super) fn on_gone(&mut self, file: FileIndex) {
        self.lengths.remove(&file);
    }

    /// The files that a write of these runs goes to, and how long each should be.
    pub(super) fn of(&self, layout: &Layout, piece: PieceIndex, runs: &[Run]) -> Vec<(FileIndex, u64)> {
        let runs = runs.iter().flat_map(|run| layout.runs(piece, run.begin, run.bytes()));
        let files: BTreeSet<FileIndex> = runs.filter(|run| !run.pad).map(|run| run.file).collect();
        files.into_iter().map(|file| (file, self.lengths.get(&file).copied().unwrap_or(0))).collect()
    }

    fn on_there(&mut self, layout: &Layout, piece: PieceIndex, begin: u32, length: u32) {
        for run in layout.runs(piece, begin, length).filter(|run| !run.pad) {
            let known = self.lengths.entry(run.file).or_default();
            *known = (*known).max(run.offset + run.length);
        }
    }
}
