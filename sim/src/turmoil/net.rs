//! Shaped links over turmoil, whose own latency is zero and which knows no rates.
//!
//! Every write becomes a frame: a stamp of when it arrives, a length, and its bytes. The writer books the frame on its
//! host's way up, adds the latency and stamps it; it waits while more than the queue's worth is booked, and who came
//! first goes first, so that no stream starves. The reader books
//! the host's way down and holds the frame until its time. Time is a whole number of milliseconds to tokio; the booking
//! is exact.

use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use ::turmoil::net::{TcpListener, TcpStream, UdpSocket};
use bytes::{Buf as _, Bytes, BytesMut};
use taipei_engine::Instant;
use taipei_engine::driver::{Clock, Connection, ListenError, SecureStream, Transport, net_error};
use taipei_engine::input::NetError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::link::LinkClock;
use crate::plan::Plan;
use crate::scenario::Access;
use crate::tracker::TrackerActor;

/// What all hosts' links are, and who is there.
#[derive(Debug)]
pub(super) struct Net {
    plan: Arc<Plan>,
    links: BTreeMap<IpAddr, Mutex<Links>>,
    /// Machines without power: nobody answers for them.
    dark: Mutex<BTreeMap<IpAddr, ()>>,
    names: BTreeMap<String, IpAddr>,
    /// In the order of the plan.
    pub(super) trackers: Mutex<Vec<TrackerActor>>,
    /// What the world's clock said when the current tick began, nanoseconds.
    tick: Mutex<u64>,
}

#[derive(Debug)]
struct Links {
    up: LinkClock,
    down: LinkClock,
    queue: u64,
    /// Streams that wait for room on the way up, in order.
    waiting: VecDeque<u64>,
    /// Streams ever numbered.
    streams: u64,
    /// Nothing that the host sends arrives before.
    silent_until: u64,
    /// Frames that were held back by that.
    silenced: u64,
}

impl Links {
    fn new(access: &Access) -> Mutex<Self> {
        Mutex::new(Self {
            up: LinkClock::new(access.up.0),
            down: LinkClock::new(access.down.0),
            queue: access.queue.0,
            waiting: VecDeque::new(),
            streams: 0,
            silent_until: 0,
            silenced: 0,
        })
    }
}

impl Net {
    pub(super) fn new(plan: &Arc<Plan>) -> Arc<Self> {
        let trackers =
            plan.trackers.iter().map(|tracker| (tracker.address.ip(), Links::new(&Access::default())));
        Arc::new(Self {
            links: plan
                .hosts
                .iter()
                .map(|host| (host.address, Links::new(&host.access)))
                .chain(trackers)
                .collect(),
            dark: Mutex::default(),
            names: plan
                .trackers
                .iter()
                .map(|tracker| (tracker.dns_name.clone(), tracker.address.ip()))
                .collect(),
            trackers: Mutex::new(TrackerActor::all(plan)),
            tick: Mutex::new(0),
            plan: plan.clone(),
        })
    }

    /// A tick begins.
    pub(super) fn set_tick(&self, now: u64) {
        *lock(&self.tick) = now;
    }

    /// When the current tick began.
    pub(super) fn tick(&self) -> u64 {
        *lock(&self.tick)
    }

    /// Whether a machine has power.
    pub(super) fn set_dark(&self, address: IpAddr, dark: bool) {
        if dark {
            lock(&self.dark).insert(address, ());
        } else {
            lock(&self.dark).remove(&address);
        }
    }

    fn is_dark(&self, address: IpAddr) -> bool {
        lock(&self.dark).contains_key(&address)
    }

    fn latency(&self, a: IpAddr, b: IpAddr) -> u64 {
        if a == b { 0 } else { self.plan.latency(a, b) }
    }

    /// Nothing that a host sends arrives before a time.
    pub(super) fn silence(&self, address: IpAddr, until: u64) {
        if let Some(links) = self.links.get(&address) {
            let mut links = lock(links);
            (links.silent_until, links.silenced) = (until, 0);
        }
    }

    /// How many frames that held back.
    pub(super) fn silenced(&self, address: IpAddr) -> u64 {
        self.links.get(&address).map_or(0, |links| lock(links).silenced)
    }

    /// Whether nobody listens at a tracker's address.
    fn refuses(&self, remote: SocketAddr) -> bool {
        let number = self.plan.trackers.iter().position(|tracker| tracker.address == remote);
        number.is_some_and(|number| lock(&self.trackers)[number].refuses())
    }

    /// A number for a stream from this host.
    fn number_stream(&self, host: IpAddr) -> u64 {
        self.links.get(&host).map_or(0, |links| {
            let mut links = lock(links);
            links.streams += 1;
            links.streams
        })
    }

    /// A stream does not wait any more.
    fn forget_stream(&self, host: IpAddr, stream: u64) {
        if let Some(links) = self.links.get(&host) {
            lock(links).waiting.retain(|other| *other != stream);
        }
    }

    /// Books the way up in turn: when the last byte is there, after `latency`, or until when to wait for room.
    fn book_up_in_turn(
        &self,
        host: IpAddr,
        stream: u64,
        now: u64,
        bytes: u64,
        latency: u64,
    ) -> Result<u64, u64> {
        let Some(links) = self.links.get(&host) else { return Ok(now + latency) };
        let (place, room_in) = {
            let mut links = lock(links);
            let place = links.waiting.iter().position(|other| *other == stream).unwrap_or_else(|| {
                links.waiting.push_back(stream);
                links.waiting.len() - 1
            });
            (place as u64, links.up.backlog(now).saturating_sub(links.queue))
        };
        if place > 0 {
            // Those before it are about to book as much.
            return Err(now + room_in.max(1) + place * lock(links).up.takes(bytes));
        }
        let booked = self.book_up(host, now, bytes, latency);
        if booked.is_ok() {
            lock(links).waiting.pop_front();
        }
        booked
    }

    /// Books the way up: when the last byte is there, after `latency`, or until when to wait for room.
    fn book_up(&self, host: IpAddr, now: u64, bytes: u64, latency: u64) -> Result<u64, u64> {
        let Some(links) = self.links.get(&host) else { return Ok(now + latency) };
        let mut links = lock(links);
        let backlog = links.up.backlog(now);
        if backlog > links.queue {
            return Err(now + backlog - links.queue);
        }
        let arrival = links.up.book(now, bytes) + latency;
        links.silenced += u64::from(arrival < links.silent_until);
        Ok(arrival.max(links.silent_until))
    }

    fn book_down(&self, host: IpAddr, at: u64, bytes: u64) -> u64 {
        self.links.get(&host).map_or(at, |links| lock(links).down.book(at, bytes))
    }
}

/// The locks are never held across a wait, and a panic elsewhere ends the run anyway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The world's time on one host.
#[derive(Clone, Debug)]
pub(super) struct WorldClock {
    origin: tokio::time::Instant,
    /// What the world's clock said then.
    origin_ns: u64,
    /// When the engine began, world time.
    began: u64,
}

impl WorldClock {
    /// To be made on the host, at the beginning of a tick.
    pub(super) fn new(net: &Net) -> Self {
        Self { origin: tokio::time::Instant::now(), origin_ns: net.tick(), began: net.tick() }
    }

    /// Nanoseconds since the world began.
    pub(super) fn world_now(&self) -> u64 {
        self.origin_ns + self.origin.elapsed().as_nanos() as u64
    }

    /// What an engine's time is in the world.
    pub(super) fn world_at(&self, now: Instant) -> u64 {
        self.began + now.0
    }

    pub(super) fn sleep_until_world(&self, at: u64) -> Sleep {
        tokio::time::sleep_until(self.origin + Duration::from_nanos(at.saturating_sub(self.origin_ns)))
    }
}

impl Clock for WorldClock {
    fn now(&self) -> Instant {
        Instant(self.world_now() - self.began)
    }

    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Send {
        self.sleep_until_world(self.world_at(deadline))
    }
}

/// Streams between turmoil hosts, with their links.
#[derive(Clone, Debug)]
pub(super) struct ShapedTransport {
    net: Arc<Net>,
    clock: WorldClock,
    host: IpAddr,
}

impl ShapedTransport {
    pub(super) fn new(net: &Arc<Net>, clock: &WorldClock, host: IpAddr) -> Self {
        Self { net: net.clone(), clock: clock.clone(), host }
    }

    fn shape(
        &self,
        stream: TcpStream,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Connection<ShapedReader, ShapedWriter> {
        let (reader, writer) = stream.into_split();
        let end = Shape { net: self.net.clone(), clock: self.clock.clone(), host: self.host };
        Connection {
            reader: ShapedReader {
                inner: reader,
                shape: end.clone(),
                raw: BytesMut::new(),
                frames: VecDeque::new(),
                ended: false,
                sleep: None,
            },
            writer: ShapedWriter {
                inner: writer,
                stream: self.net.number_stream(self.host),
                latency: self.net.latency(local.ip(), remote.ip()),
                shape: end,
                frame: Bytes::new(),
                scratch: BytesMut::new(),
                sleep: None,
            },
            local,
            remote,
        }
    }
}

impl Transport for ShapedTransport {
    type Reader = ShapedReader;
    type Writer = ShapedWriter;
    type Listener = TcpListener;
    type Datagrams = Arc<UdpSocket>;

    async fn connect(&self, remote: SocketAddr) -> Result<Connection<ShapedReader, ShapedWriter>, NetError> {
        let latency = self.net.latency(self.host, remote.ip());
        let wait = |ns| self.clock.sleep_until_world(self.clock.world_now() + ns);
        wait(latency).await;
        if self.net.is_dark(remote.ip()) || !self.net.links.contains_key(&remote.ip()) {
            wait(SYSTEM_CONNECT_TIME).await;
            return Err(NetError::TimedOut);
        }
        if self.net.refuses(remote) {
            wait(latency).await;
            return Err(NetError::Refused);
        }
        let result = TcpStream::connect(remote).await;
        wait(latency).await;
        let stream = result.map_err(|error| net_error(&error))?;
        let local = stream.local_addr().map_err(|error| net_error(&error))?;
        Ok(self.shape(stream, local, remote))
    }

    async fn listen(
        &self,
        ports: RangeInclusive<u16>,
    ) -> Result<Vec<(SocketAddr, TcpListener)>, ListenError> {
        for port in ports.clone() {
            match TcpListener::bind((core::net::Ipv4Addr::UNSPECIFIED, port)).await {
                Ok(listener) => {
                    let port = listener.local_addr().map_or(port, |address| address.port());
                    return Ok(vec![(SocketAddr::new(self.host, port), listener)]);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(ListenError::Failed { port, error: net_error(&error) }),
            }
        }
        Err(ListenError::InUse(*ports.end()))
    }

    async fn accept(
        &self,
        listener: &mut TcpListener,
    ) -> Result<Connection<ShapedReader, ShapedWriter>, NetError> {
        let (stream, remote) = listener.accept().await.map_err(|error| net_error(&error))?;
        let local = stream.local_addr().map_err(|error| net_error(&error))?;
        Ok(self.shape(stream, local, remote))
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, NetError> {
        self.clock.sleep_until_world(self.clock.world_now() + DNS_TIME).await;
        self.net.names.get(host).map(|address| vec![*address]).ok_or(NetError::NotFound)
    }

    async fn open_datagrams(&self, ipv6: bool, port: u16) -> Option<Arc<UdpSocket>> {
        if ipv6 {
            return None;
        }
        UdpSocket::bind((core::net::Ipv4Addr::UNSPECIFIED, port)).await.ok().map(Arc::new)
    }

    /// Booked and stamped as a frame of a stream is; what finds the queue full is lost.
    fn send_datagram(&self, socket: &Arc<UdpSocket>, remote: SocketAddr, payload: &[u8]) {
        let there = self.net.links.contains_key(&remote.ip()) && !self.net.is_dark(remote.ip());
        let now = self.clock.world_now();
        let latency = self.net.latency(self.host, remote.ip());
        if let Ok(stamp) = self.net.book_up(self.host, now, payload.len() as u64, latency)
            && there
        {
            // Whoever has no socket there is not told.
            let _ = socket.try_send_to(&[&stamp.to_le_bytes()[..], payload].concat(), remote);
        }
    }

    async fn receive_datagram(
        &self,
        socket: &Arc<UdpSocket>,
        buffer: &mut [u8],
    ) -> Result<(usize, SocketAddr), NetError> {
        let mut raw = vec![0; buffer.len() + STAMP_BYTES];
        let (length, remote) = socket.recv_from(&mut raw).await.map_err(|error| net_error(&error))?;
        let Some((stamp, payload)) = raw.get(..length).and_then(|raw| raw.split_first_chunk::<STAMP_BYTES>())
        else {
            return Err(NetError::Other);
        };
        let at = u64::from_le_bytes(*stamp).max(self.clock.world_now());
        let at = self.net.book_down(self.host, at, payload.len() as u64);
        self.clock.sleep_until_world(at).await;
        let fits = payload.len().min(buffer.len());
        buffer[..fits].copy_from_slice(&payload[..fits]);
        Ok((fits, remote))
    }

    async fn secure(
        &self,
        connection: Connection<ShapedReader, ShapedWriter>,
        _host: &str,
    ) -> Result<SecureStream, NetError> {
        Ok(Box::new(tokio::io::join(connection.reader, connection.writer)))
    }
}

#[derive(Clone, Debug)]
struct Shape {
    net: Arc<Net>,
    clock: WorldClock,
    host: IpAddr,
}

impl Shape {
    /// Ready when the world's clock says `at`.
    fn poll_until(
        &self,
        at: u64,
        sleep: &mut Option<Pin<Box<Sleep>>>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        if self.clock.world_now() >= at {
            *sleep = None;
            return Poll::Ready(());
        }
        let timer = sleep.get_or_insert_with(|| Box::pin(self.clock.sleep_until_world(at)));
        ready!(timer.as_mut().poll(context));
        *sleep = None;
        Poll::Ready(())
    }
}

/// Bytes that a writer sent at once.
#[derive(Debug)]
struct Frame {
    /// When it is at the link, and once that was booked, when it is through.
    at: u64,
    is_booked: bool,
    bytes: Bytes,
}

/// The receiving half: unpacks frames and holds each until its time.
#[derive(Debug)]
pub(super) struct ShapedReader {
    inner: OwnedReadHalf,
    shape: Shape,
    raw: BytesMut,
    frames: VecDeque<Frame>,
    ended: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl ShapedReader {
    /// Takes in what is there, up to the first frame.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.frames.is_empty() && !self.ended {
            let mut chunk = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                self.ended = true;
            }
            self.raw.extend_from_slice(buffer.filled());
            while let Some((stamp, length)) =
                head(&self.raw).filter(|(_, length)| self.raw.len() >= HEAD_BYTES + length)
            {
                self.raw.advance(HEAD_BYTES);
                let bytes = self.raw.split_to(length).freeze();
                self.frames.push_back(Frame { at: stamp, is_booked: false, bytes });
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Books the way down for the first frame if it has come that far. When it may be looked at again.
    fn book_first(&mut self, now: u64) -> Option<u64> {
        let first = self.frames.front_mut()?;
        if !first.is_booked && first.at <= now {
            let length = first.bytes.len() as u64;
            first.at = self.shape.net.book_down(self.shape.host, first.at, length);
            first.is_booked = true;
        }
        Some(first.at)
    }

    /// The first frame, if it is through.
    fn first_through(&mut self, now: u64) -> Option<&mut Bytes> {
        self.book_first(now);
        let first = self.frames.front_mut().filter(|frame| frame.is_booked && frame.at <= now)?;
        Some(&mut first.bytes)
    }
}

fn head(raw: &[u8]) -> Option<(u64, usize)> {
    let stamp = u64::from_le_bytes(raw.get(..8)?.try_into().ok()?);
    let length = u32::from_le_bytes(raw.get(8..HEAD_BYTES)?.try_into().ok()?);
    Some((stamp, length as usize))
}

impl AsyncRead for ShapedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_frame(context))?;
        // Twice: until it is at the link, and until it is through.
        loop {
            let now = this.shape.clock.world_now();
            let Some(at) = this.book_first(now) else { return Poll::Ready(Ok(())) };
            if this.first_through(now).is_some() {
                break;
            }
            ready!(this.shape.poll_until(at, &mut this.sleep, context));
        }
        // Everything whose time has come, as one read would give it.
        let now = this.shape.clock.world_now();
        while buffer.remaining() > 0 {
            let Some(bytes) = this.first_through(now) else { break };
            let part = bytes.split_to(bytes.len().min(buffer.remaining()));
            buffer.put_slice(&part);
            if bytes.is_empty() {
                this.frames.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The sending half: packs, books and stamps.
#[derive(Debug)]
pub(super) struct ShapedWriter {
    inner: OwnedWriteHalf,
    shape: Shape,
    /// Its place in line for the way up goes by this.
    stream: u64,
    latency: u64,
    /// A frame that was booked and waits for turmoil to take it.
    frame: Bytes,
    scratch: BytesMut,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl ShapedWriter {
    fn poll_frame_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.frame.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(context, &self.frame))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.frame.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_slices(
        &mut self,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_frame_out(context))?;
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>().min(FRAME_BYTES);
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        let arrival = loop {
            let now = self.shape.clock.world_now();
            let Shape { net, host, .. } = &self.shape;
            match net.book_up_in_turn(*host, self.stream, now, length as u64, self.latency) {
                Ok(arrival) => break arrival,
                Err(room_at) => ready!(self.shape.poll_until(room_at, &mut self.sleep, context)),
            }
        };
        self.scratch.extend_from_slice(&arrival.to_le_bytes());
        self.scratch.extend_from_slice(&(length as u32).to_le_bytes());
        let mut left = length;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            self.scratch.extend_from_slice(part);
            left -= part.len();
        }
        self.frame = self.scratch.split().freeze();
        // Booked is written; what turmoil does not take now goes before the next.
        if let Poll::Ready(Err(error)) = self.poll_frame_out(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(length))
    }
}

impl Drop for ShapedWriter {
    fn drop(&mut self) {
        self.shape.net.forget_stream(self.shape.host, self.stream);
    }
}

impl AsyncWrite for ShapedWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_frame_out(context))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_frame_out(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

const STAMP_BYTES: usize = 8;
/// The stamp and the length.
const HEAD_BYTES: usize = 12;
/// A write is cut into no more than this.
const FRAME_BYTES: usize = 16 << 10;
const READ_BYTES: usize = FRAME_BYTES + HEAD_BYTES;
const DNS_TIME: u64 = 10_000_000;
/// How long a system waits for an answer to its SYNs.
const SYSTEM_CONNECT_TIME: u64 = 127_000_000_000;
