//! Torrent files: what is in them, and where their bytes lie on disk.

pub mod create;
pub mod layout;
pub mod paths;

use serde::{Deserialize, Serialize};

pub use self::layout::{FileEntry, FileRun, Layout, LayoutError, ListedFile};
pub use self::paths::{PathRules, STATE_DIRECTORY, StoragePath};
use crate::ids::InfoHashes;

/// A torrent file that was read and judged.
#[derive(Clone, Debug)]
pub struct Metainfo {
    /// Safe for a file system; the first component of every path.
    pub name: String,
    /// On the wire.
    pub info_hashes: InfoHashes,
    /// Files and pieces.
    pub layout: Layout,
    /// SHA-1 of each piece (version 1), in order. Empty for a torrent with only a version 2 part.
    pub piece_hashes: Vec<[u8; 20]>,
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
    /// Reads a torrent file.
    ///
    /// # Errors
    /// Says which field is wrong.
    pub fn parse(_torrent_file: &[u8], _rules: PathRules) -> Result<Self, MetainfoError> {
        todo!()
    }
}

/// Why a torrent file is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MetainfoError {
    /// The whole file is not a dictionary.
    #[error("not a torrent file: it is not a bencoded dictionary")]
    NotADict,
}
