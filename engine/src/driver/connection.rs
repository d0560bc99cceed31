//! A connection's two tasks: one reads and frames, one frames and writes, both within their grants.
//!
//! A reader hands over everything that one read gave as one input; a writer says what it wrote once per write. Nothing
//! is read or written without a grant.
#![allow(
    clippy::disallowed_types,
    reason = "owner and tasks share a queue and two counts; the lock is never held across a wait"
)]

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc, oneshot};

use super::doors::Connection;
use super::net_error;
use super::read_buffers::{Kept, ReadBuffer};
use crate::ids::ConnectionId;
use crate::input::{CloseReason, Input, NetError};
use crate::wire::{Message, Stream};

/// What tasks tell the owner.
#[derive(Debug)]
pub(super) enum Event<R, W> {
    /// Somebody connected to us. The next one is accepted when the other end of the channel is dropped.
    Accepted(Connection<R, W>, oneshot::Sender<()>),
    /// A dial succeeded.
    Connected(ConnectionId, Connection<R, W>),
    /// Anything that the engine can be told as it is.
    Input(Input),
}

/// What the owner tells a connection's tasks: grants, and what to send.
#[derive(Clone, Debug, Default)]
pub(super) struct Channel(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Bytes that may be read, since the connection began.
    read_granted: AtomicU64,
    /// A read grant came.
    may_read: Notify,
    outbox: Mutex<Outbox>,
    /// A message or a write grant came.
    may_write: Notify,
}

#[derive(Debug, Default)]
struct Outbox {
    messages: VecDeque<Message>,
    /// Bytes that may be written, since the connection began.
    write_granted: u64,
}

impl Channel {
    /// Lets the reader read this many more bytes.
    pub(super) fn grant_read(&self, bytes: u64) {
        if bytes > 0 {
            let granted = self.0.read_granted.load(Ordering::Relaxed);
            self.0.read_granted.store(granted.saturating_add(bytes), Ordering::Release);
            self.0.may_read.notify_one();
        }
    }

    /// Takes back unspent grants. A task that has spent more meanwhile waits until grants have caught up.
    pub(super) fn revoke(&self, read_bytes: u64, write_bytes: u64) {
        let granted = self.0.read_granted.load(Ordering::Relaxed);
        self.0.read_granted.store(granted.saturating_sub(read_bytes), Ordering::Release);
        let mut outbox = self.outbox();
        outbox.write_granted = outbox.write_granted.saturating_sub(write_bytes);
    }

    /// Gives the writer messages and lets it write this many more bytes. How many messages wait now.
    pub(super) fn send(&self, messages: &mut Vec<Message>, bytes: u64) -> usize {
        if messages.is_empty() && bytes == 0 {
            return 0;
        }
        let mut outbox = self.outbox();
        outbox.messages.extend(messages.drain(..));
        outbox.write_granted = outbox.write_granted.saturating_add(bytes);
        let waiting = outbox.messages.len();
        drop(outbox);
        self.0.may_write.notify_one();
        waiting
    }

    /// Waits until more than `spent` may be read; how much more.
    async fn read_grant(&self, spent: u64) -> u64 {
        loop {
            let granted = self.0.read_granted.load(Ordering::Acquire);
            if granted > spent {
                return granted - spent;
            }
            self.0.may_read.notified().await;
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads until the connection ends; that is then told, once.
pub(super) async fn read<R: AsyncRead + Unpin, W>(
    connection: ConnectionId,
    mut reader: R,
    channel: Channel,
    events: mpsc::Sender<Event<R, W>>,
    kept: Kept,
) {
    let mut stream = Stream::default();
    let mut buffer = ReadBuffer::new(kept);
    let mut spent = 0;
    let reason = loop {
        let grant = channel.read_grant(spent).await;
        let read_bytes = match buffer.fill(&mut reader, grant).await {
            Ok(0) => break CloseReason::EndOfStream,
            Ok(bytes) => bytes,
            Err(error) => break CloseReason::Network(net_error(&error)),
        };
        spent += u64::from(read_bytes);
        let mut messages = Vec::with_capacity(MESSAGES_PER_READ);
        let result = stream.handle_bytes(buffer.take(), &mut messages);
        let received = Input::Received { connection, read_bytes, messages };
        if events.send(Event::Input(received)).await.is_err() {
            return;
        }
        if let Err(error) = result {
            break CloseReason::Wire(error);
        }
    };
    let _ = events.send(Event::Input(Input::Closed { connection, reason })).await;
}

/// Writes until the connection ends; when it is the one to notice, it says so.
pub(super) async fn write<R, W: AsyncWrite + Unpin>(
    connection: ConnectionId,
    mut writer: W,
    channel: Channel,
    events: mpsc::Sender<Event<R, W>>,
) {
    let mut report = Report { connection, events, bytes: 0 };
    if let Err(reason) = write_all(&mut writer, &channel, &mut report).await {
        report.settle().await;
        let _ = report.events.send(Event::Input(Input::Closed { connection, reason })).await;
    }
}

async fn write_all<R, W: AsyncWrite + Unpin>(
    writer: &mut W,
    channel: &Channel,
    report: &mut Report<R, W>,
) -> Result<(), CloseReason> {
    let mut stream = Stream::default();
    let mut messages = Vec::new();
    let mut chunks = VecDeque::new();
    let mut spent = 0;
    loop {
        let grant = {
            let mut outbox = channel.outbox();
            let grant = outbox.write_granted.saturating_sub(spent);
            if grant > 0 && chunks.is_empty() {
                let count = outbox.messages.len().min(MESSAGES_PER_WRITE);
                messages.extend(outbox.messages.drain(..count));
            }
            grant
        };
        stream.encode(&messages, &mut chunks);
        messages.clear();
        if grant == 0 || chunks.is_empty() {
            writer.flush().await.map_err(|error| CloseReason::Network(net_error(&error)))?;
            if !report.settle().await {
                return Ok(());
            }
            channel.0.may_write.notified().await;
            continue;
        }
        let written = write_once(writer, &chunks, grant).await?;
        consume(&mut chunks, written);
        spent += written as u64;
        report.add(written);
    }
}

/// One write of what is next, at most `grant` bytes.
async fn write_once<W: AsyncWrite + Unpin>(
    writer: &mut W,
    chunks: &VecDeque<Bytes>,
    grant: u64,
) -> Result<usize, CloseReason> {
    let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
    let mut room = usize::try_from(grant).unwrap_or(usize::MAX);
    let mut count = 0;
    for (slice, chunk) in slices.iter_mut().zip(chunks) {
        if room == 0 {
            break;
        }
        let part = chunk.get(..room).unwrap_or(chunk);
        *slice = IoSlice::new(part);
        room -= part.len();
        count += 1;
    }
    match writer.write_vectored(&slices[..count]).await {
        Ok(0) => Err(CloseReason::Network(NetError::Reset)),
        Ok(written) => Ok(written),
        Err(error) => Err(CloseReason::Network(net_error(&error))),
    }
}

fn consume(chunks: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = chunks.front_mut() {
        if written < first.len() {
            first.advance(written);
            return;
        }
        written -= first.len();
        chunks.pop_front();
    }
    assert_eq!(written, 0, "no more is written than there was");
}

/// Bytes written that the owner was not told of yet.
struct Report<R, W> {
    connection: ConnectionId,
    events: mpsc::Sender<Event<R, W>>,
    bytes: u32,
}

impl<R, W> Report<R, W> {
    /// Tells the owner now if it has room, else with the next bytes.
    fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if let Ok(permit) = self.events.try_reserve() {
            permit.send(Event::Input(Input::Sent { connection: self.connection, written_bytes: self.bytes }));
            self.bytes = 0;
        }
    }

    /// Tells the owner for sure, before a wait. Whether it is still there.
    async fn settle(&mut self) -> bool {
        if self.bytes == 0 {
            return true;
        }
        let sent = Input::Sent { connection: self.connection, written_bytes: self.bytes };
        self.bytes = 0;
        self.events.send(Event::Input(sent)).await.is_ok()
    }
}

/// Room for the messages of a read, before it must grow.
const MESSAGES_PER_READ: usize = 4;
/// Messages framed at once: 32 blocks fill a write.
const MESSAGES_PER_WRITE: usize = 32;
/// Slices given to one write; a block has two.
const SLICES_PER_WRITE: usize = 64;
/// Messages to a peer that reads nothing. Blocks are bounded by the engine; these are *have* mostly.
pub(super) const MESSAGES_WAITING_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, DuplexStream, ReadHalf, WriteHalf};

    use super::*;
    use crate::block::BlockData;
    use crate::driver::task::Task;
    use crate::ids::{InfoHash, PeerId};
    use crate::wire::{Handshake, Reserved, WireError};

    type TestEvent = Event<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

    struct Fixture {
        channel: Channel,
        events: mpsc::Receiver<TestEvent>,
        other: DuplexStream,
        _tasks: [Task; 2],
    }

    fn fixture(events_max: usize) -> Fixture {
        let (ours, other) = tokio::io::duplex(1 << 20);
        let (reader, writer) = tokio::io::split(ours);
        let (sender, events) = mpsc::channel(events_max);
        let channel = Channel::default();
        let id = ConnectionId::dialled(0);
        let _tasks = [
            Task::spawn(read(id, reader, channel.clone(), sender.clone(), Kept::default())),
            Task::spawn(write(id, writer, channel.clone(), sender)),
        ];
        Fixture { channel, events, other, _tasks }
    }

    impl Fixture {
        async fn next(&mut self) -> Input {
            match self.events.recv().await {
                Some(Event::Input(input)) => input,
                other => panic!("{other:?}"),
            }
        }

        /// Everything that tasks can do now is done.
        async fn settle(&self) {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn handshake() -> Message {
        let reserved = Reserved::OURS;
        Message::Handshake(Handshake { reserved, info_hash: InfoHash([1; 20]), peer_id: PeerId([2; 20]) })
    }

    fn block(piece: u32) -> Message {
        Message::Piece { piece, begin: 0, data: BlockData::from(Bytes::from(vec![piece as u8; 1 << 14])) }
    }

    fn encoded(messages: &[Message]) -> Vec<u8> {
        let mut chunks = VecDeque::new();
        Stream::default().encode(messages, &mut chunks);
        chunks.iter().flatten().copied().collect()
    }

    #[tokio::test]
    async fn one_read_is_one_input_within_its_grant() {
        let mut fixture = fixture(16);
        let sent = [handshake(), Message::Unchoke, block(1), Message::Have(7)];
        let bytes = encoded(&sent);
        fixture.other.write_all(&bytes).await.unwrap();
        fixture.settle().await;
        assert!(fixture.events.try_recv().is_err(), "nothing is read without a grant");

        fixture.channel.grant_read(70);
        let Input::Received { read_bytes: 70, messages, .. } = fixture.next().await else { panic!() };
        assert_eq!(messages, sent[..1]);
        fixture.channel.grant_read(u64::MAX);
        let mut read = 70;
        let mut received = messages;
        while read < bytes.len() {
            let Input::Received { read_bytes, messages, .. } = fixture.next().await else { panic!() };
            read += read_bytes as usize;
            received.extend(messages);
        }
        assert_eq!((read, received.as_slice()), (bytes.len(), sent.as_slice()));
    }

    #[tokio::test]
    async fn messages_before_nonsense_are_handed_over() {
        let mut fixture = fixture(16);
        fixture.channel.grant_read(1 << 20);
        let mut bytes = encoded(&[handshake(), Message::Choke]);
        bytes.extend([0xff; 5]);
        fixture.other.write_all(&bytes).await.unwrap();
        let Input::Received { messages, .. } = fixture.next().await else { panic!() };
        assert_eq!(messages, [handshake(), Message::Choke]);
        let Input::Closed { reason, .. } = fixture.next().await else { panic!() };
        assert!(matches!(reason, CloseReason::Wire(WireError::Length { .. })), "{reason}");
    }

    #[tokio::test]
    async fn the_end_is_told_once() {
        let Fixture { channel, mut events, other, _tasks } = fixture(16);
        channel.grant_read(1);
        drop(other);
        let Some(Event::Input(Input::Closed { reason, .. })) = events.recv().await else { panic!() };
        assert_eq!(reason, CloseReason::EndOfStream);
    }

    #[tokio::test]
    async fn writes_stay_within_their_grant_and_are_reported() {
        let mut fixture = fixture(16);
        let messages = [handshake(), block(1), block(2), Message::Interested];
        let expected = encoded(&messages);
        fixture.channel.send(&mut messages.to_vec(), 0);
        fixture.settle().await;
        assert!(fixture.events.try_recv().is_err(), "nothing is written without a grant");

        fixture.channel.send(&mut Vec::new(), 100);
        let Input::Sent { written_bytes: 100, .. } = fixture.next().await else { panic!() };
        fixture.channel.send(&mut Vec::new(), u64::MAX);
        let mut written = 100;
        while written < expected.len() {
            let Input::Sent { written_bytes, .. } = fixture.next().await else { panic!() };
            written += written_bytes as usize;
        }
        let mut received = vec![0; expected.len()];
        fixture.other.read_exact(&mut received).await.unwrap();
        assert_eq!((written, received), (expected.len(), expected));
    }

    #[tokio::test]
    async fn what_is_taken_back_is_neither_read_nor_written() {
        let mut fixture = fixture(16);
        fixture.channel.grant_read(1000);
        fixture.channel.send(&mut vec![handshake()], u64::MAX / 2);
        let Input::Sent { written_bytes: 68, .. } = fixture.next().await else { panic!() };
        fixture.channel.revoke(1000, u64::MAX / 2 - 68);
        fixture.channel.send(&mut vec![block(1)], 0);
        fixture.other.write_all(&encoded(&[handshake()])).await.unwrap();
        // The read under way had its grant; what it took is owed.
        let Input::Received { read_bytes: 68, .. } = fixture.next().await else { panic!() };
        fixture.other.write_all(&encoded(&[Message::Choke, Message::Have(1)])[..]).await.unwrap();
        fixture.settle().await;
        assert!(fixture.events.try_recv().is_err(), "nothing without a grant");
        fixture.channel.grant_read(68);
        fixture.settle().await;
        assert!(fixture.events.try_recv().is_err(), "the debt is paid first");
        fixture.channel.send(&mut Vec::new(), 100);
        let Input::Sent { written_bytes: 100, .. } = fixture.next().await else { panic!() };
        fixture.channel.grant_read(5);
        let Input::Received { read_bytes: 5, .. } = fixture.next().await else { panic!() };
    }

    #[tokio::test]
    async fn an_owner_without_room_gets_one_report_for_many_writes() {
        let mut fixture = fixture(1);
        let mut total = 0;
        for piece in 0..5 {
            let messages = [block(piece)];
            total += encoded(&messages).len() as u64;
            fixture.channel.send(&mut messages.to_vec(), 1 << 15);
            fixture.settle().await;
        }
        let mut reports = Vec::new();
        while reports.iter().sum::<u64>() < total {
            let Input::Sent { written_bytes, .. } = fixture.next().await else { panic!() };
            reports.push(u64::from(written_bytes));
        }
        assert_eq!(reports.iter().sum::<u64>(), total);
    }
}
