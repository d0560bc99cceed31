//! Our requests at one peer: how many at once, which are out, and when to stop counting on them.
//!
//! The window follows the bandwidth-delay product; a peer that stays silent for longer than its own record allows is
//! *snubbed*: its requests are released for others, though a late block is still welcome, and one request is kept at
//! it so that it can prove itself.
//!
//! With the fast extension each request has exactly one answer, a block or a reject (BEP 6), also one that was taken back.
//! Those answers are still owed: an answer goes to the oldest request for its block that has none, so that the reject of
//! one that was taken back never speaks of one made since.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::{BlockIndex, PieceIndex};
use crate::limits::{BLOCK_BYTES, REQQ_DEFAULT, REQUESTS_OUT_MAX};
use crate::time::Instant;

/// The request pipeline to one peer.
#[derive(Debug)]
pub(crate) struct Requests {
    outstanding: VecDeque<Outstanding>,
    /// Of `outstanding`, those not released.
    counted: u32,
    /// Taken back, and not answered yet: with when that was.
    owed: VecDeque<(PieceIndex, BlockIndex, Instant)>,
    /// Requests that were taken back or are void: each may still be answered.
    voided: u32,
    /// What the peer queues at most.
    reqq: u32,
    snubbed: bool,
    /// Requests were lost, and those made since are given up sooner.
    losing: bool,
    /// When the last block came.
    last_block: Option<Instant>,
    /// The shortest time from a request to its block.
    response_min: Option<Duration>,
    /// When we last kept it from sending, or it sent part of a block under a limit of ours.
    held: Instant,
    gap: Gap,
}

/// A request that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outstanding {
    pub(crate) piece: PieceIndex,
    pub(crate) block: BlockIndex,
    pub(crate) sent: Instant,
    /// Others may ask for this block as if this request were not there.
    pub(crate) released: bool,
}

/// Mean and mean deviation of the time between blocks, in nanoseconds, as TCP measures round trips.
#[derive(Clone, Copy, Debug, Default)]
struct Gap {
    mean: u64,
    deviation: u64,
    samples: u32,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self {
            outstanding: VecDeque::new(),
            counted: 0,
            owed: VecDeque::new(),
            voided: 0,
            reqq: REQQ_DEFAULT,
            snubbed: false,
            losing: false,
            last_block: None,
            response_min: None,
            held: Instant::START,
            gap: Gap::default(),
        }
    }

    /// What the peer says it queues, as it came.
    pub(crate) fn on_reqq(&mut self, reqq: i64) {
        self.reqq = reqq.clamp(1, i64::from(REQUESTS_OUT_MAX)) as u32;
    }

    /// Under a limit of ours its blocks come as late as we let them: its record begins anew now.
    pub(crate) fn on_held_back(&mut self, now: Instant) {
        self.held = now;
    }

    /// How many more requests should go out, at a payload rate of `per_second` from this peer.
    pub(crate) fn room(&self, per_second: u64) -> u32 {
        if self.snubbed {
            return u32::from(self.outstanding.is_empty());
        }
        let ahead =
            self.response_min.map_or(AHEAD_MIN, |rtt| AHEAD_MIN.max(rtt * 2 + Duration::from_secs(1)));
        let bytes = u128::from(per_second) * ahead.as_millis() / 1000;
        let window =
            u32::try_from(bytes / u128::from(BLOCK_BYTES)).unwrap_or(u32::MAX).saturating_add(WINDOW_MIN);
        window.min(self.reqq).min(REQUESTS_OUT_MAX).saturating_sub(self.outstanding.len() as u32)
    }

    /// When a block came last.
    pub(crate) fn last_block(&self) -> Option<Instant> {
        self.last_block
    }

    /// The requests that count, each with how long it will take at a payload rate of `per_second`.
    pub(crate) fn expected(
        &self,
        now: Instant,
        per_second: u64,
    ) -> impl Iterator<Item = (Outstanding, Duration)> {
        let block = time_of_block(per_second);
        (1u32..).zip(&self.outstanding).filter(|(_, out)| !out.released).map(move |(place, out)| {
            let silent = now.since(self.last_block.map_or(out.sent, |last| last.max(out.sent)));
            let stalled = self.snubbed || silent > STALLED + block.unwrap_or(Duration::ZERO) * 4;
            let wait = block.unwrap_or(BLOCK_UNMEASURED) * place;
            (*out, if stalled { Duration::MAX } else { wait })
        })
    }

    /// How long one more block takes behind `queued` others at a payload rate of `per_second`.
    pub(crate) fn would_take(&self, per_second: u64, queued: u32) -> Duration {
        let flow = time_of_block(per_second).unwrap_or(BLOCK_UNMEASURED) * (queued + 1);
        self.response_min.map_or(flow, |response| response.max(flow))
    }

    /// How long a block takes while it is awaited, on average ever since; none when none came.
    pub(crate) fn block_time(&self) -> Option<Duration> {
        (self.gap.samples > 0).then(|| Duration::from_nanos(self.gap.mean))
    }

    /// Requests out, those released included: the peer may still answer all of them.
    pub(crate) fn len(&self) -> usize {
        self.outstanding.len()
    }

    /// Whether this block was asked for here and may still come.
    pub(crate) fn contains(&self, piece: PieceIndex, block: BlockIndex) -> bool {
        self.outstanding.iter().any(|out| (out.piece, out.block) == (piece, block))
    }

    /// Whether a look at `contains` is needed before a block is asked for: only released requests can collide.
    pub(crate) fn may_collide(&self) -> bool {
        self.counted < self.outstanding.len() as u32
    }

    pub(crate) fn on_sent(&mut self, now: Instant, piece: PieceIndex, block: BlockIndex) {
        self.outstanding.push_back(Outstanding { piece, block, sent: now, released: false });
        self.counted += 1;
        assert!(self.outstanding.len() <= REQUESTS_OUT_MAX as usize, "the window is kept");
    }

    /// A block came. Gives the request that it answers, if it was asked for.
    pub(crate) fn on_block(
        &mut self,
        now: Instant,
        piece: PieceIndex,
        block: BlockIndex,
    ) -> Option<Outstanding> {
        let out = self.take(piece, block)?;
        let begin = self.last_block.map_or(out.sent, |last| last.max(out.sent));
        self.gap.add(now.since(begin));
        let response = now.since(out.sent);
        self.response_min = Some(self.response_min.map_or(response, |least| least.min(response)));
        self.last_block = Some(now);
        self.snubbed = false;
        self.losing = false;
        Some(out)
    }

    /// A request is taken back, or void. Gives it if it was out.
    pub(crate) fn forgo(&mut self, piece: PieceIndex, block: BlockIndex) -> Option<Outstanding> {
        let out = self.take(piece, block)?;
        self.voided = self.voided.saturating_add(1);
        Some(out)
    }

    /// A block came that is not waited for: whether it may be the late answer to what was.
    pub(crate) fn on_late_block(&mut self) -> bool {
        let may_be = self.voided > 0;
        self.voided = self.voided.saturating_sub(1);
        may_be
    }

    /// A request is taken back from a peer that answers each one: the answer is owed. Gives it if it was out.
    pub(crate) fn take_back(
        &mut self,
        now: Instant,
        piece: PieceIndex,
        block: BlockIndex,
    ) -> Option<Outstanding> {
        let out = self.forgo(piece, block)?;
        self.owe(now, piece, block);
        Some(out)
    }

    /// All requests are taken back from a peer that answers each one.
    pub(crate) fn take_back_all(&mut self, now: Instant) -> Vec<Outstanding> {
        let all = self.take_all();
        all.iter().for_each(|out| self.owe(now, out.piece, out.block));
        all
    }

    /// One answer more is owed.
    pub(crate) fn owe(&mut self, now: Instant, piece: PieceIndex, block: BlockIndex) {
        while self.owed.len() >= OWED_MAX || self.owed.front().is_some_and(|(.., at)| now.since(*at) > OWED) {
            self.owed.pop_front();
        }
        self.owed.push_back((piece, block, now));
    }

    /// An answer for this block came. Whether it was that to a request that was taken back.
    pub(crate) fn settle_owed(&mut self, now: Instant, piece: PieceIndex, block: BlockIndex) -> bool {
        let owed = |(p, b, at): &(PieceIndex, BlockIndex, Instant)| {
            (*p, *b) == (piece, block) && now.since(*at) <= OWED
        };
        let at = self.owed.iter().position(owed);
        at.is_some_and(|at| self.owed.remove(at).is_some())
    }

    /// A request was rejected or is taken back. Gives it if it was out.
    pub(crate) fn take(&mut self, piece: PieceIndex, block: BlockIndex) -> Option<Outstanding> {
        let at = self.outstanding.iter().position(|out| (out.piece, out.block) == (piece, block))?;
        let out = self.outstanding.remove(at)?;
        self.counted -= u32::from(!out.released);
        Some(out)
    }

    /// All requests are void: the peer choked us, or is gone.
    pub(crate) fn take_all(&mut self) -> Vec<Outstanding> {
        self.counted = 0;
        self.voided = self.voided.saturating_add(self.outstanding.len() as u32);
        self.outstanding.drain(..).collect()
    }

    /// When the peer becomes snubbed if nothing comes; once it is, when its requests count as lost.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let counted = self.outstanding.iter().find(|out| !out.released);
        let lost = if self.losing { AGAIN } else { LOST };
        let wait = if counted.is_some() { self.gap.timeout() } else { lost };
        let first = counted.or(self.outstanding.front())?;
        let begin = self.last_block.map_or(first.sent, |last| last.max(first.sent));
        Some(begin.max(self.held) + wait)
    }

    /// Snubs the peer if it is due, and gives the requests that others may now take over. Requests of a snubbed peer
    /// that are lost are forgotten, so that it can be asked again; the latest ones not before it may be asked for them again.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Outstanding> {
        if self.deadline().is_none_or(|at| at > now) {
            return Vec::new();
        }
        if self.counted == 0 {
            let out = self.outstanding.len();
            self.outstanding.retain(|out| out.sent + AGAIN > now);
            self.voided = self.voided.saturating_add((out - self.outstanding.len()) as u32);
            self.losing = !self.outstanding.is_empty();
        }
        self.snubbed = true;
        self.counted = 0;
        let mut released = Vec::new();
        for out in self.outstanding.iter_mut().filter(|out| !out.released) {
            released.push(*out);
            out.released = true;
        }
        released
    }
}

impl Gap {
    fn add(&mut self, sample: Duration) {
        let sample = sample.as_nanos() as u64;
        if self.samples == 0 {
            (self.mean, self.deviation) = (sample, sample / 2);
        } else {
            self.deviation = (self.deviation * 3 + self.mean.abs_diff(sample)) / 4;
            self.mean = (self.mean * 7 + sample) / 8;
        }
        self.samples = self.samples.saturating_add(1);
    }

    fn timeout(&self) -> Duration {
        if self.samples < GAP_SAMPLES_MIN {
            return TIMEOUT_UNMEASURED;
        }
        Duration::from_nanos(self.mean + 4 * self.deviation).clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }
}

/// None when nothing is known.
fn time_of_block(per_second: u64) -> Option<Duration> {
    let ns = (u64::from(BLOCK_BYTES) * 1_000_000_000).checked_div(per_second)?;
    Some(Duration::from_nanos(ns))
}

/// What a block is taken to take of a peer that has sent none yet.
pub(crate) const BLOCK_UNMEASURED: Duration = Duration::from_millis(200);
/// Nobody is silent for longer, beside four times the time of a block, while it sends what it was asked for.
const STALLED: Duration = Duration::from_secs(1);
/// How much time's worth of blocks is asked for ahead.
const AHEAD_MIN: Duration = Duration::from_secs(3);
const WINDOW_MIN: u32 = 4;
/// How long an answer is owed: some clients give none to what was taken back.
const OWED: Duration = Duration::from_secs(60);
const OWED_MAX: usize = 2 * REQUESTS_OUT_MAX as usize;
const GAP_SAMPLES_MIN: u32 = 4;
/// As libtorrent's `piece_timeout`: without any block while requests are pending.
const TIMEOUT_UNMEASURED: Duration = Duration::from_secs(20);
const TIMEOUT_MIN: Duration = Duration::from_secs(4);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Without any block while only released requests are out, the peer has dropped them.
const LOST: Duration = Duration::from_secs(90);
/// Nothing is asked of a peer a second time sooner.
const AGAIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    fn out(requests: &mut Requests, now: Instant, blocks: core::ops::Range<u32>) {
        for block in blocks {
            requests.on_sent(now, PieceIndex::new(0), BlockIndex(block));
        }
    }

    #[test]
    fn the_window_follows_the_rate_and_never_passes_reqq() {
        let mut requests = Requests::new();
        assert_eq!(requests.room(0), 4);
        assert_eq!(requests.room(1 << 20), 196, "3 s of 1 MiB/s");
        assert_eq!(requests.room(1 << 40), 250, "unsaid reqq");
        requests.on_reqq(1 << 33);
        assert_eq!(requests.room(1 << 40), 500);
        requests.on_reqq(-5);
        assert_eq!(requests.room(1 << 40), 1);
    }

    #[test]
    fn snubbed_peer_keeps_one_request_and_late_blocks_count() {
        let mut requests = Requests::new();
        out(&mut requests, at(0), 0..4);
        assert!(requests.handle_timeout(at(19_999)).is_empty());
        assert_eq!(requests.handle_timeout(at(20_000)).len(), 4);
        assert!(requests.snubbed);
        assert_eq!((requests.room(1 << 20), requests.deadline()), (0, Some(at(90_000))));
        assert!(
            requests.on_block(at(30_000), PieceIndex::new(0), BlockIndex(2)).is_some_and(|out| out.released)
        );
        assert!(!requests.snubbed);
    }

    #[test]
    fn what_was_asked_for_lately_is_not_lost_with_what_is() {
        let mut requests = Requests::new();
        out(&mut requests, at(0), 0..2);
        requests.handle_timeout(at(20_000));
        out(&mut requests, at(80_000), 2..3);
        assert_eq!(requests.handle_timeout(at(100_000)).len(), 1, "a third is waited for no more");
        assert_eq!(requests.deadline(), Some(at(90_000)), "the first two are lost");
        assert!(requests.handle_timeout(at(100_000)).is_empty());
        let left: Vec<_> = requests.outstanding.iter().map(|out| out.block.0).collect();
        assert_eq!((left.as_slice(), requests.deadline()), ([2].as_slice(), Some(at(110_000))));
        assert!(requests.handle_timeout(at(110_000)).is_empty());
        assert_eq!((requests.len(), requests.room(0)), (0, 1), "it may be asked again");
        out(&mut requests, at(110_000), 2..3);
        requests.handle_timeout(at(130_000));
        assert_eq!(requests.deadline(), Some(at(200_000)));
    }

    #[test]
    fn a_quick_peer_is_snubbed_sooner() {
        let mut requests = Requests::new();
        out(&mut requests, at(0), 0..10);
        for block in 0..8 {
            requests.on_block(at(10 * u64::from(block) + 10), PieceIndex::new(0), BlockIndex(block));
        }
        assert_eq!(requests.deadline(), Some(at(80) + TIMEOUT_MIN));
    }

    #[test]
    fn no_request_waits_for_longer_than_a_minute() {
        for gap_ms in [10, 5_000, 50_000, 100_000] {
            let mut requests = Requests::new();
            out(&mut requests, at(0), 0..20);
            let last = (1..=10).map(|block| at(block * gap_ms)).enumerate().map(|(block, now)| {
                requests.on_block(now, PieceIndex::new(0), BlockIndex(block as u32));
                now
            });
            let last = last.last().unwrap();
            let wait = requests.deadline().unwrap().since(last);
            assert!((TIMEOUT_MIN..=Duration::from_secs(60)).contains(&wait), "{gap_ms}: {wait:?}");
        }
    }

    #[test]
    fn what_is_out_takes_its_turn_and_a_stalled_peer_sends_nothing() {
        let mut requests = Requests::new();
        out(&mut requests, at(0), 0..3);
        let waits = |requests: &Requests, now, per_second| -> Vec<u128> {
            requests.expected(now, per_second).map(|(_, wait)| wait.as_millis()).collect()
        };
        assert_eq!(waits(&requests, at(10), 160 << 10), [100, 200, 300]);
        assert_eq!(waits(&requests, at(1390), 160 << 10), [100, 200, 300]);
        assert_eq!(waits(&requests, at(1401), 160 << 10), [Duration::MAX.as_millis(); 3]);
        requests.on_block(at(1401), PieceIndex::new(0), BlockIndex(0));
        assert_eq!(waits(&requests, at(1401), 160 << 10), [100, 200]);
        assert_eq!(requests.would_take(160 << 10, 2).as_millis(), 1401, "it took so long before");
        assert_eq!(requests.would_take(16 << 10, 2).as_millis(), 3000);
    }

    #[test]
    fn blocks_never_asked_for_are_told_apart() {
        let mut requests = Requests::new();
        out(&mut requests, at(0), 0..1);
        assert_eq!(requests.on_block(at(1), PieceIndex::new(0), BlockIndex(7)), None);
        assert_eq!(requests.len(), 1);
    }
}
