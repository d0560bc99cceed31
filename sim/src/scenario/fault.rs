//! What goes wrong, when, and to whom.

use serde::{Deserialize, Serialize};
use taipei_engine::disk::StorageErrorKind;

use super::check::At;
use crate::units::{CountRange, Jump, Rate, Share, Size, TimeRange};

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
    /// A group: one of its hosts is drawn; or one host, or a tracker, or a box that translates addresses, by its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pick: String,
    /// Of a cut: a group, host or tracker on one side.
    pub from_group: Option<String>,
    /// And on the other.
    pub to_group: Option<String>,
    /// How long a host that dies stays away.
    pub back_after: Option<TimeRange>,
    /// How long anything else lasts.
    #[serde(rename = "for")]
    pub lasts: Option<TimeRange>,
    /// What still fits on a disk that fills up.
    pub space: Option<Size>,
    /// What a link still passes.
    pub rate: Option<Rate>,
    /// Of what a host sends: it is lost.
    pub share: Option<Share>,
    /// How a tracker or a resolver fails: one of these is drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub how: Vec<Outage>,
    /// How far a clock jumps: one of these is drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<Jump>,
    /// Which call on the disk fails first, counted from 1 when the fault begins.
    pub call: Option<CountRange>,
    /// How many fail; or `for`, counted from the first that does.
    pub calls: Option<u64>,
    /// How calls fail: one of these is drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub error: Vec<Errno>,
    /// How much longer each job on a slow disk takes.
    pub latency: Option<TimeRange>,
    /// How many pieces rot, of those that are right on the disk.
    pub pieces: Option<u32>,
    /// Which file, below the download directory; when left out one of those that are there.
    pub file: Option<String>,
    /// What is left of a file that is cut; when left out that is drawn.
    pub to: Option<Size>,
}

/// How a call fails, by its name in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[allow(clippy::upper_case_acronyms, reason = "these are their names")]
pub enum Errno {
    /// The disk is full.
    ENOSPC,
    /// The hardware failed.
    EIO,
    /// The file system is read-only.
    EROFS,
    /// Too many open files.
    EMFILE,
    /// There is no such file.
    ENOENT,
    /// No permission.
    EACCES,
}

impl Errno {
    /// What the engine is told.
    pub fn kind(self) -> StorageErrorKind {
        match self {
            Self::ENOSPC => StorageErrorKind::Full,
            Self::EIO => StorageErrorKind::Io,
            Self::EROFS => StorageErrorKind::ReadOnly,
            Self::EMFILE => StorageErrorKind::Exhausted,
            Self::ENOENT => StorageErrorKind::NotFound,
            Self::EACCES => StorageErrorKind::Denied,
        }
    }
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
    /// The user ends it, and begins it again later.
    Restart,
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
    /// Nothing passes between two groups.
    Partition,
    /// Nothing passes from one group to another.
    OneWayCut,
    /// Nothing passes to and from a host, and nobody is told.
    BlackHole,
    /// The connections of a host are reset at both ends.
    Reset,
    /// More is lost of what a host sends.
    LossBurst,
    /// A host's link is slower, both ways.
    SlowLink,
    /// A host's resolver fails.
    DnsOutage,
    /// A box that translates addresses forgets whom it let through.
    NatReboot,
    /// Calls on a disk fail, from the so-and-so-many-th on.
    DiskCall,
    /// Every job on a disk takes longer.
    DiskSlow,
    /// Every read ends before what was asked for.
    ShortRead,
    /// Syncs return at once and do nothing.
    SyncLies,
    /// Nothing can be written.
    DiskReadOnly,
    /// Bytes on a disk turn around; nothing tells.
    BitRot,
    /// Another program cuts a file.
    FileTruncated,
    /// Another program removes a file.
    FileRemoved,
    /// Another program puts zeros in a file's place.
    FileReplaced,
}

impl FaultKind {
    /// As written in scenario files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::PowerCut => "power-cut",
            Self::Leave => "leave",
            Self::Restart => "restart",
            Self::DiskFull => "disk-full",
            Self::TrackerOutage => "tracker-outage",
            Self::Silence => "silence",
            Self::Suspend => "suspend",
            Self::ClockJump => "clock-jump",
            Self::Partition => "partition",
            Self::OneWayCut => "one-way-cut",
            Self::BlackHole => "black-hole",
            Self::Reset => "reset",
            Self::LossBurst => "loss-burst",
            Self::SlowLink => "slow-link",
            Self::DnsOutage => "dns-outage",
            Self::NatReboot => "nat-reboot",
            Self::DiskCall => "disk-call",
            Self::DiskSlow => "disk-slow",
            Self::ShortRead => "short-read",
            Self::SyncLies => "sync-lies",
            Self::DiskReadOnly => "disk-read-only",
            Self::BitRot => "bit-rot",
            Self::FileTruncated => "file-truncated",
            Self::FileRemoved => "file-removed",
            Self::FileReplaced => "file-replaced",
        }
    }

    /// The family that a profile draws it in.
    pub fn family(self) -> &'static str {
        match self {
            Self::Crash | Self::PowerCut | Self::Leave => "crash",
            Self::Restart => "restart",
            Self::DiskFull | Self::DiskSlow => "disk",
            Self::DiskCall | Self::ShortRead | Self::SyncLies | Self::DiskReadOnly => "trouble",
            Self::BitRot | Self::FileTruncated | Self::FileRemoved | Self::FileReplaced => "damage",
            Self::TrackerOutage => "tracker",
            Self::Silence => "silence",
            Self::Suspend | Self::ClockJump => "clock",
            Self::Partition | Self::OneWayCut | Self::BlackHole => "partition",
            Self::LossBurst | Self::SlowLink => "link",
            Self::Reset => "reset",
            Self::DnsOutage => "dns",
            Self::NatReboot => "nat",
        }
    }

    /// Whether the host is gone meanwhile.
    pub fn takes_down(self) -> bool {
        matches!(self, Self::Crash | Self::PowerCut | Self::Leave | Self::Restart)
    }

    /// Whether one of several hosts is drawn for it.
    pub fn draws_host(self) -> bool {
        !matches!(self, Self::TrackerOutage | Self::Partition | Self::OneWayCut | Self::NatReboot)
    }

    /// Whether only the event world has it.
    pub(super) fn only_in_events(self) -> bool {
        matches!(self, Self::Reset | Self::NatReboot | Self::Restart)
    }

    /// The keys that it wants beside `at` and `when`; it takes no other of them.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Crash | Self::PowerCut | Self::Restart => &["pick", "back_after"],
            Self::Leave | Self::Reset | Self::NatReboot => &["pick"],
            Self::DiskFull => &["pick", "for", "space"],
            Self::TrackerOutage | Self::DnsOutage => &["pick", "for", "how"],
            Self::Silence | Self::Suspend | Self::BlackHole => &["pick", "for"],
            Self::ClockJump => &["pick", "for", "by"],
            Self::Partition | Self::OneWayCut => &["from_group", "to_group", "for"],
            Self::LossBurst => &["pick", "for", "share"],
            Self::SlowLink => &["pick", "for", "rate"],
            Self::DiskCall => &["pick", "call", "error"],
            Self::DiskSlow => &["pick", "for", "latency"],
            Self::ShortRead | Self::SyncLies | Self::DiskReadOnly => &["pick", "for"],
            Self::BitRot => &["pick", "pieces"],
            Self::FileTruncated | Self::FileRemoved | Self::FileReplaced => &["pick"],
        }
    }

    /// Those that it takes as well.
    fn more_keys(self) -> &'static [&'static str] {
        match self {
            Self::DiskCall => &["calls", "for"],
            Self::FileTruncated => &["file", "to"],
            Self::FileRemoved | Self::FileReplaced => &["file"],
            _ => &[],
        }
    }
}

/// How a tracker or a resolver is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outage {
    /// Nobody listens there.
    Refuse,
    /// Requests are taken and never answered.
    Hang,
    /// A resolver knows no name.
    Nxdomain,
    /// A resolver does not answer.
    Silence,
}

impl Fault {
    /// Whether it has the keys of its kind and no others.
    pub(super) fn check(&self) -> Result<(), At> {
        let kind = self.kind.name();
        if self.at.is_some() == self.when.is_some() {
            return Err(("kind", format!("{kind}: wants either `at` or `when`")));
        }
        for (name, has) in [
            ("pick", !self.pick.is_empty()),
            ("from_group", self.from_group.is_some()),
            ("to_group", self.to_group.is_some()),
            ("rate", self.rate.is_some()),
            ("share", self.share.is_some()),
            ("back_after", self.back_after.is_some()),
            ("for", self.lasts.is_some()),
            ("space", self.space.is_some()),
            ("how", !self.how.is_empty()),
            ("by", !self.by.is_empty()),
            ("call", self.call.is_some()),
            ("calls", self.calls.is_some()),
            ("error", !self.error.is_empty()),
            ("latency", self.latency.is_some()),
            ("pieces", self.pieces.is_some()),
            ("file", self.file.is_some()),
            ("to", self.to.is_some()),
        ] {
            match (self.kind.keys().contains(&name), has) {
                (true, false) => return Err(("kind", format!("{kind}: wants `{name}`"))),
                (false, true) if !self.kind.more_keys().contains(&name) => {
                    return Err((name, format!("{kind}: takes no `{name}`")));
                }
                _ => {}
            }
        }
        if self.kind == FaultKind::DiskCall && self.calls.is_some() == self.lasts.is_some() {
            return Err(("kind", format!("{kind}: wants either `calls` or `for`")));
        }
        for (name, is_zero) in [
            ("call", self.call.is_some_and(|call| call.low == 0)),
            ("calls", self.calls == Some(0)),
            ("pieces", self.pieces == Some(0)),
        ] {
            if is_zero {
                return Err((name, "wants at least 1".to_owned()));
            }
        }
        let of_dns = |how: &Outage| matches!(how, Outage::Nxdomain | Outage::Silence);
        match self.kind {
            FaultKind::TrackerOutage if self.how.iter().any(of_dns) => {
                Err(("how", format!("{kind}: wants `refuse` or `hang`")))
            }
            FaultKind::DnsOutage if !self.how.iter().all(of_dns) => {
                Err(("how", format!("{kind}: wants `nxdomain` or `silence`")))
            }
            _ => Ok(()),
        }
    }
}
