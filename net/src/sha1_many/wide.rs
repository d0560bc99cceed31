//! SHA-1 in the lanes of wide registers: sixteen messages by AVX-512, eight by AVX2, word by word side by side.
#![allow(unsafe_code, reason = "processor instructions; each use says why it is sound")]

/// All eighty rounds, each a function of its own number, so that every index is known when it is compiled.
macro_rules! rounds {
    ($state:expr, $words:expr) => {
        rounds!($state, $words,
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39
            40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75
            76 77 78 79)
    };
    ($state:expr, $words:expr, $($number:literal)*) => { $(round::<$number>($state, $words);)* };
}

/// What both widths have in common. A module brings `Vector` and `LANES`, and functions of vectors: `add`, `rotate`,
/// `choose`, `parity`, `majority`, `splat`, `from_words`, `to_words`, and `block`, which loads one block of each lane.
macro_rules! kernel {
    ($features:literal) => {
        /// See [`super::super::Compress`].
        ///
        /// # Panics
        /// When the processor cannot, or there are no or too many lanes, or they are not equally long.
        pub(in super::super) fn compress(states: &mut [[u32; 5]], blocks: &[&[u8]]) {
            assert!(is_available());
            // SAFETY: the features that the function is compiled for were just seen.
            unsafe { lanes(states, blocks) }
        }

        #[target_feature(enable = $features)]
        fn lanes(states: &mut [[u32; 5]], blocks: &[&[u8]]) {
            assert!((1..=LANES).contains(&states.len()) && states.len() == blocks.len());
            let bytes = blocks[0].len();
            assert!(bytes.is_multiple_of(BLOCK) && blocks.iter().all(|blocks| blocks.len() == bytes));
            // Lanes that nobody uses go with the first.
            let mut all = [blocks[0]; LANES];
            all[..blocks.len()].copy_from_slice(blocks);
            let mut words = [[0; LANES]; 5];
            for (lane, state) in states.iter().enumerate() {
                for (words, word) in words.iter_mut().zip(state) {
                    words[lane] = *word;
                }
            }
            let mut state = [splat(0); 5];
            for (vector, words) in state.iter_mut().zip(&words) {
                *vector = from_words(words);
            }
            for offset in (0..bytes).step_by(BLOCK) {
                let mut words = block(&all, offset);
                let before = state;
                rounds!(&mut state, &mut words);
                for (vector, before) in state.iter_mut().zip(before) {
                    *vector = add(*vector, before);
                }
            }
            for (words, vector) in words.iter_mut().zip(state) {
                *words = to_words(vector);
            }
            for (lane, state) in states.iter_mut().enumerate() {
                *state = words.map(|words| words[lane]);
            }
        }

        /// One round. The five words of the state change places with each, and come back after five.
        #[inline]
        #[target_feature(enable = $features)]
        fn round<const T: usize>(state: &mut [Vector; 5], words: &mut [Vector; 16]) {
            if T >= 16 {
                let earlier = parity(words[(T + 13) % 16], words[(T + 8) % 16], words[(T + 2) % 16]);
                words[T % 16] = rotate::<1, 31>(parity(earlier, words[T % 16], splat(0)));
            }
            let [a, b, c, d, e] = [80, 81, 82, 83, 84].map(|at| (at - T) % 5);
            let (mixed, constant) = match T / 20 {
                0 => (choose(state[b], state[c], state[d]), 0x5a82_7999),
                1 => (parity(state[b], state[c], state[d]), 0x6ed9_eba1),
                2 => (majority(state[b], state[c], state[d]), 0x8f1b_bcdc),
                _ => (parity(state[b], state[c], state[d]), 0xca62_c1d6),
            };
            let sum = add(add(words[T % 16], splat(constant)), add(mixed, rotate::<5, 27>(state[a])));
            state[e] = add(state[e], sum);
            state[b] = rotate::<30, 2>(state[b]);
        }
    };
}

pub(super) mod avx512 {
    use core::arch::x86_64::{
        __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_rol_epi32, _mm512_set_epi64, _mm512_set1_epi32,
        _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_ternarylogic_epi32,
        _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    };

    use super::super::BLOCK;

    pub(in super::super) const LANES: usize = 16;
    type Vector = __m512i;

    /// Whether the processor has it.
    pub(in super::super) fn is_available() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
    }

    kernel!("avx512f,avx512bw");

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(a: Vector, b: Vector) -> Vector {
        _mm512_add_epi32(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn rotate<const LEFT: i32, const RIGHT: i32>(a: Vector) -> Vector {
        _mm512_rol_epi32::<LEFT>(a)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn choose(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32::<0xca>(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn parity(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32::<0x96>(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32::<0xe8>(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn splat(word: u32) -> Vector {
        _mm512_set1_epi32(word.cast_signed())
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn from_words(words: &[u32; LANES]) -> Vector {
        // SAFETY: it reads the 64 bytes of `words`, which need no alignment.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn to_words(vector: Vector) -> [u32; LANES] {
        let mut words = [0; LANES];
        // SAFETY: it writes the 64 bytes of `words`, which need no alignment.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) };
        words
    }

    /// The block at `offset` of each lane, turned: one vector a word.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn block(blocks: &[&[u8]; LANES], offset: usize) -> [Vector; 16] {
        let big_endian = _mm512_set_epi64(
            0x0c0d_0e0f_0809_0a0b,
            0x0405_0607_0001_0203,
            0x0c0d_0e0f_0809_0a0b,
            0x0405_0607_0001_0203,
            0x0c0d_0e0f_0809_0a0b,
            0x0405_0607_0001_0203,
            0x0c0d_0e0f_0809_0a0b,
            0x0405_0607_0001_0203,
        );
        let mut rows = [splat(0); 16];
        for (row, blocks) in rows.iter_mut().zip(blocks) {
            let bytes: &[u8; BLOCK] = blocks[offset..].first_chunk().expect("lanes are whole blocks");
            // SAFETY: it reads the 64 bytes of `bytes`, which need no alignment.
            let words = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
            *row = _mm512_shuffle_epi8(words, big_endian);
        }
        // Four rows by four words, in each quarter of a register.
        let mut turned = rows;
        for at in (0..16).step_by(4) {
            let (low, high) = (
                _mm512_unpacklo_epi32(rows[at], rows[at + 1]),
                _mm512_unpacklo_epi32(rows[at + 2], rows[at + 3]),
            );
            turned[at] = _mm512_unpacklo_epi64(low, high);
            turned[at + 1] = _mm512_unpackhi_epi64(low, high);
            let (low, high) = (
                _mm512_unpackhi_epi32(rows[at], rows[at + 1]),
                _mm512_unpackhi_epi32(rows[at + 2], rows[at + 3]),
            );
            turned[at + 2] = _mm512_unpacklo_epi64(low, high);
            turned[at + 3] = _mm512_unpackhi_epi64(low, high);
        }
        // And then the quarters.
        let mut words = rows;
        for at in 0..4 {
            let (a, b, c, d) = (turned[at], turned[at + 4], turned[at + 8], turned[at + 12]);
            let (even, odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
            let (even2, odd2) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
            words[at] = _mm512_shuffle_i32x4::<0x88>(even, even2);
            words[at + 4] = _mm512_shuffle_i32x4::<0x88>(odd, odd2);
            words[at + 8] = _mm512_shuffle_i32x4::<0xdd>(even, even2);
            words[at + 12] = _mm512_shuffle_i32x4::<0xdd>(odd, odd2);
        }
        words
    }
}

pub(super) mod avx2 {
    use core::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_loadu_si256, _mm256_or_si256,
        _mm256_permute2x128_si256, _mm256_set_epi64x, _mm256_set1_epi32, _mm256_shuffle_epi8,
        _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32,
        _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
    };

    use super::super::BLOCK;

    pub(in super::super) const LANES: usize = 8;
    type Vector = __m256i;

    /// Whether the processor has it.
    pub(in super::super) fn is_available() -> bool {
        is_x86_feature_detected!("avx2")
    }

    kernel!("avx2");

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(a: Vector, b: Vector) -> Vector {
        _mm256_add_epi32(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn rotate<const LEFT: i32, const RIGHT: i32>(a: Vector) -> Vector {
        _mm256_or_si256(_mm256_slli_epi32::<LEFT>(a), _mm256_srli_epi32::<RIGHT>(a))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn choose(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm256_xor_si256(c, _mm256_and_si256(a, _mm256_xor_si256(b, c)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn parity(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm256_xor_si256(_mm256_xor_si256(a, b), c)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn splat(word: u32) -> Vector {
        _mm256_set1_epi32(word.cast_signed())
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn from_words(words: &[u32; LANES]) -> Vector {
        // SAFETY: it reads the 32 bytes of `words`, which need no alignment.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn to_words(vector: Vector) -> [u32; LANES] {
        let mut words = [0; LANES];
        // SAFETY: it writes the 32 bytes of `words`, which need no alignment.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) };
        words
    }

    /// The block at `offset` of each lane, turned: one vector a word.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn block(blocks: &[&[u8]; LANES], offset: usize) -> [Vector; 16] {
        let big_endian = _mm256_set_epi64x(
            0x0c0d_0e0f_0809_0a0b,
            0x0405_0607_0001_0203,
            0x0c0d_0e0f_0809_0a0b,
            0x0405_0607_0001_0203,
        );
        let mut words = [splat(0); 16];
        for half in 0..2 {
            let mut rows = [splat(0); 8];
            for (row, blocks) in rows.iter_mut().zip(blocks) {
                let bytes: &[u8; BLOCK / 2] =
                    blocks[offset + half * BLOCK / 2..].first_chunk().expect("lanes are whole blocks");
                // SAFETY: it reads the 32 bytes of `bytes`, which need no alignment.
                let words = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
                *row = _mm256_shuffle_epi8(words, big_endian);
            }
            // Four rows by four words, in each half of a register; and then the halves.
            let mut turned = rows;
            for at in [0, 4] {
                let (low, high) = (
                    _mm256_unpacklo_epi32(rows[at], rows[at + 1]),
                    _mm256_unpacklo_epi32(rows[at + 2], rows[at + 3]),
                );
                turned[at] = _mm256_unpacklo_epi64(low, high);
                turned[at + 1] = _mm256_unpackhi_epi64(low, high);
                let (low, high) = (
                    _mm256_unpackhi_epi32(rows[at], rows[at + 1]),
                    _mm256_unpackhi_epi32(rows[at + 2], rows[at + 3]),
                );
                turned[at + 2] = _mm256_unpacklo_epi64(low, high);
                turned[at + 3] = _mm256_unpackhi_epi64(low, high);
            }
            for at in 0..4 {
                let (top, bottom) = (turned[at], turned[at + 4]);
                words[half * 8 + at] = _mm256_permute2x128_si256::<0x20>(top, bottom);
                words[half * 8 + at + 4] = _mm256_permute2x128_si256::<0x31>(top, bottom);
            }
        }
        words
    }
}
