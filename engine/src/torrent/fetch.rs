//! Blocks: who is asked for what, and what becomes of a block that came.
//!
//! A block that came is taken back everywhere else, so nothing ever waits for one slow peer while another could serve.

use std::time::Duration;

use tracing::{debug, info};

use super::Torrent;
use super::piece::{Filed, State};
use super::refill::{Outlook, Refill, Refilled, may_share};
use super::smart_ban::Source;
use super::swarm::Fault;
use super::verify::Verdict;
use super::{Purpose, TorrentState};
use crate::alert::Alert;
use crate::block::BlockData;
use crate::context::Context;
use crate::disk::{PieceHash, Run, StorageErrorKind, Work};
use crate::ids::{BlockIndex, ConnectionId, FileIndex, PieceIndex};
use crate::limits::BLOCK_BYTES;
use crate::museum::OldBug;
use crate::peer::Outstanding;
use crate::time::Instant;
use crate::wire::{Message, Request};

impl Torrent {
    /// Tops up the requests at one peer.
    pub(super) fn refill(&mut self, context: &mut Context<'_>, connection: ConnectionId) {
        if !self.is_fetching() || self.reading == Some(connection) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if !peer.serves_any() || peer.picked_dry || !peer.am_interested {
            return;
        }
        let mut room = peer.requests.room(peer.download.per_second(context.now));
        if let Some(limit) = context.bandwidth.download_limit(self.id) {
            // More than our own limit lets in soon would only wait.
            let window = (limit.saturating_mul(3) / u64::from(BLOCK_BYTES)).max(1);
            room = room.min(window.saturating_sub(peer.requests.len() as u64).min(u64::from(room)) as u32);
        }
        if room == 0 || room * REFILL_SHARE < peer.requests.len() as u32 {
            return;
        }
        let layout = &self.place.layout;
        let (pieces, picker) = (&mut self.pieces, &mut self.picker);
        // Without endgame nothing is asked of two.
        let outlook = (!context.has_bug(OldBug::NoEndgame)).then_some(&mut self.outlook);
        let (peers, verify) = (&self.peers, &self.verify);
        let refill =
            Refill::new(context.now, room, connection, peers, layout, pieces, picker, verify, outlook);
        let Some(refill) = refill else { return };
        let Refilled { chosen, held_back, overdue, idle } = refill.run(self.have.count() < RANDOM_PIECES);
        self.held_back |= held_back;
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.picked_dry = chosen.is_empty();
        peer.look_again = idle.then(|| context.now + LOOK_AGAIN);
        let mut first = false;
        for (piece, block) in chosen {
            if context.has_bug(OldBug::TailForgotten) && is_tail(layout, piece, block) {
                continue;
            }
            peer.requests.on_sent(context.now, piece, block);
            first |= peer.send(Message::Request(request_of(layout, piece, block)));
        }
        if first {
            self.unsent.push(connection);
        }
        context.wake_connection(connection, peer.deadline());
        if let Some(piece) = overdue {
            self.take_over(context, connection, piece);
        }
    }

    /// A peer that has nothing else to do gets a piece alone that another kept it waiting with.
    fn take_over(&mut self, context: &mut Context<'_>, connection: ConnectionId, piece: PieceIndex) {
        debug!(piece = piece.get(), "taken over");
        let layout = &self.place.layout;
        let taken_back = self.pieces.seize(layout, piece);
        self.pieces.begin(layout, piece, connection, true, context.now);
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.picked_dry = false;
        }
        self.refill(context, connection);
        for (block, other) in taken_back {
            self.take_back(context, other, piece, block);
        }
    }

    /// Tops up the requests at all peers, once, if something can be asked for that could not before.
    pub(super) fn refill_if_freed(&mut self, context: &mut Context<'_>) {
        if self.verify.has_suspects() || self.pieces.has_seized() {
            self.restart_abandoned(context);
        }
        if !std::mem::take(&mut self.freed) {
            return;
        }
        self.held_back = false;
        let connections: Vec<_> = self.peers.keys().copied().collect();
        for connection in connections {
            if let Some(peer) = self.peers.get_mut(&connection) {
                peer.picked_dry = false;
            }
            self.refill(context, connection);
        }
    }

    /// A block came.
    pub(super) fn on_block(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        piece: PieceIndex,
        begin: u32,
        data: BlockData,
    ) -> Result<(), Fault> {
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        let bytes = u64::from(data.len());
        let block = BlockIndex(begin / BLOCK_BYTES);
        let asked = request_of(&self.place.layout, piece, block);
        self.download.add(context.now, bytes);
        let fits = asked.begin == begin && asked.length == data.len();
        let owed = fits && peer.requests.settle_owed(context.now, piece, block);
        if owed && peer.requests.contains(piece, block) {
            // It crossed with our taking it back, and was asked for again since: that is not needed any more.
            peer.requests.owe(context.now, piece, block);
            if peer.send(Message::Cancel(asked)) {
                self.unsent.push(connection);
            }
        }
        let awaited = fits && peer.requests.on_block(context.now, piece, block).is_some();
        if owed || awaited {
            self.announcer.on_fed(context.now);
        }
        if !awaited {
            self.wasted_bytes += bytes;
            return if peer.on_idle_block() { Ok(()) } else { Err(Fault::Unasked) };
        }
        // Only what was asked for earns anything.
        peer.download.add(context.now, bytes);
        peer.download_steady.add(context.now, bytes);
        peer.rejects = 0;
        peer.picked_dry = false;
        // Whoever was asked has its share. Others come in with what was not counted on any more.
        let source = Source::of(peer.remote);
        if self.pieces.sharers(piece).is_some() && !may_share(&self.pieces, &self.verify, piece, source) {
            self.wasted_bytes += bytes;
            return Ok(());
        }
        match self.pieces.file(piece, block, data, connection, peer.remote) {
            Filed::Duplicate => self.wasted_bytes += bytes,
            Filed::New { others, complete } => {
                // Who was released from it may still send it.
                let peers = &self.peers;
                self.may_collide
                    .retain(|other| peers.get(other).is_some_and(|peer| peer.requests.may_collide()));
                let late = self
                    .may_collide
                    .iter()
                    .filter(|other| **other != connection && peers[*other].requests.contains(piece, block));
                let late: Vec<_> = late.copied().filter(|other| !others.contains(other)).collect();
                // First: whoever has nothing to ask for any more may be given the piece of a slow one, and not this one.
                if complete {
                    self.on_whole(context, piece);
                }
                for other in others.into_iter().chain(late) {
                    self.take_back(context, other, piece, block);
                }
            }
        }
        Ok(())
    }

    /// A block is no longer wanted of a peer.
    pub(super) fn take_back(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        piece: PieceIndex,
        block: BlockIndex,
    ) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        let taken = if peer.fast() {
            peer.requests.take_back(context.now, piece, block)
        } else {
            peer.requests.forgo(piece, block)
        };
        if taken.is_some() {
            if peer.send(Message::Cancel(request_of(&self.place.layout, piece, block))) {
                self.unsent.push(connection);
            }
            peer.picked_dry = false;
            self.refill(context, connection);
        }
    }

    /// Requests of a peer are void, or no longer counted on; others may be asked.
    pub(super) fn release(&mut self, connection: ConnectionId, requests: &[Outstanding]) {
        for out in requests.iter().filter(|out| !out.released) {
            self.pieces.release(out.piece, out.block, connection);
        }
        self.freed = true;
    }

    /// Pieces that must come from one peer alone, and whose peer is gone, are begun anew with another.
    fn restart_abandoned(&mut self, context: &mut Context<'_>) {
        for piece in self.pieces.abandoned_exclusives() {
            if self.verify.is_writing(piece) {
                continue;
            }
            for (block, other) in self.pieces.reset(&self.place.layout, piece) {
                self.take_back(context, other, piece, block);
            }
            self.offer(piece);
            self.freed = true;
        }
    }

    /// All blocks of a piece are here: write and hash.
    fn on_whole(&mut self, context: &mut Context<'_>, piece: PieceIndex) {
        let whole = self.pieces.take_whole(piece);
        if !whole.runs.is_empty() {
            self.write(context, piece, whole.runs, 0, whole.blocks.is_none());
        }
        self.verify.begin(context.now, piece, whole.blocks, whole.senders, whole.bytes);
    }

    /// With `digests` if it will be read back.
    fn write(
        &mut self,
        context: &mut Context<'_>,
        piece: PieceIndex,
        runs: Vec<Run>,
        early_bytes: u64,
        digests: bool,
    ) {
        self.verify.on_write_out(piece, early_bytes);
        self.submit_write(context, piece, runs, digests, Vec::new());
    }

    pub(super) fn submit_write(
        &mut self,
        context: &mut Context<'_>,
        piece: PieceIndex,
        runs: Vec<Run>,
        digests: bool,
        forget: Vec<FileIndex>,
    ) {
        let work = self.write_of(piece, runs.clone(), digests, forget);
        self.submit(context, Purpose::Write { piece, runs, digests }, work);
    }

    /// The job for it, by what is known of the files; of those in `forget` the storage is to remember nothing.
    pub(super) fn write_of(
        &self,
        piece: PieceIndex,
        runs: Vec<Run>,
        digests: bool,
        forget: Vec<FileIndex>,
    ) -> Work {
        let reaches = self.disk.reaches(&self.place.layout, piece, &runs);
        Work::Write { piece, runs, reaches, forget, digests }
    }

    /// The largest partial pieces are written early when they pass the memory budget alone. What is whole, or being written,
    /// makes room by itself, and nobody is read from meanwhile.
    pub(super) fn flush_excess(&mut self, context: &mut Context<'_>) {
        if self.state == TorrentState::DiskError {
            return;
        }
        self.report_buffered(context);
        let excess = context.bandwidth.excess().saturating_sub(self.verify.bytes());
        let mut excess = excess.min(self.pieces.buffered_bytes());
        while excess > 0
            && let Some(piece) = self.pieces.largest_buffered()
        {
            let before = self.pieces.buffered_bytes();
            let runs = self.pieces.flush(piece);
            let bytes = before - self.pieces.buffered_bytes();
            debug!(piece = piece.get(), bytes, "written early");
            self.write(context, piece, runs, bytes, true);
            excess = excess.saturating_sub(bytes);
        }
    }

    pub(super) fn on_written(&mut self, context: &mut Context<'_>, piece: PieceIndex) {
        self.resume.on_touched(context.now, piece);
        if let Some(verdict) = self.verify.on_written(piece) {
            self.on_verdict(context, verdict);
        } else if self.pieces.state(piece) == State::Missing && !self.verify.is_writing(piece) {
            // What was thrown away is no longer written over what comes now.
            self.freed = true;
        }
    }

    pub(super) fn on_hashed(&mut self, context: &mut Context<'_>, piece: PieceIndex, hash: PieceHash) {
        if let Some(verdict) = self.verify.on_hashed(piece, hash) {
            self.on_verdict(context, verdict);
        }
    }

    fn on_verdict(&mut self, context: &mut Context<'_>, verdict: Verdict) {
        let Verdict { piece, good, mut liars, spoilt } = verdict;
        self.pieces.on_verified(&self.place.layout, piece, good);
        if good {
            self.on_have(piece);
            self.resume.on_good(context.now, piece);
            self.resume.on_unsynced(u64::from(self.place.layout.piece_bytes(piece)));
            context.alert(Alert::PieceFinished { torrent: self.id, piece });
            self.tell_have(context.now, piece);
            if context.has_bug(OldBug::HaveAndQueued) {
                self.offer(piece);
            }
        } else {
            info!(torrent = %self.info_hash.short(), piece = piece.get(), "wrong hash, fetched again");
            self.wasted_bytes += u64::from(self.place.layout.piece_bytes(piece));
            context.alert(Alert::PieceFailed { torrent: self.id, piece });
            if !context.has_bug(OldBug::BadPieceForgotten) {
                self.offer(piece);
            }
            if context.has_bug(OldBug::AllBlamed) {
                liars.extend(self.peers.values().filter(|peer| peer.has.has(piece)).map(|peer| peer.remote));
            }
        }
        if context.has_bug(OldBug::LiarForgiven) {
            liars.clear();
        }
        let file = self.place.layout.files_of(piece).next();
        if let Some(file) = file.filter(|_| spoilt) {
            let error = self.place.error(file, StorageErrorKind::Spoilt);
            self.pause_for_disk(context, error);
        }
        for address in liars {
            if !self.candidates.is_banned(address) {
                self.ban(context, address);
            }
        }
        // What is judged may make room for what others were kept from.
        self.freed |= !good || self.held_back;
        if good && self.selection.is_complete() {
            self.on_complete(context);
        }
    }

    /// Tells the peers that lack it of a new piece, and those that have everything: what a seed offers first goes by that.
    /// To seeds a few go together, with whatever is said to them next.
    fn tell_have(&mut self, now: Instant, piece: PieceIndex) {
        let wanted = self.selection.wants(piece);
        for (connection, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.is_up()) {
            let mut first = false;
            if peer.has.has(piece) {
                peer.wanted_count -= u32::from(wanted);
                first |= peer.show_interest();
            }
            if peer.is_seed() {
                peer.hold_have(piece);
                self.haves_at.get_or_insert(now + HAVES_TOGETHER);
            } else if !peer.has.has(piece) {
                first |= peer.send(Message::Have(piece.get()));
            }
            if first {
                self.unsent.push(*connection);
            }
        }
    }

    /// Tells seeds of new pieces, once some have come together.
    pub(super) fn tell_held_haves_if_due(&mut self, now: Instant) {
        if self.haves_at.is_some_and(|at| at <= now) {
            self.haves_at = None;
            let up = self.peers.iter_mut().filter(|(_, peer)| peer.is_up());
            self.unsent.extend(up.filter_map(|(id, peer)| peer.release_haves().then_some(*id)));
        }
    }

    /// All that is wanted is here.
    pub(super) fn on_complete(&mut self, context: &mut Context<'_>) {
        if self.state == TorrentState::Stopping || self.hold_completion(context) {
            return;
        }
        if self.have.is_full() {
            self.announcer.completed(context.now);
        }
        if !std::mem::replace(&mut self.told_complete, true) {
            info!(torrent = %self.info_hash.short(), "complete");
            self.resume.on_changed(context.now);
            context.alert(Alert::Completed { torrent: self.id });
            if !self.have.is_full() {
                self.tell_upload_only(true);
            }
        }
        self.outlook = Outlook::default();
        if self.state == TorrentState::Downloading {
            self.enter(context, TorrentState::Seeding);
        }
        let idle = self.peers.iter().filter(|(_, peer)| peer.is_up() && peer.fetches_nothing());
        let seeds: Vec<_> = idle.map(|(id, _)| *id).collect();
        for connection in seeds {
            self.close_redundant(context, connection);
        }
    }

    /// A piece that we had cannot be read any more: it is fetched again.
    pub(super) fn on_lost(&mut self, context: &mut Context<'_>, piece: PieceIndex) {
        if !self.have.clear(piece) {
            return;
        }
        self.bytes_have -= u64::from(self.place.layout.piece_bytes(piece));
        self.pieces.on_lost(&self.place.layout, piece);
        self.selection.on_lost(&self.place.layout, piece);
        self.offer(piece);
        self.resume.on_lost(context.now, piece);
        self.peers.values_mut().for_each(|peer| peer.unhold_have(piece));
        if self.selection.wants(piece) {
            for (connection, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.has.has(piece)) {
                peer.wanted_count += 1;
                if peer.is_up() && peer.show_interest() {
                    self.unsent.push(*connection);
                }
            }
            self.on_incomplete(context);
        }
        self.freed = true;
    }

    /// Takes every request back.
    pub(super) fn cancel_everything(&mut self, now: Instant) {
        for (connection, peer) in &mut self.peers {
            let all = if peer.fast() { peer.requests.take_back_all(now) } else { peer.requests.take_all() };
            for out in all {
                if !out.released {
                    self.pieces.release(out.piece, out.block, *connection);
                }
                if peer.send(Message::Cancel(request_of(&self.place.layout, out.piece, out.block))) {
                    self.unsent.push(*connection);
                }
            }
        }
    }
}

/// The request for a block; its length is short at the end of a piece.
fn request_of(layout: &crate::metainfo::Layout, piece: PieceIndex, block: BlockIndex) -> Request {
    let begin = block.0.saturating_mul(BLOCK_BYTES);
    let length = layout.piece_bytes(piece).saturating_sub(begin).min(BLOCK_BYTES);
    Request { piece: piece.get(), begin, length }
}

/// Whether a block is short though its piece is not the last one.
fn is_tail(layout: &crate::metainfo::Layout, piece: PieceIndex, block: BlockIndex) -> bool {
    request_of(layout, piece, block).length < BLOCK_BYTES && piece.get() + 1 < layout.piece_count()
}

/// The block that a rejected request was for, if it could have been one of ours.
pub(super) fn block_of(
    layout: &crate::metainfo::Layout,
    request: &Request,
) -> Option<(PieceIndex, BlockIndex)> {
    let piece = layout.piece(request.piece)?;
    let block = BlockIndex(request.begin / BLOCK_BYTES);
    (request_of(layout, piece, block) == *request).then_some((piece, block))
}

/// Of the requests that are out, so many make one that is sent by itself: what goes out together is one packet, and one
/// look at what to ask for.
const REFILL_SHARE: u32 = 16;
/// Pieces begun at random before the rarest come first, so that there is something to trade soon.
const RANDOM_PIECES: u32 = 4;
/// How long seeds wait to hear of a new piece, so that they hear of some at once.
const HAVES_TOGETHER: Duration = Duration::from_millis(100);
/// How soon a peer without requests is looked at again in endgame.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
