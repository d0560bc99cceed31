//! A transport of in-memory pipes for the driver's own tests.

use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;

use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::doors::{Connection, ListenError, SecureStream, Transport};
use crate::input::NetError;

/// Every dial succeeds; its other end goes to the test.
#[derive(Clone, Debug)]
pub(super) struct Pipes {
    dialled: mpsc::Sender<DuplexStream>,
}

impl Pipes {
    pub(super) fn new() -> (Self, mpsc::Receiver<DuplexStream>) {
        let (dialled, other_ends) = mpsc::channel(16);
        (Self { dialled }, other_ends)
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
        Err(NetError::Other)
    }

    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, NetError> {
        Err(NetError::NotFound)
    }

    async fn open_datagrams(&self, _: bool, _: u16) -> Option<()> {
        None
    }

    fn send_datagram(&self, (): &(), _: SocketAddr, _: &[u8]) {}

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
