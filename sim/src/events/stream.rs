//! Streams between hosts: segments booked on both access links, a window that grows and halves, loss as delay.
//!
//! An end is `Dialling`, then `Open`, then `Closed` (we or the system ended it) or `Vanished` (the machine lost power and
//! its kernel knows nothing of it). Bytes go `out` -> segments in flight -> `inbox`, within the engine's grants at both
//! ends. What is in flight is what was sent and not yet read over there, so a reader without a grant stops its sender.
//! Nothing here is ever lost for good: a lost segment comes a retransmission later, in order.

use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use taipei_engine::input::{CloseReason, NetError};
use taipei_engine::wire::{self, Message};
use taipei_engine::{ConnectionId, Input};

use super::{Event, Todo, World};
use crate::plan::PEER_PORT;
use crate::trace::Kind;

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// Bytes on their way; the last one of a stream has none.
#[derive(Debug)]
pub(super) struct Segment {
    parts: Vec<Bytes>,
    bytes: u32,
    is_last: bool,
}

/// All streams by number.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: BTreeMap<u32, Stream>,
    next: u32,
}

#[derive(Debug)]
struct Stream {
    latency: u64,
    remote: SocketAddr,
    ends: [End; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Dialling,
    Open,
    Closed,
    Vanished,
}

#[derive(Debug)]
pub(super) struct End {
    host: usize,
    connection: ConnectionId,
    state: State,
    encoder: wire::Stream,
    decoder: wire::Stream,
    out: VecDeque<Bytes>,
    out_bytes: u64,
    /// Below zero when what was spent was then taken back.
    write_grant: i64,
    read_grant: i64,
    in_flight: u64,
    window: u64,
    threshold: u64,
    inbox: VecDeque<Bytes>,
    inbox_bytes: u64,
    end_of_stream: bool,
    queued: bool,
    /// Nothing sent to this end arrives before this.
    last_arrival: u64,
    /// A segment is sent again and again to a machine that is off.
    probed: bool,
}

impl End {
    fn new(host: usize, connection: ConnectionId, state: State) -> Self {
        Self {
            host,
            connection,
            state,
            encoder: wire::Stream::default(),
            decoder: wire::Stream::default(),
            out: VecDeque::new(),
            out_bytes: 0,
            write_grant: 0,
            read_grant: 0,
            in_flight: 0,
            window: WINDOW_START,
            threshold: WINDOW_MAX,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            end_of_stream: false,
            queued: false,
            last_arrival: 0,
            probed: false,
        }
    }

    /// Puts messages behind what waits to be sent.
    pub(super) fn encode(&mut self, messages: &[Message]) {
        let before = self.out.len();
        self.encoder.encode(messages, &mut self.out);
        self.out_bytes += self.out.iter().skip(before).map(|chunk| chunk.len() as u64).sum::<u64>();
    }

    /// Lets this end read and write more.
    pub(super) fn grant(&mut self, read_bytes: u64, write_bytes: u64) {
        self.read_grant = self.read_grant.saturating_add_unsigned(read_bytes);
        self.write_grant = self.write_grant.saturating_add_unsigned(write_bytes);
    }

    /// Takes grants back.
    pub(super) fn revoke(&mut self, read_bytes: u64, write_bytes: u64) {
        self.read_grant = self.read_grant.saturating_sub_unsigned(read_bytes);
        self.write_grant = self.write_grant.saturating_sub_unsigned(write_bytes);
    }

    /// How much may be sent now; small rests wait for room.
    fn may_send(&self) -> u64 {
        if self.state != State::Open {
            return 0;
        }
        let wanted = SEGMENT_BYTES.min(self.out_bytes).min(self.write_grant.max(0) as u64);
        let room = self.window.saturating_sub(self.in_flight);
        if room < wanted && self.in_flight > 0 { 0 } else { wanted.min(room) }
    }

    fn on_lost(&mut self) {
        self.threshold = (self.window / 2).max(WINDOW_START);
        self.window = self.threshold;
    }

    fn on_acknowledged(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        let growth = if self.window < self.threshold { bytes } else { SEGMENT_BYTES * bytes / self.window };
        self.window = (self.window + growth).min(WINDOW_MAX);
    }

    fn clear(&mut self, state: State) {
        self.state = state;
        self.out.clear();
        self.out_bytes = 0;
        self.inbox.clear();
        self.inbox_bytes = 0;
    }
}

impl Streams {
    pub(super) fn end(&mut self, stream: u32, side: Side) -> Option<&mut End> {
        self.streams.get_mut(&stream).map(|stream| &mut stream.ends[side as usize])
    }

    fn both(&mut self, stream: u32, side: Side) -> Option<(u64, &mut End, &mut End)> {
        let stream = self.streams.get_mut(&stream)?;
        let [dialler, acceptor] = &mut stream.ends;
        Some(match side {
            Side::Dialler => (stream.latency, dialler, acceptor),
            Side::Acceptor => (stream.latency, acceptor, dialler),
        })
    }

    /// The machine at an end; none for a stream that is over.
    pub(super) fn host(&self, stream: u32, side: Side) -> Option<usize> {
        self.streams.get(&stream).map(|stream| stream.ends[side as usize].host)
    }

    /// The machine at this end has lost power.
    pub(super) fn vanish(&mut self, stream: u32, side: Side) {
        if let Some(end) = self.end(stream, side) {
            end.clear(State::Vanished);
        }
        self.forget_if_over(stream);
    }

    fn forget_if_over(&mut self, stream: u32) {
        let over = |end: &End| matches!(end.state, State::Closed | State::Vanished);
        if self.streams.get(&stream).is_some_and(|stream| stream.ends.iter().all(over)) {
            self.streams.remove(&stream);
        }
    }
}

/// Takes `count` bytes off the front, shared.
fn take(chunks: &mut VecDeque<Bytes>, mut count: u64) -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(4);
    while count > 0 {
        let Some(first) = chunks.front_mut() else { break };
        if first.len() as u64 <= count {
            count -= first.len() as u64;
            parts.extend(chunks.pop_front());
        } else {
            parts.push(first.split_to(count as usize));
            break;
        }
    }
    parts
}

impl World {
    pub(super) fn connect(&mut self, host: usize, connection: ConnectionId, remote: SocketAddr) {
        let latency = self.latency(self.plan.hosts[host].address, remote.ip());
        let stream = self.streams.next;
        self.streams.next += 1;
        let acceptor = self.plan.host_at(remote.ip()).unwrap_or(usize::MAX);
        let ends = [
            End::new(host, connection, State::Dialling),
            End::new(acceptor, ConnectionId::accepted(0), State::Dialling),
        ];
        self.streams.streams.insert(stream, Stream { latency, remote, ends });
        if let Some(process) = &mut self.hosts[host].process {
            process.connections.insert(connection, (stream, Side::Dialler));
        }
        let to = if acceptor == usize::MAX { 0 } else { acceptor as u64 + 1 };
        self.watch.trace.event(self.now, host as u32 + 1, Kind::Connect, [u64::from(stream), to, 0]);
        self.at(self.now + latency, Event::Syn { stream });
    }

    pub(super) fn on_syn(&mut self, stream: u32) {
        let Some(this) = self.streams.streams.get(&stream) else { return };
        let (latency, port) = (this.latency, this.remote.port());
        let acceptor = this.ends[1].host;
        let error = match self.hosts.get(acceptor) {
            Some(host) if host.powered && self.is_listening(acceptor) && port == PEER_PORT => None,
            Some(host) if host.powered => Some(NetError::Refused),
            // Silence, until the system gives up.
            _ => {
                self.at(
                    self.now + SYSTEM_CONNECT_TIME,
                    Event::SynAnswer { stream, error: Some(NetError::TimedOut) },
                );
                return;
            }
        };
        self.at(self.now + latency, Event::SynAnswer { stream, error });
    }

    pub(super) fn on_syn_answer(&mut self, stream: u32, error: Option<NetError>) {
        let Some((latency, dialler, acceptor)) = self.streams.both(stream, Side::Dialler) else { return };
        if dialler.state != State::Dialling {
            // Given up meanwhile: nobody over there ever hears of it.
            self.streams.streams.remove(&stream);
            return;
        }
        let (host, connection) = (dialler.host, dialler.connection);
        if let Some(error) = error {
            self.streams.streams.remove(&stream);
            self.hang_up(host, connection, CloseReason::ConnectFailed(error));
            return;
        }
        dialler.state = State::Open;
        let to = acceptor.host;
        self.watch.trace.event(self.now, host as u32 + 1, Kind::Open, [u64::from(stream), to as u64 + 1, 0]);
        self.at(self.now + latency, Event::Accept { stream });
        let local = SocketAddr::new(self.plan.hosts[host].address, dialled_port(stream));
        self.step(host, Input::Connected { connection, local });
    }

    pub(super) fn on_accept(&mut self, stream: u32) {
        let Some((latency, acceptor, dialler)) = self.streams.both(stream, Side::Acceptor) else { return };
        let (host, remote_host) = (acceptor.host, dialler.host);
        let this = &mut self.hosts[host];
        let Some(process) = this.process.as_mut().filter(|process| !process.stopped) else {
            // The process died between the handshake and now.
            acceptor.clear(State::Closed);
            if this.powered {
                self.at(self.now + latency, Event::Reset { stream, side: Side::Dialler });
            }
            return;
        };
        let connection = ConnectionId::accepted(process.accepted_count);
        process.accepted_count += 1;
        process.connections.insert(connection, (stream, Side::Acceptor));
        (acceptor.connection, acceptor.state) = (connection, State::Open);
        self.watch.trace.event(
            self.now,
            host as u32 + 1,
            Kind::Open,
            [u64::from(stream), remote_host as u64 + 1, 1],
        );
        let remote = SocketAddr::new(self.plan.hosts[remote_host].address, dialled_port(stream));
        let dialler = self.streams.end(stream, Side::Dialler).map(|end| (end.host, end.connection));
        self.step(host, Input::Accepted { connection, remote });
        if let Some(dialler) = dialler {
            self.watch.on_paired(dialler, (host, connection));
        }
    }

    /// Sends what may be sent.
    pub(super) fn write(&mut self, stream: u32, side: Side) {
        let mut written = 0;
        while let Some(bytes) = self.send_segment(stream, side, false) {
            written += bytes;
        }
        self.tell_sent(stream, side, written);
    }

    fn tell_sent(&mut self, stream: u32, side: Side, written_bytes: u32) {
        if written_bytes == 0 {
            return;
        }
        let Some(end) = self.streams.end(stream, side) else { return };
        let (host, connection) = (end.host, end.connection);
        self.step(host, Input::Sent { connection, written_bytes });
    }

    /// Sends one segment, or queues for the uplink. `in_turn` is whether its turn there has come.
    fn send_segment(&mut self, stream: u32, side: Side, in_turn: bool) -> Option<u32> {
        let now = self.now;
        let (latency, end, other) = self.streams.both(stream, side)?;
        let bytes = end.may_send();
        if bytes == 0 || end.queued {
            return None;
        }
        let host = &mut self.hosts[end.host];
        let uplink = &mut host.uplink;
        if !in_turn && (!uplink.waiting.is_empty() || uplink.clock.backlog(now) > uplink.queue) {
            end.queued = true;
            uplink.waiting.push_back((stream, side));
            let number = end.host;
            self.arm_uplink(number);
            return None;
        }
        let departure = uplink.clock.book(now, bytes);
        end.in_flight += bytes;
        end.out_bytes -= bytes;
        end.write_grant -= bytes as i64;
        let segment = Segment { parts: take(&mut end.out, bytes), bytes: bytes as u32, is_last: false };
        let mut arrival = departure + latency;
        let mut lost = 0;
        if let Some((part, of)) = self.plan.loss {
            while lost < LOSSES_MAX && host.loss_rng.below(of) < part {
                arrival += (2 * latency + RETRANSMISSION_TIME) << lost;
                lost += 1;
            }
        }
        if arrival < host.silent_until {
            host.silenced += 1;
            arrival = host.silent_until;
        }
        arrival = arrival.max(other.last_arrival);
        other.last_arrival = arrival;
        let number = end.host as u32 + 1;
        if lost > 0 {
            end.on_lost();
            self.watch.trace.event(now, number, Kind::Lost, [u64::from(stream), bytes, u64::from(lost)]);
        }
        self.watch.trace.event(now, number, Kind::Segment, [u64::from(stream), bytes, departure - now]);
        self.at(arrival, Event::Arrive { stream, to: side.other(), segment });
        Some(bytes as u32)
    }

    fn arm_uplink(&mut self, host: usize) {
        let uplink = &mut self.hosts[host].uplink;
        if uplink.armed || uplink.waiting.is_empty() {
            return;
        }
        uplink.armed = true;
        let at = uplink.clock.free_at().saturating_sub(uplink.queue).max(self.now);
        self.at(at, Event::Uplink { host });
    }

    /// There is room on the way up: one segment for everybody in turn.
    pub(super) fn on_uplink(&mut self, host: usize) {
        self.hosts[host].uplink.armed = false;
        loop {
            let uplink = &mut self.hosts[host].uplink;
            if uplink.clock.backlog(self.now) > uplink.queue {
                break;
            }
            let Some((stream, side)) = uplink.waiting.pop_front() else { break };
            if let Some(end) = self.streams.end(stream, side) {
                end.queued = false;
            }
            let written = self.send_segment(stream, side, true).unwrap_or(0);
            // More of it waits behind the others.
            self.todo.push_back(Todo::Write(stream, side));
            self.tell_sent(stream, side, written);
            self.settle();
        }
        self.arm_uplink(host);
    }

    pub(super) fn on_arrive(&mut self, stream: u32, to: Side, segment: Segment) {
        let now = self.now;
        let Some((latency, end, _)) = self.streams.both(stream, to) else { return };
        let powered = self.hosts.get(end.host).is_some_and(|host| host.powered);
        match end.state {
            State::Open => {
                let at = self.hosts[end.host].downlink.book(now, u64::from(segment.bytes));
                self.at(at, Event::Deliver { stream, to, segment });
            }
            State::Closed => self.at(now + latency, Event::Reset { stream, side: to.other() }),
            State::Vanished if powered => self.at(now + latency, Event::Reset { stream, side: to.other() }),
            State::Vanished if !end.probed => {
                end.probed = true;
                self.at(now + PROBE_TIME, Event::Arrive { stream, to, segment });
            }
            State::Vanished if segment.bytes > 0 => {
                end.probed = false;
                self.at(now + PROBE_TIME, Event::Arrive { stream, to, segment });
            }
            State::Vanished | State::Dialling => {}
        }
    }

    pub(super) fn on_deliver(&mut self, stream: u32, to: Side, segment: Segment) {
        let Some((latency, end, _)) = self.streams.both(stream, to) else { return };
        match end.state {
            State::Open => {
                end.inbox_bytes += u64::from(segment.bytes);
                end.inbox.extend(segment.parts);
                end.end_of_stream |= segment.is_last;
                self.todo.push_back(Todo::Read(stream, to));
            }
            State::Closed => self.at(self.now + latency, Event::Reset { stream, side: to.other() }),
            State::Vanished | State::Dialling => {}
        }
    }

    /// Reads what may be read: each turn is one read of a reader task.
    pub(super) fn read(&mut self, stream: u32, side: Side) {
        let Some((latency, end, _)) = self.streams.both(stream, side) else { return };
        if end.state != State::Open || end.read_grant <= 0 {
            return;
        }
        let (host, connection) = (end.host, end.connection);
        let bytes = end.inbox_bytes.min(end.read_grant as u64).min(READ_BYTES_MAX);
        if bytes == 0 {
            if end.end_of_stream {
                self.end_by_system(stream, side);
                self.hang_up(host, connection, CloseReason::EndOfStream);
            }
            return;
        }
        end.inbox_bytes -= bytes;
        end.read_grant -= bytes as i64;
        let mut messages = Vec::new();
        let mut result = Ok(());
        for part in take(&mut end.inbox, bytes) {
            result = end.decoder.handle_bytes(part, &mut messages);
            if result.is_err() {
                break;
            }
        }
        self.watch.trace.event(
            self.now,
            host as u32 + 1,
            Kind::Read,
            [u64::from(stream), bytes, messages.len() as u64],
        );
        self.at(self.now + latency, Event::Ack { stream, side: side.other(), bytes: bytes as u32 });
        self.step(host, Input::Received { connection, read_bytes: bytes as u32, messages });
        if let Err(error) = result {
            self.end_by_system(stream, side);
            self.hang_up(host, connection, CloseReason::Wire(error));
            return;
        }
        self.todo.push_back(Todo::Read(stream, side));
    }

    pub(super) fn on_ack(&mut self, stream: u32, side: Side, bytes: u32) {
        let Some(end) = self.streams.end(stream, side) else { return };
        end.on_acknowledged(u64::from(bytes));
        self.todo.push_back(Todo::Write(stream, side));
    }

    pub(super) fn on_reset(&mut self, stream: u32, side: Side) {
        let Some(end) = self.streams.end(stream, side) else { return };
        let (host, connection, state) = (end.host, end.connection, end.state);
        end.clear(State::Closed);
        if let Some(end) = self.streams.end(stream, side.other())
            && end.state != State::Open
        {
            end.clear(State::Closed);
        }
        self.streams.forget_if_over(stream);
        if state == State::Open {
            self.watch.trace.event(self.now, host as u32 + 1, Kind::Close, [u64::from(stream), 2, 0]);
            self.hang_up(host, connection, CloseReason::Network(NetError::Reset));
        }
    }

    /// Our side is done with it: what is in flight still arrives, then the other side hears of the end.
    pub(super) fn end_by_system(&mut self, stream: u32, side: Side) {
        let now = self.now;
        let Some((latency, end, other)) = self.streams.both(stream, side) else { return };
        let (host, state, unread) = (end.host, end.state, end.inbox_bytes);
        end.clear(State::Closed);
        if state != State::Open {
            return;
        }
        let mut arrival = self.hosts[host].uplink.clock.book(now, 0) + latency;
        arrival = arrival.max(other.last_arrival).max(self.hosts[host].silent_until);
        other.last_arrival = arrival;
        self.watch.trace.event(
            now,
            host as u32 + 1,
            Kind::Close,
            [u64::from(stream), u64::from(unread > 0), 0],
        );
        if unread > 0 {
            self.at(arrival, Event::Reset { stream, side: side.other() });
        } else {
            let segment = Segment { parts: Vec::new(), bytes: 0, is_last: true };
            self.at(arrival, Event::Arrive { stream, to: side.other(), segment });
        }
        self.streams.forget_if_over(stream);
    }

    /// Tells an engine that a connection is gone, if it has not let go of it itself.
    fn hang_up(&mut self, host: usize, connection: ConnectionId, reason: CloseReason) {
        let process = self.hosts[host].process.as_mut();
        if process.is_some_and(|process| process.connections.remove(&connection).is_some()) {
            self.step(host, Input::Closed { connection, reason });
        }
    }
}

fn dialled_port(stream: u32) -> u16 {
    32_768 + (stream % 28_000) as u16
}

/// A write is cut into no more than this.
const SEGMENT_BYTES: u64 = 16 << 10;
const WINDOW_START: u64 = 32 << 10;
const WINDOW_MAX: u64 = 1 << 20;
const READ_BYTES_MAX: u64 = 256 << 10;
/// On top of a round trip, before a lost segment is sent again.
const RETRANSMISSION_TIME: u64 = 200_000_000;
const LOSSES_MAX: u32 = 6;
/// Between attempts to reach a machine that is off.
const PROBE_TIME: u64 = 1_000_000_000;
/// How long a system waits for an answer to its SYNs.
const SYSTEM_CONNECT_TIME: u64 = 127_000_000_000;
