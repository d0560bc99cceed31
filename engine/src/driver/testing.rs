//! A transport of in-memory pipes, and a clock that is set by hand, for the driver's own tests.

use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

use super::doors::{Clock, Connection, ListenError, SecureStream, Transport};
use crate::input::NetError;
use crate::time::Instant;

/// Every dial succeeds; its other end goes to the test. To accept fails until `exhausted` is lowered, and then gives one
/// pipe after the other.
#[derive(Clone, Debug)]
pub(super) struct Pipes {
    dialled: mpsc::Sender<DuplexStream>,
    pub(super) exhausted: Arc<AtomicBool>,
    /// How often it was asked to accept.
    pub(super) accepts: Arc<AtomicU32>,
}

impl Pipes {
    pub(super) fn new() -> (Self, mpsc::Receiver<DuplexStream>) {
        let (dialled, other_ends) = mpsc::channel(16);
        (Self { dialled, exhausted: Arc::new(AtomicBool::new(true)), accepts: Arc::default() }, other_ends)
    }
}

/// Time passes when a test says so.
#[derive(Clone, Debug)]
pub(super) struct HandClock {
    now: watch::Sender<Instant>,
}

impl HandClock {
    pub(super) fn new() -> Self {
        Self { now: watch::Sender::new(Instant::START) }
    }

    /// Lets everybody do what there is to do, then so much time pass, then do again.
    pub(super) async fn pass(&self, ms: u64) {
        self.settle().await;
        self.now.send_modify(|now| now.0 += ms * 1_000_000);
        self.settle().await;
    }

    async fn settle(&self) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

impl Clock for HandClock {
    fn now(&self) -> Instant {
        *self.now.borrow()
    }

    async fn sleep_until(&self, deadline: Instant) {
        let _ = self.now.subscribe().wait_for(|now| *now >= deadline).await;
    }
}

impl Transport for Pipes {
    type Reader = ReadHalf<DuplexStream>;
    type Writer = WriteHalf<DuplexStream>;
    type Listener = ();
    type Datagrams = ();

    async fn connect(&self, remote: SocketAddr) -> Result<Connection<Self::Reader, Self::Writer>, NetError> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        self.dialled.send(theirs).await.map_err(|_| NetError::Refused)?;
        let (reader, writer) = tokio::io::split(ours);
        Ok(Connection { reader, writer, local: remote, remote })
    }

    async fn listen(&self, _: RangeInclusive<u16>) -> Result<Vec<(SocketAddr, ())>, ListenError> {
        Ok(Vec::new())
    }

    async fn accept(&self, (): &mut ()) -> Result<Connection<Self::Reader, Self::Writer>, NetError> {
        self.accepts.fetch_add(1, Ordering::Relaxed);
        if self.exhausted.load(Ordering::Relaxed) {
            return Err(NetError::Exhausted);
        }
        self.connect(([192, 0, 2, 9], 9).into()).await
    }

    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, NetError> {
        Err(NetError::NotFound)
    }

    async fn open_datagrams(&self, _: bool, _: u16) -> Option<()> {
        None
    }

    fn send_datagram(&self, (): &(), _: SocketAddr, _: &[u8]) {}

    async fn open_group(&self, _: SocketAddr) -> Option<()> {
        None
    }

    fn send_to_group(&self, _: SocketAddr, _: &[u8]) {}

    async fn receive_datagram(&self, (): &(), _: &mut [u8]) -> Result<(usize, SocketAddr), NetError> {
        Err(NetError::Other)
    }

    async fn secure(
        &self,
        connection: Connection<Self::Reader, Self::Writer>,
        _: &str,
    ) -> Result<SecureStream, NetError> {
        Ok(Box::new(connection.reader.unsplit(connection.writer)))
    }
}
