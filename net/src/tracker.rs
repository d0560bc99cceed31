//! Sockets for the engine's tracker: HTTP/1 over TCP, one request a connection, and UDP on the same port.
//!
//! [`serve`] gives a [`TrackerListener`] that runs until it is stopped or dropped. The tracker itself is pure and sits
//! behind a lock that is held for one answer. Connections beyond the cap wait in the system's queue; each has a
//! deadline, so one that says nothing makes way.

use core::convert::Infallible;
use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use taipei_engine::tracker_server::{SwarmStats, TrackerServer};
use taipei_engine::{InfoHash, Instant};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::platform;

/// A tracker that listens. Dropping it stops it.
#[derive(Debug)]
pub struct TrackerListener {
    addresses: Vec<SocketAddr>,
    server: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    server: Mutex<TrackerServer>,
    began: tokio::time::Instant,
}

/// Why a tracker does not listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct TrackerListenError {
    /// Where it should.
    pub address: SocketAddr,
    /// What the system said.
    pub error: io::Error,
}

/// Listens at each of these addresses, over TCP and with `udp` over UDP as well, and answers as `server` decides. With
/// port 0 the system chooses one, the same for all of them where it can. An IPv6 address never takes IPv4 connections.
/// Needs a running tokio.
///
/// # Errors
/// When one of them cannot be listened at; then none is.
pub fn serve(
    listen: &[SocketAddr],
    udp: bool,
    server: TrackerServer,
) -> Result<TrackerListener, TrackerListenError> {
    let shared = Arc::new(Shared { server: Mutex::new(server), began: tokio::time::Instant::now() });
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // All are open before one is served: a task that is aborted keeps its socket until it would have run.
    let (mut addresses, mut opened) = (Vec::<SocketAddr>::new(), Vec::new());
    for address in listen {
        let mut address = *address;
        if address.port() == 0 {
            address.set_port(addresses.first().map_or(0, SocketAddr::port));
        }
        let failed = |error| TrackerListenError { address, error };
        let (listener, datagrams) = open_both(address, udp).map_err(failed)?;
        addresses.push(listener.local_addr().map_err(failed)?);
        opened.push((listener, datagrams));
    }
    let mut tasks = JoinSet::new();
    for (listener, datagrams) in opened {
        tasks.spawn(accept(listener, shared.clone(), slots.clone()));
        if let Some(datagrams) = datagrams {
            tasks.spawn(answer_datagrams(datagrams, shared.clone()));
        }
    }
    Ok(TrackerListener { addresses, server: shared, tasks })
}

impl TrackerListener {
    /// Where it listens, in the order asked for.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The first address it listens at.
    ///
    /// # Panics
    /// When it was asked to listen nowhere.
    pub fn local_addr(&self) -> SocketAddr {
        *self.addresses.first().expect("it listens somewhere")
    }

    /// What the tracker counted, by torrent.
    pub fn stats(&self) -> BTreeMap<InfoHash, SwarmStats> {
        self.server.lock().stats()
    }

    /// Stops listening and drops what is connected.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, TrackerServer> {
        // A panic in one answer leaves the tables as good as they were; the others go on.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::START + self.began.elapsed()
    }

    fn answer(&self, from: SocketAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = Response::default();
        if request.method() != Method::GET {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let (status, body) = self.lock().handle_http(self.now(), from, path);
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        *response.body_mut() = Full::new(body);
        response
    }
}

/// One port for both. Where the system chose it for TCP, it may be taken for UDP: then it chooses again.
fn open_both(address: SocketAddr, udp: bool) -> io::Result<(TcpListener, Option<UdpSocket>)> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let listener = open(address)?;
        if !udp {
            return Ok((listener, None));
        }
        tries -= 1;
        match open_datagrams(listener.local_addr()?) {
            Ok(datagrams) => return Ok((listener, Some(datagrams))),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

fn open_datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

async fn answer_datagrams(socket: UdpSocket, shared: Arc<Shared>) {
    let mut packet = [0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv_from(&mut packet).await {
            Ok((length, from)) => {
                let answer =
                    shared.lock().handle_udp(shared.now(), from, packet.get(..length).unwrap_or(&[]));
                // What the system cannot send is lost, as any datagram may be.
                if let Some(answer) = answer
                    && let Err(error) = socket.send_to(&answer, from).await
                {
                    debug!(%error, "an answer was not sent");
                }
            }
            // Told of an earlier answer that reached nobody.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => {
                warn!(%error, "the tracker cannot receive");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        let socket = TcpSocket::new_v6()?;
        socket2::SockRef::from(&socket).set_only_v6(true)?;
        socket
    };
    if platform::REUSE_ADDRESS {
        socket.set_reuseaddr(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, slots: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    let done = tokio::time::timeout(CONNECTION_TIMEOUT, talk(stream, from, &shared)).await;
                    match done {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!(%error, "a tracker connection ended badly"),
                        Err(_) => debug!("a tracker connection took too long"),
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors, or a connection that was gone already.
                warn!(%error, "the tracker cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn talk(stream: TcpStream, from: SocketAddr, shared: &Shared) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let response = shared.answer(from, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .keep_alive(false)
        .auto_date_header(false)
        .max_buf_size(HEADER_BYTES_MAX)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// Connections at once.
const CONNECTIONS_MAX: usize = 1024;
/// Connections that the system holds for us.
const BACKLOG: u32 = 1024;
/// Request line and headers (`reliability.md` C4).
const HEADER_BYTES_MAX: usize = 64 << 10;
/// From the connection to the end of the headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// From the connection to the end of the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// Ports tried where the system chooses.
const PORT_TRIES: u32 = 8;
/// An announce with options; what is longer is cut and then no request.
const DATAGRAM_BYTES_MAX: usize = 8 << 10;
/// After a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use taipei_engine::rng::Rng;
    use taipei_engine::tracker_server::TrackerConfig;
    use taipei_engine::wire::tracker_http::AnnounceRequest;
    use taipei_engine::wire::tracker_udp::{UdpAnswer, UdpRequest};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn listener(listen: &[&str]) -> TrackerListener {
        let server = TrackerServer::new(TrackerConfig::default(), Rng::stream(1, "tracker", 0));
        let listen: Vec<SocketAddr> = listen.iter().map(|address| address.parse().unwrap()).collect();
        serve(&listen, true, server).unwrap()
    }

    async fn ask(to: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A refused request may end with a reset after its answer.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n")
    }

    fn on_tokio(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn where_one_address_fails_nothing_is_listened_at() {
        on_tokio(async {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            let server = || TrackerServer::new(TrackerConfig::default(), Rng::stream(1, "tracker", 0));
            let elsewhere = "192.0.2.1:6969".parse().unwrap();
            let failed = serve(&[free, elsewhere], true, server()).unwrap_err();
            assert_eq!(failed.address, elsewhere);
            assert_eq!(serve(&[free], true, server()).unwrap().local_addr(), free);
        });
    }

    #[test]
    fn announces_are_answered_and_counted() {
        on_tokio(async {
            let tracker = listener(&["127.0.0.1:0"]);
            let (hash, id) = ("h".repeat(20), "i".repeat(20));
            let announce =
                get(&format!("/announce?info_hash={hash}&peer_id={id}&port=7&left=1&event=started"));
            let answer = ask(tracker.local_addr(), &announce).await;
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("8:intervali1800e"),
                "{answer}"
            );
            assert!(!answer.to_ascii_lowercase().contains("\r\ndate:"));
            let stats = tracker.stats();
            assert_eq!(
                stats.get(&InfoHash([b'h'; 20])).map(|one| (one.started, one.incomplete)),
                Some((1, 1))
            );
            assert!(ask(tracker.local_addr(), &get("/x")).await.starts_with("HTTP/1.1 404"));
            assert!(ask(tracker.local_addr(), "POST / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 405"));
            let address = tracker.local_addr();
            tracker.stop().await;
            assert!(TcpStream::connect(address).await.is_err());
        });
    }

    #[test]
    fn datagrams_are_answered_on_the_same_port_and_counted_with_the_rest() {
        on_tokio(async {
            for (listen, from) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0")] {
                let tracker = listener(&[listen]);
                let socket = UdpSocket::bind(from).await.unwrap();
                socket.connect(tracker.local_addr()).await.unwrap();
                let mut buffer = [0; 2048];
                socket.send(&UdpRequest::Connect { transaction: 7 }.encode()).await.unwrap();
                let length = socket.recv(&mut buffer).await.unwrap();
                let ipv6 = tracker.local_addr().is_ipv6();
                let Some(UdpAnswer::Connected { transaction: 7, connection_id }) =
                    UdpAnswer::parse(&buffer[..length], ipv6)
                else {
                    panic!("no connection id")
                };
                let query = format!("info_hash={}&peer_id={}&port=9&left=1", "h".repeat(20), "i".repeat(20));
                let announce = Box::new(AnnounceRequest::parse(&query).unwrap());
                let announce =
                    UdpRequest::Announce { connection_id, transaction: 8, announce, url_data: Vec::new() };
                socket.send(&announce.encode()).await.unwrap();
                let length = socket.recv(&mut buffer).await.unwrap();
                let answer = UdpAnswer::parse(&buffer[..length], ipv6);
                assert!(matches!(answer, Some(UdpAnswer::Announced { leechers: 1, .. })), "{answer:?}");
                assert_eq!(tracker.stats()[&InfoHash([b'h'; 20])].incomplete, 1);
            }
        });
    }

    #[test]
    fn headers_without_end_are_refused() {
        on_tokio(async {
            let tracker = listener(&["127.0.0.1:0"]);
            let huge = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(HEADER_BYTES_MAX + 9));
            let answer = ask(tracker.local_addr(), &huge).await;
            assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(ask(tracker.local_addr(), &get("/")).await.starts_with("HTTP/1.1 200"));
        });
    }

    #[test]
    fn a_taken_port_is_named() {
        on_tokio(async {
            let first = listener(&["127.0.0.1:0"]);
            let server = TrackerServer::new(TrackerConfig::default(), Rng::stream(1, "tracker", 0));
            let error = serve(&[first.local_addr()], true, server).unwrap_err();
            assert_eq!(error.address, first.local_addr());
        });
    }
}
