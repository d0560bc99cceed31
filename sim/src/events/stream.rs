//! Streams between hosts: what both ends remember. How they come about is in `handshake`, how bytes move in `flow`.
//!
//! An end is `Dialling`, then `Open`, then `Closed` (we or the system ended it) or `Vanished` (the machine lost power and
//! its kernel knows nothing of it). Bytes go `out` -> segments in flight -> `inbox`, within the engine's grants at both
//! ends. What is in flight is what was sent and not yet read over there, so a reader without a grant stops its sender.
//! Segments of one direction arrive in order: one that is lost leaves a [`Hole`], and what comes after it waits there until
//! it was sent again.

use core::net::SocketAddr;
use std::collections::VecDeque;

use bytes::Bytes;
use taipei_engine::ConnectionId;
use taipei_engine::wire::{self, Message};

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// Something of a stream on its way.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its place among all of its direction.
    pub(super) number: u32,
    pub(super) mark: Mark,
    pub(super) bytes: u32,
    pub(super) parts: Vec<Bytes>,
}

/// What a segment says beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The third packet of the handshake.
    Open,
    /// Bytes.
    Data,
    /// Nothing comes after it.
    Last,
}

/// A segment that was lost, and those after it.
#[derive(Debug)]
pub(super) struct Hole {
    /// How often the first one was sent again.
    pub(super) tries: u32,
    /// In order.
    pub(super) held: VecDeque<Segment>,
}

impl Hole {
    /// Puts one where it belongs; nearly always that is the end.
    pub(super) fn hold(&mut self, segment: Segment) {
        let after = self.held.iter().rev().take_while(|held| held.number > segment.number).count();
        self.held.insert(self.held.len() - after, segment);
    }
}

/// All streams by number.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// In the order of dialling; those that are over leave a gap.
    streams: Vec<Option<Box<Stream>>>,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) latency: u64,
    /// From whom and to whom, as the dialler sees it.
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// From whom, as the acceptor sees it; another where a box translates.
    pub(super) seen_as: SocketAddr,
    /// The boxes at the two ends.
    pub(super) nats: [Option<usize>; 2],
    /// Whether the dialler knows what came of it.
    pub(super) answered: bool,
    /// Which process of the acceptor took the first packet.
    pub(super) asked: Option<u32>,
    pub(super) ends: [End; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Dialling,
    Open,
    Closed,
    Vanished,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) host: usize,
    pub(super) connection: ConnectionId,
    pub(super) state: State,
    encoder: wire::Stream,
    pub(super) decoder: wire::Stream,
    pub(super) out: VecDeque<Bytes>,
    pub(super) out_bytes: u64,
    /// Below zero when what was spent was then taken back.
    pub(super) write_grant: i64,
    pub(super) read_grant: i64,
    pub(super) in_flight: u64,
    window: u64,
    threshold: u64,
    pub(super) inbox: VecDeque<Bytes>,
    pub(super) inbox_bytes: u64,
    pub(super) end_of_stream: bool,
    pub(super) queued: bool,
    /// How many segments it sent.
    pub(super) sent_count: u32,
    /// How many of the other end's came here, all in order.
    pub(super) arrived_count: u32,
    /// What it sent and was lost.
    pub(super) hole: Option<Hole>,
    /// Nothing sent to this end arrives before this, nor is delivered before that.
    pub(super) last_arrival: u64,
    pub(super) last_delivery: u64,
    /// What it has read without being able to say so, and how often it was waited since.
    pub(super) unsaid_bytes: u32,
    pub(super) unsaid_tries: u32,
}

impl End {
    pub(super) fn new(host: usize, connection: ConnectionId) -> Self {
        Self {
            host,
            connection,
            state: State::Dialling,
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
            sent_count: 0,
            arrived_count: 0,
            hole: None,
            last_arrival: 0,
            last_delivery: 0,
            unsaid_bytes: 0,
            unsaid_tries: 0,
        }
    }

    /// Puts messages behind what waits to be sent.
    pub(super) fn encode(&mut self, messages: &[Message]) {
        let before = self.out.len();
        self.encoder.encode(messages, &mut self.out);
        self.out_bytes += self.out.iter().skip(before).map(|chunk| chunk.len() as u64).sum::<u64>();
    }

    /// Puts bytes, whatever they are, behind what waits to be sent.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.out_bytes += bytes.len() as u64;
        self.out.push_back(bytes);
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
    pub(super) fn may_send(&self) -> u64 {
        if self.state != State::Open {
            return 0;
        }
        let wanted = SEGMENT_BYTES.min(self.out_bytes).min(self.write_grant.max(0) as u64);
        let room = self.window.saturating_sub(self.in_flight);
        if room < wanted && self.in_flight > 0 { 0 } else { wanted.min(room) }
    }

    /// Takes the next segment to send; it is in flight from here on.
    pub(super) fn take_segment(&mut self, bytes: u64) -> Segment {
        self.in_flight += bytes;
        self.out_bytes -= bytes;
        self.write_grant -= bytes as i64;
        let parts = take(&mut self.out, bytes);
        Segment { parts, bytes: bytes as u32, ..self.mark(Mark::Data) }
    }

    /// A segment without bytes.
    pub(super) fn mark(&mut self, mark: Mark) -> Segment {
        self.sent_count += 1;
        Segment { number: self.sent_count, mark, bytes: 0, parts: Vec::new() }
    }

    /// A segment was lost: what may be in flight is halved, or begins anew where nothing after it told of the loss.
    pub(super) fn on_lost(&mut self, was_silent: bool) {
        self.threshold = (self.window / 2).max(WINDOW_START);
        self.window = if was_silent { WINDOW_START } else { self.threshold };
    }

    pub(super) fn on_acknowledged(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        let growth = if self.window < self.threshold { bytes } else { SEGMENT_BYTES * bytes / self.window };
        self.window = (self.window + growth).min(WINDOW_MAX);
    }

    pub(super) fn clear(&mut self, state: State) {
        self.state = state;
        self.out.clear();
        self.out_bytes = 0;
        self.inbox.clear();
        self.inbox_bytes = 0;
    }
}

impl Streams {
    /// The number that the next one will have.
    pub(super) fn next(&self) -> u32 {
        u32::try_from(self.streams.len()).expect("fewer streams than events")
    }

    pub(super) fn add(&mut self, stream: Stream) {
        self.streams.push(Some(Box::new(stream)));
    }

    pub(super) fn get(&self, stream: u32) -> Option<&Stream> {
        self.streams.get(stream as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, stream: u32) -> Option<&mut Stream> {
        self.streams.get_mut(stream as usize)?.as_deref_mut()
    }

    pub(super) fn forget(&mut self, stream: u32) {
        if let Some(place) = self.streams.get_mut(stream as usize) {
            *place = None;
        }
    }

    pub(super) fn end(&mut self, stream: u32, side: Side) -> Option<&mut End> {
        self.get_mut(stream).map(|stream| &mut stream.ends[side as usize])
    }

    pub(super) fn both(&mut self, stream: u32, side: Side) -> Option<(u64, &mut End, &mut End)> {
        let stream = self.get_mut(stream)?;
        let [dialler, acceptor] = &mut stream.ends;
        Some(match side {
            Side::Dialler => (stream.latency, dialler, acceptor),
            Side::Acceptor => (stream.latency, acceptor, dialler),
        })
    }

    /// The machine at an end; none for a stream that is over, or where nobody is.
    pub(super) fn host(&self, stream: u32, side: Side) -> Option<usize> {
        self.get(stream).map(|stream| stream.ends[side as usize].host)
    }

    pub(super) fn is_open(&self, stream: u32, side: Side) -> bool {
        self.get(stream).is_some_and(|stream| stream.ends[side as usize].state == State::Open)
    }

    /// The machine at this end has lost power.
    pub(super) fn vanish(&mut self, stream: u32, side: Side) {
        if let Some(end) = self.end(stream, side) {
            end.clear(State::Vanished);
            end.hole = None;
        }
        self.forget_if_over(stream);
    }

    pub(super) fn forget_if_over(&mut self, stream: u32) {
        let over = |end: &End| matches!(end.state, State::Closed | State::Vanished);
        if self.get(stream).is_some_and(|stream| stream.ends.iter().all(over)) {
            self.forget(stream);
        }
    }
}

/// Takes `count` bytes off the front, shared.
pub(super) fn take(chunks: &mut VecDeque<Bytes>, mut count: u64) -> Vec<Bytes> {
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

/// A write is cut into no more than this.
pub(super) const SEGMENT_BYTES: u64 = 16 << 10;
const WINDOW_START: u64 = 32 << 10;
const WINDOW_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_keeps_the_order_of_sending() {
        let segment = |number| Segment { number, mark: Mark::Data, bytes: 0, parts: Vec::new() };
        let mut hole = Hole { tries: 0, held: VecDeque::new() };
        for number in [4, 5, 2, 3, 6, 1] {
            hole.hold(segment(number));
        }
        let order: Vec<u32> = hole.held.iter().map(|segment| segment.number).collect();
        assert_eq!(order, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_window_halves_on_a_loss_that_is_told_and_begins_anew_on_one_that_is_not() {
        let mut end = End::new(0, ConnectionId::accepted(0));
        for _ in 0..100 {
            end.on_acknowledged(64 << 10);
        }
        assert_eq!(end.window, WINDOW_MAX);
        end.on_lost(false);
        assert_eq!(end.window, WINDOW_MAX / 2);
        end.on_lost(true);
        assert_eq!((end.window, end.threshold), (WINDOW_START, WINDOW_MAX / 4));
    }
}
