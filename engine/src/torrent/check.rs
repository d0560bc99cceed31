//! Hashing what is on disk before peers and trackers begin: a few jobs at once, each a few pieces.

use super::{Purpose, Torrent};
use crate::bitfield::Bitfield;
use crate::context::Context;
use crate::disk::Work;
use crate::ids::PieceIndex;
use crate::metainfo::Layout;
use crate::time::Instant;

/// The pieces to hash.
#[derive(Debug, Default)]
pub(crate) struct Check {
    waiting: Vec<PieceIndex>,
    /// Those that no result came of yet.
    unchecked: Bitfield,
    under_way: u32,
    jobs_out: u32,
    pieces_a_job: usize,
    bytes_done: u64,
}

impl Check {
    pub(crate) fn begin(&mut self, layout: &Layout, pieces: Bitfield) {
        self.waiting = pieces.iter().collect();
        self.waiting.reverse();
        self.unchecked = pieces;
        // Large ones are hashed side by side as well, but no job takes long.
        let fitting = |bytes: u32| bytes / layout.piece_length().max(1);
        let least = fitting(JOB_BYTES_MAX).clamp(1, SIDE_BY_SIDE);
        self.pieces_a_job = fitting(JOB_BYTES).clamp(least, PIECES_A_JOB_MAX) as usize;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.under_way == 0
    }

    /// The pieces that no result came of yet, for a later run to go on with.
    pub(crate) fn unchecked(&self) -> &Bitfield {
        &self.unchecked
    }

    pub(crate) fn bytes_done(&self) -> u64 {
        self.bytes_done
    }

    fn next_job(&mut self) -> Option<Vec<PieceIndex>> {
        if self.jobs_out >= JOBS_OUT_MAX || self.waiting.is_empty() {
            return None;
        }
        let rest = self.waiting.len().saturating_sub(self.pieces_a_job);
        let pieces: Vec<_> = self.waiting.drain(rest..).rev().collect();
        self.under_way += pieces.len() as u32;
        self.jobs_out = self.under_way.div_ceil(self.pieces_a_job as u32);
        Some(pieces)
    }

    fn on_checked(&mut self, piece: PieceIndex, bytes: u32) {
        self.unchecked.clear(piece);
        self.under_way -= 1;
        self.jobs_out = self.under_way.div_ceil(self.pieces_a_job as u32);
        self.bytes_done += u64::from(bytes);
    }
}

impl Torrent {
    pub(super) fn check_on(&mut self, context: &mut Context<'_>) {
        while let Some(pieces) = self.check.next_job() {
            self.submit(context, Purpose::Check { pieces: pieces.clone() }, Work::Check { pieces });
        }
        if self.check.is_over() {
            self.begin_swarm(context);
        }
    }

    pub(super) fn on_checked(&mut self, now: Instant, piece: PieceIndex, good: bool) {
        self.check.on_checked(piece, self.place.layout.piece_bytes(piece));
        if good {
            self.on_have(piece);
            self.resume.on_good(now, piece);
        }
    }
}

const JOB_BYTES: u32 = 16 << 20;
const PIECES_A_JOB_MAX: u32 = 256;
const JOB_BYTES_MAX: u32 = 64 << 20;
const SIDE_BY_SIDE: u32 = 4;
const JOBS_OUT_MAX: u32 = 8;
