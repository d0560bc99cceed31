//! What others ask of us: requests in, blocks out, and who is unchoked.

use std::collections::BTreeSet;

use tracing::{debug, trace};

use super::Purpose;
use super::Torrent;
use super::choker::{Contender, IDLE, NEWCOMER, Range, Terms, slots};
use super::spread::Spread;
use super::swarm::{ALLOWED_FAST_GIVEN, Fault};
use crate::block::BlockData;
use crate::context::Context;
use crate::disk::{ReadBlock, StorageError, StorageErrorKind, Work};
use crate::ids::{ConnectionId, PieceIndex};
use crate::limits::{CHOKED_REQUESTS_MAX, REQUEST_BYTES_MAX, UPLOAD_SLOTS_MAX};
use crate::museum::OldBug;
use crate::peer::Peer;
use crate::wire::{Message, Request};

impl Torrent {
    /// A peer asks for a block. It is served once all that was read with it is known: one read of the disk for many.
    pub(super) fn on_request(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        request: Request,
    ) -> Result<(), Fault> {
        let Some(block) = self.judge(request) else { return Err(Fault::Request(request)) };
        let there = self.is_sure_of(block.piece);
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        if !peer.uploads.on_request(block) {
            return Err(Fault::Flood);
        }
        let promised =
            peer.am_choking && peer.allowed_fast_given.contains(&block.piece) && peer.fast_blocks_left > 0;
        peer.fast_blocks_left -= u32::from(promised);
        let fast = promised && begins(peer, &self.spread);
        if peer.am_choking && !promised {
            peer.choked_requests += 1;
            if peer.choked_requests > CHOKED_REQUESTS_MAX {
                return Err(Fault::Flood);
            }
        }
        let only_here = !fast && self.have.is_full() && self.picker.availability()[block.piece.at()] == 0;
        let first_copy = only_here && self.spread.is_first(connection, block.piece);
        if (fast || !peer.am_choking) && there && peer.uploads.push(block, first_copy) {
            if only_here && self.spread.on_request(connection, block.piece) {
                self.suggest(connection);
            }
            return Ok(());
        }
        if !peer.am_choking && !peer.on_idle_message(context.now) {
            return Err(Fault::Flood);
        }
        if peer.fast() && peer.send(Message::RejectRequest(request)) {
            self.unsent.push(connection);
        }
        Ok(())
    }

    /// A peer takes a request back. It is answered once, with the block or a reject (BEP 6).
    pub(super) fn on_cancel(&mut self, connection: ConnectionId, request: Request) {
        let Some(block) = self.judge(request) else { return };
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if peer.uploads.cancel(block) && peer.fast() && peer.send(Message::RejectRequest(request)) {
            self.unsent.push(connection);
        }
    }

    /// Reads what the socket of a peer can take soon.
    pub(super) fn serve(&mut self, context: &mut Context<'_>, connection: ConnectionId) {
        loop {
            let waiting = self.peers.get_mut(&connection).filter(|peer| peer.uploads.is_waiting());
            let Some(peer) = waiting else { return };
            let blocks = peer.uploads.next_read(context.now);
            if blocks.is_empty() {
                return;
            }
            if !blocks.iter().all(|block| self.is_sure_of(block.piece)) {
                self.hand_over(context, connection, &blocks, Vec::new());
                continue;
            }
            let doubts = self.disk.doubts();
            let purpose = Purpose::Read { connection, blocks: blocks.clone(), doubts };
            self.submit(context, purpose, Work::Read { blocks });
        }
    }

    /// Whether a piece is there, for all that we know.
    fn is_sure_of(&self, piece: PieceIndex) -> bool {
        self.have.has(piece) && !self.disk.is_in_doubt(piece)
    }

    /// Blocks for a peer are there, or cannot be read. What may have been read after a file came to be in doubt, and was
    /// written to again, may be zeros.
    pub(super) fn on_read(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        blocks: &[ReadBlock],
        doubts: u64,
        result: Result<Vec<BlockData>, StorageError>,
    ) {
        let is_sure = doubts == self.disk.doubts();
        let data = result.as_ref().ok().filter(|_| is_sure).map_or(Vec::new(), Clone::clone);
        self.hand_over(context, connection, blocks, data);
        match result {
            Ok(_) => self.serve(context, connection),
            Err(error) if matches!(error.kind, StorageErrorKind::NotFound | StorageErrorKind::ShortRead) => {
                debug!(torrent = %self.info_hash.short(), %error, "data is gone");
                let files: BTreeSet<_> =
                    blocks.iter().flat_map(|block| self.place.layout.files_of(block.piece)).collect();
                self.doubt(files);
            }
            Err(error) => self.pause_for_disk(context, error),
        }
    }

    /// Sends a peer what was read for it. Without data it is told that it gets nothing.
    fn hand_over(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        blocks: &[ReadBlock],
        data: Vec<BlockData>,
    ) {
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.uploads.on_read_over(blocks);
            let mut data = data.into_iter();
            let mut sent_bytes = 0;
            for block in blocks {
                let data = data.next();
                if !peer.uploads.on_read(*block) {
                    continue;
                }
                let first = match data {
                    Some(data) => {
                        sent_bytes += u64::from(data.len());
                        peer.send(Message::Piece { piece: block.piece.get(), begin: block.begin, data })
                    }
                    None => {
                        peer.uploads.on_withheld(*block);
                        peer.fast() && peer.send(Message::RejectRequest(request_of(*block)))
                    }
                };
                if first {
                    self.unsent.push(connection);
                }
            }
            peer.upload_steady.add(context.now, sent_bytes);
            self.upload.add(context.now, sent_bytes);
        }
    }

    /// Bytes went out to a peer's socket.
    pub(crate) fn handle_sent(&mut self, context: &mut Context<'_>, connection: ConnectionId, bytes: u32) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.uploads.on_sent(context.now, u64::from(bytes));
        self.sent.add(context.now, u64::from(bytes));
        peer.metadata_uploads.on_sent(u64::from(bytes));
        self.serve(context, connection);
        if self.peers.get(&connection).is_some_and(|peer| peer.metadata_uploads.is_waiting()) {
            self.serve_metadata(connection);
            self.flush(context);
        }
    }

    /// A peer wants something of us.
    pub(super) fn on_interested(&mut self, context: &mut Context<'_>, connection: ConnectionId) {
        let slots = self.slots(context);
        let unchoked = self.peers.values().filter(|peer| !peer.am_choking && !self.is_superseded(peer));
        let unchoked: Vec<_> = unchoked.map(|peer| Range::of(peer.remote.ip())).collect();
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.peer_interested = true;
        if !downloads(peer) {
            return;
        }
        let range = Range::of(peer.remote.ip());
        if self.choker.on_interested(context.now, range, &unchoked, slots) && peer.am_choking {
            if peer.set_choking(context.now, false) {
                self.unsent.push(connection);
            }
            self.suggest(connection);
        }
    }

    /// A seed says to a peer that it serves which pieces nobody else has, and nobody else fetches.
    fn suggest(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if !peer.fast() || !self.have.is_full() {
            return;
        }
        for piece in self.spread.offer(connection, &peer.has, self.picker.availability()) {
            if peer.send(Message::SuggestPiece(piece.get())) {
                self.unsent.push(connection);
            }
        }
    }

    /// Whether somebody came from its address later than it last said anything: it began anew, and its old connection
    /// is dead without knowing. It must not keep the slot from the new one.
    fn is_superseded(&self, peer: &Peer) -> bool {
        let heard_at = peer.heard_at();
        // What rarely holds comes first: this is asked of everybody about everybody.
        self.peers.values().any(|other| {
            other.since > heard_at
                && other.connection != peer.connection
                && other.is_up()
                && other.remote.ip() == peer.remote.ip()
        })
    }

    /// How many are served at once. Under a limit that is exact: those who ask for nothing could all ask again at once.
    fn slots(&self, context: &Context<'_>) -> u32 {
        let limit = context.bandwidth.upload_limit(self.id);
        let idles = |peer: &&Peer| {
            !peer.am_choking && peer.uploads.is_empty() && context.now.since(peer.choke_changed) >= IDLE
        };
        let idle = if limit.is_none() { self.peers.values().filter(idles).count() } else { 0 };
        (slots(limit, self.sent.per_second(context.now)) + idle as u32).min(UPLOAD_SLOTS_MAX)
    }

    /// Decides anew who is unchoked.
    pub(super) fn choke_round(&mut self, context: &mut Context<'_>) {
        let seeding = self.selection.is_complete();
        let contender = |peer: &Peer| Contender {
            connection: peer.connection,
            range: Range::of(peer.remote.ip()),
            rate: peer.download_steady.per_second(context.now),
            sent_bytes: peer.upload_steady.total() - peer.sent_before_turn,
            unchoked: !peer.am_choking,
            since: peer.choke_changed,
            newcomer: context.now.since(peer.since) < NEWCOMER,
        };
        let interested: Vec<_> = self
            .peers
            .values()
            .filter(|peer| peer.peer_interested && downloads(peer) && !self.is_superseded(peer))
            .map(contender)
            .collect();
        let piece_bytes = self.place.layout.piece_length();
        let terms = Terms { slots: self.slots(context), seeding, piece_bytes };
        let unchoked = self.choker.round(context.now, &interested, terms);
        let mut served = Vec::new();
        for (connection, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.is_up()) {
            let choke = !unchoked.contains(connection);
            let is_forgotten = !choke && context.has_bug(OldBug::NoTurn);
            if choke == peer.am_choking || is_forgotten {
                continue;
            }
            trace!(choke, "choker");
            let mut first = peer.set_choking(context.now, choke);
            if !choke {
                served.push(*connection);
            } else {
                self.spread.on_choked(*connection);
                let keep = if begins(peer, &self.spread) { &peer.allowed_fast_given[..] } else { &[] };
                for block in peer.uploads.drop_queued(keep) {
                    if peer.fast() {
                        first |= peer.send(Message::RejectRequest(request_of(block)));
                    }
                }
            }
            if first {
                self.unsent.push(*connection);
            }
        }
        for connection in served {
            self.suggest(connection);
        }
    }

    /// A request that lies within a piece; none when it is nonsense.
    fn judge(&self, request: Request) -> Option<ReadBlock> {
        let piece = self.place.layout.piece(request.piece)?;
        let end = request.begin.checked_add(request.length)?;
        let fits =
            end <= self.place.layout.piece_bytes(piece) && (1..=REQUEST_BYTES_MAX).contains(&request.length);
        fits.then_some(ReadBlock { piece, begin: request.begin, length: request.length })
    }
}

/// Whether a slot is of any use to it (BEP 21: not to seeds, partial ones included).
fn downloads(peer: &Peer) -> bool {
    peer.is_up() && !peer.upload_only && !peer.is_seed()
}

/// Whether it may have what it was promised while it is choked: it has next to nothing yet (BEP 6), and what only we have
/// does not go out to others.
fn begins(peer: &Peer, spread: &Spread) -> bool {
    (peer.has.count() as usize) < ALLOWED_FAST_GIVEN && !spread.is_busy()
}

fn request_of(block: ReadBlock) -> Request {
    Request { piece: block.piece.get(), begin: block.begin, length: block.length }
}
