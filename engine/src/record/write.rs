//! Writing a recording.

use std::borrow::Cow;
use std::hash::{Hash, Hasher as _};
use std::io;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use postcard::ser_flavors::Flavor;
use serde::Serialize;

use super::{Digest, Head, Kind, Last, MAGIC, PART_BYTES, PART_HEAD_BYTES, PART_TIME_MAX};
use crate::config::{Config, StartValues};
use crate::input::Input;
use crate::output::Output;
use crate::time::Instant;

/// Writes a recording. Dropped without [`Self::finish`], it writes what it still has, so that an engine that gave up leaves
/// the input that it gave up at.
pub struct Recording<W: io::Write> {
    sink: W,
    /// Bytes that the sink may still get, the end of the recording not counted.
    room: u64,
    encoder: DeflateEncoder<Vec<u8>>,
    /// Inputs that are not written yet.
    inputs: Vec<u8>,
    /// When the first of them came.
    since: Instant,
    /// When the last one came.
    last: Instant,
    /// Of the last one's outputs; none before the first.
    outputs: Option<Digest>,
    /// Of the outputs of all inputs before.
    all: Digest,
    /// Why nothing more is written.
    stop: Option<Stop>,
}

/// Why a recording stopped.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The session is over.
    #[error("the session is over")]
    Finished,
    /// It is as large as it may be.
    #[error("it is as large as it may be")]
    Full,
    /// It could not be written.
    #[error("it cannot be written: {0}")]
    Failed(#[from] io::Error),
}

impl<W: io::Write> Recording<W> {
    /// Begins a recording of at most `bytes_max` bytes; a few hundred are the least that it can be. The sink gets few large
    /// writes.
    ///
    /// # Errors
    /// What the sink says.
    pub fn new(mut sink: W, config: &Config, start: &StartValues, bytes_max: u64) -> io::Result<Self> {
        sink.write_all(MAGIC)?;
        let mut recording = Self {
            sink,
            room: bytes_max.saturating_sub((MAGIC.len() + END_BYTES_MAX) as u64),
            encoder: DeflateEncoder::new(vec![0; PART_HEAD_BYTES], Compression::fast()),
            inputs: Vec::new(),
            since: Instant::START,
            last: Instant::START,
            outputs: None,
            all: Digest::default(),
            stop: None,
        };
        let version = Cow::Borrowed(env!("CARGO_PKG_VERSION"));
        let head = Head { version, start: start.clone(), config: config.clone() };
        let part = recording.part(Kind::Head, &plain(&head)?)?;
        recording.sink.write_all(&part)?;
        recording.room = recording.room.saturating_sub(part.len() as u64);
        Ok(recording)
    }

    /// Something is about to happen to the engine.
    pub fn on_input(&mut self, now: Instant, input: &Input) {
        if self.stop.is_some() {
            self.outputs = None;
            return;
        }
        self.settle();
        let is_late = now.since(self.since) >= PART_TIME_MAX;
        if self.inputs.len() > PART_BYTES || (is_late && !self.inputs.is_empty()) {
            self.write_inputs();
        }
        if self.inputs.is_empty() {
            self.since = now;
        }
        let after_ns = now.0.saturating_sub(self.last.0);
        let appended = append(&mut self.inputs, &(after_ns, input));
        self.outputs = Some(Digest::default());
        self.last = self.last.max(now);
        if let Err(error) = appended {
            self.stop = Some(Stop::Failed(error));
        }
    }

    /// The engine asks for something on account of it.
    pub fn on_output(&mut self, output: &Output) {
        if let Some(digest) = &mut self.outputs {
            output.hash(digest);
        }
    }

    /// Why it stopped, if it did.
    pub fn stop(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    /// Writes what is left, and that this was all. Why it stopped, which may have been earlier.
    pub fn finish(&mut self) -> &Stop {
        if self.stop.is_none() {
            self.settle();
            self.write_inputs();
        }
        if self.stop.is_none() {
            self.end(Last::Finished);
        }
        self.stop.get_or_insert(Stop::Finished)
    }

    /// What the last input led to is known.
    fn settle(&mut self) {
        if let Some(digest) = self.outputs.take() {
            self.inputs.push(digest.finish() as u8);
            self.all.add(digest.finish());
        }
    }

    fn write_inputs(&mut self) {
        let mut inputs = std::mem::take(&mut self.inputs);
        if inputs.is_empty() {
            return;
        }
        inputs.extend_from_slice(&self.all.finish().to_le_bytes());
        let written = self.part(Kind::Inputs, &inputs).and_then(|part| {
            let Some(room) = self.room.checked_sub(part.len() as u64) else { return Ok(false) };
            self.room = room;
            self.sink.write_all(&part).map(|()| true)
        });
        match written {
            Ok(true) => {}
            Ok(false) => self.end(Last::Full),
            Err(error) => self.stop = Some(Stop::Failed(error)),
        }
        inputs.clear();
        inputs.shrink_to(2 * PART_BYTES);
        self.inputs = inputs;
    }

    fn end(&mut self, last: Last) {
        let ended = plain(&last).and_then(|bytes| self.part(Kind::End, &bytes)).and_then(|part| {
            self.sink.write_all(&part)?;
            self.sink.flush()
        });
        self.stop = Some(match (ended, last) {
            (Err(error), _) => Stop::Failed(error),
            (Ok(()), Last::Full) => Stop::Full,
            (Ok(()), Last::Finished) => Stop::Finished,
        });
    }

    /// A part as it is written.
    fn part(&mut self, kind: Kind, plain: &[u8]) -> io::Result<Vec<u8>> {
        io::Write::write_all(&mut self.encoder, plain)?;
        // It began with room for the head of the part.
        let mut part = self.encoder.reset(vec![0; PART_HEAD_BYTES])?;
        let deflated = &part[PART_HEAD_BYTES..];
        let (length, checksum) = (u32::try_from(deflated.len()), crc32c::crc32c(deflated));
        part[0] = kind as u8;
        part[1..5].copy_from_slice(&length.map_err(io::Error::other)?.to_le_bytes());
        part[5..9].copy_from_slice(&checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&part[..9]);
        part[9..PART_HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
        Ok(part)
    }
}

impl<W: io::Write> Drop for Recording<W> {
    fn drop(&mut self) {
        if self.stop.is_none() {
            self.settle();
            self.write_inputs();
        }
    }
}

/// Values one after the other in memory that is used again.
struct Appending<'a>(&'a mut Vec<u8>);

impl Flavor for Appending<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

fn append(bytes: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    postcard::serialize_with_flavor(value, Appending(bytes)).map_err(io::Error::other)
}

fn plain(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    append(&mut bytes, value)?;
    Ok(bytes)
}

/// The last part, of one small value.
const END_BYTES_MAX: usize = PART_HEAD_BYTES + 16;
