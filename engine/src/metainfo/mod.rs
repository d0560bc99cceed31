//! Torrent files: what is in them, and where their bytes lie on disk.

pub mod create;
pub mod layout;
pub mod magnet;
pub mod merkle;
pub mod paths;
mod torrent_file;
mod v2;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::create::{Content, CreateError, CreateOptions, CreatePlan, SourceFile};
pub use self::layout::{FileEntry, FileRun, Layout, LayoutError, ListedFile};
pub use self::magnet::{Magnet, MagnetError};
pub use self::paths::{PathError, PathRules, STATE_DIRECTORY, StoragePath};
use crate::bencode::BencodeError;
use crate::ids::InfoHashes;
use crate::limits::{PIECE_LENGTH_MAX, PIECES_MAX, TORRENT_FILE_BYTES_MAX, TOTAL_BYTES_MAX};

/// A torrent file that was read and judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metainfo {
    /// Safe for a file system; the first component of every path.
    pub name: String,
    /// As the torrent has it, where that is not `name`: for people to see, not escaped, never for a disk.
    pub original_name: Option<Box<str>>,
    /// On the wire.
    pub info_hashes: InfoHashes,
    /// Files and pieces.
    pub layout: Layout,
    /// SHA-1 of each piece (version 1), in order. Empty for a torrent with only a version 2 half.
    pub piece_hashes: Vec<[u8; 20]>,
    /// `pieces root` of each file with bytes (BEP 52), by its path. Empty for a torrent of version 1.
    pub file_roots: BTreeMap<StoragePath, merkle::Node>,
    /// No DHT, PEX or LSD (BEP 27).
    pub private: bool,
    /// Announce URLs by tier (BEP 12), in the file's order.
    pub tracker_tiers: Vec<Vec<String>>,
    /// BEP 19.
    pub web_seeds: Vec<String>,
    /// BEP 5: host and port.
    pub dht_nodes: Vec<(String, u16)>,
    /// Free text.
    pub comment: Option<String>,
    /// The program that made it.
    pub created_by: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
    /// The private tracker's mark in the info dictionary.
    pub source: Option<String>,
    /// Length of the raw info dictionary, for `metadata_size` (BEP 9).
    pub info_bytes: u32,
}

impl Metainfo {
    /// Reads a torrent file (BEP 3, 5, 12, 19, 27, 47, 52). Files and pieces of a hybrid are those of its version 1
    /// half, and both halves must agree; a torrent with the version 2 half alone has no piece hashes here.
    ///
    /// Optional keys that are malformed are passed over. The info-hash is over the raw bytes.
    ///
    /// # Errors
    /// Says which field is wrong.
    pub fn parse(torrent_file: &[u8], rules: PathRules) -> Result<Self, MetainfoError> {
        torrent_file::parse(torrent_file, rules)
    }
}

/// Why a torrent file is refused. Files are counted from 0, in the torrent's order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MetainfoError {
    /// Larger than [`TORRENT_FILE_BYTES_MAX`].
    #[error("not a torrent file: {0} bytes, at most {TORRENT_FILE_BYTES_MAX} are read")]
    TooLarge(usize),
    /// No bencode, or beyond its limits.
    #[error("not a torrent file: {0}")]
    Bencode(#[from] BencodeError),
    /// The whole file is not a dictionary.
    #[error("not a torrent file: it is not a bencoded dictionary")]
    NotADict,
    /// `info` is missing or no dictionary.
    #[error("\"info\" is missing or not a dictionary")]
    NoInfo,
    /// It has only a version 2 part.
    #[error(
        "this torrent is BitTorrent v2 only, which is not supported yet: use a v1 or hybrid torrent of it"
    )]
    V2Only,
    /// `meta version` names a version that nobody knows, and there is no version 1 part.
    #[error("\"meta version\" {0} is not known")]
    UnknownVersion(i64),
    /// `piece length` is missing, no number, or beyond its limits; in a torrent with a version 2 part also when it is
    /// no power of two from 16 KiB.
    #[error(
        "\"piece length\" is missing or not a number from 1 to {PIECE_LENGTH_MAX} (v2: a power of two from 16384)"
    )]
    PieceLength,
    /// `name` is missing or no string.
    #[error("\"name\" is missing or not a string")]
    Name,
    /// `files` is empty.
    #[error("\"files\" is empty")]
    NoFiles,
    /// More files than can be counted.
    #[error("\"files\" has {0} entries, too many")]
    TooManyFiles(usize),
    /// An entry of `files` is no dictionary, or a symlink without a target.
    #[error("\"files\" entry {0} is not a dictionary, or a symlink without \"symlink path\"")]
    FileEntry(usize),
    /// `path` of a file is missing, no list of strings, or not storable.
    #[error("\"path\" of file {0} is missing or not a list of strings")]
    Path(usize),
    /// A path is empty, too deep or too long.
    #[error("\"path\" of file {file}: {error}")]
    UnstorablePath {
        /// Which file.
        file: usize,
        /// What is wrong with it.
        error: PathError,
    },
    /// `length` of a file is missing, no number, negative, or more than any torrent can have.
    #[error("\"length\" of file {0} is missing, not a number, negative or beyond {PIECES_MAX} pieces")]
    Length(usize),
    /// The lengths together are beyond [`TOTAL_BYTES_MAX`].
    #[error("\"length\": the files are larger than {TOTAL_BYTES_MAX} bytes together")]
    TotalLength,
    /// `pieces` is missing or no string.
    #[error("\"pieces\" is missing or not a string")]
    Pieces,
    /// `pieces` does not have 20 bytes for each piece.
    #[error("\"pieces\" is {got} bytes, but {pieces} pieces need {}", u64::from(*pieces) * 20)]
    PieceCount {
        /// Its length.
        got: usize,
        /// How many pieces the lengths ask for.
        pieces: u32,
    },
    /// `file tree` is missing in a torrent of version 2.
    #[error("\"file tree\" is missing or not a dictionary")]
    FileTree,
    /// A pad file in `file tree`, where every file begins with a piece by itself.
    #[error("\"file tree\": file {0} is a pad file")]
    PadFile(usize),
    /// `pieces root` of a file with bytes is missing, no 32 bytes or zero.
    #[error("\"pieces root\" of file {0} is missing or not a hash")]
    PiecesRoot(usize),
    /// `piece layers` is no dictionary of lists of hashes.
    #[error("\"piece layers\" is not a dictionary of hashes")]
    PieceLayers,
    /// The piece layer of a file does not have its root.
    #[error("\"piece layers\": the hashes of file {0} do not fit its \"pieces root\"")]
    PieceLayer(usize),
    /// The two halves of a hybrid list different files.
    #[error("the v1 and v2 halves of this torrent list different files")]
    HalvesDiffer,
    /// The lengths ask for more than [`PIECES_MAX`] pieces.
    #[error("\"length\" and \"piece length\" ask for {0} pieces, at most {PIECES_MAX} are supported")]
    TooManyPieces(u64),
}

impl MetainfoError {
    /// A short name for the kind of error, for machines. It stays the same from release to release.
    pub fn class(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too-large",
            Self::Bencode(BencodeError::TooDeep(_)) => "too-deep",
            Self::Bencode(_) => "bad-bencode",
            Self::NotADict => "not-a-dict",
            Self::NoInfo => "no-info",
            Self::V2Only => "v2-only",
            Self::UnknownVersion(_) => "bad-version",
            Self::PieceLength => "bad-piece-length",
            Self::Name => "bad-name",
            Self::NoFiles => "no-files",
            Self::TooManyFiles(_) => "too-many-files",
            Self::FileEntry(_) | Self::FileTree => "bad-file-entry",
            Self::Path(_) | Self::UnstorablePath { .. } => "bad-path",
            Self::Length(_) | Self::TotalLength => "bad-length",
            Self::Pieces => "bad-pieces",
            Self::PieceCount { .. } => "piece-count-mismatch",
            Self::TooManyPieces(_) => "too-many-pieces",
            Self::PadFile(_) => "bad-pad-file",
            Self::PiecesRoot(_) => "missing-pieces-root",
            Self::PieceLayers | Self::PieceLayer(_) => "bad-piece-layers",
            Self::HalvesDiffer => "v1-v2-mismatch",
        }
    }
}
