//! Disks that fill up, fail and heal, with the real jobs on files in memory; and a machine that slept.

use std::sync::Arc;

use super::*;
use crate::command::{Allocation, Priority, ResumeMode};
use crate::disk::memory::MemoryStorage;
use crate::disk::{Job, Written, execute, sha1_each};
use crate::ids::FileIndex;

/// One engine, the real jobs on files in memory, and a seed that answers at once.
struct World {
    engine: Engine,
    now: Instant,
    info_hash: InfoHash,
    payload: Vec<u8>,
    storage: MemoryStorage,
    place: Option<Arc<Place>>,
    inputs: VecDeque<Input>,
    alerts: Vec<Alert>,
    paused: bool,
    requests: u32,
    requests_while_paused: u32,
    have_at_completion: Option<bool>,
}

const PIECE_BYTES: usize = 64;
const FILES: [(&str, usize); 4] = [("a", 1000), ("b", 7), ("c", 1543), ("empty", 0)];
const STEP: Duration = Duration::from_millis(1);
const OUT: &str = "/out";

impl World {
    fn new(change: impl FnOnce(&mut AddTorrent), storage: MemoryStorage) -> Self {
        let total = FILES.iter().map(|(_, length)| length).sum::<usize>();
        // No byte is zero: a hole never looks like data.
        let payload: Vec<u8> = (0..total).map(|n| (n % 251) as u8 + 1).collect();
        let pieces: Vec<Vec<&[u8]>> = payload.chunks(PIECE_BYTES).map(|piece| vec![piece]).collect();
        assert_eq!(pieces.len(), 40);
        let mut hashes = Vec::new();
        sha1_each(&pieces, &mut hashes);
        let mut file = b"d4:infod5:filesl".to_vec();
        for (name, length) in FILES {
            file.extend(format!("d6:lengthi{length}e4:pathl{}:{name}ee", name.len()).bytes());
        }
        file.extend(
            format!("e4:name1:t12:piece lengthi{PIECE_BYTES}e6:pieces{}:", hashes.len() * 20).bytes(),
        );
        file.extend(hashes.concat());
        file.extend(b"ee");
        let info_hash = Metainfo::parse(&file, PathRules::Unix).unwrap().info_hashes.v1.unwrap();
        let start = StartValues { seed: 7, boot_id: [0; 16], wall_seconds: 0 };
        let mut add = AddTorrent::new(TORRENT, file.into(), OUT.into());
        add.peers = vec![address(1)];
        change(&mut add);
        Self {
            engine: Engine::new(Config::default(), start),
            now: Instant(1),
            info_hash,
            payload,
            storage,
            place: None,
            inputs: VecDeque::from([Input::Command(Command::AddTorrent(Box::new(add)))]),
            alerts: Vec::new(),
            paused: false,
            requests: 0,
            requests_while_paused: 0,
            have_at_completion: None,
        }
    }

    /// Goes on until `over`, for so long at most. Whether it was over in time.
    fn run(&mut self, time: Duration, over: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            if over(self) {
                return true;
            }
            let input = self.inputs.pop_front().or_else(|| {
                let at = self.engine.poll_timeout().filter(|at| *at <= end)?;
                self.now = self.now.max(at);
                Some(Input::Timeout)
            });
            let Some(input) = input else { break };
            self.now = self.now + STEP;
            self.storage.now_ns += 1_000_000;
            self.engine.handle_input(self.now, input);
            while let Some(output) = self.engine.poll_output() {
                self.perform(output);
            }
        }
        self.now = self.now.max(end);
        over(self)
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Job { job, work } => {
                self.place = Some(Arc::clone(&work.place));
                let result = execute(&work, &mut self.storage, &sha1_each);
                self.inputs.push_back(Input::JobDone { job, result });
            }
            Output::Connect { connection, .. } => {
                let hello = Handshake {
                    reserved: Reserved::OURS,
                    info_hash: self.info_hash,
                    peer_id: PeerId([5; 20]),
                };
                let messages = vec![Message::Handshake(hello), Message::HaveAll, Message::Unchoke];
                self.inputs.push_back(Input::Connected { connection, local: address(200) });
                self.inputs.push_back(Input::Received { connection, read_bytes: 100, messages });
            }
            Output::Send { connection, messages } => {
                for message in messages {
                    let Message::Request(asked) = message else { continue };
                    self.requests += 1;
                    self.requests_while_paused += u32::from(self.paused);
                    let begin = asked.piece as usize * PIECE_BYTES + asked.begin as usize;
                    let bytes = &self.payload[begin..begin + asked.length as usize];
                    let data = BlockData::from(Bytes::copy_from_slice(bytes));
                    let messages = vec![Message::Piece { piece: asked.piece, begin: asked.begin, data }];
                    let read_bytes = asked.length + 13;
                    self.inputs.push_back(Input::Received { connection, read_bytes, messages });
                }
            }
            Output::Alert(alert) => {
                match alert {
                    Alert::StateChanged { state, .. } => self.paused = state == TorrentState::DiskError,
                    Alert::Completed { .. } => {
                        assert!(self.have_at_completion.is_none(), "said once");
                        self.have_at_completion = Some(self.is_whole());
                    }
                    _ => {}
                }
                self.alerts.push(alert);
            }
            _ => {}
        }
    }

    /// Whether the right bytes are on disk.
    fn is_whole(&self) -> bool {
        let mut begin = 0;
        FILES.iter().all(|(name, length)| {
            let right = &self.payload[begin..begin + length];
            begin += length;
            self.storage.files.get(&format!("{OUT}/t/{name}")).is_some_and(|file| file.bytes == right)
        })
    }

    fn is_complete(&self) -> bool {
        self.have_at_completion.is_some()
    }

    /// What a later run believes.
    fn believed(&mut self) -> Bitfield {
        let place = Arc::clone(self.place.as_ref().unwrap());
        let job = Job { place, work: Work::Open { resume: ResumeMode::Resume } };
        match execute(&job, &mut self.storage, &sha1_each) {
            JobResult::Opened(Ok(opened)) => opened.have,
            other => panic!("{other:?}"),
        }
    }
}

/// Files of the right lengths with the right bytes, zeros or other bytes at the start: all of it is looked at, what is right
/// is kept, and the rest is fetched, once.
#[test]
fn what_is_there_at_the_start_is_kept_where_it_is_right_and_fetched_where_it_is_not() {
    let payload = World::new(|_| {}, MemoryStorage::default()).payload;
    let wrong = |begin: usize, byte: u8| {
        let mut bytes = payload.clone();
        bytes[begin..].fill(byte);
        bytes
    };
    // Wrong from the middle of piece 20 on.
    for (there, missing) in [
        (None, 40),
        (Some(payload.clone()), 0),
        (Some(wrong(0, 0)), 40),
        (Some(wrong(0, 255)), 40),
        (Some(wrong(20 * PIECE_BYTES + 1, 255)), 20),
    ] {
        let mut storage = MemoryStorage { now_ns: 1 << 40, ..MemoryStorage::default() };
        if let Some(there) = &there {
            let mut begin = 0;
            for (name, length) in FILES {
                storage.put(&format!("{OUT}/t/{name}"), &there[begin..begin + length]);
                begin += length;
            }
        }
        let mut world = World::new(|_| {}, storage);
        let seeding = Alert::StateChanged { torrent: TORRENT, state: TorrentState::Seeding };
        assert!(world.run(Duration::from_secs(60), |world| world.alerts.contains(&seeding)), "{missing}");
        assert_eq!((world.is_whole(), world.requests), (true, missing));
        let failed = |alert: &Alert| matches!(alert, Alert::PieceFailed { .. } | Alert::PeerBanned { .. });
        assert!(!world.alerts.iter().any(failed), "nobody is blamed: {:?}", world.alerts);
    }
}

/// A download with a disk whose `k`-th call fails, and those after it until 45 s later if the fault is `lasting`. False
/// when there was no such call.
fn heals(k: u64, kind: StorageErrorKind, lasting: bool) -> bool {
    let mut storage = MemoryStorage { now_ns: 1_000_000_000_000, ..MemoryStorage::default() };
    if lasting {
        storage.fail_from = Some((k, kind));
    } else {
        storage.fail_at = Some((k, kind));
    }
    let case = || format!("call {k}, {kind:?}, lasting: {lasting}");
    let mut world = World::new(|_| {}, storage);
    let struck = |world: &World| world.storage.calls >= k;
    let begun = world.run(Duration::from_secs(60), |world| struck(world) || world.is_complete());
    assert!(begun, "{}: nothing moves before the fault", case());
    if struck(&world) && lasting {
        world.run(Duration::from_secs(45), |_| false);
        assert!(!world.is_complete() || world.is_whole(), "{}", case());
    }
    world.storage.fail_from = None;
    assert!(world.run(Duration::from_secs(60), World::is_complete), "{}: does not go on", case());
    assert_eq!(world.have_at_completion, Some(true), "{}: a false completion", case());
    assert_eq!(world.requests_while_paused, 0, "{}: asks while it cannot write", case());
    let blamed = |alert: &Alert| {
        matches!(alert, Alert::PieceFailed { .. } | Alert::PeerBanned { .. } | Alert::AddFailed { .. })
    };
    assert!(!world.alerts.iter().any(blamed), "{}: {:?}", case(), world.alerts);
    let did_fail = struck(&world);
    world.inputs.push_back(Input::Command(Command::Shutdown));
    let stopped = |world: &World| world.alerts.last() == Some(&Alert::Stopped);
    assert!(world.run(Duration::from_secs(20), stopped), "{}: does not stop", case());
    world.storage.fail_at = None;
    let stateless = matches!(kind, StorageErrorKind::ReadOnly) && world.storage.files.len() == FILES.len();
    assert!(stateless || world.believed().is_full(), "{}: the state is not valid", case());
    did_fail
}

/// Goal G10 of the reliability figures.
#[test]
fn whichever_call_fails_the_download_completes_by_itself() {
    use StorageErrorKind::{Exhausted, Full, Io, ReadOnly};
    for kind in [Full, Io, ReadOnly, Exhausted] {
        for lasting in [false, true] {
            let calls = (1..).take_while(|k| heals(*k, kind, lasting)).count();
            assert!(calls > 80, "every call of a run was made to fail: {calls}");
        }
    }
}

/// Fuzz-small, seed 1614.
#[test]
fn who_stops_a_torrent_while_it_is_opened_hears_of_no_trouble_that_passes() {
    use StorageErrorKind::{Denied, Exhausted, ReadOnly};
    for (kind, told) in [(Exhausted, false), (ReadOnly, false), (Denied, true)] {
        let mut world = World::new(
            |_| {},
            MemoryStorage {
                now_ns: 1_000_000_000_000,
                fail_from: Some((0, kind)),
                ..MemoryStorage::default()
            },
        );
        world.inputs.push_back(Input::Command(Command::Shutdown));
        let stopped = |world: &World| world.alerts.iter().any(|alert| matches!(alert, Alert::Stopped));
        assert!(world.run(Duration::from_secs(60), stopped), "{kind:?}");
        let failed = world.alerts.iter().any(|alert| matches!(alert, Alert::AddFailed { .. }));
        assert_eq!(failed, told, "{kind:?}");
    }
}

fn disk_alerts(alerts: &[Alert]) -> Vec<Option<u64>> {
    let needed = |alert: &Alert| match alert {
        Alert::DiskFailed { needed_bytes, .. } => Some(*needed_bytes),
        _ => None,
    };
    alerts.iter().filter_map(needed).collect()
}

#[test]
fn a_full_disk_says_once_what_it_needs_asks_for_nothing_and_serves_what_is_there() {
    let mut bench = Bench::new(8, &[0], &[1]);
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    bench.disk_full = true;
    let requests = bench.take_requests(seed);
    bench.give(seed, &requests);
    bench.disk();
    let missing = 7 * u64::from(BLOCKS * BLOCK_BYTES);
    assert_eq!(disk_alerts(&bench.alerts), [Some(missing)]);
    bench.take_sent(seed);
    let leech = ConnectionId::accepted(0);
    bench.input(Input::Accepted { connection: leech, remote: address(9) });
    bench.say(leech, vec![bench.handshake(PeerId([4; 20])), Message::HaveNone, Message::Interested]);
    for _ in 0..10 {
        bench.pass(Duration::from_secs(30));
        bench.say(seed, vec![Message::KeepAlive]);
        bench.say(leech, vec![Message::Request(Request { piece: 0, begin: 0, length: BLOCK_BYTES })]);
        bench.disk();
        let served = bench.take_sent(leech).iter().any(|message| matches!(message, Message::Piece { .. }));
        assert!(served, "what is there is served");
        assert!(bench.take_requests(seed).is_empty(), "asks for nothing, not even when it tries again");
    }
    assert_eq!(disk_alerts(&bench.alerts).len(), 1, "said once");
    bench.disk_full = false;
    bench.pass(Duration::from_secs(31));
    bench.give_all(seed);
    assert_eq!(bench.have(), 8);
}

#[test]
fn a_failing_disk_stops_its_own_torrent_alone() {
    let mut world = World::new(|_| {}, MemoryStorage { now_ns: 1 << 40, ..MemoryStorage::default() });
    world.storage.read_only.insert("/full".to_owned(), StorageErrorKind::Full);
    let mut other = AddTorrent::new(TorrentId(1), torrent_file(2), "/full".into());
    other.peers = vec![address(2)];
    world.inputs.push_back(Input::Command(Command::AddTorrent(Box::new(other))));
    assert!(world.run(Duration::from_secs(5), World::is_complete));
    let state = TorrentState::DiskError;
    assert!(world.alerts.contains(&Alert::StateChanged { torrent: TorrentId(1), state }));
    assert!(!world.alerts.contains(&Alert::StateChanged { torrent: TORRENT, state }));
}

#[test]
fn a_file_that_had_to_be_made_anew_is_hashed_before_anything_is_complete() {
    let storage = MemoryStorage { now_ns: 1 << 40, ..MemoryStorage::default() };
    let mut world = World::new(|_| {}, storage);
    assert!(
        world.run(Duration::from_secs(5), |world| world.engine.have(TORRENT).is_some_and(|h| h.count() > 15))
    );
    // Another program removes what is there; the last pieces make the file again, with a hole before them.
    world.storage.files.remove(&format!("{OUT}/t/c"));
    assert!(world.run(Duration::from_secs(60), World::is_complete));
    assert_eq!(world.have_at_completion, Some(true));
    assert!(world.requests > 40, "what was lost was fetched again: {}", world.requests);
}

#[test]
fn what_is_in_doubt_is_neither_served_nor_kept() {
    let mut bench = Bench::new(3, &[0, 1, 2], &[]);
    let leech = ConnectionId::accepted(0);
    bench.input(Input::Accepted { connection: leech, remote: address(9) });
    bench.say(leech, vec![bench.handshake(PeerId([4; 20])), Message::HaveNone, Message::Interested]);
    let request = |piece| Message::Request(Request { piece, begin: 0, length: BLOCK_BYTES });
    bench.say(leech, vec![request(2)]);
    let (job, _) = bench.jobs.pop_front().unwrap();
    let short = StorageError { path: "/out/x".into(), kind: StorageErrorKind::ShortRead };
    bench.input(Input::JobDone { job, result: JobResult::Read(Err(short)) });
    bench.take_sent(leech);
    bench.say(leech, vec![request(1)]);
    assert!(matches!(bench.take_sent(leech)[..], [Message::RejectRequest(_)]), "not before it is hashed");
    bench.doubts_recorded();
    let Some((job, Work::Check { pieces })) = bench.jobs.pop_front() else {
        panic!("all of the file is hashed")
    };
    assert_eq!(pieces.len(), 3);
    bench.input(Input::JobDone { job, result: JobResult::Checked(Ok(vec![true, false, false])) });
    assert_eq!(bench.have(), 1);
    assert_eq!(bench.closed, [leech], "it was told of pieces that are gone");
    let leech = ConnectionId::accepted(1);
    bench.input(Input::Accepted { connection: leech, remote: address(9) });
    bench.say(leech, vec![bench.handshake(PeerId([4; 20])), Message::HaveNone, Message::Interested]);
    bench.say(leech, vec![request(0)]);
    bench.disk();
    assert!(bench.take_sent(leech).iter().any(|message| matches!(message, Message::Piece { .. })));
}

/// Fuzz-small with damage, seed 1596: others were whole, and had not said so of pieces that they had been told we have.
#[test]
fn who_was_told_of_a_lost_piece_and_lacks_it_is_met_anew() {
    let mut bench = Bench::new(3, &[0, 1, 2], &[]);
    let come = |bench: &mut Bench, n: u8, has: Message| {
        let connection = ConnectionId::accepted(n.into());
        bench.input(Input::Accepted { connection, remote: address(n) });
        bench.say(connection, vec![bench.handshake(PeerId([n; 20])), has, Message::Interested]);
        connection
    };
    let bits = |byte: u8| Message::Bitfield(Bytes::copy_from_slice(&[byte]));
    let before = come(&mut bench, 1, bits(0b0010_0000));
    let knows = come(&mut bench, 2, bits(0b1100_0000));
    bench.say(before, vec![Message::Request(Request { piece: 2, begin: 0, length: BLOCK_BYTES })]);
    let at = bench.jobs.iter().position(|(_, work)| matches!(work, Work::Read { .. })).unwrap();
    let (job, _) = bench.jobs.remove(at).unwrap();
    let short = StorageError { path: "/out/x".into(), kind: StorageErrorKind::ShortRead };
    bench.input(Input::JobDone { job, result: JobResult::Read(Err(short)) });
    let later = come(&mut bench, 3, bits(0b0010_0000));
    bench.doubts_recorded();
    let at = bench.jobs.iter().position(|(_, work)| matches!(work, Work::Check { .. })).unwrap();
    let (job, _) = bench.jobs.remove(at).unwrap();
    bench.input(Input::JobDone { job, result: JobResult::Checked(Ok(vec![true, false, true])) });
    assert_eq!(bench.closed, [before], "neither {knows:?} nor {later:?}, who was told of none");
}

/// The piece that a seed is asked for comes, and its write finds the file shorter than it was.
fn finds_it_cut(bench: &mut Bench, seed: ConnectionId, reaches: u64) {
    bench.give_all(seed);
    let Some((job, Work::Write { reaches: known, .. })) = bench
        .jobs
        .iter()
        .position(|(_, work)| matches!(work, Work::Write { .. }))
        .and_then(|at| bench.jobs.remove(at))
    else {
        panic!("a piece is written: {:?}", bench.jobs)
    };
    assert_eq!(known, [(FileIndex(0), reaches)]);
    let written = Written { gone: vec![FileIndex(0)], ..Written::default() };
    bench.input(Input::JobDone { job, result: JobResult::Written(Ok(written)) });
}

/// The disk does what is waiting, in order, and what comes of it.
fn work_noting(bench: &mut Bench, mut note: impl FnMut(&Work)) {
    while let Some((job, work)) = bench.jobs.pop_front() {
        note(&work);
        let later = std::mem::take(&mut bench.jobs);
        bench.jobs.push_back((job, work));
        bench.disk_once();
        let new = std::mem::replace(&mut bench.jobs, later);
        bench.jobs.extend(new);
    }
}

/// Fuzz-small with damage, seed 139: cut between a start and the first write after it, so that no storage could know.
#[test]
fn a_file_that_was_cut_is_in_doubt_before_anything_is_written_to_it() {
    let mut bench = Bench::new(3, &[0, 1], &[1]);
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    bench.disk();
    bench.disk_asleep = true;
    let piece_bytes = u64::from(BLOCKS * BLOCK_BYTES);
    finds_it_cut(&mut bench, seed, 2 * piece_bytes);
    let mut order = Vec::new();
    work_noting(&mut bench, |work| match work {
        Work::Record { doubted, .. } => order.push(format!("record {}", doubted.len())),
        Work::Snapshot { .. } => order.push("snapshot".to_owned()),
        Work::Write { reaches, forget, .. } => order.push(format!("write {reaches:?} {forget:?}")),
        _ => {}
    });
    let at = |what: &str| order.iter().position(|one| one == what);
    let write = format!("write [(FileIndex(0), {})] [FileIndex(0)]", 2 * piece_bytes);
    let (record, saved, written) = (at("record 2"), at("snapshot"), at(&write));
    assert!(record.is_some() && record < saved && saved < written, "were we killed in between: {order:?}");
    assert_eq!(bench.have(), 3, "what is still there is had again");
}

/// Fuzz-small with damage, seeds 43, 228 and 314: read after the file was made again, before that was known.
#[test]
fn what_was_read_while_its_file_came_to_be_in_doubt_is_not_served() {
    let mut bench = Bench::new(3, &[0, 1], &[1]);
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    let leech = ConnectionId::accepted(0);
    bench.input(Input::Accepted { connection: leech, remote: address(9) });
    bench.say(leech, vec![bench.handshake(PeerId([4; 20])), Message::HaveNone, Message::Interested]);
    bench.disk();
    bench.take_sent(leech);
    bench.disk_asleep = true;
    bench.say(leech, vec![Message::Request(Request { piece: 1, begin: 0, length: BLOCK_BYTES })]);
    finds_it_cut(&mut bench, seed, 2 * u64::from(BLOCKS * BLOCK_BYTES));
    bench.disk_asleep = false;
    bench.disk();
    let sent = bench.take_sent(leech);
    assert!(!sent.iter().any(|message| matches!(message, Message::Piece { .. })), "{sent:?}");
    assert!(sent.iter().any(|message| matches!(message, Message::RejectRequest(_))), "{sent:?}");
}

/// What came is right, and was written; then the file is found gone, and the write is not looked at again.
#[test]
fn a_piece_that_is_being_verified_while_its_file_is_in_doubt_is_read_back() {
    let mut bench = Bench::new(4, &[0], &[1]);
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    bench.disk();
    bench.disk_asleep = true;
    bench.give_all(seed);
    let take = |bench: &mut Bench, which: fn(&Work) -> bool| {
        let at = bench.jobs.iter().position(|(_, work)| which(work)).unwrap();
        bench.jobs.remove(at).unwrap()
    };
    let is_write = |work: &Work| matches!(work, Work::Write { .. });
    let (first, _) = take(&mut bench, is_write);
    let (second, _) = take(&mut bench, is_write);
    bench.input(Input::JobDone { job: first, result: JobResult::Written(Ok(Written::default())) });
    let gone = Written { gone: vec![FileIndex(0)], ..Written::default() };
    bench.input(Input::JobDone { job: second, result: JobResult::Written(Ok(gone)) });
    let mut read_back = 0;
    work_noting(&mut bench, |work| {
        if let Work::Hash { pieces } = work {
            read_back += pieces.iter().filter(|asked| asked.blocks.is_empty()).count();
        }
    });
    assert!(read_back > 0);
    assert_eq!(bench.have(), 4);
}

#[test]
fn room_is_made_first_for_what_is_wanted_and_a_full_disk_is_known_then() {
    let storage = MemoryStorage { now_ns: 1 << 40, free_bytes: Some(1543), ..MemoryStorage::default() };
    let priorities = vec![Priority::Normal, Priority::Skip, Priority::Normal];
    let full = |add: &mut AddTorrent| (add.allocation, add.priorities) = (Allocation::Full, priorities);
    let mut world = World::new(full, storage);
    world.run(Duration::from_secs(100), |_| false);
    let needed = disk_alerts(&world.alerts);
    assert!(matches!(needed[..], [Some(2000..)]), "{needed:?}");
    assert_eq!(world.requests, 0, "known before anything is asked for");
    let begun = |name: &String| name.contains("/t/") && !name.ends_with("/empty");
    assert!(!world.storage.files.keys().any(begun), "nothing is begun");
    world.storage.free_bytes = Some(2543);
    let allocated = |world: &World| world.storage.files.contains_key(&format!("{OUT}/t/c"));
    assert!(world.run(Duration::from_secs(31), allocated));
    let lengths: Vec<_> = world.storage.files.iter().filter(|(name, _)| name.contains("/t/")).collect();
    let lengths: Vec<_> = lengths.iter().map(|(name, file)| (name.as_str(), file.bytes.len())).collect();
    assert_eq!(
        lengths,
        [("/out/t/a", 0), ("/out/t/c", 0), ("/out/t/empty", 0)],
        "no zeros that could be taken for data"
    );
    let seeding = Alert::StateChanged { torrent: TORRENT, state: TorrentState::Seeding };
    assert!(world.run(Duration::from_secs(31), |world| world.alerts.contains(&seeding)));
}

#[test]
fn no_room_is_made_for_what_is_there_already() {
    let mut storage = MemoryStorage { now_ns: 1 << 40, free_bytes: Some(0), ..MemoryStorage::default() };
    let whole = World::new(|_| {}, MemoryStorage::default()).payload;
    let mut begin = 0;
    for (name, length) in FILES {
        storage.put(&format!("{OUT}/t/{name}"), &whole[begin..begin + length]);
        begin += length;
    }
    let mut world = World::new(|add| add.allocation = Allocation::Full, storage);
    let seeding = Alert::StateChanged { torrent: TORRENT, state: TorrentState::Seeding };
    assert!(world.run(Duration::from_secs(5), |world| world.alerts.contains(&seeding)), "{:?}", world.alerts);
    assert_eq!(disk_alerts(&world.alerts), []);
}

#[test]
fn after_a_sleep_all_peers_are_met_again_within_ten_seconds() {
    let mut bench = Bench::new(8, &[], &[1, 2]);
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    let (unanswered, _) = bench.dialled[1];
    let refused = CloseReason::ConnectFailed(crate::input::NetError::Refused);
    bench.input(Input::Closed { connection: unanswered, reason: refused });
    let stranger = ConnectionId::accepted(0);
    bench.input(Input::Accepted { connection: stranger, remote: address(9) });
    bench.now = bench.now + Duration::from_secs(3600);
    bench.input(Input::Timeout);
    assert!(
        bench.closed.contains(&seed) && bench.closed.contains(&stranger),
        "dead, whatever they look like"
    );
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.dialled.len(), 4, "both are dialled again, no back-off holds");
    let again = bench.answer(2, vec![Message::HaveAll, Message::Unchoke]);
    bench.give_all(again);
    assert_eq!(bench.have(), 8);
}

#[test]
fn a_machine_that_is_only_slow_keeps_its_peers() {
    let mut bench = Bench::new(8, &[], &[1]);
    let seed = bench.answer(0, vec![Message::HaveAll, Message::Unchoke]);
    let due = bench.engine.poll_timeout().unwrap();
    bench.now = due + Duration::from_secs(20);
    bench.say(seed, vec![Message::KeepAlive]);
    assert!(!bench.closed.contains(&seed));
}
