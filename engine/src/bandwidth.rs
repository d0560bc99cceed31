//! Grants: how many bytes a connection may read and write, so that limits are kept and memory stays bounded.
//!
//! Without a limit a connection has a window for reading, granted again at once while memory allows and later when it
//! does not (the owner never stops taking input, readers wait), and one standing grant for writing.
//!
//! With a limit it holds at most one *quantum*, paid for from the buckets of its torrent and of all together when it
//! is granted. Who has spent half of it queues for the next: first come, first served, so nobody starves. Over any
//! time `t` no more passes than `limit * t` and one *burst*: a quarter of a second of the limit, a quantum for each
//! connection, and one that a bucket owes, as a quantum is given whole while there is anything to pay it with. What a
//! connection held when it closes goes back to the buckets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::config::RateLimits;
use crate::ids::{ConnectionId, TorrentId};
use crate::limits::{READ_WINDOW_BYTES, READ_WINDOW_BYTES_MIN, READ_WINDOWS_BYTES};
use crate::output::Output;
use crate::time::Instant;

/// The memory budget, the limits, and the grants that keep them.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    budget_bytes: u64,
    buffered_bytes: u64,
    connections: BTreeMap<ConnectionId, Held>,
    read: Lane,
    write: Lane,
}

/// What one connection may do.
#[derive(Debug)]
struct Held {
    /// None while it has not named one.
    torrent: Option<TorrentId>,
    read: Grant,
    write: Grant,
}

#[derive(Debug, Default)]
struct Grant {
    /// Granted and not spent. Below zero when it spent what was then taken back.
    bytes: i64,
    /// Whether it is in a queue.
    waiting: bool,
}

/// One direction.
#[derive(Debug)]
struct Lane {
    way: Way,
    all: Option<Bucket>,
    torrents: BTreeMap<TorrentId, Bucket>,
    /// Who wants the next grant, in order.
    queue: VecDeque<ConnectionId>,
    /// Those whose turn came while their torrent's bucket was empty.
    parked: BTreeMap<TorrentId, VecDeque<ConnectionId>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

impl Bandwidth {
    pub(crate) fn new(budget_bytes: u64, limits: RateLimits) -> Self {
        Self {
            budget_bytes,
            buffered_bytes: 0,
            connections: BTreeMap::new(),
            read: Lane::new(Way::Read, limits.download),
            write: Lane::new(Way::Write, limits.upload),
        }
    }

    /// A connection begins.
    pub(crate) fn open(&mut self, connection: ConnectionId, torrent: Option<TorrentId>) {
        let held = Held { torrent, read: Grant::default(), write: Grant::default() };
        self.connections.insert(connection, held);
        self.read.enqueue(connection, &mut self.connections);
        self.write.enqueue(connection, &mut self.connections);
    }

    /// A connection named its torrent, whose limits hold from here on.
    pub(crate) fn assign(
        &mut self,
        connection: ConnectionId,
        torrent: TorrentId,
        outputs: &mut VecDeque<Output>,
    ) {
        let lanes = [&mut self.read, &mut self.write];
        let mut limited: Vec<_> =
            lanes.into_iter().filter(|lane| lane.torrents.contains_key(&torrent)).collect();
        limited.iter_mut().for_each(|lane| lane.release(connection, &self.connections));
        if let Some(held) = self.connections.get_mut(&connection) {
            held.torrent = Some(torrent);
        }
        for lane in limited {
            lane.adjust(connection, &mut self.connections, outputs);
        }
    }

    /// A connection is gone; what it held unspent goes back.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        self.read.release(connection, &self.connections);
        self.write.release(connection, &self.connections);
        self.connections.remove(&connection);
    }

    /// New limits, of a torrent or of all together.
    pub(crate) fn limit(
        &mut self,
        now: Instant,
        torrent: Option<TorrentId>,
        limits: RateLimits,
        outputs: &mut VecDeque<Output>,
    ) {
        for (lane, per_second) in [(&mut self.read, limits.download), (&mut self.write, limits.upload)] {
            if !lane.limit(now, torrent, per_second) {
                continue;
            }
            let is_touched = |held: &Held| torrent.is_none() || held.torrent == torrent;
            let touched = self.connections.iter().filter(|(_, held)| is_touched(held));
            let touched: Vec<_> = touched.map(|(connection, _)| *connection).collect();
            for connection in touched {
                lane.adjust(connection, &mut self.connections, outputs);
            }
        }
    }

    /// A torrent is gone, and with it its limits.
    pub(crate) fn remove(&mut self, torrent: TorrentId) {
        for lane in [&mut self.read, &mut self.write] {
            lane.torrents.remove(&torrent);
            lane.parked.remove(&torrent);
        }
    }

    /// A connection read this much of its grant.
    pub(crate) fn on_read(&mut self, connection: ConnectionId, bytes: u64) {
        self.read.on_spent(connection, bytes, &mut self.connections);
    }

    /// A connection wrote this much of its grant.
    pub(crate) fn on_written(&mut self, connection: ConnectionId, bytes: u64) {
        self.write.on_spent(connection, bytes, &mut self.connections);
    }

    /// Received payload that is not yet on disk changed by this much.
    pub(crate) fn on_buffered(&mut self, before: u64, after: u64) {
        self.buffered_bytes = self.buffered_bytes + after - before;
    }

    /// Received payload that is not yet on disk.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        self.buffered_bytes
    }

    /// How far the budget is exceeded.
    pub(crate) fn excess(&self) -> u64 {
        self.buffered_bytes.saturating_sub(self.budget_bytes)
    }

    /// The lowest limit on reading that holds for a torrent.
    pub(crate) fn download_limit(&self, torrent: TorrentId) -> Option<u64> {
        self.read.per_second(Some(torrent))
    }

    /// The lowest limit on writing that holds for a torrent.
    pub(crate) fn upload_limit(&self, torrent: TorrentId) -> Option<u64> {
        self.write.per_second(Some(torrent))
    }

    /// Whether it is we who keep this connection from reading now: its silence is not its fault.
    pub(crate) fn withholds_reading(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_some_and(|held| held.read.waiting)
    }

    /// Grants what memory and limits allow.
    pub(crate) fn settle(&mut self, now: Instant, outputs: &mut VecDeque<Output>) {
        if self.excess() == 0 {
            self.read.settle(now, &mut self.connections, outputs);
        }
        self.write.settle(now, &mut self.connections, outputs);
    }

    /// When the next grant is paid for; none when nobody waits for one.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let read = if self.excess() == 0 { self.read.deadline() } else { None };
        [read, self.write.deadline()].into_iter().flatten().min()
    }
}

impl Lane {
    fn new(way: Way, per_second: Option<u64>) -> Self {
        Self {
            way,
            all: per_second.map(|rate| Bucket::new(Instant::START, rate)),
            torrents: BTreeMap::new(),
            queue: VecDeque::new(),
            parked: BTreeMap::new(),
        }
    }

    fn held<'a>(&self, held: &'a mut Held) -> &'a mut Grant {
        match self.way {
            Way::Read => &mut held.read,
            Way::Write => &mut held.write,
        }
    }

    /// The lowest limit that holds for connections of a torrent.
    fn per_second(&self, torrent: Option<TorrentId>) -> Option<u64> {
        let torrent = torrent.and_then(|torrent| self.torrents.get(&torrent));
        [self.all.as_ref(), torrent].into_iter().flatten().map(|bucket| bucket.per_second).min()
    }

    /// What a connection of a torrent may hold beside others, so many in all.
    fn target(&self, torrent: Option<TorrentId>, connections: usize) -> i64 {
        match (self.per_second(torrent), self.way) {
            (Some(per_second), _) => quantum(per_second),
            (None, Way::Read) => read_window(connections),
            (None, Way::Write) => STANDING,
        }
    }

    /// True if anything changed.
    fn limit(&mut self, now: Instant, torrent: Option<TorrentId>, per_second: Option<u64>) -> bool {
        let before = match torrent {
            None => self.all.take(),
            Some(torrent) => self.torrents.remove(&torrent),
        };
        let same = before.as_ref().map(|bucket| bucket.per_second) == per_second.map(|rate| rate.max(1));
        let after = match (before, per_second) {
            (Some(mut bucket), Some(rate)) => {
                bucket.change(now, rate);
                Some(bucket)
            }
            (None, Some(rate)) => Some(Bucket::new(now, rate)),
            (_, None) => None,
        };
        match torrent {
            None => self.all = after,
            Some(torrent) => {
                if let Some(bucket) = after {
                    self.torrents.insert(torrent, bucket);
                }
            }
        }
        !same
    }

    fn enqueue(&mut self, connection: ConnectionId, connections: &mut BTreeMap<ConnectionId, Held>) {
        let Some(held) = connections.get_mut(&connection) else { return };
        let grant = self.held(held);
        if !grant.waiting {
            grant.waiting = true;
            self.queue.push_back(connection);
        }
    }

    fn on_spent(
        &mut self,
        connection: ConnectionId,
        bytes: u64,
        connections: &mut BTreeMap<ConnectionId, Held>,
    ) {
        let count = connections.len();
        let Some(held) = connections.get_mut(&connection) else { return };
        let target = self.target(held.torrent, count);
        let is_window = self.way == Way::Read && self.per_second(held.torrent).is_none();
        let grant = self.held(held);
        grant.bytes = grant.bytes.saturating_sub_unsigned(bytes);
        // A standing grant outlives every connection; what is read without a limit is granted again at once.
        if grant.bytes <= target / 2 || is_window {
            self.enqueue(connection, connections);
        }
    }

    /// What a connection holds was granted under other limits: it is taken back, and it queues for the next.
    fn adjust(
        &mut self,
        connection: ConnectionId,
        connections: &mut BTreeMap<ConnectionId, Held>,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(held) = connections.get_mut(&connection) else { return };
        let limited = self.per_second(held.torrent).is_some();
        let grant = self.held(held);
        if limited && grant.bytes > 0 {
            let bytes = std::mem::take(&mut grant.bytes) as u64;
            let (read_bytes, write_bytes) = self.way.split(bytes);
            outputs.push_back(Output::Revoke { connection, read_bytes, write_bytes });
        }
        self.enqueue(connection, connections);
    }

    /// Gives back what a connection paid for and did not spend.
    fn release(&mut self, connection: ConnectionId, connections: &BTreeMap<ConnectionId, Held>) {
        let Some(held) = connections.get(&connection) else { return };
        let bytes = match self.way {
            Way::Read => held.read.bytes,
            Way::Write => held.write.bytes,
        };
        if self.per_second(held.torrent).is_some() && bytes > 0 {
            let torrent = held.torrent.and_then(|torrent| self.torrents.get_mut(&torrent));
            for bucket in [self.all.as_mut(), torrent].into_iter().flatten() {
                bucket.pay_back(bytes);
            }
        }
    }

    fn settle(
        &mut self,
        now: Instant,
        connections: &mut BTreeMap<ConnectionId, Held>,
        outputs: &mut VecDeque<Output>,
    ) {
        if self.queue.is_empty() && self.parked.is_empty() {
            return;
        }
        if let Some(all) = &mut self.all {
            all.fill(now);
        }
        let torrents = &mut self.torrents;
        self.parked.retain(|torrent, parked| {
            let full = torrents.get_mut(torrent).is_none_or(|bucket| {
                bucket.fill(now);
                bucket.has_some()
            });
            if full {
                self.queue.append(parked);
            }
            !full
        });
        while self.all.as_ref().is_none_or(Bucket::has_some)
            && let Some(connection) = self.queue.pop_front()
        {
            let count = connections.len();
            let Some(held) = connections.get_mut(&connection) else { continue };
            let torrent = held.torrent;
            let target = self.target(torrent, count);
            if let Some(torrent) = torrent
                && let Some(bucket) = self.torrents.get_mut(&torrent)
            {
                bucket.fill(now);
                if !bucket.has_some() {
                    self.parked.entry(torrent).or_default().push_back(connection);
                    continue;
                }
            }
            let grant = self.held(held);
            grant.waiting = false;
            let bytes = target.saturating_sub(grant.bytes);
            if bytes <= 0 {
                continue;
            }
            grant.bytes = target;
            let torrent = torrent.and_then(|torrent| self.torrents.get_mut(&torrent));
            for bucket in [self.all.as_mut(), torrent].into_iter().flatten() {
                bucket.pay(bytes);
            }
            let (read_bytes, write_bytes) = self.way.split(bytes as u64);
            outputs.push_back(Output::Grant { connection, read_bytes, write_bytes });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let all = self.all.as_ref().filter(|_| !self.queue.is_empty()).map(Bucket::next_at);
        let parked = self.parked.keys().filter_map(|torrent| self.torrents.get(torrent));
        all.into_iter().chain(parked.map(Bucket::next_at)).min()
    }
}

impl Way {
    /// As bytes to read and bytes to write.
    fn split(self, bytes: u64) -> (u64, u64) {
        match self {
            Self::Read => (bytes, 0),
            Self::Write => (0, bytes),
        }
    }
}

/// A token bucket: it fills steadily up to a quarter of a second of its rate, and a payment may leave it in debt.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    /// In billionths of a byte, so that nothing is lost by rounding.
    level: i128,
    filled: Instant,
}

impl Bucket {
    fn new(now: Instant, per_second: u64) -> Self {
        let mut bucket = Self { per_second: per_second.max(1), level: 0, filled: now };
        bucket.level = bucket.depth();
        bucket
    }

    fn depth(&self) -> i128 {
        (i128::from(self.per_second) / 4).max(i128::from(quantum(self.per_second))) * NANO
    }

    fn change(&mut self, now: Instant, per_second: u64) {
        self.fill(now);
        self.per_second = per_second.max(1);
        // A debt made at a high rate would last for ever at a low one.
        self.level = self.level.clamp(-self.depth(), self.depth());
    }

    fn fill(&mut self, now: Instant) {
        let gained = i128::from(now.since(self.filled).as_nanos() as u64) * i128::from(self.per_second);
        self.level = self.level.saturating_add(gained).min(self.depth());
        self.filled = self.filled.max(now);
    }

    fn has_some(&self) -> bool {
        self.level > 0
    }

    fn pay(&mut self, bytes: i64) {
        self.level -= i128::from(bytes) * NANO;
    }

    fn pay_back(&mut self, bytes: i64) {
        self.level = (self.level + i128::from(bytes) * NANO).min(self.depth());
    }

    /// When there is something in it again.
    fn next_at(&self) -> Instant {
        let wait = (1 - self.level).max(0).div_euclid(i128::from(self.per_second)) + 1;
        Instant(self.filled.0.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)))
    }
}

/// What each of so many connections without a limit holds.
fn read_window(connections: usize) -> i64 {
    (READ_WINDOWS_BYTES / connections.max(1) as u64).clamp(READ_WINDOW_BYTES_MIN, READ_WINDOW_BYTES) as i64
}

/// What a connection holds at most under a limit: a 64th of a second, within bounds that a write is worth and that the
/// driver keeps up with.
fn quantum(per_second: u64) -> i64 {
    (per_second / 64).clamp(QUANTUM_MIN, QUANTUM_MAX) as i64
}

/// How many new connections may be dialled: so many in any second, not one more (`reliability.md` B7). Torrents take turns, or
/// one with many dead addresses would leave nothing to others.
#[derive(Debug)]
pub(crate) struct Dials {
    per_second: usize,
    /// When those of the last second went out.
    recent: VecDeque<Instant>,
    /// Who was refused one, by since when.
    queue: BTreeSet<(Instant, TorrentId)>,
    /// Of each of them, since when, and when it was refused last.
    refused: BTreeMap<TorrentId, (Instant, Instant)>,
}

impl Dials {
    pub(crate) fn new(per_second: u32) -> Self {
        let (queue, refused) = (BTreeSet::new(), BTreeMap::new());
        Self { per_second: per_second.max(1) as usize, recent: VecDeque::new(), queue, refused }
    }

    /// Takes one for a torrent; else says when to ask again.
    pub(crate) fn take(&mut self, now: Instant, torrent: TorrentId) -> Result<(), Instant> {
        while self.recent.front().is_some_and(|first| *first + SECOND <= now) {
            self.recent.pop_front();
        }
        // Who has not asked again in its time wants none any more.
        while let Some((_, first)) = self.queue.first().copied()
            && self.refused.get(&first).is_some_and(|(_, last)| *last + 2 * SECOND < now)
        {
            self.leave(first);
        }
        let room = self.per_second.saturating_sub(self.recent.len());
        let since = self.refused.get(&torrent).map_or(now, |(since, _)| *since);
        let ahead = self.queue.iter().take(room).take_while(|other| **other < (since, torrent)).count();
        if ahead < room {
            self.leave(torrent);
            self.recent.push_back(now);
            return Ok(());
        }
        self.queue.insert((since, torrent));
        self.refused.insert(torrent, (since, now));
        Err(self.recent.front().map_or(now + SECOND, |first| *first + SECOND))
    }

    fn leave(&mut self, torrent: TorrentId) {
        if let Some((since, _)) = self.refused.remove(&torrent) {
            self.queue.remove(&(since, torrent));
        }
    }
}

const STANDING: i64 = i64::MAX;
const QUANTUM_MIN: u64 = 256;
const QUANTUM_MAX: u64 = 256 << 10;
const NANO: i128 = 1_000_000_000;
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "bandwidth_tests.rs"]
mod tests;
