//! What others can make of us has bounds: dials, long requests, names, greetings.

use super::*;
use crate::alert::TorrentState;
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
            add.torrent_file = of_large_pieces(2);
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
    let ids: std::collections::BTreeSet<[u8; 20]> = (0..100).map(id).collect();
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
