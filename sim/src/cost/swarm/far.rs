//! A peer that sends what it is asked for, and the two ends of its connection on our side.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use taipei_engine::rng::Rng;
use taipei_engine::wire::{Message, Request, Stream};
use taipei_engine::{BlockData, ConnectionId};

use crate::cost::PIECES;

/// A peer.
pub(super) struct Far {
    pub(super) connection: ConnectionId,
    /// Of our reader task.
    pub(super) reader: Stream,
    pub(super) read_granted: u64,
    /// Of our writer task.
    writer: Stream,
    outbox: Vec<Message>,
    chunks: VecDeque<Bytes>,
    /// Messages that it was sent.
    pub(super) sent: u64,
    /// What it was asked for and did not send yet.
    asked: VecDeque<Request>,
    /// Bytes of the answer to the first of them that it sent.
    begun: usize,
    /// Whether we unchoked it.
    pub(super) is_served: bool,
}

impl Far {
    pub(super) fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            reader: Stream::default(),
            read_granted: 0,
            writer: Stream::default(),
            outbox: Vec::new(),
            chunks: VecDeque::new(),
            sent: 0,
            asked: VecDeque::new(),
            begun: 0,
            is_served: false,
        }
    }

    /// The first thing that our reader gets.
    pub(super) fn meet(&mut self, handshake: &Message) {
        let mut chunks = VecDeque::new();
        Stream::default().encode([handshake], &mut chunks);
        let mut messages = Vec::new();
        for chunk in chunks {
            self.reader.handle_bytes(chunk, &mut messages).expect("it is a handshake");
        }
        assert_eq!(messages, std::slice::from_ref(handshake), "it is read as it was sent");
    }

    /// Messages are to be sent to it. Whether they are the first since it was sent any.
    pub(super) fn queue(&mut self, messages: Vec<Message>) -> bool {
        let first = self.outbox.is_empty();
        if first {
            self.outbox = messages;
        } else {
            self.outbox.extend(messages);
        }
        first
    }

    /// Encodes what is to be sent, and takes it in. Gives its bytes, those of absent blocks too.
    pub(super) fn send(&mut self) -> u32 {
        self.writer.encode(&self.outbox, &mut self.chunks);
        self.sent += self.outbox.len() as u64;
        let mut bytes = self.chunks.drain(..).map(|chunk| chunk.len() as u32).sum();
        for message in self.outbox.drain(..) {
            match message {
                Message::Request(request) => self.asked.push_back(request),
                Message::Unchoke => self.is_served = true,
                Message::Choke => self.is_served = false,
                Message::Piece { data, .. } if data.parts().is_empty() => bytes += data.len(),
                _ => {}
            }
        }
        bytes
    }

    /// The next block that it was asked for, without bytes.
    pub(super) fn answer(&mut self) -> Option<Message> {
        let Request { piece, begin, length } = self.asked.pop_front()?;
        Some(Message::Piece { piece, begin, data: BlockData::absent(length) })
    }

    /// Puts the next bytes of its answers, so many of them at most, into a buffer, but for payload, where anything will do.
    /// Gives how many bytes.
    pub(super) fn fill(&mut self, buffer: &mut [u8], mut blocks: u64) -> usize {
        let mut done = 0;
        while done < buffer.len()
            && blocks > 0
            && let Some(request) = self.asked.front()
        {
            let whole = HEAD_BYTES + request.length as usize;
            if self.begun < HEAD_BYTES {
                let head = head(request);
                let part = &head[self.begun..];
                let count = part.len().min(buffer.len() - done);
                buffer[done..done + count].copy_from_slice(&part[..count]);
                (self.begun, done) = (self.begun + count, done + count);
            }
            let count = (whole - self.begun).min(buffer.len() - done);
            (self.begun, done) = (self.begun + count, done + count);
            if self.begun == whole {
                self.asked.pop_front();
                self.begun = 0;
                blocks -= 1;
            }
        }
        done
    }
}

/// What comes before the payload of a `piece` message (BEP 3).
fn head(request: &Request) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&(9 + request.length).to_be_bytes());
    head[4] = 7;
    head[5..9].copy_from_slice(&request.piece.to_be_bytes());
    head[9..].copy_from_slice(&request.begin.to_be_bytes());
    head
}

/// Memory that is read into, again when nobody uses it any more, as the driver keeps it: clearing it costs more than
/// all that is measured.
pub(super) struct Buffers {
    size: usize,
    kept: VecDeque<Bytes>,
}

impl Buffers {
    /// Of this size.
    pub(super) fn of(size: usize) -> Self {
        Self { size, kept: VecDeque::new() }
    }

    /// One with anything in it.
    pub(super) fn take(&mut self) -> BytesMut {
        for _ in 0..TRIES.min(self.kept.len()) {
            match self.kept.pop_front().map(Bytes::try_into_mut) {
                Some(Ok(free)) => return free,
                Some(Err(in_use)) => self.kept.push_back(in_use),
                None => break,
            }
        }
        BytesMut::zeroed(self.size)
    }

    /// Keeps it, and lends the first bytes of it out.
    pub(super) fn lend(&mut self, buffer: BytesMut, bytes: usize) -> Bytes {
        let whole = buffer.freeze();
        let read = whole.slice(..bytes);
        self.kept.push_back(whole);
        read
    }
}

/// What the peer of this number has at the beginning: half of all pieces, drawn, one bit each.
pub(super) fn drawn(peer: u64) -> Vec<u8> {
    let mut bits = vec![0; PIECES.div_ceil(8) as usize];
    Rng::stream(1, "cost peer", peer).fill(&mut bits);
    bits
}

/// Puts a piece into what somebody has; true if it was not there.
pub(super) fn gains(bits: &mut [u8], piece: u32) -> bool {
    let (byte, mask) = (piece as usize / 8, 0x80 >> (piece % 8));
    let new = bits[byte] & mask == 0;
    bits[byte] |= mask;
    new
}

/// Length, kind, piece and offset.
const HEAD_BYTES: usize = 13;
/// Kept buffers that are looked at before there is a new one.
const TRIES: usize = 4;
