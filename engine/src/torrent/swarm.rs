//! Connections of one torrent: dialled, greeted, listened to, dropped.

use core::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sha1::{Digest as _, Sha1};
use tracing::{debug, trace};

use super::Torrent;
use super::TorrentState;
use super::candidates::Origin;
use super::fetch::block_of;
use super::pex::Pex;
use crate::address::Scope;
use crate::alert::Alert;
use crate::bitfield::{Bitfield, BitfieldError};
use crate::context::Context;
use crate::ids::{ConnectionId, InfoHash, PieceIndex};
use crate::input::CloseReason;
use crate::limits::{PEERS_PER_ADDRESS_MAX, REQUESTS_QUEUED_MAX};
use crate::metainfo::Layout;
use crate::museum::OldBug;
use crate::peer::{Peer, Stage, UT_METADATA, UT_PEX};
use crate::wire::{ExtendedHandshake, Handshake, Message, Request};

/// Why we drop a peer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("its handshake is for another torrent")]
    OtherTorrent,
    #[error("it is ourselves")]
    Ourselves,
    #[error("connected twice")]
    Twice,
    #[error("a message before its handshake, or a second handshake")]
    Order,
    #[error("{0}")]
    Bitfield(#[from] BitfieldError),
    #[error("piece {0} does not exist")]
    NoSuchPiece(u32),
    #[error("asked for {0:?}")]
    Request(Request),
    #[error("metadata that does not fit what it says")]
    Metadata,
    #[error("too many messages that change nothing")]
    Flood,
    #[error("blocks that nobody asked for")]
    Unasked,
    #[error("neither side wants anything")]
    Unwanted,
    #[error("rejects all requests")]
    Rejects,
    #[error("too slow to connect or to say anything")]
    TimedOut,
    #[error("both have everything")]
    Redundant,
    #[error("of less use than another")]
    Displaced,
}

impl Fault {
    /// Whether no honest client does that.
    fn is_misbehaviour(&self) -> bool {
        matches!(
            self,
            Self::Order
                | Self::Bitfield(_)
                | Self::NoSuchPiece(_)
                | Self::Request(_)
                | Self::Metadata
                | Self::Flood
                | Self::Unasked
        )
    }
}

impl Torrent {
    /// Dials candidates while there is room; another torrent may have what is left of it.
    pub(super) fn dial(&mut self, context: &mut Context<'_>) {
        self.dial_all_due(context);
        if context.has_room() {
            context.wake_crowded_out();
        } else if self.wants_peers(context) && self.candidates.next_at().is_some() {
            context.routes.crowded_out.insert(self.id);
        }
    }

    fn dial_all_due(&mut self, context: &mut Context<'_>) {
        while self.wants_dials(context)
            && self.candidates.next_at().is_some_and(|at| at <= context.now)
            && context.now >= context.dials_from
        {
            let Some(remote) = self.candidates.take_next(context.now) else { return };
            if self.is_crowded(remote) {
                self.candidates.put_off(context.now + CROWDED, remote);
                continue;
            }
            if let Err(later) = context.dials.take(context.now, self.id) {
                self.candidates.put_off(context.now, remote);
                context.dials_from = later;
                return;
            }
            let connection = context.connect(self.id, remote);
            let peer = Peer::new(context.now, connection, remote, Stage::Dialling, self.have.piece_count());
            context.wake_connection(connection, peer.deadline());
            self.peers.insert(connection, peer);
        }
    }

    pub(super) fn wants_dials(&self, context: &Context<'_>) -> bool {
        self.wants_peers(context) && context.has_room()
    }

    fn wants_peers(&self, context: &Context<'_>) -> bool {
        (self.seeks_peers() || self.state == TorrentState::Seeding)
            && self.peers.len() < context.config.peers_per_torrent_max as usize
    }

    /// Whether enough connections with this public address are there.
    fn is_crowded(&self, remote: SocketAddr) -> bool {
        let ip = remote.ip().to_canonical();
        let same = || self.peers.values().filter(|peer| peer.remote.ip().to_canonical() == ip);
        Scope::of(ip) == Scope::Public && same().count() >= PEERS_PER_ADDRESS_MAX
    }

    /// A dial succeeded.
    pub(crate) fn handle_connected(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        local: SocketAddr,
    ) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.local = Some(local);
        peer.enter(context.now, Stage::Handshaking);
        context.bandwidth.open(connection, Some(self.id));
        self.candidates.set_local(local.ip(), context.port.unwrap_or(0));
        context.wake_connection(connection, peer.deadline());
        self.send(connection, Message::Handshake(self.handshake(context)));
        self.flush(context);
    }

    /// Somebody connected to us and named this torrent. False when it is not let in.
    pub(crate) fn handle_accepted(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        remote: SocketAddr,
        theirs: Handshake,
    ) -> bool {
        let open = match self.state {
            TorrentState::FetchingMetadata => true,
            TorrentState::Downloading | TorrentState::Seeding | TorrentState::DiskError => self.begun,
            _ => false,
        };
        let room = self.peers.len() < context.config.peers_per_torrent_max as usize;
        if !open
            || self.candidates.is_banned(remote)
            || self.candidates.is_kept_out(context.now, remote)
            || self.is_crowded(remote)
        {
            return false;
        }
        if !room && !self.displace_one(context) {
            return false;
        }
        let peer = Peer::new(context.now, connection, remote, Stage::Handshaking, self.have.piece_count());
        self.peers.insert(connection, peer);
        self.send(connection, Message::Handshake(self.handshake(context)));
        if let Err(fault) = self.on_handshake(context, connection, theirs) {
            self.drop_peer(context, connection, &fault);
        }
        self.flush(context);
        true
    }

    /// Everything that one read gave.
    pub(crate) fn handle_messages(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        messages: Vec<Message>,
    ) {
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.on_received(context.now);
            // A part of a block came; other messages are no excuse.
            if messages.is_empty() && context.bandwidth.download_limit(self.id).is_some() {
                peer.requests.on_held_back(context.now);
            }
        }
        self.reading = Some(connection);
        for message in messages {
            if let Err(fault) = self.on_message(context, connection, message) {
                self.drop_peer(context, connection, &fault);
                break;
            }
        }
        self.reading = None;
        self.refill(context, connection);
        self.serve(context, connection);
        self.settle(context);
    }

    /// A deadline of a connection has come.
    pub(crate) fn handle_connection_timeout(&mut self, context: &mut Context<'_>, connection: ConnectionId) {
        let full = self.is_full(context);
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if peer.is_up() && context.bandwidth.withholds_reading(connection) {
            // Its silence is ours.
            peer.on_received(context.now);
            peer.requests.on_held_back(context.now);
        }
        let unwanted = peer.is_up() && !peer.is_wanted(context.now);
        if peer.is_timed_out(context.now) {
            self.drop_peer(context, connection, &Fault::TimedOut);
        } else if unwanted && full {
            self.drop_peer(context, connection, &Fault::Unwanted);
        } else {
            let released = peer.requests.handle_timeout(context.now);
            if peer.requests.may_collide() {
                self.may_collide.insert(connection);
            }
            if peer.rejected_long_ago(context.now) {
                peer.forget_rejected();
            }
            // Its lost requests are no longer there, so it can be asked again.
            peer.picked_dry &= peer.requests.len() > 0;
            if peer.look_again.take_if(|at| *at <= context.now).is_some() {
                peer.picked_dry = false;
            }
            let keep_alive = peer.wants_keep_alive(context.now);
            if !released.is_empty() && !context.has_bug(OldBug::SilenceKeepsPieces) {
                debug!(torrent = %self.info_hash.short(), requests = released.len(), "snubbed");
                self.release(connection, &released);
            }
            if keep_alive {
                self.send(connection, Message::KeepAlive);
            }
            self.refill(context, connection);
        }
        self.settle(context);
        if let Some(peer) = self.peers.get(&connection) {
            context.wake_connection(connection, peer.deadline());
        }
    }

    fn is_full(&self, context: &Context<'_>) -> bool {
        self.peers.len() >= context.config.peers_per_torrent_max as usize || !context.has_room()
    }

    /// A connection is gone, or never came.
    pub(crate) fn handle_closed(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        reason: &CloseReason,
    ) {
        debug!(torrent = %self.info_hash.short(), %reason, "peer gone");
        if let (CloseReason::Wire(_), Some(peer)) = (reason, self.peers.get(&connection)) {
            self.candidates.keep_out(context.now, peer.remote);
        }
        self.forget_peer(context, connection, None);
        self.settle(context);
    }

    pub(super) fn on_message(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        message: Message,
    ) -> Result<(), Fault> {
        let layout = &self.place.layout;
        let piece = |index| layout.piece(index).ok_or(Fault::NoSuchPiece(index));
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        trace!(?message);
        if changes_nothing(peer, &message) && !peer.on_idle_message(context.now) {
            return Err(Fault::Flood);
        }
        match message {
            Message::Handshake(theirs) if peer.stage == Stage::Handshaking => {
                return self.on_handshake(context, connection, theirs);
            }
            _ if peer.stage != Stage::Up => return Err(Fault::Order),
            Message::Handshake(_) => return Err(Fault::Order),
            Message::Port(port) => {
                let node = SocketAddr::new(peer.remote.ip(), port);
                self.on_dht_port(context, node);
            }
            Message::KeepAlive | Message::Unknown(_) => {}
            // Of those, the last ones: a hint is worth nothing once it is old.
            Message::SuggestPiece(index) if self.begun => {
                if let Some(piece) = layout.piece(index) {
                    peer.on_suggested(piece);
                }
            }
            Message::SuggestPiece(_) => {}
            Message::Extended { id: UT_METADATA, payload } => {
                self.on_metadata_message(context, connection, &payload)?;
            }
            Message::Extended { id: UT_PEX, payload } => self.on_pex(context, connection, &payload)?,
            Message::Extended { .. } => {}
            early @ (Message::Have(_)
            | Message::Bitfield(_)
            | Message::HaveAll
            | Message::HaveNone
            | Message::AllowedFast(_))
                if !self.begun =>
            {
                if !peer.early.on_message(early) {
                    return Err(Fault::Flood);
                }
            }
            Message::Choke => {
                peer.peer_choking = true;
                peer.suggested.clear();
                let void = if peer.fast() { Vec::new() } else { peer.requests.take_all() };
                self.pieces.disown(connection);
                self.release(connection, &void);
            }
            Message::Unchoke => {
                peer.peer_choking = false;
                peer.forget_rejected();
            }
            Message::Interested => self.on_interested(context, connection),
            Message::NotInterested => peer.peer_interested = false,
            Message::Have(index) => {
                let piece = piece(index)?;
                peer.has_said = true;
                self.on_gained(context, connection, piece);
            }
            Message::Bitfield(bits) => {
                let has = Bitfield::from_wire(&bits, layout.piece_count())?;
                self.on_has(context, connection, has)?;
            }
            Message::HaveAll => {
                let all = Bitfield::full(layout.piece_count());
                self.on_has(context, connection, all)?;
            }
            Message::HaveNone => {
                let none = Bitfield::new(layout.piece_count());
                self.on_has(context, connection, none)?;
            }
            Message::Request(request) => self.on_request(context, connection, request)?,
            Message::Cancel(request) => self.on_cancel(connection, request),
            Message::Piece { piece: index, begin, data } => {
                let piece = piece(index)?;
                self.on_block(context, connection, piece, begin, data)?;
            }
            Message::RejectRequest(request) => self.on_reject(context, connection, request)?,
            Message::AllowedFast(index) => {
                let piece = piece(index)?;
                if peer.allowed_fast.len() < ALLOWED_FAST_TAKEN_MAX && !peer.allowed_fast.contains(&piece) {
                    peer.allowed_fast.push(piece);
                    peer.picked_dry = false;
                }
            }
            Message::ExtendedHandshake(theirs) => {
                if let Some(reqq) = theirs.reqq {
                    peer.requests.on_reqq(reqq);
                }
                peer.upload_only = theirs.upload_only.unwrap_or(peer.upload_only);
                peer.on_extensions(&theirs.m);
                let has_no_metadata = peer.ut_metadata.is_none();
                self.pex.on_changed(context.now);
                // What is left out of a later one is as it was.
                if theirs.metadata_size.is_some() || has_no_metadata {
                    self.on_metadata_size(context, connection, theirs.metadata_size);
                }
                let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
                let upload_only = peer.upload_only;
                if let Some(port) = theirs.p
                    && peer.listens_at.is_none()
                {
                    let listens_at = SocketAddr::new(peer.remote.ip(), port);
                    peer.listens_at = Some(listens_at);
                    self.candidates.add(context.now, listens_at, Origin::Peer);
                    self.candidates.on_connected(listens_at);
                }
                if upload_only {
                    self.close_if_redundant(context, connection);
                }
            }
        }
        Ok(())
    }

    fn on_handshake(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        theirs: Handshake,
    ) -> Result<(), Fault> {
        if theirs.info_hash != self.info_hash {
            return Err(Fault::OtherTorrent);
        }
        let Some(peer) = self.peers.get(&connection) else { return Ok(()) };
        // From another host anybody may say that it is somebody else; so who has two addresses may be here twice.
        let is_twin = |other: &Peer| other.id == Some(theirs.peer_id) && is_same_host(other, peer);
        let twin = self.peers.iter().find(|(_, other)| is_twin(other)).map(|(twin, _)| *twin);
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        if theirs.peer_id == context.our_id {
            // The dialled end may never hear of it: it is dropped here as well.
            let remote = peer.remote;
            let other =
                self.peers.iter().find(|(_, peer)| peer.local == Some(remote)).map(|(other, _)| *other);
            if let Some(other) = other {
                self.drop_peer(context, other, &Fault::Ourselves);
            }
            return Err(Fault::Ourselves);
        }
        peer.reserved = theirs.reserved;
        peer.id = Some(theirs.peer_id);
        peer.enter(context.now, Stage::Up);
        self.pex.on_changed(context.now);
        if let Some(twin) = twin {
            let heard_at = self.peers.get(&twin).map(Peer::heard_at);
            let is_silent = heard_at.is_some_and(|at| context.now.since(at) >= TWIN_SILENT);
            let keeps_this = match (twin.is_accepted(), connection.is_accepted()) {
                // Nobody dials whom it has already: it lost the first, by a router that forgot it, and we never heard.
                (true, true) => is_silent,
                (false, false) => false,
                // Both sides keep the same one: dialled by whoever has the greater peer id.
                (_, accepted) => accepted != (context.our_id.0 > theirs.peer_id.0),
            };
            if !keeps_this {
                return Err(Fault::Twice);
            }
            self.drop_peer(context, twin, &Fault::Twice);
        }
        self.greet(context, connection, theirs);
        Ok(())
    }

    /// Says what we have and what we can do.
    fn greet(&mut self, context: &mut Context<'_>, connection: ConnectionId, theirs: Handshake) {
        let have = self.disk.without_doubted(&self.have);
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.greeted_in_doubt = have.count() < self.have.count();
        let fast = theirs.reserved.fast();
        let has = if fast && have.is_full() && self.begun {
            Some(Message::HaveAll)
        } else if fast && have.is_empty() {
            Some(Message::HaveNone)
        } else if have.is_empty() {
            None
        } else {
            Some(Message::Bitfield(bytes::Bytes::copy_from_slice(have.as_bytes())))
        };
        let remote = peer.remote;
        let extended = theirs.reserved.extended().then(|| {
            Message::ExtendedHandshake(Box::new(ExtendedHandshake {
                p: context.port,
                v: Some(bytes::Bytes::from_static(CLIENT.as_bytes())),
                reqq: Some(i64::from(REQUESTS_QUEUED_MAX)),
                yourip: Some(remote.ip().to_canonical()),
                upload_only: (self.begun && self.selection.is_complete()).then_some(true),
                ..extensions(&self.info, &self.pex)
            }))
        });
        let allowed = match remote.ip().to_canonical() {
            IpAddr::V4(ip) if fast && !have.is_empty() => {
                allowed_fast_set(ip.octets(), self.info_hash, &self.place.layout, ALLOWED_FAST_GIVEN)
            }
            _ => Vec::new(),
        };
        peer.fast_blocks_left = allowed.iter().map(|piece| self.place.layout.block_count(*piece)).sum();
        peer.allowed_fast_given = allowed.clone();
        context.wake_connection(connection, peer.deadline());
        let allowed = allowed.into_iter().map(|piece| Message::AllowedFast(piece.get()));
        let with_dht = theirs.reserved.dht() && self.shows_dht(context);
        let port = context.port.filter(|_| with_dht).map(Message::Port);
        for message in has.into_iter().chain(extended).chain(allowed).chain(port) {
            self.send(connection, message);
        }
    }

    /// A peer has one piece more.
    fn on_gained(&mut self, context: &mut Context<'_>, connection: ConnectionId, piece: PieceIndex) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if peer.has.set(piece) {
            if peer.counted {
                self.picker.on_gained(piece);
            }
            self.spread.on_gained(piece);
            peer.wanted_count += u32::from(self.selection.wants(piece) && !self.have.has(piece));
            peer.picked_dry = false;
            self.show_interest(connection);
            self.close_if_redundant(context, connection);
        }
    }

    /// A peer says what it has, as a rule once.
    fn on_has(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        has: Bitfield,
    ) -> Result<(), Fault> {
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        if peer.has_said {
            // aria2 sends its bitfield again where that is shorter than the haves it owes. Nothing is taken back so.
            if !peer.on_idle_message(context.now) {
                return Err(Fault::Flood);
            }
            if peer.has.is_full() || has.is_empty() {
                return Ok(());
            }
            let gained: Vec<_> = has.iter().filter(|piece| !peer.has.has(*piece)).collect();
            gained.into_iter().for_each(|piece| self.on_gained(context, connection, piece));
            return Ok(());
        }
        peer.has_said = true;
        peer.counted = !has.is_full();
        if peer.counted {
            has.iter().for_each(|piece| self.picker.on_gained(piece));
            self.spread.on_all_gained(&has);
        }
        peer.has = has;
        let wanted_count = self.lacked_count(connection);
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.wanted_count = wanted_count;
        }
        self.show_interest(connection);
        self.close_if_redundant(context, connection);
        Ok(())
    }

    fn show_interest(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if peer.wanted_count > 0 && !peer.am_interested {
            peer.am_interested = true;
            self.send(connection, Message::Interested);
        }
    }

    fn on_reject(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        request: Request,
    ) -> Result<(), Fault> {
        let Some((piece, block)) = block_of(&self.place.layout, &request) else { return Ok(()) };
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        if peer.requests.settle_owed(context.now, piece, block) {
            return Ok(());
        }
        let Some(out) = peer.requests.take(piece, block) else { return Ok(()) };
        if context.has_bug(OldBug::AskedAgainAtOnce) {
            peer.picked_dry = false;
            self.release(connection, &[out]);
            return Ok(());
        }
        peer.rejects += 1;
        let is_of_no_use = peer.rejects > REJECTS_MAX;
        if !peer.peer_choking {
            peer.rejected.insert(piece);
            peer.rejected_at.get_or_insert(context.now);
            context.wake_connection(connection, peer.deadline());
        }
        peer.allowed_fast.retain(|allowed| *allowed != piece);
        self.release(connection, &[out]);
        if is_of_no_use { Err(Fault::Rejects) } else { Ok(()) }
    }

    /// With a peer that fetches nothing (BEP 21) there is nothing to do for one who wants nothing.
    fn close_if_redundant(&mut self, context: &mut Context<'_>, connection: ConnectionId) {
        let wants_nothing = self.begun && self.selection.is_complete();
        if wants_nothing && self.peers.get(&connection).is_some_and(Peer::fetches_nothing) {
            self.close_redundant(context, connection);
        }
    }

    pub(super) fn close_redundant(&mut self, context: &mut Context<'_>, connection: ConnectionId) {
        self.flush(context);
        self.drop_peer(context, connection, &Fault::Redundant);
    }

    /// Sent wrong data: never again.
    pub(super) fn ban(&mut self, context: &mut Context<'_>, address: SocketAddr) {
        tracing::warn!(torrent = %self.info_hash.short(), "a peer sent wrong data and is banned");
        context.alert(Alert::PeerBanned { torrent: self.id, address });
        context.bans_new.push(address);
        self.shun(context, address);
    }

    /// Never talks to an address again.
    pub(crate) fn shun(&mut self, context: &mut Context<'_>, address: SocketAddr) {
        self.candidates.ban(address);
        let banned: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| self.candidates.is_banned(peer.remote))
            .map(|(connection, _)| *connection)
            .collect();
        for connection in banned {
            self.close_peer(context, connection);
        }
    }

    pub(super) fn drop_peer(&mut self, context: &mut Context<'_>, connection: ConnectionId, fault: &Fault) {
        debug!(torrent = %self.info_hash.short(), %fault, "peer dropped");
        context.close(connection);
        self.forget_peer(context, connection, Some(fault));
    }

    /// Drops a connection from our side, without blame.
    pub(super) fn close_peer(&mut self, context: &mut Context<'_>, connection: ConnectionId) {
        context.close(connection);
        self.forget_peer(context, connection, None);
    }

    /// Takes a connection out of everything that counts it.
    fn forget_peer(&mut self, context: &mut Context<'_>, connection: ConnectionId, fault: Option<&Fault>) {
        context.forget(connection);
        let Some(mut peer) = self.peers.remove(&connection) else { return };
        if peer.is_up() {
            self.pex.on_changed(context.now);
        }
        if peer.counted {
            peer.has.iter().for_each(|piece| self.picker.on_lost(piece));
        }
        self.remember(context, &peer, fault);
        let void = peer.requests.take_all();
        self.spread.on_choked(connection);
        if !context.has_bug(OldBug::DeadPeerKeepsPieces) {
            self.pieces.disown(connection);
            self.release(connection, &void);
        }
        if let Some(pending) = &mut self.pending
            && !context.has_bug(OldBug::MetadataOfOne)
        {
            pending.on_gone(connection);
        }
        if self.seeks_peers() && self.peers.is_empty() {
            self.announcer.need_peers(context.now);
        }
    }

    /// What is known of a peer's address now that its connection is over.
    fn remember(&mut self, context: &Context<'_>, peer: &Peer, fault: Option<&Fault>) {
        if fault.is_some_and(Fault::is_misbehaviour) {
            self.candidates.keep_out(context.now, peer.remote);
        }
        let Some(address) = peer.listens_at else { return };
        match fault {
            Some(Fault::Ourselves) => self.candidates.on_ourselves(address),
            Some(Fault::Displaced) => self.candidates.on_displaced(context.now, address),
            Some(Fault::Redundant) => self.candidates.on_redundant(address),
            Some(Fault::Twice) => {
                let is_twin = |other: &&mut Peer| {
                    other.id == peer.id && is_same_host(other, peer) && other.listens_at.is_none()
                };
                if let Some(twin) = self.peers.values_mut().find(is_twin) {
                    twin.listens_at = Some(address);
                }
            }
            None | Some(Fault::TimedOut) if peer.has_worked(context.now) => {
                self.candidates.on_closed(context.now, address);
            }
            _ => self.candidates.on_failed(context.now, address),
        }
    }

    /// Queues a message for a peer.
    pub(super) fn send(&mut self, connection: ConnectionId, message: Message) {
        if let Some(peer) = self.peers.get_mut(&connection)
            && peer.send(message)
        {
            self.unsent.push(connection);
        }
    }
}

fn is_same_host(one: &Peer, other: &Peer) -> bool {
    one.remote.ip().to_canonical() == other.remote.ip().to_canonical()
}

/// Whether a message is one that an honest peer has little cause to send often. Those that toggle something count as well.
fn changes_nothing(peer: &Peer, message: &Message) -> bool {
    match message {
        Message::Have(index) => *index < peer.has.piece_count() && peer.has.has(PieceIndex::new(*index)),
        Message::SuggestPiece(index) => {
            *index >= peer.has.piece_count() || peer.suggested.contains(&PieceIndex::new(*index))
        }
        Message::Handshake(_)
        | Message::Request(_)
        | Message::Piece { .. }
        | Message::RejectRequest(_)
        | Message::Cancel(_)
        | Message::Extended { .. } => false,
        _ => true,
    }
}

/// What we say of extensions: our numbers for them, and how large the metadata is.
pub(super) fn extensions(info: &[u8], pex: &Pex) -> ExtendedHandshake {
    ExtendedHandshake {
        // 0 switches it off for who was told another number before.
        m: vec![
            ("ut_metadata".to_owned(), UT_METADATA),
            ("ut_pex".to_owned(), if pex.is_on() { UT_PEX } else { 0 }),
        ],
        metadata_size: i64::try_from(info.len()).ok().filter(|size| *size > 0),
        ..ExtendedHandshake::default()
    }
}

/// The pieces that a peer at this address may ask for while choked (BEP 6, "Allowed Fast Set Generation").
pub(super) fn allowed_fast_set(
    ip: [u8; 4],
    info_hash: InfoHash,
    layout: &Layout,
    count: usize,
) -> Vec<PieceIndex> {
    let mut set = Vec::new();
    let piece_count = layout.piece_count();
    if piece_count as usize <= count {
        return layout.pieces().collect();
    }
    let seed = [ip[0], ip[1], ip[2], 0];
    let mut hash: [u8; 20] = Sha1::new().chain_update(seed).chain_update(info_hash.0).finalize().into();
    while set.len() < count {
        for word in hash.as_chunks::<4>().0 {
            let piece = layout.piece(u32::from_be_bytes(*word) % piece_count);
            if let Some(piece) = piece.filter(|piece| set.len() < count && !set.contains(piece)) {
                set.push(piece);
            }
        }
        hash = Sha1::digest(hash).into();
    }
    set
}

/// Said in `v` of the extended handshake.
const CLIENT: &str = concat!("taipei ", env!("CARGO_PKG_VERSION"));
/// k of BEP 6.
pub(super) const ALLOWED_FAST_GIVEN: usize = 10;
const ALLOWED_FAST_TAKEN_MAX: usize = 64;
/// Rejects in a row, without a block between, after which a peer is of no use.
const REJECTS_MAX: u32 = 2 * crate::limits::REQUESTS_OUT_MAX;
/// After which silence a connection is taken for lost when whoever dialled it dials again.
const TWIN_SILENT: Duration = Duration::from_secs(10);
/// Until an address of a host with enough connections is looked at again.
const CROWDED: Duration = Duration::from_secs(60);
