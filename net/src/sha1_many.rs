//! SHA-1 of many messages at once.
//!
//! SHA-1 is bound by latency: each round waits for the one before. So messages go side by side in one thread, as the
//! processor does best: sixteen in the lanes of AVX-512, four that take turns by the SHA extensions, eight in the lanes of
//! AVX2. A lane that ends takes the next message; messages may differ in length and be cut anywhere, or be read on the way.
//!
//! The only modules with `unsafe` code are those of the processor's instructions, [`sha_ni`] and [`wide`].

#[cfg(target_arch = "x86_64")]
mod sha_ni;
#[cfg(target_arch = "x86_64")]
mod wide;

use core::slice;

use taipei_engine::disk::{Sha1Many, sha1_each};

/// Hashes messages side by side where the processor can.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha1Lanes;

impl Sha1Many for Sha1Lanes {
    fn digests(&self, messages: &[Vec<&[u8]>], digests: &mut Vec<[u8; 20]>) {
        let Some(kernel) = Kernel::for_messages(messages.len()) else { return sha1_each(messages, digests) };
        let first_digest = digests.len();
        digests.resize(first_digest + messages.len(), [0; 20]);
        kernel.hash(&mut InMemory { waiting: messages.iter().zip(&mut digests[first_digest..]) });
    }

    fn digests_read(
        &self,
        lengths: &[u32],
        buffer: &mut [u8],
        read: &mut dyn FnMut(usize, u32, &mut [u8]) -> bool,
    ) -> Vec<Option<[u8; 20]>> {
        let Some(kernel) = Kernel::for_messages(lengths.len()) else {
            return sha1_each.digests_read(lengths, buffer, read);
        };
        // What all lanes read at once stays in the processor's cache until it is hashed.
        let part_bytes = (buffer.len() / kernel.lanes_max / BLOCK * BLOCK).min(PART_BYTES_MAX);
        let mut digests = vec![None; lengths.len()];
        let free = buffer.chunks_exact_mut(part_bytes).take(kernel.lanes_max).collect();
        kernel.hash(&mut OnTheWay { waiting: (0..).zip(lengths).zip(&mut digests), free, read });
        digests
    }
}

/// Hashes blocks of 64 bytes into as many states as there are lists of blocks. All lists are equally long.
type Compress = fn(states: &mut [[u32; 5]], blocks: &[&[u8]]);

/// What the processor hashes with.
#[derive(Clone, Copy)]
struct Kernel {
    lanes_max: usize,
    compress: Compress,
}

impl Kernel {
    /// The best for so many messages; none where one after the other is.
    fn for_messages(count: usize) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            use wide::{avx2, avx512};
            let (has_sha, has_avx512) = (sha_ni::is_available(), avx512::is_available());
            if has_sha && has_avx512 && count >= WIDE_FROM {
                return Some(Self { lanes_max: avx512::LANES, compress: by_avx512_or_sha });
            }
            if has_sha {
                return Some(Self { lanes_max: sha_ni::LANES, compress: sha_ni::compress });
            }
            if has_avx512 && count > 1 {
                return Some(Self { lanes_max: avx512::LANES, compress: avx512::compress });
            }
            if avx2::is_available() && count > 1 {
                return Some(Self { lanes_max: avx2::LANES, compress: avx2::compress });
            }
        }
        let _ = count;
        None
    }

    /// Hashes all that a source has.
    fn hash<S: Source>(self, source: &mut S) {
        let mut lanes: Vec<S::Lane> = Vec::with_capacity(self.lanes_max);
        let mut states: Vec<[u32; 5]> = Vec::with_capacity(self.lanes_max);
        loop {
            while lanes.len() < self.lanes_max
                && let Some(lane) = source.begin()
            {
                lanes.push(lane);
                states.push(INITIAL_STATE);
            }
            let Some(bytes) = lanes.iter().map(|lane| lane.ready().len()).min() else { return };
            let mut blocks = [[].as_slice(); LANES_MAX];
            for (blocks, lane) in blocks.iter_mut().zip(&lanes) {
                *blocks = &lane.ready()[..bytes];
            }
            (self.compress)(&mut states, &blocks[..lanes.len()]);
            for at in (0..lanes.len()).rev() {
                match source.advance(&mut lanes[at], bytes) {
                    Progress::More => {}
                    Progress::Over => {
                        let mut digest = [0; 20];
                        for (bytes, word) in digest.chunks_exact_mut(4).zip(states.swap_remove(at)) {
                            bytes.copy_from_slice(&word.to_be_bytes());
                        }
                        source.end(lanes.swap_remove(at), Some(digest));
                    }
                    Progress::Gone => {
                        states.swap_remove(at);
                        source.end(lanes.swap_remove(at), None);
                    }
                }
            }
        }
    }
}

/// Few lanes go faster by turns than in wide registers, which do not care how many of them are used.
#[cfg(target_arch = "x86_64")]
fn by_avx512_or_sha(states: &mut [[u32; 5]], blocks: &[&[u8]]) {
    if states.len() >= WIDE_FROM {
        return wide::avx512::compress(states, blocks);
    }
    for (states, blocks) in states.chunks_mut(sha_ni::LANES).zip(blocks.chunks(sha_ni::LANES)) {
        sha_ni::compress(states, blocks);
    }
}

/// Where messages come from.
trait Source {
    type Lane: Lane;

    /// The next message, with its first blocks ready.
    fn begin(&mut self) -> Option<Self::Lane>;

    /// So many bytes of what was ready were hashed.
    fn advance(&mut self, lane: &mut Self::Lane, bytes: usize) -> Progress;

    /// A message is over; without a digest if it could not be read.
    fn end(&mut self, lane: Self::Lane, digest: Option<[u8; 20]>);
}

/// A message on its way through.
trait Lane {
    /// The blocks to hash next; never none.
    fn ready(&self) -> &[u8];
}

/// What is left of a message.
enum Progress {
    More,
    Over,
    Gone,
}

/// Messages that are there as a whole.
struct InMemory<'a, 'd> {
    waiting: core::iter::Zip<slice::Iter<'a, Vec<&'a [u8]>>, slice::IterMut<'d, [u8; 20]>>,
}

impl<'a, 'd> Source for InMemory<'a, 'd> {
    type Lane = SliceLane<'a, 'd>;

    fn begin(&mut self) -> Option<SliceLane<'a, 'd>> {
        self.waiting.next().map(|(message, digest)| SliceLane::new(message, digest))
    }

    fn advance(&mut self, lane: &mut SliceLane<'a, 'd>, bytes: usize) -> Progress {
        if lane.advance(bytes) { Progress::More } else { Progress::Over }
    }

    fn end(&mut self, lane: SliceLane<'a, 'd>, digest: Option<[u8; 20]>) {
        *lane.digest = digest.expect("what is in memory can be read");
    }
}

/// Of a message in memory. Whole blocks are hashed where they lie; those that cross slices, and the padding, are
/// put together in `staged`.
struct SliceLane<'a, 'd> {
    digest: &'d mut [u8; 20],
    parts: slice::Iter<'a, &'a [u8]>,
    /// What is left of the current slice.
    current: &'a [u8],
    message_bytes: u64,
    staged: [u8; 2 * BLOCK],
    staged_at: usize,
    staged_end: usize,
    padded: bool,
}

impl<'a, 'd> SliceLane<'a, 'd> {
    fn new(message: &'a [&'a [u8]], digest: &'d mut [u8; 20]) -> Self {
        let mut lane = Self {
            digest,
            parts: message.iter(),
            current: &[],
            message_bytes: 0,
            staged: [0; 2 * BLOCK],
            staged_at: 0,
            staged_end: 0,
            padded: false,
        };
        lane.prepare();
        lane
    }

    /// These were hashed. Whether there are more.
    fn advance(&mut self, bytes: usize) -> bool {
        if self.staged_at < self.staged_end {
            self.staged_at += bytes;
        } else {
            self.current = &self.current[bytes..];
        }
        if !self.ready().is_empty() {
            return true;
        }
        if self.padded {
            return false;
        }
        self.prepare();
        true
    }

    /// Makes the next block ready. Called when there is no whole one.
    fn prepare(&mut self) {
        self.staged_at = 0;
        self.staged_end = 0;
        let mut filled = 0;
        loop {
            if filled == 0 && self.current.len() >= BLOCK {
                return;
            }
            let (taken, rest) = self.current.split_at(self.current.len().min(BLOCK - filled));
            self.staged[filled..filled + taken.len()].copy_from_slice(taken);
            filled += taken.len();
            self.current = rest;
            if filled == BLOCK {
                self.staged_end = BLOCK;
                return;
            }
            let Some(next) = self.parts.next() else { break };
            self.current = next;
            self.message_bytes += next.len() as u64;
        }
        self.padded = true;
        self.staged_end = if filled < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
        self.staged[filled..].fill(0);
        self.staged[filled] = 0x80;
        let bits = (self.message_bytes * 8).to_be_bytes();
        self.staged[self.staged_end - 8..self.staged_end].copy_from_slice(&bits);
    }
}

impl Lane for SliceLane<'_, '_> {
    fn ready(&self) -> &[u8] {
        let staged = &self.staged[self.staged_at..self.staged_end];
        if staged.is_empty() { &self.current[..self.current.len() / BLOCK * BLOCK] } else { staged }
    }
}

/// Messages that are read while they are hashed.
struct OnTheWay<'b, 'r, I> {
    waiting: I,
    /// Parts of the buffer that no lane uses.
    free: Vec<&'b mut [u8]>,
    read: &'r mut dyn FnMut(usize, u32, &mut [u8]) -> bool,
}

/// Of a message that is read: each part of it is followed by more, or by the padding.
struct ReadLane<'b, 'd> {
    message: usize,
    digest: &'d mut Option<[u8; 20]>,
    length: u32,
    read_bytes: u32,
    padded: bool,
    part: &'b mut [u8],
    at: usize,
    end: usize,
}

impl<'b, 'd, 'l, I> Source for OnTheWay<'b, '_, I>
where
    I: Iterator<Item = ((usize, &'l u32), &'d mut Option<[u8; 20]>)>,
{
    type Lane = ReadLane<'b, 'd>;

    fn begin(&mut self) -> Option<ReadLane<'b, 'd>> {
        loop {
            let part = self.free.pop()?;
            let Some(((message, length), digest)) = self.waiting.next() else {
                self.free.push(part);
                return None;
            };
            let (read_bytes, padded, at, end) = (0, false, 0, 0);
            let mut lane = ReadLane { message, digest, length: *length, read_bytes, padded, part, at, end };
            if lane.fill(self.read) {
                return Some(lane);
            }
            self.free.push(lane.part);
        }
    }

    fn advance(&mut self, lane: &mut ReadLane<'b, 'd>, bytes: usize) -> Progress {
        lane.at += bytes;
        match lane.at < lane.end {
            true => Progress::More,
            false if lane.padded => Progress::Over,
            false if lane.fill(self.read) => Progress::More,
            false => Progress::Gone,
        }
    }

    fn end(&mut self, lane: ReadLane<'b, 'd>, digest: Option<[u8; 20]>) {
        *lane.digest = digest;
        self.free.push(lane.part);
    }
}

impl Lane for ReadLane<'_, '_> {
    fn ready(&self) -> &[u8] {
        &self.part[self.at..self.end]
    }
}

impl ReadLane<'_, '_> {
    /// Reads the next part; behind the last comes the padding, for which a block is always left. Whether it could be read.
    fn fill(&mut self, read: &mut dyn FnMut(usize, u32, &mut [u8]) -> bool) -> bool {
        let bytes = (self.part.len() - BLOCK).min((self.length - self.read_bytes) as usize);
        if bytes > 0 && !read(self.message, self.read_bytes, &mut self.part[..bytes]) {
            return false;
        }
        self.read_bytes += bytes as u32;
        (self.at, self.end) = (0, bytes);
        if self.read_bytes == self.length {
            self.padded = true;
            self.end = (bytes + PADDING_BYTES_MIN).next_multiple_of(BLOCK);
            let padding = &mut self.part[bytes..self.end];
            padding.fill(0);
            padding[0] = 0x80;
            let bits = (u64::from(self.length) * 8).to_be_bytes();
            let at = padding.len() - bits.len();
            padding[at..].copy_from_slice(&bits);
        }
        true
    }
}

const BLOCK: usize = 64;
/// A bit, and how many bits the message has.
const PADDING_BYTES_MIN: usize = 9;
/// Messages side by side, at most.
const LANES_MAX: usize = 16;
/// Sixteen lanes by AVX-512 take as long as nine or ten by turns.
#[cfg(target_arch = "x86_64")]
const WIDE_FROM: usize = 10;
/// Of a message that is read: this much at once, and a block for the padding.
const PART_BYTES_MAX: usize = (64 << 10) + BLOCK;
const INITIAL_STATE: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Messages of these lengths, each cut into slices of this many bytes: in memory, and read through a small buffer.
    fn check(messages: &[(usize, usize)]) {
        let contents: Vec<Vec<u8>> = messages
            .iter()
            .enumerate()
            .map(|(at, (bytes, _))| (0..*bytes).map(|byte| (byte * 7 + byte / 251 + at) as u8).collect())
            .collect();
        let cut: Vec<Vec<&[u8]>> = contents
            .iter()
            .zip(messages)
            .map(|(content, (_, slice_bytes))| content.chunks((*slice_bytes).max(1)).collect())
            .collect();
        let mut expected = vec![[7; 20]];
        let mut found = expected.clone();
        sha1_each(&cut, &mut expected);
        Sha1Lanes.digests(&cut, &mut found);
        assert_eq!(found, expected);

        let lengths: Vec<u32> = contents.iter().map(|content| content.len() as u32).collect();
        let mut buffer = vec![0; 16 << 10];
        let unread = contents.len() / 2;
        let mut expected: Vec<_> = expected.into_iter().skip(1).map(Some).collect();
        if let Some(unread) = expected.get_mut(unread).filter(|_| lengths[unread] > 0) {
            *unread = None;
        }
        let found = Sha1Lanes.digests_read(&lengths, &mut buffer, &mut |at, begin, part| {
            part.copy_from_slice(&contents[at][begin as usize..][..part.len()]);
            at != unread
        });
        assert_eq!(found, expected);
    }

    /// Each way of hashing that this processor has, with as many lanes as it may have.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_kernel_has_the_digests_of_the_sha1_crate() {
        let kernels: [(bool, usize, Compress); 3] = [
            (sha_ni::is_available(), sha_ni::LANES, sha_ni::compress),
            (wide::avx2::is_available(), wide::avx2::LANES, wide::avx2::compress),
            (wide::avx512::is_available(), wide::avx512::LANES, wide::avx512::compress),
        ];
        let contents: Vec<Vec<u8>> =
            (0..40_usize).map(|at| (0..at * 97 % 700).map(|byte| (byte * 31 + at) as u8).collect()).collect();
        let messages: Vec<Vec<&[u8]>> = contents.iter().map(|content| vec![content.as_slice()]).collect();
        let mut expected = Vec::new();
        sha1_each(&messages, &mut expected);
        for (_, lanes_max, compress) in kernels.into_iter().filter(|(is_available, ..)| *is_available) {
            for lanes_max in 1..=lanes_max {
                let mut digests = vec![[0; 20]; messages.len()];
                let waiting = messages.iter().zip(&mut digests);
                Kernel { lanes_max, compress }.hash(&mut InMemory { waiting });
                assert_eq!(digests, expected);
            }
        }
    }

    #[test]
    fn known_messages_have_their_digests() {
        let mut digests = Vec::new();
        Sha1Lanes.digests(&[vec![], vec![b"a".as_slice(), b"", b"bc"]], &mut digests);
        let hex = |digest: &[u8; 20]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&digests[0]), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(hex(&digests[1]), "a9993e364706816aba3e25717850c26c9cd0d89d");
    }

    #[test]
    fn every_length_around_two_blocks_is_padded_right() {
        check(&(0..200).map(|bytes| (bytes, 1000)).collect::<Vec<_>>());
        check(&(0..200).map(|bytes| (bytes, 13)).collect::<Vec<_>>());
    }

    #[test]
    fn no_message_gives_no_digest() {
        check(&[]);
    }

    proptest! {
        #[test]
        fn digests_are_those_of_the_sha1_crate(
            messages in prop::collection::vec((0_usize..3000, 1_usize..700), 0..40)
        ) {
            check(&messages);
        }
    }
}
