//! Several scripted peers with bytes of their own: liars found, innocents spared, nothing waits for ever.

use super::*;
use crate::command::{Priority, TorrentSource};
use crate::disk::BlockDigest;
use crate::ids::BlockIndex;
use crate::limits::UNASKED_BLOCKS_MAX;

/// What the scripted peers and the disk hold: each block is one byte, repeated; 0 is right.
struct Swarm {
    bench: Bench,
    rng: Rng,
    peers: BTreeMap<ConnectionId, Script>,
    /// So many blocks that are written early are spoilt by the disk.
    spoils: u32,
    /// What is on disk.
    stored: BTreeMap<(u32, u32), u8>,
    /// By address, pieces with a block of it that were found bad.
    spoiled: BTreeMap<SocketAddr, u32>,
    /// Who sent what came last, by piece and block.
    sent_by: BTreeMap<(u32, u32), SocketAddr>,
}

/// How a peer behaves.
#[derive(Clone, Copy, Debug)]
struct Script {
    address: SocketAddr,
    /// Of a thousand blocks, so many are wrong.
    lies_permille: u64,
    /// From one block to the next.
    gap: Duration,
    /// Of a hundred blocks, so many are followed by a choke and an unchoke.
    chokes_percent: u64,
    next: Instant,
}

static BLOCKS_OF: [[u8; BLOCK_BYTES as usize]; 4] = [
    [0; BLOCK_BYTES as usize],
    [1; BLOCK_BYTES as usize],
    [2; BLOCK_BYTES as usize],
    [3; BLOCK_BYTES as usize],
];

fn block_of(what: u8, length: u32) -> BlockData {
    Bytes::from_static(&BLOCKS_OF[usize::from(what)][..length as usize]).into()
}

fn byte_of(data: &BlockData) -> u8 {
    data.parts().first().and_then(|part| part.first()).copied().unwrap_or(0)
}

impl Swarm {
    fn new(seed: u64, pieces: u32, peers: &[u8]) -> Self {
        let mut bench = Bench::new(pieces, &[], peers);
        bench.disk_asleep = true;
        Self {
            bench,
            rng: Rng::stream(seed, "swarm", 0),
            peers: BTreeMap::new(),
            spoils: 0,
            stored: BTreeMap::new(),
            spoiled: BTreeMap::new(),
            sent_by: BTreeMap::new(),
        }
    }

    /// The `n`-th dial is answered by a seed that behaves so.
    fn seed(&mut self, n: usize, lies_permille: u64, gap_ms: u64, chokes_percent: u64) -> ConnectionId {
        let connection = self.bench.answer(n, vec![Message::HaveAll, Message::Unchoke]);
        let (address, gap) = (self.bench.dialled[n].1, Duration::from_millis(gap_ms));
        let next = self.bench.now + gap;
        self.peers.insert(connection, Script { address, lies_permille, gap, chokes_percent, next });
        connection
    }

    /// Everybody does their part for this long, or until all is here.
    fn run(&mut self, time: Duration) {
        let end = self.bench.now + time;
        while self.bench.now < end && self.bench.have() < self.bench.pieces() {
            let step = self.bench.now + Duration::from_millis(5);
            self.bench.pass(step.since(self.bench.now));
            for connection in self.peers.keys().copied().collect::<Vec<_>>() {
                self.act(connection);
            }
            self.work();
        }
    }

    /// A peer answers the oldest request if it is time.
    fn act(&mut self, connection: ConnectionId) {
        let Some(script) = self.peers.get(&connection).copied() else { return };
        if self.bench.closed.contains(&connection) {
            self.peers.remove(&connection);
            return;
        }
        if script.next > self.bench.now {
            return;
        }
        let Some(request) = self.bench.next_request(connection) else { return };
        if let Some(script) = self.peers.get_mut(&connection) {
            script.next = self.bench.now + script.gap;
        }
        let lies = self.rng.below(1000) < script.lies_permille;
        let what = if lies { 1 + self.rng.below(3) as u8 } else { 0 };
        let (piece, begin) = (request.piece, request.begin);
        self.sent_by.insert((piece, begin / BLOCK_BYTES), script.address);
        let data = block_of(what, request.length);
        self.bench.say(connection, vec![Message::Piece { piece, begin, data }]);
        if self.rng.below(100) < script.chokes_percent && !self.bench.closed.contains(&connection) {
            let void: Vec<_> = self.bench.all_requests(connection);
            let rejects = void.into_iter().map(Message::RejectRequest);
            self.bench.say(connection, std::iter::once(Message::Choke).chain(rejects).collect());
            self.bench.say(connection, vec![Message::Unchoke]);
        }
    }

    /// The disk does what is waiting, with real bytes.
    fn work(&mut self) {
        while let Some((job, work)) = self.bench.jobs.pop_front() {
            let result = match work {
                Work::Write { piece, runs, digests, .. } => {
                    let blocks = runs.iter().flat_map(|run| &run.blocks);
                    let digest = |block| BlockDigest(byte_of(block).into());
                    let digests = if digests { blocks.map(digest).collect() } else { vec![] };
                    for run in &runs {
                        for (block, data) in (run.begin / BLOCK_BYTES..).zip(&run.blocks) {
                            let spoilt = !digests.is_empty() && self.spoils > 0;
                            self.spoils -= u32::from(spoilt);
                            let what = if spoilt { 3 } else { byte_of(data) };
                            self.stored.insert((piece.get(), block), what);
                        }
                    }
                    JobResult::Written(Ok(Written { gone: vec![], digests }))
                }
                Work::Hash { pieces } => {
                    JobResult::Hashed(Ok(pieces.iter().map(|asked| self.hash(asked)).collect()))
                }
                Work::Record { .. } => JobResult::Recorded(Ok(())),
                Work::Snapshot { .. } => JobResult::Saved(Ok(())),
                Work::Look => JobResult::Looked(Ok(Vec::new())),
                Work::Read { blocks } => {
                    JobResult::Read(Ok(blocks.iter().map(|block| block_of(0, block.length)).collect()))
                }
                other => panic!("not expected here: {other:?}"),
            };
            self.bench.input(Input::JobDone { job, result });
        }
    }

    fn hash(&mut self, asked: &crate::disk::HashPiece) -> PieceHash {
        let piece = asked.piece.get();
        let bytes: Vec<u8> = if asked.blocks.is_empty() {
            (0..BLOCKS).map(|block| self.stored[&(piece, block)]).collect()
        } else {
            asked.blocks.iter().map(byte_of).collect()
        };
        let good = bytes.iter().all(|byte| *byte == 0);
        if !good {
            // Counted as the done-when counts: bad pieces with a wrong block of this address.
            let liars: BTreeSet<_> = (0..)
                .zip(&bytes)
                .filter(|(_, byte)| **byte != 0)
                .filter_map(|(block, _)| self.sent_by.get(&(piece, block)))
                .collect();
            liars.into_iter().for_each(|liar| *self.spoiled.entry(*liar).or_default() += 1);
        }
        let wanted = asked.digests || !good;
        let digests =
            if wanted { bytes.iter().map(|byte| BlockDigest((*byte).into())).collect() } else { vec![] };
        PieceHash { good, digests }
    }

    fn banned(&self) -> Vec<SocketAddr> {
        let banned = |alert: &Alert| match alert {
            Alert::PeerBanned { address, .. } => Some(*address),
            _ => None,
        };
        self.bench.alerts.iter().filter_map(banned).collect()
    }
}

impl Bench {
    fn pieces(&self) -> u32 {
        self.engine.have(TORRENT).map_or(0, Bitfield::piece_count)
    }

    /// Takes the oldest request to a peer that was not cancelled.
    fn next_request(&mut self, connection: ConnectionId) -> Option<Request> {
        let sent = self.sent.get_mut(&connection)?;
        loop {
            let at = sent.iter().position(|message| matches!(message, Message::Request(_)))?;
            let Message::Request(request) = sent.remove(at) else { return None };
            let cancel = sent[at..].iter().position(|message| *message == Message::Cancel(request));
            match cancel {
                Some(cancel) => drop(sent.remove(at + cancel)),
                None => return Some(request),
            }
        }
    }

    fn all_requests(&mut self, connection: ConnectionId) -> Vec<Request> {
        std::iter::from_fn(|| self.next_request(connection)).collect()
    }
}

#[test]
fn a_poisoner_is_banned_within_three_bad_pieces_and_no_honest_peer_is() {
    let mut caught = 0;
    for seed in 0..200 {
        let mut swarm = Swarm::new(seed, 24, &[1, 2, 3, 4]);
        let gaps = [7, 11, 13, 17].map(|gap| gap + swarm.rng.below(60));
        let liar = swarm.rng.below(4) as usize;
        for (n, gap) in gaps.into_iter().enumerate() {
            swarm.seed(n, if n == liar { 100 } else { 0 }, gap, 3);
        }
        let liar = swarm.bench.dialled[liar].1;
        swarm.run(Duration::from_secs(300));
        assert_eq!(swarm.bench.have(), 24, "seed {seed}");
        let spoiled = swarm.spoiled.get(&liar).copied().unwrap_or(0);
        let banned = swarm.banned();
        assert!(banned.iter().all(|address| *address == liar), "seed {seed}: {banned:?}, not {liar}");
        assert!(spoiled <= 3, "seed {seed}: {spoiled}");
        assert_eq!(banned.len(), usize::from(spoiled > 0), "seed {seed}");
        caught += banned.len();
    }
    assert!(caught > 150, "{caught}");
}

#[test]
fn two_liars_at_once_are_both_banned_and_the_honest_one_finishes() {
    for seed in 0..40 {
        let mut swarm = Swarm::new(seed, 16, &[1, 2, 3]);
        let liars = [0, 1].map(|n| {
            swarm.seed(n, 500, 20, 5);
            swarm.bench.dialled[n].1
        });
        swarm.seed(2, 0, 30, 5);
        swarm.run(Duration::from_secs(300));
        let mut banned = swarm.banned();
        banned.sort_unstable();
        let mut liars = liars.to_vec();
        liars.sort_unstable();
        assert_eq!((swarm.bench.have(), banned), (16, liars), "seed {seed}");
        assert!(swarm.spoiled.values().all(|spoiled| *spoiled <= 3), "seed {seed}: {:?}", swarm.spoiled);
    }
}

#[test]
fn a_liar_that_is_the_only_source_is_banned_once_and_others_are_waited_for() {
    let mut swarm = Swarm::new(1, 4, &[1]);
    swarm.seed(0, 1000, 10, 0);
    swarm.run(Duration::from_secs(600));
    assert_eq!((swarm.banned().len(), swarm.bench.have(), swarm.bench.dialled.len()), (1, 0, 1));
    let more = Command::AddPeers { torrent: TORRENT, peers: vec![address(2)] };
    swarm.bench.input(Input::Command(more));
    swarm.seed(1, 0, 10, 0);
    swarm.run(Duration::from_secs(60));
    assert_eq!(swarm.bench.have(), 4);
}

/// A liar owns the only piece and an honest peer sends one block of it: it fails, and is fetched from one alone.
fn suspect_piece(silent_first: bool) -> (Swarm, [ConnectionId; 2]) {
    let mut swarm = Swarm::new(2, 1, &[1, 2]);
    let both = [0, 1].map(|n| swarm.seed(n, 0, 10, 0));
    let asked = both.map(|connection| swarm.bench.all_requests(connection));
    let owner = usize::from(asked[0].is_empty());
    swarm.bench.pass(Duration::from_secs(2));
    let mut requests = both.map(|connection| swarm.bench.all_requests(connection));
    requests[owner].extend(&asked[owner]);
    let piece = |request: &Request, what| Message::Piece {
        piece: request.piece,
        begin: request.begin,
        data: block_of(what, request.length),
    };
    let other = requests[1 - owner][0];
    swarm.bench.say(both[1 - owner], vec![piece(&other, u8::from(silent_first))]);
    for request in requests[owner].iter().filter(|request| **request != other) {
        swarm.bench.say(both[owner], vec![piece(request, u8::from(!silent_first))]);
    }
    swarm.work();
    assert_eq!(swarm.bench.count(|alert| matches!(alert, Alert::PieceFailed { .. })), 1);
    (swarm, both)
}

#[test]
fn a_suspect_piece_is_taken_from_a_peer_that_is_slow_with_it() {
    for n in [false, true] {
        let (mut swarm, both) = suspect_piece(n);
        let again = both.map(|connection| swarm.bench.all_requests(connection));
        assert!(again[0].is_empty() != again[1].is_empty(), "one of them alone: {again:?}");
        let slow = usize::from(again[0].is_empty());
        // One block, then one each eight seconds: never silent for long, never done in time.
        swarm.peers.remove(&both[slow]);
        let begin = swarm.bench.now;
        let data = block_of(0, BLOCK_BYTES);
        let Request { piece, begin: offset, .. } = again[slow][0];
        swarm.bench.say(both[slow], vec![Message::Piece { piece, begin: offset, data }]);
        swarm.run(Duration::from_secs(60));
        assert_eq!(swarm.bench.have(), 1);
        assert!(swarm.bench.now.since(begin) < Duration::from_secs(12));
        assert!(swarm.banned().len() == 1, "by comparison with the right piece: {:?}", swarm.banned());
    }
}

#[test]
fn what_silent_peers_send_late_is_welcome_and_blames_nobody() {
    let mut swarm = Swarm::new(3, 1, &[1, 2]);
    let both = [0, 1].map(|n| swarm.seed(n, 0, 10, 0));
    swarm.bench.pass(Duration::from_secs(2));
    let requests = both.map(|connection| swarm.bench.all_requests(connection));
    assert!(requests.iter().all(|requests| !requests.is_empty()));
    // Both are silent until their requests are released; then each is asked anew, and old blocks come in between.
    swarm.bench.pass(Duration::from_secs(25));
    for (connection, requests) in both.into_iter().zip(&requests) {
        swarm.bench.give(connection, requests);
    }
    swarm.run(Duration::from_secs(60));
    assert_eq!((swarm.bench.have(), swarm.banned()), (1, vec![]));
}

#[test]
fn what_the_disk_spoils_is_fetched_again_and_blames_nobody() {
    let mut swarm = Swarm::new(6, 1, &[]);
    let config = Config { buffer_bytes: 2 * u64::from(BLOCK_BYTES), ..Config::default() };
    swarm.bench = Bench::with(config, 4, &[], &[1]);
    swarm.bench.disk_asleep = true;
    swarm.spoils = 1;
    swarm.seed(0, 0, 10, 0);
    swarm.run(Duration::from_secs(120));
    let kind = |alert: &Alert| match alert {
        Alert::DiskFailed { error, .. } => Some(error.kind),
        _ => None,
    };
    let told: Vec<_> = swarm.bench.alerts.iter().filter_map(kind).collect();
    assert_eq!((swarm.bench.have(), swarm.banned()), (4, vec![]));
    assert_eq!(told, [StorageErrorKind::Spoilt]);
}

fn set_priorities(bench: &mut Bench, priorities: Vec<Priority>) {
    bench.input(Input::Command(Command::SetPriorities { torrent: TORRENT, priorities }));
}

fn stats(bench: &Bench) -> crate::alert::TorrentStats {
    bench.engine.torrents[&TORRENT].stats(bench.now)
}

/// Four requests are taken back and made anew before the peer has answered the first ones.
fn asked_again() -> (Bench, ConnectionId, Vec<Request>) {
    let mut bench = Bench::new(2, &[], &[1]);
    let peer = bench.answer(0, vec![Message::Bitfield(Bytes::from_static(&[0b1000_0000])), Message::Unchoke]);
    let first = bench.take_requests(peer);
    bench.say(peer, vec![Message::Interested]);
    for priority in [Priority::Low, Priority::Skip, Priority::Normal] {
        set_priorities(&mut bench, vec![priority]);
    }
    let again = bench.take_requests(peer);
    assert_eq!((first.len(), &again), (4, &first));
    (bench, peer, again)
}

#[test]
fn a_reject_of_what_was_taken_back_is_no_reject_of_what_was_asked_since() {
    let (mut bench, peer, requests) = asked_again();
    bench.say(peer, requests.iter().copied().map(Message::RejectRequest).collect());
    bench.give(peer, &requests);
    bench.disk();
    assert_eq!((bench.have(), stats(&bench).wasted_bytes), (1, 0));
}

#[test]
fn a_block_that_crossed_with_its_cancel_is_taken_and_the_second_request_is_taken_back() {
    let (mut bench, peer, requests) = asked_again();
    bench.give(peer, &requests);
    bench.disk();
    let cancels = bench.take_sent(peer).into_iter();
    let cancels = cancels.filter(|message| matches!(message, Message::Cancel(_))).count();
    assert_eq!((bench.have(), cancels), (1, 4));
    bench.say(peer, requests.iter().copied().map(Message::RejectRequest).collect());
    assert!(!bench.closed.contains(&peer));
}

#[test]
fn nothing_wanted_is_complete_and_wanting_again_goes_on() {
    let mut bench = Bench::new(4, &[], &[1]);
    let leech =
        bench.answer(0, vec![Message::Bitfield(Bytes::from_static(&[0b1110_0000])), Message::Unchoke]);
    let first = bench.take_requests(leech);
    bench.give(leech, &first);
    bench.disk();
    assert_eq!(bench.have(), 1);
    set_priorities(&mut bench, vec![Priority::Skip]);
    let now = stats(&bench);
    assert_eq!((now.state, now.bytes_wanted, now.bytes_left), (TorrentState::Seeding, 0, 0));
    let sent = bench.take_sent(leech);
    assert!(sent.contains(&Message::NotInterested), "{sent:?}");
    let only = |said| move |message: &Message| matches!(message, Message::ExtendedHandshake(all) if all.upload_only == Some(said));
    assert!(sent.iter().any(only(true)) && sent.iter().any(|message| matches!(message, Message::Cancel(_))));
    bench.pass(Duration::from_secs(100));
    bench.say(leech, vec![Message::KeepAlive]);
    assert!(bench.take_requests(leech).is_empty(), "nothing is asked for");
    set_priorities(&mut bench, vec![Priority::High]);
    assert_eq!(stats(&bench).state, TorrentState::Downloading);
    let sent = &bench.sent[&leech];
    assert!(sent.contains(&Message::Interested) && sent.iter().any(only(false)), "{sent:?}");
    bench.give_all(leech);
    assert_eq!((bench.have(), stats(&bench).bytes_left), (3, u64::from(BLOCKS * BLOCK_BYTES)));
}

#[test]
fn have_is_told_only_to_those_who_lack_it_and_interest_ends_with_the_last_wanted_piece() {
    let mut bench = Bench::new(3, &[], &[1, 2]);
    let giver =
        bench.answer(0, vec![Message::Bitfield(Bytes::from_static(&[0b1000_0000])), Message::Unchoke]);
    let other = bench.answer(1, vec![Message::HaveNone]);
    let requests = bench.take_requests(giver);
    bench.give(giver, &requests);
    bench.disk();
    assert_eq!(bench.take_sent(giver), [Message::NotInterested]);
    assert!(bench.take_sent(other).contains(&Message::Have(0)));
}

#[test]
fn in_order_means_in_order_and_a_slow_peer_holds_up_nobody() {
    let mut swarm = Swarm::new(4, 1, &[]);
    swarm.bench = Bench::added(40, &[1, 2], |add| add.sequential = true);
    swarm.bench.disk_asleep = true;
    let slow = swarm.seed(0, 0, 3_000, 0);
    let first = swarm.bench.sent[&slow].iter().find_map(|message| match message {
        Message::Request(request) => Some(request.piece),
        _ => None,
    });
    assert_eq!(first, Some(0));
    swarm.seed(1, 0, 100, 0);
    swarm.run(Duration::from_secs(300));
    assert_eq!(swarm.bench.have(), 40);
    let order: Vec<u32> = swarm
        .bench
        .alerts
        .iter()
        .filter_map(|alert| match alert {
            Alert::PieceFinished { piece, .. } => Some(piece.get()),
            _ => None,
        })
        .collect();
    let place = |piece: u32| order.iter().position(|other| *other == piece).unwrap();
    let furthest = (0..40u32).map(|piece| place(piece).saturating_sub(piece as usize)).max();
    assert!(furthest <= Some(25), "a piece came {furthest:?} later than its turn: {order:?}");
}

#[test]
fn wanted_files_come_by_priority_and_the_rest_not_at_all() {
    let mut bench = Bench::added(6, &[1], |add| {
        add.source = TorrentSource::TorrentFile(three_files(6));
        add.priorities = vec![Priority::Low, Priority::Skip, Priority::High];
    });
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    let mut order = Vec::new();
    loop {
        let requests = bench.take_requests(seed);
        if requests.is_empty() {
            break;
        }
        order.extend(requests.iter().map(|request| request.piece));
        bench.give(seed, &requests);
        bench.disk();
    }
    order.dedup();
    order.truncate(4);
    let low = order.split_off(2);
    order.sort_unstable();
    assert_eq!((order.as_slice(), bench.have()), (&[4, 5][..], 4), "the shared piece 1 is fetched as well");
    assert!(low.iter().all(|piece| [0, 1].contains(piece)), "{low:?}");
    assert_eq!(bench.count(|alert| matches!(alert, Alert::Completed { .. })), 1);
    assert!(bench.closed.contains(&seed), "nothing is wanted of it, and it wants nothing");
    let now = stats(&bench);
    let piece = u64::from(BLOCKS * BLOCK_BYTES);
    assert_eq!((now.bytes_wanted, now.bytes_left, now.bytes_total), (4 * piece, 0, 6 * piece));
    set_priorities(&mut bench, vec![]);
    assert_eq!((stats(&bench).state, bench.dialled.len()), (TorrentState::Downloading, 2));
    let seed = bench.answer(1, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(seed);
    assert_eq!(bench.have(), 6);
}

/// Three files: one and a half pieces, two and a half, two.
fn three_files(pieces: u32) -> Bytes {
    let piece = BLOCKS * BLOCK_BYTES;
    let lengths = [piece * 3 / 2, piece * 5 / 2, piece * (pieces - 4)];
    let mut text = String::from("d4:infod5:filesl");
    for (length, name) in lengths.into_iter().zip(["a", "b", "c"]) {
        text.push_str(&format!("d6:lengthi{length}e4:pathl1:{name}ee"));
    }
    text.push_str(&format!("e4:name1:x12:piece lengthi{piece}e6:pieces{}:", pieces * 20));
    text.push_str(&"h".repeat(pieces as usize * 20));
    text.push_str("ee");
    text.into()
}

#[test]
fn a_short_odd_last_block_is_asked_for_as_it_is() {
    let length = 2 * 20_000 + 17;
    let mut text = format!("d4:infod6:lengthi{length}e4:name1:x12:piece lengthi20000e6:pieces60:");
    text.push_str(&"h".repeat(60));
    text.push_str("ee");
    let mut bench = Bench::added(3, &[1], |add| add.source = TorrentSource::TorrentFile(text.clone().into()));
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(seed);
    assert_eq!(bench.have(), 3);
    assert_eq!(stats(&bench).wasted_bytes, 0);
}

#[test]
fn a_bad_last_piece_is_fetched_again() {
    let mut bench = Bench::new(3, &[0, 1], &[1, 2]);
    bench.bad = vec![2];
    let first = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(first);
    assert!(bench.closed.contains(&first));
    let second = bench.answer(1, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(second);
    assert_eq!(bench.have(), 3);
}

#[test]
fn a_choke_in_endgame_frees_the_last_blocks_for_others() {
    let mut bench = Bench::new(1, &[], &[1, 2]);
    let first = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    let asked = bench.take_requests(first);
    let second = bench.answer(1, vec![Message::HaveAll, Message::Unchoke]);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.take_requests(second).len(), 4, "endgame");
    bench.say(second, vec![Message::Choke]);
    let void = asked.iter().copied().map(Message::RejectRequest).collect();
    bench.say(second, void);
    bench.give(first, &asked[..2]);
    bench.say(first, vec![Message::Choke]);
    bench.say(first, asked[2..].iter().copied().map(Message::RejectRequest).collect());
    bench.say(second, vec![Message::Unchoke]);
    bench.give_all(second);
    assert_eq!(bench.have(), 1);
}

#[test]
fn a_peer_that_leaves_frees_what_it_was_asked_for_at_once() {
    let mut bench = Bench::new(2, &[], &[1, 2]);
    let first = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    let asked = bench.take_requests(first);
    let second = bench.answer(1, vec![Message::HaveAll, Message::Unchoke]);
    let before = bench.now;
    bench.input(Input::Closed { connection: first, reason: CloseReason::EndOfStream });
    bench.give_all(second);
    assert!(!asked.is_empty() && bench.now.since(before) < Duration::from_secs(1));
    assert_eq!(bench.have(), 2);
}

#[test]
fn blocks_that_nobody_asked_for_are_thrown_away() {
    let mut bench = Bench::new(2, &[], &[1]);
    let liar = bench.answer(0, vec![Message::HaveAll]);
    let data = || BlockData::absent(BLOCK_BYTES);
    for block in 0..BLOCKS {
        bench.say(liar, vec![Message::Piece { piece: 0, begin: block * BLOCK_BYTES, data: data() }]);
    }
    bench.disk();
    let now = stats(&bench);
    assert_eq!((bench.have(), now.wasted_bytes), (0, u64::from(BLOCKS * BLOCK_BYTES)));
    assert!(!bench.jobs.iter().any(|(_, work)| matches!(work, Work::Write { .. } | Work::Hash { .. })));
}

#[test]
fn whatever_peers_do_it_ends_and_every_piece_is_in_one_state() {
    for seed in 0..60 {
        let mut swarm = Swarm::new(seed, 12, &[1, 2, 3, 4]);
        for n in 0..3 {
            let (lies, gap) = (swarm.rng.below(300), 5 + swarm.rng.below(2_000));
            swarm.seed(n, lies, gap, 10);
        }
        for _ in 0..80 {
            let time = Duration::from_millis(swarm.rng.below(800));
            swarm.run(time);
            let connections: Vec<_> = swarm.peers.keys().copied().collect();
            if connections.is_empty() {
                break;
            }
            let connection = connections[swarm.rng.below(connections.len() as u64) as usize];
            let begin = BLOCK_BYTES * swarm.rng.below(5) as u32;
            let (piece, length) = (swarm.rng.below(12) as u32, BLOCK_BYTES);
            let message = match swarm.rng.below(9) {
                0 => Message::Choke,
                1 | 2 => Message::Unchoke,
                3 => Message::RejectRequest(Request { piece, begin, length }),
                4 => Message::AllowedFast(piece),
                5 => Message::Piece { piece, begin, data: block_of(1, length) },
                6 => Message::Cancel(Request { piece, begin, length }),
                7 => Message::Interested,
                _ => {
                    let skip = if swarm.rng.below(2) == 0 { Priority::Skip } else { Priority::Normal };
                    set_priorities(&mut swarm.bench, vec![skip]);
                    continue;
                }
            };
            swarm.bench.say(connection, vec![message]);
        }
        set_priorities(&mut swarm.bench, vec![]);
        if swarm.bench.have() < 12 {
            let more = Command::AddPeers { torrent: TORRENT, peers: vec![address(99)] };
            swarm.bench.input(Input::Command(more));
            swarm.bench.pass(Duration::from_secs(1));
            let honest = swarm.bench.dialled.iter().position(|(_, remote)| *remote == address(99)).unwrap();
            swarm.seed(honest, 0, 5, 0);
            swarm.run(Duration::from_secs(600));
        }
        assert_eq!(swarm.bench.have(), 12, "seed {seed}");
        assert_eq!(stats(&swarm.bench).bytes_left, 0);
    }
}

#[test]
fn blocks_that_nobody_asked_for_end_the_connection_and_late_ones_do_not() {
    let mut bench = Bench::new(64, &[], &[1, 2]);
    let peer = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    let block = |piece: u32| Message::Piece { piece, begin: 0, data: block_of(0, BLOCK_BYTES) };
    // A choke without the fast extension voids what was asked for; answers to it may be on their way.
    let plain = bench.answer(1, Vec::new());
    let asked = bench.take_requests(peer).len();
    assert!(asked > 0);
    for round in 0..=UNASKED_BLOCKS_MAX {
        assert!(!bench.closed.contains(&peer), "{round}");
        bench.say(peer, vec![block(63)]);
    }
    assert!(bench.closed.contains(&peer) && !bench.closed.contains(&plain));
}

#[test]
fn blocks_that_were_taken_back_may_come_late() {
    let mut requests = crate::peer::Requests::new();
    assert!(!requests.on_late_block());
    for block in 0..3 {
        requests.on_sent(Instant::START, PieceIndex::new(0), BlockIndex(block));
    }
    assert!(requests.forgo(PieceIndex::new(0), BlockIndex(0)).is_some());
    assert!(requests.forgo(PieceIndex::new(0), BlockIndex(0)).is_none());
    assert!(requests.take(PieceIndex::new(0), BlockIndex(1)).is_some(), "rejected: nothing comes");
    assert_eq!(requests.take_all().len(), 1);
    assert_eq!([(); 3].map(|()| requests.on_late_block()), [true, true, false]);
}

#[test]
fn where_many_requests_are_out_the_next_go_together() {
    let mut bench = Bench::new(512, &[], &[1]);
    let peer = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    let mut out: VecDeque<Request> = bench.take_requests(peer).into();
    let (mut most, mut lots) = (0, 0);
    for _ in 0..1000 {
        let Request { piece, begin, length } =
            out.pop_front().expect("there is always something to wait for");
        bench.pass(Duration::from_millis(1));
        bench.say(peer, vec![Message::Piece { piece, begin, data: block_of(0, length) }]);
        bench.disk();
        let lot = bench.take_requests(peer);
        assert!(lot.is_empty() || lot.len() * 16 >= out.len(), "{} beside {}", lot.len(), out.len());
        lots += u32::from(!lot.is_empty());
        out.extend(lot);
        most = most.max(out.len());
    }
    assert!(most > 200 && lots < 200, "{lots} lots, {most} requests at most");
}
