//! Faults of a plan: what goes wrong, when, and with which host, tracker or box.

use std::collections::BTreeSet;

use super::{HostPlan, TrackerPlan};
use crate::disk::{Damage, Span, Trouble};
use crate::network::cuts::Cut;
use crate::scenario::{Fault, FaultKind, NatBox, Outage};
use crate::units::{Rate, Share};

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    /// When; none when as soon as one copy is out among those that had nothing.
    pub at: Option<u64>,
    /// How long until the host begins again, or it is over; nothing for what stays.
    pub lasts: u64,
    /// What, and to whom.
    pub action: Action,
}

/// What a fault does. Hosts and trackers by their place in [`Plan::hosts`] and [`Plan::trackers`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process dies.
    Crash {
        /// Where.
        host: usize,
    },
    /// The machine dies.
    PowerCut {
        /// Which.
        host: usize,
    },
    /// The user ends it, for good.
    Leave {
        /// Where.
        host: usize,
    },
    /// The user ends it, and begins it again later.
    Restart {
        /// Where.
        host: usize,
    },
    /// Little more fits on the disk.
    DiskFull {
        /// Whose.
        host: usize,
        /// What still fits.
        space_bytes: u64,
    },
    /// A tracker is away.
    TrackerOutage {
        /// Which.
        tracker: usize,
        /// How.
        how: Outage,
    },
    /// Nothing that a host sends arrives before the end of it.
    Silence {
        /// Which.
        host: usize,
    },
    /// The machine sleeps.
    Suspend {
        /// Which.
        host: usize,
    },
    /// The wall clock is wrong.
    ClockJump {
        /// Whose.
        host: usize,
        /// By how much, nanoseconds.
        by_ns: i64,
    },
    /// Nothing passes between parties, and nobody is told.
    Cut {
        /// Which kind of cut.
        kind: FaultKind,
        /// The host that is cut off, where it is a single one.
        host: Option<usize>,
        /// From whom to whom.
        cut: Cut,
    },
    /// The connections of a host are reset.
    Reset {
        /// Whose.
        host: usize,
    },
    /// More is lost of what a host sends.
    LossBurst {
        /// Which.
        host: usize,
        /// How much.
        share: Share,
    },
    /// A link is slower.
    SlowLink {
        /// Whose.
        host: usize,
        /// What it still passes.
        rate: Rate,
    },
    /// A resolver fails.
    DnsOutage {
        /// Whose.
        host: usize,
        /// How.
        how: Outage,
    },
    /// A box forgets whom it let through.
    NatReboot {
        /// Which.
        nat: usize,
    },
    /// A disk does something wrong for a while.
    Trouble {
        /// Whose.
        host: usize,
        /// What.
        trouble: Trouble,
    },
    /// Something is done to files behind the engine's back.
    Damage {
        /// Where.
        host: usize,
        /// What.
        damage: Damage,
    },
}

impl Action {
    /// As the scenario calls it.
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Crash { .. } => FaultKind::Crash,
            Self::PowerCut { .. } => FaultKind::PowerCut,
            Self::Leave { .. } => FaultKind::Leave,
            Self::Restart { .. } => FaultKind::Restart,
            Self::DiskFull { .. } => FaultKind::DiskFull,
            Self::TrackerOutage { .. } => FaultKind::TrackerOutage,
            Self::Silence { .. } => FaultKind::Silence,
            Self::Suspend { .. } => FaultKind::Suspend,
            Self::ClockJump { .. } => FaultKind::ClockJump,
            Self::Cut { kind, .. } => *kind,
            Self::Reset { .. } => FaultKind::Reset,
            Self::LossBurst { .. } => FaultKind::LossBurst,
            Self::SlowLink { .. } => FaultKind::SlowLink,
            Self::DnsOutage { .. } => FaultKind::DnsOutage,
            Self::NatReboot { .. } => FaultKind::NatReboot,
            Self::Trouble { trouble, .. } => match trouble {
                Trouble::Call { .. } => FaultKind::DiskCall,
                Trouble::Slow(_) => FaultKind::DiskSlow,
                Trouble::ShortRead => FaultKind::ShortRead,
                Trouble::SyncLies => FaultKind::SyncLies,
                Trouble::ReadOnly => FaultKind::DiskReadOnly,
            },
            Self::Damage { damage, .. } => match damage {
                Damage::Rot { .. } => FaultKind::BitRot,
                Damage::Truncated { .. } => FaultKind::FileTruncated,
                Damage::Removed { .. } => FaultKind::FileRemoved,
                Damage::Replaced { .. } => FaultKind::FileReplaced,
            },
        }
    }

    /// The host that it hits; none for what hits another party.
    pub fn host(&self) -> Option<usize> {
        match self {
            Self::Crash { host }
            | Self::PowerCut { host }
            | Self::Leave { host }
            | Self::Restart { host }
            | Self::DiskFull { host, .. }
            | Self::Silence { host }
            | Self::Suspend { host }
            | Self::ClockJump { host, .. }
            | Self::Reset { host }
            | Self::LossBurst { host, .. }
            | Self::SlowLink { host, .. }
            | Self::DnsOutage { host, .. }
            | Self::Trouble { host, .. }
            | Self::Damage { host, .. } => Some(*host),
            Self::Cut { host, .. } => *host,
            Self::TrackerOutage { .. } | Self::NatReboot { .. } => None,
        }
    }

    /// Whether it is over not when its time has come but when the disk says so.
    pub fn waits_for_call(&self) -> bool {
        matches!(self, Self::Trouble { trouble: Trouble::Call { .. }, .. })
    }

    /// Of a fault that was settled: everything in it is drawn.
    pub(super) fn new(fault: &Fault, hosts: &[HostPlan], trackers: &[TrackerPlan], nats: &[NatBox]) -> Self {
        let host =
            || hosts.iter().position(|host| host.name == fault.pick).expect("a settled fault picks a host");
        match fault.kind {
            FaultKind::Crash => Self::Crash { host: host() },
            FaultKind::PowerCut => Self::PowerCut { host: host() },
            FaultKind::Leave => Self::Leave { host: host() },
            FaultKind::Restart => Self::Restart { host: host() },
            FaultKind::DiskFull => {
                Self::DiskFull { host: host(), space_bytes: fault.space.map_or(0, |space| space.0) }
            }
            FaultKind::TrackerOutage => {
                let tracker = trackers.iter().position(|tracker| tracker.name == fault.pick);
                Self::TrackerOutage {
                    tracker: tracker.expect("a checked fault picks a tracker"),
                    how: fault.how[0],
                }
            }
            FaultKind::Silence => Self::Silence { host: host() },
            FaultKind::Suspend => Self::Suspend { host: host() },
            FaultKind::ClockJump => Self::ClockJump { host: host(), by_ns: fault.by[0].0 },
            FaultKind::Partition | FaultKind::OneWayCut => Self::Cut {
                kind: fault.kind,
                host: None,
                cut: Cut {
                    from: side(fault.from_group.as_deref(), hosts, trackers),
                    to: Some(side(fault.to_group.as_deref(), hosts, trackers)),
                    both_ways: fault.kind == FaultKind::Partition,
                },
            },
            FaultKind::BlackHole => Self::Cut {
                kind: fault.kind,
                host: Some(host()),
                cut: Cut { from: [host()].into(), to: None, both_ways: true },
            },
            FaultKind::Reset => Self::Reset { host: host() },
            FaultKind::LossBurst => {
                Self::LossBurst { host: host(), share: fault.share.expect("a checked fault has its keys") }
            }
            FaultKind::SlowLink => {
                Self::SlowLink { host: host(), rate: fault.rate.expect("a checked fault has its keys") }
            }
            FaultKind::DnsOutage => Self::DnsOutage { host: host(), how: fault.how[0] },
            FaultKind::NatReboot => Self::NatReboot {
                nat: nats.iter().position(|nat| nat.name == fault.pick).expect("a checked fault picks a box"),
            },
            kind => match (trouble(kind, fault), damage(kind, fault)) {
                (Some(trouble), _) => Self::Trouble { host: host(), trouble },
                (None, Some(damage)) => Self::Damage { host: host(), damage },
                (None, None) => unreachable!("every kind is one of these: {kind:?}"),
            },
        }
    }
}

/// The parties that a name stands for on one side of a cut.
fn side(name: Option<&str>, hosts: &[HostPlan], trackers: &[TrackerPlan]) -> BTreeSet<usize> {
    let is_named = |of: &str| name == Some(of);
    let hosts_named =
        hosts.iter().enumerate().filter(|(_, host)| is_named(&host.group) || is_named(&host.name));
    let trackers_named = trackers.iter().enumerate().filter(|(_, tracker)| is_named(&tracker.name));
    let parties = trackers_named.map(|(number, _)| hosts.len() + number);
    hosts_named.map(|(number, _)| number).chain(parties).collect()
}

fn trouble(kind: FaultKind, fault: &Fault) -> Option<Trouble> {
    Some(match kind {
        FaultKind::DiskCall => Trouble::Call {
            call: fault.call.map_or(1, |call| call.low),
            span: match fault.lasts {
                Some(lasts) => Span::Time(lasts.low),
                None => Span::Calls(fault.calls.unwrap_or(1)),
            },
            kind: fault.error[0].kind(),
        },
        FaultKind::DiskSlow => Trouble::Slow(fault.latency.unwrap_or_default()),
        FaultKind::ShortRead => Trouble::ShortRead,
        FaultKind::SyncLies => Trouble::SyncLies,
        FaultKind::DiskReadOnly => Trouble::ReadOnly,
        _ => return None,
    })
}

fn damage(kind: FaultKind, fault: &Fault) -> Option<Damage> {
    let file = fault.file.clone();
    Some(match kind {
        FaultKind::BitRot => Damage::Rot { pieces: fault.pieces.unwrap_or(1) },
        FaultKind::FileTruncated => Damage::Truncated { file, to: fault.to.map(|size| size.0) },
        FaultKind::FileRemoved => Damage::Removed { file },
        FaultKind::FileReplaced => Damage::Replaced { file },
        _ => return None,
    })
}
