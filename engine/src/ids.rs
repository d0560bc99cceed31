//! Names for things: handles inside this process, and identities on the wire.
//!
//! Nothing is keyed by 20 bytes alone: a [`TorrentId`] is our handle, an [`InfoHash`] is what peers say.

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// Our handle for a torrent, chosen by whoever adds it. Never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TorrentId(pub u32);

/// A connection to a peer. The engine numbers those it dials, the driver those it accepts; the low bit keeps the
/// two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The `n`-th connection that the engine dials.
    pub const fn dialled(n: u64) -> Self {
        Self(n << 1)
    }

    /// The `n`-th connection that the driver accepts.
    pub const fn accepted(n: u64) -> Self {
        Self((n << 1) | 1)
    }

    /// Whether the other side opened it.
    pub const fn is_accepted(self) -> bool {
        self.0 & 1 == 1
    }

    /// Its number among all connections of its engine: none is used twice, and there are few gaps.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A job asked for by [`crate::Output::Job`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u64);

/// A request asked for by [`crate::Output::HttpGet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HttpId(pub u64);

/// A name look-up asked for by [`crate::Output::Resolve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResolveId(pub u64);

/// A piece of one torrent. Only a [`crate::metainfo::Layout`] (or a [`crate::Bitfield`] of its length) makes one, so
/// it is below that torrent's piece count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// For those that know the piece count and have checked it.
    pub(crate) const fn new(index: u32) -> Self {
        Self(index)
    }

    /// As on the wire (BEP 3).
    pub const fn get(self) -> u32 {
        self.0
    }

    /// For indexing a list that has one entry a piece.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A block within a piece: block `n` begins at byte `n * BLOCK_BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockIndex(pub u32);

/// A file in a torrent's list, pad files and symlinks included, in the torrent's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileIndex(pub u32);

/// The SHA-1 of the raw `info` dictionary: 20 bytes (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InfoHash(pub [u8; 20]);

impl InfoHash {
    /// The first 8 hexadecimal digits, for logs.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..4])
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The SHA-256 of the raw `info` dictionary: 32 bytes (BEP 52).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InfoHashV2(pub [u8; 32]);

impl fmt::Display for InfoHashV2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for InfoHashV2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a torrent is called on the wire. A hybrid has both and joins two swarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InfoHashes {
    /// Version 1 (BEP 3).
    pub v1: Option<InfoHash>,
    /// Version 2 (BEP 52).
    pub v2: Option<InfoHashV2>,
}

/// A peer's name for itself: 20 bytes (BEP 3, BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub [u8; 20]);

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}
