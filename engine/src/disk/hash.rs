//! SHA-1 of several messages at once.

use sha1::{Digest as _, Sha1};

/// Hashes several messages side by side. SHA-1 is bound by latency, so `net` brings one that interleaves them; every
/// function that hashes whole messages is one too, and reads as [`Sha1Many::digests_read`] does without more.
pub trait Sha1Many {
    /// Messages in memory, each a list of slices, one after the other. Digests are appended in the same order.
    fn digests(&self, messages: &[Vec<&[u8]>], digests: &mut Vec<[u8; 20]>);

    /// Messages that are read on the way, of these lengths, in bytes. `read` is asked for a part of one: its place in
    /// the list, where the part begins, and where to put it. When it says no, that message has no digest and no more of
    /// it is asked for. `buffer` is what may be in memory at once, 16 KiB at least.
    ///
    /// Without more: as many messages as fit into the buffer are read as a whole and hashed together, longer ones alone.
    fn digests_read(
        &self,
        lengths: &[u32],
        buffer: &mut [u8],
        read: &mut dyn FnMut(usize, u32, &mut [u8]) -> bool,
    ) -> Vec<Option<[u8; 20]>> {
        let mut found = Vec::with_capacity(lengths.len());
        while let Some(first) = lengths.get(found.len()) {
            if *first as usize > buffer.len() {
                found.push(digest_of_long(found.len(), *first, buffer, read));
                continue;
            }
            let mut bytes = 0;
            let fitting = lengths[found.len()..].iter().take_while(|length| {
                bytes += **length as usize;
                bytes <= buffer.len()
            });
            let batch = found.len()..found.len() + fitting.count();
            let (mut is_there, mut unread) = (Vec::with_capacity(batch.len()), &mut *buffer);
            for (message, length) in batch.clone().zip(&lengths[batch.clone()]) {
                let (part, after) = unread.split_at_mut(*length as usize);
                unread = after;
                is_there.push(read(message, 0, part));
            }
            let (mut messages, mut unhashed) = (Vec::with_capacity(batch.len()), &*buffer);
            for (length, is_there) in lengths[batch].iter().zip(&is_there) {
                let (part, after) = unhashed.split_at(*length as usize);
                unhashed = after;
                if *is_there {
                    messages.push(vec![part]);
                }
            }
            let mut digests = Vec::with_capacity(messages.len());
            self.digests(&messages, &mut digests);
            let mut digests = digests.into_iter();
            found.extend(is_there.into_iter().map(|is_there| if is_there { digests.next() } else { None }));
        }
        found
    }
}

impl<F: Fn(&[Vec<&[u8]>], &mut Vec<[u8; 20]>)> Sha1Many for F {
    fn digests(&self, messages: &[Vec<&[u8]>], digests: &mut Vec<[u8; 20]>) {
        self(messages, digests);
    }
}

/// A message longer than the buffer: read and hashed bit by bit.
fn digest_of_long(
    message: usize,
    length: u32,
    buffer: &mut [u8],
    read: &mut dyn FnMut(usize, u32, &mut [u8]) -> bool,
) -> Option<[u8; 20]> {
    let mut sha1 = Sha1::new();
    let mut begin = 0;
    while begin < length {
        let part_bytes = buffer.len().min((length - begin) as usize);
        let part = &mut buffer[..part_bytes];
        if !read(message, begin, part) {
            return None;
        }
        sha1.update(&*part);
        begin += part_bytes as u32;
    }
    Some(sha1.finalize().into())
}

/// One after the other, with the `sha1` crate: for worlds that bring nothing faster.
pub fn sha1_each(messages: &[Vec<&[u8]>], digests: &mut Vec<[u8; 20]>) {
    digests.extend(messages.iter().map(|parts| {
        let mut sha1 = Sha1::new();
        for part in parts {
            sha1.update(part);
        }
        <[u8; 20]>::from(sha1.finalize())
    }));
}
