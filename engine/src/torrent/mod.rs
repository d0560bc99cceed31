//! One torrent in its swarm. This file routes and joins; what decides has a part with a name of its own.
//!
//! States: `Queued` (waiting for a place) -> with a magnet `FetchingMetadata` -> `Opening` (reading what earlier runs left) -> `Checking` (hashing what must be) -> `Downloading` ->
//! `Seeding` -> `Finished` (seeded enough); `DiskError` beside the last two, until the disk works again; `Stopping` from any, until trackers are told
//! and state is saved. Peers and trackers begin with the end of the check, so that what we tell them is true.

mod announcer;
mod candidates;
mod check;
mod choker;
mod disk_state;
mod fetch;
mod magnet;
mod metadata;
mod pex;
mod picker;
mod piece;
mod reach;
mod refill;
mod resume;
mod seed_goal;
mod selection;
mod serve;
mod smart_ban;
mod spread;
mod swarm;
mod trackerless;
mod trackers;
mod turnover;
#[cfg(test)]
mod vectors;
mod verify;

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::{debug, info, warn};

use self::announcer::Announcer;
use self::candidates::{Candidates, Origin};
use self::check::Check;
use self::choker::Choker;
pub(crate) use self::choker::Range;
use self::disk_state::DiskState;
pub(crate) use self::magnet::{Pending, info_of};
use self::pex::Pex;
use self::picker::Picker;
use self::piece::Pieces;
use self::refill::Outlook;
use self::resume::{Resume, Save};
use self::seed_goal::SeedProgress;
use self::selection::Selection;
use self::spread::Spread;
use self::verify::Verify;
use crate::alert::{Alert, MetadataStats, TorrentState, TorrentStats};
use crate::bitfield::Bitfield;
use crate::command::{Priority, ResumeMode, SeedGoal};
use crate::context::Context;
use crate::disk::{Job, JobResult, Opened, Place, ReadBlock, Run, Totals, Work, Written};
use crate::ids::{ConnectionId, FileIndex, InfoHash, JobId, PieceIndex, TorrentId};
use crate::output::Output;
use crate::peer::Peer;
use crate::rate::Rate;
use crate::rng::Rng;
use crate::time::Instant;
use crate::under_way::UnderWay;

/// One torrent.
#[derive(Debug)]
pub(crate) struct Torrent {
    id: TorrentId,
    info_hash: InfoHash,
    place: Arc<Place>,
    /// The raw info dictionary; empty until it is known.
    info: Bytes,
    /// It was fetched from peers, and is not on disk yet.
    save_info: bool,
    /// What waits for the metadata.
    pending: Option<Box<Pending>>,
    /// No DHT, PEX or LSD (BEP 27); not known of a magnet before its metadata.
    is_private: bool,
    state: TorrentState,
    have: Bitfield,
    bytes_have: u64,
    selection: Selection,
    pieces: Pieces,
    picker: Picker,
    outlook: Outlook,
    verify: Verify,
    check: Check,
    resume: Resume,
    peers: BTreeMap<ConnectionId, Peer>,
    candidates: Candidates,
    pex: Pex,
    choker: Choker,
    spread: Spread,
    seed_progress: SeedProgress,
    announcer: Announcer,
    /// The announcer has told everybody, after `stop`.
    trackers_told: bool,
    /// What trackers are asked, with the announcer's names for it.
    under_way: UnderWay,
    /// Its place among those who wait to ask trackers.
    in_line: Option<u64>,
    jobs: BTreeMap<JobId, Purpose>,
    disk: DiskState,
    /// When some of the worst peers make room for others, while others wait for it.
    turnover_at: Option<Instant>,
    /// Peers with messages to send.
    unsent: Vec<ConnectionId>,
    /// When seeds are told of new pieces at the latest.
    haves_at: Option<Instant>,
    /// Something can be asked for that could not before.
    freed: bool,
    /// A peer has nothing to do while others' pieces that it may not join are under way.
    held_back: bool,
    /// Peers with released requests out; some of them may have none any more, or be gone.
    may_collide: BTreeSet<ConnectionId>,
    /// Whose messages are at hand: it is asked for more when the last of them is known.
    reading: Option<ConnectionId>,
    /// That all that is wanted is here was said, or was so from the start.
    told_complete: bool,
    /// What the memory budget was told is buffered here.
    reported_bytes: u64,
    /// Of what is in memory nothing is told to it, as it waits for a failing disk.
    is_left_out: bool,
    download: Rate,
    upload: Rate,
    /// What sockets took, whatever it was.
    sent: Rate,
    wasted_bytes: u64,
    /// Counted by earlier runs.
    totals_before: Totals,
    stop_by: Option<Instant>,
    resume_mode: ResumeMode,
    /// When its turn came, its check was over, its disk worked again, or the machine woke.
    active_since: Instant,
    /// The check is over, and peers and trackers have begun.
    begun: bool,
    /// The last job of a stopping torrent is out.
    closing: bool,
    closed: bool,
}

/// What a job is for, kept until its result comes.
#[derive(Clone, Debug)]
enum Purpose {
    LoadMetadata,
    SaveMetadata,
    Open {
        resume: ResumeMode,
    },
    Allocate {
        files: Vec<FileIndex>,
    },
    Check {
        pieces: Vec<PieceIndex>,
    },
    /// A file was found missing or cut: are these pieces still there?
    Confirm {
        pieces: Vec<PieceIndex>,
    },
    Write {
        piece: PieceIndex,
        runs: Vec<Run>,
        digests: bool,
    },
    Hash {
        pieces: Vec<PieceIndex>,
    },
    Read {
        connection: ConnectionId,
        blocks: Vec<ReadBlock>,
        /// How often files had been in doubt when it was asked for.
        doubts: u64,
    },
    Record {
        good: Vec<PieceIndex>,
        touched: Vec<PieceIndex>,
        doubted: Vec<PieceIndex>,
    },
    Snapshot,
    Look,
    Close,
}

/// What a torrent begins with.
pub(crate) struct Start {
    pub(crate) id: TorrentId,
    pub(crate) info_hash: InfoHash,
    pub(crate) place: Place,
    /// The raw info dictionary; empty with a magnet.
    pub(crate) info: Bytes,
    /// Only peers of its trackers (BEP 27); not known yet of a magnet.
    pub(crate) is_private: bool,
    /// Of a magnet.
    pub(crate) pending: Option<Box<Pending>>,
    pub(crate) tiers: Vec<Vec<String>>,
    pub(crate) resume: ResumeMode,
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) priorities: Vec<Priority>,
    pub(crate) sequential: bool,
    /// Files to make room for before the download begins.
    pub(crate) allocate: Vec<FileIndex>,
    pub(crate) seed_goal: SeedGoal,
    pub(crate) seed: u64,
}

impl Torrent {
    /// A torrent that waits for [`Self::begin`].
    pub(crate) fn new(context: &mut Context<'_>, start: Start) -> Self {
        let piece_count = start.place.layout.piece_count();
        let stream = |name| Rng::stream(start.seed, name, u64::from(start.id.0));
        let have = Bitfield::new(piece_count);
        let mut torrent = Self {
            id: start.id,
            info_hash: start.info_hash,
            info: start.info,
            save_info: false,
            pending: start.pending,
            is_private: start.is_private,
            state: TorrentState::Queued,
            bytes_have: 0,
            selection: Selection::new(&start.place.layout, &start.priorities, &have),
            pieces: Pieces::new(&start.place.layout, &have),
            have,
            picker: Picker::new(piece_count, start.sequential, stream("picker")),
            outlook: Outlook::default(),
            verify: Verify::default(),
            check: Check::default(),
            resume: Resume::default(),
            peers: BTreeMap::new(),
            candidates: Candidates::new(stream("candidates")),
            pex: Pex::new(context.config.pex && !start.is_private),
            choker: Choker::new(stream("choker")),
            spread: Spread::default(),
            seed_progress: SeedProgress::new(start.seed_goal),
            announcer: Announcer::new(&start.tiers, context.config.planted, stream("announcer")),
            trackers_told: false,
            under_way: UnderWay::default(),
            in_line: None,
            jobs: BTreeMap::new(),
            disk: DiskState::new(start.allocate),
            turnover_at: None,
            unsent: Vec::new(),
            haves_at: None,
            freed: false,
            held_back: false,
            may_collide: BTreeSet::new(),
            reading: None,
            told_complete: false,
            reported_bytes: 0,
            is_left_out: false,
            download: Rate::over(Duration::from_secs(2)),
            upload: Rate::over(Duration::from_secs(2)),
            sent: Rate::over(Duration::from_secs(10)),
            wasted_bytes: 0,
            totals_before: Totals::default(),
            stop_by: None,
            resume_mode: start.resume,
            active_since: context.now,
            begun: false,
            closing: false,
            closed: false,
            place: Arc::new(start.place),
        };
        for address in start.peers {
            torrent.candidates.add(context.now, address, Origin::User);
        }
        info!(torrent = %torrent.info_hash.short(), "added");
        torrent.alert_state(context);
        torrent
    }

    /// Its turn has come: it begins by reading what earlier runs left.
    pub(crate) fn begin(&mut self, context: &mut Context<'_>) {
        if self.state != TorrentState::Queued {
            return;
        }
        self.active_since = context.now;
        if self.is_magnet() {
            return self.begin_magnet(context);
        }
        self.enter(context, TorrentState::Opening);
        let resume = self.resume_mode;
        self.submit(context, Purpose::Open { resume }, Work::Open { resume });
    }

    /// The pieces of the layout, none of which is here yet.
    fn take_shape(&mut self, priorities: &[Priority], allocate: Vec<FileIndex>) {
        let layout = &self.place.layout;
        self.have = Bitfield::new(layout.piece_count());
        self.selection = Selection::new(layout, priorities, &self.have);
        self.pieces = Pieces::new(layout, &self.have);
        self.picker.take_shape(layout.piece_count());
        self.disk = DiskState::new(allocate);
    }

    /// Whether others must wait for it.
    pub(crate) fn holds_place(&self, now: Instant) -> bool {
        match self.state {
            TorrentState::Queued | TorrentState::Seeding | TorrentState::Finished => false,
            // Others would fill it more.
            TorrentState::DiskError if self.disk.is_full() => true,
            TorrentState::Downloading | TorrentState::FetchingMetadata | TorrentState::DiskError => {
                now.since(self.announcer.fed_at().max(self.active_since)) < STALLED
            }
            TorrentState::Opening | TorrentState::Checking | TorrentState::Stopping => true,
        }
    }

    pub(crate) fn unban(&mut self, context: &mut Context<'_>, address: SocketAddr) {
        self.candidates.unban(context.now, address);
        self.settle(context);
    }

    /// The goal is reached: nobody is served any more, and trackers are told.
    fn finish(&mut self, context: &mut Context<'_>) {
        info!(torrent = %self.info_hash.short(), "seeded enough");
        let connections: Vec<_> = self.peers.keys().copied().collect();
        for connection in connections {
            self.close_peer(context, connection);
        }
        self.announcer.stop(context.now);
        self.resume.on_changed(context.now);
        self.enter(context, TorrentState::Finished);
    }

    /// Whether seeding has been enough.
    fn has_seeded_enough(&mut self, now: Instant) -> bool {
        match self.state {
            TorrentState::Seeding => self.seed_progress.on_seeding(now),
            TorrentState::Downloading => self.seed_progress.on_incomplete(),
            _ => {}
        }
        let wanted = self.selection.wanted_bytes();
        self.state == TorrentState::Seeding
            && self.seed_progress.is_reached(now, self.totals().uploaded, wanted)
    }

    pub(crate) fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// Whether nothing is left to do and it can be dropped.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Tells the memory budget what of ours is in memory and not on disk. What waits for a failing disk is left out,
    /// so that it stops no other torrent; it does not grow, as nothing is asked for meanwhile.
    fn report_buffered(&mut self, context: &mut Context<'_>) {
        self.is_left_out = match self.state {
            TorrentState::DiskError => true,
            // Stopped while its disk failed: nothing more comes.
            TorrentState::Stopping => self.is_left_out,
            _ => false,
        };
        let bytes = if self.is_left_out || self.closed {
            0
        } else {
            self.pieces.buffered_bytes() + self.verify.bytes()
        };
        context.bandwidth.on_buffered(self.reported_bytes, bytes);
        self.reported_bytes = bytes;
    }

    pub(crate) fn add_peers(&mut self, context: &mut Context<'_>, peers: Vec<SocketAddr>) {
        for address in peers {
            self.candidates.add(context.now, address, Origin::User);
        }
        self.settle(context);
    }

    /// A deadline of this torrent has come.
    pub(crate) fn handle_timeout(&mut self, context: &mut Context<'_>) {
        if self.choker.deadline().is_some_and(|at| at <= context.now) {
            self.choke_round(context);
        }
        self.tell_held_haves_if_due(context.now);
        self.exchange_if_due(context);
        self.turn_over_if_due(context);
        self.retry_if_due(context);
        self.announcer.handle_timeout(context.now);
        self.freed |= self.held_back;
        self.settle(context);
    }

    /// A job is done.
    pub(crate) fn handle_job(&mut self, context: &mut Context<'_>, job: JobId, result: JobResult) {
        let Some(purpose) = self.jobs.remove(&job) else { return };
        match (purpose, result) {
            (Purpose::LoadMetadata, JobResult::MetadataLoaded(info)) => {
                self.on_metadata_loaded(context, info);
            }
            (Purpose::SaveMetadata, JobResult::MetadataSaved(Ok(()))) => {}
            (Purpose::SaveMetadata, JobResult::MetadataSaved(Err(error))) => {
                self.on_metadata_not_saved(context, error);
            }
            (Purpose::Open { .. }, JobResult::Opened(Ok(opened))) => self.on_opened(context, opened),
            (Purpose::Open { resume }, JobResult::Opened(Err(error))) => {
                self.on_open_failed(context, error, resume);
            }
            (Purpose::Allocate { .. }, JobResult::Allocated(Ok(()))) => {}
            (Purpose::Allocate { files }, JobResult::Allocated(Err(error))) => {
                let work = Work::Allocate { files: files.clone() };
                self.on_disk_error(context, error, Purpose::Allocate { files }, work);
            }
            (Purpose::Check { pieces }, JobResult::Checked(Ok(good))) => {
                for (piece, good) in pieces.into_iter().zip(good) {
                    self.on_checked(context.now, piece, good);
                }
            }
            (Purpose::Check { pieces }, JobResult::Checked(Err(error))) => {
                let work = Work::Check { pieces: pieces.clone() };
                self.on_disk_error(context, error, Purpose::Check { pieces }, work);
            }
            (Purpose::Write { piece, runs, digests: wanted }, JobResult::Written(Ok(written))) => {
                let Written { gone, digests } = written;
                if gone.is_empty() {
                    self.disk.on_written(&self.place.layout, piece, &runs);
                    self.verify.on_stored(piece, &runs, &digests);
                    self.on_written(context, piece);
                } else {
                    debug!(torrent = %self.info_hash.short(), ?gone, "files were cut or removed");
                    self.doubt(gone.iter().copied());
                    if self.state != TorrentState::Stopping {
                        self.disk.hold(piece, runs, wanted, gone);
                    }
                }
            }
            (Purpose::Write { piece, runs, digests }, JobResult::Written(Err(error))) => {
                let work = self.write_of(piece, runs.clone(), digests, Vec::new());
                self.on_disk_error(context, error, Purpose::Write { piece, runs, digests }, work);
            }
            (Purpose::Hash { pieces }, JobResult::Hashed(Ok(hashes))) => {
                self.verify.on_batch_over();
                for (piece, hash) in pieces.into_iter().zip(hashes) {
                    self.on_hashed(context, piece, hash);
                }
            }
            (Purpose::Hash { pieces }, JobResult::Hashed(Err(error))) => {
                self.verify.on_batch_over();
                if self.state != TorrentState::Stopping {
                    pieces.iter().for_each(|piece| self.verify.on_hash_failed(*piece));
                }
                self.pause_for_disk(context, error);
            }
            (Purpose::Read { connection, blocks, doubts }, JobResult::Read(result)) => {
                self.on_read(context, connection, &blocks, doubts, result);
            }
            (Purpose::Record { .. }, JobResult::Recorded(Ok(())))
            | (Purpose::Snapshot, JobResult::Saved(Ok(()))) => {
                self.resume.on_saved(None);
            }
            (Purpose::Record { good, touched, doubted }, JobResult::Recorded(Err(error))) => {
                self.on_not_saved(context, error, Save::Record { good, touched, doubted });
            }
            (Purpose::Snapshot, JobResult::Saved(Err(error))) => {
                self.on_not_saved(context, error, Save::Snapshot);
            }
            (Purpose::Look, JobResult::Looked(result)) => self.on_looked(context, result),
            (Purpose::Confirm { pieces }, JobResult::Checked(result)) => {
                self.on_confirmed(context, pieces, result);
            }
            (Purpose::Close, result) => {
                if let JobResult::Saved(Err(error)) = result {
                    warn!(torrent = %self.info_hash.short(), %error, "state was not saved");
                    context.alert(Alert::DiskFailed { torrent: self.id, error, needed_bytes: None });
                }
                self.closed = true;
                self.closing = false;
            }
            (purpose, result) => panic!("a job gives the result of its kind: {purpose:?}, {result:?}"),
        }
        self.settle(context);
    }

    /// The machine slept: connections are dead whatever they look like, and nobody needs sparing any longer.
    pub(crate) fn renew(&mut self, context: &mut Context<'_>) {
        if self.state == TorrentState::Stopping {
            return;
        }
        let connections: Vec<_> = self.peers.keys().copied().collect();
        for connection in connections {
            self.close_peer(context, connection);
        }
        self.active_since = context.now;
        self.candidates.renew(context.now);
        context.udp_trackers.renew();
        self.announcer.renew(context.now);
        self.settle(context);
    }

    /// Begins to stop: tells trackers, closes peers, saves state.
    pub(crate) fn stop(&mut self, context: &mut Context<'_>) {
        if self.stop_by.is_some() {
            return;
        }
        self.stop_by = Some(context.now + context.config.stop_timeout);
        if self.state == TorrentState::Queued {
            // Nothing was opened, nobody was told.
            self.enter(context, TorrentState::Stopping);
            self.closed = true;
            return;
        }
        if self.state != TorrentState::Finished {
            self.announcer.stop(context.now);
        }
        let connections: Vec<_> = self.peers.keys().copied().collect();
        for connection in connections {
            self.close_peer(context, connection);
        }
        self.disk.give_up();
        self.enter(context, TorrentState::Stopping);
        self.settle(context);
    }

    /// Does all that became possible: dials, hashes, saves, announces, sends; and sets the deadline.
    fn settle(&mut self, context: &mut Context<'_>) {
        if matches!(self.state, TorrentState::Checking) {
            self.check_on(context);
        }
        self.refill_if_freed(context);
        self.flush_excess(context);
        self.confirm_doubted(context);
        while self.may_write()
            && let Some(pieces) = self.verify.next_batch(context.now, self.pieces.buffered_bytes() > 0)
        {
            let purpose = Purpose::Hash { pieces: pieces.iter().map(|hash| hash.piece).collect() };
            self.submit(context, purpose, Work::Hash { pieces });
        }
        if self.has_seeded_enough(context.now) {
            self.finish(context);
        }
        if self.may_save() {
            self.save(context);
        }
        self.write_held(context);
        self.go_on_if_tried(context);
        self.dial(context);
        self.ask_for_metadata(context);
        self.announce(context);
        self.watch_turnover(context);
        if self.state == TorrentState::Stopping {
            self.finish_stopping(context);
        }
        self.report_buffered(context);
        self.flush(context);
        let deadline = self.deadline(context);
        context.wake_torrent(self.id, deadline);
    }

    fn deadline(&self, context: &Context<'_>) -> Option<Instant> {
        let dial = if self.wants_dials(context) { self.candidates.next_at() } else { None };
        [
            self.choker.deadline(),
            self.disk.deadline(),
            if self.may_write() { self.verify.deadline() } else { None },
            self.metadata_deadline(context.now),
            self.pex.deadline(),
            self.turnover_at,
            self.haves_at,
            self.announcer.poll_timeout(),
            dial.map(|at| at.max(context.dials_from)),
            if self.held_back { self.pieces.next_overdue(context.now) } else { None },
            if self.may_save() { self.resume.deadline() } else { None },
            self.stop_by.filter(|_| !self.trackers_told),
            self.seed_progress.deadline().filter(|_| self.state == TorrentState::Seeding),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn on_opened(&mut self, context: &mut Context<'_>, opened: Opened) {
        self.resume.enable(opened.saved);
        self.totals_before = opened.totals;
        for piece in opened.have.iter() {
            self.on_have(piece);
        }
        self.check.begin(&self.place.layout, opened.unchecked);
        if self.state == TorrentState::Stopping {
            return;
        }
        self.save_metadata(context);
        self.enter(context, TorrentState::Checking);
        if self.check.is_over() {
            self.begin_swarm(context);
        }
    }

    /// The check is over: peers and trackers begin, once there is room for everything if that was asked for.
    fn begin_swarm(&mut self, context: &mut Context<'_>) {
        if self.allocate_first(context) {
            return;
        }
        self.pieces = Pieces::new(&self.place.layout, &self.have);
        for piece in self.have.iter_missing().collect::<Vec<_>>() {
            self.offer(piece);
        }
        let whole = self.selection.is_complete();
        self.told_complete = whole;
        self.begun = true;
        self.active_since = context.now;
        if !self.announcer.has_begun() {
            self.announcer.start(context.now);
        }
        self.resume.on_begun(context.now);
        self.enter(context, if whole { TorrentState::Seeding } else { TorrentState::Downloading });
        self.hear_early(context);
    }

    /// A piece is on disk and its hash is right.
    fn on_have(&mut self, piece: PieceIndex) {
        if self.have.set(piece) {
            self.bytes_have += u64::from(self.place.layout.piece_bytes(piece));
            self.selection.on_have(&self.place.layout, piece);
            self.disk.on_found(&self.place.layout, piece);
        }
    }

    fn enter(&mut self, context: &mut Context<'_>, state: TorrentState) {
        if self.state != state {
            self.state = state;
            self.alert_state(context);
        }
    }

    fn alert_state(&self, context: &mut Context<'_>) {
        debug!(torrent = %self.info_hash.short(), state = ?self.state, "state");
        context.alert(Alert::StateChanged { torrent: self.id, state: self.state });
    }

    /// Whether blocks are asked for.
    fn is_fetching(&self) -> bool {
        self.state == TorrentState::Downloading
    }

    /// Whether peers are wanted for what they may have.
    fn seeks_peers(&self) -> bool {
        matches!(self.state, TorrentState::FetchingMetadata | TorrentState::Downloading)
    }

    /// Not while the disk fails, nor once the last snapshot is out.
    fn may_save(&self) -> bool {
        self.may_write() && !self.closing && !self.closed
    }

    fn save(&mut self, context: &mut Context<'_>) {
        match self.resume.poll(context.now) {
            Some(Save::Record { good, touched, doubted }) => {
                let work =
                    Work::Record { good: good.clone(), touched: touched.clone(), doubted: doubted.clone() };
                self.submit(context, Purpose::Record { good, touched, doubted }, work);
            }
            Some(Save::Snapshot) => {
                let work = self.snapshot(false);
                self.submit(context, Purpose::Snapshot, work);
            }
            None => {}
        }
    }

    fn snapshot(&self, close: bool) -> Work {
        let (mut have, mut unchecked) = (self.have.clone(), self.check.unchecked().clone());
        for piece in self.disk.in_doubt() {
            have.clear(piece);
            if unchecked.piece_count() == 0 {
                unchecked = Bitfield::new(have.piece_count());
            }
            unchecked.set(piece);
        }
        Work::Snapshot { have, unchecked, totals: self.totals(), close }
    }

    fn totals(&self) -> Totals {
        Totals {
            downloaded: self.totals_before.downloaded + self.download.total(),
            uploaded: self.totals_before.uploaded + self.upload.total(),
        }
    }

    /// The last job goes out when nothing else is under way and the trackers were told, or their time is up; the
    /// torrent is closed when it is back.
    fn finish_stopping(&mut self, context: &mut Context<'_>) {
        if self.closing || self.closed || !self.jobs.is_empty() || !self.trackers_told {
            return;
        }
        self.closing = true;
        let is_saved = self.resume.is_as_closed() && self.totals() == self.totals_before;
        let work = if self.resume.is_enabled() && !is_saved { self.snapshot(true) } else { Work::Close };
        self.submit(context, Purpose::Close, work);
    }

    fn submit(&mut self, context: &mut Context<'_>, purpose: Purpose, work: Work) {
        let job = context.submit(self.id, Job { place: Arc::clone(&self.place), work });
        self.jobs.insert(job, purpose);
    }

    /// Gives the queued messages of each peer to the driver.
    fn flush(&mut self, context: &mut Context<'_>) {
        for connection in std::mem::take(&mut self.unsent) {
            if let Some(peer) = self.peers.get_mut(&connection) {
                let messages = peer.take_outbox(context.now);
                context.outputs.push_back(Output::Send { connection, messages });
            }
        }
    }

    pub(crate) fn stats(&self, now: Instant) -> TorrentStats {
        let up = || self.peers.values().filter(|peer| peer.is_up());
        TorrentStats {
            torrent: self.id,
            info_hash: self.info_hash,
            state: self.state,
            pieces_have: self.have.count(),
            pieces_total: self.have.piece_count(),
            bytes_have: self.bytes_have,
            bytes_total: self.place.layout.total_bytes(),
            bytes_wanted: self.selection.wanted_bytes(),
            bytes_left: self.selection.left_bytes(),
            bytes_checked: self.check.bytes_done(),
            downloaded_bytes: self.download.total(),
            uploaded_bytes: self.upload.total(),
            totals: self.totals(),
            wasted_bytes: self.wasted_bytes,
            download_rate: self.download.per_second(now),
            upload_rate: self.upload.per_second(now),
            peers: up().count() as u32,
            seeds: up().filter(|peer| peer.is_seed()).count() as u32,
            candidates: self.candidates.len() as u32,
            metadata: self.metadata_progress().map(|progress| MetadataStats {
                bytes_have: progress.bytes_have,
                bytes_total: progress.bytes_total,
                peers: progress.tellers,
            }),
            endgame: self.is_fetching() && self.pieces.all_requested() && self.pieces.blocks_wanted() > 0,
        }
    }

    /// What is counted over peers is the sum over those connected, at every moment (`reliability.md` B5).
    #[cfg(test)]
    pub(crate) fn assert_counts(&self) {
        self.pieces.assert_shares();
        let counted = || self.peers.values().filter(|peer| peer.counted);
        for piece in self.place.layout.pieces() {
            let those = counted().filter(|peer| peer.has.has(piece)).count();
            assert_eq!(self.picker.availability()[piece.at()], those as u32, "availability of {piece}");
        }
        for peer in self.peers.values().filter(|_| self.begun) {
            let lacked = |piece: &PieceIndex| self.selection.wants(*piece) && !self.have.has(*piece);
            assert_eq!(peer.wanted_count, peer.has.iter().filter(lacked).count() as u32);
        }
    }

    /// Requests that peers may still answer.
    pub(crate) fn requests_out(&self) -> usize {
        self.peers.values().map(|peer| peer.requests.len()).sum()
    }

    /// How many peers have each piece; nothing before that is counted.
    pub(crate) fn availability(&self) -> Vec<u32> {
        if !self.begun {
            return Vec::new();
        }
        let seeds = self.peers.values().filter(|peer| !peer.counted && peer.is_seed()).count() as u32;
        self.picker.availability().iter().map(|count| count + seeds).collect()
    }

    /// What we have, for oracles and embedders.
    pub(crate) fn have(&self) -> &Bitfield {
        &self.have
    }
}

/// A torrent to which nothing came for so long makes others wait no more.
const STALLED: Duration = Duration::from_secs(1800);
