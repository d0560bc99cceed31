//! Multicast on a real machine: on which interfaces a group is joined, and by which it is reached, as far as
//! [`Bind`] allows. Nothing leaves the local network.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io;

use if_addrs::Interface;
use taipei_engine::address::Scope;
use tokio::net::UdpSocket;
use tracing::{debug, trace};

use crate::platform;
use crate::transport::Bind;

/// An address of ours by which a group is joined and reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    ip: IpAddr,
    /// Of its interface; IPv6 alone needs it.
    index: u32,
}

/// Opens a socket that hears a group at its port, beside others that do. None where no interface can be used for it.
pub(crate) fn open(bind: &Bind, group: SocketAddr) -> io::Result<Option<UdpSocket>> {
    let socket = bind.datagram_socket(group.is_ipv6())?;
    // Several clients on one machine hear the same port.
    socket.set_reuse_address(true)?;
    platform::hear_joined_only(&socket, group.is_ipv6())?;
    let anybody: IpAddr =
        if group.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let at = if platform::BIND_TO_GROUP { group } else { SocketAddr::new(anybody, group.port()) };
    socket.bind(&at.into())?;
    let mut joined = 0;
    for way in ways(bind, group.is_ipv6())? {
        let outcome = match (group.ip(), way.ip) {
            (IpAddr::V4(group), IpAddr::V4(own)) => socket.join_multicast_v4(&group, &own),
            (IpAddr::V6(group), _) => socket.join_multicast_v6(&group, way.index),
            _ => continue,
        };
        match outcome {
            Ok(()) => joined += 1,
            Err(error) => debug!(%error, ?way, "cannot join a group here"),
        }
    }
    if joined == 0 { Ok(None) } else { UdpSocket::from_std(socket.into()).map(Some) }
}

/// Sends a datagram to a group by every way there is, or loses it.
pub(crate) fn send(bind: &Bind, group: SocketAddr, payload: &[u8]) {
    match ways(bind, group.is_ipv6()) {
        Ok(ways) => {
            for way in ways {
                if let Err(error) = send_by(bind, way, group, payload) {
                    trace!(%error, ?way, "a datagram to a group is lost");
                }
            }
        }
        Err(error) => debug!(%error, "the interfaces are not to be seen"),
    }
}

fn send_by(bind: &Bind, way: Way, group: SocketAddr, payload: &[u8]) -> io::Result<()> {
    let socket = bind.datagram_socket(group.is_ipv6())?;
    match way.ip {
        IpAddr::V4(ip) => {
            socket.set_multicast_if_v4(&ip)?;
            socket.set_multicast_ttl_v4(1)?;
            socket.set_multicast_loop_v4(true)?;
        }
        IpAddr::V6(_) => {
            socket.set_multicast_if_v6(way.index)?;
            socket.set_multicast_hops_v6(1)?;
            socket.set_multicast_loop_v6(true)?;
        }
    }
    // So that it comes from here and nowhere else.
    socket.bind(&SocketAddr::new(way.ip, 0).into())?;
    socket.send_to(payload, &group.into()).map(drop)
}

/// The ways that `bind` allows, one an interface.
fn ways(bind: &Bind, ipv6: bool) -> io::Result<Vec<Way>> {
    match bind {
        Bind::Address(ip) if ip.is_ipv6() != ipv6 => Ok(Vec::new()),
        // It need not be one that an interface lists: all of 127.0.0.0/8 is ours.
        Bind::Address(ip @ IpAddr::V4(_)) => Ok(vec![Way { ip: *ip, index: 0 }]),
        _ => Ok(choose(bind, ipv6, &if_addrs::get_if_addrs()?)),
    }
}

fn choose(bind: &Bind, ipv6: bool, interfaces: &[Interface]) -> Vec<Way> {
    let is_allowed = |interface: &&Interface| match bind {
        Bind::Any => interface.is_oper_up() && !interface.is_p2p(),
        Bind::Address(ip) => interface.ip() == *ip,
        Bind::Interface(name) => interface.name == *name,
    };
    let mut allowed: Vec<_> =
        interfaces.iter().filter(|found| found.ip().is_ipv6() == ipv6).filter(is_allowed).collect();
    // This machine by itself is a network where there is no other.
    if *bind == Bind::Any && allowed.iter().any(|interface| !interface.is_loopback()) {
        allowed.retain(|interface| !interface.is_loopback());
    }
    // Others believe a sender whose address is no wider than their network.
    allowed.sort_by_key(|interface| Scope::of(interface.ip()));
    let mut ways: Vec<(&str, Way)> = Vec::new();
    for interface in allowed {
        let is_new = ways.iter().all(|(name, _)| *name != interface.name);
        if is_new && ways.len() < INTERFACES_MAX {
            let way = Way { ip: interface.ip(), index: interface.index.unwrap_or(0) };
            ways.push((&interface.name, way));
        }
    }
    ways.into_iter().map(|(_, way)| way).collect()
}

/// Linux lets a socket join twenty groups of IPv4 (`igmp_max_memberships`).
const INTERFACES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use if_addrs::{IfAddr, IfOperStatus, Ifv4Addr, Ifv6Addr};

    use super::*;

    /// A group that nobody else uses, at a port that is free.
    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 1);

    fn at(ip: &str) -> Bind {
        Bind::Address(ip.parse().unwrap())
    }

    async fn next(socket: &UdpSocket) -> Option<(Vec<u8>, IpAddr)> {
        let mut buffer = [0; 100];
        let received = tokio::time::timeout(Duration::from_millis(500), socket.recv_from(&mut buffer)).await;
        received.ok().map(|received| {
            let (length, from) = received.unwrap();
            (buffer[..length].to_vec(), from.ip())
        })
    }

    #[tokio::test]
    async fn two_on_one_machine_hear_a_group_and_the_loopback_stays_on_the_loopback() {
        let bind = at("127.0.0.1");
        let one = open(&bind, (GROUP, 0).into()).unwrap().expect("the loopback takes groups");
        let group = SocketAddr::new(GROUP.into(), one.local_addr().unwrap().port());
        let two = open(&bind, group).unwrap().expect("beside the other");
        send(&bind, group, b"hello");
        let want = Some((b"hello".to_vec(), IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!((next(&one).await, next(&two).await), (want.clone(), want));
        assert_eq!(next(&one).await, None, "each once");
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_not_gone_around() {
        let (group, group_v6) = (SocketAddr::from((GROUP, 0)), "[ff15::77]:0".parse().unwrap());
        for bind in ["192.0.2.1", "2001:db8::1"].map(at) {
            for group in [group, group_v6] {
                assert!(open(&bind, group).is_ok_and(|socket| socket.is_none()), "{bind:?} {group}");
                send(&bind, group, b"lost");
            }
        }
        if platform::BIND_BY_NAME {
            assert!(open(&Bind::Interface("nosuchif0".to_owned()), group).is_err());
        }
    }

    #[test]
    fn each_interface_is_used_once_and_the_loopback_where_there_is_no_other() {
        let interface = |name: &str, ip: &str, index| {
            let addr = match ip.parse().unwrap() {
                IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr { ip, netmask: ip, prefixlen: 24, broadcast: None }),
                IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr { ip, netmask: ip, prefixlen: 64, broadcast: None }),
            };
            let name = name.to_owned();
            Interface { name, addr, index: Some(index), oper_status: IfOperStatus::Up, is_p2p: false }
        };
        let mut all = vec![
            interface("lo", "127.0.0.1", 1),
            interface("lan", "10.0.0.2", 2),
            interface("lan", "10.0.9.2", 2),
            interface("lan", "2001:db8::2", 2),
            interface("lan", "fd00::2", 2),
            interface("air", "192.168.1.2", 3),
            Interface { is_p2p: true, ..interface("tunnel", "10.8.0.2", 4) },
            Interface { oper_status: IfOperStatus::Down, ..interface("unplugged", "10.7.0.2", 5) },
        ];
        let chosen = |bind: &Bind, ipv6, all: &[Interface]| {
            let ways = choose(bind, ipv6, all).into_iter().map(|way| format!("{} {}", way.ip, way.index));
            ways.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(chosen(&Bind::Any, false, &all), "10.0.0.2 2, 192.168.1.2 3");
        assert_eq!(chosen(&Bind::Any, true, &all), "fd00::2 2");
        let by_name = |name: &str| Bind::Interface(name.to_owned());
        assert_eq!(chosen(&by_name("air"), false, &all), "192.168.1.2 3");
        assert_eq!(chosen(&by_name("air"), true, &all), "");
        assert_eq!(chosen(&at("2001:db8::2"), true, &all), "2001:db8::2 2");
        all.retain(|interface| interface.name == "lo");
        assert_eq!(chosen(&Bind::Any, false, &all), "127.0.0.1 1");
    }
}
