//! What a peer asks of our metadata (BEP 9): bounded in what waits, in what is under way, and in all.

use std::collections::VecDeque;

use crate::limits::{BLOCK_BYTES, METADATA_REQUESTS_MAX, METADATA_TIMES_SERVED};

/// The requests of one peer for metadata.
#[derive(Debug, Default)]
pub(crate) struct MetadataUploads {
    queue: VecDeque<u32>,
    /// Given to the driver and not yet written to the socket.
    unsent_bytes: u64,
    /// Requests that were taken, ever.
    taken: u32,
}

impl MetadataUploads {
    /// Takes a request for a block of metadata that has `block_count` of them. False when it is not served: there is no
    /// such block, or the peer asks for too much.
    pub(crate) fn push(&mut self, block: u32, block_count: u32) -> bool {
        let budget = block_count.saturating_mul(METADATA_TIMES_SERVED);
        let serves = block < block_count && self.taken < budget && self.queue.len() < METADATA_REQUESTS_MAX;
        if serves {
            self.taken += 1;
            self.queue.push_back(block);
        }
        serves
    }

    /// The next block to send, when its socket can take it soon.
    pub(crate) fn next(&mut self) -> Option<u32> {
        if self.unsent_bytes >= UNDER_WAY_BYTES {
            return None;
        }
        let block = self.queue.pop_front()?;
        self.unsent_bytes += u64::from(BLOCK_BYTES);
        Some(block)
    }

    /// Bytes went out to the socket.
    pub(crate) fn on_sent(&mut self, bytes: u64) {
        self.unsent_bytes = self.unsent_bytes.saturating_sub(bytes);
    }

    /// Whether anything waits to be sent.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }
}

/// Copied for one peer and not yet on its socket.
const UNDER_WAY_BYTES: u64 = 4 * BLOCK_BYTES as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_waits_for_the_socket() {
        let mut uploads = MetadataUploads::default();
        assert!((0..10).all(|block| uploads.push(block, 10)));
        assert_eq!(std::iter::from_fn(|| uploads.next()).collect::<Vec<_>>(), [0, 1, 2, 3]);
        uploads.on_sent(u64::from(BLOCK_BYTES));
        assert_eq!(uploads.next(), Some(4));
        assert!(uploads.next().is_none() && uploads.is_waiting());
    }

    #[test]
    fn a_peer_has_a_budget() {
        let mut uploads = MetadataUploads::default();
        assert!(!uploads.push(3, 3), "there is no such block");
        let taken = (0..1000).filter(|n| {
            let taken = uploads.push(n % 3, 3);
            uploads.next();
            uploads.on_sent(u64::from(BLOCK_BYTES));
            taken
        });
        assert_eq!(taken.count(), 3 * METADATA_TIMES_SERVED as usize);
        let mut uploads = MetadataUploads::default();
        let queued = (0..1000).filter(|n| uploads.push(*n, 1000)).count();
        assert_eq!(queued, METADATA_REQUESTS_MAX);
    }
}
