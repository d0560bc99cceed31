//! Randomness is a seed given at start: a stream is a function of (seed, name, entity), so one more torrent or one
//! more consumer shifts nobody else's draws.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sha1::{Digest as _, Sha1};

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream that `seed` gives to the consumer `name` of the thing numbered `entity`.
    pub fn stream(seed: u64, name: &str, entity: u64) -> Self {
        let mut key = [0; 32];
        key[..20].copy_from_slice(
            &Sha1::new()
                .chain_update(seed.to_le_bytes())
                .chain_update(entity.to_le_bytes())
                .chain_update(name.as_bytes())
                .finalize(),
        );
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Any 32-bit number.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Any 64-bit number.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Puts `items` in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_name_and_entity() {
        let draw = |seed, name, entity| Rng::stream(seed, name, entity).next_u64();
        assert_eq!(draw(1, "picker", 2), draw(1, "picker", 2));
        let draws = [draw(1, "picker", 2), draw(2, "picker", 2), draw(1, "choker", 2), draw(1, "picker", 3)];
        for (at, a) in draws.iter().enumerate() {
            assert!(draws.iter().skip(at + 1).all(|b| a != b));
        }
    }

    #[test]
    fn below_stays_below() {
        let mut rng = Rng::stream(0, "test", 0);
        assert_eq!(rng.below(0), 0);
        assert!((0..1000).all(|_| rng.below(7) < 7));
    }
}
