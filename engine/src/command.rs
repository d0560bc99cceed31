//! What an embedder asks of the engine.

use core::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::TorrentId;

/// Asked by the embedder; answered, where there is an answer, by an [`crate::Alert`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Command {
    /// Begin with a torrent.
    AddTorrent(Box<AddTorrent>),
    /// Connect to these as well.
    AddPeers {
        /// Of which torrent.
        torrent: TorrentId,
        /// Addresses given by the user: any scope is accepted.
        peers: Vec<SocketAddr>,
    },
    /// Answer with [`crate::Alert::Stats`].
    ReportStats {
        /// Of which torrent.
        torrent: TorrentId,
    },
    /// Tell trackers, save state, close; answered by [`crate::Alert::Removed`].
    RemoveTorrent {
        /// Which.
        torrent: TorrentId,
    },
    /// Remove all torrents, then [`crate::Alert::Stopped`].
    Shutdown,
}

/// A torrent to begin with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AddTorrent {
    /// Our handle for it, not yet in use.
    pub torrent: TorrentId,
    /// The whole torrent file.
    pub torrent_file: Bytes,
    /// The directory under which its paths lie.
    pub output: String,
    /// What to believe of earlier work.
    pub resume: ResumeMode,
    /// Trackers beside the torrent's own, each a tier of its own after them.
    pub extra_trackers: Vec<String>,
    /// Whether the torrent's own trackers are used.
    pub use_trackers: bool,
    /// Addresses given by the user.
    pub peers: Vec<SocketAddr>,
}

/// What to believe of earlier work on a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum ResumeMode {
    /// Journal and snapshot where they can be trusted, hashing elsewhere. State is saved.
    #[default]
    Resume,
    /// Hash everything that is on disk. State is saved.
    Recheck,
    /// Hash everything that is on disk, and save nothing.
    NoState,
}
