//! Hostile and idle peers, the queue and the goals: scripted peers against a whole engine.

use std::time::Duration;

use bytes::Bytes;

use super::tests::{BLOCKS, Bench, TORRENT, address, torrent_file};
use super::*;
use crate::alert::TorrentState;
use crate::command::{Priority, SeedGoal};
use crate::config::RateLimits;
use crate::disk::{JobResult, Opened, Saved, StorageError, StorageErrorKind, Totals, Work};
use crate::input::CloseReason;
use crate::limits::{
    BLOCK_BYTES, CHOKED_REQUESTS_MAX, IDLE_MESSAGES_MAX, KEEP_OUT_TIME, REPEATED_REQUESTS_MAX,
};
use crate::rng::Rng;
use crate::tracker_server::{TrackerConfig, TrackerServer};
use crate::wire::{ExtendedHandshake, Handshake, Request, Reserved};

fn seeding(pieces: u32) -> Bench {
    Bench::new(pieces, &(0..pieces).collect::<Vec<_>>(), &[])
}

/// A peer that dialled us, with the fast extension or without.
fn guest(bench: &mut Bench, n: u8, fast: bool) -> ConnectionId {
    let connection = ConnectionId::accepted(u64::from(n));
    bench.input(Input::Accepted { connection, remote: SocketAddr::from(([8, n, 8, n], 6881)) });
    let reserved = if fast { Reserved::OURS } else { Reserved([0; 8]) };
    let handshake = Handshake { reserved, info_hash: bench.info_hash, peer_id: PeerId([n; 20]) };
    bench.say(connection, vec![Message::Handshake(handshake)]);
    connection
}

fn request(piece: u32, block: u32) -> Request {
    Request { piece, begin: block * BLOCK_BYTES, length: BLOCK_BYTES }
}

fn is_seeding_alert(alert: &Alert) -> bool {
    matches!(alert, Alert::StateChanged { state: TorrentState::Seeding, .. })
}

#[test]
fn requests_out_of_bounds_end_the_connection() {
    for bad in [
        Request { piece: 4, begin: 0, length: 1 },
        Request { piece: 3, begin: BLOCKS * BLOCK_BYTES - 1, length: 2 },
        Request { piece: 0, begin: u32::MAX, length: 16384 },
        Request { piece: 0, begin: 0, length: 0 },
        Request { piece: 0, begin: 0, length: (128 << 10) + 1 },
    ] {
        let mut bench = seeding(4);
        let peer = guest(&mut bench, 1, true);
        bench.say(peer, vec![Message::Interested, Message::Request(bad)]);
        assert!(bench.closed.contains(&peer), "{bad:?}");
        assert_eq!(bench.jobs.iter().filter(|(_, work)| matches!(work, Work::Read { .. })).count(), 0);
    }
}

#[test]
fn requests_while_choked_are_refused_and_a_flood_of_them_ends_the_connection() {
    for fast in [true, false] {
        let mut bench = seeding(40);
        let peer = guest(&mut bench, 1, fast);
        bench.take_sent(peer);
        let allowed = 10 * BLOCKS;
        for _ in 0..CHOKED_REQUESTS_MAX {
            bench.say(peer, vec![Message::Request(request(39, 0))]);
        }
        assert!(!bench.closed.contains(&peer));
        let rejects = bench.take_sent(peer).iter().filter(|m| matches!(m, Message::RejectRequest(_))).count();
        assert_eq!(rejects > 0, fast);
        bench.say(peer, vec![Message::Request(request(39, 0)); 1 + allowed as usize]);
        assert!(bench.closed.contains(&peer));
    }
}

#[test]
fn the_same_request_ten_thousand_times_is_bounded() {
    let mut bench = seeding(4);
    bench.disk_asleep = true;
    let peer = guest(&mut bench, 1, true);
    bench.say(peer, vec![Message::HaveNone, Message::Interested]);
    bench.say(peer, vec![Message::Request(request(0, 0)); 10_000]);
    assert!(bench.closed.contains(&peer));
    let read: usize = bench
        .jobs
        .iter()
        .map(|(_, work)| if let Work::Read { blocks } = work { blocks.len() } else { 0 })
        .sum();
    assert!(read <= 64, "a socket's worth is read: {read}");
}

#[test]
fn requests_that_come_together_are_read_together() {
    let mut bench = seeding(40);
    bench.disk_asleep = true;
    let peer = guest(&mut bench, 1, true);
    bench.say(peer, vec![Message::HaveNone, Message::Interested]);
    bench.input(Input::Sent { connection: peer, written_bytes: 64 << 20 });
    let together = (0..16).map(|n| Message::Request(request(n / BLOCKS, n % BLOCKS))).collect();
    bench.say(peer, together);
    let reads = bench.jobs.iter().filter_map(|(_, work)| match work {
        Work::Read { blocks } => Some(blocks.len()),
        _ => None,
    });
    assert_eq!(reads.collect::<Vec<_>>(), [16]);
}

#[test]
fn what_a_peer_has_must_be_of_this_torrent() {
    let bits = |bytes: &'static [u8]| Message::Bitfield(Bytes::from_static(bytes));
    let bad: [Vec<Message>; 6] = [
        vec![Message::Have(12)],
        vec![Message::Have(u32::MAX)],
        vec![bits(&[0xff])],
        vec![bits(&[0xff, 0xf0, 0])],
        vec![bits(&[])],
        vec![bits(&[0xff, 0xf8])],
    ];
    for messages in bad {
        let mut bench = Bench::new(12, &[], &[1, 2]);
        let liar = bench.answer(0, messages.clone());
        assert!(bench.closed.contains(&liar), "{messages:?}");
        // What it said is no longer counted: an honest peer's pieces come all the same.
        let honest = bench.answer(1, vec![Message::HaveAll, Message::Unchoke]);
        bench.give_all(honest);
        assert_eq!(bench.have(), 12);
    }
}

/// As aria2 sends it, where that is shorter than many haves.
#[test]
fn a_second_bitfield_adds_and_never_takes_away() {
    let bits = |bytes: &'static [u8]| Message::Bitfield(Bytes::from_static(bytes));
    for later in [bits(&[0x0f, 0xf0]), Message::HaveAll] {
        let mut bench = Bench::new(12, &[], &[1]);
        let said = vec![bits(&[0xf0, 0]), Message::Unchoke, later, Message::HaveNone, bits(&[0, 0])];
        let peer = bench.answer(0, said);
        bench.give_all(peer);
        assert_eq!(bench.have(), 12);
    }
    let mut bench = Bench::new(12, &[], &[1]);
    let flood = bench.answer(0, vec![bits(&[0, 0]); 100_000]);
    assert!(bench.closed.contains(&flood));
}

#[test]
fn floods_of_messages_that_change_nothing_end_the_connection() {
    for message in [
        Message::Have(1),
        Message::KeepAlive,
        Message::Interested,
        Message::NotInterested,
        Message::Choke,
        Message::Unchoke,
        Message::SuggestPiece(1),
        Message::AllowedFast(1),
        Message::Port(1),
        Message::Unknown(99),
        Message::ExtendedHandshake(Box::default()),
    ] {
        let mut bench = Bench::new(12, &[], &[1]);
        let peer = bench.answer(0, vec![Message::HaveNone]);
        bench.say(peer, vec![message.clone(); IDLE_MESSAGES_MAX as usize / 2]);
        assert!(!bench.closed.contains(&peer), "{message:?}");
        bench.pass(Duration::from_secs(61));
        bench.say(peer, vec![message.clone(); IDLE_MESSAGES_MAX as usize - 1]);
        assert!(!bench.closed.contains(&peer), "{message:?} after a while");
        bench.say(peer, vec![message.clone(); 3]);
        assert!(bench.closed.contains(&peer), "{message:?}");
    }
}

#[test]
fn reqq_is_clamped() {
    for (reqq, most) in [(0, 1), (-5, 1), (1, 1), (3, 3), (1 << 31, 500), (i64::MAX, 500)] {
        let mut bench = Bench::new(400, &[], &[1]);
        let hello = ExtendedHandshake { reqq: Some(reqq), ..Default::default() };
        let hello = Message::ExtendedHandshake(Box::new(hello));
        let peer = bench.answer(0, vec![hello, Message::HaveAll, Message::Unchoke]);
        let mut out = 0;
        for _ in 0..300 {
            let requests = bench.take_requests(peer);
            out = out.max(requests.len());
            if requests.is_empty() {
                break;
            }
            bench.now = bench.now + Duration::from_millis(1);
            bench.give(peer, &requests);
            bench.disk();
        }
        assert!(out >= 1 && out <= most, "{reqq}: {out}");
    }
}

#[test]
fn five_hundred_silent_peers_keep_no_honest_one_out() {
    let mut bench = seeding(4);
    for n in 0..500u64 {
        let remote = SocketAddr::from(([7, (n >> 8) as u8, n as u8, 1], 1000));
        bench.input(Input::Accepted { connection: ConnectionId::accepted(1000 + n), remote });
    }
    assert_eq!(bench.closed.len(), 400, "the oldest make room");
    let honest = guest(&mut bench, 1, true);
    bench.say(honest, vec![Message::HaveNone, Message::Interested]);
    assert!(!bench.closed.contains(&honest));
    assert!(bench.take_sent(honest).contains(&Message::Unchoke));
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.closed.len(), 500, "all others are gone after ten seconds");
}

#[test]
fn silent_peers_of_one_range_push_out_each_other_only() {
    let mut bench = seeding(4);
    let other = ConnectionId::accepted(1);
    bench.input(Input::Accepted { connection: other, remote: address(1) });
    for n in 0..200u64 {
        let remote = SocketAddr::from(([7, 7, 7, n as u8], 1000));
        bench.input(Input::Accepted { connection: ConnectionId::accepted(1000 + n), remote });
    }
    assert!(!bench.closed.contains(&other));
}

#[test]
fn connections_of_one_public_address_are_few() {
    let mut bench = seeding(4);
    let mut join = |n: u8, ip: [u8; 4]| {
        let connection = ConnectionId::accepted(u64::from(n));
        bench.input(Input::Accepted { connection, remote: SocketAddr::from((ip, 1000 + u16::from(n))) });
        let handshake = bench.handshake(PeerId([n; 20]));
        bench.say(connection, vec![handshake]);
        !bench.closed.contains(&connection)
    };
    assert_eq!((0..10).filter(|n| join(*n, [9, 9, 9, 9])).count(), 3);
    assert_eq!((10..20).filter(|n| join(*n, [192, 168, 0, 1])).count(), 10, "local networks are spared");
}

#[test]
fn nobody_who_downloads_nothing_is_unchoked() {
    let mut bench = Bench::new(4, &[0], &[1, 2]);
    let hello = ExtendedHandshake { upload_only: Some(true), ..Default::default() };
    let partial = vec![Message::ExtendedHandshake(Box::new(hello)), Message::HaveNone, Message::Interested];
    let partial = bench.answer(0, partial);
    let seed = bench.answer(1, vec![Message::HaveAll, Message::Interested]);
    bench.pass(Duration::from_secs(35));
    for peer in [partial, seed] {
        assert!(!bench.take_sent(peer).contains(&Message::Unchoke));
    }
}

#[test]
fn a_silent_peer_is_gone_after_two_minutes() {
    // Features 1.4, hole 12: by elapsed time, whatever the clock shows.
    for start in [0, 30, 59, 60] {
        let mut bench = Bench::new(4, &[], &[]);
        bench.pass(Duration::from_secs(start));
        let peer = guest(&mut bench, 1, true);
        bench.pass(Duration::from_secs(119));
        assert!(!bench.closed.contains(&peer));
        bench.pass(Duration::from_secs(2));
        assert!(bench.closed.contains(&peer));
    }
}

#[test]
fn whom_nobody_wants_makes_room_when_it_is_full() {
    for (room, gone) in [(1, true), (2, false)] {
        let config = Config { peers_per_torrent_max: room, ..Config::default() };
        let mut bench = Bench::with(config, 4, &[], &[]);
        let peer = guest(&mut bench, 1, true);
        for _ in 0..12 {
            bench.say(peer, vec![Message::KeepAlive]);
            bench.pass(Duration::from_secs(60));
        }
        assert_eq!(bench.closed.contains(&peer), gone, "room for {room}");
    }
}

#[test]
fn a_bitfield_goes_out_once_and_without_waiting_for_an_extended_handshake() {
    // Features 1.4, hole 9.
    let mut bench = Bench::new(12, &[3], &[]);
    let peer = guest(&mut bench, 1, true);
    let hello = || Message::ExtendedHandshake(Box::default());
    let is_bitfield = |message: &Message| matches!(message, Message::Bitfield(_));
    assert_eq!(bench.take_sent(peer).iter().filter(|message| is_bitfield(message)).count(), 1);
    bench.say(peer, vec![hello(), hello(), Message::Extended { id: 1, payload: Bytes::new() }]);
    assert!(!bench.take_sent(peer).iter().any(is_bitfield));
}

#[test]
fn a_dialled_peer_of_another_torrent_or_without_a_word_is_dropped() {
    // Features 1.4, hole 10.
    let mut bench = Bench::new(4, &[], &[1, 2]);
    let (wrong, silent) = (bench.dialled[0].0, bench.dialled[1].0);
    for connection in [wrong, silent] {
        bench.input(Input::Connected { connection, local: address(200) });
    }
    let other = InfoHash([9; 20]);
    let handshake = Handshake { reserved: Reserved::OURS, info_hash: other, peer_id: PeerId([1; 20]) };
    bench.say(wrong, vec![Message::Handshake(handshake)]);
    assert!(bench.closed.contains(&wrong));
    bench.pass(Duration::from_secs(10));
    assert!(bench.closed.contains(&silent));
}

#[test]
fn a_dial_that_never_ends_is_given_up_and_waits_longer_each_time() {
    // Features 1.4, holes 10 and 16.
    let mut bench = Bench::new(4, &[], &[1]);
    bench.pass(Duration::from_secs(11));
    assert!(bench.closed.contains(&bench.dialled[0].0));
    bench.pass(Duration::from_secs(3600));
    assert!((3..=6).contains(&bench.dialled.len()), "{}", bench.dialled.len());
}

fn add(bench: &mut Bench, n: u32, change: impl FnOnce(&mut AddTorrent)) {
    let mut add = AddTorrent::new(TorrentId(n), torrent_file(n + 1), "/out".into());
    change(&mut add);
    bench.input(Input::Command(Command::AddTorrent(Box::new(add))));
}

fn open(bench: &mut Bench, have: Option<u32>) {
    let at = bench.jobs.iter().position(|(_, work)| matches!(work, Work::Open { .. })).expect("it begins");
    let (job, _) = bench.jobs.remove(at).unwrap();
    let pieces = have.unwrap_or(0);
    let torrent = bench.engine.routes.jobs[&job];
    let count = bench.engine.have(torrent).unwrap().piece_count();
    let have = if pieces > 0 { Bitfield::full(count) } else { Bitfield::new(count) };
    let opened =
        Opened { have, unchecked: Bitfield::new(count), totals: Totals::default(), saved: Saved::Begun };
    bench.input(Input::JobDone { job, result: JobResult::Opened(Ok(opened)) });
}

/// What is asked of the disk from the end of its opening until all is stopped, of a torrent that is whole.
fn asked_of_disk(saved: Saved) -> Vec<&'static str> {
    let mut bench = Bench::with(Config::default(), 1, &[0], &[]);
    bench.disk_asleep = true;
    add(&mut bench, 1, |_| ());
    let at = bench.jobs.iter().position(|(_, work)| matches!(work, Work::Open { .. })).expect("it begins");
    let (job, _) = bench.jobs.remove(at).unwrap();
    let opened =
        Opened { have: Bitfield::full(2), unchecked: Bitfield::new(2), totals: Totals::default(), saved };
    bench.input(Input::JobDone { job, result: JobResult::Opened(Ok(opened)) });
    let of_it = |bench: &mut Bench| {
        let torrents = &bench.engine.routes.jobs;
        let works = bench.jobs.drain(..).collect::<Vec<_>>();
        works.into_iter().filter(|(job, _)| torrents[job] == TorrentId(1)).collect::<Vec<_>>()
    };
    let mut asked = Vec::new();
    for _ in 0..30 {
        bench.pass(Duration::from_secs(1));
        for (job, work) in of_it(&mut bench) {
            let (word, result) = match work {
                Work::Snapshot { .. } => ("snapshot", JobResult::Saved(Ok(()))),
                other => panic!("{other:?}"),
            };
            asked.push(word);
            bench.input(Input::JobDone { job, result });
        }
    }
    bench.input(Input::Command(Command::RemoveTorrent { torrent: TorrentId(1) }));
    asked.extend(of_it(&mut bench).into_iter().map(|(_, work)| match work {
        Work::Snapshot { close: true, .. } => "snapshot to close with",
        Work::Close => "close",
        other => panic!("{other:?}"),
    }));
    asked
}

#[test]
fn a_seed_that_is_as_it_was_closed_writes_nothing() {
    assert_eq!(asked_of_disk(Saved::Begun), ["snapshot", "snapshot to close with"]);
    assert_eq!(asked_of_disk(Saved::AsClosed), ["close"]);
    assert_eq!(asked_of_disk(Saved::Nowhere), ["close"]);
}

fn state(bench: &Bench, n: u32) -> TorrentState {
    bench.engine.torrents[&TorrentId(n)].stats(bench.now).state
}

#[test]
fn torrents_wait_in_order_and_begin_as_others_complete_or_leave() {
    let config = Config { active_max: 1, ..Config::default() };
    let mut bench = Bench::with(config, 1, &[], &[1]);
    (1..4).for_each(|n| add(&mut bench, n, |_| ()));
    assert!((1..4).all(|n| state(&bench, n) == TorrentState::Queued));
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(seed);
    assert_eq!(
        [1, 2, 3].map(|n| state(&bench, n)),
        [TorrentState::Opening, TorrentState::Queued, TorrentState::Queued]
    );
    // One that waits leaves at once, and the next is not held up by it.
    bench.input(Input::Command(Command::RemoveTorrent { torrent: TorrentId(2) }));
    assert_eq!(bench.count(|alert| *alert == Alert::Removed { torrent: TorrentId(2) }), 1);
    let (job, _) = bench.jobs.iter().find(|(_, work)| matches!(work, Work::Open { .. })).cloned().unwrap();
    bench.jobs.retain(|(other, _)| *other != job);
    let gone = StorageError { path: "/out".into(), kind: StorageErrorKind::NotFound };
    bench.input(Input::JobDone { job, result: JobResult::Opened(Err(gone)) });
    assert_eq!(state(&bench, 3), TorrentState::Opening, "after one that could not be opened");
}

#[test]
fn one_that_gets_nowhere_makes_others_wait_for_half_an_hour() {
    let config = || Config { active_max: 1, ..Config::default() };
    let mut bench = Bench::with(config(), 3, &[], &[1]);
    add(&mut bench, 1, |_| ());
    bench.pass(Duration::from_secs(1790));
    assert_eq!(state(&bench, 1), TorrentState::Queued);
    bench.pass(Duration::from_secs(600));
    assert_eq!(state(&bench, 1), TorrentState::Opening);

    let mut bench = Bench::with(config(), 3, &[], &[1]);
    add(&mut bench, 1, |_| ());
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    let requests = bench.take_requests(seed);
    bench.give(seed, &requests);
    assert_eq!(state(&bench, 1), TorrentState::Queued);
    let at = bench.jobs.iter().position(|(_, work)| matches!(work, Work::Hash { .. })).unwrap();
    let (job, _) = bench.jobs.remove(at).unwrap();
    let error = StorageError { path: "/out/x".into(), kind: StorageErrorKind::Io };
    bench.input(Input::JobDone { job, result: JobResult::Hashed(Err(error)) });
    assert_eq!([0, 1].map(|n| state(&bench, n)), [TorrentState::DiskError, TorrentState::Queued]);
    bench.disk_asleep = true;
    bench.pass(Duration::from_secs(2400));
    assert_eq!([0, 1].map(|n| state(&bench, n)), [TorrentState::DiskError, TorrentState::Opening]);
}

/// Lets a tracker hear everything that the engine says, and answer.
fn track(bench: &mut Bench, tracker: &mut TrackerServer) {
    while let Some((remote, payload)) = bench.datagrams.pop_front() {
        let answer = tracker.handle_udp(bench.now, address(200), &payload).unwrap();
        bench.input(Input::Datagram { remote, payload: answer.into() });
    }
}

fn tracked(pieces: u32, have: &[u32], change: impl FnOnce(&mut AddTorrent)) -> (Bench, TrackerServer) {
    let mut add = AddTorrent::new(TORRENT, torrent_file(pieces), "/out".into());
    add.extra_trackers = vec!["udp://9.9.9.9:6969/announce".to_owned()];
    add.peers = vec![address(1)];
    change(&mut add);
    let mut bench = Bench::just_added(Config::default(), add);
    bench.input(Input::Listening { port: 6881, families: (true, false) });
    bench.open(pieces, have, &[]);
    let mut tracker = TrackerServer::new(TrackerConfig::default(), Rng::stream(1, "tracker", 0));
    track(&mut bench, &mut tracker);
    (bench, tracker)
}

#[test]
fn what_was_whole_from_the_start_is_not_told_as_completed() {
    let (mut bench, mut tracker) = tracked(2, &[0, 1], |_| ());
    let priorities = vec![Priority::High];
    bench.input(Input::Command(Command::SetPriorities { torrent: TORRENT, priorities }));
    bench.pass(Duration::from_secs(60));
    track(&mut bench, &mut tracker);
    let stats = tracker.stats()[&bench.info_hash];
    assert_eq!((stats.started, stats.completed), (1, 0));
}

#[test]
fn what_is_wanted_after_the_seeding_goal_is_fetched() {
    let (mut bench, mut tracker) = tracked(2, &[], |add| {
        add.priorities = vec![Priority::Skip];
        add.seed_goal = SeedGoal { ratio_permille: Some(1000), time: None };
    });
    assert_eq!(state(&bench, 0), TorrentState::Finished, "of nothing all was sent");
    bench.pass(Duration::from_secs(60));
    track(&mut bench, &mut tracker);
    let dialled = bench.dialled.len();
    let before = tracker.stats().get(&bench.info_hash).map_or(0, |stats| stats.started);
    let priorities = vec![Priority::Normal];
    bench.input(Input::Command(Command::SetPriorities { torrent: TORRENT, priorities }));
    assert_eq!(state(&bench, 0), TorrentState::Downloading);
    track(&mut bench, &mut tracker);
    assert_eq!(tracker.stats()[&bench.info_hash].started, before + 1);
    let seed = bench.answer(dialled, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(seed);
    track(&mut bench, &mut tracker);
    assert_eq!((bench.have(), state(&bench, 0)), (2, TorrentState::Seeding));
    let stats = tracker.stats()[&bench.info_hash];
    assert_eq!(stats.completed, 1);
}

#[test]
fn a_torrent_whole_from_the_start_reaches_its_ratio() {
    // Features 1.4, hole 20: the ratio is of what is wanted, not of what was downloaded.
    let mut bench = seeding(1);
    add(&mut bench, 1, |add| add.seed_goal = SeedGoal { ratio_permille: Some(1000), time: None });
    open(&mut bench, Some(2));
    assert_eq!(bench.count(is_seeding_alert), 2);
    let connection = ConnectionId::accepted(1);
    bench.input(Input::Accepted { connection, remote: address(1) });
    let info_hash = bench.engine.torrents[&TorrentId(1)].info_hash();
    let handshake = Handshake { reserved: Reserved::OURS, info_hash, peer_id: PeerId([3; 20]) };
    bench.say(connection, vec![Message::Handshake(handshake), Message::HaveNone, Message::Interested]);
    for (n, piece) in [(0, 0), (1, 1)] {
        let requests = (0..BLOCKS).map(|block| Message::Request(request(piece, block)));
        bench.say(connection, requests.collect());
        bench.disk();
        assert_eq!(state(&bench, 1) == TorrentState::Finished, n == 1);
    }
    assert!(bench.closed.contains(&connection));
    let refused = guest(&mut bench, 5, true);
    assert!(!bench.closed.contains(&refused), "the other torrent goes on");
    bench.input(Input::Command(Command::RemoveTorrent { torrent: TorrentId(1) }));
    let closing =
        |bench: &Bench| bench.jobs.iter().any(|(_, work)| matches!(work, Work::Snapshot { close: true, .. }));
    bench.disk_asleep = true;
    bench.pass(Duration::from_secs(10));
    assert!(closing(&bench) || bench.count(|alert| matches!(alert, Alert::Removed { .. })) == 1);
}

#[test]
fn seeding_ends_after_its_time() {
    let mut bench = seeding(1);
    let time = Some(Duration::from_secs(600));
    add(&mut bench, 1, |add| add.seed_goal = SeedGoal { ratio_permille: None, time });
    open(&mut bench, Some(2));
    bench.pass(Duration::from_secs(599));
    assert_eq!(state(&bench, 1), TorrentState::Seeding);
    bench.pass(Duration::from_secs(2));
    assert_eq!([0, 1].map(|n| state(&bench, n)), [TorrentState::Seeding, TorrentState::Finished]);
}

#[test]
fn under_our_own_limit_who_talks_and_sends_nothing_is_taken_for_silent() {
    let limits = RateLimits { download: Some(1 << 20), upload: None };
    let mut bench = Bench::with(Config { limits, ..Config::default() }, 1, &[], &[]);
    // As many as are asked for one block at once.
    let talkers = [1, 2, 3, 4].map(|n| guest(&mut bench, n, true));
    for talker in talkers {
        bench.say(talker, vec![Message::HaveAll, Message::Unchoke]);
    }
    for _ in 0..30 {
        bench.pass(Duration::from_secs(2));
        talkers.iter().for_each(|talker| bench.say(*talker, vec![Message::KeepAlive]));
    }
    let seed = guest(&mut bench, 5, true);
    bench.say(seed, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(seed);
    assert_eq!(bench.have(), 1);
}

#[test]
fn a_peer_under_our_own_limit_is_not_taken_for_silent() {
    let limits = RateLimits { download: Some(1 << 10), upload: None };
    let mut bench = Bench::with(Config { limits, ..Config::default() }, 3, &[], &[1]);
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    assert_eq!(bench.take_requests(seed).len(), 1, "no more than comes soon");
    for _ in 0..64 {
        // Parts of a block, as they are let in.
        bench.pass(Duration::from_secs(10));
        bench.input(Input::Received { connection: seed, read_bytes: 256, messages: Vec::new() });
    }
    assert!(!bench.closed.contains(&seed));
    assert!(bench.take_requests(seed).is_empty(), "nor asked again");
}

#[test]
fn ten_thousand_idle_torrents_cost_nothing() {
    let mut bench = seeding(1);
    let config = Config { active_max: 1, ..Config::default() };
    bench.engine.queue = Queue::new(config.active_max);
    (1..200).for_each(|n| add(&mut bench, n, |_| ()));
    for _ in 1..200 {
        open(&mut bench, Some(1));
    }
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.count(is_seeding_alert), 200);
    assert_eq!(bench.engine.poll_timeout(), None, "no timer while nothing happens");
}

#[test]
fn who_was_banned_can_be_talked_to_again() {
    let mut bench = Bench::new(2, &[], &[1]);
    bench.bad = vec![0];
    let liar = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(liar);
    let banned = Alert::PeerBanned { torrent: TORRENT, address: address(1) };
    assert_eq!(bench.count(|alert| *alert == banned), 1);
    bench.input(Input::Closed { connection: liar, reason: CloseReason::EndOfStream });
    bench.input(Input::Command(Command::Unban { address: address(1) }));
    assert_eq!(bench.dialled.len(), 2);
}

// Found by fuzz-small, seed 104.
#[test]
fn who_lied_in_one_torrent_is_kept_out_in_all() {
    let mut bench = Bench::new(2, &[], &[1]);
    bench.bad = vec![0];
    add(&mut bench, 1, |_| ());
    let liar = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(liar);
    add(&mut bench, 2, |_| ());
    let peers = vec![address(1)];
    for torrent in [1, 2].map(TorrentId) {
        bench.input(Input::Command(Command::AddPeers { torrent, peers: peers.clone() }));
    }
    assert_eq!(bench.dialled.len(), 1);
    bench.input(Input::Command(Command::Unban { address: address(1) }));
    bench.input(Input::Command(Command::AddPeers { torrent: TorrentId(2), peers }));
    bench.pass(Duration::from_secs(1));
    assert!(bench.dialled.len() > 1);
}

/// After a power cut: the old connection says nothing any more, but nobody told us that it ended.
#[test]
fn who_came_anew_from_an_address_is_served_at_once_though_its_old_connection_has_a_slot() {
    let mut bench = Bench::new(2, &[0, 1], &[]);
    let come = |bench: &mut Bench, number: u64, id: u8| {
        let connection = ConnectionId::accepted(number);
        let remote = SocketAddr::from(([9, 9, 9, 9], 1000 + number as u16));
        bench.input(Input::Accepted { connection, remote });
        let hello = bench.handshake(PeerId([id; 20]));
        bench.say(connection, vec![hello, Message::HaveNone, Message::Interested]);
        connection
    };
    let old = come(&mut bench, 0, 1);
    assert!(bench.sent[&old].contains(&Message::Unchoke));
    bench.pass(Duration::from_secs(5));
    let new = come(&mut bench, 1, 2);
    assert!(bench.sent[&new].contains(&Message::Unchoke));
    bench.pass(Duration::from_secs(15));
    assert!(!bench.sent[&new].contains(&Message::Choke));
}

#[test]
fn who_asks_for_the_same_again_and_again_is_dropped_and_not_let_in_for_a_while() {
    let mut bench = seeding(40);
    let peer = guest(&mut bench, 1, true);
    bench.say(peer, vec![Message::HaveNone, Message::Interested]);
    for round in 0..=REPEATED_REQUESTS_MAX {
        assert!(!bench.closed.contains(&peer), "{round}");
        bench.say(peer, vec![Message::Request(request(0, 0))]);
        bench.disk();
    }
    bench.say(peer, vec![Message::Request(request(0, 0))]);
    assert!(bench.closed.contains(&peer));
    let again = |bench: &mut Bench, n| {
        let connection = ConnectionId::accepted(n);
        bench.input(Input::Accepted { connection, remote: SocketAddr::from(([8, 1, 8, 1], 7000)) });
        let info_hash = bench.info_hash;
        let handshake = Handshake { reserved: Reserved::OURS, info_hash, peer_id: PeerId([9; 20]) };
        bench.say(connection, vec![Message::Handshake(handshake)]);
        !bench.closed.contains(&connection)
    };
    assert!(!again(&mut bench, 50));
    bench.pass(KEEP_OUT_TIME);
    assert!(again(&mut bench, 51));
}

#[test]
fn who_asks_for_all_of_it_twice_is_served_twice() {
    for pieces in [100, 32, 16] {
        let mut bench = seeding(pieces);
        let peer = guest(&mut bench, 1, true);
        bench.say(peer, vec![Message::HaveNone, Message::Interested]);
        for _ in 0..2 {
            for piece in 0..pieces {
                let blocks = (0..BLOCKS).map(|block| Message::Request(request(piece, block)));
                bench.say(peer, blocks.collect());
                bench.disk();
            }
        }
        assert!(!bench.closed.contains(&peer), "{pieces}");
    }
}
