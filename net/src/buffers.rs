//! Memory that payload is read into from files: given out, shared as blocks, and given out again. Fresh memory would
//! cost more than reading: the system clears each page before it is filled.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Buffers that nobody uses. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Free>>);

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    /// One of at least this length, whatever is in it.
    pub(crate) fn lend(&self, length: usize) -> Vec<u8> {
        let size = length.next_power_of_two();
        let mut free = self.free();
        // The one that came back last is in the processor's cache more likely than others.
        let fitting = free.buffers.iter().rposition(|buffer| buffer.len() == size);
        if let Some(at) = fitting {
            free.bytes -= size;
            return free.buffers.swap_remove(at);
        }
        drop(free);
        vec![0; size]
    }

    /// What is in a buffer, to be shared; comes back here with the last share.
    pub(crate) fn share(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    /// Takes one back, unless there is enough.
    fn give_back(&self, buffer: Vec<u8>) {
        let mut free = self.free();
        if free.bytes + buffer.len() <= FREE_BYTES_MAX {
            free.bytes += buffer.len();
            free.buffers.push(buffer);
        }
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.buffer));
    }
}

/// Bytes kept that nobody uses.
const FREE_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_share() {
        let buffers = Buffers::default();
        let mut buffer = buffers.lend(3000);
        assert_eq!(buffer.len(), 4096);
        buffer[0] = 7;
        let at = buffer.as_ptr();
        let whole = buffers.share(buffer);
        let part = whole.slice(..1);
        drop(whole);
        let other = buffers.lend(3000);
        assert_ne!(other.as_ptr(), at, "a part is in use");
        assert_eq!(part[0], 7);
        drop(part);
        let again = buffers.lend(4000);
        assert_eq!(again.as_ptr(), at);
    }

    #[test]
    fn little_is_kept() {
        let buffers = Buffers::default();
        let lent: Vec<_> = (0..9).map(|_| buffers.share(buffers.lend(1 << 20))).collect();
        drop(lent);
        let free = buffers.free();
        assert_eq!((free.buffers.len(), free.bytes), (4, FREE_BYTES_MAX));
    }
}
