//! How bytes of streams move: segments booked on both access links, a window that grows and halves, loss as delay, and
//! how streams end.
//!
//! A segment that is lost is sent again a round trip later where others after it tell of the loss, otherwise after a
//! time-out that doubles; what comes after it waits. Several losses of the same one end the stream with a time-out, of
//! which only the sending side knows. What was read is acknowledged; one acknowledgement stands for all before it, so
//! losing some costs nothing, but where none gets through the sender gives up in the same time.

use taipei_engine::input::{CloseReason, NetError};
use taipei_engine::{ConnectionId, Input};

use super::stream::{Hole, Mark, SEGMENT_BYTES, Segment, Side, State};
use super::{Event, Todo, World};
use crate::capture::Flag;
use crate::network::nat::Protocol;
use crate::trace::Kind;

/// What becomes of a packet of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    Through,
    Lost,
    /// The sender's own box does not know the stream any more.
    Unknown,
}

impl World {
    /// Whether what leaves a party now never comes to another.
    pub(super) fn is_lost(&mut self, from: usize, to: usize) -> bool {
        self.cuts.swallow(from, to) || self.senders[from].loses(self.now, &self.plan.net)
    }

    fn passage(&mut self, stream: u32, side: Side) -> Passage {
        match self.box_passage(stream, side) {
            Passage::Through => {}
            other => return other,
        }
        let Some(this) = self.streams.get(stream) else { return Passage::Lost };
        let (from, to) = (this.ends[side as usize].host, this.ends[side.other() as usize].host);
        if self.is_lost(from, to) { Passage::Lost } else { Passage::Through }
    }

    /// What the dialler's box does with a packet; that of the other side forwards its port for good.
    fn box_passage(&mut self, stream: u32, side: Side) -> Passage {
        let Some(this) = self.streams.get(stream) else { return Passage::Lost };
        let Some(nat) = this.nats[0] else { return Passage::Through };
        let (nat, now) = (&mut self.nats[nat], self.now);
        match side {
            Side::Dialler if nat.handle_more(now, this.local, this.remote) => Passage::Through,
            Side::Dialler => Passage::Unknown,
            Side::Acceptor => {
                let inner = nat.handle_in(now, Protocol::Tcp, this.remote, this.seen_as.port());
                if inner == Some(this.local) { Passage::Through } else { Passage::Lost }
            }
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
        let end = self.streams.end(stream, side)?;
        let bytes = end.may_send();
        if bytes == 0 || end.queued {
            return None;
        }
        let number = end.host;
        let host = &mut self.hosts[number];
        let uplink = &mut host.uplink;
        if !in_turn && (!uplink.waiting.is_empty() || uplink.clock.backlog(now) > uplink.queue) {
            end.queued = true;
            uplink.waiting.push_back((stream, side));
            self.arm_uplink(number);
            return None;
        }
        host.slowed += u64::from(host.is_slow);
        let departure = uplink.clock.book(now, bytes);
        let segment = end.take_segment(bytes);
        self.watch.trace.event(
            now,
            number as u32 + 1,
            Kind::Segment,
            [u64::from(stream), bytes, departure - now],
        );
        self.launch(stream, side, segment, departure);
        Some(bytes as u32)
    }

    /// Puts a segment that leaves at `departure` on its way, behind those before it.
    pub(super) fn launch(&mut self, stream: u32, side: Side, segment: Segment, departure: u64) {
        let Some(end) = self.streams.end(stream, side) else { return };
        if let Some(hole) = &mut end.hole {
            hole.hold(segment);
            return;
        }
        match self.passage(stream, side) {
            Passage::Through => self.carry(stream, side, segment, departure),
            Passage::Lost => {
                self.capture_segment(stream, side, &segment, departure);
                self.lose(stream, side, segment, departure);
            }
            Passage::Unknown => self.at(self.now + super::LOOPBACK_TIME, Event::Reset { stream, side }),
        }
    }

    fn carry(&mut self, stream: u32, side: Side, segment: Segment, departure: u64) {
        self.capture_segment(stream, side, &segment, departure);
        let Some((latency, end, other)) = self.streams.both(stream, side) else { return };
        let jitter = self.senders[end.host].jitter(&self.plan.net);
        let host = &mut self.hosts[end.host];
        let mut arrival = departure + latency + jitter;
        if arrival < host.silent_until {
            host.silenced += 1;
            arrival = host.silent_until;
        }
        arrival = arrival.max(other.last_arrival + 1);
        other.last_arrival = arrival;
        self.at(arrival, Event::Arrive { stream, to: side.other(), segment });
    }

    /// A segment that leaves at `departure` does not arrive: it is sent again.
    fn lose(&mut self, stream: u32, side: Side, segment: Segment, departure: u64) {
        let Some((latency, end, other)) = self.streams.both(stream, side) else { return };
        // What is under way behind it comes first, and waits over there.
        let all_there = other.last_arrival + 1;
        let trace = [u64::from(stream), u64::from(segment.bytes), 1];
        self.watch.trace.event(self.now, end.host as u32 + 1, Kind::Lost, trace);
        if let Some(hole) = &mut end.hole {
            hole.hold(segment);
            return;
        }
        end.hole = Some(Hole { tries: 0, held: [segment].into() });
        let told = end.in_flight >= TELLING_SEGMENTS * SEGMENT_BYTES;
        end.on_lost(!told);
        let wait = 2 * latency + if told { 0 } else { RETRANSMISSION_TIME };
        self.at((departure + wait).max(all_there), Event::Resend { stream, side });
    }

    /// It is time to send again what was lost, and then what waits behind it.
    pub(super) fn on_resend(&mut self, stream: u32, side: Side) {
        let now = self.now;
        let Some((latency, end, other)) = self.streams.both(stream, side) else { return };
        let (host, state) = (end.host, end.state);
        let asleep_until = self.hosts.get(other.host).map_or(0, |host| host.asleep_until);
        if asleep_until > now {
            // What came after it lies there unseen, and would be taken before it.
            self.at(asleep_until, Event::Resend { stream, side });
            return;
        }
        let Some(hole) = &mut end.hole else { return };
        hole.tries += 1;
        let tries = hole.tries;
        if state == State::Vanished || tries > RETRIES_MAX {
            end.hole = None;
            self.time_out(stream, side);
            return;
        }
        let bytes = hole.held.front().map_or(0, |segment| u64::from(segment.bytes));
        let departure = self.hosts[host].uplink.clock.book(now, bytes);
        let mut is_first = true;
        loop {
            let passage = self.passage(stream, side);
            let Some((_, end, other)) = self.streams.both(stream, side) else { return };
            // As in `lose`: what was sent again before it may be lost over there.
            let all_there = other.last_arrival + 1;
            let Some(hole) = &mut end.hole else { return };
            match passage {
                Passage::Through => {
                    let Some(segment) = hole.held.pop_front() else {
                        end.hole = None;
                        return;
                    };
                    self.carry(stream, side, segment, departure);
                }
                Passage::Lost => {
                    if hole.held.is_empty() {
                        end.hole = None;
                        return;
                    }
                    // Another one than before: those that got through tell of it.
                    let wait = if is_first {
                        (2 * latency + RETRANSMISSION_TIME) << tries
                    } else {
                        hole.tries = 0;
                        2 * latency
                    };
                    end.on_lost(is_first);
                    self.at((departure + wait).max(all_there), Event::Resend { stream, side });
                    return;
                }
                Passage::Unknown => {
                    end.hole = None;
                    self.at(now + super::LOOPBACK_TIME, Event::Reset { stream, side });
                    return;
                }
            }
            is_first = false;
        }
    }

    /// A side gives up: the other has not answered for too long.
    fn time_out(&mut self, stream: u32, side: Side) {
        let Some(end) = self.streams.end(stream, side) else { return };
        let (host, connection, state) = (end.host, end.connection, end.state);
        if state == State::Open {
            end.clear(State::Closed);
            self.watch.trace.event(self.now, host as u32 + 1, Kind::Close, [u64::from(stream), 3, 0]);
            self.streams.forget_if_over(stream);
            self.hang_up(host, connection, CloseReason::Network(NetError::TimedOut));
        }
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
        let Some((_, end, other)) = self.streams.both(stream, to) else { return };
        if segment.number > end.arrived_count + 1 {
            // One before it was lost; whoever remembers sends it again.
            if let Some(hole) = &mut other.hole {
                hole.hold(segment);
            }
            return;
        }
        let state = end.state;
        let Some(host) = self.hosts.get_mut(end.host) else { return };
        let is_lost = match state {
            State::Open => host.downlink.backlog(now) > host.queue_down,
            State::Closed => false,
            State::Vanished | State::Dialling => !host.powered,
        };
        if is_lost {
            self.lose(stream, to.other(), segment, now);
            return;
        }
        end.arrived_count = segment.number;
        match state {
            State::Open => {
                host.slowed += u64::from(host.is_slow);
                let at = host.downlink.book(now, u64::from(segment.bytes)).max(end.last_delivery + 1);
                end.last_delivery = at;
                self.at(at, Event::Deliver { stream, to, segment });
            }
            State::Dialling if segment.mark == Mark::Open => self.on_accept(stream),
            State::Closed | State::Vanished | State::Dialling => self.answer_with_reset(stream, to),
        }
    }

    /// A kernel knows nothing of a stream, and says so. Where that is lost, it is asked again by what comes next.
    pub(super) fn answer_with_reset(&mut self, stream: u32, side: Side) {
        let Some((latency, ..)) = self.streams.both(stream, side) else { return };
        self.capture_flag(stream, side, Flag::Reset);
        if self.passage(stream, side) == Passage::Through {
            self.at(self.now + latency, Event::Reset { stream, side: side.other() });
        }
    }

    pub(super) fn on_deliver(&mut self, stream: u32, to: Side, segment: Segment) {
        let Some(end) = self.streams.end(stream, to) else { return };
        match end.state {
            State::Open => {
                end.inbox_bytes += u64::from(segment.bytes);
                end.inbox.extend(segment.parts);
                end.end_of_stream |= segment.mark == Mark::Last;
                self.todo.push_back(Todo::Read(stream, to));
            }
            State::Closed => self.answer_with_reset(stream, to),
            State::Vanished | State::Dialling => {}
        }
    }

    /// Reads what may be read: each turn is one read of a reader task.
    pub(super) fn read(&mut self, stream: u32, side: Side) {
        let Some(end) = self.streams.end(stream, side) else { return };
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
        if self.plan.hosts[host].puppet.is_some() {
            let parts = super::stream::take(&mut end.inbox, bytes);
            self.watch.trace.event(self.now, host as u32 + 1, Kind::Read, [u64::from(stream), bytes, 0]);
            self.acknowledge(stream, side, bytes as u32);
            for part in parts {
                self.give_puppet(host, connection, part);
            }
            self.todo.push_back(Todo::Read(stream, side));
            return;
        }
        let mut messages = Vec::new();
        let mut result = Ok(());
        for part in super::stream::take(&mut end.inbox, bytes) {
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
        self.acknowledge(stream, side, bytes as u32);
        self.step(host, Input::Received { connection, read_bytes: bytes as u32, messages });
        if let Err(error) = result {
            self.end_by_system(stream, side);
            self.hang_up(host, connection, CloseReason::Wire(error));
            return;
        }
        self.todo.push_back(Todo::Read(stream, side));
    }

    /// Tells the sender of bytes that they were read.
    fn acknowledge(&mut self, stream: u32, side: Side, bytes: u32) {
        let Some((latency, end, _)) = self.streams.both(stream, side) else { return };
        end.unsaid_bytes += bytes;
        let is_waiting = end.unsaid_tries > 0;
        if !self.say_read(stream, side)
            && !is_waiting
            && let Some(end) = self.streams.end(stream, side)
        {
            end.unsaid_tries = 1;
            self.at(self.now + RETRANSMISSION_TIME + 2 * latency, Event::AckAgain { stream, side });
        }
    }

    /// The sender has asked again whether its bytes were read.
    pub(super) fn on_ack_again(&mut self, stream: u32, side: Side) {
        let Some((latency, end, _)) = self.streams.both(stream, side) else { return };
        let tries = end.unsaid_tries;
        if tries == 0 || self.say_read(stream, side) {
            return;
        }
        if tries > RETRIES_MAX {
            self.time_out(stream, side.other());
        } else if let Some(end) = self.streams.end(stream, side) {
            end.unsaid_tries += 1;
            let wait = (RETRANSMISSION_TIME + 2 * latency) << tries;
            self.at(self.now + wait, Event::AckAgain { stream, side });
        }
    }

    /// Says how much was read in all, unless nothing gets through. A chance loss is made up for by the next.
    fn say_read(&mut self, stream: u32, side: Side) -> bool {
        let Some((latency, end, other)) = self.streams.both(stream, side) else { return true };
        let (from, to) = (end.host, other.host);
        if self.cuts.swallow(from, to) || self.box_passage(stream, side) != Passage::Through {
            return false;
        }
        if let Some(end) = self.streams.end(stream, side) {
            end.unsaid_tries = 0;
            let bytes = std::mem::take(&mut end.unsaid_bytes);
            self.at(self.now + latency, Event::Ack { stream, side: side.other(), bytes });
            self.capture_read(stream, side, bytes);
        }
        true
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
        end.hole = None;
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
        let Some(end) = self.streams.end(stream, side) else { return };
        let (host, state, unread) = (end.host, end.state, end.inbox_bytes);
        end.clear(State::Closed);
        if state != State::Open {
            return;
        }
        let last = end.mark(Mark::Last);
        let departure = self.hosts[host].uplink.clock.book(now, 0);
        self.watch.trace.event(
            now,
            host as u32 + 1,
            Kind::Close,
            [u64::from(stream), u64::from(unread > 0), 0],
        );
        if unread > 0
            && let Some(end) = self.streams.end(stream, side)
        {
            end.hole = None;
        }
        if unread == 0 {
            self.launch(stream, side, last, departure);
        } else if self.passage(stream, side) == Passage::Through
            && let Some((latency, _, other)) = self.streams.both(stream, side)
        {
            let arrival = departure + latency;
            let arrival = arrival.max(other.last_arrival + 1).max(self.hosts[host].silent_until);
            other.last_arrival = arrival;
            self.at(arrival, Event::Reset { stream, side: side.other() });
        }
        self.streams.forget_if_over(stream);
    }

    /// Tells an engine that a connection is gone, if it has not let go of it itself.
    pub(super) fn hang_up(&mut self, host: usize, connection: ConnectionId, reason: CloseReason) {
        let process = self.hosts[host].process.as_mut();
        if process.is_some_and(|process| process.connections.remove(&connection).is_some()) {
            self.step(host, Input::Closed { connection, reason });
        }
    }
}

const READ_BYTES_MAX: u64 = 256 << 10;
/// On top of a round trip, before a lost segment is sent again; doubles with each try.
const RETRANSMISSION_TIME: u64 = 200_000_000;
/// Segments in flight whose acknowledgements tell of a loss before the time-out does.
const TELLING_SEGMENTS: u64 = 3;
/// How often one segment is sent again: 51 s in all, and as many doubled round trips.
const RETRIES_MAX: u32 = 7;
