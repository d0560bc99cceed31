//! What an embedder asks of the engine.

use core::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::RateLimits;
use crate::dht::item::{Item, ItemName};
use crate::ids::{InfoHash, TorrentId};
use crate::node_id::NodeId;

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
    /// Which files are wanted, from now on.
    SetPriorities {
        /// Of which torrent.
        torrent: TorrentId,
        /// As [`AddTorrent::priorities`].
        priorities: Vec<Priority>,
    },
    /// How fast, from now on.
    SetLimits {
        /// Of which torrent; none: of all together ([`crate::Config::limits`]).
        torrent: Option<TorrentId>,
        /// The new limits.
        limits: RateLimits,
    },
    /// Talk again to an address that was banned, in every torrent.
    Unban {
        /// As in [`crate::Alert::PeerBanned`].
        address: SocketAddr,
    },
    /// Ask a tracker how many there are in some swarms (BEP 48, BEP 15); answered by [`crate::Alert::Scraped`].
    Scrape {
        /// The tracker's announce URL, `http`, `https` or `udp`.
        tracker: String,
        /// Of which torrents; they need not be here.
        info_hashes: Vec<InfoHash>,
    },
    /// Nodes of the DHT may be here; kept from an earlier run, for example ([`crate::Alert::DhtNodes`]).
    AddDhtNodes {
        /// Where.
        nodes: Vec<SocketAddr>,
    },
    /// Ask a node of the DHT whether it is there; answered by [`crate::Alert::DhtPinged`].
    DhtPing {
        /// Where.
        address: SocketAddr,
    },
    /// Find the peers of a swarm by the DHT; answered by [`crate::Alert::DhtPeers`], then [`crate::Alert::DhtLookedUp`].
    DhtLookup {
        /// Which; it need not be here.
        info_hash: InfoHash,
        /// Say that a peer is at this port of ours.
        announce: Option<u16>,
    },
    /// Answer with [`crate::Alert::Dht`].
    ReportDht,
    /// Answer with [`crate::Alert::Stats`].
    ReportStats {
        /// Of which torrent.
        torrent: TorrentId,
    },
    /// Tell trackers, save state, close; answered by [`crate::Alert::Removed`]. Until then it is still here, and is not added
    /// again.
    RemoveTorrent {
        /// Which.
        torrent: TorrentId,
    },
    /// Remove all torrents, then [`crate::Alert::Stopped`].
    Shutdown,
    /// What a router in front of us forwards to the port that we listen at, from now on. Trackers, peers and the DHT are
    /// told of its port instead of ours.
    Mapped {
        /// The port of the router; none: nothing is forwarded, or it is not known.
        port: Option<u16>,
        /// The router's address towards the world, if it says so; none changes nothing.
        external_ip: Option<IpAddr>,
    },
    /// Find what is stored in the DHT under a name (BEP 44); answered by [`crate::Alert::DhtGot`].
    DhtGet {
        /// Which.
        name: ItemName,
    },
    /// Store something in the DHT (BEP 44), where it stays for two hours; answered by [`crate::Alert::DhtStored`].
    DhtPut {
        /// What.
        item: Box<Item>,
        /// Only where this is the number stored now, or nothing is.
        cas: Option<i64>,
    },
    /// Find swarms that nodes of the DHT near a point know (BEP 51); answered by [`crate::Alert::DhtSamples`], then
    /// [`crate::Alert::DhtSampled`].
    DhtSample {
        /// Which; none: any.
        target: Option<NodeId>,
    },
}

/// A torrent to begin with. Made by [`AddTorrent::new`]; the rest has sensible defaults.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AddTorrent {
    /// Our handle for it, not yet in use.
    pub torrent: TorrentId,
    /// What is known of it.
    pub source: TorrentSource,
    /// The directory under which its paths lie.
    pub output: String,
    /// What to believe of earlier work.
    pub resume: ResumeMode,
    /// Trackers beside the torrent's own, each a tier of its own after them.
    pub extra_trackers: Vec<String>,
    /// Whether the torrent's own trackers are used.
    pub use_trackers: bool,
    /// Trackers of the torrent's own that are not used, as they stand in it.
    pub exclude_trackers: Vec<String>,
    /// Addresses given by the user.
    pub peers: Vec<SocketAddr>,
    /// Of each file, in the torrent's order; files beyond its end are [`Priority::Normal`].
    pub priorities: Vec<Priority>,
    /// Whether pieces are fetched in order instead of rarest first.
    pub sequential: bool,
    /// Of this torrent.
    pub limits: RateLimits,
    /// When seeding has been enough.
    pub seed_goal: SeedGoal,
    /// How room is made on disk.
    pub allocation: Allocation,
    /// With a magnet link: when the metadata is here nothing is opened or fetched before [`Command::SetPriorities`], so
    /// that files can be chosen by their names.
    pub hold: bool,
}

/// What is known of a torrent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TorrentSource {
    /// All: the whole torrent file.
    TorrentFile(Bytes),
    /// A magnet link; the rest comes from peers (BEP 9).
    Magnet(String),
}

impl AddTorrent {
    /// All of a torrent into a directory, with its own trackers.
    pub fn new(torrent: TorrentId, torrent_file: Bytes, output: String) -> Self {
        Self::of(torrent, TorrentSource::TorrentFile(torrent_file), output)
    }

    /// All of the torrent that a magnet link names, or what of it the link wants, with the link's trackers and peers.
    pub fn magnet(torrent: TorrentId, link: String, output: String) -> Self {
        Self::of(torrent, TorrentSource::Magnet(link), output)
    }

    fn of(torrent: TorrentId, source: TorrentSource, output: String) -> Self {
        Self {
            torrent,
            source,
            output,
            resume: ResumeMode::default(),
            extra_trackers: Vec::new(),
            use_trackers: true,
            exclude_trackers: Vec::new(),
            peers: Vec::new(),
            priorities: Vec::new(),
            sequential: false,
            limits: RateLimits::default(),
            seed_goal: SeedGoal::default(),
            allocation: Allocation::default(),
            hold: false,
        }
    }
}

/// How much a file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Priority {
    /// Not at all: only what shares a piece with a wanted file is fetched.
    Skip,
    /// After all others.
    Low,
    /// As the others.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// When seeding has been enough: as soon as one of these is reached, the torrent enters
/// [`TorrentState::Finished`](crate::TorrentState::Finished).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct SeedGoal {
    /// Payload sent, in thousandths of the bytes wanted of the torrent; counted over all runs.
    pub ratio_permille: Option<u32>,
    /// Time as a seed, in this run.
    pub time: Option<Duration>,
}

/// How room is made on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Allocation {
    /// As pieces come.
    #[default]
    Sparse,
    /// All at once before the download begins, so that a full disk is known then.
    Full,
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
