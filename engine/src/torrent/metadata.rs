//! Fetching the info dictionary from peers (BEP 9): whom to ask for which block, and who lied.
//!
//! Each peer says how large it is, and is believed for itself alone: blocks of those who say the same are put together
//! in one *set*, and a liar's size holds up nobody else. A block that nobody was asked for comes first; a peer with
//! nothing else to do is asked for what others were asked for as well, so that one who dies or drags costs little.
//!
//! A set that is whole is hashed. When it is wrong it is dropped. Who sent it alone has lied. Of several, the digest and
//! the sender of each block are remembered and the size is *contested*: from then on each peer of that size fills a set of
//! its own, so that the next failure has one culprit. When the right one is there, those whose block differed have lied,
//! and nobody else.
//!
//! Memory grows with what was received, never with what was said, and is bounded over all sets: the largest goes first.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use sha1::{Digest as _, Sha1};

use super::smart_ban::Source;
use crate::ids::{ConnectionId, InfoHash};
use crate::limits::{BLOCK_BYTES, METADATA_BUFFERED_MAX, METADATA_BYTES_MAX, METADATA_EVIDENCE_MAX};
use crate::time::Instant;

/// What is known of the metadata of one torrent, and whom it is asked of.
#[derive(Debug)]
pub(crate) struct MetadataFetch {
    info_hash: InfoHash,
    tellers: BTreeMap<ConnectionId, Teller>,
    sets: BTreeMap<SetId, Set>,
    buffered_bytes: u64,
    /// Sizes of which a set of several senders was wrong.
    contested: BTreeSet<u32>,
    /// What those had sent.
    evidence: Vec<Evidence>,
}

/// A peer that says it has the metadata.
#[derive(Debug)]
struct Teller {
    address: SocketAddr,
    /// Bytes of the info dictionary, as it says.
    size: u32,
    asked: BTreeMap<u32, Instant>,
    /// Answers that did not come or were refusals, since the last good one.
    failures: u32,
    /// It is asked nothing before.
    not_before: Instant,
}

/// Blocks that are put together: of all who say this size, or of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SetId {
    size: u32,
    alone: Option<ConnectionId>,
}

#[derive(Debug, Default)]
struct Set {
    blocks: BTreeMap<u32, (Bytes, SocketAddr)>,
    bytes: u64,
}

#[derive(Debug)]
struct Evidence {
    size: u32,
    block: u32,
    address: SocketAddr,
    digest: [u8; 20],
}

/// What came of a block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Filed, or of no use any more.
    Filed,
    /// It was not asked for.
    Unasked,
    /// No client that means well sends that.
    Nonsense,
    /// All is there, and right; these had lied.
    Whole(Bytes, Vec<SocketAddr>),
    /// All was there, and wrong. Who sent it alone has lied.
    Wrong(Option<SocketAddr>),
}

/// How far it is, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MetadataProgress {
    /// Of the fullest set.
    pub(crate) bytes_have: u32,
    /// Of the same; 0 when nobody says how much there is.
    pub(crate) bytes_total: u32,
    /// Peers that say they have it.
    pub(crate) tellers: u32,
}

impl MetadataFetch {
    pub(crate) fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            tellers: BTreeMap::new(),
            sets: BTreeMap::new(),
            buffered_bytes: 0,
            contested: BTreeSet::new(),
            evidence: Vec::new(),
        }
    }

    /// A peer that can be asked says how large the metadata is, perhaps anew. A size that cannot be is as if it had none.
    pub(crate) fn on_size(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        address: SocketAddr,
        size: Option<i64>,
    ) {
        let size = size
            .and_then(|size| u32::try_from(size).ok())
            .filter(|size| (1..=METADATA_BYTES_MAX).contains(size));
        let known = self.tellers.get(&connection).map(|teller| teller.size);
        if size == known {
            return;
        }
        self.on_gone(connection);
        if let Some(size) = size {
            let (asked, failures) = (BTreeMap::new(), 0);
            self.tellers.insert(connection, Teller { address, size, asked, failures, not_before: now });
        }
    }

    /// A peer is gone, or cannot be asked any more. What it sent stays, but for a set of its own.
    pub(crate) fn on_gone(&mut self, connection: ConnectionId) {
        if let Some(teller) = self.tellers.remove(&connection) {
            self.drop_set(SetId { size: teller.size, alone: Some(connection) });
        }
    }

    /// A block came.
    pub(crate) fn on_data(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        block: u32,
        total_bytes: Option<i64>,
        data: &[u8],
    ) -> Told {
        let Some(teller) = self.tellers.get_mut(&connection) else { return Told::Unasked };
        if teller.asked.remove(&block).is_none() {
            return Told::Unasked;
        }
        let (size, address) = (teller.size, teller.address);
        if data.len() != block_bytes(size, block) as usize
            || total_bytes.is_some_and(|total| total != i64::from(size))
        {
            return Told::Nonsense;
        }
        teller.failures = 0;
        teller.not_before = now;
        let id = self.set_of(connection, size);
        let set = self.sets.entry(id).or_default();
        if set.blocks.contains_key(&block) {
            return Told::Filed;
        }
        // Of its own: what came with it in one read is let go.
        set.blocks.insert(block, (Bytes::copy_from_slice(data), address));
        set.bytes += data.len() as u64;
        self.buffered_bytes += data.len() as u64;
        if set.bytes == u64::from(size) {
            return self.judge(id);
        }
        while self.buffered_bytes > METADATA_BUFFERED_MAX {
            self.drop_largest(now);
        }
        Told::Filed
    }

    /// A peer does not give a block.
    pub(crate) fn on_reject(&mut self, now: Instant, connection: ConnectionId, block: u32) {
        if let Some(teller) = self.tellers.get_mut(&connection)
            && teller.asked.remove(&block).is_some()
        {
            teller.fail(now, REJECTED_WAIT);
        }
    }

    /// Answers that are overdue are not waited for.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for teller in self.tellers.values_mut() {
            let before = teller.asked.len();
            teller.asked.retain(|_, at| *at + ANSWER_TIMEOUT > now);
            if teller.asked.len() < before {
                teller.fail(now, OVERDUE_WAIT);
            }
        }
    }

    /// The next block to ask for, and of whom.
    pub(crate) fn poll_request(&mut self, now: Instant) -> Option<(ConnectionId, u32)> {
        let mut ready: Vec<_> = self
            .tellers
            .iter()
            .filter(|(_, teller)| teller.not_before <= now && teller.asked.len() < ASKED_MAX)
            .map(|(connection, teller)| (teller.failures, teller.asked.len(), *connection))
            .collect();
        ready.sort_unstable();
        let (connection, block) = ready
            .into_iter()
            .find_map(|(_, asked, connection)| Some((connection, self.choose(connection, asked == 0)?)))?;
        self.tellers.get_mut(&connection)?.asked.insert(block, now);
        Some((connection, block))
    }

    /// When an answer is overdue, or a peer may be asked again.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let overdue = |teller: &Teller| teller.asked.values().min().map(|at| *at + ANSWER_TIMEOUT);
        let again = |teller: &Teller| Some(teller.not_before).filter(|at| *at > now);
        self.tellers.values().flat_map(|teller| [overdue(teller), again(teller)]).flatten().min()
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> MetadataProgress {
        let fullest = self.sets.iter().map(|(id, set)| (set.bytes, id.size)).max();
        let said = self.tellers.values().map(|teller| teller.size).next();
        MetadataProgress {
            bytes_have: fullest.map_or(0, |(bytes, _)| bytes as u32),
            bytes_total: fullest.map(|(_, size)| size).or(said).unwrap_or(0),
            tellers: self.tellers.len() as u32,
        }
    }

    /// The set that a peer's blocks go into.
    fn set_of(&self, connection: ConnectionId, size: u32) -> SetId {
        SetId { size, alone: self.contested.contains(&size).then_some(connection) }
    }

    /// What a peer is asked for: what nobody of its set was asked for, else, when it is idle, what the fewest were.
    fn choose(&self, connection: ConnectionId, idle: bool) -> Option<u32> {
        let teller = self.tellers.get(&connection)?;
        let id = self.set_of(connection, teller.size);
        let begins = idle && id.alone.is_some() && !self.sets.contains_key(&id);
        if begins && self.alone_under_way(id.size) >= ALONE_MAX {
            return None;
        }
        let mut askers: BTreeMap<u32, usize> = BTreeMap::new();
        let others = self.tellers.iter().filter(|(other, teller)| self.set_of(**other, teller.size) == id);
        for block in others.flat_map(|(_, other)| other.asked.keys()) {
            *askers.entry(*block).or_default() += 1;
        }
        let set = self.sets.get(&id);
        let mut open = (0..teller.size.div_ceil(BLOCK_BYTES))
            .filter(|block| set.is_none_or(|set| !set.blocks.contains_key(block)))
            .filter(|block| !teller.asked.contains_key(block))
            .map(|block| (askers.get(&block).copied().unwrap_or(0), block));
        if !idle {
            return open.find(|(asked, _)| *asked == 0).map(|(_, block)| block);
        }
        open.min().filter(|(asked, _)| *asked < ASKERS_MAX).map(|(_, block)| block)
    }

    /// Peers of a contested size that are asked now.
    fn alone_under_way(&self, size: u32) -> usize {
        self.tellers.values().filter(|teller| teller.size == size && !teller.asked.is_empty()).count()
    }

    /// A set is whole.
    fn judge(&mut self, id: SetId) -> Told {
        let Some(set) = self.take_set(id) else { return Told::Filed };
        let mut sha1 = Sha1::new();
        set.blocks.values().for_each(|(data, _)| sha1.update(data));
        if <[u8; 20]>::from(sha1.finalize()) == self.info_hash.0 {
            let whole: Vec<u8> = set.blocks.values().flat_map(|(data, _)| data.iter().copied()).collect();
            return Told::Whole(whole.into(), self.liars(id.size, &set));
        }
        let sources: BTreeSet<Source> =
            set.blocks.values().map(|(_, address)| Source::of(*address)).collect();
        if sources.len() == 1 {
            return Told::Wrong(set.blocks.values().next().map(|(_, address)| *address));
        }
        self.contested.insert(id.size);
        for teller in self.tellers.values_mut().filter(|teller| teller.size == id.size) {
            // What it was asked for belonged to the set that is gone.
            teller.asked.clear();
        }
        for (block, (data, address)) in set.blocks {
            if self.evidence.len() < METADATA_EVIDENCE_MAX {
                let digest = Sha1::digest(&data).into();
                self.evidence.push(Evidence { size: id.size, block, address, digest });
            }
        }
        Told::Wrong(None)
    }

    /// Who sent a block that differs from the right one.
    fn liars(&self, size: u32, right: &Set) -> Vec<SocketAddr> {
        let lied = |evidence: &&Evidence| {
            let data = right.blocks.get(&evidence.block).filter(|_| evidence.size == size);
            data.is_some_and(|(data, _)| <[u8; 20]>::from(Sha1::digest(data)) != evidence.digest)
        };
        let liars: BTreeSet<SocketAddr> =
            self.evidence.iter().filter(lied).map(|evidence| evidence.address).collect();
        liars.into_iter().collect()
    }

    /// Makes room. Those who filled that set are asked again later, after the others.
    fn drop_largest(&mut self, now: Instant) {
        let Some(largest) = self.sets.iter().max_by_key(|(_, set)| set.bytes).map(|(id, _)| *id) else {
            return;
        };
        self.drop_set(largest);
        let connections: Vec<_> = self.tellers.keys().copied().collect();
        for connection in connections {
            let size = self.tellers.get(&connection).map_or(0, |teller| teller.size);
            if self.set_of(connection, size) == largest
                && let Some(teller) = self.tellers.get_mut(&connection)
            {
                teller.asked.clear();
                teller.fail(now, REJECTED_WAIT);
            }
        }
    }

    fn drop_set(&mut self, id: SetId) {
        self.take_set(id);
    }

    fn take_set(&mut self, id: SetId) -> Option<Set> {
        let set = self.sets.remove(&id)?;
        self.buffered_bytes -= set.bytes;
        Some(set)
    }
}

impl Teller {
    /// It is not asked for a while, twice as long each time.
    fn fail(&mut self, now: Instant, wait: Duration) {
        self.not_before = now + wait.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX));
        self.failures += 1;
    }
}

/// Bytes of a block of metadata of this size; 0 when there is no such block.
pub(super) fn block_bytes(size: u32, block: u32) -> u32 {
    let begin = u64::from(block) * u64::from(BLOCK_BYTES);
    u64::from(size).saturating_sub(begin).min(u64::from(BLOCK_BYTES)) as u32
}

/// An answer that takes longer is not waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Until who did not answer is asked again, at first.
const OVERDUE_WAIT: Duration = Duration::from_secs(5);
/// Until who refused is asked again, at first: it may lack the metadata as we do.
const REJECTED_WAIT: Duration = Duration::from_secs(15);
const DOUBLINGS_MAX: u32 = 4;
/// Blocks asked of one peer at once.
const ASKED_MAX: usize = 2;
/// Peers asked for one block at once.
const ASKERS_MAX: usize = 3;
/// Peers of a contested size that fill sets at once.
const ALONE_MAX: usize = 3;

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
