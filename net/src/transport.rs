//! TCP and UDP on a real machine: dials, listeners, names, and which address they use.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::RangeInclusive;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use taipei_engine::driver::{Connection, ListenError, SecureStream, Transport};
use taipei_engine::input::NetError;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tracing::{debug, trace};

use crate::multicast;
use crate::platform;
use crate::tls::Tls;

/// Real sockets.
#[derive(Clone, Debug)]
pub struct TcpTransport {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bind: Bind,
    tls: Tls,
}

/// Which of this machine's addresses are used, for listening and for dialling. What cannot go that way fails; it never
/// goes another way. Names are looked up by the system, in its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bind {
    /// Whatever the system chooses.
    #[default]
    Any,
    /// This one, and its family alone.
    Address(IpAddr),
    /// Those of this network interface.
    Interface(String),
}

/// A `bind` that is neither an address nor the name of an interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Neither an address nor a name that an interface can have.
    #[error("cannot bind to `{0}`: give an IP address or the name of a network interface")]
    Unusable(String),
    /// Interfaces cannot be named on this system.
    #[error("cannot bind to the interface `{0}` on this system: give its address")]
    AddressOnly(String),
}

impl FromStr for Bind {
    type Err = BindError;

    fn from_str(text: &str) -> Result<Self, BindError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address));
        }
        if text.is_empty() || text.len() > INTERFACE_NAME_BYTES_MAX || text.contains(['/', '\0', ' ']) {
            return Err(BindError::Unusable(text.to_owned()));
        }
        if !platform::BIND_BY_NAME {
            return Err(BindError::AddressOnly(text.to_owned()));
        }
        Ok(Self::Interface(text.to_owned()))
    }
}

impl Bind {
    /// The local address for a family; none when that family is not to be used.
    fn address(&self, ipv6: bool) -> Option<IpAddr> {
        match self {
            Self::Address(address) => (address.is_ipv6() == ipv6).then_some(*address),
            Self::Any | Self::Interface(_) if ipv6 => Some(Ipv6Addr::UNSPECIFIED.into()),
            Self::Any | Self::Interface(_) => Some(Ipv4Addr::UNSPECIFIED.into()),
        }
    }

    /// A socket that can only go this way.
    fn socket(&self, ipv6: bool) -> io::Result<TcpSocket> {
        let socket = if ipv6 { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        if let Self::Interface(name) = self {
            platform::bind_to_interface(&socket, name)?;
        }
        Ok(socket)
    }

    /// The same for datagrams, not bound to an address yet.
    pub(crate) fn datagram_socket(&self, ipv6: bool) -> io::Result<Socket> {
        let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if let Self::Interface(name) = self {
            platform::bind_to_interface(&socket, name)?;
        }
        if ipv6 {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

impl TcpTransport {
    /// Uses these addresses.
    pub fn new(bind: Bind) -> Self {
        Self { shared: Arc::new(Shared { bind, tls: Tls::default() }) }
    }

    /// None where the family is not to be used.
    pub(crate) fn udp_socket(&self, ipv6: bool, port: u16) -> io::Result<Option<UdpSocket>> {
        let bind = &self.shared.bind;
        let Some(address) = bind.address(ipv6) else { return Ok(None) };
        let socket = bind.datagram_socket(ipv6)?;
        socket.bind(&SocketAddr::new(address, port).into())?;
        UdpSocket::from_std(socket.into()).map(Some)
    }

    async fn dial(&self, remote: SocketAddr) -> io::Result<TcpStream> {
        let bind = &self.shared.bind;
        let source = bind.address(remote.is_ipv6()).ok_or(io::ErrorKind::NetworkUnreachable)?;
        let socket = bind.socket(remote.is_ipv6())?;
        if !source.is_unspecified() {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.connect(remote).await
    }

    /// Both families on one port, or the one there is.
    fn listen_at(&self, port: u16) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
        let mut listeners = Vec::new();
        let mut missing = None;
        for ipv6 in [false, true] {
            let port = listeners.first().map_or(port, |(address, _): &(SocketAddr, _)| address.port());
            match self.listen_family(ipv6, port) {
                Ok(Some(listener)) => listeners.push((listener.local_addr()?, listener)),
                Ok(None) => {}
                // The family or its addresses are missing here; the other one may do.
                Err(error) if platform::is_not_ours(&error) => {
                    debug!(%error, ipv6, "cannot listen in this family");
                    missing = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some(error) if listeners.is_empty() => Err(error),
            _ => Ok(listeners),
        }
    }

    fn listen_family(&self, ipv6: bool, port: u16) -> io::Result<Option<TcpListener>> {
        let bind = &self.shared.bind;
        let Some(address) = bind.address(ipv6) else { return Ok(None) };
        let socket = bind.socket(ipv6)?;
        if ipv6 {
            socket2::SockRef::from(&socket).set_only_v6(true)?;
        }
        if platform::REUSE_ADDRESS {
            socket.set_reuseaddr(true)?;
        }
        socket.bind(SocketAddr::new(address, port))?;
        socket.listen(BACKLOG).map(Some)
    }
}

impl Transport for TcpTransport {
    type Reader = OwnedReadHalf;
    type Writer = OwnedWriteHalf;
    type Listener = TcpListener;
    type Datagrams = Arc<UdpSocket>;

    async fn connect(
        &self,
        remote: SocketAddr,
    ) -> Result<Connection<OwnedReadHalf, OwnedWriteHalf>, NetError> {
        // The system alone would try for two minutes.
        match tokio::time::timeout(CONNECT_TIME_MAX, self.dial(remote)).await {
            Ok(Ok(stream)) => open(stream, remote),
            Ok(Err(error)) => Err(platform::net_error(&error)),
            Err(_) => Err(NetError::TimedOut),
        }
    }

    async fn listen(
        &self,
        ports: RangeInclusive<u16>,
    ) -> Result<Vec<(SocketAddr, TcpListener)>, ListenError> {
        let last = *ports.end();
        for port in ports {
            // The system may choose a port for one family that is taken in the other.
            for _ in 0..if port == 0 { CHOSEN_PORT_TRIES } else { 1 } {
                match self.listen_at(port) {
                    Ok(listeners) => return Ok(listeners),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                    Err(error) => return Err(self.listen_error(port, &error)),
                }
            }
        }
        Err(ListenError::InUse(last))
    }

    async fn accept(
        &self,
        listener: &mut TcpListener,
    ) -> Result<Connection<OwnedReadHalf, OwnedWriteHalf>, NetError> {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => match open(stream, remote) {
                    Ok(connection) => return Ok(connection),
                    // Gone again already.
                    Err(error) => debug!(%error, "lost while accepting"),
                },
                Err(error) if platform::net_error(&error) == NetError::Reset => {}
                Err(error) => return Err(platform::net_error(&error)),
            }
        }
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, NetError> {
        match tokio::net::lookup_host((host, 0)).await {
            Ok(found) => {
                let mut addresses = Vec::new();
                for address in found.take(ADDRESSES_PER_NAME_MAX).map(|found| found.ip()) {
                    // What cannot be reached from here costs its time-out.
                    let usable = self.shared.bind.address(address.is_ipv6()).is_some();
                    if usable && !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                if addresses.is_empty() { Err(NetError::NotFound) } else { Ok(addresses) }
            }
            Err(error) => match platform::net_error(&error) {
                NetError::Exhausted => Err(NetError::Exhausted),
                _ => Err(NetError::NotFound),
            },
        }
    }

    async fn open_datagrams(&self, ipv6: bool, port: u16) -> Option<Arc<UdpSocket>> {
        let opened = self.udp_socket(ipv6, port).or_else(|error| {
            debug!(%error, ipv6, port, "no datagrams at this port");
            self.udp_socket(ipv6, 0)
        });
        match opened {
            Ok(socket) => {
                let socket = socket?;
                // Before that is known nothing can be sent without waiting.
                socket.writable().await.ok()?;
                Some(Arc::new(socket))
            }
            Err(error) => {
                debug!(%error, ipv6, "no datagrams in this family");
                None
            }
        }
    }

    fn send_datagram(&self, socket: &Arc<UdpSocket>, remote: SocketAddr, payload: &[u8]) {
        if let Err(error) = socket.try_send_to(payload, remote) {
            trace!(%error, "a datagram is lost");
        }
    }

    async fn open_group(&self, group: SocketAddr) -> Option<Arc<UdpSocket>> {
        let opened = multicast::open(&self.shared.bind, group);
        match &opened {
            Ok(socket) => debug!(%group, joined = socket.is_some(), "a group is listened to"),
            Err(error) => debug!(%group, %error, "a group cannot be listened to"),
        }
        opened.ok().flatten().map(Arc::new)
    }

    fn send_to_group(&self, group: SocketAddr, payload: &[u8]) {
        multicast::send(&self.shared.bind, group, payload);
    }

    async fn receive_datagram(
        &self,
        socket: &Arc<UdpSocket>,
        buffer: &mut [u8],
    ) -> Result<(usize, SocketAddr), NetError> {
        socket.recv_from(buffer).await.map_err(|error| platform::net_error(&error))
    }

    async fn secure(
        &self,
        connection: Connection<OwnedReadHalf, OwnedWriteHalf>,
        host: &str,
    ) -> Result<SecureStream, NetError> {
        self.shared.tls.secure(tokio::io::join(connection.reader, connection.writer), host).await
    }
}

impl TcpTransport {
    fn listen_error(&self, port: u16, error: &io::Error) -> ListenError {
        match &self.shared.bind {
            Bind::Address(address) if platform::is_not_ours(error) => {
                ListenError::NotOurs(address.to_string())
            }
            Bind::Interface(name) if platform::is_not_ours(error) => ListenError::NotOurs(name.clone()),
            _ if (1..1024).contains(&port) && error.kind() == io::ErrorKind::PermissionDenied => {
                ListenError::Denied(port)
            }
            _ => ListenError::Failed { port, error: platform::net_error(error) },
        }
    }
}

/// Small messages go at once: a request held back costs a round trip.
fn open(
    stream: TcpStream,
    remote: SocketAddr,
) -> Result<Connection<OwnedReadHalf, OwnedWriteHalf>, NetError> {
    let local = stream
        .set_nodelay(true)
        .and_then(|()| stream.local_addr())
        .map_err(|error| platform::net_error(&error))?;
    let (reader, writer) = stream.into_split();
    Ok(Connection { reader, writer, local, remote })
}

/// For four tries of the system to reach a host.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;
/// Times to let the system choose a port until it is free in both families.
const CHOSEN_PORT_TRIES: u32 = 16;
/// Addresses taken from one look-up.
const ADDRESSES_PER_NAME_MAX: usize = 64;
/// `IFNAMSIZ` without its end on Linux.
const INTERFACE_NAME_BYTES_MAX: usize = 15;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn bound(text: &str) -> TcpTransport {
        TcpTransport::new(text.parse().unwrap())
    }

    #[test]
    fn an_address_or_an_interface_can_be_named() {
        assert_eq!("::1".parse(), Ok(Bind::Address(Ipv6Addr::LOCALHOST.into())));
        assert_eq!("127.0.0.1".parse(), Ok(Bind::Address(Ipv4Addr::LOCALHOST.into())));
        assert_eq!("".parse::<Bind>(), Err(BindError::Unusable(String::new())));
        assert_eq!("a/b".parse::<Bind>(), Err(BindError::Unusable("a/b".to_owned())));
        if platform::BIND_BY_NAME {
            assert_eq!("eth0".parse(), Ok(Bind::Interface("eth0".to_owned())));
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways() {
        let transport = bound("127.0.0.1");
        let mut listeners = transport.listen(0..=0).await.unwrap();
        let (address, listener) = &mut listeners[0];
        let (dialled, accepted) = tokio::join!(transport.connect(*address), transport.accept(listener));
        let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!((dialled.remote, dialled.local), (*address, accepted.remote));
        dialled.writer.write_all(b"hello").await.unwrap();
        accepted.writer.write_all(b"you").await.unwrap();
        drop((dialled.writer, accepted.writer));
        let (mut there, mut here) = (Vec::new(), Vec::new());
        accepted.reader.read_to_end(&mut there).await.unwrap();
        dialled.reader.read_to_end(&mut here).await.unwrap();
        assert_eq!((there.as_slice(), here.as_slice()), (b"hello".as_slice(), b"you".as_slice()));
    }

    /// The loopback is there on every machine; which device a socket is bound to the system says itself.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_interface_that_is_there_is_used_by_its_name() {
        let is_bound = |socket: socket2::SockRef<'_>| socket.device().unwrap() == Some(b"lo".to_vec());
        let transport = bound("lo");
        let mut listeners = transport.listen(0..=0).await.unwrap();
        let (address, listener) = &mut listeners[0];
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port());
        assert!(is_bound((&*listener).into()));
        let (dialled, accepted) = tokio::join!(transport.connect(local), transport.accept(listener));
        let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
        assert!(is_bound(dialled.writer.as_ref().into()) && is_bound(accepted.writer.as_ref().into()));
        dialled.writer.write_all(b"hello").await.unwrap();
        drop(dialled.writer);
        let mut there = Vec::new();
        accepted.reader.read_to_end(&mut there).await.unwrap();
        assert_eq!(there, b"hello");

        let [here, there] =
            [transport.open_datagrams(false, 0).await, transport.open_datagrams(false, 0).await];
        let (here, there) = (here.unwrap(), there.unwrap());
        assert!(is_bound((&*here).into()) && is_bound((&*there).into()));
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), here.local_addr().unwrap().port());
        transport.send_datagram(&there, local, b"you");
        assert_eq!(transport.receive_datagram(&here, &mut [0; 10]).await.unwrap().0, 3);
    }

    #[tokio::test]
    async fn both_families_listen_on_one_port() {
        let transport = TcpTransport::new(Bind::Any);
        let listeners = transport.listen(0..=0).await.unwrap();
        let port = listeners[0].0.port();
        assert!(port != 0 && listeners.iter().all(|(address, _)| address.port() == port));
        // The same port again is taken, the next one may do.
        assert_eq!(transport.listen(port..=port).await.unwrap_err(), ListenError::InUse(port));
        if let Some(end) = port.checked_add(20) {
            assert_ne!(transport.listen(port..=end).await.unwrap()[0].0.port(), port);
        }
    }

    #[tokio::test]
    async fn datagrams_go_both_ways_from_the_port_asked_for() {
        let transport = bound("127.0.0.1");
        let address = transport.listen(0..=0).await.unwrap().remove(0).0;
        let here = transport.open_datagrams(false, address.port()).await.unwrap();
        assert_eq!(here.local_addr().unwrap(), address);
        // Taken: another one will do.
        let there = transport.open_datagrams(false, address.port()).await.unwrap();
        assert_ne!(there.local_addr().unwrap(), address);
        // The other family is not used at all.
        assert!(transport.open_datagrams(true, 0).await.is_none());
        let mut buffer = [0; 10];
        transport.send_datagram(&there, address, b"hello");
        let (length, from) = transport.receive_datagram(&here, &mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"hello"[..], there.local_addr().unwrap()));
        transport.send_datagram(&here, from, b"you");
        assert_eq!(transport.receive_datagram(&there, &mut buffer).await, Ok((3, address)));
        // What cannot be sent is lost and nothing else.
        transport.send_datagram(&here, "[::1]:9".parse().unwrap(), b"lost");
        transport.send_datagram(&here, from, &vec![0; 1 << 17]);
    }

    #[tokio::test]
    async fn datagrams_of_an_interface_that_is_not_there_fail_closed() {
        if platform::BIND_BY_NAME {
            assert!(bound("nosuchif0").open_datagrams(false, 0).await.is_none());
            assert!(bound("192.0.2.1").open_datagrams(false, 0).await.is_none());
        }
    }

    #[tokio::test]
    async fn errors_have_names() {
        let transport = bound("127.0.0.1");
        let (address, listener) = transport.listen(0..=0).await.unwrap().remove(0);
        drop(listener);
        assert_eq!(transport.connect(address).await.unwrap_err(), NetError::Refused);
        // The other family is not used at all.
        let other = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port());
        assert_eq!(transport.connect(other).await.unwrap_err(), NetError::Unreachable);
        // An address of the documentation's range is nobody's.
        let elsewhere = bound("192.0.2.1");
        assert_eq!(elsewhere.listen(0..=0).await.unwrap_err(), ListenError::NotOurs("192.0.2.1".to_owned()));
        assert_eq!(elsewhere.connect(address).await.unwrap_err(), NetError::Unreachable);
        assert_eq!(transport.resolve("name.invalid").await, Err(NetError::NotFound));
        assert!(transport.resolve("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn a_port_that_is_not_for_us_is_told_apart() {
        let denied = io::ErrorKind::PermissionDenied.into();
        assert_eq!(bound("127.0.0.1").listen_error(443, &denied), ListenError::Denied(443));
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_fails_closed() {
        if !platform::BIND_BY_NAME {
            return;
        }
        let transport = bound("nosuchif0");
        assert_eq!(transport.listen(0..=0).await.unwrap_err(), ListenError::NotOurs("nosuchif0".to_owned()));
        let remote = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9);
        assert_eq!(transport.connect(remote).await.unwrap_err(), NetError::Unreachable);
    }
}
