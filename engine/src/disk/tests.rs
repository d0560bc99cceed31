//! Every job on files in memory, and what is left after kills, power cuts, other programs and failing calls.

mod closed;
mod padding;
mod synced;

use std::sync::Arc;

use bytes::Bytes;

use super::memory::{File, MemoryStorage, OURS};
use super::*;
use crate::command::ResumeMode::{self, NoState, Recheck, Resume};
use crate::metainfo::ListedFile;

const ROOT: &str = "/downloads";
const STATE: &str = "/state";
const SECOND: i64 = 1_000_000_000;

/// A torrent on a storage. Payload byte `n` of the torrent is a function of `n`; pad files are zeros.
struct Desk {
    place: Arc<Place>,
    storage: MemoryStorage,
    payload: Vec<u8>,
}

impl Desk {
    /// Files as `name:length`; a `-` before the name makes a pad file, a `@` a link to a file `a`.
    fn new(piece_length: u32, files: &str) -> Self {
        let files = files.split_whitespace().map(|file| {
            let (name, length) = file.split_once(':').unwrap();
            let path = StoragePath::from_names(["t", name.trim_start_matches(['-', '@'])]);
            let symlink = name.starts_with('@').then(|| StoragePath::from_names(["t", "a"]));
            let pad = name.starts_with('-');
            ListedFile { pad, symlink, ..ListedFile::plain(path, length.parse().unwrap()) }
        });
        let layout = Layout::new(piece_length, files.collect()).unwrap();
        let mut payload: Vec<u8> = (0..layout.total_bytes()).map(|n| (n % 251) as u8 + 1).collect();
        for file in layout.files().iter().filter(|file| file.pad) {
            payload[file.offset as usize..(file.offset + file.length) as usize].fill(0);
        }
        let messages: Vec<Vec<&[u8]>> =
            payload.chunks(piece_length as usize).map(|piece| vec![piece]).collect();
        let mut piece_hashes = Vec::new();
        sha1_each(&messages, &mut piece_hashes);
        let place = Place {
            info_hash: InfoHash([9; 20]),
            root: ROOT.to_owned(),
            state_root: String::new(),
            layout,
            piece_hashes,
            boot_id: [1; 16],
        };
        let storage = MemoryStorage { now_ns: 1_000 * SECOND, ..MemoryStorage::default() };
        Self { place: Arc::new(place), storage, payload }
    }

    fn change_place(&mut self, change: impl FnOnce(&mut Place)) {
        let old = &*self.place;
        let mut place = Place {
            info_hash: old.info_hash,
            root: old.root.clone(),
            state_root: old.state_root.clone(),
            layout: old.layout.clone(),
            piece_hashes: old.piece_hashes.clone(),
            boot_id: old.boot_id,
        };
        change(&mut place);
        self.place = Arc::new(place);
    }

    fn piece(&self, piece: u32) -> PieceIndex {
        self.place.layout.piece(piece).unwrap()
    }

    fn pieces(&self, pieces: &[u32]) -> Vec<PieceIndex> {
        pieces.iter().map(|piece| self.piece(*piece)).collect()
    }

    fn set(&self, pieces: &[u32]) -> Bitfield {
        let mut set = Bitfield::new(self.place.layout.piece_count());
        for piece in pieces {
            set.set(self.piece(*piece));
        }
        set
    }

    fn bytes_of(&self, piece: u32) -> Bytes {
        let start = self.place.layout.piece_offset(self.piece(piece)) as usize;
        let length = self.place.layout.piece_bytes(self.piece(piece)) as usize;
        Bytes::copy_from_slice(&self.payload[start..start + length])
    }

    fn run(&mut self, work: Work) -> JobResult {
        let job = Job { place: Arc::clone(&self.place), work };
        execute(&job, &mut self.storage, &sha1_each)
    }

    fn open(&mut self, resume: ResumeMode) -> Result<Opened, StorageError> {
        match self.run(Work::Open { resume }) {
            JobResult::Opened(opened) => opened,
            other => panic!("{other:?}"),
        }
    }

    /// Opens; gives what is trusted and what is to be hashed.
    fn opened(&mut self) -> (Vec<u32>, Vec<u32>) {
        let opened = self.open(Resume).unwrap();
        (numbers(&opened.have), numbers(&opened.unchecked))
    }

    fn write(&mut self, piece: u32) -> Result<Vec<FileIndex>, StorageError> {
        let runs = vec![Run { begin: 0, blocks: vec![BlockData::from(self.bytes_of(piece))] }];
        match self.run(Work::Write {
            piece: self.piece(piece),
            runs,
            reaches: vec![],
            forget: vec![],
            digests: false,
        }) {
            JobResult::Written(written) => written.map(|written| written.gone),
            other => panic!("{other:?}"),
        }
    }

    fn record(&mut self, good: &[u32], touched: &[u32]) -> Result<(), StorageError> {
        let (good, touched) = (self.pieces(good), self.pieces(touched));
        match self.run(Work::Record { good, touched, doubted: Vec::new() }) {
            JobResult::Recorded(recorded) => recorded,
            other => panic!("{other:?}"),
        }
    }

    fn snapshot_of(&mut self, have: &[u32], unchecked: &[u32], close: bool) -> Result<(), StorageError> {
        let totals = Totals { downloaded: 5, uploaded: 7 };
        let (have, unchecked) = (self.set(have), self.set(unchecked));
        match self.run(Work::Snapshot { have, unchecked, totals, close }) {
            JobResult::Saved(saved) => saved,
            other => panic!("{other:?}"),
        }
    }

    fn snapshot(&mut self, have: &[u32]) {
        self.snapshot_of(have, &[], false).unwrap();
    }

    fn close(&mut self, have: &[u32]) {
        self.snapshot_of(have, &[], true).unwrap();
    }

    /// As the engine does for a good piece.
    fn get(&mut self, pieces: &[u32]) {
        for piece in pieces {
            self.write(*piece).unwrap();
            self.record(&[*piece], &[]).unwrap();
        }
    }

    fn check(&mut self, pieces: &[u32]) -> Result<Vec<bool>, StorageError> {
        let pieces = self.pieces(pieces);
        match self.run(Work::Check { pieces }) {
            JobResult::Checked(checked) => checked,
            other => panic!("{other:?}"),
        }
    }

    fn later(&mut self, seconds: i64) {
        self.storage.now_ns += seconds * SECOND;
    }

    fn reboot(&mut self) {
        self.change_place(|place| place.boot_id[0] += 1);
    }

    fn file(&mut self, name: &str) -> &mut File {
        self.storage.files.get_mut(&format!("{ROOT}/{name}")).unwrap()
    }

    fn state(&mut self, kind: &str) -> &mut File {
        let name = format!(".taipei/{}.{kind}", self.place.info_hash);
        self.file(&name)
    }

    fn names(&self) -> Vec<&str> {
        self.storage.files.keys().map(String::as_str).collect()
    }
}

fn numbers(pieces: &Bitfield) -> Vec<u32> {
    pieces.iter().map(PieceIndex::get).collect()
}

const NONE: Vec<u32> = Vec::new();

#[test]
fn nothing_on_disk_is_nothing_to_hash() {
    let mut desk = Desk::new(16, "a:40 b:40");
    assert_eq!(desk.opened(), (NONE, NONE));
    assert_eq!(desk.names(), [format!("{ROOT}/.taipei/{}.journal", desk.place.info_hash)]);
}

#[test]
fn without_state_every_piece_with_a_byte_on_disk_is_hashed() {
    let mut desk = Desk::new(16, "a:40 b:40");
    desk.storage.put("/downloads/t/a", &[0; 17]);
    desk.storage.put("/downloads/t/b", &[0; 9]);
    assert_eq!(desk.opened(), (NONE, vec![0, 1, 2, 3]));
}

#[test]
fn a_kill_costs_no_check_and_no_piece() {
    let mut desk = Desk::new(16, "a:40 b:40");
    desk.opened();
    desk.get(&[0, 2]);
    desk.write(4).unwrap();
    desk.storage.kill();
    desk.later(1000);
    assert_eq!(desk.opened(), (vec![0, 2], NONE));
    desk.storage.kill();
    assert_eq!(desk.opened(), (vec![0, 2], NONE), "the new journal knows what the old one did");
    desk.get(&[4]);
    desk.snapshot(&[0, 2, 4]);
    desk.get(&[1]);
    desk.storage.kill();
    assert_eq!(desk.opened(), (vec![0, 1, 2, 4], NONE));
}

#[test]
fn a_kill_before_the_first_record_costs_no_check() {
    let mut desk = Desk::new(16, "a:40 b:40");
    desk.opened();
    desk.later(5);
    desk.write(4).unwrap();
    desk.storage.kill();
    desk.later(1000);
    assert_eq!(desk.opened(), (NONE, NONE));
}

#[test]
fn files_of_another_program_are_hashed() {
    let mut desk = Desk::new(16, "a:48 b:48");
    desk.opened();
    desk.get(&[0, 3]);
    desk.storage.kill();
    desk.later(60);
    let bytes = desk.payload[..48].to_vec();
    desk.storage.put("/downloads/t/a", &bytes);
    assert_eq!(desk.opened(), (vec![3], vec![0, 1, 2]));
    assert_eq!(desk.check(&[0, 1, 2]).unwrap(), [true; 3]);
}

#[test]
fn a_file_that_came_after_a_clean_close_is_hashed_even_at_once() {
    let mut desk = Desk::new(16, "a:48 b:48");
    desk.opened();
    desk.get(&[0, 1, 2]);
    desk.close(&[0, 1, 2]);
    desk.storage.put("/downloads/t/b", &[0; 20]);
    let modified_ns = desk.file("t/a").modified_ns;
    desk.file("t/a").modified_ns = modified_ns + 1;
    assert_eq!(desk.opened(), (NONE, vec![0, 1, 2, 3, 4]));
}

#[test]
fn an_older_file_in_the_place_of_ours_is_hashed() {
    for reboot in [false, true] {
        let mut desk = Desk::new(16, "a:48");
        desk.opened();
        desk.get(&[0, 1]);
        desk.close(&[0, 1]);
        desk.file("t/a").modified_ns -= 100 * SECOND;
        if reboot {
            desk.reboot();
        }
        assert_eq!(desk.opened(), (NONE, vec![0, 1]));
    }
}

#[test]
fn a_shortened_file_loses_its_trust() {
    let mut desk = Desk::new(16, "a:48 b:48");
    desk.opened();
    desk.get(&[0, 1, 2, 3, 4]);
    desk.storage.kill();
    desk.file("t/a").bytes.truncate(20);
    assert_eq!(desk.opened(), (vec![3, 4], vec![0, 1]));
    assert_eq!(desk.check(&[0, 1]).unwrap(), [true, false]);
}

/// The clock is set back, or on, by a year while a torrent is downloaded: file times jump with it.
#[test]
fn a_clock_that_jumps_a_year_costs_a_check_at_most() {
    const YEAR: i64 = 365 * 24 * 3600;
    for jump in [-YEAR, YEAR] {
        for reboot in [false, true] {
            let mut desk = Desk::new(16, "a:48 b:48");
            desk.storage.now_ns = 10 * YEAR * SECOND;
            desk.opened();
            desk.get(&[0, 3]);
            desk.snapshot(&[0, 3]);
            desk.later(jump);
            desk.get(&[1, 4]);
            desk.storage.kill();
            if reboot {
                desk.reboot();
            }
            let (have, unchecked) = desk.opened();
            for piece in 0..6 {
                let there = desk.check(&[piece]).unwrap()[0];
                assert!(there || !have.contains(&piece), "{piece} is falsely believed");
                assert!(
                    !there || have.contains(&piece) || unchecked.contains(&piece),
                    "{piece} is thrown away"
                );
            }
        }
    }
}

#[test]
fn zeros_that_another_client_made_room_with_are_no_data() {
    let mut desk = Desk::new(16, "a:40 b:40");
    desk.storage.put("/downloads/t/a", &[0; 40]);
    desk.storage.put("/downloads/t/b", &[0; 40]);
    assert_eq!(desk.opened(), (NONE, vec![0, 1, 2, 3, 4]));
    assert_eq!(desk.check(&[0, 1, 2, 3, 4]).unwrap(), [false; 5]);
}

#[test]
fn room_is_made_for_all_or_not_begun_and_is_no_data() {
    let mut desk = Desk::new(16, "a:40 b:40 e:0");
    desk.opened();
    let room = |desk: &mut Desk, files: &[u32]| {
        let files = files.iter().map(|file| FileIndex(*file)).collect();
        match desk.run(Work::Allocate { files }) {
            JobResult::Allocated(allocated) => allocated.map_err(|error| (error.path, error.kind)),
            other => panic!("{other:?}"),
        }
    };
    desk.storage.free_bytes = Some(79);
    assert_eq!(room(&mut desk, &[0, 1, 2]), Err((ROOT.to_owned(), StorageErrorKind::Full)));
    assert!(desk.names().iter().all(|name| !name.ends_with("/a") && !name.ends_with("/b")));
    assert_eq!(room(&mut desk, &[1, 2]), Ok(()), "only what is wanted counts");
    desk.storage.kill();
    assert_eq!(desk.opened(), (NONE, NONE));
    desk.write(4).unwrap();
    assert_eq!(room(&mut desk, &[0, 1]), Ok(()), "what is there takes no more");
}

#[test]
fn a_removed_file_is_missing_again() {
    let mut desk = Desk::new(16, "a:24 b:24");
    desk.opened();
    desk.get(&[0, 1, 2]);
    desk.close(&[0, 1, 2]);
    desk.storage.files.remove("/downloads/t/b");
    assert_eq!(desk.opened(), (vec![0], vec![1]), "piece 1 has bytes in the file that is left");
}

#[test]
fn after_a_power_cut_the_snapshot_is_trusted_and_the_rest_hashed() {
    let mut desk = Desk::new(16, "a:40 b:40");
    desk.opened();
    desk.get(&[0, 3]);
    desk.snapshot(&[0, 3]);
    desk.later(5);
    desk.get(&[1, 4]);
    desk.storage.cut_power();
    desk.reboot();
    let (have, unchecked) = desk.opened();
    assert_eq!(have, [0, 3]);
    for piece in 0..5 {
        let there = desk.check(&[piece]).unwrap()[0];
        assert!(!there || have.contains(&piece) || unchecked.contains(&piece), "{piece} is thrown away");
        assert!(there || !have.contains(&piece), "{piece} is falsely believed");
    }
    assert_eq!(desk.open(Resume).unwrap_err().kind, StorageErrorKind::Locked(OURS));
}

#[test]
fn a_reboot_without_loss_hashes_what_no_snapshot_names() {
    let mut desk = Desk::new(16, "a:40 b:40");
    desk.opened();
    desk.get(&[0, 3]);
    desk.snapshot(&[0, 3]);
    desk.get(&[1, 4]);
    desk.storage.kill();
    desk.reboot();
    assert_eq!(desk.opened(), (vec![0, 3], vec![1, 2, 4]));
}

#[test]
fn a_reboot_after_a_clean_close_hashes_nothing() {
    let mut desk = Desk::new(16, "a:40 b:40");
    desk.opened();
    desk.get(&[1, 4]);
    desk.close(&[1, 4]);
    desk.reboot();
    desk.later(100_000);
    let opened = desk.open(Resume).unwrap();
    assert_eq!((numbers(&opened.have), numbers(&opened.unchecked)), (vec![1, 4], NONE));
    assert_eq!((opened.totals, opened.saved), (Totals { downloaded: 5, uploaded: 7 }, Saved::Begun));
}

#[test]
fn what_waits_for_its_check_waits_in_the_next_run_too() {
    let payload = Desk::new(16, "a:80").payload;
    for (snapshot, reboot) in [(false, false), (true, false), (true, true)] {
        let mut desk = Desk::new(16, "a:80");
        desk.storage.put("/downloads/t/a", &payload);
        assert_eq!(desk.opened(), (NONE, vec![0, 1, 2, 3, 4]));
        desk.record(&[1], &[0]).unwrap();
        if snapshot {
            desk.snapshot_of(&[1], &[2, 3, 4], reboot).unwrap();
        }
        desk.storage.kill();
        if reboot {
            desk.reboot();
        }
        assert_eq!(desk.opened(), (vec![1], vec![2, 3, 4]));
    }
}

#[test]
fn a_cut_record_is_left_out_and_written_over() {
    let mut desk = Desk::new(16, "a:80");
    desk.opened();
    desk.get(&[0, 1]);
    let length = desk.state("journal").bytes.len();
    desk.state("journal").bytes.truncate(length - 3);
    desk.storage.kill();
    assert_eq!(desk.opened(), (vec![0], NONE));
    let length = desk.state("journal").bytes.len();
    desk.state("journal").bytes.resize(length + 13, 0xff);
    desk.get(&[2]);
    desk.storage.kill();
    assert_eq!(desk.opened(), (vec![0, 2], NONE));
}

#[test]
fn broken_state_is_set_aside_and_all_is_hashed() {
    for kinds in [&["journal"][..], &["snapshot"], &["journal", "snapshot"]] {
        let mut desk = Desk::new(16, "a:80");
        desk.opened();
        desk.get(&[0, 1]);
        desk.snapshot(&[0, 1]);
        desk.storage.kill();
        for kind in kinds {
            desk.state(kind).bytes[70] ^= 0x10;
        }
        let expected = match kinds {
            ["journal"] => (vec![0, 1], NONE),
            ["snapshot"] => (vec![0, 1], NONE),
            _ => (NONE, vec![0, 1]),
        };
        assert_eq!(desk.opened(), expected, "{kinds:?}");
        for kind in kinds {
            assert!(!desk.state(&format!("{kind}.broken")).bytes.is_empty());
        }
        desk.storage.kill();
        assert_eq!(desk.opened(), expected, "the same when asked again");
    }
}

#[test]
fn state_of_another_torrent_or_a_later_version_is_not_believed() {
    let mut desk = Desk::new(16, "a:80");
    desk.opened();
    desk.get(&[0, 1]);
    desk.close(&[0, 1]);
    desk.state("journal").bytes[8] = 9;
    desk.state("snapshot").bytes[12] ^= 1;
    assert_eq!(desk.opened(), (NONE, vec![0, 1]));
    assert_eq!(desk.state("journal.broken").bytes[8], 9);
}

#[test]
fn a_lost_journal_falls_back_to_the_snapshot() {
    let mut desk = Desk::new(16, "a:80");
    desk.opened();
    desk.get(&[0, 1]);
    desk.snapshot(&[0, 1]);
    let journal = format!("{ROOT}/.taipei/{}.journal", desk.place.info_hash);
    desk.storage.files.remove(&journal);
    desk.get(&[4]);
    assert!(!desk.storage.files.contains_key(&journal), "records alone begin no journal");
    desk.storage.kill();
    assert_eq!(desk.opened(), (vec![0, 1], vec![2, 3, 4]));
    desk.storage.files.remove(&journal);
    desk.snapshot(&[0, 1, 4]);
    desk.storage.kill();
    assert_eq!(desk.opened(), (vec![0, 1, 4], NONE));
}

#[test]
fn a_kill_between_snapshot_and_journal_loses_nothing() {
    let mut desk = Desk::new(16, "a:80");
    desk.opened();
    desk.get(&[0, 1]);
    let journal = desk.state("journal").clone();
    desk.snapshot(&[0, 1]);
    *desk.state("journal") = journal;
    desk.storage.kill();
    assert_eq!(desk.opened(), (vec![0, 1], NONE));
}

#[test]
fn recheck_forgets_even_through_a_power_cut() {
    let mut desk = Desk::new(16, "a:80");
    desk.opened();
    desk.get(&[0, 1]);
    desk.close(&[0, 1]);
    let opened = desk.open(Recheck).unwrap();
    assert_eq!((numbers(&opened.have), numbers(&opened.unchecked)), (NONE, vec![0, 1]));
    assert_eq!((opened.totals.uploaded, opened.saved), (7, Saved::Begun));
    desk.storage.cut_power();
    desk.reboot();
    assert_eq!(desk.opened(), (NONE, vec![0, 1]));
}

#[test]
fn no_state_leaves_no_file_and_reads_none() {
    let mut desk = Desk::new(16, "a:80");
    desk.opened();
    desk.get(&[0]);
    desk.close(&[0]);
    let before = desk.storage.files.clone();
    let opened = desk.open(NoState).unwrap();
    assert_eq!((numbers(&opened.have), numbers(&opened.unchecked)), (NONE, vec![0]));
    assert_eq!(opened.saved, Saved::Nowhere);
    assert_eq!(desk.storage.files, before);
    assert!(desk.storage.locks.is_empty());
}

#[test]
fn the_lock_of_another_process_is_an_error() {
    let mut desk = Desk::new(16, "a:80");
    let lock = format!("{ROOT}/.taipei/{}.lock", desk.place.info_hash);
    desk.storage.locks.insert(lock.clone(), 77);
    let error = desk.open(Resume).unwrap_err();
    assert_eq!((error.path, error.kind), (lock.clone(), StorageErrorKind::Locked(77)));
    desk.storage.locks.clear();
    desk.opened();
    assert_eq!(desk.storage.locks.get(&lock), Some(&OURS));
    assert_eq!(desk.run(Work::Close), JobResult::Closed);
    assert!(desk.storage.locks.is_empty());
    desk.opened();
    desk.close(&[]);
    assert!(desk.storage.locks.is_empty());
}

#[test]
fn a_read_only_root_keeps_its_state_elsewhere() {
    let mut desk = Desk::new(16, "a:80 e:0");
    let payload = desk.payload.clone();
    desk.storage.put("/downloads/t/a", &payload);
    desk.storage.read_only.insert(ROOT.to_owned(), StorageErrorKind::ReadOnly);
    let opened = desk.open(Resume).unwrap();
    assert_eq!((opened.unchecked.count(), opened.saved), (5, Saved::Nowhere));
    assert!(desk.storage.locks.is_empty());

    desk.change_place(|place| place.state_root = STATE.to_owned());
    let opened = desk.open(Resume).unwrap();
    assert_eq!((opened.unchecked.count(), opened.saved), (5, Saved::Begun));
    desk.record(&[0, 1, 2, 3, 4], &[]).unwrap();
    desk.storage.kill();
    assert_eq!(desk.opened(), (vec![0, 1, 2, 3, 4], NONE));
    desk.close(&[0, 1, 2, 3, 4]);
    assert!(desk.storage.locks.is_empty());
    assert!(desk.names().iter().all(|name| name.starts_with(STATE) || *name == "/downloads/t/a"));

    // Writable again: state moves to the payload.
    desk.storage.read_only.clear();
    assert_eq!(desk.opened(), (vec![0, 1, 2, 3, 4], NONE));
    assert!(desk.names().iter().all(|name| name.starts_with(ROOT)));
    let journal = format!("{ROOT}/.taipei/{}.journal", desk.place.info_hash);
    desk.storage.files.remove(&journal);
    desk.storage.kill();
    desk.reboot();
    let opened = desk.open(Resume).unwrap();
    assert_eq!((opened.have.count(), opened.totals.uploaded), (5, 7), "the snapshot moved too");
}

#[test]
fn state_beside_a_read_only_payload_is_read() {
    let mut desk = Desk::new(16, "a:80");
    desk.opened();
    desk.get(&[0, 1]);
    desk.close(&[0, 1]);
    desk.storage.read_only.insert(ROOT.to_owned(), StorageErrorKind::ReadOnly);
    let opened = desk.open(Resume).unwrap();
    assert_eq!(
        (numbers(&opened.have), opened.totals.uploaded, opened.saved),
        (vec![0, 1], 7, Saved::Nowhere)
    );
}

/// A sweep met a disk that was read-only and refused to be read once: it was taken for one with nothing written on it (S24).
#[test]
fn a_disk_that_cannot_be_read_is_not_an_empty_one() {
    let mut desk = Desk::new(16, "a:80");
    desk.opened();
    desk.get(&[0, 1]);
    desk.close(&[0, 1]);
    desk.storage.read_only.insert(ROOT.to_owned(), StorageErrorKind::ReadOnly);
    let opens = |call| {
        desk.storage.fail_at = Some((desk.storage.calls + call, StorageErrorKind::ReadOnly));
        let opened = desk.open(Resume).ok()?;
        Some((numbers(&opened.have), opened.totals.uploaded))
    };
    let opened: Vec<_> = (1..20).map(opens).collect();
    assert!(opened.iter().flatten().all(|opened| *opened == (vec![0, 1], 7)), "{opened:?}");
    assert!(opened.contains(&None) && opened.iter().flatten().count() > 10, "{opened:?}");
}

#[test]
fn what_is_in_the_way_is_refused_and_left_alone() {
    for (length, kind) in [(81, StorageErrorKind::TooLong), (0, StorageErrorKind::WrongKind)] {
        let mut desk = Desk::new(16, "a:80");
        if length > 0 {
            desk.storage.put("/downloads/t/a", &vec![1; length]);
        } else {
            desk.storage.directories.insert("/downloads/t/a".to_owned());
        }
        let error = desk.open(Resume).unwrap_err();
        assert_eq!((error.path.as_str(), error.kind), ("/downloads/t/a", kind));
        assert!(desk.storage.locks.is_empty(), "what failed holds no lock");
        if length > 0 {
            assert_eq!(desk.file("t/a").bytes, vec![1; length]);
        }
        assert!(desk.names().iter().all(|name| *name == "/downloads/t/a" || name.contains(".taipei")));
    }
}

/// Features 1.4, hole 19: with the wrong directory named, nobody's files are cut or made longer.
#[test]
fn files_of_another_length_are_neither_cut_nor_made_longer_by_being_there() {
    for length in [0, 1, 79, 80, 81, 1000] {
        let mut desk = Desk::new(16, "a:80 b:16");
        let other = vec![7; length];
        desk.storage.put("/downloads/t/a", &other);
        let opened = desk.open(Resume);
        assert_eq!(opened.is_ok(), length <= 80);
        if let Ok(opened) = opened {
            let unchecked: Vec<u32> = numbers(&opened.unchecked);
            assert_eq!(desk.check(&unchecked).unwrap(), vec![false; unchecked.len()]);
            desk.get(&[5]);
            desk.close(&[5]);
        }
        assert_eq!(desk.file("t/a").bytes, other);
    }
}

/// Links are never made (BEP 47), and what one points at is not touched through it.
#[test]
fn nothing_is_made_for_a_link() {
    let mut desk = Desk::new(16, "a:16 @l:0 @m:0 b:16");
    desk.opened();
    desk.get(&[0, 1]);
    assert_eq!(desk.check(&[0, 1]).unwrap(), [true, true]);
    desk.close(&[0, 1]);
    let payload: Vec<_> = desk.names().into_iter().filter(|name| !name.contains(".taipei")).collect();
    assert_eq!(payload, ["/downloads/t/a", "/downloads/t/b"]);
}

/// State needs no room to stay valid: it is written beside and renamed. Whatever call meets the full disk first, and
/// whatever goes on until the process is killed, a later run knows all that was known before.
#[test]
fn what_was_known_before_a_disk_was_full_is_known_after_it() {
    use StorageErrorKind::Full;
    for from in 1..80 {
        let mut desk = Desk::new(16, "a:80 b:48");
        desk.opened();
        desk.get(&[0, 5]);
        desk.snapshot(&[0, 5]);
        desk.get(&[2]);
        desk.storage.fail_from = Some((desk.storage.calls + from, Full));
        for piece in [3, 6] {
            if desk.write(piece).is_ok() {
                let _ = desk.record(&[piece], &[]);
            }
        }
        let _ = desk.snapshot_of(&[0, 2, 5], &[], false);
        let _ = desk.snapshot_of(&[0, 2, 5], &[], true);
        desk.storage.kill();
        // A run that finds the disk full changes nothing either.
        let full = desk.open(Resume).map_err(|error| error.kind);
        assert!(full.is_ok() || full == Err(Full), "{full:?}");
        desk.storage.kill();
        desk.storage.fail_from = None;
        let (have, unchecked) = desk.opened();
        assert!([0, 2, 5].iter().all(|piece| have.contains(piece)), "call {from}: {have:?}, {unchecked:?}");
        for piece in have {
            assert_eq!(desk.check(&[piece]).unwrap(), [true], "call {from}");
        }
    }
}

#[test]
fn files_without_a_byte_are_made_once() {
    let mut desk = Desk::new(16, "e:0 a:16 f:0");
    desk.opened();
    assert!(desk.file("t/e").bytes.is_empty() && desk.file("t/f").bytes.is_empty());
    assert!(!desk.storage.files.contains_key("/downloads/t/a"));
    let mut empty = Desk::new(16, "e:0");
    assert_eq!(empty.opened(), (NONE, NONE));
    empty.close(&[]);
    assert_eq!(empty.opened(), (NONE, NONE));
}

#[test]
fn pieces_of_every_size_are_checked_in_order() {
    for piece_length in [1000, 3 << 20, (9 << 20) + 1] {
        let mut desk = Desk::new(piece_length, "a:5000000 b:5000000");
        let (a, b) = (desk.payload[..5_000_000].to_vec(), desk.payload[5_000_000..].to_vec());
        desk.storage.put("/downloads/t/a", &a);
        desk.storage.put("/downloads/t/b", &b);
        desk.file("t/b").bytes[0] ^= 1;
        let spoilt = 5_000_000 / piece_length;
        let all: Vec<u32> = (0..desk.place.layout.piece_count()).collect();
        let expected: Vec<bool> = all.iter().map(|piece| *piece != spoilt).collect();
        assert_eq!(desk.check(&all).unwrap(), expected);
    }
}

#[test]
fn blocks_go_to_the_files_they_lie_in() {
    let mut desk = Desk::new(64, "a:10 b:3 e:0 c:51");
    let part = |range: core::ops::Range<usize>| Bytes::copy_from_slice(&desk.payload[range]);
    let runs = vec![
        Run {
            begin: 5,
            blocks: vec![BlockData::from_parts(vec![part(5..6), part(6..12)]), part(12..20).into()],
        },
        Run { begin: 0, blocks: vec![part(0..5).into()] },
        Run { begin: 40, blocks: vec![BlockData::absent(10)] },
    ];
    let written =
        desk.run(Work::Write { piece: desk.piece(0), runs, reaches: vec![], forget: vec![], digests: false });
    assert_eq!(written, JobResult::Written(Ok(Written::default())));
    for (name, range) in [("t/a", 0..10), ("t/b", 10..13), ("t/c", 13..20)] {
        let expected = desk.payload[range].to_vec();
        assert_eq!(desk.file(name).bytes, expected);
    }
}

#[test]
fn nothing_is_written_to_a_file_that_is_shorter_than_it_is_known_to_be() {
    let mut desk = Desk::new(64, "a:10 b:3 c:51");
    desk.storage.put("/downloads/t/a", &desk.payload[..9]);
    let mut write = |reaches: &[(u32, u64)]| {
        let runs = vec![Run { begin: 0, blocks: vec![desk.bytes_of(0).into()] }];
        let reaches = reaches.iter().map(|(file, length)| (FileIndex(*file), *length)).collect();
        let written =
            desk.run(Work::Write { piece: desk.piece(0), runs, reaches, forget: vec![], digests: false });
        let JobResult::Written(Ok(Written { gone, .. })) = written else { panic!("{written:?}") };
        let lengths = ["a", "b", "c"]
            .map(|name| desk.storage.files.get(&format!("/downloads/t/{name}")).map(|file| file.bytes.len()));
        (gone.into_iter().map(|FileIndex(file)| file).collect::<Vec<_>>(), lengths)
    };
    assert_eq!(write(&[(0, 10), (1, 1), (2, 0)]), (vec![0, 1], [Some(9), None, Some(51)]));
    assert_eq!(
        write(&[(0, 9), (2, 51)]),
        (vec![], [Some(10), Some(3), Some(51)]),
        "what is shorter is made longer, what is missing made"
    );
}

#[test]
fn hashes_come_from_memory_and_from_disk_in_order() {
    let mut desk = Desk::new(16, "a:80");
    desk.write(1).unwrap();
    let from_memory = |desk: &Desk, piece: u32, of: u32| HashPiece {
        piece: desk.piece(piece),
        blocks: vec![desk.bytes_of(of).slice(..7).into(), desk.bytes_of(of).slice(7..).into()],
        digests: false,
    };
    let stored = |desk: &Desk, piece| HashPiece { piece: desk.piece(piece), blocks: vec![], digests: false };
    let absent = vec![BlockData::absent(16)];
    let pieces = vec![
        from_memory(&desk, 0, 0),
        stored(&desk, 1),
        from_memory(&desk, 2, 3),
        stored(&desk, 3),
        HashPiece { piece: desk.piece(4), blocks: absent, digests: false },
        from_memory(&desk, 3, 3),
    ];
    let JobResult::Hashed(Ok(hashes)) = desk.run(Work::Hash { pieces }) else { panic!("all can be read") };
    let good: Vec<_> = hashes.iter().map(|hash| (hash.good, hash.digests.len())).collect();
    assert_eq!(good, [(true, 0), (true, 0), (false, 2), (false, 0), (false, 0), (true, 0)]);
}

#[test]
fn digests_tell_which_block_was_wrong_from_memory_and_from_disk() {
    const PIECE: u32 = 5 << 20;
    let mut desk = Desk::new(PIECE, "a:5242980");
    let whole = desk.bytes_of(0);
    let blocks: Vec<BlockData> = whole.chunks(1 << 14).map(|block| whole.slice_ref(block).into()).collect();
    let mut wrong = blocks.clone();
    wrong[3] = Bytes::from(vec![9; 1 << 14]).into();
    let mut digests = |blocks: &[BlockData], stored: bool| {
        let runs = vec![Run { begin: 0, blocks: blocks.to_vec() }];
        let written = desk.run(Work::Write {
            piece: desk.piece(0),
            runs,
            reaches: vec![],
            forget: vec![],
            digests: false,
        });
        assert!(matches!(written, JobResult::Written(Ok(_))));
        let blocks = if stored { vec![] } else { blocks.to_vec() };
        let pieces = vec![HashPiece { piece: desk.piece(0), blocks, digests: true }];
        let JobResult::Hashed(Ok(mut hashes)) = desk.run(Work::Hash { pieces }) else {
            panic!("can be read")
        };
        hashes.remove(0)
    };
    let right = digests(&blocks, false);
    assert_eq!((right.good, right.digests.len()), (true, 320));
    assert_eq!(digests(&blocks, true), right);
    for stored in [false, true] {
        let hash = digests(&wrong, stored);
        let differ: Vec<_> = (0..320).filter(|block| hash.digests[*block] != right.digests[*block]).collect();
        assert_eq!((hash.good, differ), (false, vec![3]));
    }
}

#[test]
fn adjacent_blocks_are_read_at_once() {
    let mut desk = Desk::new(32, "a:64");
    desk.get(&[0, 1]);
    let block = |piece: u32, begin, length| ReadBlock { piece: desk.piece(piece), begin, length };
    let blocks = vec![block(0, 0, 8), block(0, 8, 8), block(0, 20, 8), block(1, 28, 4), block(1, 0, 4)];
    let (before, work) = (desk.storage.calls, Work::Read { blocks: blocks.clone() });
    let JobResult::Read(Ok(read)) = desk.run(work) else { panic!("all is there") };
    assert_eq!(desk.storage.calls - before, 4);
    for (block, data) in blocks.iter().zip(read) {
        let bytes = desk.bytes_of(block.piece.get());
        let begin = block.begin as usize;
        assert_eq!(data.parts().concat(), bytes[begin..begin + block.length as usize]);
    }
    desk.file("t/a").bytes.truncate(60);
    let error = desk.run(Work::Read { blocks });
    let kind = StorageErrorKind::ShortRead;
    assert_eq!(error, JobResult::Read(Err(StorageError { path: "/downloads/t/a".to_owned(), kind })));
}

/// Each call in turn fails, in each way. Whatever the engine goes on with, a later run, killed or after a power cut,
/// never believes a piece that is not there, and what is there is believed or hashed.
#[test]
fn no_failing_call_makes_a_false_have() {
    use StorageErrorKind::{Denied, Exhausted, Full, Io, NotFound, ReadOnly};
    for kind in [Full, Io, Exhausted, Denied, ReadOnly, NotFound] {
        for power_cut in [false, true] {
            let mut call = 1;
            while fails_at(call, kind, power_cut) {
                call += 1;
            }
            assert!(call > 40, "every call of a run was made to fail: {call}");
        }
    }
}

/// Gives whether there was such a call.
fn fails_at(call: u64, kind: StorageErrorKind, power_cut: bool) -> bool {
    let mut desk = Desk::new(16, "a:40 e:0 b:30 c:10");
    desk.storage.put("/downloads/t/c", &[0; 4]);
    desk.storage.sync_all();
    desk.storage.fail_at = Some((call, kind));
    let mut have = Vec::new();
    for run in 0..2 {
        desk.later(100);
        let Ok(opened) = desk.open(Resume).or_else(|_| desk.open(Resume)) else {
            panic!("only one call fails")
        };
        assert_true_have(&mut desk, &opened, "opened", call);
        have.retain(|piece| numbers(&opened.have).contains(piece));
        for piece in [run, run + 2] {
            if desk.write(piece).is_ok() && !have.contains(&piece) {
                have.push(piece);
                let _ = desk.record(&[piece], &[]);
            }
        }
        if opened.saved != Saved::Nowhere {
            let _ = desk.snapshot_of(&have, &[], false);
        }
        if desk.write(4).is_ok() {
            let _ = desk.record(&[4], &[]);
            have.push(4);
        }
        if run == 0 {
            desk.storage.kill();
        }
    }
    let failed = desk.storage.calls >= call;
    desk.storage.fail_at = None;
    if power_cut {
        desk.storage.cut_power();
        desk.reboot();
    } else {
        desk.storage.kill();
    }
    let opened = desk.open(Resume).unwrap();
    assert_true_have(&mut desk, &opened, "at the end", call);
    failed
}

fn assert_true_have(desk: &mut Desk, opened: &Opened, when: &str, call: u64) {
    let fail_at = desk.storage.fail_at.take();
    let calls = desk.storage.calls;
    for piece in 0..desk.place.layout.piece_count() {
        let there = desk.check(&[piece]).unwrap()[0];
        let index = desk.piece(piece);
        assert!(there || !opened.have.has(index), "piece {piece} is falsely believed {when}, call {call}");
    }
    (desk.storage.fail_at, desk.storage.calls) = (fail_at, calls);
}

#[test]
fn a_lock_is_let_go_though_the_last_snapshot_fails() {
    let mut desk = Desk::new(16, "a:80");
    desk.opened();
    desk.storage.fail_from = Some((desk.storage.calls + 3, StorageErrorKind::Io));
    assert!(desk.snapshot_of(&[], &[], true).is_err());
    desk.storage.fail_from = None;
    desk.opened();
}

#[test]
fn a_read_that_ends_early_in_a_file_that_is_long_enough_is_tried_again_and_damages_nothing() {
    let mut desk = Desk::new(16, "a:40 b:40");
    (0..5).for_each(|piece| assert!(desk.write(piece).is_ok()));
    let check = |desk: &mut Desk, short_reads| {
        desk.storage.short_reads = short_reads;
        match desk.run(Work::Check { pieces: desk.pieces(&[1]) }) {
            JobResult::Checked(good) => good.map_err(|error| error.kind),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(check(&mut desk, 1), Ok(vec![true]));
    assert_eq!(check(&mut desk, 2), Err(StorageErrorKind::ShortRead));
    desk.storage.put(&format!("{ROOT}/t/a"), &[1; 20]);
    assert_eq!(check(&mut desk, 0), Ok(vec![false]), "there it really ends");
}

#[test]
fn a_look_finds_files_that_are_missing_or_short() {
    let mut desk = Desk::new(16, "a:40 -pad:8 b:32 empty:0 c:7");
    (0..6).for_each(|piece| assert!(desk.write(piece).is_ok()));
    let look = |desk: &mut Desk| match desk.run(Work::Look) {
        JobResult::Looked(Ok(gone)) => gone.into_iter().map(|file| file.0).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(look(&mut desk), [] as [u32; 0]);
    desk.storage.put(&format!("{ROOT}/t/a"), &[1; 39]);
    desk.storage.files.remove(&format!("{ROOT}/t/c"));
    assert_eq!(look(&mut desk), [0, 4]);
}

#[test]
fn what_was_in_doubt_when_the_process_ended_is_hashed() {
    let mut desk = Desk::new(16, "a:80");
    desk.opened();
    (0..3).for_each(|piece| assert!(desk.write(piece).is_ok()));
    desk.record(&[0, 1, 2], &[]).unwrap();
    let doubted = desk.pieces(&[1]);
    let work = Work::Record { good: Vec::new(), touched: Vec::new(), doubted };
    assert_eq!(desk.run(work), JobResult::Recorded(Ok(())));
    desk.storage.kill();
    assert_eq!(desk.opened(), (vec![0, 2], vec![1]));
}
