//! When which way to a router is tried, and what is told of it: a pure machine, given the time.
//!
//! Each way (PCP, NAT-PMP, UPnP) by itself either waits for its time or is under way, and holds what a router gave, until
//! that expires. All are tried side by side, and what they give is kept; one of them is announced, and stays so while it
//! holds. What is held is renewed at half its lease, and when the router is seen to have begun anew. A failed renewal is
//! tried again at half of what is left; without anything held the pause is a minute and doubles up to an hour.
//!
//! What it never does: ask anything itself, try a way twice at once, or believe a router that it should be asked all the time.

use core::net::{IpAddr, Ipv4Addr};
use std::fmt;
use std::time::Duration;

use taipei_engine::Instant;

/// How a router is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Way {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886), which came before it.
    NatPmp,
    /// Internet Gateway Device of UPnP.
    Upnp,
}

impl Way {
    /// All of them. Who comes first is announced first.
    pub(super) const ALL: [Self; 3] = [Self::Pcp, Self::NatPmp, Self::Upnp];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// What became of the wish for a port at the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortStatus {
    /// Nobody has answered yet.
    Looking,
    /// A router forwards to us.
    Mapped {
        /// By which way it was asked.
        way: Way,
        /// Its port for TCP, which is announced.
        port: u16,
        /// Its address towards the world, as it says.
        external_ip: Option<Ipv4Addr>,
    },
    /// No way led to a port. They are tried again now and then.
    Unmapped,
}

/// What a router gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// Its ports.
    pub(super) tcp: u16,
    pub(super) udp: u16,
    /// Its address towards the world.
    pub(super) external_ip: Option<Ipv4Addr>,
    /// None: for ever. It is renewed all the same, because routers forget.
    pub(super) lease: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    legs: Vec<Leg>,
    /// What routers are asked for.
    lease: Duration,
    announced: Option<Way>,
    /// When a router was last seen to have begun anew.
    reboot_at: Option<Instant>,
}

#[derive(Debug)]
struct Leg {
    way: Way,
    phase: Phase,
    held: Option<Held>,
    /// Failures in a row.
    failures: u32,
    /// Whether it was tried to its end, ever.
    was_tried: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting(Instant),
    UnderWay,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    granted: Granted,
    expires_at: Instant,
}

impl Plan {
    /// Begins with these ways, all at once.
    pub(super) fn new(now: Instant, ways: impl IntoIterator<Item = Way>, lease: Duration) -> Self {
        let leg = |way| Leg { way, phase: Phase::Waiting(now), held: None, failures: 0, was_tried: false };
        Self { legs: ways.into_iter().map(leg).collect(), lease, announced: None, reboot_at: None }
    }

    /// The next way to try now, with what it holds. It is then under way until [`Self::on_granted`] or
    /// [`Self::on_failed`].
    pub(super) fn poll_try(&mut self, now: Instant) -> Option<(Way, Option<Granted>)> {
        let due = |leg: &&Leg| matches!(leg.phase, Phase::Waiting(at) if at <= now);
        let way = self.legs.iter().filter(due).map(|leg| leg.way).find(|way| !self.stands_back(*way))?;
        let leg = self.leg(way)?;
        leg.phase = Phase::UnderWay;
        Some((way, leg.held.map(|held| held.granted)))
    }

    /// When something is to be tried or expires.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let tries =
            self.legs.iter().filter(|leg| !self.stands_back(leg.way)).filter_map(|leg| match leg.phase {
                Phase::Waiting(at) => Some(at),
                Phase::UnderWay => None,
            });
        tries.chain(self.legs.iter().filter_map(|leg| leg.held.map(|held| held.expires_at))).min()
    }

    /// Forgets what has expired.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for leg in &mut self.legs {
            leg.held = leg.held.filter(|held| held.expires_at > now);
        }
        self.choose();
    }

    /// A router gave something.
    pub(super) fn on_granted(&mut self, now: Instant, way: Way, granted: Granted) {
        let least = LEASE_MIN.min(self.lease);
        let lease = granted.lease.unwrap_or(self.lease).clamp(least, LEASE_MAX.max(least));
        let Some(leg) = self.leg(way) else { return };
        assert_eq!(leg.phase, Phase::UnderWay, "only what was begun can end");
        leg.phase = Phase::Waiting(now + lease / 2);
        leg.held = Some(Held { granted, expires_at: now + lease });
        (leg.failures, leg.was_tried) = (0, true);
        self.choose();
    }

    /// A try came to nothing.
    pub(super) fn on_failed(&mut self, now: Instant, way: Way) {
        self.handle_timeout(now);
        let pause_min = RENEW_AGAIN_MIN.min(self.lease / 8);
        let Some(leg) = self.leg(way) else { return };
        assert_eq!(leg.phase, Phase::UnderWay, "only what was begun can end");
        let pause = match &leg.held {
            Some(held) => (held.expires_at.since(now) / 2).max(pause_min),
            None => (RETRY * 2_u32.saturating_pow(leg.failures.min(10))).min(RETRY_MAX),
        };
        leg.phase = Phase::Waiting(now + pause);
        if leg.held.is_none() {
            leg.failures = leg.failures.saturating_add(1);
        }
        leg.was_tried = true;
    }

    /// A router that answered by this way has begun anew: whatever others got from it is lost. One that begins anew all the
    /// time is not heard. Whether it was.
    pub(super) fn on_reboot(&mut self, now: Instant, way: Way) -> bool {
        let pause = REBOOT_PAUSE.min(self.lease / 2);
        if self.reboot_at.is_some_and(|at| now.since(at) < pause) {
            return false;
        }
        self.reboot_at = Some(now);
        let others = self.legs.iter_mut().filter(|leg| leg.way != way && leg.held.is_some());
        for leg in others.filter(|leg| leg.phase != Phase::UnderWay) {
            leg.phase = Phase::Waiting(now);
        }
        true
    }

    /// What is to be told.
    pub(super) fn status(&self) -> PortStatus {
        let announced = self.legs.iter().find(|leg| Some(leg.way) == self.announced);
        match announced.and_then(|leg| leg.held) {
            Some(Held { granted, .. }) => PortStatus::Mapped {
                way: self.announced.unwrap_or(Way::Upnp),
                port: granted.tcp,
                external_ip: granted.external_ip,
            },
            None if self.legs.iter().all(|leg| leg.was_tried) => PortStatus::Unmapped,
            None => PortStatus::Looking,
        }
    }

    /// Everything that routers gave us and may still hold.
    pub(super) fn held(&self) -> impl Iterator<Item = (Way, Granted)> {
        self.legs.iter().filter_map(|leg| Some((leg.way, leg.held?.granted)))
    }

    /// A router that speaks PCP speaks NAT-PMP only for those that do not, and both would give two ports.
    fn stands_back(&self, way: Way) -> bool {
        let pcp = self.legs.iter().find(|leg| leg.way == Way::Pcp);
        let holds = self.legs.iter().any(|leg| leg.way == way && leg.held.is_some());
        way == Way::NatPmp && !holds && pcp.is_some_and(|pcp| pcp.held.is_some() || !pcp.was_tried)
    }

    fn choose(&mut self) {
        let holds = |way: &Way| self.legs.iter().any(|leg| leg.way == *way && leg.held.is_some());
        self.announced = self.announced.filter(holds).or_else(|| Way::ALL.into_iter().find(holds));
    }

    fn leg(&mut self, way: Way) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.way == way)
    }
}

/// When a router was asked, and for how long it says to have run then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    /// Which router.
    pub(super) router: IpAddr,
    pub(super) seconds: u32,
    pub(super) at: Instant,
}

impl Epoch {
    /// Whether the router lost its state between this answer and a later one (RFC 6887, 8.5; RFC 6886, 3.6).
    pub(super) fn is_broken_by(&self, later: &Self) -> bool {
        if later.router != self.router {
            return false;
        }
        let theirs = i64::from(later.seconds) - i64::from(self.seconds);
        let ours = i64::try_from(later.at.since(self.at).as_secs()).unwrap_or(i64::MAX / 2);
        theirs < -1 || ours + 2 < theirs - theirs / 16 || theirs + 2 < ours - ours / 16
    }
}

/// After the first failure; twice as long after each further one.
const RETRY: Duration = Duration::from_secs(60);
/// A router may appear at any time, at home after a journey for example.
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// Between tries to renew what is about to expire.
const RENEW_AGAIN_MIN: Duration = Duration::from_secs(30);
/// A shorter lease than this, where a longer one was asked for, is not believed.
const LEASE_MIN: Duration = Duration::from_secs(120);
/// The longest that is waited for half of (RFC 6887, 15, sets as much).
const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Between two reboots of a router that are acted on.
const REBOOT_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    fn granted(port: u16, seconds: u64) -> Granted {
        let lease = (seconds > 0).then(|| Duration::from_secs(seconds));
        Granted { tcp: port, udp: port, external_ip: None, lease }
    }

    fn plan(ways: &[Way]) -> Plan {
        Plan::new(at(0), ways.iter().copied(), HOUR)
    }

    /// The ways that are tried now.
    fn tries(plan: &mut Plan, now: u64) -> Vec<Way> {
        tries_at(plan, at(now))
    }

    fn tries_at(plan: &mut Plan, now: Instant) -> Vec<Way> {
        plan.handle_timeout(now);
        std::iter::from_fn(|| plan.poll_try(now)).map(|(way, _)| way).collect()
    }

    fn announced(plan: &Plan) -> Option<(Way, u16)> {
        match plan.status() {
            PortStatus::Mapped { way, port, .. } => Some((way, port)),
            _ => None,
        }
    }

    #[test]
    fn ways_are_tried_side_by_side_and_the_first_that_gives_is_announced() {
        let mut plan = plan(&Way::ALL);
        assert_eq!(tries(&mut plan, 0), [Way::Pcp, Way::Upnp]);
        assert_eq!((plan.status(), plan.poll_timeout()), (PortStatus::Looking, None));
        plan.on_granted(at(2), Way::Upnp, granted(7000, 3600));
        assert_eq!(announced(&plan), Some((Way::Upnp, 7000)));
        // One that only speaks NAT-PMP.
        plan.on_failed(at(3), Way::Pcp);
        assert_eq!(tries(&mut plan, 3), [Way::NatPmp]);
        plan.on_granted(at(4), Way::NatPmp, granted(7001, 3600));
        assert_eq!(announced(&plan), Some((Way::Upnp, 7000)), "stays while it holds");
        assert_eq!(plan.held().count(), 2);
    }

    #[test]
    fn nat_pmp_stands_back_where_pcp_is_spoken() {
        let mut plan = plan(&Way::ALL);
        assert_eq!(tries(&mut plan, 0), [Way::Pcp, Way::Upnp]);
        plan.on_granted(at(1), Way::Pcp, granted(7000, 3600));
        plan.on_failed(at(3), Way::Upnp);
        assert_eq!(tries(&mut plan, 3), []);
        assert_eq!(plan.poll_timeout(), Some(at(63)), "nor does it wake anybody");
        // Alone it waits for nobody.
        assert_eq!(tries(&mut self::plan(&[Way::NatPmp]), 0), [Way::NatPmp]);
    }

    #[test]
    fn what_is_held_is_renewed_at_half_its_lease() {
        let mut plan = plan(&[Way::Pcp]);
        for (given, renewed_after) in [(3600, 1800), (600, 300), (0, 1800), (1, 60), (1_000_000_000, 43_200)]
        {
            let now = plan.poll_timeout().unwrap();
            assert_eq!(tries(&mut plan, now.since(at(0)).as_secs()), [Way::Pcp]);
            plan.on_granted(now, Way::Pcp, granted(7000, given));
            assert_eq!(plan.poll_timeout(), Some(now + Duration::from_secs(renewed_after)), "{given}");
        }
    }

    #[test]
    fn a_short_lease_that_was_asked_for_is_believed() {
        let mut plan = Plan::new(at(0), [Way::Upnp], Duration::from_secs(6));
        assert_eq!(tries(&mut plan, 0), [Way::Upnp]);
        plan.on_granted(at(0), Way::Upnp, granted(7000, 6));
        assert_eq!(plan.poll_timeout(), Some(at(3)));
    }

    #[test]
    fn a_failed_renewal_is_tried_again_until_the_lease_is_over() {
        let mut plan = plan(&[Way::Upnp]);
        assert_eq!(tries(&mut plan, 0), [Way::Upnp]);
        plan.on_granted(at(0), Way::Upnp, granted(7000, 3600));
        let mut times = Vec::new();
        while announced(&plan).is_some() {
            let now = plan.poll_timeout().unwrap();
            if tries_at(&mut plan, now) == [Way::Upnp] {
                times.push(now.since(at(0)).as_secs());
                plan.on_failed(now, Way::Upnp);
            }
            assert!(times.len() < 20, "{times:?}");
        }
        assert_eq!(times[..3], [1800, 2700, 3150]);
        assert!(times.len() < 10 && times[times.len() - 1] <= 3630, "{times:?}");
        assert_eq!(plan.status(), PortStatus::Unmapped);
        // Found again: mapped again.
        let now = plan.poll_timeout().unwrap();
        assert_eq!(tries_at(&mut plan, now), [Way::Upnp]);
        plan.on_granted(now, Way::Upnp, granted(7000, 3600));
        assert_eq!(announced(&plan), Some((Way::Upnp, 7000)));
    }

    #[test]
    fn without_a_router_the_pause_doubles_up_to_an_hour() {
        let mut plan = plan(&[Way::Upnp]);
        let (mut now, mut pauses) = (at(0), Vec::new());
        for _ in 0..9 {
            assert_eq!(tries(&mut plan, now.since(at(0)).as_secs()), [Way::Upnp]);
            plan.on_failed(now, Way::Upnp);
            let next = plan.poll_timeout().unwrap();
            pauses.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    }

    #[test]
    fn another_way_is_announced_when_the_first_expires() {
        let mut plan = plan(&[Way::NatPmp, Way::Upnp]);
        assert_eq!(tries(&mut plan, 0), [Way::NatPmp, Way::Upnp]);
        plan.on_granted(at(1), Way::NatPmp, granted(7001, 600));
        plan.on_granted(at(2), Way::Upnp, granted(7000, 0));
        assert_eq!(tries(&mut plan, 301), [Way::NatPmp]);
        plan.handle_timeout(at(601));
        assert_eq!(announced(&plan), Some((Way::Upnp, 7000)));
        assert_eq!(plan.held().map(|(way, _)| way).collect::<Vec<_>>(), [Way::Upnp]);
        // The late answer to a renewal counts all the same.
        plan.on_granted(at(602), Way::NatPmp, granted(7001, 600));
        assert_eq!((plan.held().count(), announced(&plan)), (2, Some((Way::Upnp, 7000))));
    }

    #[test]
    fn after_a_reboot_all_that_others_hold_is_renewed_once() {
        let mut plan = plan(&[Way::Pcp, Way::Upnp]);
        assert_eq!(tries(&mut plan, 0), [Way::Pcp, Way::Upnp]);
        plan.on_granted(at(0), Way::Pcp, granted(7000, 3600));
        plan.on_granted(at(0), Way::Upnp, granted(7000, 3600));
        assert!(plan.on_reboot(at(100), Way::Pcp));
        assert_eq!(tries(&mut plan, 100), [Way::Upnp]);
        plan.on_granted(at(100), Way::Upnp, granted(7000, 3600));
        // Whoever says so all the time keeps nobody busy.
        assert!(!plan.on_reboot(at(101), Way::Pcp));
        assert_eq!(tries(&mut plan, 101), []);
        assert!(plan.on_reboot(at(200), Way::Pcp));
    }

    #[test]
    fn an_epoch_breaks_when_it_does_not_go_with_our_clock() {
        let epoch =
            |seconds, now| Epoch { router: Ipv4Addr::new(192, 168, 0, 1).into(), seconds, at: at(now) };
        let before = epoch(1000, 50);
        for (seconds, now, broken) in [
            (1000, 50, false),
            (999, 50, false),
            (1100, 150, false),
            (1095, 150, false),
            (1107, 150, false),
            (0, 150, true),
            (998, 50, true),
            (1050, 150, true),
            (1200, 150, true),
            (u32::MAX, 60, true),
        ] {
            assert_eq!(before.is_broken_by(&epoch(seconds, now)), broken, "{seconds} at {now}");
        }
        let other = Epoch { router: Ipv4Addr::new(10, 0, 0, 1).into(), ..epoch(0, 150) };
        assert!(!before.is_broken_by(&other), "another router has its own");
    }
}
