//! What others ask of us: requests in, blocks out, and who is unchoked.

use std::collections::BTreeSet;

use tracing::{debug, trace};

use super::Purpose;
use super::Torrent;
use super::choker::{Contender, NEWCOMER, slots};
use super::swarm::Fault;
use crate::block::BlockData;
use crate::context::Context;
use crate::disk::{ReadBlock, StorageError, StorageErrorKind, Work};
use crate::ids::ConnectionId;
use crate::limits::REQUEST_BYTES_MAX;
use crate::wire::{Message, Request};

impl Torrent {
    /// A peer asks for a block.
    pub(super) fn on_request(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        request: Request,
    ) -> Result<(), Fault> {
        let Some(block) = self.judge(request) else { return Err(Fault::Request(request)) };
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        let fast =
            peer.am_choking && peer.allowed_fast_given.contains(&block.piece) && peer.fast_blocks_left > 0;
        peer.fast_blocks_left -= u32::from(fast);
        let there = self.have.has(block.piece) && !self.disk.is_in_doubt(block.piece);
        if (fast || !peer.am_choking) && there && peer.uploads.push(block) {
            self.serve(context, connection);
        } else if peer.fast() && peer.send(Message::RejectRequest(request)) {
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
            let Some(peer) = self.peers.get_mut(&connection) else { return };
            let blocks = peer.uploads.next_read();
            if blocks.is_empty() {
                return;
            }
            let purpose = Purpose::Read { connection, blocks: blocks.clone() };
            self.submit(context, purpose, Work::Read { blocks });
        }
    }

    /// Blocks for a peer are there, or cannot be read.
    pub(super) fn on_read(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        blocks: Vec<ReadBlock>,
        result: Result<Vec<BlockData>, StorageError>,
    ) {
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.uploads.on_read_over(&blocks);
            let mut data = result.as_ref().map_or(Vec::new(), Clone::clone).into_iter();
            let mut sent_bytes = 0;
            for block in &blocks {
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
                        peer.uploads.on_sent(u64::from(block.length));
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
        if let Err(error) = result {
            match error.kind {
                StorageErrorKind::NotFound | StorageErrorKind::ShortRead => {
                    debug!(torrent = %self.info_hash.short(), %error, "data is gone");
                    let files: BTreeSet<_> =
                        blocks.iter().flat_map(|block| self.place.layout.files_of(block.piece)).collect();
                    self.doubt(files);
                }
                _ => self.pause_for_disk(context, error),
            }
        } else {
            self.serve(context, connection);
        }
    }

    /// Bytes went out to a peer's socket.
    pub(crate) fn handle_sent(&mut self, context: &mut Context<'_>, connection: ConnectionId, bytes: u32) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.uploads.on_sent(u64::from(bytes));
        if peer.uploads.is_waiting() {
            self.serve(context, connection);
        }
    }

    /// A peer wants something of us.
    pub(super) fn on_interested(&mut self, context: &mut Context<'_>, connection: ConnectionId) {
        let slots = slots(self.upload.per_second(context.now));
        let unchoked = self.peers.values().filter(|peer| !peer.am_choking).count() as u32;
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.peer_interested = true;
        if self.choker.on_interested(context.now, unchoked, slots) && peer.am_choking {
            peer.am_choking = false;
            peer.choke_changed = context.now;
            if peer.send(Message::Unchoke) {
                self.unsent.push(connection);
            }
        }
    }

    /// Decides anew who is unchoked.
    pub(super) fn choke_round(&mut self, context: &mut Context<'_>) {
        let seeding = self.have.is_full();
        let contender = |peer: &crate::peer::Peer| Contender {
            connection: peer.connection,
            rate: if seeding { &peer.upload_steady } else { &peer.download_steady }.per_second(context.now),
            unchoked: !peer.am_choking,
            since: peer.choke_changed,
            newcomer: context.now.since(peer.since) < NEWCOMER,
        };
        let interested: Vec<_> =
            self.peers.values().filter(|peer| peer.is_up() && peer.peer_interested).map(contender).collect();
        let slots = slots(self.upload.per_second(context.now));
        let unchoked = self.choker.round(context.now, &interested, slots);
        for (connection, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.is_up()) {
            let choke = !unchoked.contains(connection);
            if choke == peer.am_choking {
                continue;
            }
            trace!(choke, "choker");
            peer.am_choking = choke;
            peer.choke_changed = context.now;
            let mut first = peer.send(if choke { Message::Choke } else { Message::Unchoke });
            if choke {
                for block in peer.uploads.drop_queued(&peer.allowed_fast_given) {
                    if peer.fast() {
                        first |= peer.send(Message::RejectRequest(request_of(block)));
                    }
                }
            }
            if first {
                self.unsent.push(*connection);
            }
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

fn request_of(block: ReadBlock) -> Request {
    Request { piece: block.piece.get(), begin: block.begin, length: block.length }
}
