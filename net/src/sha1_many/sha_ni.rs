//! SHA-1 by the SHA extensions of x86-64: up to four messages take turns in one core's pipeline.
#![allow(unsafe_code, reason = "processor instructions; each use says why it is sound")]

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x,
    _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32, _mm_sha1rnds4_epu32, _mm_shuffle_epi8,
    _mm_xor_si128,
};

use super::BLOCK;

/// Messages side by side; more do not fit into the registers.
pub(super) const LANES: usize = 4;

/// Whether the processor has them.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1")
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
