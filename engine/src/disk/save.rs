//! Saving: records go to the journal, and from time to time all is synced and a snapshot replaces it.

use std::collections::BTreeSet;

use super::identity::{Figures, Identity};
use super::journal::{self, Header, JOURNAL_BYTES_MAX, Journal, Known, Record};
use super::snapshot::{self, Snapshot};
use super::state_files::{Kind, StateFiles};
use super::{Place, Storage, StorageError, Totals};
use crate::bitfield::Bitfield;
use crate::ids::{FileIndex, PieceIndex};
use crate::metainfo::FileEntry;

/// Appends what became of pieces and of their files. Nothing is synced. Without a journal (somebody removed it)
/// nothing is written: the next snapshot begins another.
pub(super) fn record<S: Storage>(
    place: &Place,
    good: &[PieceIndex],
    touched: &[PieceIndex],
    doubted: &[PieceIndex],
    storage: &mut S,
) -> Result<(), StorageError> {
    let state = StateFiles::find(place, storage)?;
    let offset = state.stat(storage, Kind::Journal)?.and_then(|stat| journal::append_offset(stat.length));
    let Some(offset) = offset else { return Ok(()) };
    let pieces = good.iter().chain(touched).chain(doubted);
    let files: BTreeSet<_> = pieces.flat_map(|piece| place.layout.files_of(*piece)).collect();
    let mut records = Vec::with_capacity(files.len());
    for file in files.into_iter().filter(|file| place.layout.file(*file).is_stored()) {
        if let Some(figures) = figures(place, file, storage)? {
            records.push(Record::File(file.0, Known { figures, written: true }));
        }
    }
    // Times before pieces: when the end is cut off, a piece is fetched again rather than its file distrusted.
    records.extend(journal::ranges(touched.iter().copied()).into_iter().map(Record::Missing));
    records.extend(journal::ranges(doubted.iter().copied()).into_iter().map(Record::Unchecked));
    records.extend(journal::ranges(good.iter().copied()).into_iter().map(Record::Good));
    let bytes = journal::encode_records(&Identity::new(place.info_hash, &place.layout), records);
    state.write(storage, Kind::Journal, offset, &bytes)
}

/// Syncs the files that were written to since the last snapshot, replaces the snapshot, begins a new journal.
pub(super) fn snapshot<S: Storage>(
    place: &Place,
    have: &Bitfield,
    unchecked: &Bitfield,
    totals: Totals,
    close: bool,
    storage: &mut S,
) -> Result<(), StorageError> {
    assert_eq!(have.piece_count(), place.layout.piece_count(), "a torrent's pieces are its own");
    let identity = Identity::new(place.info_hash, &place.layout);
    let state = StateFiles::find(place, storage)?;
    let before = state
        .read(storage, Kind::Journal, JOURNAL_BYTES_MAX)?
        .and_then(|found| journal::decode(&found.bytes, &identity).ok())
        .filter(|journal| journal.header.boot_id == place.boot_id);
    let epoch = match &before {
        Some(before) => before.header.epoch,
        None => state
            .read(storage, Kind::Snapshot, snapshot::bytes_max(&identity))?
            .and_then(|found| snapshot::decode(&found.bytes, &identity).ok())
            .map_or(0, |snapshot| snapshot.epoch.saturating_add(1)),
    };
    // A piece whose record failed: that its file was written to is not in the journal either.
    let unrecorded = |file: FileIndex| {
        place
            .layout
            .pieces_of(file)
            .map(PieceIndex::new)
            .any(|piece| have.has(piece) && before.as_ref().is_none_or(|before| !before.good.has(piece)))
    };
    let known_of = |file: FileIndex| {
        before.as_ref().and_then(|before| before.files.get(file.0 as usize).copied().flatten())
    };
    let is_unsynced = |file: FileIndex| match known_of(file) {
        Some(known) => known.written || unrecorded(file),
        None => before.is_none() || unrecorded(file),
    };
    let is_kept = |entry: &FileEntry| entry.is_stored() && entry.length > 0;
    let files = || (0..).map(FileIndex).zip(place.layout.files());
    let unsynced: BTreeSet<FileIndex> =
        files().filter(|(file, entry)| is_kept(entry) && is_unsynced(*file)).map(|(file, _)| file).collect();
    let are_synced =
        storage.sync_together(&unsynced.iter().map(|file| place.at(*file)).collect::<Vec<_>>())?;
    let figures_of = |(file, entry)| {
        if !is_kept(entry) {
            return Ok(None);
        }
        if !unsynced.contains(&file) {
            return Ok(known_of(file).map(|known| known.figures));
        }
        if !are_synced {
            storage.sync(place.at(file))?;
        }
        figures(place, file, storage)
    };
    let files = files().map(figures_of).collect::<Result<Vec<_>, StorageError>>()?;
    let mut pending = Bitfield::new(have.piece_count());
    for piece in unchecked.iter().filter(|piece| piece.get() < have.piece_count() && !have.has(*piece)) {
        pending.set(piece);
    }
    let known =
        files.iter().map(|figures| figures.map(|figures| Known { figures, written: false })).collect();
    let (boot_id, have) = (place.boot_id, have.clone());
    let snapshot = Snapshot {
        boot_id,
        epoch,
        closed: close,
        totals,
        have: have.clone(),
        unchecked: pending.clone(),
        files,
    };
    state.replace(storage, Kind::Snapshot, &snapshot::encode(&identity, &snapshot))?;
    let header = Header { boot_id, epoch: epoch.saturating_add(1), begun_ns: 0, closed: close };
    let mut journal = Journal { header, good: have, unchecked: pending, files: known };
    state.replace_journal(storage, |begun_ns| {
        journal.header.begun_ns = begun_ns;
        journal::encode(&identity, &journal)
    })?;
    Ok(())
}

/// Lets the lock go.
pub(super) fn close<S: Storage>(place: &Place, storage: &mut S) {
    for state in [Some(StateFiles::in_root(place)), StateFiles::in_state_root(place)].into_iter().flatten() {
        state.unlock(storage);
    }
}

/// None for a file that is not there.
fn figures<S: Storage>(
    place: &Place,
    file: FileIndex,
    storage: &mut S,
) -> Result<Option<Figures>, StorageError> {
    let stat = storage.stat(place.at(file))?;
    Ok(stat.map(|stat| Figures { length: stat.length, modified_ns: stat.modified_ns }))
}
