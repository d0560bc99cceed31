//! What one peer is asked for next.
//!
//! The rest of its own pieces, then of pieces nobody owns, then a new piece, then others' pieces with it. When every
//! missing block was asked of somebody, *endgame*: a block may be asked of a second peer (of four when fewer than ten
//! are missing), a few at a time. In order, what is late comes before what is new in the same way. What a peer may not
//! join because too much of it or of them is not judged yet ([`Shares`]), it takes over when it was kept waiting.

use core::time::Duration;
use std::collections::BTreeSet;

use tracing::trace;

use super::picker::Picker;
use super::piece::Pieces;
use super::smart_ban::{Shares, Source};
use super::verify::Verify;
use crate::ids::{BlockIndex, PieceIndex};
use crate::metainfo::Layout;
use crate::peer::Peer;
use crate::time::Instant;

/// One look at one peer that has room for requests.
pub(super) struct Refill<'a> {
    now: Instant,
    peer: &'a Peer,
    layout: &'a Layout,
    pieces: &'a mut Pieces,
    picker: &'a mut Picker,
    verify: &'a Verify,
    source: Source,
    room: u32,
    chosen: Vec<(PieceIndex, BlockIndex)>,
    /// Counted when first needed, and again after each change.
    shares: Option<Shares>,
}

/// What a peer is asked for.
pub(super) struct Refilled {
    /// Blocks, in order.
    pub(super) chosen: Vec<(PieceIndex, BlockIndex)>,
    /// It has nothing to do, and others' pieces that it may not join could be overdue.
    pub(super) held_back: bool,
    /// Such a piece is overdue: it should be taken over.
    pub(super) overdue: Option<PieceIndex>,
}

impl<'a> Refill<'a> {
    pub(super) fn new(
        now: Instant,
        room: u32,
        peer: &'a Peer,
        layout: &'a Layout,
        pieces: &'a mut Pieces,
        picker: &'a mut Picker,
        verify: &'a Verify,
    ) -> Self {
        let source = Source::of(peer.remote);
        Self { now, peer, layout, pieces, picker, verify, source, room, chosen: Vec::new(), shares: None }
    }

    /// Chooses. New pieces are begun at random when `random`.
    pub(super) fn run(mut self, random: bool) -> Refilled {
        self.claim_open(false);
        if self.picker.is_sequential() && self.room > 0 {
            self.help_late();
        }
        self.begin_new(random);
        self.claim_open(true);
        if self.room > 0 && self.pieces.all_requested() {
            self.duplicate();
        }
        let idle = self.room > 0 && self.chosen.is_empty() && self.peer.requests.len() == 0;
        let kept = if idle { self.kept_from() } else { BTreeSet::new() };
        let overdue = self.pieces.overdue(self.now, self.peer.connection, |piece| {
            kept.contains(&piece) && !self.verify.is_writing(piece)
        });
        Refilled { chosen: self.chosen, held_back: !kept.is_empty(), overdue }
    }

    /// The rest of its own pieces and of those nobody owns; of others' as well to `join`.
    fn claim_open(&mut self, join: bool) {
        if self.room == 0 {
            return;
        }
        for piece in self.pieces.open_for(self.peer.connection, join) {
            if self.room > 0 && self.peer.serves(piece) && self.may_share(piece) {
                self.claim(piece);
            }
        }
    }

    fn begin_new(&mut self, random: bool) {
        while self.room > 0 {
            let (peer, verify) = (self.peer, self.verify);
            let may = |piece| peer.serves(piece) && !verify.is_writing(piece);
            let Some(piece) = self.picker.pick(random, may) else { return };
            self.picker.remove(piece);
            self.pieces.begin(self.layout, piece, peer.connection, verify.is_suspect(piece), self.now);
            self.claim(piece);
        }
    }

    /// Pieces that others began a while ago hold up whoever reads in order.
    fn help_late(&mut self) {
        let late = self.pieces.begun_before(self.peer.connection, self.now - LATE);
        for piece in self.pieces.open_for(self.peer.connection, true) {
            if self.room > 0 && late.contains(&piece) && self.peer.serves(piece) && self.may_share(piece) {
                self.claim(piece);
            }
        }
        while self.room > 0 && self.claim_duplicate(&late, REQUESTERS) {}
    }

    fn duplicate(&mut self) {
        let requesters = if self.pieces.blocks_wanted() < FEW_BLOCKS { REQUESTERS_FEW } else { REQUESTERS };
        let partial = self.pieces.partial();
        while self.chosen.len() + self.peer.requests.len() < ENDGAME_REQUESTS
            && self.room > 0
            && self.claim_duplicate(&partial, requesters)
        {}
    }

    fn claim_duplicate(&mut self, of: &[PieceIndex], requesters: usize) -> bool {
        let mut may = BTreeSet::new();
        for piece in of {
            if self.peer.serves(*piece) && self.may_share(*piece) {
                may.insert(*piece);
            }
        }
        let chosen = &self.chosen;
        let requests = &self.peer.requests;
        let not = |piece, block| requests.contains(piece, block) || chosen.contains(&(piece, block));
        let duplicate =
            self.pieces.claim_duplicate(self.peer.connection, requesters, |piece| may.contains(&piece), not);
        let Some((piece, block)) = duplicate else { return false };
        trace!(piece = piece.get(), block = block.0, "asked of another as well");
        self.chose(piece, &[block]);
        true
    }

    fn claim(&mut self, piece: PieceIndex) {
        let requests = &self.peer.requests;
        let collide = requests.may_collide();
        let not = |block| collide && requests.contains(piece, block);
        let blocks = self.pieces.claim(piece, self.peer.connection, self.room, not);
        self.chose(piece, &blocks);
    }

    fn chose(&mut self, piece: PieceIndex, blocks: &[BlockIndex]) {
        if blocks.is_empty() {
            return;
        }
        self.pieces.on_shared(piece, self.source);
        self.shares = None;
        self.room -= blocks.len() as u32;
        self.chosen.extend(blocks.iter().map(|block| (piece, *block)));
    }

    /// Whether this peer may have a share in a partial piece.
    fn may_share(&mut self, piece: PieceIndex) -> bool {
        let Some(sharers) = self.pieces.sharers(piece) else { return false };
        if sharers.is_empty() || sharers.contains(&self.source) {
            return true;
        }
        let shares = self.shares.get_or_insert_with(|| {
            let mut shares = Shares::default();
            self.pieces.count_shares(&mut shares);
            self.verify.count_shares(&mut shares);
            shares
        });
        shares.permit(sharers, self.source)
    }

    /// Partial pieces that it could send but may not join.
    fn kept_from(&mut self) -> BTreeSet<PieceIndex> {
        let mut kept = BTreeSet::new();
        for piece in self.pieces.partial() {
            let others = self.peer.serves(piece) && !self.pieces.is_owned_by(piece, self.peer.connection);
            if others && (self.pieces.is_exclusive(piece) || !self.may_share(piece)) {
                kept.insert(piece);
            }
        }
        kept
    }
}

/// Peers asked for one block in endgame.
const REQUESTERS: usize = 2;
/// The same when only few blocks are missing.
const REQUESTERS_FEW: usize = 4;
const FEW_BLOCKS: u64 = 10;
/// Requests out at one peer while it takes duplicates.
const ENDGAME_REQUESTS: usize = 4;
/// A piece begun this long ago is late when pieces are fetched in order.
const LATE: Duration = Duration::from_secs(5);
