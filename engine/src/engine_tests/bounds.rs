//! What others can make of us has bounds: dials, long requests, names, greetings.

use super::*;
use crate::alert::TorrentState;
use crate::command::TorrentSource;
use crate::input::NetError;
use crate::limits::REQUEST_BYTES_MAX;

/// A torrent of `pieces` pieces of 1 MiB.
fn of_large_pieces(pieces: u32) -> Bytes {
    let mut text = format!(
        "d4:infod6:lengthi{}e4:name1:x12:piece lengthi{}e6:pieces{}:",
        u64::from(pieces) << 20,
        1 << 20,
        pieces * 20
    );
    text.push_str(&"h".repeat(pieces as usize * 20));
    text.push_str("ee");
    text.into()
}

/// Features 1.4, hole 5: a request may have asked for a whole piece.
#[test]
fn a_request_for_more_than_128_kib_is_nonsense_however_large_the_piece() {
    for (length, is_served) in [
        (BLOCK_BYTES, true),
        (1, true),
        (REQUEST_BYTES_MAX, true),
        (REQUEST_BYTES_MAX + 1, false),
        (1 << 20, false),
    ] {
        let mut bench = Bench::begun(Config::default(), 2, &[0, 1], &[], &[], |add| {
            add.source = TorrentSource::TorrentFile(of_large_pieces(2));
        });
        let peer = ConnectionId::accepted(0);
        bench.input(Input::Accepted { connection: peer, remote: address(1) });
        bench.say(peer, vec![bench.handshake(PeerId([4; 20])), Message::HaveNone, Message::Interested]);
        bench.take_sent(peer);
        bench.say(peer, vec![Message::Request(Request { piece: 1, begin: 0, length })]);
        let read = bench.jobs.iter().any(|(_, work)| matches!(work, Work::Read { .. }));
        assert_eq!((read, bench.closed.contains(&peer)), (is_served, !is_served), "{length}");
        bench.disk();
        let served = bench
            .take_sent(peer)
            .iter()
            .any(|message| matches!(message, Message::Piece { data, .. } if data.len() == length));
        assert_eq!(served, is_served, "{length}");
    }
}

/// Features 1.4, hole 16: half-open dials count, and are paced.
#[test]
fn of_many_addresses_few_are_dialled_at_once_and_thirty_in_any_second() {
    let mut bench = Bench::new(2, &[], &[]);
    let peers = (0..1000u16).map(|n| SocketAddr::from(([9, (n >> 8) as u8, n as u8, 1], 6881))).collect();
    bench.input(Input::Command(Command::AddPeers { torrent: TORRENT, peers }));
    let mut dialled = Vec::new();
    let end = bench.now + Duration::from_secs(60);
    while bench.now < end {
        bench.pass(Duration::from_millis(10));
        dialled.resize(bench.dialled.len(), bench.now);
        assert!(
            bench.dialled.len() - bench.closed.len() <= 80,
            "peers_per_torrent_max, half-open ones included"
        );
    }
    for (at, first) in dialled.iter().enumerate() {
        let within = dialled[at..].iter().filter(|other| other.since(*first) < Duration::from_millis(980));
        assert!(within.count() <= 30, "from {first:?} on");
    }
    assert!(dialled.len() > 300, "slots come back after ten seconds: {}", dialled.len());
}

/// Features 1.4, hole 26: Azureus style (BEP 20), so that others can tell who we are.
#[test]
fn our_peer_id_has_the_form_of_bep_20() {
    let id = |seed: u64| {
        let PeerId(id) =
            Engine::new(Config::default(), StartValues { seed, boot_id: [0; 16], wall_seconds: 0 }).our_id;
        id
    };
    let version: Vec<u8> = env!("CARGO_PKG_VERSION").bytes().filter(u8::is_ascii_digit).collect();
    let ids: BTreeSet<[u8; 20]> = (0..100).map(id).collect();
    assert_eq!(ids.len(), 100, "nobody else has ours");
    for id in ids {
        assert_eq!((&id[..3], id[7]), (&b"-TP"[..], b'-'));
        assert!(id[3..7].starts_with(&version) && id[3..7].iter().all(u8::is_ascii_digit));
        assert!(id[8..].iter().all(u8::is_ascii_alphanumeric));
    }
    assert_eq!(id(5), id(5));
}

/// A truncation: pieces of the file are not ours to offer until they were hashed again (`reliability.md` E2).
#[test]
fn who_comes_while_a_file_is_in_doubt_is_told_of_its_pieces_only_when_they_are_found_good() {
    let mut bench = Bench::new(3, &[0, 1, 2], &[]);
    let come = |bench: &mut Bench, n: u8| {
        let connection = ConnectionId::accepted(u64::from(n));
        bench.input(Input::Accepted { connection, remote: address(n) });
        bench.say(connection, vec![bench.handshake(PeerId([n; 20])), Message::HaveNone, Message::Interested]);
        connection
    };
    let says_what = |message: &Message| {
        matches!(message, Message::HaveAll | Message::HaveNone | Message::Bitfield(_) | Message::Have(_))
    };
    let told = |bench: &mut Bench, connection| {
        bench.take_sent(connection).into_iter().filter(says_what).collect::<Vec<_>>()
    };
    let early = come(&mut bench, 1);
    assert_eq!(told(&mut bench, early), [Message::HaveAll]);
    bench.say(early, vec![Message::Request(Request { piece: 2, begin: 0, length: BLOCK_BYTES })]);
    let (job, _) = bench.jobs.pop_front().unwrap();
    let short = StorageError { path: "/out/x".into(), kind: StorageErrorKind::ShortRead };
    bench.input(Input::JobDone { job, result: JobResult::Read(Err(short)) });
    let late = come(&mut bench, 2);
    assert_eq!(told(&mut bench, late), [Message::HaveNone], "all of the file is in doubt");
    bench.doubts_recorded();
    let Some((job, Work::Check { pieces })) = bench.jobs.pop_front() else { panic!("it is hashed") };
    assert_eq!(pieces.len(), 3);
    bench.input(Input::JobDone { job, result: JobResult::Checked(Ok(vec![true, true, false])) });
    assert_eq!(bench.have(), 2);
    assert_eq!(told(&mut bench, late), [Message::Have(0), Message::Have(1)]);
    assert_eq!(told(&mut bench, early), [], "it knows");
    let later = come(&mut bench, 3);
    let bits = Bytes::from_static(&[0b1100_0000]);
    assert_eq!(told(&mut bench, later), [Message::Bitfield(bits)]);
    let state = Alert::StateChanged { torrent: TORRENT, state: TorrentState::Downloading };
    assert!(bench.alerts.contains(&state), "what is lost is fetched again");
}

/// Its router forgot the connection, say: it was reset, and we never heard of it.
#[test]
fn who_dials_again_when_its_connection_has_long_been_silent_takes_its_own_place() {
    let mut bench = Bench::new(3, &[0, 1, 2], &[]);
    let come = |bench: &mut Bench, n: u64, remote| {
        let connection = ConnectionId::accepted(n);
        bench.input(Input::Accepted { connection, remote });
        bench.say(connection, vec![bench.handshake(PeerId([7; 20])), Message::HaveNone, Message::Interested]);
        !bench.take_sent(connection).is_empty()
    };
    let from = |port| SocketAddr::new(address(1).ip(), port);
    assert!(come(&mut bench, 1, from(1001)));
    bench.pass(Duration::from_secs(9));
    assert!(!come(&mut bench, 2, from(1002)), "one of a kind");
    bench.pass(Duration::from_secs(2));
    assert!(come(&mut bench, 3, address(2)), "from elsewhere: anybody may say that it is somebody else");
    assert!(come(&mut bench, 4, from(1004)), "it began anew");
    assert!(!come(&mut bench, 5, from(1005)), "the new one is not silent");
}

/// Every peer of somebody knows its peer id.
#[test]
fn nobody_is_driven_out_or_kept_out_by_its_own_peer_id() {
    let id = PeerId([0xff; 20]);
    for comes_first in [false, true] {
        let mut bench = Bench::new(3, &[], &[1]);
        let stranger = ConnectionId::accepted(0);
        let come = |bench: &mut Bench| {
            bench.input(Input::Accepted { connection: stranger, remote: address(2) });
            bench.say(stranger, vec![bench.handshake(id), Message::HaveNone]);
        };
        if comes_first {
            come(&mut bench);
        }
        let (honest, _) = bench.dialled[0];
        bench.input(Input::Connected { connection: honest, local: address(200) });
        bench.say(honest, vec![bench.handshake(id), Message::HaveAll, Message::Unchoke]);
        if !comes_first {
            come(&mut bench);
        }
        assert!(!bench.closed.contains(&honest), "comes first: {comes_first}");
        bench.give_all(honest);
        assert_eq!(bench.have(), 3);
    }
}

#[test]
fn the_ports_of_a_crowded_address_leave_the_dials_to_others() {
    let mut bench = Bench::new(3, &[], &[1]);
    let crowd = |port| SocketAddr::from(([9, 9, 9, 9], port));
    for port in 1..4 {
        let connection = ConnectionId::accepted(u64::from(port));
        bench.input(Input::Accepted { connection, remote: crowd(port) });
        bench.say(connection, vec![bench.handshake(PeerId([port as u8; 20])), Message::HaveNone]);
    }
    let peers = (4..904).map(crowd).collect();
    bench.input(Input::Command(Command::AddPeers { torrent: TORRENT, peers }));
    let (first, _) = bench.dialled[0];
    let refused = CloseReason::ConnectFailed(NetError::Refused);
    bench.input(Input::Closed { connection: first, reason: refused });
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.dialled.iter().filter(|(_, remote)| *remote == address(1)).count(), 2);
    assert_eq!(bench.dialled.len(), 2, "nobody of the crowd is dialled");
}

#[test]
fn what_room_one_torrent_does_not_want_another_has() {
    let config = Config { peers_max: 3, peers_per_torrent_max: 2, ..Config::default() };
    let mut bench = Bench::with(config, 3, &[], &[1, 2, 3]);
    for (n, pieces, peer) in [(1, 4, 21), (2, 5, 11)] {
        let mut other = AddTorrent::new(TorrentId(n), torrent_file(pieces), "/out".into());
        other.peers = vec![address(peer)];
        bench.input(Input::Command(Command::AddTorrent(Box::new(other))));
        bench.open(pieces, &[], &[]);
    }
    let of =
        |bench: &Bench, n| bench.dialled.iter().find(|(_, remote)| *remote == address(n)).map(|(id, _)| *id);
    // The first hears of one more whom it does not want.
    bench.input(Input::Command(Command::AddPeers { torrent: TORRENT, peers: vec![address(4)] }));
    let connection = of(&bench, 21).unwrap();
    assert_eq!((bench.dialled.len(), of(&bench, 11)), (3, None));
    bench.input(Input::Closed { connection, reason: CloseReason::ConnectFailed(NetError::Refused) });
    bench.pass(Duration::from_secs(1));
    assert!(of(&bench, 11).is_some(), "{:?}", bench.dialled);
}

/// The counts themselves are looked at after every input of every test here (`Torrent::assert_counts`).
#[test]
fn what_peers_say_they_have_is_counted_right_whatever_they_say() {
    let mut rng = Rng::stream(21, "counts", 0);
    for round in 0..40 {
        let mut bench = Bench::new(12, &[0, 3], &[]);
        let mut connections = Vec::new();
        for step in 0..120 {
            if connections.len() < 6 {
                let n = round * 1000 + step;
                let connection = ConnectionId::accepted(n);
                let remote = SocketAddr::from(([8, n as u8, step as u8, 1], 6881));
                bench.input(Input::Accepted { connection, remote });
                bench.say(connection, vec![bench.handshake(PeerId([step as u8; 20]))]);
                connections.push(connection);
            }
            let at = rng.below(connections.len() as u64) as usize;
            let bits =
                [rng.next_u32() as u8, (rng.next_u32() as u8) & if rng.below(8) == 0 { 0xff } else { 0xf0 }];
            let message = match rng.below(9) {
                0 | 1 => Message::Bitfield(Bytes::copy_from_slice(&bits)),
                2 => Message::HaveAll,
                3 => Message::HaveNone,
                4 => Message::Unchoke,
                _ => Message::Have(rng.below(13) as u32),
            };
            bench.say(connections[at], vec![message]);
            if rng.below(12) == 0 {
                let connection = connections[at];
                bench.input(Input::Closed { connection, reason: CloseReason::EndOfStream });
                connections.swap_remove(at);
            }
            connections.retain(|connection| !bench.closed.contains(connection));
        }
    }
}

#[test]
fn each_time_a_peer_has_is_kept_to_the_second() {
    let closes_after = |bench: &mut Bench, connection, seconds| {
        bench.pass(Duration::from_secs(seconds) - Duration::from_millis(1));
        assert!(!bench.closed.contains(&connection), "before {seconds} s");
        bench.pass(Duration::from_millis(1));
        assert!(bench.closed.contains(&connection), "after {seconds} s");
    };
    let mut bench = Bench::new(2, &[], &[1]);
    let connection = bench.dialled[0].0;
    closes_after(&mut bench, connection, 10);
    let mut bench = Bench::new(2, &[], &[1]);
    let connection = bench.dialled[0].0;
    bench.pass(Duration::from_secs(9));
    bench.input(Input::Connected { connection, local: address(200) });
    // A handshake that comes byte by byte is none.
    bench.pass(Duration::from_secs(5));
    bench.input(Input::Received { connection, read_bytes: 1, messages: Vec::new() });
    closes_after(&mut bench, connection, 5);
    let mut bench = Bench::new(2, &[], &[]);
    let connection = ConnectionId::accepted(0);
    bench.input(Input::Accepted { connection, remote: address(1) });
    bench.pass(Duration::from_secs(5));
    bench.input(Input::Received { connection, read_bytes: 1, messages: Vec::new() });
    closes_after(&mut bench, connection, 5);
    let mut bench = Bench::new(2, &[], &[1]);
    let connection = bench.answer(0, vec![Message::HaveNone]);
    bench.pass(Duration::from_secs(100));
    bench.say(connection, vec![Message::KeepAlive]);
    closes_after(&mut bench, connection, 120);
    unwanted_has_ten_minutes(&Message::KeepAlive);
}

#[test]
fn who_says_again_that_it_wants_nothing_gains_no_time_by_it() {
    unwanted_has_ten_minutes(&Message::NotInterested);
}

/// Ten minutes without a wish on either side, in which one of them says this once a minute, where there is no room for others.
fn unwanted_has_ten_minutes(says: &Message) {
    let config = Config { peers_per_torrent_max: 1, ..Config::default() };
    let mut bench = Bench::with(config, 2, &[], &[]);
    let connection = ConnectionId::accepted(0);
    bench.input(Input::Accepted { connection, remote: address(1) });
    bench.say(connection, vec![bench.handshake(PeerId([4; 20])), Message::HaveNone]);
    for minute in 0..11 {
        assert!(minute == 10 || !bench.closed.contains(&connection), "{minute} minutes");
        bench.pass(Duration::from_secs(60));
        bench.say(connection, vec![says.clone()]);
    }
    assert!(bench.closed.contains(&connection));
}

/// BEP 6: they are hints.
#[test]
fn a_suggestion_is_the_choice_among_pieces_that_are_equally_rare() {
    let first = |suggested: &[u32], common: &[u32]| {
        let mut bench = Bench::new(40, &[], &[1, 2]);
        let other = bench.answer(1, vec![Message::HaveNone]);
        bench.say(other, common.iter().map(|piece| Message::Have(*piece)).collect());
        let suggested = suggested.iter().map(|piece| Message::SuggestPiece(*piece));
        let messages = [Message::HaveAll, Message::Unchoke].into_iter().chain(suggested);
        let peer = bench.answer(0, messages.collect());
        assert!(!bench.closed.contains(&peer));
        bench.take_requests(peer)[0].piece
    };
    let plain = first(&[], &[]);
    assert_eq!(first(&[40, u32::MAX], &[]), plain, "of no piece of this torrent");
    for piece in 0..40 {
        assert_eq!(first(&[piece], &[]), piece);
    }
    assert_eq!(first(&[3, 7], &[]), 7, "the latest");
    // What others have as well is fetched no sooner. The very first pieces are any.
    let rare: Vec<_> = (0..40).filter(|piece| *piece != 7).collect();
    assert_eq!(first(&[9], &rare), 9);
    let common = first(&[], &[7]);
    assert_eq!(first(&[7], &[7]), common);
}

/// Others look at so many; of one peer the last few are kept.
#[test]
fn suggestions_fill_nothing() {
    let mut bench = Bench::new(4000, &[], &[1]);
    let peer = bench.answer(0, (0..4000).map(Message::SuggestPiece).collect());
    bench.say(peer, vec![Message::HaveAll, Message::Unchoke]);
    assert_eq!(bench.take_requests(peer)[0].piece, 3999);
}

/// Features 1.4, hole 4.
#[test]
fn blocks_past_a_short_last_piece_are_thrown_away() {
    let mut text = String::from("d4:infod6:lengthi40017e4:name1:x12:piece lengthi20000e6:pieces60:");
    text.push_str(&"h".repeat(60));
    text.push_str("ee");
    let mut bench = Bench::added(3, &[1], |add| add.source = TorrentSource::TorrentFile(text.clone().into()));
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    for (piece, begin, length) in [
        (2, 16_384, 16_384),
        (2, 16_384, 0),
        (2, 0, 16_384),
        (2, 17, 1),
        (1, 16_384, 16_384),
        (0, u32::MAX, 5),
        (2, 0, 0),
    ] {
        bench.say(seed, vec![Message::Piece { piece, begin, data: BlockData::absent(length) }]);
    }
    assert!(bench.jobs.is_empty(), "{:?}", bench.jobs);
    bench.give_all(seed);
    assert_eq!(bench.have(), 3);
}

/// Features 1.4, hole 4: it crashed a client from afar.
#[test]
fn a_torrent_without_a_byte_is_complete_and_meets_peers() {
    let text = "d4:infod6:lengthi0e4:name1:x12:piece lengthi16384e6:pieces0:ee";
    for message in [
        Message::HaveAll,
        Message::HaveNone,
        Message::Bitfield(Bytes::new()),
        Message::Bitfield(Bytes::from_static(&[0])),
        Message::Have(0),
        Message::Request(Request { piece: 0, begin: 0, length: 1 }),
        Message::Piece { piece: 0, begin: 0, data: BlockData::absent(1) },
        Message::AllowedFast(0),
        Message::RejectRequest(Request { piece: 0, begin: 0, length: 1 }),
        Message::Cancel(Request { piece: 0, begin: 0, length: 1 }),
    ] {
        let mut bench = Bench::added(0, &[], |add| add.source = TorrentSource::TorrentFile(text.into()));
        let state = Alert::StateChanged { torrent: TORRENT, state: TorrentState::Seeding };
        assert!(bench.alerts.contains(&state));
        let peer = ConnectionId::accepted(0);
        bench.input(Input::Accepted { connection: peer, remote: address(1) });
        bench.say(peer, vec![bench.handshake(PeerId([4; 20])), message, Message::Interested]);
        bench.pass(Duration::from_secs(60));
    }
}
