//! A disk that fails: the torrent waits, says what it needs, and goes on by itself.
//!
//! *Well* -> *Waiting*, when a job fails -> *Trying*, after 30 s: what the disk refused is given to it again, and nothing
//! else begins -> *Well*, when it took all of that; else *Waiting*. Until it is well the torrent is in
//! [`TorrentState::DiskError`]: no block is asked for and no peer is dialled, what we have is served. Peers are asked
//! again only after the disk took what it had refused, so a disk that stays full costs nobody a block.
//!
//! A file that was found missing or cut, before anything is written to it and at the latest when all pieces are there and
//! every file is looked at, is *in doubt*: what we have of it is hashed again, and not served before. What was to be written
//! to it is held until a snapshot says so: were we killed in between, the zeros before it would pass for data.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::reach::Reach;
use super::{Purpose, Save, Torrent, TorrentState};
use crate::alert::{AddError, Alert};
use crate::bitfield::Bitfield;
use crate::command::ResumeMode;
use crate::context::Context;
use crate::disk::{Run, StorageError, StorageErrorKind, Work};
use crate::ids::{FileIndex, PieceIndex};
use crate::metainfo::Layout;
use crate::museum::OldBug;
use crate::peer::Peer;
use crate::time::Instant;
use crate::wire::Message;

/// How the disk of one torrent does.
#[derive(Debug, Default)]
pub(super) struct DiskState {
    /// Jobs that it refused, to be tried again.
    refused: Vec<(Purpose, Work)>,
    retry_at: Option<Instant>,
    trying: bool,
    /// What the user was told, so that it is told again only when it changes.
    told: Option<(StorageErrorKind, Option<u64>)>,
    reach: Reach,
    /// Pieces of files in doubt, until they were hashed.
    doubted: BTreeSet<PieceIndex>,
    /// Counts the times that files came to be in doubt.
    doubts: u64,
    /// Writes to such files, until it is saved that these are in doubt.
    held: Vec<Held>,
    confirming: bool,
    /// All is there but for what is in doubt.
    completion_held: bool,
    /// Files were looked at since all was there, and none was missing or short.
    looked: bool,
    /// Files to make, with room for all of them, before the download begins.
    to_allocate: Vec<FileIndex>,
}

/// A write that waits.
#[derive(Debug)]
struct Held {
    piece: PieceIndex,
    runs: Vec<Run>,
    digests: bool,
    /// The files that it found missing or cut.
    gone: Vec<FileIndex>,
}

impl DiskState {
    pub(super) fn new(to_allocate: Vec<FileIndex>) -> Self {
        Self { to_allocate, ..Self::default() }
    }

    /// Whether it failed last because it is full.
    pub(super) fn is_full(&self) -> bool {
        matches!(self.told, Some((StorageErrorKind::Full, _)))
    }

    /// When what was refused is tried again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Whether a piece that we have may be gone: it is not served until that is known.
    pub(super) fn is_in_doubt(&self, piece: PieceIndex) -> bool {
        self.doubted.contains(&piece)
    }

    /// What may be told of `have`: without what is in doubt.
    pub(super) fn without_doubted(&self, have: &Bitfield) -> Bitfield {
        let mut sure = have.clone();
        for piece in &self.doubted {
            sure.clear(*piece);
        }
        sure
    }

    /// The pieces that we have and that may be gone.
    pub(super) fn in_doubt(&self) -> impl Iterator<Item = PieceIndex> {
        self.doubted.iter().copied()
    }

    /// Something is missing: when all is there again, files are looked at again.
    pub(super) fn look_again(&mut self) {
        self.looked = false;
    }

    /// How often files came to be in doubt. What was asked of the disk before one of these times may be read after it.
    pub(super) fn doubts(&self) -> u64 {
        self.doubts
    }

    /// How long files should be that a write goes to.
    pub(super) fn reaches(&self, layout: &Layout, piece: PieceIndex, runs: &[Run]) -> Vec<(FileIndex, u64)> {
        self.reach.of(layout, piece, runs)
    }

    /// A piece was found on disk.
    pub(super) fn on_found(&mut self, layout: &Layout, piece: PieceIndex) {
        self.reach.on_found(layout, piece);
    }

    /// A part of a piece was written.
    pub(super) fn on_written(&mut self, layout: &Layout, piece: PieceIndex, runs: &[Run]) {
        self.reach.on_written(layout, piece, runs);
    }

    /// A write found files missing or cut: it waits.
    pub(super) fn hold(&mut self, piece: PieceIndex, runs: Vec<Run>, digests: bool, gone: Vec<FileIndex>) {
        self.held.push(Held { piece, runs, digests, gone });
    }

    /// Nothing is tried again: the torrent ends. What is in doubt stays so, for the next run to hash.
    pub(super) fn give_up(&mut self) {
        let (doubted, doubts) = (std::mem::take(&mut self.doubted), self.doubts);
        *self = Self { doubted, doubts, ..Self::default() };
    }
}

impl Torrent {
    /// Whether jobs that write may go out.
    pub(super) fn may_write(&self) -> bool {
        self.state != TorrentState::DiskError || self.disk.trying
    }

    /// The torrent cannot be opened. What may pass is waited for; anything else ends it.
    pub(super) fn on_open_failed(
        &mut self,
        context: &mut Context<'_>,
        error: StorageError,
        resume: ResumeMode,
    ) {
        use StorageErrorKind::{Exhausted, Full, Io, Other, ReadOnly, ShortRead};
        let passes = matches!(error.kind, Exhausted | Full | Io | Other(_) | ReadOnly | ShortRead);
        let stops = self.state == TorrentState::Stopping;
        if passes && !stops {
            return self.on_disk_error(context, error, Purpose::Open { resume }, Work::Open { resume });
        }
        warn!(torrent = %self.info_hash.short(), %error, "cannot be opened");
        // Who stopped it meanwhile need not hear that it would have had to wait.
        if !passes {
            context.alert(Alert::AddFailed { torrent: self.id, error: AddError::Storage(error) });
        }
        // Of a link there may be peers, and trackers that were told.
        if self.peers.is_empty() && !self.announcer.has_begun() {
            self.state = TorrentState::Stopping;
            self.closed = true;
        } else {
            self.stop(context);
        }
    }

    /// The disk failed at `work`, which will be tried again.
    pub(super) fn on_disk_error(
        &mut self,
        context: &mut Context<'_>,
        error: StorageError,
        purpose: Purpose,
        work: Work,
    ) {
        if self.state == TorrentState::Stopping {
            return;
        }
        let is_write = matches!(purpose, Purpose::Write { .. });
        if !(is_write && context.has_bug(OldBug::RefusedWriteForgotten)) {
            self.disk.refused.push((purpose, work));
        }
        self.pause_for_disk(context, error);
    }

    /// Something could not be written down. The last snapshot says it as well: nothing is tried again at the end.
    pub(super) fn on_not_saved(&mut self, context: &mut Context<'_>, error: StorageError, save: Save) {
        let again = Some(save).filter(|_| self.state != TorrentState::Stopping);
        self.resume.on_saved(again);
        self.pause_for_disk(context, error);
    }

    /// Asks for nothing more until the disk works again; what is there is still served.
    pub(super) fn pause_for_disk(&mut self, context: &mut Context<'_>, error: StorageError) {
        if self.state == TorrentState::Stopping {
            return;
        }
        self.disk.trying = false;
        if !(error.kind == StorageErrorKind::Full && context.has_bug(OldBug::FullForEver)) {
            self.disk.retry_at.get_or_insert(context.now + DISK_RETRY);
        }
        let needed_bytes = (error.kind == StorageErrorKind::Full).then(|| self.bytes_to_write());
        if self.state != TorrentState::DiskError || self.disk.told != Some((error.kind, needed_bytes)) {
            warn!(torrent = %self.info_hash.short(), %error, needed_bytes, "disk failed, trying again in 30 s");
            self.disk.told = Some((error.kind, needed_bytes));
            context.alert(Alert::DiskFailed { torrent: self.id, error, needed_bytes });
        }
        if self.is_fetching() {
            self.cancel_everything(context.now);
        }
        self.enter(context, TorrentState::DiskError);
    }

    /// Tries what the disk refused, once that is due.
    pub(super) fn retry_if_due(&mut self, context: &mut Context<'_>) {
        if self.disk.retry_at.is_none_or(|at| at > context.now) {
            return;
        }
        debug!(torrent = %self.info_hash.short(), refused = self.disk.refused.len(), "trying the disk again");
        self.disk.retry_at = None;
        self.disk.trying = true;
        for (purpose, work) in std::mem::take(&mut self.disk.refused) {
            self.submit(context, purpose, work);
        }
    }

    /// Goes on when the disk took all that it had refused.
    pub(super) fn go_on_if_tried(&mut self, context: &mut Context<'_>) {
        let reads = |purpose: &Purpose| matches!(purpose, Purpose::Read { .. });
        if !self.disk.trying || !self.jobs.values().all(reads) || !self.disk.held.is_empty() {
            return;
        }
        self.disk.trying = false;
        self.disk.told = None;
        if self.state != TorrentState::DiskError {
            return;
        }
        info!(torrent = %self.info_hash.short(), "the disk works again");
        self.active_since = context.now;
        let state = if !self.begun {
            TorrentState::Checking
        } else if self.selection.is_complete() {
            TorrentState::Seeding
        } else {
            TorrentState::Downloading
        };
        self.enter(context, state);
        if state == TorrentState::Checking {
            self.check_on(context);
        }
        self.freed = true;
        self.refill_if_freed(context);
    }

    /// Makes the files that are to be there first. True when the swarm has to wait for it.
    pub(super) fn allocate_first(&mut self, context: &mut Context<'_>) -> bool {
        let under_way = |purpose: &Purpose| matches!(purpose, Purpose::Allocate { .. });
        if self.jobs.values().any(under_way) {
            return true;
        }
        let files = std::mem::take(&mut self.disk.to_allocate);
        if files.is_empty() || self.selection.is_complete() {
            return false;
        }
        self.submit(context, Purpose::Allocate { files: files.clone() }, Work::Allocate { files });
        true
    }

    /// What was in these files may be gone.
    pub(super) fn doubt(&mut self, files: impl IntoIterator<Item = FileIndex>) {
        for file in files {
            self.disk.doubts += 1;
            self.disk.reach.on_gone(file);
            let pieces = self.place.layout.pieces_of(file).map(PieceIndex::new);
            self.verify.on_doubted(pieces.clone());
            for piece in pieces.filter(|piece| self.have.has(*piece)) {
                if self.disk.doubted.insert(piece) {
                    self.resume.on_doubted(piece);
                }
            }
        }
    }

    /// Writes what was held, once nothing saved claims what it fills with zeros.
    pub(super) fn write_held(&mut self, context: &mut Context<'_>) {
        if self.disk.held.is_empty() || !self.may_write() || self.resume.owes_doubts() {
            return;
        }
        for Held { piece, runs, digests, gone } in std::mem::take(&mut self.disk.held) {
            self.submit_write(context, piece, runs, digests, gone);
        }
    }

    /// Hashes what is in doubt, a few pieces at a time, once a later run would do so too: were we killed with what is lost
    /// known to us alone, it would be believed again.
    pub(super) fn confirm_doubted(&mut self, context: &mut Context<'_>) {
        let may_begin =
            self.may_write() && self.state != TorrentState::Stopping && !self.resume.owes_doubts_record();
        if self.disk.confirming || self.disk.doubted.is_empty() || !may_begin {
            return;
        }
        self.disk.confirming = true;
        let count = (CONFIRM_BYTES / self.place.layout.piece_length().max(1)).clamp(1, CONFIRM_PIECES_MAX);
        let pieces: Vec<_> = self.disk.doubted.iter().copied().take(count as usize).collect();
        self.submit(context, Purpose::Confirm { pieces: pieces.clone() }, Work::Check { pieces });
    }

    /// Pieces in doubt were hashed, or could not be.
    pub(super) fn on_confirmed(
        &mut self,
        context: &mut Context<'_>,
        pieces: Vec<PieceIndex>,
        result: Result<Vec<bool>, StorageError>,
    ) {
        self.disk.confirming = false;
        match result {
            Ok(good) => {
                let mut lost = Vec::new();
                for (piece, good) in pieces.into_iter().zip(good) {
                    self.disk.doubted.remove(&piece);
                    if good {
                        self.disk.on_found(&self.place.layout, piece);
                        self.tell_confirmed(piece);
                        self.resume.on_good(context.now, piece);
                    } else {
                        self.on_lost(context, piece);
                        lost.push(piece);
                    }
                }
                self.part_over(context, &lost);
                if self.disk.doubted.is_empty() {
                    self.peers.values_mut().for_each(|peer| peer.greeted_in_doubt = false);
                }
            }
            Err(error) => self.pause_for_disk(context, error),
        }
        self.complete_if_held(context);
    }

    /// Whether completion has to wait until files were looked at, and what is in doubt was hashed: what another program
    /// removed or cut is missed now at the latest.
    pub(super) fn hold_completion(&mut self, context: &mut Context<'_>) -> bool {
        let under_way = |purpose: &Purpose| matches!(purpose, Purpose::Look);
        self.disk.looked |= self.told_complete || self.selection.wanted_bytes() == 0;
        if !self.disk.looked && !self.jobs.values().any(under_way) {
            self.submit(context, Purpose::Look, Work::Look);
        }
        self.disk.completion_held = !self.disk.doubted.is_empty() || !self.disk.looked;
        self.disk.completion_held
    }

    /// Files were looked at, or could not be.
    pub(super) fn on_looked(
        &mut self,
        context: &mut Context<'_>,
        result: Result<Vec<FileIndex>, StorageError>,
    ) {
        match result {
            Ok(gone) => {
                self.disk.looked = true;
                self.doubt(gone);
                self.complete_if_held(context);
            }
            Err(error) => self.on_disk_error(context, error, Purpose::Look, Work::Look),
        }
    }

    fn complete_if_held(&mut self, context: &mut Context<'_>) {
        if self.disk.doubted.is_empty()
            && std::mem::take(&mut self.disk.completion_held)
            && self.selection.is_complete()
        {
            self.on_complete(context);
        }
    }

    /// Pieces are lost that peers were told of. As nobody need be told of what it has, those that lack one would not tell us
    /// when they get it, and what they told us before may be all that we ever hear: they are met anew.
    fn part_over(&mut self, context: &mut Context<'_>, lost: &[PieceIndex]) {
        let lacks = |peer: &Peer| lost.iter().any(|piece| !peer.has.has(*piece));
        let misled =
            self.peers.iter().filter(|(_, peer)| peer.is_up() && !peer.greeted_in_doubt && lacks(peer));
        let misled: Vec<_> = misled.map(|(connection, _)| *connection).collect();
        for connection in misled {
            self.close_peer(context, connection);
        }
    }

    /// Tells those of a piece who came while it was in doubt.
    fn tell_confirmed(&mut self, piece: PieceIndex) {
        for (connection, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.greeted_in_doubt) {
            if !peer.has.has(piece) && peer.send(Message::Have(piece.get())) {
                self.unsent.push(*connection);
            }
        }
    }

    /// Bytes that are to be written before the torrent is complete.
    fn bytes_to_write(&self) -> u64 {
        let layout = &self.place.layout;
        let runs = |piece| layout.runs(piece, 0, layout.piece_bytes(piece)).filter(|run| !run.pad);
        let wanted = self.have.iter_missing().filter(|piece| self.selection.wants(*piece));
        wanted.flat_map(runs).map(|run| run.length).sum()
    }
}

const DISK_RETRY: Duration = Duration::from_secs(30);
/// Hashed at once of what is in doubt: other jobs come in between.
const CONFIRM_BYTES: u32 = 16 << 20;
const CONFIRM_PIECES_MAX: u32 = 256;
