//! BitTorrent as deterministic state machines.
//!
//! [`Engine`] is the whole client behind one value: an [`Input`] goes in with the time it happened, [`Output`]s
//! come out, [`Engine::poll_timeout`] says when it wants to be woken. It owns no socket, file, task, lock, clock
//! or random source, so the same code downloads on a real network, runs under turmoil, and runs by the thousand in
//! an event queue. The one rule: same seed and same inputs give the same outputs.
//!
//! The `driver` feature adds the only asynchronous code, which reaches the world through four doors (transport,
//! clock, storage, jobs). Without it this crate has no tokio in its tree.
//!
//! What it never does: see payload bytes (a block is an opaque [`BlockData`]), read a real clock, or iterate in an
//! order that a seed does not decide.

pub mod address;
pub mod alert;
mod allowance;
mod bandwidth;
pub mod bencode;
pub mod bitfield;
pub mod block;
pub mod command;
pub mod config;
mod context;
mod datagram;
pub mod dht;
pub mod disk;
mod engine;
mod exchange;
pub mod ids;
pub mod input;
pub mod limits;
mod lsd;
pub mod metainfo;
pub mod museum;
pub mod node_id;
pub mod output;
mod peer;
mod queue;
mod rate;
pub mod record;
pub mod rng;
mod scraper;
mod silence;
mod suspend;
pub mod time;
mod timers;
mod torrent;
pub mod tracker_server;
mod udp_trackers;
mod under_way;
pub mod wire;

#[cfg(feature = "driver")]
pub mod driver;

pub use alert::{Alert, DhtStats, MetadataStats, SwarmCounts, TorrentState, TorrentStats};
pub use bitfield::Bitfield;
pub use block::BlockData;
pub use command::{AddTorrent, Allocation, Command, Priority, ResumeMode, SeedGoal, TorrentSource};
pub use config::{Config, DhtSettings, RateLimits, StartValues};
pub use engine::Engine;
pub use ids::{
    BlockIndex, ConnectionId, FileIndex, HttpId, InfoHash, InfoHashV2, InfoHashes, JobId, PeerId, PieceIndex,
    ResolveId, TorrentId,
};
pub use input::Input;
pub use node_id::NodeId;
pub use output::Output;
pub use time::Instant;
