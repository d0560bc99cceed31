//! Reading a recording, part by part: whatever a part says, it was checked first, and nothing is larger than it may be.

use std::io::{self, Read as _};

use flate2::bufread::DeflateDecoder;
use serde::de::DeserializeOwned;

use super::{DIGEST_BYTES, Head, Kind, Last, MAGIC, PART_BYTES_MAX, PART_HEAD_BYTES};
use crate::input::Input;

/// Whether a file that begins so is a recording, of this version or another.
pub fn is_recording(begin: &[u8]) -> bool {
    begin.starts_with(&MAGIC[..MAGIC.len() - 1])
}

/// Why nothing of a recording can be repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It begins as no recording does.
    #[error("not a taipei recording")]
    Foreign,
    /// It is of another version of the format.
    #[error(
        "a taipei recording of format {found}; this program reads format {}: take the taipei-sim of the release that recorded it",
        MAGIC[MAGIC.len() - 1]
    )]
    Version {
        /// Which.
        found: u8,
    },
    /// What it begins from is not there.
    #[error("a taipei recording of which nothing can be repeated: {0}")]
    Head(Damage),
    /// The system said no.
    #[error("cannot read the recording: {0}")]
    Io(#[from] io::Error),
}

/// What is wrong with a recording, from there on. Bytes are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file ends where a part should begin.
    #[error(
        "it ends at byte {at} without saying why: the process that recorded it was killed, or the file was cut"
    )]
    NoEnd {
        /// The length of the file.
        at: u64,
    },
    /// The file ends within a part.
    #[error("it ends at byte {} within the part at byte {at}, which has {wanted} bytes: the file was cut", .at + .found)]
    Cut {
        /// Where the part begins.
        at: u64,
        /// How long it is, as far as is known.
        wanted: u64,
        /// How much of it there is.
        found: u64,
    },
    /// What a part begins with is not what was written.
    #[error(
        "the head of the part at byte {at} is damaged: its checksum is {found:08x}, and should be {wanted:08x}"
    )]
    PartHead {
        /// Where the part begins.
        at: u64,
        /// As it is written.
        wanted: u32,
        /// Of what is there.
        found: u32,
    },
    /// What is in a part is not what was written.
    #[error("the part at byte {at} is damaged: its checksum is {found:08x}, and should be {wanted:08x}")]
    Part {
        /// Where it begins.
        at: u64,
        /// As it is written.
        wanted: u32,
        /// Of what is there.
        found: u32,
    },
    /// The checksums of a part are right, and it makes no sense.
    #[error("the part at byte {at} was not written by this version: {what}")]
    Nonsense {
        /// Where it begins.
        at: u64,
        /// What does not fit.
        what: &'static str,
    },
}

impl Damage {
    /// Whether it is no more than an end that is missing, as when the process was killed.
    pub fn is_cut(&self) -> bool {
        matches!(self, Self::NoEnd { .. } | Self::Cut { .. })
    }
}

/// One input as it was recorded.
pub(super) struct Recorded {
    pub(super) after_ns: u64,
    pub(super) input: Input,
    /// Of its outputs, the low byte of the digest.
    pub(super) check: u8,
}

/// What comes after the last input of a recording that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing: the session was over.
    Finished,
    /// Nothing: the recording was as large as it might be, and the session went on.
    Full,
    /// Nothing that can be used.
    Damaged(Damage),
}

/// Reads a recording without repeating it: how many inputs it has, and what comes after them.
///
/// # Errors
/// When nothing of it can be read.
pub fn check(source: impl io::Read) -> Result<(u64, Ending), ReadError> {
    let (mut reader, _) = Reader::begin(source)?;
    let mut count = 0;
    loop {
        let mut inputs = match reader.next()? {
            Ok(inputs) => inputs,
            Err(ending) => return Ok((count, ending)),
        };
        loop {
            match inputs.next() {
                Ok(Some(_)) => count += 1,
                Ok(None) => break,
                Err(damage) => return Ok((count, Ending::Damaged(damage))),
            }
        }
    }
}

/// What is left of a part of inputs.
pub(super) struct Inputs {
    at: u64,
    bytes: Vec<u8>,
    next: usize,
    /// Of the outputs of all inputs, these included.
    pub(super) digest: u64,
}

impl Inputs {
    fn new(at: u64, mut bytes: Vec<u8>) -> Result<Self, Damage> {
        let length = bytes.len().checked_sub(DIGEST_BYTES);
        let length = length.ok_or(Damage::Nonsense { at, what: "its digest is missing" })?;
        let digest = bytes[length..].try_into().map_or(0, u64::from_le_bytes);
        bytes.truncate(length);
        Ok(Self { at, bytes, next: 0, digest })
    }

    /// The next one; none after the last.
    pub(super) fn next(&mut self) -> Result<Option<Recorded>, Damage> {
        let left = &self.bytes[self.next..];
        if left.is_empty() {
            return Ok(None);
        }
        let nonsense = Damage::Nonsense { at: self.at, what: "an input of a kind that is not known" };
        let ((after_ns, input, check), rest) = postcard::take_from_bytes(left).map_err(|_| nonsense)?;
        self.next = self.bytes.len() - rest.len();
        Ok(Some(Recorded { after_ns, input, check }))
    }
}

/// Reads a recording, part by part.
pub(super) struct Reader<R> {
    source: R,
    /// Where the next part begins.
    at: u64,
}

/// What reading one part may fail with.
enum PartError {
    Damage(Damage),
    Io(io::Error),
}

impl<R: io::Read> Reader<R> {
    pub(super) fn begin(source: R) -> Result<(Self, Head), ReadError> {
        let mut reader = Self { source, at: MAGIC.len() as u64 };
        let mut magic = [0; MAGIC.len()];
        let found = fill(&mut reader.source, &mut magic)?;
        match magic {
            _ if found < magic.len() || !is_recording(&magic) => return Err(ReadError::Foreign),
            [.., version] if magic != *MAGIC => return Err(ReadError::Version { found: version }),
            _ => {}
        }
        let at = reader.at;
        let head = match reader.next_bytes() {
            Ok((Kind::Head, bytes)) => whole(at, &bytes).map_err(ReadError::Head)?,
            Ok(_) => return Err(ReadError::Head(Damage::Nonsense { at, what: "it is not the first" })),
            Err(PartError::Damage(damage)) => return Err(ReadError::Head(damage)),
            Err(PartError::Io(error)) => return Err(ReadError::Io(error)),
        };
        Ok((reader, head))
    }

    /// The next inputs, or what comes after the last.
    pub(super) fn next(&mut self) -> io::Result<Result<Inputs, Ending>> {
        let at = self.at;
        let part = match self.next_bytes() {
            Ok((Kind::Inputs, bytes)) => Inputs::new(at, bytes),
            Ok((Kind::End, bytes)) => match whole(at, &bytes) {
                Ok(Last::Finished) => return Ok(Err(Ending::Finished)),
                Ok(Last::Full) => return Ok(Err(Ending::Full)),
                Err(damage) => Err(damage),
            },
            Ok((Kind::Head, _)) => Err(Damage::Nonsense { at, what: "a recording begins within another" }),
            Err(PartError::Damage(damage)) => Err(damage),
            Err(PartError::Io(error)) => return Err(error),
        };
        Ok(part.map_err(Ending::Damaged))
    }

    /// The next part, checked and inflated.
    fn next_bytes(&mut self) -> Result<(Kind, Vec<u8>), PartError> {
        let at = self.at;
        let mut head = [0; PART_HEAD_BYTES];
        let found = fill(&mut self.source, &mut head).map_err(PartError::Io)?;
        let damage = |damage| Err(PartError::Damage(damage));
        match found {
            0 => return damage(Damage::NoEnd { at }),
            PART_HEAD_BYTES => {}
            _ => {
                let (wanted, found) = (PART_HEAD_BYTES as u64, found as u64);
                return damage(Damage::Cut { at, wanted, found });
            }
        }
        let number = |from: usize| head[from..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let (length, checksum, wanted) = (number(1), number(5), number(9));
        let found = crc32c::crc32c(&head[..9]);
        if found != wanted {
            return damage(Damage::PartHead { at, wanted, found });
        }
        let kind = match head[0] {
            0 => Kind::Head,
            1 => Kind::Inputs,
            2 => Kind::End,
            _ => return damage(Damage::Nonsense { at, what: "its kind is not known" }),
        };
        if length as usize > PART_BYTES_MAX {
            return damage(Damage::Nonsense { at, what: "it is larger than any part" });
        }
        // Grows with what is there, whatever the length says.
        let mut deflated = Vec::new();
        let read = self.source.by_ref().take(u64::from(length)).read_to_end(&mut deflated);
        let found = read.map_err(PartError::Io)?;
        if found < length as usize {
            let head = PART_HEAD_BYTES as u64;
            return damage(Damage::Cut { at, wanted: head + u64::from(length), found: head + found as u64 });
        }
        let found = crc32c::crc32c(&deflated);
        if found != checksum {
            return damage(Damage::Part { at, wanted: checksum, found });
        }
        self.at += (PART_HEAD_BYTES + deflated.len()) as u64;
        match inflate(&deflated) {
            Some(bytes) => Ok((kind, bytes)),
            None => {
                damage(Damage::Nonsense { at, what: "it cannot be inflated, or to more than any part has" })
            }
        }
    }
}

fn inflate(deflated: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    DeflateDecoder::new(deflated).take(PART_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= PART_BYTES_MAX).then_some(bytes)
}

/// The value that is all of a part.
fn whole<T: DeserializeOwned>(at: u64, bytes: &[u8]) -> Result<T, Damage> {
    let nonsense = Damage::Nonsense { at, what: "it holds something else than it should" };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(nonsense),
    }
}

/// Reads until the buffer is full or the source ends; how much it read.
fn fill(source: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
