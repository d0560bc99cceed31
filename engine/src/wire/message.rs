//! What peers say to each other (BEP 3, BEP 6, BEP 10), as values.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::extended::ExtendedHandshake;
use crate::block::BlockData;
use crate::ids::{InfoHash, PeerId};

/// A message between peers. Indices are as they came: nothing here was compared with a torrent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Comes first, once, both ways.
    Handshake(Handshake),
    /// An empty message.
    KeepAlive,
    /// No request will be served.
    Choke,
    /// Requests will be served.
    Unchoke,
    /// The sender wants something that we have.
    Interested,
    /// The sender wants nothing that we have.
    NotInterested,
    /// The sender has this piece now.
    Have(u32),
    /// What the sender has, one bit a piece. First after the handshake, or not at all.
    Bitfield(Bytes),
    /// Asks for a block.
    Request(Request),
    /// A block.
    Piece {
        /// Which piece it is of.
        piece: u32,
        /// Its offset in that piece.
        begin: u32,
        /// The block.
        data: BlockData,
    },
    /// Takes a request back.
    Cancel(Request),
    /// The sender's DHT port (BEP 5).
    Port(u16),
    /// Fast extension: worth asking for (BEP 6).
    SuggestPiece(u32),
    /// Fast extension: a full bitfield (BEP 6).
    HaveAll,
    /// Fast extension: an empty bitfield (BEP 6).
    HaveNone,
    /// Fast extension: that request will not be served (BEP 6).
    RejectRequest(Request),
    /// Fast extension: may be asked for while choked (BEP 6).
    AllowedFast(u32),
    /// What the sender can do (BEP 10, message 20 with id 0).
    ExtendedHandshake(Box<ExtendedHandshake>),
    /// A message of an extension (BEP 10), by the number that the receiver chose for it.
    Extended {
        /// The receiver's number for the extension; never 0.
        id: u8,
        /// As it came.
        payload: Bytes,
    },
    /// A kind we do not know. Ignored.
    Unknown(u8),
}

/// The first 68 bytes (BEP 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Handshake {
    /// What the sender can do.
    pub reserved: Reserved,
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Who.
    pub peer_id: PeerId,
}

/// The eight reserved bytes of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Reserved(pub [u8; 8]);

impl Reserved {
    /// What we can do: the extension protocol and the fast extension.
    pub const OURS: Self = Self([0, 0, 0, 0, 0, 0x10, 0, 0x04]);

    /// The same, and a node of the DHT beside (BEP 5).
    pub const OURS_WITH_DHT: Self = Self([0, 0, 0, 0, 0, 0x10, 0, 0x05]);

    /// Whether there is a node of the DHT beside (BEP 5).
    pub fn dht(self) -> bool {
        self.0[7] & 0x01 != 0
    }

    /// Whether the extension protocol is spoken (BEP 10).
    pub fn extended(self) -> bool {
        self.0[5] & 0x10 != 0
    }

    /// Whether the fast extension is spoken (BEP 6).
    pub fn fast(self) -> bool {
        self.0[7] & 0x04 != 0
    }
}

/// A part of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Which piece.
    pub piece: u32,
    /// Its offset in that piece.
    pub begin: u32,
    /// How many bytes.
    pub length: u32,
}
