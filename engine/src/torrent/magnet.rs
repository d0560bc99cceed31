//! A torrent of which only the info-hash is known: it has peers and trackers, and becomes an ordinary torrent when the
//! metadata is there (BEP 9), from an earlier run or from peers.
//!
//! Until then it has a layout without a piece, says that it has none, asks for none, and keeps what peers say of theirs.
//! Then: `Opening` and `Checking` as any other torrent, with its peers kept, and what they said is heard when these are
//! over. Whoever embeds may hold it before that, to choose files by their names.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{debug, info, warn};

use super::metadata::{MetadataFetch, MetadataProgress, Told, block_bytes};
use super::swarm::{Fault, extensions};
use super::{Purpose, Torrent, TorrentState};
use crate::alert::{AddError, Alert};
use crate::bencode;
use crate::bitfield::Bitfield;
use crate::command::{AddTorrent, Allocation, Priority, ResumeMode};
use crate::context::Context;
use crate::disk::{Place, StorageError, Work, files_to_allocate, torrent_file};
use crate::ids::{ConnectionId, InfoHash};
use crate::limits::BLOCK_BYTES;
use crate::metainfo::{Metainfo, MetainfoError, PathRules};
use crate::museum::OldBug;
use crate::peer::Peer;
use crate::time::Instant;
use crate::wire::{Message, MetadataMessage};

/// What a torrent without metadata waits with.
#[derive(Debug)]
pub(crate) struct Pending {
    fetch: MetadataFetch,
    /// Of files, as whoever embeds wants them.
    priorities: Vec<Priority>,
    /// Indices of the files that the link wants; none: all.
    select_only: Vec<u32>,
    allocation: Allocation,
    /// Whoever embeds says what is wanted before it goes on.
    held: bool,
    /// The metadata is here, and that is waited for.
    known: Option<(Box<Metainfo>, Bytes)>,
    /// It was fetched, and is not on disk yet.
    is_new: bool,
}

impl Pending {
    pub(crate) fn new(info_hash: InfoHash, select_only: Vec<u32>, add: &AddTorrent) -> Self {
        Self {
            fetch: MetadataFetch::new(info_hash),
            priorities: add.priorities.clone(),
            select_only,
            allocation: add.allocation,
            held: add.hold,
            known: None,
            is_new: false,
        }
    }

    /// A peer is gone.
    pub(super) fn on_gone(&mut self, connection: ConnectionId) {
        self.fetch.on_gone(connection);
    }
}

impl Torrent {
    /// Looks for what an earlier run fetched, else asks peers.
    pub(super) fn begin_magnet(&mut self, context: &mut Context<'_>) {
        self.enter(context, TorrentState::Opening);
        if self.resume_mode == ResumeMode::NoState {
            self.begin_fetching_metadata(context);
        } else {
            self.submit(context, Purpose::LoadMetadata, Work::LoadMetadata);
        }
        self.settle(context);
    }

    /// What an earlier run fetched was looked for.
    pub(super) fn on_metadata_loaded(&mut self, context: &mut Context<'_>, info: Option<Bytes>) {
        if self.state == TorrentState::Stopping {
            return;
        }
        match info {
            Some(info) => self.on_metadata(context, info),
            None => self.begin_fetching_metadata(context),
        }
    }

    fn begin_fetching_metadata(&mut self, context: &mut Context<'_>) {
        if let Some(pending) = &mut self.pending {
            pending.is_new = true;
        }
        self.enter(context, TorrentState::FetchingMetadata);
        self.announcer.start(context.now);
    }

    /// Whether nothing is known of its pieces yet.
    pub(super) fn is_magnet(&self) -> bool {
        self.pending.is_some()
    }

    /// When a peer is to be asked again.
    pub(super) fn metadata_deadline(&self, now: Instant) -> Option<Instant> {
        let pending = self.pending.as_ref().filter(|pending| pending.known.is_none())?;
        pending.fetch.deadline(now).filter(|_| self.state == TorrentState::FetchingMetadata)
    }

    /// How far the metadata is, while it is waited for.
    pub(super) fn metadata_progress(&self) -> Option<MetadataProgress> {
        self.pending.as_ref().map(|pending| pending.fetch.progress())
    }

    /// A peer said which extensions it speaks, and perhaps how large the metadata is.
    pub(super) fn on_metadata_size(
        &mut self,
        context: &Context<'_>,
        connection: ConnectionId,
        size: Option<i64>,
    ) {
        let Some(peer) = self.peers.get(&connection) else { return };
        let Some(pending) = &mut self.pending else { return };
        let size = size.filter(|_| peer.ut_metadata.is_some());
        if context.has_bug(OldBug::MetadataOfOne) && pending.fetch.progress().tellers > 0 {
            return;
        }
        pending.fetch.on_size(context.now, connection, peer.remote, size);
    }

    /// Asks for what can be asked for now.
    pub(super) fn ask_for_metadata(&mut self, context: &mut Context<'_>) {
        if self.state != TorrentState::FetchingMetadata {
            return;
        }
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.known.is_none()) else { return };
        pending.fetch.handle_timeout(context.now);
        while let Some((connection, block)) = pending.fetch.poll_request(context.now) {
            let Some(peer) = self.peers.get_mut(&connection) else { continue };
            if say(peer, &MetadataMessage::Request { block }) {
                self.unsent.push(connection);
            }
        }
    }

    /// A message of the metadata extension.
    pub(super) fn on_metadata_message(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        payload: &Bytes,
    ) -> Result<(), Fault> {
        let Some(message) = MetadataMessage::decode(payload) else { return Err(Fault::Metadata) };
        let told = match message {
            MetadataMessage::Request { block } => {
                return self.on_metadata_request(context, connection, block);
            }
            MetadataMessage::Data { block, total_bytes, data } => match &mut self.pending {
                Some(pending) => pending.fetch.on_data(context.now, connection, block, total_bytes, &data),
                None => Told::Unasked,
            },
            MetadataMessage::Reject { block } => {
                if let Some(pending) = &mut self.pending {
                    pending.fetch.on_reject(context.now, connection, block);
                }
                Told::Unasked
            }
            MetadataMessage::Unknown => Told::Unasked,
        };
        match told {
            Told::Filed => self.announcer.on_fed(context.now),
            Told::Unasked => {
                let peer = self.peers.get_mut(&connection);
                if peer.is_some_and(|peer| !peer.on_idle_message(context.now)) {
                    return Err(Fault::Flood);
                }
            }
            Told::Nonsense => return Err(Fault::Metadata),
            Told::Wrong(liar) => {
                debug!(torrent = %self.info_hash.short(), known = liar.is_some(), "metadata is wrong");
                if let Some(liar) = liar {
                    self.ban(context, liar);
                }
            }
            Told::Whole(info, liars) => {
                liars.into_iter().for_each(|liar| self.ban(context, liar));
                self.on_metadata(context, info);
            }
        }
        Ok(())
    }

    /// The metadata is here: its hash is right.
    fn on_metadata(&mut self, context: &mut Context<'_>, info: Bytes) {
        let torrent_file = torrent_file(&info);
        let rules = if context.config.windows_paths { PathRules::Windows } else { PathRules::Unix };
        let metainfo = Metainfo::parse(&torrent_file, rules)
            .and_then(|metainfo| metainfo.info_hashes.v1.map(|_| metainfo).ok_or(MetainfoError::V2Only));
        let metainfo = match metainfo {
            Ok(metainfo) => Box::new(metainfo),
            Err(error) => {
                warn!(torrent = %self.info_hash.short(), %error, "the metadata is of no use");
                context.alert(Alert::AddFailed { torrent: self.id, error: AddError::Metainfo(error) });
                return self.stop(context);
            }
        };
        info!(torrent = %self.info_hash.short(), bytes = info.len(), "metadata is here");
        self.is_private = metainfo.private;
        if self.is_private {
            self.stop_exchange(context);
        }
        let Some(pending) = &mut self.pending else { return };
        pending.known = Some((metainfo, info));
        context.alert(Alert::MetadataReceived { torrent: self.id, torrent_file });
        self.go_on_with_metadata(context);
    }

    /// Whoever embeds says what is wanted. False when that is not for a magnet.
    pub(super) fn choose_of_magnet(&mut self, context: &mut Context<'_>, priorities: &[Priority]) -> bool {
        let Some(pending) = &mut self.pending else { return false };
        pending.priorities = priorities.to_vec();
        if pending.known.is_some() {
            pending.held = false;
            self.go_on_with_metadata(context);
            self.settle(context);
        }
        true
    }

    /// Becomes an ordinary torrent, unless whoever embeds has to choose first.
    fn go_on_with_metadata(&mut self, context: &mut Context<'_>) {
        if self.state == TorrentState::Stopping {
            return;
        }
        let Some(pending) = self.pending.take_if(|pending| !pending.held && pending.known.is_some()) else {
            return;
        };
        let Pending { mut priorities, select_only, allocation, known, is_new, .. } = *pending;
        let Some((metainfo, info)) = known else { return };
        let Metainfo { layout, piece_hashes, .. } = *metainfo;
        if priorities.is_empty() {
            priorities = selected(&select_only, layout.files().len());
        }
        let allocate = files_to_allocate(&layout, &priorities, allocation);
        let Place { info_hash, root, state_root, boot_id, .. } = &*self.place;
        let place = Place {
            info_hash: *info_hash,
            root: root.clone(),
            state_root: state_root.clone(),
            layout,
            piece_hashes,
            boot_id: *boot_id,
        };
        self.place = Arc::new(place);
        self.info = info;
        self.save_info = is_new;
        self.take_shape(&priorities, allocate);
        let piece_count = self.have.piece_count();
        self.peers.values_mut().for_each(|peer| peer.has = Bitfield::new(piece_count));
        self.tell_extensions();
        let resume = self.resume_mode;
        self.enter(context, TorrentState::Opening);
        self.submit(context, Purpose::Open { resume }, Work::Open { resume });
    }

    /// Says to all that the metadata is to be had from us now.
    fn tell_extensions(&mut self) {
        for (connection, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.is_up()) {
            let said = Message::ExtendedHandshake(Box::new(extensions(&self.info, &self.pex)));
            if peer.reserved.extended() && peer.send(said) {
                self.unsent.push(*connection);
            }
        }
    }

    /// Keeps what was fetched for later runs.
    pub(super) fn save_metadata(&mut self, context: &mut Context<'_>) {
        if std::mem::take(&mut self.save_info) && self.resume.is_enabled() {
            let work = Work::SaveMetadata { info: self.info.clone() };
            self.submit(context, Purpose::SaveMetadata, work);
        }
    }

    pub(super) fn on_metadata_not_saved(&mut self, context: &mut Context<'_>, error: StorageError) {
        let work = Work::SaveMetadata { info: self.info.clone() };
        self.on_disk_error(context, error, Purpose::SaveMetadata, work);
    }

    /// The swarm has begun: what peers said of their pieces before is heard now.
    pub(super) fn hear_early(&mut self, context: &mut Context<'_>) {
        let connections: Vec<_> = self.peers.keys().copied().collect();
        if !self.have.is_empty() {
            // They were told that we have nothing. What we have is said at once to those who come.
            connections.into_iter().for_each(|connection| self.close_peer(context, connection));
            self.candidates.renew(context.now);
            return;
        }
        for connection in connections {
            let Some(peer) = self.peers.get_mut(&connection) else { continue };
            for message in peer.early.take() {
                if let Err(fault) = self.on_message(context, connection, message) {
                    self.drop_peer(context, connection, &fault);
                    break;
                }
            }
        }
        self.freed = true;
    }

    /// A peer wants a block of the metadata.
    fn on_metadata_request(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        block: u32,
    ) -> Result<(), Fault> {
        let block_count = (self.info.len() as u32).div_ceil(BLOCK_BYTES);
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        if peer.metadata_uploads.push(block, block_count) {
            self.serve_metadata(connection);
            return Ok(());
        }
        if !peer.on_idle_message(context.now) {
            return Err(Fault::Flood);
        }
        if say(peer, &MetadataMessage::Reject { block }) {
            self.unsent.push(connection);
        }
        Ok(())
    }

    /// Sends what the socket of a peer can take soon.
    pub(super) fn serve_metadata(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        while let Some(block) = peer.metadata_uploads.next() {
            let size = self.info.len() as u32;
            let begin = (block * BLOCK_BYTES) as usize;
            let data = self.info.slice(begin..begin + block_bytes(size, block) as usize);
            let total_bytes = Some(i64::from(size));
            if say(peer, &MetadataMessage::Data { block, total_bytes, data }) {
                self.unsent.push(connection);
            }
        }
    }
}

/// The info dictionary of a torrent file that was read.
pub(crate) fn info_of(torrent_file: &Bytes) -> Bytes {
    let raw = bencode::raw_entry(torrent_file, b"info").ok().flatten();
    raw.map_or_else(Bytes::new, |raw| torrent_file.slice_ref(raw))
}

/// Of so many files those with these indices (BEP 53). All, when it names none of them.
fn selected(select_only: &[u32], file_count: usize) -> Vec<Priority> {
    let mut priorities = vec![Priority::Skip; file_count];
    let mut some = false;
    for file in select_only {
        if let Some(priority) = priorities.get_mut(*file as usize) {
            (*priority, some) = (Priority::Normal, true);
        }
    }
    if some { priorities } else { Vec::new() }
}

/// Queues a message by the number that the peer gave the extension; true as [`Peer::send`].
fn say(peer: &mut Peer, message: &MetadataMessage) -> bool {
    peer.ut_metadata.is_some_and(|id| peer.send(Message::Extended { id, payload: message.encode() }))
}
