//! A transport that sends no faster than it is told: what stands between the demo's seeders and their sockets.
//!
//! On loopback everything is over before anybody has seen it. Nothing else about the connections is changed.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use taipei_engine::driver::{Connection, ListenError, SecureStream, Transport};
use taipei_engine::input::NetError;
use taipei_net::TcpTransport;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep_until};

/// TCP whose connections share one uplink.
#[derive(Clone, Debug)]
pub(crate) struct PacedTransport {
    tcp: TcpTransport,
    uplink: Arc<Uplink>,
}

impl PacedTransport {
    /// Sends at most so many bytes a second over all connections; 0: as fast as it goes.
    pub(crate) fn new(tcp: TcpTransport, bytes_per_second: u64) -> Self {
        Self { tcp, uplink: Arc::new(Uplink { bytes_per_second, free_at: Mutex::new(Instant::now()) }) }
    }

    fn pace<R, W>(&self, connection: Connection<R, W>) -> Connection<R, Paced<W>> {
        let Connection { reader, writer, local, remote } = connection;
        Connection {
            reader,
            writer: Paced { writer, uplink: self.uplink.clone(), wait: None },
            local,
            remote,
        }
    }
}

type Reader = <TcpTransport as Transport>::Reader;
type Writer = <TcpTransport as Transport>::Writer;

impl Transport for PacedTransport {
    type Reader = Reader;
    type Writer = Paced<Writer>;
    type Listener = <TcpTransport as Transport>::Listener;
    type Datagrams = <TcpTransport as Transport>::Datagrams;

    async fn connect(&self, remote: SocketAddr) -> Result<Connection<Reader, Paced<Writer>>, NetError> {
        self.tcp.connect(remote).await.map(|connection| self.pace(connection))
    }

    async fn listen(
        &self,
        ports: RangeInclusive<u16>,
    ) -> Result<Vec<(SocketAddr, Self::Listener)>, ListenError> {
        self.tcp.listen(ports).await
    }

    async fn accept(
        &self,
        listener: &mut Self::Listener,
    ) -> Result<Connection<Reader, Paced<Writer>>, NetError> {
        self.tcp.accept(listener).await.map(|connection| self.pace(connection))
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, NetError> {
        self.tcp.resolve(host).await
    }

    async fn open_datagrams(&self, ipv6: bool, port: u16) -> Option<Self::Datagrams> {
        self.tcp.open_datagrams(ipv6, port).await
    }

    fn send_datagram(&self, socket: &Self::Datagrams, remote: SocketAddr, payload: &[u8]) {
        self.tcp.send_datagram(socket, remote, payload);
    }

    async fn open_group(&self, group: SocketAddr) -> Option<Self::Datagrams> {
        self.tcp.open_group(group).await
    }

    fn send_to_group(&self, group: SocketAddr, payload: &[u8]) {
        self.tcp.send_to_group(group, payload);
    }

    async fn receive_datagram(
        &self,
        socket: &Self::Datagrams,
        buffer: &mut [u8],
    ) -> Result<(usize, SocketAddr), NetError> {
        self.tcp.receive_datagram(socket, buffer).await
    }

    async fn secure(
        &self,
        connection: Connection<Reader, Paced<Writer>>,
        host: &str,
    ) -> Result<SecureStream, NetError> {
        let Connection { reader, writer, local, remote } = connection;
        self.tcp.secure(Connection { reader, writer: writer.writer, local, remote }, host).await
    }
}

/// When what was sent so far would have left a link of this speed.
#[derive(Debug)]
struct Uplink {
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
}

impl Uplink {
    fn sent(&self, bytes: usize) {
        let Some(nanoseconds) =
            (bytes as u64).saturating_mul(1_000_000_000).checked_div(self.bytes_per_second)
        else {
            return;
        };
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = (*free_at).max(Instant::now()) + Duration::from_nanos(nanoseconds);
    }

    /// Until when to wait, if that is worth a timer.
    fn busy_until(&self) -> Option<Instant> {
        let free_at = *self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        (free_at > Instant::now() + AHEAD).then_some(free_at)
    }
}

/// One connection's sending half.
#[derive(Debug)]
pub(crate) struct Paced<W> {
    writer: W,
    uplink: Arc<Uplink>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl<W: AsyncWrite + Unpin> Paced<W> {
    fn poll_pace(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(context));
                self.wait = None;
            }
            match self.uplink.busy_until() {
                None => return Poll::Ready(()),
                Some(until) => self.wait = Some(Box::pin(sleep_until(until))),
            }
        }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Paced<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pace(context));
        let sent = ready!(Pin::new(&mut self.writer).poll_write(context, bytes))?;
        self.uplink.sent(sent);
        Poll::Ready(Ok(sent))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pace(context));
        let sent = ready!(Pin::new(&mut self.writer).poll_write_vectored(context, parts))?;
        self.uplink.sent(sent);
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        self.writer.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}

/// How far ahead of the link a connection may be: timers are no finer than a millisecond.
const AHEAD: Duration = Duration::from_millis(5);
