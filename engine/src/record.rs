//! Recordings: what happened to an engine, payload left out, so that it can happen again.
//!
//! A recording is [`MAGIC`] and parts. A part is a kind (1 byte), a length, the CRC-32C of that many bytes, the CRC-32C of
//! what stood before it in the part (4 bytes each, little-endian), and that many bytes: raw DEFLATE of
//!
//! - kind 0, which comes first: the [`Head`];
//! - kind 1: inputs, each as the time since the one before it, the [`crate::Input`], and the low byte of a digest of all
//!   outputs that it led to; then the digest of all outputs up to here, 8 bytes, little-endian;
//! - kind 2, which comes last: why there is no more.
//!
//! Values are in `postcard`. A process that is killed loses at most what happened within [`PART_TIME_MAX`] before it, and
//! damage is met before anything of the part that has it. Replayed through a fresh engine, all digests must be the same.

mod read;
mod replay;
mod write;

use std::borrow::Cow;
use std::hash::Hasher;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::read::{Damage, Ending, ReadError, check, is_recording};
pub use self::replay::{Difference, ReplayError, Replayed, Witness, replay};
pub use self::write::{Recording, Stop};
use crate::config::{Config, StartValues};

/// What a recording begins with; the last byte is the version of the format.
pub const MAGIC: &[u8; 8] = b"taipeiR\x06";
/// What happened longer ago than this is written, as soon as anything happens.
pub const PART_TIME_MAX: Duration = Duration::from_secs(2);

/// What a recording begins from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    /// The version of the engine: another may do other things.
    pub version: Cow<'static, str>,
    /// What the engine was given at its start.
    pub start: StartValues,
    /// Its settings.
    pub config: Config,
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Head = 0,
    Inputs = 1,
    End = 2,
}

/// Why a recording has no more, as its last part says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Last {
    Finished,
    Full,
}

/// A hash that is the same in every process and profile: two multiply-fold lanes. Not against an adversary.
#[derive(Clone, Debug)]
struct Digest {
    lanes: [u64; 2],
}

impl Default for Digest {
    fn default() -> Self {
        Self { lanes: [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f] }
    }
}

impl Digest {
    fn add(&mut self, value: u64) {
        for (lane, factor) in self.lanes.iter_mut().zip([0xff51_afd7_ed55_8ccd, 0x9fb2_1c65_1e98_df25]) {
            let product = u128::from(*lane ^ value) * u128::from(factor | 1u64);
            *lane = (product as u64) ^ ((product >> 64) as u64) ^ lane.rotate_left(23);
        }
    }
}

/// Numbers are taken in whole: most of what an engine asks for is made of them.
impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.lanes[0] ^ self.lanes[1].rotate_left(32)
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, value: u8) {
        self.add(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.add(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.add(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.add(value as u64);
    }
}

/// Kind, length, and two checksums.
const PART_HEAD_BYTES: usize = 13;
/// A part is written when it has more than this, before it is compressed.
const PART_BYTES: usize = 64 << 10;
/// The most that a part is inflated to: its last input may be a command with a torrent file, which is 32 MiB at most.
const PART_BYTES_MAX: usize = PART_BYTES + (34 << 20);
/// What stands at the end of a part of inputs.
const DIGEST_BYTES: usize = 8;

#[cfg(test)]
mod tests;
