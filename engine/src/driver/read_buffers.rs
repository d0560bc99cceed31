//! Memory that connections read into. A block stays in the buffer that it was read to until it is written and hashed;
//! large buffers of which nothing is in use any more serve the next reads of whichever connection comes first. Fresh ones
//! would cost more than what is done with them: the system hands out, and clears, each page anew.
#![allow(
    clippy::disallowed_types,
    reason = "readers share what is kept; the lock is never held across a wait"
)]

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Large buffers, kept for the next read. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<VecDeque<BytesMut>>>);

impl Kept {
    /// One with room for this many bytes: a kept one that nobody uses any more, or a new one.
    fn take(&self, size: usize) -> BytesMut {
        if size == READ_BYTES_MAX {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // The one that was let go last: it is in the processor's cache more likely than others.
            if let Some(at) = kept.iter_mut().rposition(|buffer| buffer.try_reclaim(size)) {
                return kept.remove(at).unwrap_or_default();
            }
        }
        BytesMut::with_capacity(size)
    }

    /// Takes a large buffer of which parts may still be in use.
    fn keep(&self, buffer: BytesMut) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(buffer);
    }
}

/// What one connection reads into: it grows while reads fill it and shrinks while they do not.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    kept: Kept,
    /// Free room, behind what was handed over.
    bytes: BytesMut,
    /// Whether it is a large one.
    is_large: bool,
    /// How much is asked for at once.
    size: usize,
}

impl ReadBuffer {
    pub(super) fn new(kept: Kept) -> Self {
        Self { kept, bytes: BytesMut::new(), is_large: false, size: READ_BYTES_START }
    }

    /// Reads once, at most `grant` bytes.
    pub(super) async fn fill<R: AsyncRead + Unpin>(&mut self, reader: &mut R, grant: u64) -> io::Result<u32> {
        if self.bytes.capacity() < self.size / 2 && !self.bytes.try_reclaim(self.size) {
            self.replace(self.size);
        }
        let room = self.size.min(self.bytes.capacity());
        let room = usize::try_from(grant).map_or(room, |grant| room.min(grant));
        let bytes = reader.read_buf(&mut (&mut self.bytes).limit(room)).await?;
        if bytes == self.size {
            self.size = (self.size * 2).min(READ_BYTES_MAX);
        } else if bytes < self.size / 4 && self.size > READ_BYTES_MIN {
            self.size /= 2;
        }
        Ok(bytes as u32)
    }

    /// What was read. Its memory is shared with what is read next, unless that needs much less.
    pub(super) fn take(&mut self) -> Bytes {
        let bytes = self.bytes.split().freeze();
        if self.bytes.capacity() > self.size * 4 {
            self.replace(0);
        }
        bytes
    }

    /// Goes on with another one, of this size.
    fn replace(&mut self, size: usize) {
        let before = std::mem::replace(&mut self.bytes, self.kept.take(size));
        if self.is_large {
            self.kept.keep(before);
        }
        self.is_large = size == READ_BYTES_MAX;
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.replace(0);
    }
}

/// The first read of a connection, and the smallest of an idle one.
const READ_BYTES_START: usize = 16 << 10;
/// So that ten thousand idle connections cost little.
const READ_BYTES_MIN: usize = 4 << 10;
/// Beyond this, larger reads were not measured to help. Only buffers of this size are kept: smaller ones come cheaply.
const READ_BYTES_MAX: usize = 512 << 10;
/// Large buffers kept, those still in use among them: 8 MiB, what a fast download has under way.
const KEPT_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_read_buffer_follows_what_comes() {
        let (mut other, mut reader) = tokio::io::duplex(4 << 20);
        let mut buffer = ReadBuffer::new(Kept::default());
        other.write_all(&vec![0; 3 << 20]).await.unwrap();
        let mut sizes = Vec::new();
        for _ in 0..8 {
            sizes.push(buffer.fill(&mut reader, u64::MAX).await.unwrap() as usize);
            assert_eq!(buffer.take().len(), sizes[sizes.len() - 1]);
        }
        assert_eq!(sizes[..6], [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10]);
        assert!(sizes[6..].iter().all(|bytes| *bytes >= 256 << 10), "a read fills half of it at least");
        let mut rest = (3 << 20) - sizes.iter().sum::<usize>();
        while rest > 0 {
            rest -= buffer.fill(&mut reader, 1 << 14).await.unwrap() as usize;
            buffer.take();
        }
        assert_eq!(buffer.size, 4 << 14, "small reads shrink it to four times their size");
        assert!(buffer.bytes.capacity() <= buffer.size * 4);
    }

    #[tokio::test]
    async fn what_is_used_no_more_is_read_into_again() {
        let (mut other, mut reader) = tokio::io::duplex(4 << 20);
        let kept = Kept::default();
        let mut buffer = ReadBuffer::new(kept.clone());
        buffer.size = READ_BYTES_MAX;
        let mut read = async |buffer: &mut ReadBuffer, fill: u8| {
            other.write_all(&vec![fill; READ_BYTES_MAX]).await.unwrap();
            buffer.fill(&mut reader, u64::MAX).await.unwrap();
            buffer.take()
        };
        let first = read(&mut buffer, 1).await;
        let first_at = first.as_ptr();
        let second = read(&mut buffer, 2).await;
        assert_ne!(second.as_ptr(), first_at, "the first is in use");
        drop(first);
        // Whoever reads next has it.
        let mut buffer = ReadBuffer::new(kept);
        buffer.size = READ_BYTES_MAX;
        let third = read(&mut buffer, 3).await;
        assert_eq!(third.as_ptr(), first_at);
        assert!(second.iter().all(|byte| *byte == 2) && third.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn few_are_kept() {
        let kept = Kept::default();
        let used: Vec<Bytes> = (0..KEPT_MAX + 5)
            .map(|_| {
                let mut buffer = kept.take(READ_BYTES_MAX);
                buffer.put_u8(1);
                let used = buffer.split().freeze();
                kept.keep(buffer);
                used
            })
            .collect();
        assert_eq!(kept.0.lock().unwrap().len(), KEPT_MAX);
        drop(used);
        kept.take(READ_BYTES_MAX);
        assert_eq!(kept.0.lock().unwrap().len(), KEPT_MAX - 1);
    }
}
