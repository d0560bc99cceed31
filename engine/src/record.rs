//! Recordings: what happened to an engine, payload left out, so that it can happen again.
//!
//! A recording is a head and frames. The head is [`MAGIC`], then the [`StartValues`] and [`Config`]; a frame is a length
//! (4 bytes, little-endian) and that many bytes of `postcard`: the time since the frame before, the [`Input`], and a
//! digest of all outputs that it led to. Replayed through a fresh engine, the digests must be the same.

use std::hash::{Hash, Hasher};
use std::io;

use serde::{Deserialize, Serialize};

use crate::config::{Config, StartValues};
use crate::engine::Engine;
use crate::input::Input;
use crate::output::Output;
use crate::time::Instant;

/// What a recording begins with; the last byte is the version of the format.
pub const MAGIC: &[u8; 8] = b"taipeiR\x05";
/// The largest frame read: a torrent file, and some.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// A hash that is the same in every process and profile: two multiply-fold lanes. Not against an adversary.
#[derive(Clone, Debug)]
pub struct Digest {
    lanes: [u64; 2],
}

impl Default for Digest {
    fn default() -> Self {
        Self { lanes: [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f] }
    }
}

impl Digest {
    /// Takes in a number.
    pub fn add(&mut self, value: u64) {
        for (lane, factor) in self.lanes.iter_mut().zip([0xff51_afd7_ed55_8ccd, 0x9fb2_1c65_1e98_df25]) {
            let product = u128::from(*lane ^ value) * u128::from(factor | 1u64);
            *lane = (product as u64) ^ ((product >> 64) as u64) ^ lane.rotate_left(23);
        }
    }

    /// All 128 bits.
    pub fn wide(&self) -> u128 {
        (u128::from(self.lanes[0]) << 64) | u128::from(self.lanes[1])
    }
}

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

    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }
}

#[derive(Serialize)]
struct FrameRef<'a> {
    after_ns: u64,
    input: &'a [u8],
    outputs: u64,
}

#[derive(Deserialize)]
struct Frame {
    after_ns: u64,
    input: Vec<u8>,
    outputs: u64,
}

/// Writes a recording.
pub struct Recording<W> {
    sink: W,
    last: Instant,
    /// The input whose outputs are being taken, as bytes.
    pending: Option<(u64, Vec<u8>)>,
    outputs: Digest,
    /// The first failure; nothing is written after it.
    failed: Option<io::Error>,
}

impl<W: io::Write> Recording<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// What the sink says.
    pub fn new(mut sink: W, config: &Config, start: &StartValues) -> io::Result<Self> {
        sink.write_all(MAGIC)?;
        write_frame(&mut sink, &(start, config))?;
        Ok(Self { sink, last: Instant::START, pending: None, outputs: Digest::default(), failed: None })
    }

    /// Something is about to happen to the engine.
    pub fn on_input(&mut self, now: Instant, input: &Input) {
        self.flush_frame();
        match postcard::to_stdvec(input) {
            Ok(bytes) => self.pending = Some((now.0.saturating_sub(self.last.0), bytes)),
            Err(error) => self.failed = Some(io::Error::other(error)),
        }
        self.last = self.last.max(now);
    }

    /// The engine asks for something on account of it.
    pub fn on_output(&mut self, output: &Output) {
        output.hash(&mut self.outputs);
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// The first thing that went wrong while recording.
    pub fn finish(&mut self) -> io::Result<()> {
        self.flush_frame();
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.sink.flush(),
        }
    }

    fn flush_frame(&mut self) {
        let outputs = std::mem::take(&mut self.outputs).finish();
        let Some((after_ns, input)) = self.pending.take() else { return };
        if self.failed.is_none()
            && let Err(error) = write_frame(&mut self.sink, &FrameRef { after_ns, input: &input, outputs })
        {
            self.failed = Some(error);
        }
    }
}

fn write_frame(sink: &mut impl io::Write, value: &impl Serialize) -> io::Result<()> {
    let bytes = postcard::to_stdvec(value).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    sink.write_all(&length.to_le_bytes())?;
    sink.write_all(&bytes)
}

/// Why a recording cannot be replayed, or was not repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It is no recording, or of another version.
    #[error("not a taipei recording, or one of another version")]
    Format,
    /// It cannot be read.
    #[error("cannot read the recording: {0}")]
    Read(#[from] io::Error),
    /// The engine did something else than it did then.
    #[error("outputs differ at input {number}, {at:?} after the start: {input}")]
    Differs {
        /// Which input, counted from 0.
        number: u64,
        /// Its time.
        at: Instant,
        /// The input and what the engine asks for now.
        input: String,
    },
}

/// What a replay repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Inputs given.
    pub inputs: u64,
    /// Outputs that came, all as they did then.
    pub outputs: u64,
    /// When the last input came.
    pub end: Instant,
    /// Of all outputs.
    pub digest: u64,
}

/// Gives all inputs of a recording to a fresh engine, and compares its outputs with those of then. A recording whose
/// end was lost (the process was killed) is repeated as far as it goes.
///
/// # Errors
/// When it cannot be read, or is not repeated.
pub fn replay(mut source: impl io::Read) -> Result<Replayed, ReplayError> {
    let mut magic = [0; MAGIC.len()];
    source.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(ReplayError::Format);
    }
    let head = read_frame(&mut source)?.ok_or(ReplayError::Format)?;
    let (start, config): (StartValues, Config) =
        postcard::from_bytes(&head).map_err(|_| ReplayError::Format)?;
    let mut engine = Engine::new(config, start);
    let mut done = Replayed::default();
    let mut all = Digest::default();
    while let Some(bytes) = read_frame(&mut source)? {
        let frame: Frame = postcard::from_bytes(&bytes).map_err(|_| ReplayError::Format)?;
        let input: Input = postcard::from_bytes(&frame.input).map_err(|_| ReplayError::Format)?;
        done.end = Instant(done.end.0.saturating_add(frame.after_ns));
        let told = format!("{input:?}");
        engine.handle_input(done.end, input);
        let mut digest = Digest::default();
        let mut outputs = Vec::new();
        while let Some(output) = engine.poll_output() {
            output.hash(&mut digest);
            outputs.push(output);
        }
        done.outputs += outputs.len() as u64;
        all.add(digest.finish());
        if digest.finish() != frame.outputs {
            let input = format!("{told} now gives {outputs:?}");
            return Err(ReplayError::Differs { number: done.inputs, at: done.end, input });
        }
        done.inputs += 1;
    }
    done.digest = all.finish();
    Ok(done)
}

/// The next frame; none at the end, or where the last one was cut.
fn read_frame(source: &mut impl io::Read) -> Result<Option<Vec<u8>>, ReplayError> {
    let mut length = [0; 4];
    if !fill(source, &mut length)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length);
    if length > FRAME_BYTES_MAX {
        return Err(ReplayError::Format);
    }
    let mut bytes = vec![0; length as usize];
    Ok(fill(source, &mut bytes)?.then_some(bytes))
}

fn fill(source: &mut impl io::Read, bytes: &mut [u8]) -> io::Result<bool> {
    match source.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
