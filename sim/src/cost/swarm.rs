//! An engine with one torrent, between peers and a disk that do at once what they are asked for.

mod far;

use core::net::SocketAddr;
use std::collections::VecDeque;
use std::time::Duration;

use taipei_engine::disk::{Job, JobResult, Opened, PieceHash, Saved, Totals, Work, Written};
use taipei_engine::limits::BLOCK_BYTES;
use taipei_engine::metainfo::{Content, CreateOptions, CreatePlan, Metainfo, PathRules};
use taipei_engine::wire::{ExtendedHandshake, Handshake, Message, Request, Reserved};
use taipei_engine::{
    AddTorrent, Alert, Bitfield, BlockData, Command, Config, ConnectionId, Engine, InfoHash, Input, Instant,
    JobId, Output, PeerId, StartValues, TorrentId, TorrentStats,
};

use self::far::{Buffers, Far, drawn};
use super::PIECES;

/// All that the owner does for a block of one peer, of which each read gives four.
pub(super) fn owner_1(times: u64) -> String {
    owner(1, 64 << 10, times)
}

/// The same with two hundred peers, one after the other, of whom each read gives one at most.
pub(super) fn owner_200(times: u64) -> String {
    owner(MANY, 16 << 10, times)
}

/// Peers that have everything send so many blocks, in reads of so many bytes, which are decoded; what goes to them is
/// encoded. No driver: its tasks, its queues and its system calls are not in it.
fn owner(peers: usize, read_bytes: usize, blocks: u64) -> String {
    let mut swarm = Swarm::new(16, &[], peers);
    swarm.buffers = Buffers::of(read_bytes);
    let time = BLOCK_TIME * read_bytes as u32 / BLOCK_BYTES;
    for peer in 0..peers {
        swarm.greet(peer, vec![Message::HaveAll, Message::Unchoke]);
    }
    while swarm.blocks < blocks {
        for peer in 0..peers {
            if swarm.blocks < blocks {
                swarm.pass(time);
                swarm.read(peer, blocks);
                swarm.settle();
            }
        }
    }
    swarm.fetched()
}

/// Peers with half of all pieces each, some with all, send a block each in turn and gain a piece with it. Messages are
/// handed over as they are.
pub(super) fn picker(times: u64) -> String {
    let mut swarm = Swarm::new(4, &[], MANY);
    let mut has: Vec<Vec<u8>> = (0..MANY).map(|peer| drawn(peer as u64)).collect();
    for (peer, has) in has.iter().enumerate() {
        let says = if is_seed(peer) { Message::HaveAll } else { Message::Bitfield(has.clone().into()) };
        swarm.greet(peer, vec![says, Message::Unchoke]);
    }
    let mut gained = 0u64;
    while swarm.blocks < times {
        for (peer, has) in has.iter_mut().enumerate() {
            if swarm.blocks == times {
                break;
            }
            swarm.pass(BLOCK_TIME);
            let Some(block) = swarm.peers[peer].answer() else { continue };
            swarm.blocks += 1;
            let mut messages = vec![block];
            // Any order will do, if it is not that of pieces.
            let next = (gained.wrapping_mul(7919) % u64::from(PIECES)) as u32;
            if !is_seed(peer) && far::gains(has, next) {
                messages.push(Message::Have(next));
            }
            gained += 1;
            swarm.tell(peer, messages);
            swarm.settle();
        }
    }
    swarm.fetched()
}

fn is_seed(peer: usize) -> bool {
    peer.is_multiple_of(10)
}

/// Peers that have nothing want something all the time; those that are served ask for a few blocks in each round.
pub(super) fn choker(times: u64) -> String {
    let all: Vec<u32> = (0..PIECES).collect();
    let mut swarm = Swarm::new(4, &all, MANY);
    for peer in 0..MANY {
        swarm.greet(peer, vec![Message::HaveNone, Message::Interested]);
    }
    let (mut asked, mut turns) = (0, vec![0u64; MANY]);
    for round in 0..times {
        swarm.pass(ROUND);
        swarm.settle();
        let mut served = 0;
        for (peer, turns) in turns.iter_mut().enumerate() {
            if swarm.peers[peer].is_served {
                served += 1;
                *turns += 1;
                let piece = ((round * 31 + peer as u64) % u64::from(PIECES)) as u32;
                let block =
                    |n| Message::Request(Request { piece, begin: n * BLOCK_BYTES, length: BLOCK_BYTES });
                swarm.tell(peer, (0..4).map(block).collect());
                asked += 4;
            } else if (round + peer as u64).is_multiple_of(9) {
                swarm.tell(peer, vec![Message::KeepAlive]);
            }
            swarm.settle();
        }
        assert!((1..=MANY / 4).contains(&served), "some are served, and most are not");
    }
    let stats = swarm.stats();
    assert_eq!(
        stats.uploaded_bytes,
        asked * u64::from(BLOCK_BYTES),
        "whoever is served gets what it asks for"
    );
    assert_eq!(stats.peers as usize, MANY, "nobody is dropped");
    let had_one = turns.iter().filter(|turns| **turns > 0).count();
    format!("{asked} blocks sent, {} turns of {had_one} peers", turns.iter().sum::<u64>())
}

/// The engine, and all that it talks to.
struct Swarm {
    engine: Engine,
    now: Instant,
    info_hash: InfoHash,
    /// In the order in which they were dialled, all at once.
    peers: Vec<Far>,
    /// Peers with something to be sent.
    touched: Vec<usize>,
    jobs: VecDeque<(JobId, Job)>,
    buffers: Buffers,
    /// Blocks that came.
    blocks: u64,
    finished: u64,
    stats: Option<TorrentStats>,
}

impl Swarm {
    /// A torrent of 20,000 pieces of so many blocks, of which some are there, and connections to so many peers.
    fn new(piece_blocks: u32, have: &[u32], peers: usize) -> Self {
        let length = u64::from(PIECES) * u64::from(piece_blocks * BLOCK_BYTES);
        let options =
            CreateOptions { piece_length: Some(piece_blocks * BLOCK_BYTES), ..CreateOptions::default() };
        let plan = CreatePlan::new("x", Content::File { length }, options).expect("a torrent like any other");
        let file = plan.encode(&vec![[0; 20]; PIECES as usize]);
        let metainfo = Metainfo::parse(&file, PathRules::Unix).expect("we made it");
        let mut config = Config::default();
        config.peers_per_torrent_max = 2 * peers as u32;
        config.dials_per_second_max = peers as u32;
        let start = StartValues { seed: 7, boot_id: [0; 16], wall_seconds: 0 };
        let mut swarm = Self {
            engine: Engine::new(config, start),
            now: Instant(1),
            info_hash: metainfo.info_hashes.v1.expect("it is of version 1"),
            peers: Vec::with_capacity(peers),
            touched: Vec::new(),
            jobs: VecDeque::new(),
            buffers: Buffers::of(0),
            blocks: 0,
            finished: 0,
            stats: None,
        };
        let mut add = AddTorrent::new(TORRENT, file.into(), "/out".to_owned());
        // Each in an address range of its own.
        add.peers = (0..peers).map(|peer| ([8, 8, peer as u8, 1], 6881).into()).collect();
        swarm.input(Input::Command(Command::AddTorrent(Box::new(add))));
        let mut bits = vec![0; PIECES.div_ceil(8) as usize];
        have.iter().for_each(|piece| assert!(far::gains(&mut bits, *piece)));
        let Some((job, Job { work: Work::Open { .. }, .. })) = swarm.jobs.pop_front() else {
            panic!("it is opened first")
        };
        let opened = Opened {
            have: Bitfield::from_wire(&bits, PIECES).expect("the length fits, and no bit is spare"),
            unchecked: Bitfield::new(PIECES),
            totals: Totals::default(),
            saved: Saved::Begun,
        };
        swarm.input(Input::JobDone { job, result: JobResult::Opened(Ok(opened)) });
        swarm.settle();
        assert_eq!(swarm.peers.len(), peers, "all are dialled");
        for peer in 0..peers {
            let local = SocketAddr::from(([9, 9, 9, 9], 6881));
            swarm.input(Input::Connected { connection: swarm.peers[peer].connection, local });
        }
        swarm.settle();
        swarm
    }

    /// A peer says hello, and this.
    fn greet(&mut self, peer: usize, messages: Vec<Message>) {
        let mut peer_id = PeerId(*b"-XX0000-............");
        peer_id.0[12..].copy_from_slice(&(peer as u64).to_be_bytes());
        let handshake = Handshake { reserved: Reserved::OURS, info_hash: self.info_hash, peer_id };
        let reqq = Some(500);
        let mut all = vec![
            Message::Handshake(handshake),
            Message::ExtendedHandshake(Box::new(ExtendedHandshake { reqq, ..ExtendedHandshake::default() })),
        ];
        all.splice(1..1, messages);
        self.peers[peer].meet(&all[0]);
        self.tell(peer, all);
        self.settle();
    }

    /// A peer says this, whatever its bytes are.
    fn tell(&mut self, peer: usize, messages: Vec<Message>) {
        let connection = self.peers[peer].connection;
        self.input(Input::Received { connection, read_bytes: 100, messages });
    }

    /// One read of what a peer sends of all that it was asked for, until so many blocks came in all.
    fn read(&mut self, peer: usize, blocks: u64) {
        let far = &mut self.peers[peer];
        let mut buffer = self.buffers.take();
        let room =
            usize::try_from(far.read_granted).map_or(buffer.len(), |granted| granted.min(buffer.len()));
        let bytes = far.fill(&mut buffer[..room], blocks - self.blocks);
        let read = self.buffers.lend(buffer, bytes);
        if bytes == 0 {
            return;
        }
        far.read_granted -= bytes as u64;
        let mut messages = Vec::with_capacity(4);
        far.reader.handle_bytes(read, &mut messages).expect("it is BitTorrent");
        self.blocks += messages.len() as u64;
        let connection = far.connection;
        self.input(Input::Received { connection, read_bytes: bytes as u32, messages });
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
            self.settle();
        }
        self.now = end;
    }

    /// Jobs are done and messages sent, until there are none.
    fn settle(&mut self) {
        loop {
            while let Some((job, work)) = self.jobs.pop_front() {
                let result = done(work.work);
                self.input(Input::JobDone { job, result });
            }
            if self.touched.is_empty() {
                return;
            }
            for peer in std::mem::take(&mut self.touched) {
                let far = &mut self.peers[peer];
                let (connection, written_bytes) = (far.connection, far.send());
                if written_bytes > 0 {
                    self.input(Input::Sent { connection, written_bytes });
                }
            }
        }
    }

    /// Something happens.
    fn input(&mut self, input: Input) {
        self.engine.handle_input(self.now, input);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { connection, messages } => {
                    let peer = self.place_of(connection);
                    if self.peers[peer].queue(messages) {
                        self.touched.push(peer);
                    }
                }
                Output::Grant { connection, read_bytes, .. } => {
                    let peer = self.place_of(connection);
                    self.peers[peer].read_granted += read_bytes;
                }
                Output::Job { job, work } => self.jobs.push_back((job, work)),
                Output::Connect { connection, .. } => {
                    self.peers.push(Far::new(connection));
                    assert_eq!(self.place_of(connection) + 1, self.peers.len(), "numbers go up by one");
                }
                Output::Alert(Alert::PieceFinished { .. }) => self.finished += 1,
                Output::Alert(Alert::Stats(stats)) => self.stats = Some(*stats),
                Output::Alert(Alert::StateChanged { .. }) => {}
                other => panic!("not expected here: {other:?}"),
            }
        }
    }

    /// Of a connection, in `peers`.
    fn place_of(&self, connection: ConnectionId) -> usize {
        let first = self.peers.first().map_or(connection, |far| far.connection);
        ((connection.number() - first.number()) / 2) as usize
    }

    fn stats(&mut self) -> TorrentStats {
        self.input(Input::Command(Command::ReportStats { torrent: TORRENT }));
        self.stats.take().expect("it answers at once")
    }

    /// What was fetched, once nothing of it was for nothing.
    fn fetched(mut self) -> String {
        let stats = self.stats();
        assert_eq!(stats.downloaded_bytes, self.blocks * u64::from(BLOCK_BYTES), "every block is counted");
        assert_eq!((stats.wasted_bytes, stats.peers as usize), (0, self.peers.len()), "and none is wasted");
        assert_eq!(self.finished, u64::from(stats.pieces_have), "what is whole is told of");
        let sent: u64 = self.peers.iter().map(|far| far.sent).sum();
        format!(
            "{} blocks, {} pieces, {sent} messages to {} peers",
            self.blocks,
            self.finished,
            self.peers.len()
        )
    }
}

/// What came of a job, if nothing went wrong.
fn done(work: Work) -> JobResult {
    match work {
        Work::Write { .. } => JobResult::Written(Ok(Written::default())),
        Work::Hash { pieces } => {
            let good = PieceHash { good: true, digests: Vec::new() };
            JobResult::Hashed(Ok(vec![good; pieces.len()]))
        }
        Work::Read { blocks } => {
            JobResult::Read(Ok(blocks.iter().map(|block| BlockData::absent(block.length)).collect()))
        }
        Work::Record { .. } => JobResult::Recorded(Ok(())),
        Work::Snapshot { .. } => JobResult::Saved(Ok(())),
        Work::SaveMetadata { .. } => JobResult::MetadataSaved(Ok(())),
        Work::Look => JobResult::Looked(Ok(Vec::new())),
        other => panic!("not expected here: {other:?}"),
    }
}

const TORRENT: TorrentId = TorrentId(0);
const MANY: usize = 200;
/// Between two blocks: 64 MiB a second over all peers.
const BLOCK_TIME: Duration = Duration::from_micros(250);
/// Of the choker.
const ROUND: Duration = Duration::from_secs(10);
