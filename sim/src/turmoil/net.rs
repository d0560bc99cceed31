//! Shaped links over turmoil, whose own latency is zero and which knows no rates.
//!
//! Every write becomes a frame: a stamp of when it arrives, a length, and its bytes. The writer books the frame on its
//! host's way up, adds the latency and stamps it; it waits while more than the queue's worth is booked, and who came
//! first goes first, so that no stream starves. The reader books the host's way down and holds the frame until its time.
//! What paths lose is stamped later by as much as it takes to send it again, and what a cut holds back by as much as the
//! cut lasts, which is known when it begins. Time is a whole number of milliseconds to tokio; the booking
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
use taipei_engine::rng::Rng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::events::RESOLVER_PATIENCE;
use crate::link::LinkClock;
use crate::network::cuts::{Cut, Cuts};
use crate::network::path::Sender;
use crate::plan::{Plan, draw};
use crate::scenario::{Access, Outage};
use crate::tracker::TrackerActor;
use crate::units::Rate;

/// What all hosts' links are, and who is there.
#[derive(Debug)]
pub(super) struct Net {
    plan: Arc<Plan>,
    links: BTreeMap<IpAddr, Mutex<Links>>,
    /// Machines without power: nobody answers for them.
    dark: Mutex<BTreeMap<IpAddr, ()>>,
    /// The paths that begin at each party: hosts, then trackers.
    pub(super) senders: Mutex<Vec<Sender>>,
    /// With when the last of them heals.
    cuts: Mutex<(Cuts, u64)>,
    /// By host.
    resolvers: Vec<Mutex<Resolver>>,
    /// In the order of the plan.
    pub(super) trackers: Mutex<Vec<TrackerActor>>,
    /// What the world's clock said when the current tick began, nanoseconds.
    tick: Mutex<u64>,
}

/// What looks names up for a host.
#[derive(Debug)]
struct Resolver {
    rng: Rng,
    outage: Option<Outage>,
    /// Whom that met.
    unresolved: u64,
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
    /// It is slower than it should be, and how much that met.
    is_slow: bool,
    slowed: u64,
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
            queue: access.queue.lasts_at(access.up),
            is_slow: false,
            slowed: 0,
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
            senders: Mutex::new(plan.senders()),
            cuts: Mutex::default(),
            resolvers: plan
                .hosts
                .iter()
                .map(|host| Resolver {
                    rng: Rng::stream(plan.seed, "dns", host.id),
                    outage: None,
                    unresolved: 0,
                })
                .map(Mutex::new)
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

    /// Nothing passes between parties from now on.
    pub(super) fn cut(&self, number: usize, cut: Cut, until: u64) {
        let (cuts, heals_at) = &mut *lock(&self.cuts);
        cuts.begin(number, cut);
        *heals_at = (*heals_at).max(until);
    }

    /// It does again. Gives how much was swallowed.
    pub(super) fn heal(&self, number: usize) -> u64 {
        lock(&self.cuts).0.end(number)
    }

    /// When a cut heals that swallows what leaves now.
    fn cut_until(&self, from: IpAddr, to: IpAddr) -> Option<u64> {
        let (from, to) = self.plan.party_at(from).zip(self.plan.party_at(to))?;
        let (cuts, heals_at) = &mut *lock(&self.cuts);
        cuts.swallow(from, to).then_some(*heals_at)
    }

    /// Does something with the paths that begin at a host.
    fn with_sender<T: Default>(&self, from: IpAddr, act: impl FnOnce(&mut Sender) -> T) -> T {
        let party = self.plan.party_at(from);
        party.map(|party| act(&mut lock(&self.senders)[party])).unwrap_or_default()
    }

    /// Whether what leaves at `now` never comes to another.
    fn is_lost(&self, now: u64, from: IpAddr, to: IpAddr) -> bool {
        self.cut_until(from, to).is_some()
            || self.with_sender(from, |sender| sender.loses(now, &self.plan.net))
    }

    /// When a frame arrives that departs then: later for having been lost.
    fn arrival(&self, from: IpAddr, to: IpAddr, departure: u64) -> u64 {
        let latency = self.latency(from, to);
        let late = self.with_sender(from, |sender| {
            let lost = (0..RETRIES_MAX).take_while(|_| sender.loses(departure, &self.plan.net)).count();
            sender.jitter(&self.plan.net) + ((RETRANSMISSION_TIME + 2 * latency) << lost)
                - (RETRANSMISSION_TIME + 2 * latency)
        });
        let healed = self.cut_until(from, to).map_or(0, |until| until + RETRANSMISSION_TIME);
        (departure + latency + late).max(healed)
    }

    /// A link passes no more than a rate, or what it should. Gives how much was slowed down before.
    pub(super) fn slow_down(&self, host: usize, most: Option<Rate>) -> u64 {
        let host = &self.plan.hosts[host];
        let Some(links) = self.links.get(&host.address) else { return 0 };
        let mut links = lock(links);
        let rate = |rate: Rate| most.map_or(rate, |most| most.min(rate)).0;
        links.up.set_rate(rate(host.access.up));
        links.down.set_rate(rate(host.access.down));
        links.is_slow = most.is_some();
        std::mem::take(&mut links.slowed)
    }

    /// A host's resolver fails from now on.
    pub(super) fn stop_resolving(&self, host: usize, how: Outage) {
        let mut resolver = lock(&self.resolvers[host]);
        (resolver.outage, resolver.unresolved) = (Some(how), 0);
    }

    /// No longer. Gives how often it did.
    pub(super) fn resolve_again(&self, host: usize) -> u64 {
        let mut resolver = lock(&self.resolvers[host]);
        resolver.outage = None;
        resolver.unresolved
    }

    /// What a host's resolver says, and what that takes.
    fn resolve(&self, host: IpAddr, name: &str) -> (u64, Result<Vec<IpAddr>, NetError>) {
        let known = self.plan.addresses_of(name).ok_or(NetError::NotFound);
        let Some(host) = self.plan.host_at(host) else { return (0, known) };
        let mut resolver = lock(&self.resolvers[host]);
        resolver.unresolved += u64::from(resolver.outage.is_some());
        let takes = draw(&mut resolver.rng, self.plan.net.dns);
        match resolver.outage {
            None => (takes, known),
            Some(Outage::Silence) => (RESOLVER_PATIENCE, Err(NetError::TimedOut)),
            Some(_) => (takes, Err(NetError::NotFound)),
        }
    }

    /// Whether nobody listens at a tracker's address.
    fn refuses(&self, remote: SocketAddr) -> bool {
        let number = self.plan.tracker_at(remote);
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

    /// Books the way up in turn: when the last byte has left, or until when to wait for room.
    fn book_up_in_turn(&self, host: IpAddr, stream: u64, now: u64, bytes: u64) -> Result<u64, u64> {
        let Some(links) = self.links.get(&host) else { return Ok(now) };
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
        let booked = self.book_up(host, now, bytes);
        if booked.is_ok() {
            lock(links).waiting.pop_front();
        }
        booked
    }

    /// Books the way up: when the last byte has left, or until when to wait for room.
    fn book_up(&self, host: IpAddr, now: u64, bytes: u64) -> Result<u64, u64> {
        let Some(links) = self.links.get(&host) else { return Ok(now) };
        let mut links = lock(links);
        let backlog = links.up.backlog(now);
        if backlog > links.queue {
            return Err(now + backlog - links.queue);
        }
        links.slowed += u64::from(links.is_slow);
        Ok(links.up.book(now, bytes))
    }

    /// When what would arrive then does, for all that its sender is silent.
    fn after_silence(&self, host: IpAddr, arrival: u64) -> u64 {
        let Some(links) = self.links.get(&host) else { return arrival };
        let mut links = lock(links);
        links.silenced += u64::from(arrival < links.silent_until);
        arrival.max(links.silent_until)
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
                remote: remote.ip(),
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
        let mut tries = 0;
        let is_lost = |from, to| self.net.is_lost(self.clock.world_now(), from, to);
        while is_lost(self.host, remote.ip()) || is_lost(remote.ip(), self.host) {
            wait(SYN_TIME << tries).await;
            if tries == SYN_TRIES {
                return Err(NetError::TimedOut);
            }
            tries += 1;
        }
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
        let (takes, result) = self.net.resolve(self.host, host);
        self.clock.sleep_until_world(self.clock.world_now() + takes).await;
        result
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
        let Ok(departure) = self.net.book_up(self.host, now, payload.len() as u64) else { return };
        if !there || self.net.cut_until(self.host, remote.ip()).is_some() {
            return;
        }
        let net = &self.net.plan.net;
        let copies: Vec<u64> =
            self.net.with_sender(self.host, |sender| sender.copies(departure, net).collect());
        for late in copies {
            let stamp = self.net.after_silence(self.host, departure + latency + late);
            // Whoever has no socket there is not told.
            let _ = socket.try_send_to(&[&stamp.to_le_bytes()[..], payload].concat(), remote);
        }
    }

    /// There is no local network: every host is at its own.
    async fn open_group(&self, _: SocketAddr) -> Option<Arc<UdpSocket>> {
        None
    }

    fn send_to_group(&self, _: SocketAddr, _: &[u8]) {}

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
    remote: IpAddr,
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
            match net.book_up_in_turn(*host, self.stream, now, length as u64) {
                Ok(departure) => break net.after_silence(*host, net.arrival(*host, self.remote, departure)),
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
const SYN_TIME: u64 = 1_000_000_000;
const SYN_TRIES: u32 = 6;
/// On top of a round trip, before a lost segment is sent again; doubles with each try.
const RETRANSMISSION_TIME: u64 = 200_000_000;
const RETRIES_MAX: u32 = 7;
/// How long a system waits for an answer to its SYNs.
const SYSTEM_CONNECT_TIME: u64 = 127_000_000_000;
