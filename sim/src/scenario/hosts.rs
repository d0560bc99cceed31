//! Hosts that run our engine: what they have, and what they are behind.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use taipei_engine::{Config, DhtSettings, RateLimits};

use super::check::At;
use super::is_default;
use crate::plan::{PEER_PORT, ROUTER_NAME};
use crate::units::{Depth, MILLISECOND, Rate, Share, Size, Time, TimeRange};

/// `[[group]]`: hosts alike.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Hosts are called `NAME-1`, `NAME-2` and so on.
    pub name: String,
    /// How many.
    pub count: u32,
    /// Of these only those with these numbers; all, when left out. What making a failing run smaller leaves.
    pub only: Option<Vec<u32>>,
    /// What they have at the start.
    #[serde(default, skip_serializing_if = "is_default")]
    pub has: Has,
    /// Their access link, or several of which each host draws one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: Accesses,
    /// Which addresses they have.
    #[serde(default = "v4_only", skip_serializing_if = "is_v4_only")]
    pub interfaces: Vec<Family>,
    /// The box that translates their addresses.
    pub behind: Option<String>,
    /// Their disk.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disk: DiskModel,
    /// Whether they begin with a magnet link of each torrent, not with its file.
    #[serde(default, skip_serializing_if = "is_default")]
    pub magnet: bool,
    /// Of the blocks that they serve: they are wrong.
    pub lies: Option<Share>,
    /// What their engines are told; the rest is as it is by default.
    #[serde(default, skip_serializing_if = "Settings::is_default")]
    pub config: Settings,
}

/// What an engine is told when it begins, as far as it is not the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Peers connected per torrent at most.
    pub peers_per_torrent: Option<u32>,
    /// Peers connected over all torrents at most.
    pub peers: Option<u32>,
    /// New connections per second at most.
    pub dials_per_second: Option<u32>,
    /// Payload in memory at most.
    pub buffer: Option<Size>,
    /// From peers, protocol included.
    pub download: Option<Rate>,
    /// To peers, protocol included.
    pub upload: Option<Rate>,
    /// What they have to do with the DHT.
    pub dht: Option<DhtRole>,
    /// Whether they look for peers on their local network: those behind the same box.
    pub lsd: Option<bool>,
}

/// What a host has to do with the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DhtRole {
    /// A node that begins with the routers.
    Node,
    /// A node that others begin with.
    Router,
}

impl Settings {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// A key whose value no engine could keep.
    pub(super) fn wrong_key(&self) -> Option<&'static str> {
        let zero = |count: Option<u32>| count == Some(0);
        [
            ("config.peers_per_torrent", zero(self.peers_per_torrent)),
            ("config.peers", zero(self.peers)),
            ("config.dials_per_second", zero(self.dials_per_second)),
            ("config.buffer", self.buffer.is_some_and(|buffer| buffer.0 == 0)),
        ]
        .into_iter()
        .find_map(|(key, is_wrong)| is_wrong.then_some(key))
    }

    /// As an engine takes it.
    pub fn config(&self) -> Config {
        let mut config = Config::default();
        let bytes = |rate: Rate| rate.0 / 8;
        config.peers_per_torrent_max = self.peers_per_torrent.unwrap_or(config.peers_per_torrent_max);
        config.peers_max = self.peers.unwrap_or(config.peers_max);
        config.dials_per_second_max = self.dials_per_second.unwrap_or(config.dials_per_second_max);
        config.buffer_bytes = self.buffer.map_or(config.buffer_bytes, |buffer| buffer.0);
        let bootstrap = || vec![(ROUTER_NAME.to_owned(), PEER_PORT)];
        config.dht = self.dht.map(|_| DhtSettings { bootstrap: bootstrap(), read_only: false });
        config.lsd = self.lsd.unwrap_or(false);
        config.limits = RateLimits { download: self.download.map(bytes), upload: self.upload.map(bytes) };
        config
    }
}

impl Group {
    /// The numbers of its hosts.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        (1..=self.count).filter(|number| self.only.as_ref().is_none_or(|only| only.contains(number)))
    }
}

/// What a host has at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Has {
    /// Nothing.
    #[default]
    None,
    /// All of every torrent.
    All,
}

/// An access link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// To the network.
    #[serde(default = "gigabit")]
    pub up: Rate,
    /// From the network.
    #[serde(default = "gigabit")]
    pub down: Rate,
    /// How much may wait for the way up. Streams stop sending, what else comes is lost.
    #[serde(default = "queue_default")]
    pub queue: Depth,
    /// How much may wait for the way down; what comes on top is lost. Without it what passes in half a second, and 256 KiB
    /// where that is more.
    pub queue_down: Option<Depth>,
    /// In a list: how many hosts have it, against those of the others.
    pub share: Option<u32>,
}

/// The access links of a group: one, or a list with shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accesses(pub Vec<Access>);

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Default for Accesses {
    fn default() -> Self {
        Self(vec![Access::default()])
    }
}

impl Accesses {
    pub(super) fn check(&self) -> Result<(), At> {
        let shares = || self.0.iter().map(|access| access.share);
        match self.0.len() {
            0 => Err(("access", "wants at least one".to_owned())),
            1 if shares().all(|share| share.is_none()) => Ok(()),
            _ if shares().any(|share| share.is_none_or(|share| share == 0)) => {
                Err(("access", "each of several wants a `share` of at least 1".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl Access {
    /// How long what comes may wait for the way down, nanoseconds.
    pub(crate) fn queue_down_lasts(&self) -> u64 {
        let usual = || QUEUE_DOWN_TIME.max(QUEUE_DOWN_BYTES.lasts_at(self.down));
        self.queue_down.map_or_else(usual, |queue| queue.lasts_at(self.down))
    }
}

impl<'de> Deserialize<'de> for Accesses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Accesses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an access link, or a list of them with shares")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Accesses, A::Error> {
                Access::deserialize(MapAccessDeserializer::new(map)).map(|access| Accesses(vec![access]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Accesses, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Accesses)
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

impl Serialize for Accesses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [access @ Access { share: None, .. }] => access.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl Default for Access {
    fn default() -> Self {
        Self { up: gigabit(), down: gigabit(), queue: queue_default(), queue_down: None, share: None }
    }
}

/// What a disk costs and how it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DiskModel {
    /// Of one job, before its bytes.
    #[serde(default = "disk_latency")]
    pub latency: TimeRange,
    /// What a power cut tears unsynced writes into.
    #[serde(default = "sector")]
    pub torn: Size,
    /// Whether a sync does what it says.
    #[serde(default)]
    pub sync: Sync,
    /// Whether a rename survives a power cut once its directory was synced.
    #[serde(default = "yes")]
    pub rename_durable: bool,
}

impl Default for DiskModel {
    fn default() -> Self {
        Self { latency: disk_latency(), torn: sector(), sync: Sync::Honest, rename_durable: yes() }
    }
}

/// What a sync does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// What it says.
    #[default]
    Honest,
    /// Nothing, at once.
    Lies,
}

fn yes() -> bool {
    true
}

fn gigabit() -> Rate {
    Rate(1_000_000_000)
}

/// What may wait for the way down where nothing is said: the longer of both.
const QUEUE_DOWN_TIME: u64 = 500 * MILLISECOND;
const QUEUE_DOWN_BYTES: Depth = Depth::Bytes(Size(256 << 10));

fn queue_default() -> Depth {
    Depth::Time(Time(100 * MILLISECOND))
}

pub(super) fn v4_only() -> Vec<Family> {
    vec![Family::V4]
}

pub(super) fn is_v4_only(interfaces: &[Family]) -> bool {
    interfaces == [Family::V4]
}

fn disk_latency() -> TimeRange {
    TimeRange { low: 100_000, high: 100_000 }
}

fn sector() -> Size {
    Size(512)
}
