//! A peer's requests at us: queued, being read, on their way out. Every stage is bounded.
//!
//! No more is under way than its socket takes in half a second: what is under way cannot be taken back any more, and
//! in endgame most of it would be for nothing.

use std::collections::VecDeque;
use std::time::Duration;

use crate::disk::ReadBlock;
use crate::limits::{BLOCK_BYTES, REPEATED_REQUESTS_MAX, REQUESTS_QUEUED_MAX, UPLOAD_BYTES_MAX};
use crate::rate::Rate;
use crate::time::Instant;

/// What one peer asked us for.
#[derive(Debug)]
pub(crate) struct Uploads {
    queue: VecDeque<ReadBlock>,
    /// So many at the front of it are of pieces that are nowhere else: they come before what others have too.
    first_copies: usize,
    queue_bytes: u64,
    /// Given to the disk, or back from it; taken back ones are no longer here.
    reading: Vec<ReadBlock>,
    reading_bytes: u64,
    /// Given to the driver and not yet written to the socket.
    unsent_bytes: u64,
    /// What the socket takes.
    written: Rate,
    /// The last blocks that went out, and how many more requests were for those than for others.
    recent: VecDeque<ReadBlock>,
    repeats: u32,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            first_copies: 0,
            queue_bytes: 0,
            reading: Vec::new(),
            reading_bytes: 0,
            unsent_bytes: 0,
            recent: VecDeque::new(),
            repeats: 0,
            written: Rate::over(Duration::from_secs(2)),
        }
    }
}

impl Uploads {
    /// A request comes. False when the peer asks for the same again and again.
    pub(crate) fn on_request(&mut self, block: ReadBlock) -> bool {
        if self.recent.contains(&block) {
            self.repeats += 1;
        } else {
            self.repeats = self.repeats.saturating_sub(1);
        }
        self.repeats <= REPEATED_REQUESTS_MAX
    }

    /// Queues a request, before those that are not for a first copy if it is for one. False when the queue is full, which
    /// a peer that keeps to our `reqq` never sees.
    pub(crate) fn push(&mut self, block: ReadBlock, first_copy: bool) -> bool {
        let bytes = self.queue_bytes + u64::from(block.length);
        let room =
            self.queue.len() + self.reading.len() < REQUESTS_QUEUED_MAX as usize && bytes <= QUEUE_BYTES_MAX;
        if room {
            self.queue_bytes = bytes;
            let at = if first_copy { self.first_copies } else { self.queue.len() };
            self.queue.insert(at, block);
            self.first_copies += usize::from(first_copy);
        }
        room
    }

    /// Takes a request back; true if it was not answered yet.
    pub(crate) fn cancel(&mut self, block: ReadBlock) -> bool {
        if let Some(at) = self.queue.iter().position(|queued| *queued == block) {
            self.queue.remove(at);
            self.first_copies -= usize::from(at < self.first_copies);
            self.queue_bytes -= u64::from(block.length);
            return true;
        }
        let at = self.reading.iter().position(|reading| *reading == block);
        at.is_some_and(|at| {
            self.reading.remove(at);
            true
        })
    }

    /// Empties the queue, as a choke does, but for the pieces in `keep`; gives what was dropped. What is being read
    /// still goes out.
    pub(crate) fn drop_queued(&mut self, keep: &[crate::ids::PieceIndex]) -> Vec<ReadBlock> {
        let (kept, dropped): (Vec<_>, Vec<_>) =
            self.queue.drain(..).partition(|block| keep.contains(&block.piece));
        self.queue = kept.into();
        self.first_copies = 0;
        self.queue_bytes -= dropped.iter().map(|block| u64::from(block.length)).sum::<u64>();
        dropped
    }

    /// The next blocks to read, when the socket can take them soon; none while enough is under way.
    pub(crate) fn next_read(&mut self, now: Instant) -> Vec<ReadBlock> {
        let mut batch = Vec::new();
        let under_way = self.unsent_bytes + self.reading_bytes;
        let ahead = (self.written.per_second(now) / 2).clamp(UNDER_WAY_BYTES_MIN, UPLOAD_BYTES_MAX);
        // Small reads are for small windows.
        let least = READ_BYTES.min(ahead / 2);
        if under_way + least > ahead {
            return batch;
        }
        let most = READ_BYTES.min(ahead - under_way);
        let mut bytes = 0;
        while let Some(block) = self.queue.front()
            && (batch.is_empty() || bytes + u64::from(block.length) <= most)
        {
            bytes += u64::from(block.length);
            batch.extend(self.queue.pop_front());
        }
        self.first_copies = self.first_copies.saturating_sub(batch.len());
        self.queue_bytes -= bytes;
        self.reading.extend(&batch);
        self.reading_bytes += bytes;
        batch
    }

    /// A read that `next_read` gave is over.
    pub(crate) fn on_read_over(&mut self, batch: &[ReadBlock]) {
        self.reading_bytes -= batch.iter().map(|block| u64::from(block.length)).sum::<u64>();
    }

    /// A block of such a read is there. False when the peer took it back meanwhile.
    pub(crate) fn on_read(&mut self, block: ReadBlock) -> bool {
        let at = self.reading.iter().position(|reading| *reading == block);
        at.is_some_and(|at| {
            self.reading.remove(at);
            self.unsent_bytes += u64::from(block.length);
            if self.recent.len() == RECENT_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back(block);
            true
        })
    }

    /// Bytes went out to the socket.
    pub(crate) fn on_sent(&mut self, now: Instant, bytes: u64) {
        self.unsent_bytes = self.unsent_bytes.saturating_sub(bytes);
        self.written.add(now, bytes);
    }

    /// A block that was read for it is not sent after all.
    pub(crate) fn on_withheld(&mut self, block: ReadBlock) {
        self.unsent_bytes = self.unsent_bytes.saturating_sub(u64::from(block.length));
    }

    /// Whether it has asked for nothing that did not go out.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.reading_bytes == 0 && self.unsent_bytes == 0
    }

    /// Whether anything waits to be read.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }
}

/// Queued for one peer, however long its requests are (`reliability.md` B4).
const QUEUE_BYTES_MAX: u64 = REQUESTS_QUEUED_MAX as u64 * BLOCK_BYTES as u64;
/// Blocks that are remembered after they went out: two megabytes' worth.
const RECENT_MAX: usize = 128;
/// One read for a peer.
const READ_BYTES: u64 = 16 * BLOCK_BYTES as u64;
/// Read and not yet on the socket, for one peer, however slow it is: one block being written, one there, and two being read.
const UNDER_WAY_BYTES_MIN: u64 = 4 * BLOCK_BYTES as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PieceIndex;

    fn block(n: u32) -> ReadBlock {
        ReadBlock { piece: PieceIndex::new(n / 4), begin: n % 4 * BLOCK_BYTES, length: BLOCK_BYTES }
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    /// The sizes of the reads that may go out now.
    fn reads(uploads: &mut Uploads, now: Instant) -> Vec<usize> {
        let batches = std::iter::from_fn(|| Some(uploads.next_read(now)).filter(|batch| !batch.is_empty()));
        batches.map(|batch| batch.len()).collect()
    }

    #[test]
    fn reading_waits_for_the_socket() {
        let mut uploads = Uploads::default();
        assert!((0..100).all(|n| uploads.push(block(n), false)));
        uploads.on_sent(at(0), 64 << 20);
        assert_eq!(reads(&mut uploads, at(0)), [16, 16, 16, 16], "a fast one");
        let batch: Vec<_> = (0..16).map(block).collect();
        uploads.on_read_over(&batch);
        assert!(batch.iter().all(|block| uploads.on_read(*block)));
        assert!(uploads.next_read(at(0)).is_empty(), "read, but not on the socket yet");
        uploads.on_sent(at(0), 16 * 16384);
        assert_eq!(reads(&mut uploads, at(0)), [16]);
    }

    #[test]
    fn a_slow_socket_gets_half_a_second_ahead() {
        let mut uploads = Uploads::default();
        assert!((0..100).all(|n| uploads.push(block(n), false)));
        assert_eq!(reads(&mut uploads, at(0)).iter().sum::<usize>(), 4, "of one not known");
        let mut uploads = Uploads::default();
        assert!((0..100).all(|n| uploads.push(block(n), false)));
        (0..20).for_each(|n| uploads.on_sent(at(n * 100), 52_429));
        let ahead = reads(&mut uploads, at(2000)).iter().sum::<usize>();
        assert!((12..=17).contains(&ahead), "{ahead} blocks at 512 KiB/s");
    }

    #[test]
    fn long_requests_fill_the_queue_by_their_bytes() {
        let mut uploads = Uploads::default();
        let long = |n| ReadBlock { length: 8 * BLOCK_BYTES, ..block(n) };
        let taken = (0..500).filter(|n| uploads.push(long(*n), false)).count();
        assert_eq!(taken, 62, "as many bytes as 500 blocks have");
        assert!(uploads.cancel(long(0)) && uploads.push(long(900), false) && !uploads.push(long(901), false));
        uploads.drop_queued(&[]);
        assert_eq!(uploads.queue_bytes, 0);
    }

    #[test]
    fn what_is_taken_back_is_not_sent() {
        let mut uploads = Uploads::default();
        assert!((0..3).all(|n| uploads.push(block(n), false)));
        assert!(uploads.cancel(block(1)));
        let batch = uploads.next_read(at(0));
        assert_eq!(batch, [block(0), block(2)]);
        assert!(uploads.cancel(block(2)));
        assert!(!uploads.cancel(block(9)));
        uploads.on_read_over(&batch);
        assert_eq!(batch.iter().map(|b| uploads.on_read(*b)).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn what_is_nowhere_else_goes_first() {
        let mut uploads = Uploads::default();
        for (n, first_copy) in [(0, false), (8, true), (1, false), (9, true), (10, true)] {
            assert!(uploads.push(block(n), first_copy));
        }
        assert!(uploads.cancel(block(9)) && uploads.push(block(11), true));
        assert_eq!(uploads.next_read(at(0)), [8, 10, 11, 0].map(block));
        assert!(uploads.push(block(12), true));
        assert_eq!(uploads.queue, [12, 1].map(block));
        uploads.drop_queued(&[PieceIndex::new(0)]);
        assert!(uploads.push(block(13), true));
        assert_eq!(uploads.queue, [13, 1].map(block));
    }

    #[test]
    fn the_queue_is_as_long_as_we_say() {
        let mut uploads = Uploads::default();
        assert_eq!((0..REQUESTS_QUEUED_MAX + 5).filter(|n| uploads.push(block(*n), false)).count(), 500);
        assert_eq!(uploads.drop_queued(&[PieceIndex::new(0)]).len(), 496);
    }
}
