//! What must be true at the end, and until when.

use serde::{Deserialize, Serialize};

use crate::units::{Share, SizeMax, Time};

/// `[[expect]]`: all that is written in one entry must hold.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The group whose hosts all have everything.
    pub complete: Option<String>,
    /// How many times the fluid bound the entry may take, after the last fault has healed.
    pub within_bound: Option<f64>,
    /// How long the entry may take after the last fault has healed.
    pub within: Option<Time>,
    /// When the entry must hold, whatever else goes on.
    pub by: Option<Time>,
    /// Of the payload: the most that the hosts of `complete` together receive for nothing.
    pub wasted: Option<Share>,
    /// What a tracker was told by each host of a group.
    pub announces: Option<ExpectAnnounces>,
    /// What liars may do before they are banned.
    pub banned: Option<ExpectBanned>,
    /// How soon who wants something has its turn.
    pub turn: Option<ExpectTurn>,
    /// How soon those that a fault cut off from each other are back, after it has healed.
    pub reconnected: Option<Time>,
    /// How much of what hosts upload some peers may get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_share: Option<ExpectUploadShare>,
    /// What resuming costs.
    pub resume: Option<ExpectResume>,
    /// What must have happened somewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mark: Vec<String>,
    /// What must not have happened anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
}

/// What a tracker was told: announces that it took, over all processes of a host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectAnnounces {
    /// By each host of this group.
    pub of: String,
    /// Which tracker.
    pub to: String,
    /// How often `started`.
    pub started: Option<u32>,
    /// How often `completed`.
    pub completed: Option<u32>,
    /// How often `stopped`.
    pub stopped: Option<u32>,
    /// Whether something must be told after the last fault has healed.
    #[serde(default)]
    pub again: bool,
}

/// Whoever was hurt by a liar bans it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectBanned {
    /// The most pieces that one liar may spoil for one host.
    pub bad_pieces: u32,
}

/// Nobody waits for long.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectTurn {
    /// For each host of this group.
    pub by: String,
    /// Interested and choked, at most.
    pub within: Time,
}

/// How much of what hosts upload some peers may get, all of them together.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectUploadShare {
    /// The peers, by the name of their actor.
    pub to: String,
    /// Of all payload that hosts send.
    pub most: Share,
}

/// What resuming costs.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectResume {
    /// Pieces believed that are not right on disk.
    pub claimed_but_bad: Option<u32>,
    /// `<= unsynced`: after a crash nothing recorded is lost, after a power cut nothing synced. `<= 5 s`: also, what was
    /// verified longer ago than that is there again when what is on disk was looked at.
    pub lost: Option<Lost>,
    /// Payload received beyond the torrents' size, over all hosts picked by faults.
    pub refetched: Option<SizeMax>,
}

/// What an end of a process or of its machine may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Lost {
    /// `<= unsynced`: only what was not synced.
    Unsynced,
    /// `<= 5 s`: only what was verified in so much time before it.
    Within(Time),
}

impl TryFrom<String> for Lost {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let most = text.strip_prefix("<=").ok_or_else(|| format!("`{text}`: wants `<=` first"))?.trim();
        if most == "unsynced" {
            return Ok(Self::Unsynced);
        }
        Time::try_from(most.to_owned()).map(Self::Within).map_err(|error| error.to_string())
    }
}

impl From<Lost> for String {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unsynced => "<= unsynced".to_owned(),
            Lost::Within(time) => format!("<= {}", time.exact()),
        }
    }
}
