//! Every piece is in exactly one state, and so is every block of a piece under way.
//!
//! `Missing` -> `Partial` (some block asked for or received) -> `Verifying` (all received) -> `Have`, or back to
//! `Missing` when the hash was wrong; `Skipped` instead of `Missing` while it is not wanted. A partial piece has an
//! owner, the peer that began it: others join it when the owner is gone, or when nothing else is left, so most pieces
//! come from one peer and a liar is known at once. An *exclusive* piece is its owner's alone. Whoever keeps others
//! waiting with a piece that they may not join loses it to one of them in the end, whose time is twice as long.
//! It never decides what to ask for next; it says what can be asked for.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::smart_ban::{Senders, Shares, Source};
use crate::bitfield::Bitfield;
use crate::block::BlockData;
use crate::disk::Run;
use crate::ids::{BlockIndex, ConnectionId, PieceIndex};
use crate::limits::BLOCK_BYTES;
use crate::metainfo::Layout;
use crate::time::Instant;

/// The states of all pieces of a torrent.
#[derive(Debug)]
pub(crate) struct Pieces {
    states: Vec<State>,
    partials: BTreeMap<PieceIndex, Partial>,
    /// Partial pieces with a block that nobody was asked for, by owner, oldest first.
    open: BTreeSet<(Option<ConnectionId>, u64, PieceIndex)>,
    /// Partial pieces of which something is in memory, by the logarithm of how much: a block seldom moves its piece.
    buffered: BTreeSet<(u32, PieceIndex)>,
    /// In partial pieces of several.
    shares: Shares,
    begun: u64,
    missing_count: u32,
    /// How often each piece was taken from a peer that kept others waiting.
    seized: BTreeMap<PieceIndex, u32>,
    /// Blocks not received, over all pieces that are not skipped.
    blocks_wanted: u64,
    buffered_bytes: u64,
}

/// Where a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing of it is here or asked for, and it is not wanted.
    Skipped,
    /// Nothing of it is here or asked for.
    Missing,
    /// Some of it is here or asked for.
    Partial,
    /// All of it was received; hash and write are under way.
    Verifying,
    /// Its hash is right and it is on disk.
    Have,
}

#[derive(Debug)]
struct Partial {
    number: u64,
    begun: Instant,
    owner: Option<ConnectionId>,
    /// Only the owner may be asked: a piece that failed before comes from one peer alone.
    exclusive: bool,
    blocks: Vec<Block>,
    free_count: u32,
    wanted_count: u32,
    buffered_bytes: u64,
    /// Whether some of it was written early and is no longer in memory.
    stored: bool,
    senders: Senders,
    /// Whoever was asked for a block of it, or sent one.
    sharers: BTreeSet<Source>,
}

#[derive(Clone, Debug)]
enum Block {
    Free,
    /// Asked of these, the first one first.
    Requested(ConnectionId, Vec<ConnectionId>),
    Buffered(BlockData),
    Stored,
}

/// What became of a block that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filed {
    /// It was here already, or its piece is.
    Duplicate,
    /// It was new.
    New {
        /// Others it was asked of: to be told that it is no longer wanted.
        others: Vec<ConnectionId>,
        /// It was the last one of its piece.
        complete: bool,
    },
}

/// A piece all of whose blocks were received.
#[derive(Debug)]
pub(crate) struct Whole {
    /// In order, if all are in memory.
    pub(crate) blocks: Option<Vec<BlockData>>,
    /// What is still to be written.
    pub(crate) runs: Vec<Run>,
    /// Who sent which block of it.
    pub(crate) senders: Senders,
    /// Bytes of `runs`.
    pub(crate) bytes: u64,
}

impl Pieces {
    pub(crate) fn new(layout: &Layout, have: &Bitfield) -> Self {
        let state = |piece| if have.has(piece) { State::Have } else { State::Missing };
        let states: Vec<_> = layout.pieces().map(state).collect();
        let blocks_wanted = have.iter_missing().map(|piece| u64::from(layout.block_count(piece))).sum();
        Self {
            missing_count: have.piece_count() - have.count(),
            states,
            partials: BTreeMap::new(),
            open: BTreeSet::new(),
            buffered: BTreeSet::new(),
            shares: Shares::default(),
            begun: 0,
            seized: BTreeMap::new(),
            blocks_wanted,
            buffered_bytes: 0,
        }
    }

    pub(crate) fn state(&self, piece: PieceIndex) -> State {
        self.states[piece.at()]
    }

    /// Blocks not received yet, over all pieces that are not skipped.
    pub(crate) fn blocks_wanted(&self) -> u64 {
        self.blocks_wanted
    }

    /// Whether every block that is not here was asked of somebody, or will be of the one who alone may be.
    pub(crate) fn all_requested(&self) -> bool {
        self.all_begun() && self.open.iter().all(|(.., piece)| self.is_exclusive(*piece))
    }

    /// Whether there is no piece left to begin.
    pub(crate) fn all_begun(&self) -> bool {
        self.missing_count == 0
    }

    /// Bytes in memory of pieces that are not whole.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        self.buffered_bytes
    }

    /// A missing piece is not wanted.
    pub(crate) fn skip(&mut self, layout: &Layout, piece: PieceIndex) {
        assert_eq!(self.state(piece), State::Missing, "only a missing piece is skipped");
        self.states[piece.at()] = State::Skipped;
        self.missing_count -= 1;
        self.blocks_wanted -= u64::from(layout.block_count(piece));
    }

    /// A skipped piece is wanted after all.
    pub(crate) fn want(&mut self, layout: &Layout, piece: PieceIndex) {
        assert_eq!(self.state(piece), State::Skipped, "only a skipped piece was not wanted");
        self.states[piece.at()] = State::Missing;
        self.missing_count += 1;
        self.blocks_wanted += u64::from(layout.block_count(piece));
    }

    /// Begins a missing piece with `owner`.
    pub(crate) fn begin(
        &mut self,
        layout: &Layout,
        piece: PieceIndex,
        owner: ConnectionId,
        exclusive: bool,
        now: Instant,
    ) {
        assert_eq!(self.state(piece), State::Missing, "only a missing piece is begun");
        let block_count = layout.block_count(piece);
        self.states[piece.at()] = State::Partial;
        self.missing_count -= 1;
        self.begun += 1;
        self.open.insert((Some(owner), self.begun, piece));
        self.partials.insert(
            piece,
            Partial {
                number: self.begun,
                begun: now,
                owner: Some(owner),
                exclusive,
                blocks: vec![Block::Free; block_count as usize],
                free_count: block_count,
                wanted_count: block_count,
                buffered_bytes: 0,
                stored: false,
                senders: Senders::new(block_count),
                sharers: BTreeSet::new(),
            },
        );
    }

    /// Partial pieces that `peer` may be asked for, best first: its own, then those nobody owns. With `join`, those of
    /// others as well.
    pub(crate) fn open_for(&self, peer: ConnectionId, join: bool) -> Vec<PieceIndex> {
        let of = |owner| {
            let first = PieceIndex::new(0);
            self.open.range((owner, 0, first)..(owner, u64::MAX, first)).map(|(.., piece)| *piece)
        };
        let nobodys = of(None).filter(|piece| !self.partials[piece].is_abandoned());
        let mut open: Vec<_> = of(Some(peer)).chain(nobodys).collect();
        if join {
            let theirs = self.open.iter().filter(|(owner, _, piece)| {
                owner.is_some_and(|owner| owner != peer) && !self.partials[piece].exclusive
            });
            let mut theirs: Vec<_> = theirs.map(|(_, number, piece)| (*number, *piece)).collect();
            theirs.sort_unstable();
            open.extend(theirs.into_iter().map(|(_, piece)| piece));
        }
        open
    }

    /// Asks `peer` for up to `count` blocks of a partial piece that nobody was asked for, but for those in `not`.
    pub(crate) fn claim(
        &mut self,
        piece: PieceIndex,
        peer: ConnectionId,
        count: u32,
        not: impl Fn(BlockIndex) -> bool,
    ) -> Vec<BlockIndex> {
        let Some(partial) = self.partials.get_mut(&piece) else { return Vec::new() };
        let mut claimed = Vec::new();
        if partial.owner.is_none() {
            partial.change_owner(piece, Some(peer), &mut self.open);
        }
        for (index, block) in partial.blocks.iter_mut().enumerate() {
            if claimed.len() as u32 == count || partial.free_count == 0 {
                break;
            }
            let index = BlockIndex(index as u32);
            if matches!(block, Block::Free) && !not(index) {
                *block = Block::Requested(peer, Vec::new());
                partial.free_count -= 1;
                claimed.push(index);
            }
        }
        if partial.free_count == 0 {
            self.open.remove(&(partial.owner, partial.number, piece));
        }
        claimed
    }

    /// Who has a share in a partial piece: was asked for a block of it, or sent one.
    pub(crate) fn sharers(&self, piece: PieceIndex) -> Option<&BTreeSet<Source>> {
        self.partials.get(&piece).map(|partial| &partial.sharers)
    }

    /// The partial pieces, in order.
    pub(crate) fn partial(&self) -> Vec<PieceIndex> {
        self.partials.keys().copied().collect()
    }

    /// Whether a partial piece is its owner's alone.
    pub(crate) fn is_exclusive(&self, piece: PieceIndex) -> bool {
        self.partials.get(&piece).is_some_and(|partial| partial.exclusive)
    }

    /// Whether a partial piece is `peer`'s.
    pub(crate) fn is_owned_by(&self, piece: PieceIndex, peer: ConnectionId) -> bool {
        self.partials.get(&piece).is_some_and(|partial| partial.owner == Some(peer))
    }

    /// `source` was asked for a block of a partial piece. Of one block there is nothing to share.
    pub(crate) fn on_shared(&mut self, piece: PieceIndex, source: Source) {
        if let Some(partial) = self.partials.get_mut(&piece).filter(|partial| partial.blocks.len() > 1)
            && partial.sharers.insert(source)
        {
            self.shares.join(&partial.sharers, source);
        }
    }

    /// In the partial pieces of several.
    pub(crate) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// They are what they would be if they were counted now.
    #[cfg(test)]
    pub(crate) fn assert_shares(&self) {
        let mut counted = Shares::default();
        self.partials.values().for_each(|partial| counted.add(&partial.sharers));
        assert_eq!(self.shares, counted);
    }

    /// Partial pieces of others that were begun a while ago, in order.
    pub(crate) fn late(&self, peer: ConnectionId, now: Instant) -> impl Iterator<Item = PieceIndex> {
        let late = move |partial: &Partial| now.since(partial.begun) > LATE && partial.owner != Some(peer);
        self.partials.iter().filter(move |(_, partial)| late(partial)).map(|(piece, _)| *piece)
    }

    /// The first of these that is a partial piece of others, has kept others waiting for too long, and that `peer` was not
    /// asked for and could have sent since.
    pub(crate) fn overdue(
        &self,
        now: Instant,
        peer: ConnectionId,
        needs: Duration,
        mut pieces: impl Iterator<Item = PieceIndex>,
    ) -> Option<PieceIndex> {
        let is_overdue = |piece: PieceIndex| {
            let Some(partial) = self.partials.get(&piece) else { return false };
            let due = partial.owner.is_none() || self.due(piece, partial).max(partial.begun + needs) <= now;
            due && partial.owner != Some(peer) && !partial.is_asked_of(peer)
        };
        pieces.find(|piece| is_overdue(*piece))
    }

    /// When the next partial piece will be overdue, or will have been for as long again: slow peers wait longer.
    pub(crate) fn next_overdue(&self, now: Instant) -> Option<Instant> {
        let next = |(piece, partial): (&PieceIndex, &Partial)| {
            let times = (1..=SEIZE_DOUBLINGS_MAX).map(|times| partial.begun + SEIZE_AFTER * 2u32.pow(times));
            let due = self.due(*piece, partial);
            std::iter::once(due).chain(times.filter(move |at| *at > due)).find(|at| *at > now)
        };
        self.partials.iter().filter_map(next).min()
    }

    /// Takes an overdue piece away for another peer to begin. Gives the blocks that were asked for, and of whom.
    pub(crate) fn seize(&mut self, layout: &Layout, piece: PieceIndex) -> Vec<(BlockIndex, ConnectionId)> {
        *self.seized.entry(piece).or_default() += 1;
        self.reset(layout, piece)
    }

    /// Whether any piece was taken over and is not here yet.
    pub(crate) fn has_seized(&self) -> bool {
        !self.seized.is_empty()
    }

    fn due(&self, piece: PieceIndex, partial: &Partial) -> Instant {
        let times = self.seized.get(&piece).copied().unwrap_or(0);
        partial.begun + SEIZE_AFTER * 2u32.saturating_pow(times.min(SEIZE_DOUBLINGS_MAX))
    }

    /// Asks `peer` as well for a block that others were asked for, at most `requesters_max` in all. False if it is not to
    /// be asked.
    pub(crate) fn claim_duplicate(
        &mut self,
        piece: PieceIndex,
        block: BlockIndex,
        peer: ConnectionId,
        requesters_max: usize,
    ) -> bool {
        let Some(partial) = self.partials.get_mut(&piece) else { return false };
        if partial.exclusive && partial.owner != Some(peer) {
            return false;
        }
        let Some(Block::Requested(first, more)) = partial.blocks.get_mut(block.0 as usize) else {
            return false;
        };
        let may = *first != peer && !more.contains(&peer) && 1 + more.len() < requesters_max;
        if may {
            more.push(peer);
        }
        may
    }

    /// `peer` is no longer counted on for a block; others may be asked. True if nobody is asked for it now.
    pub(crate) fn release(&mut self, piece: PieceIndex, block: BlockIndex, peer: ConnectionId) -> bool {
        let Some(partial) = self.partials.get_mut(&piece) else { return false };
        if partial.owner == Some(peer) {
            partial.change_owner(piece, None, &mut self.open);
        }
        let Some(place @ Block::Requested(..)) = partial.blocks.get_mut(block.0 as usize) else {
            return false;
        };
        let Block::Requested(first, more) = place else { return false };
        more.retain(|other| *other != peer);
        if *first != peer {
            return false;
        }
        if more.is_empty() {
            *place = Block::Free;
            partial.free_count += 1;
            self.open.insert((partial.owner, partial.number, piece));
            return true;
        }
        *first = more.remove(0);
        false
    }

    /// A peer is gone or stopped serving: its partial pieces are nobody's.
    pub(crate) fn disown(&mut self, peer: ConnectionId) {
        for (piece, partial) in &mut self.partials {
            if partial.owner == Some(peer) {
                partial.change_owner(*piece, None, &mut self.open);
            }
        }
    }

    /// Pieces that must come from one peer alone, which has a part in them and is gone: to be begun anew.
    pub(crate) fn abandoned_exclusives(&self) -> Vec<PieceIndex> {
        self.partials.iter().filter(|(_, partial)| partial.is_abandoned()).map(|(piece, _)| *piece).collect()
    }

    /// Files a block under its piece.
    pub(crate) fn file(
        &mut self,
        piece: PieceIndex,
        block: BlockIndex,
        data: BlockData,
        peer: ConnectionId,
        address: SocketAddr,
    ) -> Filed {
        let Some(partial) = self.partials.get_mut(&piece) else { return Filed::Duplicate };
        if partial.exclusive && partial.owner != Some(peer) {
            // A late block of one who was asked before. It may be all that is here, but not a part of it.
            if partial.owner.is_some() || partial.is_abandoned() {
                return Filed::Duplicate;
            }
            partial.change_owner(piece, Some(peer), &mut self.open);
        }
        let Some(place) = partial.blocks.get_mut(block.0 as usize) else { return Filed::Duplicate };
        let others = match place {
            Block::Buffered(_) | Block::Stored => return Filed::Duplicate,
            Block::Free => {
                partial.free_count -= 1;
                if partial.free_count == 0 {
                    self.open.remove(&(partial.owner, partial.number, piece));
                }
                Vec::new()
            }
            Block::Requested(first, more) => {
                let mut others = std::mem::take(more);
                others.insert(0, *first);
                others.retain(|other| *other != peer);
                others
            }
        };
        let bytes = u64::from(data.len());
        *place = Block::Buffered(data);
        let (before, after) = (partial.buffered_bytes, partial.buffered_bytes + bytes);
        partial.buffered_bytes = after;
        self.buffered_bytes += bytes;
        if size_class(before) != size_class(after) {
            self.buffered.remove(&(size_class(before), piece));
            self.buffered.insert((size_class(after), piece));
        }
        partial.wanted_count -= 1;
        self.blocks_wanted -= 1;
        partial.senders.add(block, address);
        let source = Source::of(address);
        if partial.sharers.insert(source) {
            self.shares.join(&partial.sharers, source);
        }
        Filed::New { others, complete: partial.wanted_count == 0 }
    }

    /// A partial piece with the most bytes in memory, or more than half as many as that.
    pub(crate) fn largest_buffered(&self) -> Option<PieceIndex> {
        self.buffered.last().map(|(_, piece)| *piece)
    }

    /// Lets go of what is in memory of a partial piece, for writing it early.
    pub(crate) fn flush(&mut self, piece: PieceIndex) -> Vec<Run> {
        let Some(partial) = self.partials.get_mut(&piece) else { return Vec::new() };
        let runs = partial.take_runs();
        self.buffered.remove(&(size_class(partial.buffered_bytes), piece));
        self.buffered_bytes -= partial.buffered_bytes;
        partial.buffered_bytes = 0;
        partial.stored = true;
        runs
    }

    /// A piece all of whose blocks were received goes to be verified.
    pub(crate) fn take_whole(&mut self, piece: PieceIndex) -> Whole {
        let mut partial = self.partials.remove(&piece).expect("only a partial piece becomes whole");
        assert_eq!(partial.wanted_count, 0, "only a whole piece is verified");
        self.shares.remove(&partial.sharers);
        self.states[piece.at()] = State::Verifying;
        self.buffered.remove(&(size_class(partial.buffered_bytes), piece));
        self.buffered_bytes -= partial.buffered_bytes;
        let in_memory = |block: &Block| match block {
            Block::Buffered(data) => Some(data.clone()),
            _ => None,
        };
        let blocks = if partial.stored { None } else { partial.blocks.iter().map(in_memory).collect() };
        Whole { blocks, bytes: partial.buffered_bytes, runs: partial.take_runs(), senders: partial.senders }
    }

    /// Hash and write of a piece are over.
    pub(crate) fn on_verified(&mut self, layout: &Layout, piece: PieceIndex, good: bool) {
        assert_eq!(self.state(piece), State::Verifying, "only a piece being verified has a verdict");
        if good {
            self.states[piece.at()] = State::Have;
            self.seized.remove(&piece);
        } else {
            self.states[piece.at()] = State::Missing;
            self.missing_count += 1;
            self.blocks_wanted += u64::from(layout.block_count(piece));
        }
    }

    /// What is here of a partial piece is thrown away; gives the blocks that were asked for, and of whom.
    pub(crate) fn reset(&mut self, layout: &Layout, piece: PieceIndex) -> Vec<(BlockIndex, ConnectionId)> {
        let Some(partial) = self.partials.remove(&piece) else { return Vec::new() };
        self.shares.remove(&partial.sharers);
        self.open.remove(&(partial.owner, partial.number, piece));
        self.states[piece.at()] = State::Missing;
        self.missing_count += 1;
        self.buffered.remove(&(size_class(partial.buffered_bytes), piece));
        self.buffered_bytes -= partial.buffered_bytes;
        self.blocks_wanted += u64::from(layout.block_count(piece) - partial.wanted_count);
        let mut asked = Vec::new();
        for (at, block) in partial.blocks.iter().enumerate() {
            if let Block::Requested(first, more) = block {
                let all = std::iter::once(first).chain(more);
                asked.extend(all.map(|peer| (BlockIndex(at as u32), *peer)));
            }
        }
        asked
    }

    /// A piece that was there is gone from disk.
    pub(crate) fn on_lost(&mut self, layout: &Layout, piece: PieceIndex) {
        assert_eq!(self.state(piece), State::Have, "only what we have is lost");
        self.states[piece.at()] = State::Missing;
        self.missing_count += 1;
        self.blocks_wanted += u64::from(layout.block_count(piece));
    }
}

impl Partial {
    /// It must come from one peer alone, and that peer is gone after it sent a part, or gave up a part and not all: what
    /// is still asked of it would count for nothing once the piece is another's.
    fn is_abandoned(&self) -> bool {
        let has_begun = !self.senders.is_empty() || self.free_count < self.wanted_count;
        self.exclusive && self.owner.is_none() && has_begun
    }

    /// Its place among the open ones goes by its owner.
    fn change_owner(
        &mut self,
        piece: PieceIndex,
        owner: Option<ConnectionId>,
        open: &mut BTreeSet<(Option<ConnectionId>, u64, PieceIndex)>,
    ) {
        if open.remove(&(self.owner, self.number, piece)) {
            open.insert((owner, self.number, piece));
        }
        self.owner = owner;
    }

    fn is_asked_of(&self, peer: ConnectionId) -> bool {
        self.blocks.iter().any(
            |block| matches!(block, Block::Requested(first, more) if *first == peer || more.contains(&peer)),
        )
    }

    /// What is in memory, as runs of neighbours; the blocks count as stored from now on.
    fn take_runs(&mut self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut next = None;
        for (at, block) in self.blocks.iter_mut().enumerate() {
            if !matches!(block, Block::Buffered(_)) {
                continue;
            }
            let Block::Buffered(data) = std::mem::replace(block, Block::Stored) else { continue };
            match runs.last_mut() {
                Some(run) if next == Some(at) => run.blocks.push(data),
                _ => runs.push(Run { begin: at as u32 * BLOCK_BYTES, blocks: vec![data] }),
            }
            next = Some(at + 1);
        }
        runs
    }
}

/// One more for each doubling; of nothing, 0.
fn size_class(bytes: u64) -> u32 {
    u64::BITS - bytes.leading_zeros()
}

/// A piece begun this long ago is late when pieces are fetched in order.
const LATE: Duration = Duration::from_secs(5);
/// A piece that others may not join is theirs after this time, which doubles with each time it changes hands.
const SEIZE_AFTER: Duration = Duration::from_secs(10);
/// Some three hours: slower is as good as never.
const SEIZE_DOUBLINGS_MAX: u32 = 10;

#[cfg(test)]
#[path = "piece_tests.rs"]
mod tests;
