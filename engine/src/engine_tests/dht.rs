//! Torrents and the DHT: one scripted node, which knows a peer of everything.

use super::*;
use crate::command::{ResumeMode, TorrentSource};
use crate::config::DhtSettings;
use crate::node_id::NodeId;
use crate::torrent::info_of;
use crate::wire::krpc::{Ask, Body, Packet, Query, Response, Want};
use crate::wire::{ExtendedHandshake, MetadataMessage};

/// Where the node is, and the peer that it names.
const NODE: u8 = 200;
const NAMED: u8 = 5;

/// As [`torrent_file`], but private.
pub(super) fn private_torrent() -> Bytes {
    let text = String::from_utf8(torrent_file(1).to_vec()).unwrap();
    text.replace("hee", "h7:privatei1eee").into()
}

fn with_dht() -> Config {
    let dht = DhtSettings { bootstrap: vec![(address(NODE).ip().to_string(), 6881)], read_only: false };
    Config { dht: Some(dht), ..Config::default() }
}

pub(super) fn magnet_of(info: &Bytes) -> AddTorrent {
    let hash = InfoHash(<sha1::Sha1 as sha1::Digest>::digest(info).into());
    let mut add = AddTorrent::magnet(TORRENT, format!("magnet:?xt=urn:btih:{hash}"), "/out".into());
    add.resume = ResumeMode::NoState;
    add
}

impl Bench {
    /// Added, and listening.
    pub(super) fn in_dht(config: Config, add: AddTorrent) -> Self {
        let mut bench = Self::just_added(config, add);
        bench.input(Input::Listening { port: 6881, families: (true, false) });
        bench
    }

    /// Lets time pass while the node answers. What it was asked about a swarm: who is in it, that we are.
    fn ask_node(&mut self, time: Duration) -> (usize, usize) {
        self.ask_node_at(6881, time)
    }

    /// The same, when that is where others reach us.
    fn ask_node_at(&mut self, our_port: u16, time: Duration) -> (usize, usize) {
        let (end, mut looked_up, mut announced) = (self.now + time, 0, 0);
        while self.now < end {
            self.pass(Duration::from_millis(100));
            while let Some((remote, payload)) = self.datagrams.pop_front() {
                let Ok(Packet { transaction, body: Body::Query(query), .. }) = Packet::parse(&payload) else {
                    continue;
                };
                let mut response = Response::new(NodeId([9; 20]));
                match query.ask {
                    Ask::GetPeers { info_hash, .. } => {
                        assert_eq!(info_hash, self.info_hash);
                        looked_up += 1;
                        response.token = Some(vec![1, 2, 3, 4]);
                        response.peers = vec![address(NAMED)];
                    }
                    Ask::AnnouncePeer { info_hash, port, .. } => {
                        assert_eq!((info_hash, port), (self.info_hash, our_port));
                        announced += 1;
                    }
                    _ => {}
                }
                if remote != address(NODE) {
                    continue;
                }
                let body = Body::Response(Box::new(response));
                let answer = Packet { transaction, body, read_only: false, external: None };
                self.input(Input::Datagram { remote, payload: answer.encode().into() });
            }
        }
        (looked_up, announced)
    }

    fn dials_named(&self) -> usize {
        self.dialled.iter().filter(|(_, remote)| *remote == address(NAMED)).count()
    }
}

#[test]
fn a_swarm_is_looked_up_and_announced_again_and_again() {
    let add = AddTorrent::new(TORRENT, torrent_file(3), "/out".into());
    let mut bench = Bench::in_dht(with_dht(), add);
    bench.open(3, &[], &[]);
    assert_eq!(bench.ask_node(Duration::from_secs(3)), (1, 1));
    assert_eq!(bench.dials_named(), 1);
    let peer = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(peer);
    assert_eq!(bench.have(), 3);
    let (_, announced) = bench.ask_node(Duration::from_secs(3600));
    assert!((6..=8).contains(&announced), "ever more seldom, down to every 15 minutes: {announced}");
    let (_, announced) = bench.ask_node(Duration::from_secs(3600));
    assert!((3..=5).contains(&announced), "every 15 minutes: {announced}");
}

impl Bench {
    /// The node announces itself to us for a swarm, as BEP 5 has it.
    fn hear_announce(&mut self, info_hash: InfoHash) {
        let ask = |bench: &mut Self, ask: Ask| {
            let query = Query { id: NodeId([9; 20]), want: Want::default(), ask };
            let body = Body::Query(query);
            let packet = Packet { transaction: vec![1], body, read_only: false, external: None };
            bench.datagrams.clear();
            bench.input(Input::Datagram { remote: address(NODE), payload: packet.encode().into() });
            let answers = bench.datagrams.iter().filter_map(|(_, payload)| Packet::parse(payload).ok());
            let response = |packet: Packet| match packet.body {
                Body::Response(response) => Some(*response),
                _ => None,
            };
            answers.filter_map(response).next().expect("an answer")
        };
        let token = ask(self, Ask::GetPeers { info_hash, no_seed: false, scrape: false }).token.unwrap();
        ask(self, Ask::AnnouncePeer { info_hash, port: 6881, implied_port: false, seed: true, token });
    }

    fn dials_node(&self) -> usize {
        self.dialled.iter().filter(|(_, remote)| *remote == address(NODE)).count()
    }
}

#[test]
fn who_announces_itself_to_us_is_a_peer_of_ours() {
    let add = AddTorrent::new(TORRENT, torrent_file(3), "/out".into());
    let mut bench = Bench::in_dht(with_dht(), add.clone());
    bench.open(3, &[], &[]);
    bench.hear_announce(InfoHash([7; 20]));
    assert_eq!(bench.dials_node(), 0, "in another swarm");
    bench.hear_announce(bench.info_hash);
    assert_eq!(bench.dials_node(), 1);

    let mut bench = Bench::in_dht(with_dht(), add);
    bench.hear_announce(bench.info_hash);
    assert_eq!(bench.dials_node(), 0, "nobody is wanted yet");
    bench.open(3, &[], &[]);
    bench.pass(Duration::from_millis(100));
    assert_eq!(bench.dials_node(), 1, "it was stored before");

    let mut add = AddTorrent::new(TORRENT, torrent_file(1), "/out".into());
    add.source = TorrentSource::TorrentFile(private_torrent());
    let mut bench = Bench::in_dht(with_dht(), add);
    bench.open(1, &[], &[]);
    bench.hear_announce(bench.info_hash);
    bench.pass(Duration::from_secs(100));
    assert_eq!(bench.dials_node(), 0, "a private one takes nobody from the DHT");
}

#[test]
fn the_dht_and_peers_are_told_the_port_of_a_router() {
    let mut add = AddTorrent::new(TORRENT, torrent_file(3), "/out".into());
    add.peers = vec![address(1)];
    let mut bench = Bench::in_dht(with_dht(), add);
    bench.open(3, &[], &[]);
    assert_eq!(bench.ask_node(Duration::from_secs(3)), (1, 1));
    bench.input(Input::Command(Command::Mapped { port: Some(7000), external_ip: None }));
    assert_eq!(bench.ask_node_at(7000, Duration::from_secs(3)), (1, 1), "at once");
    let peer = bench.answer(0, vec![Message::HaveNone]);
    let told = |message: &Message| match message {
        Message::ExtendedHandshake(ours) => ours.p,
        _ => None,
    };
    assert_eq!(bench.sent[&peer].iter().find_map(told), Some(7000));
    // The same again changes nothing, and without it our own port is as good as before.
    bench.input(Input::Command(Command::Mapped { port: Some(7000), external_ip: None }));
    assert_eq!(bench.ask_node_at(7000, Duration::from_secs(3)), (0, 0));
    bench.input(Input::Command(Command::Mapped { port: None, external_ip: None }));
    assert_eq!(bench.ask_node_at(6881, Duration::from_secs(3)), (1, 1));
}

#[test]
fn a_private_torrent_asks_nobody_and_shows_no_node() {
    let mut add = AddTorrent::new(TORRENT, torrent_file(1), "/out".into());
    add.source = TorrentSource::TorrentFile(private_torrent());
    add.peers = vec![address(1)];
    let mut bench = Bench::in_dht(with_dht(), add);
    bench.open(1, &[], &[]);
    let peer = bench.answer(0, vec![Message::HaveNone]);
    bench.say(peer, vec![Message::Port(4000)]);
    assert_eq!(bench.ask_node(Duration::from_secs(100)), (0, 0));
    let shows = |message: &Message| match message {
        Message::Handshake(ours) => ours.reserved.dht(),
        Message::Port(_) => true,
        _ => false,
    };
    assert!(!bench.sent[&peer].iter().any(shows), "{:?}", bench.sent[&peer]);
}

#[test]
fn a_magnet_that_turns_out_private_leaves_the_dht_at_once() {
    let info = info_of(&private_torrent());
    let mut add = magnet_of(&info);
    add.peers = vec![address(1)];
    let mut bench = Bench::in_dht(with_dht(), add);
    let speaks = ExtendedHandshake {
        m: vec![("ut_metadata".into(), 3)],
        metadata_size: Some(info.len() as i64),
        ..ExtendedHandshake::default()
    };
    let peer = bench.answer(0, vec![Message::ExtendedHandshake(Box::new(speaks))]);
    assert_eq!(bench.ask_node(Duration::from_secs(3)), (1, 1), "nobody knows yet");
    assert_eq!(bench.dials_named(), 1);
    let named = bench.answer(1, vec![]);
    let data = MetadataMessage::Data { block: 0, total_bytes: None, data: info };
    bench.say(peer, vec![Message::Extended { id: 1, payload: data.encode() }]);
    assert!(bench.closed.contains(&named), "nobody else has named it");
    bench.open(1, &[], &[]);
    assert_eq!(bench.ask_node(Duration::from_secs(3600)), (0, 0));
    assert_eq!(bench.dials_named(), 1);
}

#[test]
fn nobody_is_asked_without_a_dht() {
    let mut bench = Bench::in_dht(Config::default(), magnet_of(&info_of(&torrent_file(1))));
    bench.ask_node(Duration::from_secs(3600));
    bench.input(Input::Command(Command::DhtLookup { info_hash: bench.info_hash, announce: None }));
    let over = |alert: &Alert| matches!(alert, Alert::DhtLookedUp { asked: 0, .. });
    assert_eq!((bench.count(over), bench.datagrams.len()), (1, 0));
}
