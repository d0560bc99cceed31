//! Hosts that run our engine: what they have, and what they are behind.

use serde::{Deserialize, Serialize};

use super::is_default;
use crate::units::{MILLISECOND, Rate, Share, Size, Time, TimeRange};

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
    /// Their access link.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: Access,
    /// Their disk.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disk: DiskModel,
    /// Of the blocks that they serve: they are wrong.
    pub lies: Option<Share>,
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
    /// How long a byte may wait for the way up.
    #[serde(default = "queue_default")]
    pub queue: Time,
}

impl Default for Access {
    fn default() -> Self {
        Self { up: gigabit(), down: gigabit(), queue: queue_default() }
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
}

impl Default for DiskModel {
    fn default() -> Self {
        Self { latency: disk_latency(), torn: sector() }
    }
}

fn gigabit() -> Rate {
    Rate(1_000_000_000)
}

fn queue_default() -> Time {
    Time(100 * MILLISECOND)
}

fn disk_latency() -> TimeRange {
    TimeRange { low: 100_000, high: 100_000 }
}

fn sector() -> Size {
    Size(512)
}
