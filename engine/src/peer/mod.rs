//! One connection to a peer: what each side said, what is under way. It decides nothing about the swarm.
//!
//! States: `Dialling` (ours only) -> `Handshaking` -> `Up`. A peer that dialled us begins in `Up`: its handshake
//! was needed to find the torrent.

mod early;
mod metadata_uploads;
mod pex;
mod requests;
mod uploads;

use core::net::SocketAddr;
use std::collections::BTreeSet;
use std::time::Duration;

use self::early::Early;
use self::metadata_uploads::MetadataUploads;
use self::pex::PexState;
pub(crate) use self::requests::{BLOCK_UNMEASURED, Outstanding, Requests};
pub(crate) use self::uploads::Uploads;
use crate::bitfield::Bitfield;
use crate::ids::{ConnectionId, PeerId, PieceIndex};
use crate::limits::{
    CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, IDLE_MESSAGES_MAX, IDLE_TIMEOUT, INACTIVITY_TIMEOUT, KEEP_ALIVE,
    UNASKED_BLOCKS_MAX,
};
use crate::rate::Rate;
use crate::time::Instant;
use crate::wire::{Message, Reserved};

/// One connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) connection: ConnectionId,
    /// Its end of this connection.
    pub(crate) remote: SocketAddr,
    /// Our end of this connection, when we dialled it.
    pub(crate) local: Option<SocketAddr>,
    /// Where it can be dialled, as far as we know: where we dialled it, or what its `p` says.
    pub(crate) listens_at: Option<SocketAddr>,
    pub(crate) stage: Stage,
    /// When the present stage began.
    pub(crate) since: Instant,
    pub(crate) id: Option<PeerId>,
    pub(crate) reserved: Reserved,
    pub(crate) has: Bitfield,
    /// Whether it said what it has: a bitfield, have-all, have-none or a first have.
    pub(crate) has_said: bool,
    /// Pieces it has that we want and lack.
    pub(crate) wanted_count: u32,
    pub(crate) am_choking: bool,
    pub(crate) am_interested: bool,
    pub(crate) peer_choking: bool,
    pub(crate) peer_interested: bool,
    pub(crate) upload_only: bool,
    /// Pieces it lets us ask for while it chokes us (BEP 6).
    pub(crate) allowed_fast: Vec<PieceIndex>,
    /// The last pieces that it suggested (BEP 6), the latest last.
    pub(crate) suggested: Vec<PieceIndex>,
    /// Pieces we let it ask for while we choke it (BEP 6).
    pub(crate) allowed_fast_given: Vec<PieceIndex>,
    /// Blocks of them that it may still have so: each once (BEP 6 warns of peers that fetch them over and over).
    pub(crate) fast_blocks_left: u32,
    pub(crate) requests: Requests,
    pub(crate) uploads: Uploads,
    /// Its number for `ut_metadata` (BEP 9, BEP 10).
    pub(crate) ut_metadata: Option<u8>,
    pub(crate) metadata_uploads: MetadataUploads,
    /// Its number for `ut_pex` (BEP 11).
    pub(crate) ut_pex: Option<u8>,
    pub(crate) pex: PexState,
    /// What it said of its pieces before we knew of them.
    pub(crate) early: Early,
    /// Payload from it over 2 s: for the request window.
    pub(crate) download: Rate,
    /// Payload from it over 20 s: for the choker.
    pub(crate) download_steady: Rate,
    /// Payload to it over 20 s: for the choker.
    pub(crate) upload_steady: Rate,
    /// When it was last unchoked or choked by us.
    pub(crate) choke_changed: Instant,
    /// Pieces of which it rejected a request; asked for again when it unchokes us anew.
    pub(crate) rejected: BTreeSet<PieceIndex>,
    /// When the first of `rejected` was; some time later all of them are asked for again.
    pub(crate) rejected_at: Option<Instant>,
    /// Rejects since its last block.
    pub(crate) rejects: u32,
    /// Blocks that came and were never asked for.
    unasked_blocks: u32,
    /// Its pieces are counted in the picker one by one; a seed's are not.
    pub(crate) counted: bool,
    /// Nothing could be picked for it, and nothing changed since.
    pub(crate) picked_dry: bool,
    /// When to see whether it is to be asked for what others do not send.
    pub(crate) look_again: Option<Instant>,
    /// What it had been sent when it was last unchoked.
    pub(crate) sent_before_turn: u64,
    /// Requests since it was last unchoked that came while it was choked.
    pub(crate) choked_requests: u32,
    /// Our greeting left pieces out that were in doubt: it is told of them when they are not.
    pub(crate) greeted_in_doubt: bool,
    /// When either side was last seen to want something of the other.
    pub(crate) wanted_at: Instant,
    /// Messages that changed nothing, since `idle_since`.
    idle_messages: u32,
    idle_since: Instant,
    last_received: Instant,
    last_sent: Instant,
    outbox: Vec<Message>,
    /// New pieces of ours that it is told of with the next message, or soon.
    held_haves: Vec<u32>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Our dial is under way.
    Dialling,
    /// Our handshake is out, theirs is not in.
    Handshaking,
    /// Both handshakes are done.
    Up,
}

impl Peer {
    pub(crate) fn new(
        now: Instant,
        connection: ConnectionId,
        remote: SocketAddr,
        stage: Stage,
        piece_count: u32,
    ) -> Self {
        Self {
            connection,
            remote,
            local: None,
            listens_at: (!connection.is_accepted()).then_some(remote),
            stage,
            since: now,
            id: None,
            reserved: Reserved::default(),
            has: Bitfield::new(piece_count),
            has_said: false,
            wanted_count: 0,
            am_choking: true,
            am_interested: false,
            peer_choking: true,
            peer_interested: false,
            upload_only: false,
            allowed_fast: Vec::new(),
            suggested: Vec::new(),
            allowed_fast_given: Vec::new(),
            fast_blocks_left: 0,
            requests: Requests::new(),
            uploads: Uploads::default(),
            ut_metadata: None,
            metadata_uploads: MetadataUploads::default(),
            ut_pex: None,
            pex: PexState::default(),
            early: Early::default(),
            download: Rate::over(Duration::from_secs(2)),
            download_steady: Rate::over(Duration::from_secs(20)),
            upload_steady: Rate::over(Duration::from_secs(20)),
            choke_changed: now,
            rejected: BTreeSet::new(),
            rejected_at: None,
            rejects: 0,
            unasked_blocks: 0,
            counted: true,
            picked_dry: false,
            look_again: None,
            sent_before_turn: 0,
            choked_requests: 0,
            greeted_in_doubt: false,
            wanted_at: now,
            idle_messages: 0,
            idle_since: now,
            last_received: now,
            last_sent: now,
            outbox: Vec::new(),
            held_haves: Vec::new(),
        }
    }

    pub(crate) fn enter(&mut self, now: Instant, stage: Stage) {
        self.stage = stage;
        self.since = now;
        self.last_received = now;
    }

    pub(crate) fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// Whether it was of use, or stayed for a while: worth another dial soon.
    pub(crate) fn has_worked(&self, now: Instant) -> bool {
        let moved = self.download_steady.total() + self.upload_steady.total() > 0;
        self.is_up() && (moved || now.since(self.since) >= WORKED)
    }

    /// Whether both sides speak the fast extension (BEP 6).
    pub(crate) fn fast(&self) -> bool {
        self.reserved.fast()
    }

    /// It says by which numbers it knows extensions; of those that it does not name nothing changes.
    pub(crate) fn on_extensions(&mut self, numbers: &[(String, u8)]) {
        for (name, id) in numbers {
            let known = match name.as_str() {
                "ut_metadata" => &mut self.ut_metadata,
                "ut_pex" => &mut self.ut_pex,
                _ => continue,
            };
            *known = Some(*id).filter(|id| *id != 0);
        }
    }

    /// Whether it has every piece.
    pub(crate) fn is_seed(&self) -> bool {
        self.has_said && self.has.is_full()
    }

    /// Whether it will never ask for anything, as far as it says (BEP 21).
    pub(crate) fn fetches_nothing(&self) -> bool {
        self.is_seed() || (self.upload_only && !self.peer_interested)
    }

    /// Whether it will serve a request for `piece` now.
    pub(crate) fn serves(&self, piece: PieceIndex) -> bool {
        self.has.has(piece)
            && (!self.peer_choking || self.allowed_fast.contains(&piece))
            && !self.rejected.contains(&piece)
    }

    /// Whether it will serve any request now.
    pub(crate) fn serves_any(&self) -> bool {
        self.is_up() && (!self.peer_choking || !self.allowed_fast.is_empty())
    }

    /// Its requests that count, each with how long it will take; [`Duration::MAX`] when nothing seems to come.
    pub(crate) fn expected(&self, now: Instant) -> impl Iterator<Item = (Outstanding, Duration)> {
        let per_second = self.flows(now);
        self.requests.expected(now, per_second)
    }

    /// How long one more block would take behind `queued` others, as far as is known.
    pub(crate) fn would_take(&self, now: Instant, queued: u32) -> Duration {
        self.requests.would_take(self.flows(now), queued)
    }

    /// Payload per second from it: now, or before it paused.
    fn flows(&self, now: Instant) -> u64 {
        let now_per_second = self.download.per_second(now);
        if now_per_second > 0 { now_per_second } else { self.download_steady.per_second(now) }
    }

    /// Says whether we want something of it, if that changed; true as in [`Self::send`].
    pub(crate) fn show_interest(&mut self) -> bool {
        let interested = self.wanted_count > 0;
        if interested == self.am_interested {
            return false;
        }
        self.am_interested = interested;
        self.send(if interested { Message::Interested } else { Message::NotInterested })
    }

    /// Queues a message; true when it is the first one since the last `take_outbox`.
    pub(crate) fn send(&mut self, message: Message) -> bool {
        self.outbox.push(message);
        self.outbox.len() == 1
    }

    pub(crate) fn take_outbox(&mut self, now: Instant) -> Vec<Message> {
        self.last_sent = now;
        self.release_haves();
        std::mem::take(&mut self.outbox)
    }

    /// It hears of a piece that it has: with the next message, or by [`Self::release_haves`].
    pub(crate) fn hold_have(&mut self, piece: PieceIndex) {
        self.held_haves.push(piece.get());
    }

    /// A piece is gone before it heard of it.
    pub(crate) fn unhold_have(&mut self, piece: PieceIndex) {
        self.held_haves.retain(|held| *held != piece.get());
    }

    /// Queues what was held; true when that is the first since the last `take_outbox`.
    pub(crate) fn release_haves(&mut self) -> bool {
        let first = self.outbox.is_empty() && !self.held_haves.is_empty();
        self.outbox.extend(self.held_haves.drain(..).map(Message::Have));
        first
    }

    /// When it last said anything.
    pub(crate) fn heard_at(&self) -> Instant {
        self.last_received
    }

    pub(crate) fn on_received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// A message came that changes nothing. False when there are too many of them.
    pub(crate) fn on_idle_message(&mut self, now: Instant) -> bool {
        if now.since(self.idle_since) >= IDLE_MESSAGES_TIME {
            (self.idle_since, self.idle_messages) = (now, 0);
        }
        self.idle_messages += 1;
        self.idle_messages <= IDLE_MESSAGES_MAX
    }

    /// A block came that was not waited for. False when there are too many that were never asked for.
    pub(crate) fn on_idle_block(&mut self) -> bool {
        self.unasked_blocks += u32::from(!self.requests.on_late_block());
        self.unasked_blocks <= UNASKED_BLOCKS_MAX
    }

    /// Whether either side wants something of the other, or did not long ago.
    pub(crate) fn is_wanted(&mut self, now: Instant) -> bool {
        if self.am_interested || self.peer_interested {
            self.wanted_at = now;
        }
        now.since(self.wanted_at) < INACTIVITY_TIMEOUT
    }

    /// Chokes or unchokes it; true when its outbox was empty.
    pub(crate) fn set_choking(&mut self, now: Instant, choke: bool) -> bool {
        self.am_choking = choke;
        self.choke_changed = now;
        self.sent_before_turn = self.upload_steady.total();
        self.choked_requests = 0;
        self.send(if choke { Message::Choke } else { Message::Unchoke })
    }

    /// It would have us fetch a piece.
    pub(crate) fn on_suggested(&mut self, piece: PieceIndex) {
        self.suggested.retain(|other| *other != piece);
        if self.suggested.len() == SUGGESTED_MAX {
            self.suggested.remove(0);
        }
        self.suggested.push(piece);
    }

    /// When this connection must be looked at again.
    pub(crate) fn deadline(&self) -> Instant {
        match self.stage {
            Stage::Dialling => self.since + CONNECT_TIMEOUT,
            Stage::Handshaking => self.since + HANDSHAKE_TIMEOUT,
            Stage::Up => {
                let quiet = (self.last_received + IDLE_TIMEOUT).min(self.last_sent + KEEP_ALIVE);
                let again = self.rejected_at.map(|at| at + REJECTED_AGAIN);
                [self.requests.deadline(), again, self.look_again]
                    .into_iter()
                    .flatten()
                    .fold(quiet, Instant::min)
            }
        }
    }

    /// What it rejected may be asked for again: it unchoked us anew, or some time has passed.
    pub(crate) fn forget_rejected(&mut self) {
        self.rejected.clear();
        self.rejected_at = None;
        self.picked_dry = false;
    }

    /// Whether it is time to ask again for what it rejected.
    pub(crate) fn rejected_long_ago(&self, now: Instant) -> bool {
        self.rejected_at.is_some_and(|at| at + REJECTED_AGAIN <= now)
    }

    /// Whether it is given up: no connection, no handshake, or no byte for too long.
    pub(crate) fn is_timed_out(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Dialling | Stage::Handshaking => self.deadline() <= now,
            Stage::Up => self.last_received + IDLE_TIMEOUT <= now,
        }
    }

    /// Whether a keep-alive is due (BEP 3).
    pub(crate) fn wants_keep_alive(&self, now: Instant) -> bool {
        self.is_up() && self.last_sent + KEEP_ALIVE <= now
    }
}

/// Our numbers for extensions.
pub(crate) const UT_METADATA: u8 = 1;
pub(crate) const UT_PEX: u8 = 2;

/// A peer that rejects while it serves us may have been full, or its disk was.
const REJECTED_AGAIN: Duration = Duration::from_secs(30);

/// Suggestions of a peer that are kept.
const SUGGESTED_MAX: usize = 16;

/// Messages that change nothing are counted over this time.
const IDLE_MESSAGES_TIME: Duration = Duration::from_secs(60);

/// A connection that lasted this long was no mistake.
const WORKED: Duration = Duration::from_secs(60);
