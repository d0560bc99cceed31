//! NAT-PMP and PCP asked of the default gateway: a question over UDP, repeated until it is answered.

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::io;
use std::time::Duration;

use taipei_engine::address::Scope;
use tokio::net::UdpSocket;

use super::nat_pmp::{self, Outcome};
use super::pcp::{self, MapRequest};
use super::plan::Granted;
use super::{Failed, Protocol, Wish, seconds_of};
use crate::TcpTransport;

/// A socket to the gateway alone: the system drops what others send to it.
#[derive(Debug)]
pub(super) struct Gateway {
    socket: UdpSocket,
    /// Ours on the way there.
    local: Ipv4Addr,
}

impl Gateway {
    /// Nothing is sent yet.
    pub(super) async fn open(transport: &TcpTransport, ip: Ipv4Addr) -> Result<Self, Failed> {
        let socket = transport.udp_socket(false, 0).map_err(Failed::System)?.ok_or(Failed::NoRouter)?;
        socket.connect(SocketAddrV4::new(ip, PORT)).await.map_err(Failed::System)?;
        let local = match socket.local_addr().map_err(Failed::System)?.ip() {
            IpAddr::V4(local) if Scope::of(local.into()) == Scope::Private => local,
            _ => return Err(Failed::NotBehind),
        };
        Ok(Self { socket, local })
    }

    /// Maps both protocols by NAT-PMP: what was given, and how long the router has run.
    pub(super) async fn map_by_nat_pmp(&self, wish: &Wish) -> Result<(Granted, u32), Failed> {
        let address = self.ask_nat_pmp(nat_pmp::Request::ExternalAddress).await?;
        let Outcome::ExternalAddress(external_ip) = address.0 else { return Err(Failed::Nonsense) };
        wish.asked();
        let tcp = self.map_one_by_nat_pmp(wish, Protocol::Tcp, wish.external).await?;
        // The same port for both, where the router can.
        let udp = self.map_one_by_nat_pmp(wish, Protocol::Udp, tcp.0).await?;
        let lease = Duration::from_secs(tcp.1.min(udp.1).into());
        let granted = Granted {
            tcp: tcp.0,
            udp: udp.0,
            external_ip: Some(external_ip).filter(|ip| !ip.is_unspecified()),
            lease: Some(lease),
        };
        Ok((granted, tcp.2))
    }

    /// Port, seconds, epoch.
    async fn map_one_by_nat_pmp(
        &self,
        wish: &Wish,
        protocol: Protocol,
        external: u16,
    ) -> Result<(u16, u32, u32), Failed> {
        let (internal, seconds) = (wish.internal, seconds_of(wish.lease));
        match self.ask_nat_pmp(nat_pmp::Request::Map { protocol, internal, external, seconds }).await? {
            (Outcome::Mapped { external: 0, .. } | Outcome::ExternalAddress(_), _) => Err(Failed::Nonsense),
            (Outcome::Mapped { external, seconds, .. }, epoch) => Ok((external, seconds, epoch)),
        }
    }

    async fn ask_nat_pmp(&self, request: nat_pmp::Request) -> Result<(Outcome, u32), Failed> {
        let answer = self.ask(&request.encode(), |bytes| request.parse_response(bytes)).await?;
        let outcome = answer.outcome.map_err(Failed::Refused)?;
        Ok((outcome, answer.epoch))
    }

    /// Maps both protocols by PCP.
    pub(super) async fn map_by_pcp(&self, wish: &Wish) -> Result<(Granted, u32), Failed> {
        wish.asked();
        let (tcp, epoch) = self.map_one_by_pcp(wish, Protocol::Tcp, wish.external, wish.lease).await?;
        let (udp, _) = self.map_one_by_pcp(wish, Protocol::Udp, tcp.external, wish.lease).await?;
        let lease = Duration::from_secs(tcp.seconds.min(udp.seconds).into());
        let external_ip = tcp.external_ip.filter(|ip| !ip.is_unspecified());
        Ok((Granted { tcp: tcp.external, udp: udp.external, external_ip, lease: Some(lease) }, epoch))
    }

    async fn map_one_by_pcp(
        &self,
        wish: &Wish,
        protocol: Protocol,
        external: u16,
        lease: Duration,
    ) -> Result<(pcp::Mapped, u32), Failed> {
        let request = MapRequest {
            client: self.local,
            nonce: wish.nonce,
            protocol,
            internal: wish.internal,
            external,
            seconds: seconds_of(lease),
        };
        let answer = self.ask(&request.encode(), |bytes| request.parse_response(bytes)).await?;
        match answer.outcome {
            Ok(pcp::Mapped { external: 0, .. }) if !lease.is_zero() => Err(Failed::Nonsense),
            Ok(mapped) => Ok((mapped, answer.epoch)),
            Err(pcp::UNSUPPORTED_VERSION) => Err(Failed::NotSpoken),
            Err(code) => Err(Failed::Refused(code.into())),
        }
    }

    /// Has it forget what NAT-PMP gave.
    pub(super) async fn release_by_nat_pmp(&self, wish: &Wish) -> Result<(), Failed> {
        for protocol in Protocol::BOTH {
            let forget = nat_pmp::Request::Map { protocol, internal: wish.internal, external: 0, seconds: 0 };
            self.ask_nat_pmp(forget).await?;
        }
        Ok(())
    }

    /// Has it forget what PCP gave.
    pub(super) async fn release_by_pcp(&self, wish: &Wish, granted: &Granted) -> Result<(), Failed> {
        for (protocol, external) in [(Protocol::Tcp, granted.tcp), (Protocol::Udp, granted.udp)] {
            self.map_one_by_pcp(wish, protocol, external, Duration::ZERO).await?;
        }
        Ok(())
    }

    /// Sends a question until something comes that `parse` takes for its answer.
    async fn ask<T>(&self, question: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Result<T, Failed> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let mut wait = FIRST_WAIT;
        for _ in 0..TRIES {
            self.socket.send(question).await.map_err(no_answer)?;
            let until = tokio::time::Instant::now() + wait;
            while let Ok(received) = tokio::time::timeout_at(until, self.socket.recv(&mut buffer)).await {
                let length = received.map_err(no_answer)?;
                if let Some(answer) = buffer.get(..length).and_then(&parse) {
                    return Ok(answer);
                }
            }
            wait *= 2;
        }
        Err(Failed::NoRouter)
    }
}

/// Where nobody listens, the system may have been told so.
fn no_answer(error: io::Error) -> Failed {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failed::NotSpoken,
        _ => Failed::System(error),
    }
}

/// Our address on the way to a host; nothing is sent.
pub(super) async fn local_address(transport: &TcpTransport, to: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = transport.udp_socket(false, 0).ok()??;
    socket.connect(SocketAddrV4::new(to, PORT)).await.ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(local) => Some(*local.ip()),
        SocketAddr::V6(_) => None,
    }
}

/// Where routers listen for both protocols.
const PORT: u16 = 5351;
/// Until a question is sent again, doubled each time (RFC 6886, 3.1). A router is near.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Four seconds in all. The RFC has nine tries, a minute, which is for its renewals; those have their own pauses here.
const TRIES: u32 = 4;
/// What is longer is cut, and PCP's own limit of 1100 then says that it was too long.
const DATAGRAM_BYTES_MAX: usize = 1200;
