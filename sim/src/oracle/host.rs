//! What is known of one host and of the process on it.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};

use taipei_engine::{ConnectionId, HttpId, JobId};

use super::announce::{Announce, AnnounceWatch, TierWatch};
use super::liars::LiarWatch;
use super::wire::ConnectionWatch;
use crate::scenario::FaultKind;

/// One host, over all its processes.
#[derive(Debug, Default)]
pub(super) struct HostWatch {
    pub(super) process: Option<ProcessWatch>,
    pub(super) incarnation: u64,
    /// By torrent: pieces that are in the journal, in a snapshot that was synced.
    pub(super) recorded: BTreeMap<usize, BTreeSet<u32>>,
    pub(super) saved: BTreeMap<usize, BTreeSet<u32>>,
    pub(super) last_end: Option<FaultKind>,
    pub(super) have: BTreeMap<usize, BTreeSet<u32>>,
    pub(super) completed_at: BTreeMap<usize, u64>,
    pub(super) received_bytes: u64,
    pub(super) banned: BTreeSet<String>,
    pub(super) announces: BTreeMap<String, BTreeMap<&'static str, u32>>,
    /// By tracker: when it last took an announce.
    pub(super) announced_at: BTreeMap<String, u64>,
    pub(super) claimed_but_bad: u32,
    pub(super) liars: LiarWatch,
}

/// One process, from its start to its end.
#[derive(Debug, Default)]
pub(super) struct ProcessWatch {
    /// By job: of which torrent, what, and at which step it was asked for.
    pub(super) jobs: BTreeMap<JobId, (usize, Pending, u64)>,
    pub(super) connections: BTreeMap<ConnectionId, ConnectionWatch>,
    pub(super) http: BTreeMap<HttpId, (usize, String, Announce)>,
    /// By tracker and transaction, with the time of the first copy.
    pub(super) udp: BTreeMap<(SocketAddr, u32), (u64, usize, String, Announce)>,
    pub(super) announces: BTreeMap<(usize, String), AnnounceWatch>,
    pub(super) tiers: BTreeMap<usize, TierWatch>,
    /// Where connections lead to.
    pub(super) remotes: BTreeMap<ConnectionId, IpAddr>,
    pub(super) banned: BTreeSet<IpAddr>,
    /// Torrents that were told that the disk is full, and at which step, until there is room or a later write fits.
    pub(super) full: BTreeMap<usize, u64>,
    /// Torrents of which a piece was fetched.
    pub(super) fetched: BTreeSet<usize>,
    /// Torrents that were whole before any piece of them was fetched.
    pub(super) whole_from_start: BTreeSet<usize>,
    pub(super) stopped: bool,
}

/// What a job is for.
#[derive(Debug)]
pub(super) enum Pending {
    Open,
    Check(Vec<u32>),
    Record(Vec<u32>),
    Snapshot(BTreeSet<u32>),
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
