//! Peer exchange between scripted peers (BEP 11).

use super::*;
use crate::command::TorrentSource;
use crate::limits::IDLE_MESSAGES_MAX;
use crate::torrent::info_of;
use crate::wire::{ExtendedHandshake, MetadataMessage, PexMessage, PexPeer};

/// What others call `ut_pex`, and what we do.
const THEIRS: u8 = 7;
const OURS: u8 = 2;

fn speaks_pex() -> Message {
    Message::ExtendedHandshake(Box::new(ExtendedHandshake {
        m: vec![("ut_pex".into(), THEIRS), ("ut_metadata".into(), 3)],
        metadata_size: Some(info_of(&private_torrent()).len() as i64),
        ..ExtendedHandshake::default()
    }))
}

fn names(peers: &[u8]) -> Message {
    let added = peers.iter().map(|n| PexPeer { address: address(*n), flags: 0 }).collect();
    Message::Extended { id: OURS, payload: PexMessage { added, dropped: Vec::new() }.encode() }
}

/// As [`torrent_file`], but private.
fn private_torrent() -> Bytes {
    let text = String::from_utf8(torrent_file(1).to_vec()).unwrap();
    text.replace("hee", "h7:privatei1eee").into()
}

/// What a peer was told, by the numbers of addresses: who came, who went.
fn told(bench: &mut Bench, connection: ConnectionId) -> Vec<(Vec<SocketAddr>, Vec<SocketAddr>)> {
    let message = |message| match message {
        Message::Extended { id: THEIRS, payload } => PexMessage::decode(&payload),
        _ => None,
    };
    let messages = bench.take_sent(connection).into_iter().filter_map(message);
    messages
        .map(|message| (message.added.iter().map(|peer| peer.address).collect(), message.dropped))
        .collect()
}

/// How often an address was dialled.
fn dials(bench: &Bench, n: u8) -> usize {
    bench.dialled.iter().filter(|(_, remote)| *remote == address(n)).count()
}

#[test]
fn peers_are_told_who_came_and_who_went_and_nothing_else() {
    let mut bench = Bench::new(3, &[], &[1, 2, 3]);
    let remotes: Vec<_> = bench.dialled.iter().map(|(_, remote)| *remote).collect();
    let peers = [0, 1, 2].map(|n| bench.answer(n, vec![Message::HaveNone, speaks_pex()]));
    bench.pass(Duration::from_secs(10));
    let mut others = vec![remotes[1], remotes[2]];
    others.sort();
    assert_eq!(told(&mut bench, peers[0]), [(others, vec![])]);
    bench.pass(Duration::from_secs(70));
    assert_eq!(told(&mut bench, peers[0]), [], "nothing changed");
    bench.input(Input::Closed { connection: peers[2], reason: CloseReason::EndOfStream });
    bench.pass(Duration::from_secs(70));
    assert_eq!(told(&mut bench, peers[0]), [(vec![], vec![remotes[2]])]);
}

#[test]
fn a_peer_known_only_through_exchange_delivers() {
    let mut bench = Bench::new(3, &[], &[1]);
    let teller = bench.answer(0, vec![Message::HaveNone, speaks_pex(), names(&[5])]);
    assert_eq!(dials(&bench, 5), 1);
    let seed = bench.answer(1, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(seed);
    assert_eq!(bench.have(), 3);
    assert!(!bench.closed.contains(&teller));
}

#[test]
fn who_is_named_and_does_not_answer_is_dialled_twice_at_most() {
    let mut bench = Bench::new(3, &[], &[1]);
    bench.answer(0, vec![Message::HaveNone, speaks_pex(), names(&[5])]);
    for _ in 0..60 {
        bench.pass(Duration::from_secs(60));
        let teller = bench.dialled[0].0;
        bench.say(teller, vec![Message::KeepAlive]);
    }
    assert_eq!(dials(&bench, 5), 2);
}

#[test]
fn names_without_end_are_a_flood() {
    let mut bench = Bench::new(3, &[], &[1]);
    let peer = bench.answer(0, vec![Message::HaveNone, speaks_pex(), names(&[5])]);
    bench.say(peer, vec![names(&[6])]);
    assert_eq!(dials(&bench, 6), 0, "too soon to be believed");
    bench.say(peer, vec![names(&[6]); IDLE_MESSAGES_MAX as usize]);
    assert!(bench.closed.contains(&peer));
}

#[test]
fn a_private_torrent_neither_tells_nor_believes() {
    let mut bench =
        Bench::added(1, &[1, 2], |add| add.source = TorrentSource::TorrentFile(private_torrent()));
    let peers = [0, 1].map(|n| bench.answer(n, vec![Message::HaveNone, speaks_pex(), names(&[5])]));
    let greeting = bench.sent[&peers[0]].clone();
    let offers = |message: &Message| match message {
        Message::ExtendedHandshake(ours) => ours.m.contains(&("ut_pex".to_owned(), OURS)),
        _ => false,
    };
    assert!(!greeting.iter().any(offers), "{greeting:?}");
    bench.pass(Duration::from_secs(100));
    assert_eq!((told(&mut bench, peers[0]), dials(&bench, 5)), (vec![], 0));
}

#[test]
fn a_magnet_that_turns_out_private_stops_at_once() {
    let info = info_of(&private_torrent());
    let hash = InfoHash(<sha1::Sha1 as sha1::Digest>::digest(&info).into());
    let mut add = AddTorrent::magnet(TORRENT, format!("magnet:?xt=urn:btih:{hash}"), "/out".into());
    (add.peers, add.resume) = (vec![address(1)], crate::command::ResumeMode::NoState);
    let mut bench = Bench::just_added(Config::default(), add);
    let peer = bench.answer(0, vec![speaks_pex(), names(&[5])]);
    let named = bench.answer(1, vec![speaks_pex()]);
    bench.pass(Duration::from_secs(8));
    assert_eq!((told(&mut bench, peer).len(), dials(&bench, 5)), (1, 1), "nobody knows yet");
    let data = MetadataMessage::Data { block: 0, total_bytes: None, data: info };
    bench.say(peer, vec![Message::Extended { id: 1, payload: data.encode() }]);
    assert!(bench.closed.contains(&named), "nobody else has named it");
    let said = bench.take_sent(peer);
    let switched_off = |message: &Message| match message {
        Message::ExtendedHandshake(ours) => ours.m.contains(&("ut_pex".to_owned(), 0)),
        _ => false,
    };
    assert!(said.iter().any(switched_off), "{said:?}");
    bench.open(1, &[], &[]);
    bench.pass(Duration::from_secs(200));
    assert_eq!(told(&mut bench, peer), []);
    assert_eq!(dials(&bench, 5), 1);
}
