//! A torrent that begins as a magnet link: metadata first, from peers or from an earlier run (BEP 9).

use super::*;
use crate::command::Priority;
use crate::limits::METADATA_TIMES_SERVED;
use crate::torrent::info_of;
use crate::wire::{ExtendedHandshake, MetadataMessage};

const PIECES: u32 = 3;

/// What others call `ut_metadata`.
const THEIRS: u8 = 9;

/// What we call it.
const OURS: u8 = 1;

impl Bench {
    /// A magnet of which nothing is on disk.
    fn magnet(peers: &[u8], change: impl FnOnce(&mut AddTorrent)) -> Self {
        Self::magnet_of(&torrent_file(PIECES), peers, change)
    }

    fn magnet_of(torrent_file: &Bytes, peers: &[u8], change: impl FnOnce(&mut AddTorrent)) -> Self {
        let hash = Metainfo::parse(torrent_file, PathRules::Unix).unwrap().info_hashes.v1.unwrap();
        let mut add = AddTorrent::magnet(TORRENT, format!("magnet:?xt=urn:btih:{hash}"), "/out".into());
        add.peers = peers.iter().map(|n| address(*n)).collect();
        change(&mut add);
        let mut bench = Self::just_added(Config::default(), add);
        bench.loaded(None);
        bench
    }

    /// What an earlier run left.
    fn loaded(&mut self, info: Option<Bytes>) {
        let Some((job, Work::LoadMetadata)) = self.jobs.pop_front() else { panic!("it is looked for") };
        self.input(Input::JobDone { job, result: JobResult::MetadataLoaded(info) });
    }

    /// The blocks of metadata that a peer is asked for now.
    fn wanted_metadata(&mut self, connection: ConnectionId) -> Vec<u32> {
        let block = |message| match message {
            Message::Extended { id: THEIRS, payload } => match MetadataMessage::decode(&payload) {
                Some(MetadataMessage::Request { block }) => Some(block),
                _ => None,
            },
            _ => None,
        };
        self.take_sent(connection).into_iter().filter_map(block).collect()
    }

    fn state(&self) -> Option<TorrentState> {
        self.alerts.iter().rev().find_map(|alert| match alert {
            Alert::StateChanged { state, .. } => Some(*state),
            _ => None,
        })
    }
}

/// A peer has metadata of this size.
fn has_metadata(size: i64) -> Message {
    Message::ExtendedHandshake(Box::new(ExtendedHandshake {
        m: vec![("ut_metadata".into(), THEIRS)],
        metadata_size: Some(size),
        ..ExtendedHandshake::default()
    }))
}

fn metadata(message: &MetadataMessage) -> Message {
    Message::Extended { id: OURS, payload: message.encode() }
}

fn data(block: u32, data: Bytes) -> Message {
    metadata(&MetadataMessage::Data { block, total_bytes: None, data })
}

#[test]
fn a_magnet_becomes_a_torrent_and_what_peers_had_said_counts() {
    let mut bench = Bench::magnet(&[1], |_| {});
    assert_eq!(bench.state(), Some(TorrentState::FetchingMetadata));
    let info = info_of(&torrent_file(PIECES));
    let early = [Message::HaveAll, Message::Unchoke, has_metadata(info.len() as i64)];
    let seed = bench.answer(0, early.to_vec());
    let greeting = bench.sent[&seed].clone();
    assert!(greeting.contains(&Message::HaveNone), "{greeting:?}");
    assert!(!greeting.iter().any(|said| matches!(said, Message::ExtendedHandshake(said) if said.metadata_size.is_some() || said.upload_only.is_some())));
    assert_eq!(bench.wanted_metadata(seed), [0]);
    bench.say(seed, vec![data(0, info.clone())]);
    assert_eq!(bench.count(|alert| matches!(alert, Alert::MetadataReceived { .. })), 1);
    let said = bench.take_sent(seed);
    assert!(said.iter().any(|said| matches!(said, Message::ExtendedHandshake(said) if said.metadata_size == Some(info.len() as i64))), "{said:?}");
    bench.open(PIECES, &[], &[]);
    assert!(bench.jobs.iter().any(|(_, work)| *work == Work::SaveMetadata { info: info.clone() }));
    assert_eq!(bench.state(), Some(TorrentState::Downloading));
    bench.give_all(seed);
    assert_eq!((bench.have(), bench.state()), (PIECES, Some(TorrentState::Seeding)));
}

#[test]
fn bitfield_and_haves_that_came_early_are_judged_when_they_can_be() {
    let mut bench = Bench::magnet(&[1, 2], |_| {});
    let info = info_of(&torrent_file(PIECES));
    let bits = Message::Bitfield(Bytes::from_static(&[0b1000_0000]));
    let honest =
        bench.answer(0, vec![bits, Message::Have(2), Message::Unchoke, has_metadata(info.len() as i64)]);
    let wrong = bench.answer(1, vec![Message::Bitfield(Bytes::from_static(&[0xff; 9]))]);
    assert!(!bench.closed.contains(&wrong), "nobody knows yet");
    bench.say(honest, vec![data(0, info)]);
    bench.take_sent(honest);
    bench.open(PIECES, &[], &[]);
    assert!(bench.closed.contains(&wrong));
    bench.give_all(honest);
    let have = bench.engine.have(TORRENT).unwrap();
    assert_eq!([0, 1, 2].map(|piece| have.has(PieceIndex::new(piece))), [true, false, true]);
}

#[test]
fn what_an_earlier_run_fetched_is_not_fetched_again() {
    let hash = Bench::magnet(&[], |_| {}).info_hash;
    let mut add = AddTorrent::magnet(TORRENT, format!("magnet:?xt=urn:btih:{hash}"), "/out".into());
    add.peers = vec![address(1)];
    let mut bench = Bench::just_added(Config::default(), add);
    bench.loaded(Some(info_of(&torrent_file(PIECES))));
    bench.open(PIECES, &[0], &[]);
    assert!(!bench.jobs.iter().any(|(_, work)| matches!(work, Work::SaveMetadata { .. })));
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(seed);
    assert_eq!(bench.have(), PIECES);
}

#[test]
fn who_holds_it_chooses_files_before_anything_is_fetched() {
    let mut bench = Bench::magnet(&[1, 2], |add| add.hold = true);
    let info = info_of(&torrent_file(PIECES));
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke, has_metadata(info.len() as i64)]);
    let slow = bench.answer(1, vec![has_metadata(info.len() as i64)]);
    assert_eq!(bench.wanted_metadata(slow), [0], "its answer never comes, and nobody waits for it");
    bench.say(seed, vec![data(0, info)]);
    bench.pass(Duration::from_secs(30));
    assert!(bench.jobs.is_empty(), "{:?}", bench.jobs);
    bench.take_sent(seed);
    let priorities = vec![Priority::Skip];
    bench.input(Input::Command(Command::SetPriorities { torrent: TORRENT, priorities }));
    bench.open(PIECES, &[], &[]);
    assert_eq!((bench.take_requests(seed), bench.state()), (Vec::new(), Some(TorrentState::Seeding)));
}

#[test]
fn a_link_that_wants_some_files_gets_those() {
    let text = format!(
        "d4:infod5:filesld6:lengthi16384e4:pathl1:aeed6:lengthi16384e4:pathl1:beee4:name1:x12:piece lengthi16384e6:pieces40:{}ee",
        "h".repeat(40)
    );
    for (so, wanted) in [("1", vec![1]), ("0-1", vec![0, 1]), ("77", vec![0, 1])] {
        let text = Bytes::from(text.clone());
        let mut bench = Bench::magnet_of(&text, &[1], |add| {
            let TorrentSource::Magnet(link) = &mut add.source else { panic!("it is one") };
            link.push_str(&format!("&so={so}"));
        });
        let info = info_of(&text);
        let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke, has_metadata(info.len() as i64)]);
        bench.say(seed, vec![data(0, info)]);
        bench.take_sent(seed);
        bench.open(2, &[], &[]);
        let mut pieces: Vec<_> = bench.take_requests(seed).iter().map(|request| request.piece).collect();
        pieces.sort_unstable();
        assert_eq!(pieces, wanted, "so={so}");
    }
}

/// What comes is the info dictionary of both versions, and all that is asked of it is that its SHA-1 is right.
#[test]
fn a_link_with_the_v1_hash_of_a_hybrid_gets_it_from_the_swarm_of_v1() {
    let hybrid = include_bytes!("../../../tests/fixtures/torrents/libtorrent/empty-files-1.torrent");
    let text = Bytes::from_static(hybrid);
    let mut bench = Bench::magnet_of(&text, &[1], |_| {});
    let info = info_of(&text);
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke, has_metadata(info.len() as i64)]);
    bench.say(seed, vec![data(0, info)]);
    bench.take_sent(seed);
    let received = bench.alerts.iter().find_map(|alert| match alert {
        Alert::MetadataReceived { torrent_file, .. } => Some(torrent_file.clone()),
        _ => None,
    });
    let known = Metainfo::parse(&received.unwrap(), PathRules::Unix).unwrap();
    assert!(known.info_hashes.v2.is_some() && !known.file_roots.is_empty(), "and it is known as both");
    let pieces = known.layout.piece_count();
    bench.open(pieces, &[], &[]);
    bench.disk();
    bench.give_all(seed);
    assert_eq!((bench.have(), bench.state()), (pieces, Some(TorrentState::Seeding)));
}

/// What was asked of the disk for it is still out, so that it is not gone at once; a crash of libtorrent's.
#[test]
fn who_removes_it_when_its_metadata_comes_may_add_it_again_once_it_is_gone() {
    let text = torrent_file(PIECES);
    let info = info_of(&text);
    for hold in [false, true] {
        let mut bench = Bench::magnet_of(&text, &[1], |add| add.hold = hold);
        let early = vec![Message::HaveAll, Message::Unchoke, has_metadata(info.len() as i64)];
        let seed = bench.answer(0, early.clone());
        bench.say(seed, vec![data(0, info.clone())]);
        bench.input(Input::Command(Command::RemoveTorrent { torrent: TORRENT }));
        assert!(bench.closed.contains(&seed));
        bench.say(seed, vec![Message::HaveAll, data(0, info.clone())]);
        if !hold {
            let again = AddTorrent::new(TorrentId(1), text.clone(), "/out".into());
            bench.input(Input::Command(Command::AddTorrent(Box::new(again))));
            let refused = Alert::AddFailed { torrent: TorrentId(1), error: AddError::Duplicate };
            assert_eq!(bench.alerts.pop(), Some(refused), "it is still here");
            bench.open(PIECES, &[], &[]);
        }
        let Some((job, work)) = bench.jobs.pop_front() else { panic!("it is closed") };
        let result = match work {
            Work::Snapshot { close: true, .. } if !hold => JobResult::Saved(Ok(())),
            Work::Close if hold => JobResult::Closed,
            other => panic!("{other:?}"),
        };
        bench.input(Input::JobDone { job, result });
        assert_eq!(bench.alerts.last(), Some(&Alert::Removed { torrent: TORRENT }));

        let mut again = AddTorrent::new(TORRENT, text.clone(), "/out".into());
        again.peers = vec![address(1)];
        bench.input(Input::Command(Command::AddTorrent(Box::new(again))));
        bench.open(PIECES, &[], &[]);
        let seed = bench.answer(1, early);
        bench.give_all(seed);
        assert_eq!((bench.have(), bench.state()), (PIECES, Some(TorrentState::Seeding)));
    }
}

#[test]
fn who_sends_wrong_metadata_alone_is_banned_and_another_is_asked() {
    let mut bench = Bench::magnet(&[1, 2], |_| {});
    let info = info_of(&torrent_file(PIECES));
    let liar = bench.answer(0, vec![has_metadata(5)]);
    assert_eq!(bench.wanted_metadata(liar), [0]);
    let seed = bench.answer(1, vec![has_metadata(info.len() as i64)]);
    bench.say(liar, vec![data(0, Bytes::from_static(b"wrong"))]);
    assert!(bench.closed.contains(&liar));
    assert_eq!(bench.count(|alert| matches!(alert, Alert::PeerBanned { .. })), 1);
    bench.say(seed, vec![data(0, info)]);
    assert_eq!(bench.count(|alert| matches!(alert, Alert::MetadataReceived { .. })), 1);
}

/// Features 1.4, hole 2: the magnet hung for ever.
#[test]
fn a_metadata_peer_that_dies_or_rejects_is_replaced() {
    let mut bench = Bench::magnet(&[1, 2, 3], |_| {});
    let info = info_of(&torrent_file(PIECES));
    let size = info.len() as i64;
    let [dies, rejects] = [0, 1].map(|n| bench.answer(n, vec![has_metadata(size)]));
    bench.input(Input::Closed { connection: dies, reason: CloseReason::EndOfStream });
    bench.say(rejects, vec![metadata(&MetadataMessage::Reject { block: 0 })]);
    let seed = bench.answer(2, vec![has_metadata(size)]);
    assert_eq!(bench.wanted_metadata(seed), [0]);
    bench.say(seed, vec![data(0, info)]);
    assert_eq!(bench.count(|alert| matches!(alert, Alert::MetadataReceived { .. })), 1);
}

#[test]
fn metadata_is_served_so_often_and_no_more() {
    let mut bench = Bench::new(PIECES, &[], &[1]);
    let info = info_of(&torrent_file(PIECES));
    let peer = bench.answer(0, vec![has_metadata(0)]);
    bench.take_sent(peer);
    let ask = |block| metadata(&MetadataMessage::Request { block });
    let answers = |bench: &mut Bench| {
        let said = bench.take_sent(peer).into_iter().filter_map(|message| match message {
            Message::Extended { id: THEIRS, payload } => MetadataMessage::decode(&payload),
            _ => None,
        });
        said.collect::<Vec<_>>()
    };
    let total_bytes = Some(info.len() as i64);
    for _ in 0..METADATA_TIMES_SERVED {
        bench.say(peer, vec![ask(0)]);
        bench.input(Input::Sent { connection: peer, written_bytes: BLOCK_BYTES });
        assert_eq!(
            answers(&mut bench),
            [MetadataMessage::Data { block: 0, total_bytes, data: info.clone() }]
        );
    }
    bench.say(peer, vec![ask(0), ask(1)]);
    assert_eq!(answers(&mut bench), [0, 1].map(|block| MetadataMessage::Reject { block }));
    bench.say(peer, vec![ask(0); crate::limits::IDLE_MESSAGES_MAX as usize]);
    assert!(bench.closed.contains(&peer), "a flood");
}

#[test]
fn metadata_that_is_no_torrent_ends_it_in_words() {
    let info = Bytes::from_static(b"d4:name1:xe");
    let hash = InfoHash(<sha1::Sha1 as sha1::Digest>::digest(&info).into());
    let mut add = AddTorrent::magnet(TORRENT, format!("magnet:?xt=urn:btih:{hash}"), "/out".into());
    add.peers = vec![address(1)];
    let mut bench = Bench::just_added(Config::default(), add);
    bench.loaded(None);
    let seed = bench.answer(0, vec![has_metadata(info.len() as i64)]);
    bench.say(seed, vec![data(0, info)]);
    assert_eq!(
        bench.count(|alert| matches!(alert, Alert::AddFailed { error: AddError::Metainfo(_), .. })),
        1
    );
    let Some((job, Work::Close)) = bench.jobs.pop_front() else { panic!("it is closed") };
    bench.input(Input::JobDone { job, result: JobResult::Closed });
    assert_eq!(bench.count(|alert| matches!(alert, Alert::Removed { .. })), 1);
}

#[test]
fn a_magnet_that_nobody_answers_stops_when_it_is_told_to() {
    let mut bench = Bench::magnet(&[1], |_| {});
    bench.pass(Duration::from_secs(600));
    assert_eq!(bench.state(), Some(TorrentState::FetchingMetadata));
    assert!(bench.dialled.len() > 1, "it goes on trying");
    bench.input(Input::Command(Command::Shutdown));
    let Some((job, Work::Close)) = bench.jobs.pop_front() else { panic!("it is closed") };
    bench.input(Input::JobDone { job, result: JobResult::Closed });
    assert_eq!(bench.count(|alert| *alert == Alert::Stopped), 1);
}

#[test]
fn who_leaves_out_the_size_of_the_metadata_later_still_has_it() {
    let mut bench = Bench::magnet(&[1], |_| {});
    let seed = bench.answer(0, vec![has_metadata(100_000)]);
    assert!(!bench.wanted_metadata(seed).is_empty());
    let later = ExtendedHandshake { upload_only: Some(true), ..ExtendedHandshake::default() };
    bench.say(seed, vec![Message::ExtendedHandshake(Box::new(later))]);
    bench.say(seed, vec![data(0, Bytes::from(vec![0; 16384]))]);
    assert!(!bench.wanted_metadata(seed).is_empty(), "the next block");
}

#[test]
fn a_link_whose_torrent_cannot_be_opened_leaves_nobody_behind() {
    let mut bench = Bench::magnet(&[1, 2], |_| {});
    let info = info_of(&torrent_file(PIECES));
    let peers = [0, 1].map(|n| bench.answer(n, vec![has_metadata(info.len() as i64)]));
    bench.say(peers[0], vec![data(0, info)]);
    let Some((job, Work::Open { .. })) = bench.jobs.pop_front() else { panic!("it is opened") };
    let error = StorageError { path: "/out/x".into(), kind: StorageErrorKind::TooLong };
    bench.input(Input::JobDone { job, result: JobResult::Opened(Err(error)) });
    let Some((job, Work::Close)) = bench.jobs.pop_front() else { panic!("it is closed") };
    bench.input(Input::JobDone { job, result: JobResult::Closed });
    assert_eq!(bench.count(|alert| matches!(alert, Alert::AddFailed { .. })), 1);
    assert_eq!(bench.count(|alert| matches!(alert, Alert::Removed { .. })), 1);
    assert!(peers.iter().all(|peer| bench.closed.contains(peer)));
    assert!(bench.engine.routes.connections.is_empty());
}
