//! Ports of ours at the router: found, mapped, renewed, and given back.
//!
//! A [`PortMapper`] is one task beside a session. It asks the router by PCP, NAT-PMP and UPnP at once and keeps what answers;
//! `plan` decides when, without waiting for anything. What comes of it is a [`PortStatus`] to look at. Whatever fails is a
//! line in the log: nobody is stopped by a router.
//!
//! What it never does: go another way than the session is bound to, ask a host outside the local network that is not the
//! default gateway, or take a word of a router's as it is.

mod ask;
mod gateway;
mod nat_pmp;
mod pcp;
mod plan;
mod upnp;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use taipei_engine::Instant;
use taipei_engine::address::Scope;
use taipei_engine::driver::Clock as _;
use taipei_engine::input::NetError;
use taipei_engine::rng::Rng;
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, info};

use self::plan::{Epoch, Granted, Plan};
pub use self::plan::{PortStatus, Way};
use crate::clock::start_values;
use crate::{Bind, BootClock, TcpTransport, platform};

/// How the router is asked for a port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortMapping {
    /// The ways that are tried.
    pub ways: Vec<Way>,
    /// For how long a router is asked to forward; it is asked again at half of it.
    pub lease: Duration,
}

impl Default for PortMapping {
    /// Every way, an hour.
    fn default() -> Self {
        Self { ways: Way::ALL.to_vec(), lease: LEASE }
    }
}

/// Keeps ports mapped while it lives. [`Self::release`] gives them back; dropped without, they expire with their lease.
#[derive(Debug)]
pub struct PortMapper {
    status: watch::Receiver<PortStatus>,
    stop: oneshot::Sender<()>,
    task: AbortOnDrop,
    ended: oneshot::Receiver<()>,
}

/// What became of the wish for a port. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PortWatch(watch::Receiver<PortStatus>);

impl PortWatch {
    /// As it is now.
    pub fn now(&self) -> PortStatus {
        *self.0.borrow()
    }

    /// Waits until it is another one; none when nobody maps any more. Cancel safe.
    pub async fn changed(&mut self) -> Option<PortStatus> {
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }
}

impl PortMapper {
    /// Begins, where there is something to map: a port listened at with IPv4, at an address that a router may stand before.
    /// Needs a running tokio.
    pub fn start(bind: Bind, listening: &[SocketAddr], options: &PortMapping) -> Option<Self> {
        let port = port_to_map(listening)?;
        let (status_sender, status) = watch::channel(PortStatus::Looking);
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let mut nonce = [0; 12];
        Rng::stream(start_values(None).seed, "port mapping", 0).fill(&mut nonce);
        let worker = Worker {
            clock: BootClock::new(),
            transport: TcpTransport::new(bind.clone()),
            bind,
            port,
            lease: options.lease,
            nonce,
            router: None,
            epochs: Vec::new(),
            status: status_sender,
        };
        let mut ways = options.ways.clone();
        ways.sort_unstable();
        ways.dedup();
        let task = tokio::spawn(async move {
            worker.run(ways, stopped).await;
            let _ = end.send(());
        });
        Some(Self { status, stop, task: AbortOnDrop(task.abort_handle()), ended })
    }

    /// What became of it, to look at.
    pub fn watch(&self) -> PortWatch {
        PortWatch(self.status.clone())
    }

    /// Gives back what routers gave, for two seconds at most.
    pub async fn release(self) {
        let Self { stop, ended, task, .. } = self;
        let _ = stop.send(());
        let _ = tokio::time::timeout(RELEASE_TIME_MAX, ended).await;
        drop(task);
    }
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The port that a router might forward to, if it might.
fn port_to_map(listening: &[SocketAddr]) -> Option<u16> {
    let ipv4 = listening.iter().find(|address| address.is_ipv4())?;
    let is_behind = ipv4.ip().is_unspecified() || Scope::of(ipv4.ip()) == Scope::Private;
    (is_behind && ipv4.port() != 0).then_some(ipv4.port())
}

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    /// As IP has it.
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// What a router is asked for.
#[derive(Clone, Debug)]
struct Wish {
    /// Where we listen.
    internal: u16,
    /// Where we would like to be reached.
    external: u16,
    lease: Duration,
    nonce: [u8; 12],
    /// Raised when a router may have something of ours.
    may_hold: Arc<AtomicBool>,
}

impl Wish {
    /// The next question may change something at the router.
    fn asked(&self) {
        self.may_hold.store(true, Ordering::Relaxed);
    }
}

/// Why a way led to nothing. No word of it is a router's.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("no router answers")]
    NoRouter,
    #[error("the router does not speak it")]
    NotSpoken,
    #[error("the router refuses, with code {0}")]
    Refused(u16),
    #[error("the answer makes no sense")]
    Nonsense,
    #[error("this machine is not behind a router")]
    NotBehind,
    #[error("{0}")]
    Net(NetError),
    #[error("{0}")]
    System(io::Error),
}

struct Worker {
    clock: BootClock,
    transport: TcpTransport,
    bind: Bind,
    port: u16,
    lease: Duration,
    nonce: [u8; 12],
    /// The gateway device that UPnP found last.
    router: Option<upnp::Router>,
    /// Of each router, by each way, when it was heard last.
    epochs: Vec<(Way, Epoch)>,
    status: watch::Sender<PortStatus>,
}

/// What a try came to.
struct Tried {
    way: Way,
    result: Result<Granted, Failed>,
    router: Option<upnp::Router>,
    epoch: Option<Epoch>,
}

impl Worker {
    async fn run(mut self, ways: Vec<Way>, mut stopped: oneshot::Receiver<()>) {
        let mut plan = Plan::new(self.clock.now(), ways, self.lease);
        let mut tries = JoinSet::new();
        let mut under_way: Vec<(AbortHandle, Arc<AtomicBool>)> = Vec::new();
        loop {
            let now = self.clock.now();
            plan.handle_timeout(now);
            while let Some((way, held)) = plan.poll_try(now) {
                let wish = Wish { external: held.map_or(self.port, |held| held.tcp), ..self.wish() };
                let may_hold = Arc::clone(&wish.may_hold);
                under_way.retain(|(task, _)| !task.is_finished());
                under_way.push((tries.spawn(self.attempt(way, wish)), may_hold));
            }
            self.tell(&plan);
            let deadline = plan.poll_timeout();
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                Some(Ok(tried)) = tries.join_next() => self.take(&mut plan, tried),
                () = sleep_until(&self.clock, deadline) => {}
            }
        }
        // A try that has not got as far as to ask for anything leaves nothing behind.
        let idle = under_way.iter().filter(|(_, may_hold)| !may_hold.load(Ordering::Relaxed));
        idle.for_each(|(task, _)| task.abort());
        let mut releases = JoinSet::new();
        for (way, granted) in plan.held() {
            releases.spawn(self.release(way, granted));
        }
        while let Some(tried) = tries.join_next().await {
            if let Ok(Tried { way, result: Ok(granted), router, .. }) = tried {
                self.router = router.or(self.router.take());
                releases.spawn(self.release(way, granted));
            }
        }
        while releases.join_next().await.is_some() {}
    }

    /// One try of one way, to its end.
    fn attempt(&self, way: Way, wish: Wish) -> impl Future<Output = Tried> + use<> {
        let (transport, clock, before) = (self.transport.clone(), self.clock, self.router.clone());
        let gateway = self.default_gateway();
        let local = self.bound_to();
        async move {
            let mut tried = Tried { way, result: Err(Failed::NoRouter), router: None, epoch: None };
            let work = async {
                match (way, gateway) {
                    (Way::Upnp, _) => {
                        let (router, granted) = by_upnp(&transport, &wish, before, gateway, local).await?;
                        tried.router = Some(router);
                        Ok(granted)
                    }
                    (_, None) => Err(Failed::NoRouter),
                    (_, Some(ip)) => {
                        let asked = ask::Gateway::open(&transport, ip).await?;
                        let (granted, seconds) = match way {
                            Way::Pcp => asked.map_by_pcp(&wish).await?,
                            _ => asked.map_by_nat_pmp(&wish).await?,
                        };
                        tried.epoch = Some(Epoch { router: ip.into(), seconds, at: clock.now() });
                        Ok(granted)
                    }
                }
            };
            let result = tokio::time::timeout(TRY_TIME_MAX, work).await;
            tried.result = result.unwrap_or(Err(Failed::NoRouter));
            tried
        }
    }

    fn take(&mut self, plan: &mut Plan, tried: Tried) {
        let now = self.clock.now();
        let way = tried.way;
        match tried.result {
            Ok(granted) => {
                debug!(%way, tcp = granted.tcp, udp = granted.udp, lease = ?granted.lease, "mapped");
                plan.on_granted(now, way, granted);
            }
            Err(error) => {
                debug!(%way, %error, "not mapped");
                plan.on_failed(now, way);
            }
        }
        // One that did not answer may still have to be told that we go.
        self.router = tried.router.or(self.router.take());
        if let Some(epoch) = tried.epoch {
            let before = self.epochs.iter_mut().find(|(other, _)| *other == way);
            let is_broken = match before {
                Some((_, before)) => std::mem::replace(before, epoch).is_broken_by(&epoch),
                None => {
                    self.epochs.push((way, epoch));
                    false
                }
            };
            if is_broken && plan.on_reboot(now, way) {
                info!("the router began anew");
            }
        }
    }

    /// Says what changed.
    fn tell(&self, plan: &Plan) {
        let status = plan.status();
        let is_new = self.status.send_if_modified(|before| std::mem::replace(before, status) != status);
        match status {
            _ if !is_new => {}
            PortStatus::Looking => {}
            PortStatus::Mapped { way, port, external_ip } => match external_ip {
                Some(ip) if Scope::of(ip.into()) != Scope::Public => {
                    info!(%way, port, %ip, "the router forwards a port to us, but its own address is not public");
                }
                ip => {
                    info!(%way, port, ip = ip.map(tracing::field::display), "the router forwards a port to us")
                }
            },
            PortStatus::Unmapped => info!("no router forwards a port to us; trying again now and then"),
        }
    }

    /// Gives back what a way gave.
    fn release(&self, way: Way, granted: Granted) -> impl Future<Output = ()> + use<> {
        let (transport, router, gateway) =
            (self.transport.clone(), self.router.clone(), self.default_gateway());
        let wish = self.wish();
        async move {
            let released = match (way, gateway) {
                (Way::Upnp, _) => {
                    if let Some(router) = router {
                        router.release(&granted).await;
                    }
                    Ok(())
                }
                (_, None) => Err(Failed::NoRouter),
                (_, Some(ip)) => match ask::Gateway::open(&transport, ip).await {
                    Ok(gateway) if way == Way::Pcp => gateway.release_by_pcp(&wish, &granted).await,
                    Ok(gateway) => gateway.release_by_nat_pmp(&wish).await,
                    Err(error) => Err(error),
                },
            };
            match released {
                Ok(()) => debug!(%way, "released"),
                Err(error) => debug!(%way, %error, "not released"),
            }
        }
    }

    fn wish(&self) -> Wish {
        Wish {
            internal: self.port,
            external: self.port,
            lease: self.lease,
            nonce: self.nonce,
            may_hold: Arc::default(),
        }
    }

    /// Looked up each time: machines move.
    fn default_gateway(&self) -> Option<Ipv4Addr> {
        let gateway = gateway::default_gateway(&platform::ipv4_routes()?, &self.bind)?;
        let is_host = !gateway.is_loopback() && !gateway.is_multicast() && !gateway.is_broadcast();
        is_host.then_some(gateway)
    }

    fn bound_to(&self) -> Option<Ipv4Addr> {
        match self.bind {
            Bind::Address(IpAddr::V4(address)) => Some(address),
            _ => None,
        }
    }
}

/// With the device that was found last, or, when that does not answer, with one that is looked for.
async fn by_upnp(
    transport: &TcpTransport,
    wish: &Wish,
    before: Option<upnp::Router>,
    gateway: Option<Ipv4Addr>,
    bound_to: Option<Ipv4Addr>,
) -> Result<(upnp::Router, Granted), Failed> {
    if let Some(router) = before {
        match router.map(wish).await {
            Ok(granted) => return Ok((router, granted)),
            Err(error) => debug!(%error, "the gateway device is looked for again"),
        }
    }
    // The network of the default gateway is the one to ask, where a machine is in several.
    let local = match (bound_to, gateway) {
        (None, Some(gateway)) => ask::local_address(transport, gateway).await,
        _ => bound_to,
    };
    if local.is_some_and(|local| Scope::of(local.into()) != Scope::Private) {
        return Err(Failed::NotBehind);
    }
    let router = upnp::Router::find(transport, gateway, local).await?;
    let granted = router.map(wish).await?;
    Ok((router, granted))
}

/// As the protocols have it, which all of them measure in.
fn seconds_of(lease: Duration) -> u32 {
    u32::try_from(lease.as_secs()).unwrap_or(u32::MAX)
}

async fn sleep_until(clock: &BootClock, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What routers are asked for: a crash leaves a port open for no longer, and half of it is not often.
const LEASE: Duration = Duration::from_secs(3600);
/// One way, from the search to the answer, whatever a router does.
const TRY_TIME_MAX: Duration = Duration::from_secs(60);
/// What a user waits for at the end.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_router_may_stand_before_is_mapped() {
        let port = |addresses: &[&str]| {
            let listening: Vec<SocketAddr> =
                addresses.iter().map(|address| address.parse().unwrap()).collect();
            port_to_map(&listening)
        };
        assert_eq!(port(&["0.0.0.0:6881", "[::]:6881"]), Some(6881));
        assert_eq!(port(&["192.168.1.2:6881"]), Some(6881));
        assert_eq!(port(&["100.64.0.9:7000"]), Some(7000));
        for none in [&["127.0.0.1:6881"][..], &["8.8.8.8:6881"], &["[::]:6881"], &["[::1]:6881"], &[]] {
            assert_eq!(port(none), None, "{none:?}");
        }
    }
}
