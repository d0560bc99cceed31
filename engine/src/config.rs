//! What an engine is told when it begins.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::museum::Planted;

/// Values that differ from run to run and that a pure machine cannot find out. Part of every recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartValues {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Changes when unsynced writes may have been lost: a reboot, in the simulator a power cut.
    pub boot_id: [u8; 16],
    /// Seconds since 1970 when the engine began. For dates in files only, never for waiting.
    pub wall_seconds: i64,
}

/// Settings of a session. Every field has a sensible default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// Peers connected per torrent at most.
    pub peers_per_torrent_max: u32,
    /// Peers connected over all torrents at most.
    pub peers_max: u32,
    /// New connections per second at most.
    pub dials_per_second_max: u32,
    /// Payload bytes received but not yet on disk, over all torrents, before the largest partial piece is written
    /// early and then reading stops.
    pub buffer_bytes: u64,
    /// How long a shutdown waits for trackers to take the last announce.
    pub stop_timeout: Duration,
    /// Where state goes when the download directory cannot be written. Empty: nowhere.
    pub state_directory: String,
    /// Whether path rules of Windows apply on disk.
    pub windows_paths: bool,
    /// Of all torrents together.
    pub limits: RateLimits,
    /// Torrents that are opened, checked or downloaded at once; those added later wait in [`TorrentState::Queued`]. One
    /// that seeds holds no place, nor does one to which nothing came for half an hour.
    ///
    /// [`TorrentState::Queued`]: crate::TorrentState::Queued
    pub active_max: u32,
    /// Whether peers are told of each other, and believed about each other (BEP 11). Not in private torrents anyhow.
    pub pex: bool,
    /// The DHT (BEP 5); none: it is not used.
    pub dht: Option<DhtSettings>,
    /// Whether the local network is told in which swarms we are, and believed about others (BEP 14). Nothing is said of
    /// private torrents anyhow.
    pub lsd: bool,
    /// A bug of another client, to be found by tests; none can be had without the feature `canaries`.
    #[serde(skip)]
    pub planted: Planted,
}

/// How the DHT is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhtSettings {
    /// Names or addresses of nodes to begin with, and their ports.
    pub bootstrap: Vec<(String, u16)>,
    /// Serves nobody, and is in nobody's table (BEP 43): for who is gone soon, or cannot be reached.
    pub read_only: bool,
}

/// Bytes per second from and to peers, protocol included. None: as fast as it goes. Kept over any five seconds, give or
/// take one burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RateLimits {
    /// From peers.
    pub download: Option<u64>,
    /// To peers.
    pub upload: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            peers_per_torrent_max: 80,
            peers_max: 300,
            dials_per_second_max: 30,
            buffer_bytes: 8 << 20,
            stop_timeout: Duration::from_secs(5),
            state_directory: String::new(),
            windows_paths: false,
            limits: RateLimits::default(),
            active_max: 16,
            pex: true,
            dht: None,
            lsd: false,
            planted: Planted::default(),
        }
    }
}
