//! Memory that connections read into. A block stays in the buffer that it was read to until it is written and hashed;
//! large buffers of which nothing is in use any more serve the next reads of whichever connection comes first. Fresh ones
//! would cost more than what is done with them: the system hands out, and clears, each page anew.
#![allow(
    clippy::disallowed_types,
    reason = "readers share what is kept; the lock is never held across a wait"
)]

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The large buffers there are. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<Large>>);

#[derive(Debug, Default)]
struct Large {
    /// Read into before. Parts of them may still be in use.
    kept: VecDeque<BytesMut>,
    /// Connections that read into one.
    readers: usize,
}

impl Kept {
    /// A large one, for a connection to read into: a kept one that nobody uses any more, or a new one. None when there are
    /// enough and all are in use.
    fn take(&self) -> Option<BytesMut> {
        let mut large = self.large();
        // The one that was let go last: it is in the processor's cache more likely than others.
        let free = large.kept.iter_mut().rposition(|buffer| buffer.try_reclaim(LARGE_BYTES));
        let buffer = match free.and_then(|at| large.kept.remove(at)) {
            Some(buffer) => buffer,
            None if large.kept.len() + large.readers >= LARGE_MAX => return None,
            None => BytesMut::with_capacity(LARGE_BYTES),
        };
        large.readers += 1;
        Some(buffer)
    }

    /// Takes one back, of which parts may still be in use.
    fn give_back(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut large = self.large();
        large.readers -= 1;
        large.kept.push_back(buffer);
    }

    /// Frees those that nobody uses, if nobody reads into any.
    fn tidy(&self) {
        let mut large = self.large();
        if large.readers == 0 {
            large.kept.retain_mut(|buffer| !buffer.try_reclaim(LARGE_BYTES));
        }
    }

    fn large(&self) -> MutexGuard<'_, Large> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            self.replace();
        }
        let room = self.size.min(self.bytes.capacity());
        let room = usize::try_from(grant).map_or(room, |grant| room.min(grant));
        let bytes = reader.read_buf(&mut (&mut self.bytes).limit(room)).await?;
        if bytes == self.size {
            self.size = (self.size * 2).min(LARGE_BYTES);
        } else if bytes < self.size / 4 && self.size > READ_BYTES_MIN {
            self.size /= 2;
        }
        Ok(bytes as u32)
    }

    /// What was read. Its memory is shared with what is read next, unless that needs much less.
    pub(super) fn take(&mut self) -> Bytes {
        let bytes = self.bytes.split().freeze();
        let is_idle =
            if self.is_large { self.size <= SMALL_BYTES_MAX } else { self.bytes.capacity() > self.size * 4 };
        if is_idle {
            self.let_go(BytesMut::new(), false);
        }
        bytes
    }

    /// Goes on with another one: a large one if that much is asked for, unless there may be no more of them.
    fn replace(&mut self) {
        let large = if self.size > SMALL_BYTES_MAX { self.kept.take() } else { None };
        let is_large = large.is_some();
        if !is_large {
            self.size = self.size.min(SMALL_BYTES_MAX);
        }
        let next = large.unwrap_or_else(|| BytesMut::with_capacity(self.size));
        self.let_go(next, is_large);
    }

    fn let_go(&mut self, next: BytesMut, is_large: bool) {
        let before = std::mem::replace(&mut self.bytes, next);
        if std::mem::replace(&mut self.is_large, is_large) {
            self.kept.give_back(before);
        }
        if !is_large {
            self.kept.tidy();
        }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.let_go(BytesMut::new(), false);
    }
}

/// The first read of a connection, and the smallest of an idle one.
const READ_BYTES_START: usize = 16 << 10;
/// So that ten thousand idle connections cost little.
const READ_BYTES_MIN: usize = 4 << 10;
/// Reads up to this have memory of their own: a block that stays keeps little more than itself.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// What others read into, and the most that is read at once: larger reads were not measured to help.
const LARGE_BYTES: usize = 512 << 10;
/// Large ones there may be: 32 MiB, four times what a fast download has under way. Who has much junk between few good
/// blocks would keep more.
const LARGE_MAX: usize = 64;

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
        buffer.size = LARGE_BYTES;
        let mut read = async |buffer: &mut ReadBuffer, fill: u8| {
            other.write_all(&vec![fill; LARGE_BYTES]).await.unwrap();
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
        buffer.size = LARGE_BYTES;
        let third = read(&mut buffer, 3).await;
        assert_eq!(third.as_ptr(), first_at);
        assert!(second.iter().all(|byte| *byte == 2) && third.iter().all(|byte| *byte == 3));
    }

    #[tokio::test]
    async fn there_are_few_and_none_when_nobody_reads_much() {
        let (mut other, mut reader) = tokio::io::duplex(4 << 20);
        let kept = Kept::default();
        let mut buffer = ReadBuffer::new(kept.clone());
        let mut used = Vec::new();
        let made = |kept: &Kept| {
            let large = kept.large();
            large.kept.len() + large.readers
        };
        // Of every read a part stays in use.
        for _ in 0..LARGE_MAX * 2 + 20 {
            other.write_all(&vec![0; LARGE_BYTES]).await.unwrap();
            let mut rest = LARGE_BYTES;
            while rest > 0 {
                rest -= buffer.fill(&mut reader, u64::MAX).await.unwrap() as usize;
                used.push(buffer.take().slice(..1));
            }
            assert!(made(&kept) <= LARGE_MAX);
        }
        assert_eq!((made(&kept), buffer.is_large, buffer.size), (LARGE_MAX, false, SMALL_BYTES_MAX * 2));
        used.clear();
        other.write_all(&vec![0; LARGE_BYTES]).await.unwrap();
        buffer.fill(&mut reader, u64::MAX).await.unwrap();
        assert!(buffer.is_large, "there is one again");
        drop(buffer);
        assert_eq!(made(&kept), 0);
    }
}
