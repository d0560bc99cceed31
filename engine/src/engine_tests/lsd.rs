//! Torrents and the local network (BEP 14): what it hears of them, and whom of it they dial.

use super::dht::{magnet_of, private_torrent};
use super::*;
use crate::command::TorrentSource;
use crate::torrent::info_of;
use crate::wire::lsd::{GROUP_V4, LsdAnnounce};
use crate::wire::{ExtendedHandshake, MetadataMessage};

fn with_lsd() -> Config {
    Config { lsd: true, ..Config::default() }
}

fn neighbour(n: u8) -> SocketAddr {
    ([192, 168, 1, n], 6881).into()
}

impl Bench {
    /// What was said to the local network since the last look.
    fn take_announces(&mut self) -> Vec<LsdAnnounce> {
        let to_group = |(to, payload): (SocketAddr, Bytes)| (to == GROUP_V4).then_some(payload);
        let said = self.datagrams.drain(..).filter_map(to_group);
        said.map(|payload| LsdAnnounce::parse(&payload).unwrap()).collect()
    }

    /// Somebody on the local network says that he is in our swarm.
    fn hear_neighbour(&mut self, n: u8) {
        let info_hashes = vec![self.info_hash];
        let announce = LsdAnnounce { port: neighbour(n).port(), info_hashes, cookie: b"other".to_vec() };
        let remote = SocketAddr::new(neighbour(n).ip(), 6771);
        self.input(Input::Datagram { remote, payload: announce.encode(GROUP_V4).into() });
    }

    fn dials(&self, n: u8) -> usize {
        self.dialled.iter().filter(|(_, remote)| *remote == neighbour(n)).count()
    }
}

#[test]
fn the_local_network_is_told_and_whom_it_names_is_dialled() {
    let add = AddTorrent::new(TORRENT, torrent_file(2), "/out".into());
    let mut bench = Bench::in_dht(with_lsd(), add);
    bench.hear_neighbour(8);
    bench.pass(Duration::from_secs(3));
    assert!(bench.take_announces().is_empty() && bench.dialled.is_empty(), "it is not open yet");
    bench.open(2, &[], &[]);
    bench.pass(Duration::from_secs(3));
    let said = bench.take_announces();
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].port, &said[0].info_hashes), (6881, &vec![bench.info_hash]));
    bench.hear_neighbour(9);
    assert_eq!(bench.dials(9), 1);
    let peer = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(peer);
    assert_eq!(bench.have(), 2);
    bench.pass(Duration::from_secs(3600));
    let said = bench.take_announces().len();
    assert!((12..=14).contains(&said), "every five minutes, once more for who is new: {said}");
    bench.input(Input::Command(Command::Shutdown));
    bench.pass(Duration::from_secs(3600));
    assert!(bench.take_announces().is_empty());
}

#[test]
fn our_own_announce_that_comes_back_is_nobody() {
    let mut bench = Bench::in_dht(with_lsd(), AddTorrent::new(TORRENT, torrent_file(1), "/out".into()));
    bench.open(1, &[], &[]);
    bench.pass(Duration::from_secs(3));
    let (_, payload) = bench.datagrams.pop_front().unwrap();
    bench.input(Input::Datagram { remote: SocketAddr::new(neighbour(1).ip(), 6771), payload });
    assert_eq!(bench.dialled, []);
}

#[test]
fn a_private_torrent_is_neither_told_of_nor_believed_about() {
    let mut add = AddTorrent::new(TORRENT, torrent_file(1), "/out".into());
    add.source = TorrentSource::TorrentFile(private_torrent());
    let mut bench = Bench::in_dht(with_lsd(), add);
    bench.open(1, &[], &[]);
    for _ in 0..20 {
        bench.hear_neighbour(9);
        bench.pass(Duration::from_secs(60));
    }
    assert!(bench.datagrams.is_empty() && bench.dialled.is_empty());
}

#[test]
fn a_magnet_that_turns_out_private_leaves_the_local_network_at_once() {
    let info = info_of(&private_torrent());
    let mut add = magnet_of(&info);
    add.peers = vec![address(1)];
    let mut bench = Bench::in_dht(with_lsd(), add);
    let speaks = ExtendedHandshake {
        m: vec![("ut_metadata".into(), 3)],
        metadata_size: Some(info.len() as i64),
        ..ExtendedHandshake::default()
    };
    let peer = bench.answer(0, vec![Message::ExtendedHandshake(Box::new(speaks))]);
    bench.pass(Duration::from_secs(3));
    assert_eq!(bench.take_announces().len(), 1, "nobody knows yet");
    bench.hear_neighbour(9);
    assert_eq!(bench.dials(9), 1);
    let named = bench.answer(1, vec![]);
    let data = MetadataMessage::Data { block: 0, total_bytes: None, data: info };
    bench.say(peer, vec![Message::Extended { id: 1, payload: data.encode() }]);
    assert!(bench.closed.contains(&named), "nobody else has named it");
    bench.open(1, &[], &[]);
    bench.hear_neighbour(9);
    bench.pass(Duration::from_secs(3600));
    assert!(bench.take_announces().is_empty());
    assert_eq!(bench.dials(9), 1);
}

#[test]
fn nothing_is_said_or_believed_where_it_is_off() {
    let mut bench = Bench::in_dht(Config::default(), magnet_of(&info_of(&torrent_file(1))));
    bench.hear_neighbour(9);
    bench.pass(Duration::from_secs(3600));
    assert!(bench.datagrams.is_empty() && bench.dialled.is_empty());
}

#[test]
fn a_storm_of_announces_fills_no_table_and_says_no_more() {
    let mut bench = Bench::in_dht(with_lsd(), AddTorrent::new(TORRENT, torrent_file(1), "/out".into()));
    bench.open(1, &[], &[]);
    bench.pass(Duration::from_secs(3));
    for n in 0..20_000_u32 {
        let announce = LsdAnnounce {
            port: (n % 60_000) as u16 + 1,
            info_hashes: vec![bench.info_hash],
            cookie: Vec::new(),
        };
        let remote = SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 6771));
        bench.input(Input::Datagram { remote, payload: announce.encode(GROUP_V4).into() });
        if n % 1000 == 0 {
            bench.pass(Duration::from_secs(1));
        }
    }
    assert!(bench.take_announces().len() <= 2);
    let stats = bench.engine.torrents[&TORRENT].stats(bench.now);
    assert!(stats.candidates < 400, "{}", stats.candidates);
}
