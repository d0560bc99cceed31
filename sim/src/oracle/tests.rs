//! Each rule is shown what it forbids.

use core::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use taipei_engine::disk::{Job, JobResult, Place, StorageError, StorageErrorKind, Work};
use taipei_engine::metainfo::{Metainfo, PathRules};
use taipei_engine::wire::tracker_http::{AnnounceEvent, AnnounceRequest};
use taipei_engine::wire::tracker_udp::{UdpAnswer, UdpRequest};
use taipei_engine::wire::{Handshake, Message, Request, Reserved};
use taipei_engine::{Alert, BlockData, Config, ConnectionId, Engine, JobId, PeerId, PieceIndex, TorrentId};

use super::*;
use crate::events::{begin_commands, start_values};
use crate::plan::PEER_PORT;
use crate::scenario::Scenario;
use crate::units::SECOND;

/// A world in which nothing happens but what a test says.
struct Stage {
    watch: Watch,
    disk: SimDisk,
    /// Nanoseconds.
    now: u64,
}

const SEED: usize = 0;
const LIAR: usize = 1;
const LEECH: usize = 2;
const CONNECTION: ConnectionId = ConnectionId::dialled(0);

impl Stage {
    fn new(more: &str) -> Self {
        let text = format!(
            r#"
            [scenario]
            id = "stage"
            duration = "60 s"
            [[torrent]]
            name = "a"
            size = "512 KiB"
            piece = "64 KiB"
            [[group]]
            name = "seed"
            count = 1
            has = "all"
            [[group]]
            name = "liar"
            count = 1
            has = "all"
            lies = "1/2"
            [[group]]
            name = "leech"
            count = 1
            {more}
            "#
        );
        let materials = Materials::new(Scenario::parse(&text, "stage.toml").expect("parses"));
        let plan = Plan::new(&materials.scenario, 1);
        let disk = materials.disk(&plan.hosts[LEECH]);
        let mut watch = Watch::new(materials, plan, false);
        watch.on_start(0, LEECH);
        Self { watch, disk, now: 1 }
    }

    fn takes(&mut self, input: Input) {
        self.watch.on_input(self.now, LEECH, &input, &self.disk);
    }

    fn says(&mut self, output: Output) {
        self.watch.on_output(self.now, LEECH, &output, &self.disk);
    }

    fn address(&self, host: usize) -> SocketAddr {
        SocketAddr::new(self.watch.plan.hosts[host].address, PEER_PORT)
    }

    /// The leecher is connected to a host, after both handshakes.
    fn connected(mut self, host: usize) -> Self {
        let (remote, local) = (self.address(host), self.address(LEECH));
        self.says(Output::Connect { connection: CONNECTION, remote });
        self.takes(Input::Connected { connection: CONNECTION, local });
        self.says(Output::Grant { connection: CONNECTION, read_bytes: 1 << 40, write_bytes: 1 << 40 });
        let info_hash = self.watch.materials.torrents[0].info_hash;
        let hello = Message::Handshake(Handshake {
            reserved: Reserved::OURS,
            info_hash,
            peer_id: PeerId([b'x'; 20]),
        });
        self.says(Output::Send { connection: CONNECTION, messages: vec![hello.clone()] });
        self.hears(vec![hello, Message::HaveAll, Message::Unchoke]);
        assert_eq!(self.broken(), None);
        self
    }

    /// The other end of its connection is an engine's.
    fn is_in_pair(&mut self) {
        let other = self.watch.ledger.open().number;
        let process = self.watch.hosts[LEECH].process.as_ref().expect("runs");
        let end = process.connections.get(CONNECTION).expect("open").end.number;
        self.watch.ledger.pair(end, other, false);
    }

    fn hears(&mut self, messages: Vec<Message>) {
        self.takes(Input::Received { connection: CONNECTION, read_bytes: 1, messages });
    }

    fn asks(&mut self) {
        self.asks_for(0);
    }

    fn asks_for(&mut self, piece: u32) {
        let request = Message::Request(Request { piece, begin: 0, length: 16_384 });
        self.says(Output::Send { connection: CONNECTION, messages: vec![request] });
    }

    /// A block of a piece is asked for, comes, as it should be or not, and is written.
    fn hears_block(&mut self, piece: u32, is_right: bool) {
        let request = Message::Request(Request { piece, begin: 0, length: 100 });
        self.says(Output::Send { connection: CONNECTION, messages: vec![request] });
        let mut bytes = self.watch.materials.torrents[0].content.slice(u64::from(piece) << 16, 100).to_vec();
        if !is_right {
            bytes[99] ^= 1;
        }
        let data = BlockData::from(Bytes::from(bytes));
        self.hears(vec![Message::Piece { piece, begin: 0, data: data.clone() }]);
        self.watch.hosts[LEECH].liars.on_write(0, piece, 0, &data);
    }

    fn finds_bad(&mut self, piece: u32) {
        let piece = self.piece(piece);
        self.says(Output::Alert(Alert::PieceFailed { torrent: TorrentId(0), piece }));
    }

    fn bans(&mut self, host: usize) {
        let address = self.address(host);
        self.says(Output::Alert(Alert::PeerBanned { torrent: TorrentId(0), address }));
    }

    fn piece(&self, piece: u32) -> PieceIndex {
        let file = &self.watch.materials.torrents[0].torrent_file;
        let metainfo = Metainfo::parse(file, PathRules::Unix).expect("our own");
        metainfo.layout.piece(piece).expect("there are eight")
    }

    /// As an engine names it in its jobs.
    fn place(&self) -> Arc<Place> {
        let start = start_values(&self.watch.plan, LEECH, 1, 0, 0);
        let mut engine = Engine::new(Config::default(), start);
        for command in begin_commands(&self.watch.materials, &self.watch.plan.hosts[LEECH]) {
            engine.handle_input(taipei_engine::Instant(0), Input::Command(command));
        }
        let mut outputs = std::iter::from_fn(|| engine.poll_output());
        let job = outputs.find_map(|output| match output {
            Output::Job { work, .. } => Some(work),
            _ => None,
        });
        job.expect("a torrent is opened").place
    }

    fn broken(&self) -> Option<&'static str> {
        self.watch.violation().map(|violation| violation.oracle)
    }
}

#[test]
fn s3_is_a_block_that_changed_on_its_way() {
    let mut stage = Stage::new("").connected(SEED);
    stage.hears_block(3, true);
    assert_eq!(stage.broken(), None);
    stage.hears_block(3, false);
    assert_eq!(stage.broken(), Some("S3"));
}

#[test]
fn s4_is_a_request_while_the_disk_is_full() {
    let fault =
        "[[fault]]\nat = \"1 s\"\nkind = \"disk-full\"\npick = \"leech\"\nspace = \"1 B\"\nfor = \"9 s\"";
    for freed in [true, false] {
        let mut stage = Stage::new(fault).connected(SEED);
        stage.watch.on_fault_begun(1, 0);
        let work = Work::Record { good: Vec::new(), touched: Vec::new(), doubted: Vec::new() };
        let place = stage.place();
        stage.says(Output::Job { job: JobId(0), work: Job { place, work } });
        let error = StorageError { path: "a".to_owned(), kind: StorageErrorKind::Full };
        stage.takes(Input::JobDone { job: JobId(0), result: JobResult::Recorded(Err(error)) });
        if freed {
            stage.watch.on_fault_over(1, 0, 1);
        }
        stage.asks();
        assert_eq!(stage.broken(), (!freed).then_some("S4"));
    }
}

#[test]
fn s8_is_to_dial_whom_one_banned() {
    let mut stage = Stage::new("");
    stage.bans(LIAR);
    let remote = stage.address(SEED);
    stage.says(Output::Connect { connection: CONNECTION, remote });
    assert_eq!(stage.broken(), None);
    let remote = stage.address(LIAR);
    stage.says(Output::Connect { connection: ConnectionId::dialled(1), remote });
    assert_eq!(stage.broken(), Some("S8"));
}

#[test]
fn s19_is_to_ban_an_honest_peer() {
    let mut stage = Stage::new("");
    stage.bans(LIAR);
    assert_eq!(stage.broken(), None);
    stage.bans(SEED);
    assert_eq!(stage.broken(), Some("S19"));
}

const BANNED: &str = "[[expect]]\nbanned = { bad_pieces = 3 }";

#[test]
fn s20_is_a_fourth_bad_piece_of_one_liar() {
    let mut stage = Stage::new(BANNED).connected(LIAR);
    // Two that are under way already when the first is known, then one by one.
    for asked in [&[0, 1, 2][..], &[3], &[4], &[5]] {
        assert_eq!(stage.broken(), None, "{asked:?}");
        stage.now += 1;
        asked.iter().for_each(|piece| stage.asks_for(*piece));
        for piece in asked {
            stage.hears_block(*piece, false);
            stage.finds_bad(*piece);
        }
    }
    assert_eq!(stage.broken(), Some("S20"));
}

#[test]
fn s20_is_a_liar_who_hurt_and_was_not_banned() {
    for banned in [true, false] {
        let mut stage = Stage::new(BANNED).connected(LIAR);
        stage.hears_block(0, false);
        stage.finds_bad(0);
        stage.watch.hosts[LEECH].liars.on_good(0, 0);
        if banned {
            stage.bans(LIAR);
        }
        stage.watch.finish(1, &[&stage.disk; 3]);
        // What is left to say of a world in which nothing else happened.
        assert_eq!(stage.broken(), Some(if banned { "V5" } else { "S20" }));
    }
}

#[test]
fn v1_is_a_liar_who_hurt_nobody() {
    let mut stage = Stage::new(BANNED).connected(LIAR);
    stage.hears_block(0, false);
    stage.watch.finish(1, &[&stage.disk; 3]);
    assert_eq!(stage.broken(), Some("V1"));
}

#[test]
fn s13_is_a_file_that_is_none_of_ours() {
    use taipei_engine::disk::{At, Storage as _};
    for (root, broken) in [(crate::plan::ROOT, None), ("/elsewhere", Some("S13"))] {
        let mut stage = Stage::new("");
        let file = &stage.watch.materials.torrents[0].torrent_file;
        let layout = Metainfo::parse(file, PathRules::Unix).expect("our own").layout;
        let at = At { root, path: &layout.files()[0].path };
        stage.disk.write_at(at, 0, &[b"x"]).expect("there is room");
        stage.watch.recheck(1, LEECH, &stage.disk);
        assert_eq!(stage.broken(), broken, "{root}");
    }
}

#[test]
fn s15_is_what_is_left_after_a_stop() {
    for connected in [false, true] {
        let mut stage = Stage::new("");
        if connected {
            stage = stage.connected(SEED);
        }
        stage.says(Output::Alert(Alert::Stopped));
        assert_eq!(stage.broken(), connected.then_some("S15"));
    }
}

#[test]
fn s16_is_more_in_memory_than_the_budget_and_a_window_for_each() {
    let budget = Config::default().buffer_bytes;
    let window_and_block = (1 << 20) + (16 << 10);
    for (more, broken) in [(window_and_block, None), (window_and_block + 1, Some("S16"))] {
        let mut stage = Stage::new("").connected(SEED);
        stage.watch.check_memory(1, LEECH, budget + more);
        assert_eq!(stage.broken(), broken);
    }
    let mut stage = Stage::new("").connected(SEED);
    stage.says(Output::Close { connection: CONNECTION });
    stage.watch.check_memory(1, LEECH, budget + 1);
    assert_eq!(stage.broken(), None, "it came with what ended its connection");
    // What came over a connection that is gone goes on waiting for the disk, and nothing more does.
    for (between, broken) in [(budget + 2, None), (budget, Some("S16"))] {
        let mut stage = Stage::new("").connected(SEED);
        stage.watch.check_memory(1, LEECH, budget + 1);
        stage.says(Output::Close { connection: CONNECTION });
        for buffered in [between, budget + 1] {
            stage.watch.check_memory(1, LEECH, buffered);
        }
        assert_eq!(stage.broken(), broken);
    }
}

#[test]
fn s21_is_complete_without_all_pieces_or_twice() {
    let complete = || Output::Alert(Alert::Completed { torrent: TorrentId(0) });
    let mut early = Stage::new("");
    early.disk.fill();
    early.says(complete());
    assert_eq!(early.broken(), Some("S21"));
    let mut stage = Stage::new("");
    stage.disk.fill();
    for number in 0..8 {
        let piece = stage.piece(number);
        stage.says(Output::Alert(Alert::PieceFinished { torrent: TorrentId(0), piece }));
    }
    stage.says(complete());
    assert_eq!(stage.broken(), None);
    stage.says(complete());
    assert_eq!(stage.broken(), Some("S21"));
}

#[test]
fn s22_is_another_count_than_that_of_the_peers() {
    for (count, broken) in [(1, None), (0, Some("S22")), (2, Some("S22"))] {
        let mut stage = Stage::new("").connected(SEED);
        stage.watch.check_availability(1, LEECH, 0, &[1, 1, 1, 1, 1, 1, 1, count]);
        assert_eq!(stage.broken(), broken, "{count}");
    }
}

#[test]
fn s23_is_to_wait_for_more_than_was_asked_for() {
    let mut stage = Stage::new("").connected(SEED);
    stage.asks();
    stage.watch.check_requests(1, LEECH, 0, 1);
    assert_eq!(stage.broken(), None);
    let request = Request { piece: 0, begin: 0, length: 16_384 };
    stage.hears(vec![Message::RejectRequest(request)]);
    stage.watch.check_requests(1, LEECH, 0, 1);
    assert_eq!(stage.broken(), Some("S23"));
}

/// What a tracker over UDP answers: S9 when `started` may be said again after it.
fn told_by_udp(
    again_at: u64,
    sends: impl Fn(&mut Stage, SocketAddr, &dyn Fn(u32) -> Output),
) -> Option<&'static str> {
    let tracker = "[[actor]]\nkind = \"tracker\"\nname = \"t\"\nproto = \"udp\"";
    let mut stage = Stage::new(tracker);
    let remote = stage.watch.plan.trackers[0].address;
    let info_hash = stage.watch.materials.torrents[0].info_hash;
    let announce = |transaction| {
        let announce = AnnounceRequest {
            info_hash,
            peer_id: PeerId([b'x'; 20]),
            port: PEER_PORT,
            uploaded: 0,
            downloaded: 0,
            left: 1,
            event: Some(AnnounceEvent::Started),
            numwant: None,
            key: Some(1),
            compact: Some(true),
            no_peer_id: true,
            tracker_id: None,
            ip: None,
        };
        let request = UdpRequest::Announce {
            connection_id: 1,
            transaction,
            announce: Box::new(announce),
            url_data: Vec::new(),
        };
        Output::SendDatagram { remote, payload: request.encode().into() }
    };
    sends(&mut stage, remote, &announce);
    stage.now = again_at;
    stage.says(announce(99));
    stage.broken()
}

fn connect(remote: SocketAddr) -> Output {
    connect_again(remote, 1)
}

fn connect_again(remote: SocketAddr, transaction: u32) -> Output {
    Output::SendDatagram { remote, payload: UdpRequest::Connect { transaction }.encode().into() }
}

fn answers(remote: SocketAddr, answer: &UdpAnswer) -> Input {
    Input::Datagram { remote, payload: answer.encode(remote.is_ipv6()).into() }
}

fn taken(transaction: u32) -> UdpAnswer {
    UdpAnswer::Announced { transaction, interval: 60, leechers: 0, seeders: 0, peers: Vec::new() }
}

#[test]
fn s9_is_started_again_after_it_was_taken_over_udp() {
    let broken = told_by_udp(9 * SECOND, |stage, remote, announce| {
        stage.says(announce(2));
        stage.takes(answers(remote, &taken(2)));
    });
    assert_eq!(broken, Some("S9"));
}

/// Seeds 1629, 4206: two copies of one packet, one refused and one taken.
#[test]
fn what_was_refused_over_udp_is_taken_no_more_unless_it_is_asked_again() {
    for asked_again in [false, true] {
        let broken = told_by_udp(9 * SECOND, |stage, remote, announce| {
            stage.says(announce(2));
            stage.takes(answers(remote, &UdpAnswer::Failed { transaction: 2, message: "no".to_owned() }));
            if asked_again {
                stage.says(announce(2));
            }
            stage.takes(answers(remote, &taken(2)));
        });
        assert_eq!(broken, asked_again.then_some("S9"));
    }
}

/// Seed 3137: all that was under way is given up, whatever comes first.
#[test]
fn who_slept_takes_no_answer_over_udp_to_what_was_asked_before() {
    let broken = told_by_udp(40 * SECOND, |stage, remote, announce| {
        stage.says(announce(2));
        stage.watch.on_slept(LEECH);
        stage.takes(Input::Timeout);
        stage.takes(answers(remote, &taken(2)));
    });
    assert_eq!(broken, None);
}

/// Seed 379: of two torrents that wait for one connection id each began when it was asked for, at the earliest.
#[test]
fn patience_over_udp_counts_the_wait_for_a_connection_id_of_all_that_wait() {
    for (at, unsure) in [(46, true), (44, false)] {
        let broken = told_by_udp(60 * SECOND, |stage, remote, announce| {
            stage.says(connect(remote));
            stage.now = 30 * SECOND;
            stage.takes(answers(remote, &UdpAnswer::Connected { transaction: 1, connection_id: 1 }));
            stage.says(announce(2));
            stage.says(announce(3));
            stage.now = at * SECOND;
            stage.takes(answers(remote, &taken(3)));
        });
        assert_eq!(broken, (!unsure).then_some("S9"));
    }
}

/// Seeds 7580 and 10180: the answer to a connect of a question that was given up comes while the next one waits, which goes on
/// waiting, and is given up by its own beginning.
#[test]
fn a_connection_id_that_nobody_waits_for_ends_no_wait() {
    for (at, unsure) in [(96, true), (94, false)] {
        let broken = told_by_udp(100 * SECOND, |stage, remote, announce| {
            stage.says(connect_again(remote, 1));
            stage.now = 50 * SECOND;
            stage.says(connect_again(remote, 2));
            stage.now = 52 * SECOND;
            stage.takes(answers(remote, &UdpAnswer::Connected { transaction: 1, connection_id: 1 }));
            stage.takes(Input::Timeout);
            stage.now = 65 * SECOND;
            stage.says(connect_again(remote, 2));
            stage.now = 88 * SECOND;
            stage.takes(answers(remote, &UdpAnswer::Connected { transaction: 2, connection_id: 1 }));
            stage.says(announce(3));
            stage.now = at * SECOND;
            stage.takes(answers(remote, &taken(3)));
        });
        assert_eq!(broken, (!unsure).then_some("S9"), "{at}");
    }
}

/// Seed 17077: two torrents in turn keep one wait for a connection id going for longer than either waits. The one that is told
/// began when no connect had to be sent, because the other's was under way.
#[test]
fn nobody_knows_whose_wait_for_a_connection_id_it_is_once_it_is_longer_than_any() {
    for (same, broken) in [(true, None), (false, Some("S9"))] {
        let again = if same { 1 } else { 2 };
        let told = told_by_udp(110 * SECOND, |stage, remote, announce| {
            for (at, transaction) in [(0, 1), (15, 1), (45, again), (71, again)] {
                stage.now = at * SECOND;
                stage.says(connect_again(remote, transaction));
            }
            stage.now = 85 * SECOND;
            let transaction = again;
            stage.takes(answers(remote, &UdpAnswer::Connected { transaction, connection_id: 1 }));
            stage.says(announce(3));
            stage.now = 89 * SECOND;
            stage.takes(answers(remote, &taken(3)));
        });
        assert_eq!(told, broken);
    }
}

#[test]
fn l2_is_nothing_from_a_peer_that_has_it() {
    for fed in [true, false] {
        let mut stage = Stage::new("").connected(SEED);
        stage.is_in_pair();
        stage.watch.pulse(2 * SECOND);
        if fed {
            stage.watch.hosts[LEECH].fed_at = 100 * SECOND;
        }
        stage.watch.pulse(130 * SECOND);
        assert_eq!(stage.broken(), (!fed).then_some("L2"));
    }
}

/// Seed 6902.
#[test]
fn who_waits_for_its_disk_offers_nothing() {
    let mut stage = Stage::new("").connected(SEED);
    stage.watch.on_start(0, SEED);
    stage.is_in_pair();
    stage.watch.pulse(2 * SECOND);
    stage.watch.hosts[SEED].process.as_mut().expect("runs").waits_for_disk.insert(0);
    stage.watch.pulse(130 * SECOND);
    assert_eq!(stage.broken(), None);
    stage.watch.hosts[SEED].process.as_mut().expect("runs").waits_for_disk.clear();
    stage.watch.pulse(131 * SECOND);
    stage.watch.pulse(258 * SECOND);
    assert_eq!(stage.broken(), Some("L2"));
}

#[test]
fn l3_is_to_be_interested_and_choked_for_too_long() {
    for served in [true, false] {
        let turn = "[[expect]]\nturn = { by = \"leech\", within = \"30 s\" }";
        let mut stage = Stage::new(turn).connected(SEED);
        stage.hears(vec![Message::Interested]);
        if served {
            stage.says(Output::Send { connection: CONNECTION, messages: vec![Message::Unchoke] });
        }
        stage.watch.pulse(31 * SECOND);
        assert_eq!(stage.broken(), (!served).then_some("L3"));
    }
}

#[test]
fn l4_is_to_wake_often_for_nothing() {
    for (wakes, broken) in [(100, None), (1000, Some("L4"))] {
        let mut stage = Stage::new("");
        stage.watch.pulse(60 * SECOND);
        stage.watch.minute.wakes = wakes;
        stage.watch.pulse(120 * SECOND);
        assert_eq!(stage.broken(), broken);
    }
}

/// Seed 5844: a tracker that made up five hundred peers.
#[test]
fn who_wakes_to_dial_somebody_new_wakes_for_something() {
    // Each is given up as well.
    for (dialled, wakes, broken) in [(900, 1800, None), (900, 2800, Some("L4")), (1, 1000, Some("L4"))] {
        let mut stage = Stage::new("");
        stage.watch.pulse(60 * SECOND);
        stage.watch.minute.wakes = wakes;
        for step in 0..900 {
            let port = 1 + (step % dialled) as u16;
            stage.watch.minute.on_dialled(step + 1, LEECH, ([8, 8, 8, 8], port).into());
        }
        stage.watch.pulse(120 * SECOND);
        assert_eq!(stage.broken(), broken);
    }
}

#[test]
fn l6_is_not_to_be_back_long_after_a_silence() {
    let fault = "[[fault]]\nat = \"1 s\"\nkind = \"silence\"\npick = \"leech\"\nfor = \"9 s\"";
    for heard in [true, false] {
        let mut stage = Stage::new(fault).connected(SEED);
        stage.watch.on_start(0, SEED);
        stage.watch.hosts[SEED].have.insert(0, (0..8).collect());
        stage.watch.on_fault_begun(SECOND, 0);
        stage.watch.on_fault_over(10 * SECOND, 0, 1);
        if heard {
            stage.watch.on_heard(11 * SECOND, LEECH, SEED);
        }
        stage.watch.pulse(89 * SECOND);
        assert_eq!(stage.broken(), (!heard).then_some("L6"));
    }
}

/// Seed 558.
#[test]
fn who_waits_for_its_disk_need_not_be_back_until_that_is_over() {
    let fault = "[[fault]]\nat = \"1 s\"\nkind = \"silence\"\npick = \"leech\"\nfor = \"9 s\"";
    let mut stage = Stage::new(fault).connected(SEED);
    stage.watch.on_start(0, SEED);
    stage.watch.hosts[SEED].have.insert(0, (0..8).collect());
    stage.watch.on_fault_begun(SECOND, 0);
    stage.watch.on_fault_over(10 * SECOND, 0, 1);
    stage.watch.hosts[LEECH].process.as_mut().expect("runs").waits_for_disk.insert(0);
    stage.watch.pulse(300 * SECOND);
    stage.watch.hosts[LEECH].process.as_mut().expect("runs").waits_for_disk.clear();
    stage.watch.pulse(359 * SECOND);
    assert_eq!(stage.broken(), None);
    stage.watch.pulse(361 * SECOND);
    assert_eq!(stage.broken(), Some("L6"));
}

#[test]
fn l7_is_a_shutdown_without_an_end() {
    for stopped in [true, false] {
        let mut stage = Stage::new("");
        stage.takes(Input::Command(taipei_engine::Command::Shutdown));
        if stopped {
            stage.says(Output::Alert(Alert::Stopped));
        }
        stage.watch.pulse(31 * SECOND);
        assert_eq!(stage.broken(), (!stopped).then_some("L7"));
    }
}
