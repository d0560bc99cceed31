//! What is known of one host and of the process on it.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};

use taipei_engine::disk::Totals;
use taipei_engine::wire::Request;
use taipei_engine::{ConnectionId, HttpId, JobId};

use super::announce::{Announce, AnnounceWatch, TierWatch};
use super::connections::Connections;
use super::damage::DamageWatch;
use super::ledger::Counted;
use super::liars::LiarWatch;
use super::limits::Rates;
use super::loss::LossWatch;
use crate::scenario::FaultKind;

/// One host, over all its processes.
/// What every step touches comes first, in few lines of the cache.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct HostWatch {
    /// When its engine is looked at next.
    pub(super) look_at: u64,
    /// When a block came last.
    pub(super) fed_at: u64,
    pub(super) received_bytes: u64,
    pub(super) process: Option<ProcessWatch>,
    pub(super) incarnation: u64,
    /// By torrent: pieces that are in the journal, in a snapshot that was synced.
    pub(super) recorded: BTreeMap<usize, BTreeSet<u32>>,
    pub(super) saved: BTreeMap<usize, BTreeSet<u32>>,
    pub(super) last_end: Option<FaultKind>,
    pub(super) have: BTreeMap<usize, BTreeSet<u32>>,
    pub(super) completed_at: BTreeMap<usize, u64>,
    pub(super) banned: BTreeSet<String>,
    pub(super) announces: BTreeMap<String, BTreeMap<&'static str, u32>>,
    /// Whether some tracker took an announce, or may have.
    pub(super) was_heard: bool,
    /// By tracker: when it last took an announce.
    pub(super) announced_at: BTreeMap<String, u64>,
    pub(super) claimed_but_bad: u32,
    pub(super) liars: LiarWatch,
    /// By torrent: what the last snapshot that was saved counts.
    pub(super) totals: BTreeMap<usize, Totals>,
    /// Since when some peer offers what it lacks.
    pub(super) offered_since: Option<u64>,
    /// Nothing happens on it before.
    pub(super) asleep_until: u64,
    pub(super) damage: DamageWatch,
    pub(super) loss: LossWatch,
}

/// One process, from its start to its end.
/// What every step touches comes first, in few lines of the cache.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct ProcessWatch {
    /// Whether it gives up, with this step, all that was under way on the network: no answer to it is heard.
    pub(super) begins_anew: bool,
    /// Whether this step is on account of the time.
    pub(super) is_timeout: bool,
    /// A connection came, or was named, since limits were last looked at.
    pub(super) is_changed: bool,
    /// A peer was unchoked since then.
    pub(super) serves_more: bool,
    pub(super) stopped: bool,
    /// Connections that it closed in this step: what one brought may be what ended it.
    pub(super) closed: u64,
    /// The most connections at once since there was last no more in memory than the budget.
    pub(super) windows: u64,
    /// What came with the input of this step: from whom, and payload of which torrent.
    pub(super) batch: Option<(ConnectionId, usize, u64)>,
    /// Blocks that came with it.
    pub(super) batch_blocks: Vec<Request>,
    /// Whose connection id came with the last input.
    pub(super) greeted_by: Option<SocketAddr>,
    pub(super) connections: Connections,
    /// By job: of which torrent, what, and at which step it was asked for.
    pub(super) jobs: BTreeMap<JobId, (usize, Pending, u64)>,
    pub(super) http: BTreeMap<HttpId, (usize, String, Announce)>,
    /// Where dials that are under way lead to.
    pub(super) dials: BTreeMap<ConnectionId, IpAddr>,
    /// By torrent.
    pub(super) counted: BTreeMap<usize, Counted>,
    /// Whom it banned: all at a public address, with port 0; on a local network one port.
    pub(super) banned: BTreeSet<SocketAddr>,
    /// Torrents that were told that the disk is full, and at which step, until there is room or a later write fits.
    pub(super) full: BTreeMap<usize, u64>,
    pub(super) tiers: BTreeMap<usize, TierWatch>,
    /// Pieces that failed, with who sent blocks of them since.
    pub(super) failed: BTreeMap<(usize, u32), BTreeSet<ConnectionId>>,
    /// Where announces were redirected to, and whose they are.
    pub(super) redirects: Vec<((usize, String, Announce), String)>,
    /// By tracker and transaction.
    pub(super) udp: BTreeMap<(SocketAddr, u32), AskedByUdp>,
    /// Trackers that are asked for a connection id.
    pub(super) greeted: BTreeMap<SocketAddr, Greeted>,
    pub(super) announces: BTreeMap<(usize, String), AnnounceWatch>,
    /// Hosts that it has been connected to.
    pub(super) met: BTreeSet<usize>,
    pub(super) rates: Rates,
    /// Torrents that it said are complete, since a piece was last fetched.
    pub(super) told_complete: BTreeSet<usize>,
    /// By torrent: at which step a look at its files that is over was asked for.
    pub(super) looked_at: BTreeMap<usize, u64>,
    /// Torrents that wait for a full disk.
    pub(super) waits_for_disk: BTreeSet<usize>,
    /// Torrents that said that the disk is full and have not gone on.
    pub(super) full_told: BTreeSet<usize>,
    /// The tier of the tracker that was asked last, by torrent.
    pub(super) tier: BTreeMap<usize, usize>,
    /// When it was asked to stop.
    pub(super) stop_asked_at: Option<u64>,
    /// Since when it has everything, by its own pieces.
    pub(super) whole_since: Option<u64>,
    /// Torrents of which a piece was fetched.
    pub(super) fetched: BTreeSet<usize>,
    /// Torrents that were whole before any piece of them was fetched.
    pub(super) whole_from_start: BTreeSet<usize>,
}

/// A tracker over UDP that is asked for a connection id, for all that wait for one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeted {
    /// Only its answer ends the wait: one to what was given up before is none. While it stays the same somebody has waited
    /// all along, though not always the same question.
    pub(super) transaction: u32,
    /// When it was asked first.
    pub(super) since: u64,
}

/// An announce over UDP that waits for its answer.
#[derive(Debug)]
pub(super) struct AskedByUdp {
    /// When its first copy left.
    pub(super) at: u64,
    /// When the question began, at the earliest: its tracker is asked for a connection id first.
    pub(super) since: u64,
    pub(super) torrent: usize,
    pub(super) tracker: String,
    pub(super) announce: Announce,
    /// It was refused since its last copy left. Unless who asked goes on with another connection id, what comes then is no
    /// answer any more.
    pub(super) is_refused: bool,
}

/// What a job is for.
#[derive(Debug)]
pub(super) enum Pending {
    Open,
    Check(Vec<u32>),
    Look,
    Record(Vec<u32>),
    /// With how many syncs the disk had not done when it was asked for.
    Snapshot(BTreeSet<u32>, Totals, u64),
    Other,
}

impl HostWatch {
    /// Notes when it is whole before anything was fetched.
    pub(super) fn note_if_whole(&mut self, torrent: usize, piece_count: u32) {
        let whole = self.have.get(&torrent).is_some_and(|have| have.len() as u32 == piece_count);
        if let Some(process) =
            self.process.as_mut().filter(|process| whole && !process.fetched.contains(&torrent))
        {
            process.whole_from_start.insert(torrent);
        }
    }
}
