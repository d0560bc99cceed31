//! An engine with one torrent among peers that say anything in any order, in bytes: it is fetched, served, found by a
//! magnet link; disks fail, hashes are wrong, connections end, time passes.
//!
//! It never panics, has no piece whose hash was never right, and asks for nothing beyond the torrent.
#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use taipei_engine::disk::{
    JobResult, Opened, PieceHash, Saved, StorageError, StorageErrorKind, Totals, Work, Written,
};
use taipei_engine::input::{CloseReason, NetError};
use taipei_engine::metainfo::{Metainfo, PathRules};
use taipei_engine::wire::{Handshake, Message, MetadataMessage, Request, Reserved, Stream};
use taipei_engine::{
    AddTorrent, Bitfield, BlockData, Command, Config, ConnectionId, Engine, InfoHash, Input, Instant, JobId,
    Output, PeerId, StartValues, TorrentId,
};

const TORRENT: TorrentId = TorrentId(0);
const PIECES: u32 = 3;
/// Two blocks a piece, and a last block that is short.
const PIECE_BYTES: u32 = 32_768;
const TOTAL_BYTES: u32 = 3 * PIECE_BYTES - 5;
/// What stands around the info dictionary in a torrent file that has nothing else.
const AROUND: (usize, usize) = (b"d4:info".len(), b"e".len());

struct World {
    engine: Engine,
    now: Instant,
    torrent_file: Bytes,
    info_hash: InfoHash,
    /// Each with what came of it so far, and what it was asked for.
    open: BTreeMap<ConnectionId, (Stream, Vec<Message>)>,
    dialled: VecDeque<ConnectionId>,
    accepted: u64,
    jobs: VecDeque<(JobId, Work)>,
    /// Pieces that may be had: were trusted when it was opened, or had the right hash since.
    good: Bitfield,
}

impl World {
    fn new(magnet: bool, peers: Vec<SocketAddr>) -> Option<Self> {
        let head =
            format!("d4:infod6:lengthi{TOTAL_BYTES}e4:name1:x12:piece lengthi{PIECE_BYTES}e6:pieces60:");
        let torrent_file = Bytes::from([head.as_bytes(), &[b'h'; 60], b"ee"].concat());
        let info_hash = Metainfo::parse(&torrent_file, PathRules::Unix).ok()?.info_hashes.v1?;
        let mut add = if magnet {
            AddTorrent::magnet(TORRENT, format!("magnet:?xt=urn:btih:{info_hash}"), "out".into())
        } else {
            AddTorrent::new(TORRENT, torrent_file.clone(), "out".into())
        };
        add.peers = peers;
        let start = StartValues { seed: 1, boot_id: [0; 16], wall_seconds: 0 };
        let mut world = Self {
            engine: Engine::new(Config::default(), start),
            now: Instant(1),
            torrent_file,
            info_hash,
            open: BTreeMap::new(),
            dialled: VecDeque::new(),
            accepted: 0,
            jobs: VecDeque::new(),
            good: Bitfield::new(PIECES),
        };
        world.input(Input::Listening { port: 6881, families: (true, true) });
        world.input(Input::Command(Command::AddTorrent(Box::new(add))));
        Some(world)
    }

    fn input(&mut self, input: Input) {
        self.engine.handle_input(self.now, input);
        let mut sent = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Connect { connection, .. } => self.dialled.push_back(connection),
                Output::Close { connection } => {
                    self.open.remove(&connection);
                    self.dialled.retain(|dialled| *dialled != connection);
                }
                Output::Job { job, work } => self.jobs.push_back((job, work.work)),
                Output::Send { connection, messages } => sent.push((connection, messages)),
                _ => {}
            }
        }
        if let Some(have) = self.engine.have(TORRENT) {
            assert!(have.iter().all(|piece| self.good.has(piece)), "a piece without a hash");
        }
        for (connection, messages) in sent {
            let mut written_bytes = 0;
            for message in &messages {
                match message {
                    Message::Request(Request { piece, begin, length }) => {
                        assert!(*piece < PIECES && begin + length <= PIECE_BYTES);
                        assert!(piece * PIECE_BYTES + begin + length <= TOTAL_BYTES);
                    }
                    Message::Piece { data, .. } => written_bytes += data.len(),
                    _ => {}
                }
            }
            let Some((_, asked)) = self.open.get_mut(&connection) else { continue };
            asked.extend(messages);
            if written_bytes > 0 {
                self.input(Input::Sent { connection, written_bytes });
            }
        }
    }

    fn say(&mut self, connection: ConnectionId, bytes: &[u8]) {
        let Some((stream, _)) = self.open.get_mut(&connection) else { return };
        let mut messages = Vec::new();
        let result = stream.handle_bytes(Bytes::copy_from_slice(bytes), &mut messages);
        self.input(Input::Received { connection, read_bytes: bytes.len() as u32, messages });
        if let Err(error) = result
            && self.open.remove(&connection).is_some()
        {
            self.input(Input::Closed { connection, reason: CloseReason::Wire(error) });
        }
    }

    fn say_message(&mut self, connection: ConnectionId, message: Message) {
        let mut chunks = VecDeque::new();
        Stream::default().encode(&[message], &mut chunks);
        self.say(connection, &chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect::<Vec<u8>>());
    }

    fn greet(&mut self, connection: ConnectionId, how: u8) {
        let reserved = [Reserved::OURS, Reserved::OURS_WITH_DHT, Reserved([0; 8])][usize::from(how % 3)];
        let peer_id = PeerId([how; 20]);
        self.open.insert(connection, (Stream::default(), Vec::new()));
        self.say_message(
            connection,
            Message::Handshake(Handshake { reserved, info_hash: self.info_hash, peer_id }),
        );
    }

    /// An answer, as it should be, to what a connection was asked for first.
    fn answer(&mut self, connection: ConnectionId) {
        let Some((_, asked)) = self.open.get_mut(&connection) else { return };
        if asked.is_empty() {
            return;
        }
        match asked.remove(0) {
            Message::Request(Request { piece, begin, length }) => {
                let data = BlockData::absent(length);
                let messages = vec![Message::Piece { piece, begin, data }];
                self.input(Input::Received { connection, read_bytes: length + 13, messages });
            }
            Message::Extended { payload, .. } => {
                let Some(MetadataMessage::Request { block: 0 }) = MetadataMessage::decode(&payload) else {
                    return;
                };
                let data = self.torrent_file.slice(AROUND.0..self.torrent_file.len() - AROUND.1);
                let payload = MetadataMessage::Data { block: 0, total_bytes: None, data }.encode();
                self.say_message(connection, Message::Extended { id: 1, payload });
            }
            _ => {}
        }
    }

    /// The first job comes to its end; `how` is a bit for each thing that may go wrong.
    fn work(&mut self, how: u8) {
        let Some((job, work)) = self.jobs.pop_front() else { return };
        let failed = how & 1 != 0;
        let error = || StorageError { path: "out/x".into(), kind: StorageErrorKind::Full };
        let done = || if failed { Err(error()) } else { Ok(()) };
        let result = match work {
            Work::Open { .. } => {
                let have = if how & 2 != 0 { Bitfield::full(PIECES) } else { Bitfield::new(PIECES) };
                let unchecked = if how & 6 == 4 { Bitfield::full(PIECES) } else { Bitfield::new(PIECES) };
                if !failed {
                    self.good = have.clone();
                }
                let saved = match how & 14 {
                    6 => Saved::AsClosed,
                    how if how & 8 == 0 => Saved::Begun,
                    _ => Saved::Nowhere,
                };
                let opened = Opened { have, unchecked, totals: Totals::default(), saved };
                JobResult::Opened(done().map(|()| opened))
            }
            Work::LoadMetadata => JobResult::MetadataLoaded(None),
            Work::SaveMetadata { .. } => JobResult::MetadataSaved(done()),
            Work::Check { pieces } => {
                let good = how & 2 == 0;
                for piece in pieces.iter().filter(|_| good && !failed) {
                    self.good.set(*piece);
                }
                JobResult::Checked(done().map(|()| vec![good; pieces.len()]))
            }
            Work::Allocate { .. } => JobResult::Allocated(done()),
            Work::Write { .. } => JobResult::Written(done().map(|()| Written::default())),
            Work::Hash { pieces } => {
                let good = how & 2 == 0;
                for hash in pieces.iter().filter(|_| good && !failed) {
                    self.good.set(hash.piece);
                }
                let hash = || PieceHash { good, digests: Vec::new() };
                JobResult::Hashed(done().map(|()| pieces.iter().map(|_| hash()).collect()))
            }
            Work::Read { blocks } => {
                assert!(blocks.iter().all(|block| self.good.has(block.piece)), "what is not there");
                let data = blocks.iter().map(|block| BlockData::absent(block.length)).collect();
                JobResult::Read(done().map(|()| data))
            }
            Work::Record { .. } => JobResult::Recorded(done()),
            Work::Snapshot { .. } => JobResult::Saved(done()),
            Work::Close => JobResult::Closed,
            Work::Look => JobResult::Looked(done().map(|()| Vec::new())),
        };
        self.input(Input::JobDone { job, result });
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..300 {
            let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
        self.now = end;
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&head, mut rest)) = data.split_first() else { return };
    let peers = (1..=head & 3).map(address).collect();
    let Some(mut world) = World::new(head & 4 != 0, peers) else { return };
    for _ in 0..200 {
        let Some((&[what, whose, how], more)) = rest.split_first_chunk::<3>() else { break };
        rest = more;
        let nth = usize::from(whose) % world.open.len().max(1);
        let connection = world.open.keys().nth(nth).copied();
        match (what % 9, connection) {
            (0, _) => {
                let connection = ConnectionId::accepted(world.accepted);
                world.accepted += 1;
                world.open.insert(connection, (Stream::default(), Vec::new()));
                world.input(Input::Accepted { connection, remote: address(whose) });
                if world.open.contains_key(&connection) {
                    world.greet(connection, how);
                }
            }
            (1, _) => {
                let Some(connection) = world.dialled.pop_front() else { continue };
                if whose.is_multiple_of(4) {
                    let reason = CloseReason::ConnectFailed(NetError::Refused);
                    world.input(Input::Closed { connection, reason });
                } else {
                    world.open.insert(connection, (Stream::default(), Vec::new()));
                    world.input(Input::Connected { connection, local: address(200) });
                    if world.open.contains_key(&connection) {
                        world.greet(connection, how);
                    }
                }
            }
            (2, Some(connection)) => {
                let (bytes, after) = rest.split_at(rest.len().min(usize::from(how)));
                rest = after;
                world.say(connection, bytes);
            }
            (3, Some(connection)) => {
                let (body, after) = rest.split_at(rest.len().min(usize::from(how)));
                rest = after;
                world.say(connection, &[&(body.len() as u32).to_be_bytes(), body].concat());
            }
            (4, Some(connection)) => (0..how % 16).for_each(|_| world.answer(connection)),
            (5, Some(connection)) => {
                world.open.remove(&connection);
                world.input(Input::Closed { connection, reason: CloseReason::EndOfStream });
            }
            (6, _) => world.work(how),
            (7, _) => world.pass(Duration::from_millis(u64::from(whose) * u64::from(how))),
            (8, _) => {
                let peers = vec![address(how)];
                world.input(Input::Command(Command::AddPeers { torrent: TORRENT, peers }));
            }
            _ => {}
        }
    }
});

fn address(whose: u8) -> SocketAddr {
    if whose.is_multiple_of(4) {
        ([0x2001, 0xdb8, u16::from(whose), 0, 0, 0, 0, 1], 6881).into()
    } else {
        ([93, whose, 184, 216], 6881).into()
    }
}
