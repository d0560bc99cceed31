//! Sockets for the engine's tracker: HTTP/1 over TCP, one request a connection.
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
use tokio::net::{TcpListener, TcpSocket, TcpStream};
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

/// Listens at each of these addresses and answers as `server` decides. With port 0 the system chooses one, the same
/// for all of them where it can. An IPv6 address never takes IPv4 connections. Needs a running tokio.
///
/// # Errors
/// When one of them cannot be listened at; then none is.
pub fn serve(listen: &[SocketAddr], server: TrackerServer) -> Result<TrackerListener, TrackerListenError> {
    let shared = Arc::new(Shared { server: Mutex::new(server), began: tokio::time::Instant::now() });
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (mut addresses, mut tasks) = (Vec::<SocketAddr>::new(), JoinSet::new());
    for address in listen {
        let mut address = *address;
        if address.port() == 0 {
            address.set_port(addresses.first().map_or(0, SocketAddr::port));
        }
        let failed = |error| TrackerListenError { address, error };
        let listener = open(address).map_err(failed)?;
        addresses.push(listener.local_addr().map_err(failed)?);
        tasks.spawn(accept(listener, shared.clone(), slots.clone()));
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

    fn answer(&self, from: SocketAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = Response::default();
        if request.method() != Method::GET {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let now = Instant::START + self.began.elapsed();
        let (status, body) = self.lock().handle_http(now, from, path);
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        *response.body_mut() = Full::new(body);
        response
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
/// After a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use taipei_engine::rng::Rng;
    use taipei_engine::tracker_server::TrackerConfig;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn listener(listen: &[&str]) -> TrackerListener {
        let server = TrackerServer::new(TrackerConfig::default(), Rng::stream(1, "tracker", 0));
        let listen: Vec<SocketAddr> = listen.iter().map(|address| address.parse().unwrap()).collect();
        serve(&listen, server).unwrap()
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
            let error = serve(&[first.local_addr()], server).unwrap_err();
            assert_eq!(error.address, first.local_addr());
        });
    }
}
