//! What the engine tells the embedder: changes only.

use core::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::dht::item::{Item, ItemName};
use crate::disk::{StorageError, Totals};
use crate::ids::{InfoHash, PieceIndex, TorrentId};
use crate::metainfo::{MagnetError, MetainfoError};
use crate::node_id::NodeId;

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Alert {
    /// A torrent could not be added; nothing of it is left.
    AddFailed {
        /// Which.
        torrent: TorrentId,
        /// Why.
        error: AddError,
    },
    /// A torrent is in another state now.
    StateChanged {
        /// Which.
        torrent: TorrentId,
        /// Its state now.
        state: TorrentState,
    },
    /// What a magnet link names is known: from peers, or from an earlier run.
    MetadataReceived {
        /// Of which torrent.
        torrent: TorrentId,
        /// A torrent file with nothing beside the info dictionary.
        torrent_file: Bytes,
    },
    /// A piece was verified and is on disk.
    PieceFinished {
        /// Of which torrent.
        torrent: TorrentId,
        /// Which.
        piece: PieceIndex,
    },
    /// A piece did not fit its hash and is fetched again.
    PieceFailed {
        /// Of which torrent.
        torrent: TorrentId,
        /// Which.
        piece: PieceIndex,
    },
    /// All that is wanted is there. Not said when it was from the start; said again when more was wanted since.
    Completed {
        /// Which.
        torrent: TorrentId,
    },
    /// Nodes of the DHT to begin with next time ([`crate::Command::AddDhtNodes`]): told now and then, and at the end.
    DhtNodes {
        /// Where they are.
        nodes: Vec<SocketAddr>,
    },
    /// A node of the DHT was asked whether it is there.
    DhtPinged {
        /// Where.
        address: SocketAddr,
        /// What it is called; none: it did not answer.
        node: Option<NodeId>,
    },
    /// The DHT named peers that [`crate::Command::DhtLookup`] asked for. There may be more.
    DhtPeers {
        /// Of which swarm.
        info_hash: InfoHash,
        /// Where they are.
        peers: Vec<SocketAddr>,
    },
    /// What [`crate::Command::DhtLookup`] asked for is done.
    DhtLookedUp {
        /// Which swarm.
        info_hash: InfoHash,
        /// Nodes asked.
        asked: u32,
        /// The longest way to a node that answered, in steps.
        hops: u32,
        /// Nodes that took the announce.
        announced: u32,
        /// Peers found.
        peers: u32,
    },
    /// What [`crate::Command::DhtGet`] asked for.
    DhtGot {
        /// Under which name.
        name: ItemName,
        /// The latest that nodes gave, its hash or signature checked.
        item: Option<Box<Item>>,
        /// Nodes asked.
        asked: u32,
    },
    /// What [`crate::Command::DhtPut`] asked for is done.
    DhtStored {
        /// Under which name.
        name: ItemName,
        /// Nodes that took it.
        nodes: u32,
        /// Why others did not: the code of one that said so, 301 and 302 of BEP 44 among them.
        refused: Option<i64>,
        /// Something newer that is stored there.
        newer: Option<Box<Item>>,
        /// Nodes asked.
        asked: u32,
    },
    /// Nodes of the DHT named swarms that they know. There may be more.
    DhtSamples {
        /// Which.
        info_hashes: Vec<InfoHash>,
    },
    /// What [`crate::Command::DhtSample`] asked for is done.
    DhtSampled {
        /// Near which point.
        target: NodeId,
        /// Nodes asked.
        asked: u32,
        /// Swarms named.
        info_hashes: u32,
    },
    /// Figures of the DHT; none where it is not used.
    Dht(Option<Box<DhtStats>>),
    /// A peer sent wrong data and is not talked to again, in any torrent.
    PeerBanned {
        /// In which it did.
        torrent: TorrentId,
        /// Its address.
        address: SocketAddr,
    },
    /// The disk failed; the torrent is paused and tries again in 30 s.
    DiskFailed {
        /// Which torrent.
        torrent: TorrentId,
        /// What failed, on which file.
        error: StorageError,
        /// When it is full: bytes that are still to be written to complete the torrent.
        needed_bytes: Option<u64>,
    },
    /// A tracker answered, or failed.
    Tracker {
        /// Of which torrent.
        torrent: TorrentId,
        /// Its URL as the torrent has it.
        url: String,
        /// Peers received, or what went wrong.
        result: Result<u32, String>,
        /// A word from the tracker to the user, not escaped.
        warning: Option<String>,
    },
    /// The answer to [`crate::Command::Scrape`].
    Scraped {
        /// As in the command.
        tracker: String,
        /// Of each torrent asked for that the tracker knows, or what went wrong.
        result: Result<Vec<SwarmCounts>, String>,
    },
    /// The answer to [`crate::Command::ReportStats`].
    Stats(Box<TorrentStats>),
    /// A torrent is gone: trackers told, state saved.
    Removed {
        /// Which.
        torrent: TorrentId,
    },
    /// Everything is closed; no output follows.
    Stopped,
}

/// What a tracker says about the size of a swarm (BEP 48).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SwarmCounts {
    /// Of which torrent.
    pub info_hash: InfoHash,
    /// Peers that have everything (`complete`).
    pub seeds: u32,
    /// Peers that do not (`incomplete`).
    pub leechers: u32,
    /// How often it was downloaded (`downloaded`).
    pub completed: u32,
}

/// What a torrent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TorrentState {
    /// Waiting until fewer than [`crate::Config::active_max`] torrents are active.
    Queued,
    /// Asking peers what the torrent of a magnet link is.
    FetchingMetadata,
    /// Reading what earlier runs left.
    Opening,
    /// Hashing what is on disk.
    Checking,
    /// Fetching pieces.
    Downloading,
    /// All that is wanted is there; serving others.
    Seeding,
    /// Its seeding goal is reached: no peers, no trackers.
    Finished,
    /// The disk failed; it tries again by itself.
    DiskError,
    /// Telling trackers, saving state.
    Stopping,
}

/// Why a torrent could not be added.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AddError {
    /// The torrent file is refused.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
    /// The magnet link is refused.
    #[error(transparent)]
    Magnet(#[from] MagnetError),
    /// The same torrent is here already, or the handle is in use.
    #[error("this torrent was already added")]
    Duplicate,
    /// The engine is shutting down.
    #[error("shutting down")]
    Stopping,
    /// Its place on disk cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Figures of the DHT at one moment. Pairs are of IPv4, then IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DhtStats {
    /// Our ids.
    pub ids: [Option<NodeId>; 2],
    /// Nodes in our tables.
    pub nodes: [u32; 2],
    /// Buckets of our tables.
    pub depth: [u32; 2],
    /// Swarms that others announced to us.
    pub swarms: u32,
    /// Peers in them.
    pub peers: u32,
    /// Items that others put here (BEP 44).
    pub items: u32,
}

/// Figures of one torrent at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TorrentStats {
    /// Which.
    pub torrent: TorrentId,
    /// On the wire.
    pub info_hash: InfoHash,
    /// What it is doing.
    pub state: TorrentState,
    /// Pieces on disk and verified.
    pub pieces_have: u32,
    /// Pieces in all.
    pub pieces_total: u32,
    /// Bytes of those pieces.
    pub bytes_have: u64,
    /// Bytes in all, pad files included.
    pub bytes_total: u64,
    /// Bytes of the pieces that are wanted.
    pub bytes_wanted: u64,
    /// Bytes of wanted pieces that are missing.
    pub bytes_left: u64,
    /// Bytes looked at by the check under way.
    pub bytes_checked: u64,
    /// Payload received since it was added, failed pieces and duplicates included.
    pub downloaded_bytes: u64,
    /// Payload sent since it was added.
    pub uploaded_bytes: u64,
    /// Payload received and sent over all runs.
    pub totals: Totals,
    /// Payload received that was of no use: duplicates and failed pieces.
    pub wasted_bytes: u64,
    /// Payload per second now, in.
    pub download_rate: u64,
    /// Payload per second now, out.
    pub upload_rate: u64,
    /// Connected peers past their handshake.
    pub peers: u32,
    /// Of those, how many have everything.
    pub seeds: u32,
    /// Addresses known.
    pub candidates: u32,
    /// How far the metadata of a magnet link is, while it is waited for.
    pub metadata: Option<MetadataStats>,
    /// Whether only blocks already asked for are missing.
    pub endgame: bool,
}

/// How far the metadata of a torrent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MetadataStats {
    /// Received, not checked yet.
    pub bytes_have: u32,
    /// In all, as peers say; 0 while nobody does.
    pub bytes_total: u32,
    /// Connected peers that say they have it.
    pub peers: u32,
}
