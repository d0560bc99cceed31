//! The doors to the world. A driver reaches it through these and nothing else.

use core::net::{IpAddr, SocketAddr};
use std::future::Future;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::disk::{Job, JobResult};
use crate::ids::JobId;
use crate::input::NetError;
use crate::time::Instant;

/// Streams and datagrams to other hosts. Real sockets in `net`, turmoil's in `sim`.
pub trait Transport: Clone + Send + Sync + 'static {
    /// The receiving half of a stream.
    type Reader: AsyncRead + Unpin + Send + 'static;
    /// The sending half of a stream. Dropping it closes that direction.
    type Writer: AsyncWrite + Unpin + Send + 'static;
    /// Accepts streams; dropping it stops that.
    type Listener: Send + 'static;
    /// Sends and receives datagrams of one family; dropping the last clone ends that.
    type Datagrams: Clone + Send + Sync + 'static;

    /// Dials. The caller bounds the time.
    fn connect(
        &self,
        remote: SocketAddr,
    ) -> impl Future<Output = Result<Connection<Self::Reader, Self::Writer>, NetError>> + Send;

    /// Listens at every address and family it is configured for, on one port. `ports` are tried in turn; port 0 lets
    /// the system choose.
    fn listen(
        &self,
        ports: core::ops::RangeInclusive<u16>,
    ) -> impl Future<Output = Result<Vec<(SocketAddr, Self::Listener)>, ListenError>> + Send;

    /// The next stream.
    fn accept(
        &self,
        listener: &mut Self::Listener,
    ) -> impl Future<Output = Result<Connection<Self::Reader, Self::Writer>, NetError>> + Send;

    /// The addresses of a name.
    fn resolve(&self, host: &str) -> impl Future<Output = Result<Vec<IpAddr>, NetError>> + Send;

    /// Opens the datagram socket of a family at this port, or at one that the system chooses when it is taken. None where
    /// that family is not there or not to be used.
    fn open_datagrams(&self, ipv6: bool, port: u16) -> impl Future<Output = Option<Self::Datagrams>> + Send;

    /// Sends a datagram, or loses it: never waits.
    fn send_datagram(&self, socket: &Self::Datagrams, remote: SocketAddr, payload: &[u8]);

    /// Opens a socket that hears what is sent to a multicast group at its port, beside others that do, on every interface
    /// that is used. None where there is no multicast.
    fn open_group(&self, group: SocketAddr) -> impl Future<Output = Option<Self::Datagrams>> + Send;

    /// Sends a datagram to a multicast group on every interface that is used, and no further than the networks there; or
    /// loses it: never waits. Who listens on this machine hears it too.
    fn send_to_group(&self, group: SocketAddr, payload: &[u8]);

    /// The next datagram into `buffer`: its length, and who says to have sent it.
    fn receive_datagram(
        &self,
        socket: &Self::Datagrams,
        buffer: &mut [u8],
    ) -> impl Future<Output = Result<(usize, SocketAddr), NetError>> + Send;

    /// Puts TLS over a stream, with the certificate checked against `host`.
    fn secure(
        &self,
        connection: Connection<Self::Reader, Self::Writer>,
        host: &str,
    ) -> impl Future<Output = Result<SecureStream, NetError>> + Send;
}

/// A stream with TLS over it.
pub type SecureStream = Box<dyn ReadWrite>;

/// Both directions in one value.
pub trait ReadWrite: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ReadWrite for T {}

/// An open stream.
#[derive(Debug)]
pub struct Connection<R, W> {
    /// What comes in.
    pub reader: R,
    /// What goes out.
    pub writer: W,
    /// Our end.
    pub local: SocketAddr,
    /// Theirs.
    pub remote: SocketAddr,
}

/// Why there is no port to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Every port asked for is taken.
    #[error("port {0} is in use: choose another with --port")]
    InUse(u16),
    /// A port that only the system's own programs may have, most likely.
    #[error("port {0} is not for this user: choose one from 1024 on with --port")]
    Denied(u16),
    /// The address is not ours.
    #[error("{0} is not an address of this machine")]
    NotOurs(String),
    /// The system said no.
    #[error("cannot listen on port {port}: {error}")]
    Failed {
        /// The last port tried.
        port: u16,
        /// What it said.
        error: NetError,
    },
}

/// Time. Monotonic, and counting while the machine sleeps.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Now, since the driver began.
    fn now(&self) -> Instant;

    /// Returns when `now()` is `deadline` or later.
    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Send;
}

/// Runs disk and hash jobs outside the owner. Each result goes to `done` exactly once; `done` has room for
/// [`crate::limits::JOBS_MAX`] results and no more jobs than that are ever under way.
pub trait Jobs: Send + 'static {
    /// Begins a job, without waiting for it.
    fn submit(&mut self, id: JobId, job: Job, done: &mpsc::Sender<(JobId, JobResult)>);
}
