//! SHA-1 of many messages at once.
//!
//! SHA-1 is bound by latency: each round waits for the one before. With SHA extensions a core does about 2.1 GB/s of
//! one message and 5.6 GB/s of four that take turns, so up to [`LANES_MAX`] messages go side by side in one thread. A
//! lane that ends takes the next message; messages may differ in length and be cut anywhere.
//!
//! This is the only module with `unsafe` code, all of it in [`x86`].

use core::slice;

use sha1::{Digest as _, Sha1};

/// Hashes messages, each a list of slices, side by side where the processor can. Digests are appended in the order of
/// the messages. A [`taipei_engine::disk::Sha1Many`].
pub fn sha1_many(messages: &[Vec<&[u8]>], digests: &mut Vec<[u8; 20]>) {
    #[cfg(target_arch = "x86_64")]
    if x86::is_available() {
        return interleaved(messages, digests, x86::compress);
    }
    one_by_one(messages, digests);
}

/// Hashes blocks of 64 bytes into as many states as there are lists of blocks. All lists are equally long.
type Compress = fn(states: &mut [[u32; 5]], blocks: &[&[u8]]);

fn one_by_one(messages: &[Vec<&[u8]>], digests: &mut Vec<[u8; 20]>) {
    digests.extend(messages.iter().map(|parts| {
        let mut sha1 = Sha1::new();
        for part in parts {
            sha1.update(part);
        }
        <[u8; 20]>::from(sha1.finalize())
    }));
}

fn interleaved(messages: &[Vec<&[u8]>], digests: &mut Vec<[u8; 20]>, compress: Compress) {
    let first_digest = digests.len();
    digests.resize(first_digest + messages.len(), [0; 20]);
    let mut waiting = messages.iter().zip(&mut digests[first_digest..]);
    let mut lanes: Vec<Lane<'_, '_>> = Vec::with_capacity(LANES_MAX);
    let mut states: Vec<[u32; 5]> = Vec::with_capacity(LANES_MAX);
    loop {
        while lanes.len() < LANES_MAX
            && let Some((message, digest)) = waiting.next()
        {
            lanes.push(Lane::new(message, digest));
            states.push(INITIAL_STATE);
        }
        let Some(bytes) = lanes.iter().map(|lane| lane.ready().len()).min() else { return };
        let mut blocks = [[].as_slice(); LANES_MAX];
        for (blocks, lane) in blocks.iter_mut().zip(&lanes) {
            *blocks = &lane.ready()[..bytes];
        }
        compress(&mut states, &blocks[..lanes.len()]);
        for at in (0..lanes.len()).rev() {
            if !lanes[at].advance(bytes) {
                for (bytes, word) in lanes[at].digest.chunks_exact_mut(4).zip(states[at]) {
                    bytes.copy_from_slice(&word.to_be_bytes());
                }
                lanes.swap_remove(at);
                states.swap_remove(at);
            }
        }
    }
}

/// A message on its way through. Whole blocks are hashed where they lie; those that cross slices, and the padding, are
/// put together in `staged`.
struct Lane<'a, 'd> {
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

impl<'a, 'd> Lane<'a, 'd> {
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

    /// The blocks to hash next; never none.
    fn ready(&self) -> &[u8] {
        let staged = &self.staged[self.staged_at..self.staged_end];
        if staged.is_empty() { &self.current[..self.current.len() / BLOCK * BLOCK] } else { staged }
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

/// The SHA extensions of x86-64.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "processor instructions; each use says why it is sound")]
mod x86 {
    use core::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32, _mm_sha1rnds4_epu32, _mm_shuffle_epi8,
        _mm_xor_si128,
    };

    use super::BLOCK;

    /// Whether the processor has them.
    pub(super) fn is_available() -> bool {
        is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1")
    }

    /// See [`super::Compress`].
    ///
    /// # Panics
    /// When the processor has no SHA extensions, or there are no or too many lanes, or they are not equally long.
    pub(super) fn compress(states: &mut [[u32; 5]], blocks: &[&[u8]]) {
        assert!(is_available());
        // SAFETY: the features that the function is compiled for were just seen.
        unsafe {
            match (states, blocks) {
                ([a], [m]) => lanes([a], [m]),
                ([a, b], [m, n]) => lanes([a, b], [m, n]),
                ([a, b, c], [m, n, o]) => lanes([a, b, c], [m, n, o]),
                ([a, b, c, d], [m, n, o, p]) => lanes([a, b, c, d], [m, n, o, p]),
                _ => panic!("one to four lanes, each with its blocks"),
            }
        }
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn lanes<const N: usize>(states: [&mut [u32; 5]; N], blocks: [&[u8]; N]) {
        let bytes = blocks[0].len();
        assert!(bytes.is_multiple_of(BLOCK) && blocks.iter().all(|blocks| blocks.len() == bytes));
        let zero = _mm_set_epi64x(0, 0);
        // The processor wants `a` in the highest word, and `e` there too.
        let mut abcd = [zero; N];
        let mut e = [zero; N];
        for lane in 0..N {
            let [a, b, c, d, last] = states[lane].map(u32::cast_signed);
            abcd[lane] = _mm_set_epi32(a, b, c, d);
            e[lane] = _mm_set_epi32(last, 0, 0, 0);
        }
        for offset in (0..bytes).step_by(BLOCK) {
            let abcd_before = abcd;
            let e_before = e;
            // `previous` is `abcd` four rounds ago: its `a`, rotated, is the `e` of now.
            let mut previous = abcd;
            let mut w = [[zero; 4]; N];

            // Four rounds. The first four times the words come from the block, later from the sixteen before.
            macro_rules! rounds {
                ($group:literal, $function:literal) => {
                    for lane in 0..N {
                        let words = if $group < 4 {
                            load(blocks[lane], offset + $group * 16)
                        } else {
                            let w = &w[lane];
                            _mm_sha1msg2_epu32(
                                _mm_xor_si128(
                                    _mm_sha1msg1_epu32(w[$group % 4], w[($group + 1) % 4]),
                                    w[($group + 2) % 4],
                                ),
                                w[($group + 3) % 4],
                            )
                        };
                        w[lane][$group % 4] = words;
                        let input = if $group == 0 {
                            _mm_add_epi32(e[lane], words)
                        } else {
                            _mm_sha1nexte_epu32(previous[lane], words)
                        };
                        previous[lane] = abcd[lane];
                        abcd[lane] = _mm_sha1rnds4_epu32::<$function>(abcd[lane], input);
                    }
                };
            }
            rounds!(0, 0);
            rounds!(1, 0);
            rounds!(2, 0);
            rounds!(3, 0);
            rounds!(4, 0);
            rounds!(5, 1);
            rounds!(6, 1);
            rounds!(7, 1);
            rounds!(8, 1);
            rounds!(9, 1);
            rounds!(10, 2);
            rounds!(11, 2);
            rounds!(12, 2);
            rounds!(13, 2);
            rounds!(14, 2);
            rounds!(15, 3);
            rounds!(16, 3);
            rounds!(17, 3);
            rounds!(18, 3);
            rounds!(19, 3);

            for lane in 0..N {
                e[lane] = _mm_sha1nexte_epu32(previous[lane], e_before[lane]);
                abcd[lane] = _mm_add_epi32(abcd[lane], abcd_before[lane]);
            }
        }
        for (lane, state) in states.into_iter().enumerate() {
            *state = [
                _mm_extract_epi32::<3>(abcd[lane]),
                _mm_extract_epi32::<2>(abcd[lane]),
                _mm_extract_epi32::<1>(abcd[lane]),
                _mm_extract_epi32::<0>(abcd[lane]),
                _mm_extract_epi32::<3>(e[lane]),
            ]
            .map(i32::cast_unsigned);
        }
    }

    /// Four words of a block, the first in the highest place.
    #[inline]
    #[target_feature(enable = "sse2,ssse3")]
    fn load(blocks: &[u8], offset: usize) -> __m128i {
        let words: &[u8; 16] = blocks[offset..].first_chunk().expect("a block is a multiple of 16 bytes");
        // SAFETY: it reads the 16 bytes of `words`, which need no alignment.
        let words = unsafe { _mm_loadu_si128(words.as_ptr().cast()) };
        _mm_shuffle_epi8(words, _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f))
    }
}

const BLOCK: usize = 64;
/// Messages side by side; more do not fit into the registers.
const LANES_MAX: usize = 4;
const INITIAL_STATE: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Messages of these lengths, each cut into slices of this many bytes.
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
        one_by_one(&cut, &mut expected);
        sha1_many(&cut, &mut found);
        assert_eq!(found, expected);
    }

    #[test]
    fn known_messages_have_their_digests() {
        let mut digests = Vec::new();
        sha1_many(&[vec![], vec![b"a".as_slice(), b"", b"bc"]], &mut digests);
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
            messages in prop::collection::vec((0_usize..3000, 1_usize..700), 0..12)
        ) {
            check(&messages);
        }
    }
}
