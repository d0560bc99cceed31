//! What goes wrong, when, and to whom.

use serde::{Deserialize, Serialize};

use super::check::At;
use crate::units::{Jump, Size, TimeRange};

/// `[[fault]]`. Which keys it has depends on its kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When; or `when`.
    pub at: Option<TimeRange>,
    /// What it waits for.
    pub when: Option<When>,
    /// What.
    pub kind: FaultKind,
    /// A group: one of its hosts is drawn; or one host, or a tracker, by its name.
    pub pick: String,
    /// How long a host that dies stays away.
    pub back_after: Option<TimeRange>,
    /// How long anything else lasts.
    #[serde(rename = "for")]
    pub lasts: Option<TimeRange>,
    /// What still fits on a disk that fills up.
    pub space: Option<Size>,
    /// How a tracker fails: one of these is drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub how: Vec<Outage>,
    /// How far a clock jumps: one of these is drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<Jump>,
}

/// What a fault waits for, when not for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum When {
    /// Those that had nothing at the start have every piece among them.
    #[serde(rename = "one copy out")]
    OneCopyOut,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The process dies: what was written stays, its sockets are closed by the system.
    Crash,
    /// The machine dies: what was not synced is lost or torn, its peers hear nothing.
    PowerCut,
    /// The user ends it, for good.
    Leave,
    /// Little more fits on the disk, until somebody makes room.
    DiskFull,
    /// A tracker is away.
    TrackerOutage,
    /// Nothing that a host sends arrives before the end of it.
    Silence,
    /// The machine sleeps: nothing happens on it, and then all that came meanwhile.
    Suspend,
    /// The wall clock is wrong, and then right again.
    ClockJump,
}

impl FaultKind {
    /// As written in scenario files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::PowerCut => "power-cut",
            Self::Leave => "leave",
            Self::DiskFull => "disk-full",
            Self::TrackerOutage => "tracker-outage",
            Self::Silence => "silence",
            Self::Suspend => "suspend",
            Self::ClockJump => "clock-jump",
        }
    }

    /// The family that a profile draws it in.
    pub fn family(self) -> &'static str {
        match self {
            Self::Crash | Self::PowerCut | Self::Leave => "crash",
            Self::DiskFull => "disk",
            Self::TrackerOutage => "tracker",
            Self::Silence => "silence",
            Self::Suspend | Self::ClockJump => "clock",
        }
    }

    /// Whether the host is gone meanwhile.
    pub fn takes_down(self) -> bool {
        matches!(self, Self::Crash | Self::PowerCut | Self::Leave)
    }

    /// The keys that it wants of `back_after`, `for`, `space`, `how` and `by`; it takes no other of them.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Crash | Self::PowerCut => &["back_after"],
            Self::Leave => &[],
            Self::DiskFull => &["for", "space"],
            Self::TrackerOutage => &["for", "how"],
            Self::Silence | Self::Suspend => &["for"],
            Self::ClockJump => &["for", "by"],
        }
    }
}

/// How a tracker is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outage {
    /// Nobody listens there.
    Refuse,
    /// Requests are taken and never answered.
    Hang,
}

impl Fault {
    /// Whether it has the keys of its kind and no others.
    pub(super) fn check(&self) -> Result<(), At> {
        let kind = self.kind.name();
        if self.at.is_some() == self.when.is_some() {
            return Err(("kind", format!("{kind}: wants either `at` or `when`")));
        }
        for (name, has) in [
            ("back_after", self.back_after.is_some()),
            ("for", self.lasts.is_some()),
            ("space", self.space.is_some()),
            ("how", !self.how.is_empty()),
            ("by", !self.by.is_empty()),
        ] {
            match (self.kind.keys().contains(&name), has) {
                (true, false) => return Err(("kind", format!("{kind}: wants `{name}`"))),
                (false, true) => return Err((name, format!("{kind}: takes no `{name}`"))),
                _ => {}
            }
        }
        Ok(())
    }
}
