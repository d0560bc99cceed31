//! Giving a recording to a fresh engine.

use std::hash::{Hash as _, Hasher as _};
use std::io;

use super::read::{Damage, Ending, Inputs, ReadError, Reader};
use super::{Digest, Head};
use crate::engine::Engine;
use crate::input::Input;
use crate::output::Output;
use crate::time::Instant;

/// Sees a replay. It changes nothing.
pub trait Witness {
    /// Comes first.
    fn begins(&mut self, _head: &Head) {}

    /// Comes before the engine is told.
    fn input(&mut self, _now: Instant, _input: &Input) {}

    /// What the engine asks for on account of it, now.
    fn output(&mut self, _now: Instant, _output: &Output) {}
}

/// Nobody looks.
impl Witness for () {}

/// What a replay repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Inputs given.
    pub inputs: u64,
    /// Outputs that came, all as they did then.
    pub outputs: u64,
    /// When the last input came.
    pub end: Instant,
    /// Of all outputs.
    pub digest: u64,
    /// What came after that.
    pub ending: Ending,
}

/// Why a recording was not repeated.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Nothing of it can be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine did something else than it did then.
    #[error("outputs differ")]
    Differs(Box<Difference>),
}

/// Where the engine did something else than it did then.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Inputs before, all of whose outputs were the same.
    pub same: u64,
    /// Inputs, the first of them number [`Self::same`], among which it is: one, where the digest of its outputs shows it.
    pub among: u64,
    /// When the last of these came.
    pub at: Instant,
    /// That input.
    pub input: Input,
    /// What the engine asks for now on account of it.
    pub outputs: Vec<Output>,
}

/// Gives all inputs of a recording to a fresh engine, and compares its outputs with those of then. One that lost its end or
/// was damaged is repeated as far as it goes: [`Replayed::ending`] says so.
///
/// # Errors
/// When nothing of it can be read, or it is not repeated.
pub fn replay(source: impl io::Read, witness: &mut impl Witness) -> Result<Replayed, ReplayError> {
    let (mut reader, head) = Reader::begin(source)?;
    witness.begins(&head);
    let mut replay = Replay {
        engine: Engine::new(head.config, head.start),
        witness,
        all: Digest::default(),
        inputs: 0,
        outputs: 0,
        end: Instant::START,
    };
    let ending = loop {
        match reader.next().map_err(ReadError::Io)? {
            Ok(inputs) => match replay.run(inputs)? {
                None => {}
                Some(damage) => break Ending::Damaged(damage),
            },
            Err(ending) => break ending,
        }
    };
    Ok(Replayed {
        inputs: replay.inputs,
        outputs: replay.outputs,
        end: replay.end,
        digest: replay.all.finish(),
        ending,
    })
}

struct Replay<'a, W> {
    engine: Engine,
    witness: &'a mut W,
    all: Digest,
    inputs: u64,
    outputs: u64,
    end: Instant,
}

impl<W: Witness> Replay<'_, W> {
    /// Repeats a part, as far as it makes sense.
    fn run(&mut self, mut inputs: Inputs) -> Result<Option<Damage>, ReplayError> {
        let first = self.inputs;
        let mut last = None;
        loop {
            let recorded = match inputs.next() {
                Ok(Some(recorded)) => recorded,
                Ok(None) => break,
                Err(damage) => return Ok(Some(damage)),
            };
            self.end = Instant(self.end.0.saturating_add(recorded.after_ns));
            self.witness.input(self.end, &recorded.input);
            let input = recorded.input.clone();
            self.engine.handle_input(self.end, recorded.input);
            let (mut digest, mut outputs) = (Digest::default(), Vec::new());
            while let Some(output) = self.engine.poll_output() {
                output.hash(&mut digest);
                self.witness.output(self.end, &output);
                outputs.push(output);
            }
            self.inputs += 1;
            self.outputs += outputs.len() as u64;
            self.all.add(digest.finish());
            if digest.finish() as u8 != recorded.check {
                let same = self.inputs - 1;
                let difference = Difference { same, among: 1, at: self.end, input, outputs };
                return Err(ReplayError::Differs(Box::new(difference)));
            }
            last = Some((input, outputs));
        }
        match last {
            Some((input, outputs)) if self.all.finish() != inputs.digest => {
                let among = self.inputs - first;
                let difference = Difference { same: first, among, at: self.end, input, outputs };
                Err(ReplayError::Differs(Box::new(difference)))
            }
            _ => Ok(None),
        }
    }
}
