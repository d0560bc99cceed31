//! What one peer is asked for next.
//!
//! The rest of its own pieces, then of pieces nobody owns, then a new piece, then others' pieces with it. When every
//! missing block was asked of somebody, or the rest is of pieces that it may not join, *endgame*: what it will send much
//! sooner than those who were asked before may be asked of it as well (of two peers in all, of four when fewer than ten
//! blocks are missing, of eight when it is quick), what is expected last first.
//! The rest is looked at again soon. In order, what is late comes before what is new in the same way. What a peer may not
//! join because too much of it or of them is not judged yet ([`Shares`]), it takes over when it was kept waiting.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use tracing::trace;

use super::picker::Picker;
use super::piece::Pieces;
use super::smart_ban::{Shares, Source};
use super::verify::Verify;
use crate::ids::{BlockIndex, ConnectionId, PieceIndex};
use crate::limits::BLOCK_BYTES;
use crate::metainfo::Layout;
use crate::peer::{BLOCK_UNMEASURED, Peer};
use crate::time::Instant;

/// One look at one peer that has room for requests.
pub(super) struct Refill<'a> {
    now: Instant,
    peer: &'a Peer,
    layout: &'a Layout,
    pieces: &'a mut Pieces,
    picker: &'a mut Picker,
    verify: &'a Verify,
    peers: &'a BTreeMap<ConnectionId, Peer>,
    outlook: Option<&'a mut Outlook>,
    source: Source,
    room: u32,
    chosen: Vec<(PieceIndex, BlockIndex)>,
}

/// What all peers were asked for, the latest last, as it was a moment ago: there may be tens of thousands of blocks.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    taken: Option<Instant>,
    expected: Vec<Expected>,
}

/// A block that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Expected {
    /// How long it will take, by those who were asked; [`Duration::MAX`] when nobody seems to send it.
    wait: Duration,
    piece: PieceIndex,
    block: BlockIndex,
}

impl Outlook {
    fn renew_if_old(&mut self, now: Instant, peers: &BTreeMap<ConnectionId, Peer>) {
        if self.taken.is_some_and(|taken| now.since(taken) < OUTLOOK_TIME) {
            return;
        }
        self.taken = Some(now);
        self.expected.clear();
        for peer in peers.values() {
            let asked = peer.expected(now);
            self.expected.extend(asked.map(|(out, wait)| Expected {
                wait,
                piece: out.piece,
                block: out.block,
            }));
        }
        // Of two who were asked, the quicker.
        self.expected.sort_unstable_by_key(|expected| (expected.piece, expected.block, expected.wait));
        self.expected.dedup_by_key(|expected| (expected.piece, expected.block));
        self.expected.sort_unstable();
    }
}

/// What a peer is asked for.
pub(super) struct Refilled {
    /// Blocks, in order.
    pub(super) chosen: Vec<(PieceIndex, BlockIndex)>,
    /// It has nothing to do, and others' pieces that it may not join could be overdue.
    pub(super) held_back: bool,
    /// Such a piece is overdue: it should be taken over.
    pub(super) overdue: Option<PieceIndex>,
    /// It has time for what others will send hardly later, if they do.
    pub(super) idle: bool,
}

impl<'a> Refill<'a> {
    /// Nothing is asked of two without an `outlook`. None when the peer is gone.
    #[expect(clippy::too_many_arguments, reason = "it borrows most of a torrent, part by part")]
    pub(super) fn new(
        now: Instant,
        room: u32,
        connection: ConnectionId,
        peers: &'a BTreeMap<ConnectionId, Peer>,
        layout: &'a Layout,
        pieces: &'a mut Pieces,
        picker: &'a mut Picker,
        verify: &'a Verify,
        outlook: Option<&'a mut Outlook>,
    ) -> Option<Self> {
        let peer = peers.get(&connection)?;
        let source = Source::of(peer.remote);
        let chosen = Vec::new();
        Some(Self { now, peer, layout, pieces, picker, verify, peers, outlook, source, room, chosen })
    }

    /// Chooses. New pieces are begun at random when `random`.
    pub(super) fn run(mut self, random: bool) -> Refilled {
        self.claim_open(false);
        if self.picker.is_sequential() && self.room > 0 {
            self.help_late();
        }
        self.begin_new(random);
        self.claim_open(true);
        let few = self.pieces.blocks_wanted() < FEW_BLOCKS;
        let waits = self.pieces.all_begun()
            && self.claim_duplicates(None, if few { REQUESTERS_FEW } else { REQUESTERS });
        let idle = self.room > 0 && self.chosen.is_empty() && self.peer.requests.len() == 0;
        let kept = if idle { self.kept_from() } else { BTreeSet::new() };
        let free = kept.iter().copied().filter(|piece| !self.verify.is_writing(*piece));
        let overdue = self.pieces.overdue(self.now, self.peer.connection, self.time_of_piece(), free);
        Refilled { chosen: self.chosen, held_back: !kept.is_empty(), overdue, idle: waits }
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
            let suggested = peer.suggested.iter().rev().copied();
            let mut suggested = suggested.filter(|piece| may(*piece));
            let piece = suggested.find(|other| self.picker.is_as_good(*other, piece)).unwrap_or(piece);
            self.picker.remove(piece);
            self.pieces.begin(self.layout, piece, peer.connection, verify.is_suspect(piece), self.now);
            self.claim(piece);
        }
    }

    /// Pieces that others began a while ago hold up whoever reads in order.
    fn help_late(&mut self) {
        let late = self.pieces.late(self.peer.connection, self.now).collect::<Vec<_>>();
        if late.is_empty() {
            return;
        }
        for piece in self.pieces.open_for(self.peer.connection, true) {
            if self.room > 0 && late.contains(&piece) && self.peer.serves(piece) && self.may_share(piece) {
                self.claim(piece);
            }
        }
        self.claim_duplicates(Some(&late), REQUESTERS);
    }

    /// What this peer will send much sooner than those who were asked for it; of these pieces only, if there are some.
    /// Gives whether others may turn out to be no quicker.
    fn claim_duplicates(&mut self, of: Option<&[PieceIndex]>, requesters: usize) -> bool {
        if self.room == 0 || (of.is_none() && self.queued() >= ENDGAME_REQUESTS) {
            return false;
        }
        let Some(outlook) = self.outlook.take() else { return false };
        outlook.renew_if_old(self.now, self.peers);
        let waits = self.claim_expected(&mut outlook.expected, of, requesters);
        self.outlook = Some(outlook);
        waits
    }

    fn claim_expected(
        &mut self,
        expected: &mut Vec<Expected>,
        of: Option<&[PieceIndex]>,
        requesters: usize,
    ) -> bool {
        let sooner = if of.is_some() || self.pieces.all_requested() { SOONER } else { MUCH_SOONER };
        let mut queued = self.queued();
        let mut enough = self.peer.would_take(self.now, queued) * 2 + sooner;
        // Neighbours are of one piece.
        let mut judged = None;
        for at in (0..expected.len()).rev() {
            if self.room == 0 || (of.is_none() && queued >= ENDGAME_REQUESTS) {
                return false;
            }
            let Expected { wait, piece, block } = expected[at];
            if wait <= enough {
                // And so it is with all that comes after it.
                return true;
            }
            let may = match judged {
                Some((last, may)) if last == piece => may,
                _ => {
                    of.is_none_or(|of| of.contains(&piece))
                        && self.peer.serves(piece)
                        && self.may_share(piece)
                }
            };
            judged = Some((piece, may));
            if !may || self.peer.requests.contains(piece, block) || self.chosen.contains(&(piece, block)) {
                continue;
            }
            // Slow ones that were asked for the same do not keep one away that is known to be quick.
            let is_quick = self.peer.requests.block_time().is_some_and(|time| time * (queued + 1) <= SOONER);
            let requesters = if is_quick { REQUESTERS_QUICK } else { requesters };
            if self.pieces.claim_duplicate(piece, block, self.peer.connection, requesters) {
                trace!(piece = piece.get(), block = block.0, "asked of another as well");
                self.chose(piece, &[block]);
                // It will be here sooner than that.
                expected.remove(at);
                queued = self.queued();
                enough = self.peer.would_take(self.now, queued) * 2 + sooner;
                judged = None;
            }
        }
        false
    }

    /// Requests that are out, and those that are to go out now.
    fn queued(&self) -> u32 {
        (self.chosen.len() + self.peer.requests.len()) as u32
    }

    /// How long this peer would need for a piece, as far as is known.
    fn time_of_piece(&self) -> Duration {
        let block = self.peer.requests.block_time().unwrap_or(BLOCK_UNMEASURED);
        block * self.layout.piece_length().div_ceil(BLOCK_BYTES)
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
        self.room -= blocks.len() as u32;
        self.chosen.extend(blocks.iter().map(|block| (piece, *block)));
    }

    /// Whether this peer may have a share in a partial piece.
    fn may_share(&self, piece: PieceIndex) -> bool {
        may_share(self.pieces, self.verify, piece, self.source)
    }

    /// Partial pieces that it could send but may not join.
    fn kept_from(&self) -> BTreeSet<PieceIndex> {
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

/// Whether `source` may have a share in a partial piece.
pub(super) fn may_share(pieces: &Pieces, verify: &Verify, piece: PieceIndex, source: Source) -> bool {
    let Some(sharers) = pieces.sharers(piece) else { return false };
    let [under_way, failed] = verify.shares();
    Shares::permit([pieces.shares(), under_way, failed], sharers, source)
}

/// Peers asked for one block in endgame.
const REQUESTERS: usize = 2;
/// The same when only few blocks are missing.
const REQUESTERS_FEW: usize = 4;
const FEW_BLOCKS: u64 = 10;
/// The same when the last of them has sent what it was asked for at once.
const REQUESTERS_QUICK: usize = 8;
/// Requests out at one peer while it takes duplicates: what it will never send is found out before there are more.
pub(super) const ENDGAME_REQUESTS: u32 = 8;
/// How old the outlook may be: little beside [`SOONER`].
const OUTLOOK_TIME: Duration = Duration::from_millis(100);
/// What is sent by two is sooner by more than this, so that most of it can still be taken back where it comes later.
const SOONER: Duration = Duration::from_secs(1);
/// The same while there are blocks that nobody was asked for: longer than anybody's queue, which is three seconds.
const MUCH_SOONER: Duration = Duration::from_secs(5);
