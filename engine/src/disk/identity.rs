//! What a state file is of, and why it is not believed.

use crate::ids::InfoHash;
use crate::metainfo::Layout;

/// The torrent that a state file must be of. The info-hash decides the rest; the counts bound what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of which torrent.
    pub info_hash: InfoHash,
    /// Its pieces.
    pub piece_count: u32,
    /// Its files, pad files and symlinks included.
    pub file_count: u32,
}

/// The figures of a file when something was written down about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Its length in bytes.
    pub length: u64,
    /// When it was last written, nanoseconds since 1970.
    pub modified_ns: i64,
}

/// Why a state file is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// It ends early, or goes on where it should not.
    #[error("wrong length")]
    Length,
    /// It is something else.
    #[error("not a state file")]
    Foreign,
    /// Written by a later version of this program.
    #[error("version {0} is not known here")]
    Version(u32),
    /// Of another torrent, or of other pieces or files.
    #[error("of another torrent")]
    OtherTorrent,
    /// Bytes changed since it was written.
    #[error("wrong checksum")]
    Checksum,
    /// Its checksum is right and what it says cannot be.
    #[error("nonsense")]
    Nonsense,
}

impl Identity {
    /// Of the torrent with these files and pieces.
    pub fn new(info_hash: InfoHash, layout: &Layout) -> Self {
        let file_count = u32::try_from(layout.files().len()).expect("a layout caps its files");
        Self { info_hash, piece_count: layout.piece_count(), file_count }
    }

    /// Begins a state file: magic, version, identity.
    pub(super) fn encode(&self, magic: [u8; 8], version: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(IDENTITY_BYTES);
        bytes.extend(magic);
        bytes.extend(version.to_le_bytes());
        bytes.extend(self.info_hash.0);
        bytes.extend(self.piece_count.to_le_bytes());
        bytes.extend(self.file_count.to_le_bytes());
        bytes
    }

    /// Whether a state file begins as it should; what follows may still be anything.
    pub(super) fn expect(
        &self,
        reader: &mut Reader<'_>,
        magic: [u8; 8],
        version: u32,
    ) -> Result<(), StateError> {
        if reader.array::<8>()? != magic {
            return Err(StateError::Foreign);
        }
        let found = reader.u32()?;
        if found != version {
            return Err(StateError::Version(found));
        }
        let (info_hash, piece_count, file_count) = (reader.array()?, reader.u32()?, reader.u32()?);
        let found = Self { info_hash: InfoHash(info_hash), piece_count, file_count };
        if found == *self { Ok(()) } else { Err(StateError::OtherTorrent) }
    }
}

/// Takes numbers off the front of bytes.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], StateError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(StateError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(StateError::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, StateError> {
        self.array().map(i64::from_le_bytes)
    }
}

/// What [`Identity::encode`] gives.
pub(super) const IDENTITY_BYTES: usize = 8 + 4 + 20 + 4 + 4;
