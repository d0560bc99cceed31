//! Opening: lock the torrent, look at its files, judge what earlier runs wrote down, begin a new journal.
//!
//! Nothing of the payload is changed: a file that is too long, or no file at all, is refused. Only files without a
//! byte are made, because no piece ever writes them.

use std::collections::BTreeMap;

use super::identity::Identity;
use super::journal::{self, Header, JOURNAL_BYTES_MAX, Journal};
use super::judge::{self, Judged, Written};
use super::snapshot::{self, Snapshot};
use super::state_files::{Found, Kind, StateFiles, cannot_write};
use super::{Opened, Place, Saved, Stat, Storage, StorageError, StorageErrorKind, Totals, payload};
use crate::bitfield::Bitfield;
use crate::command::ResumeMode;
use crate::ids::FileIndex;
use crate::metainfo::FileEntry;

/// Does the job. What was locked is let go when it fails.
pub(super) fn open<S: Storage>(
    place: &Place,
    resume: ResumeMode,
    storage: &mut S,
) -> Result<Opened, StorageError> {
    if resume == ResumeMode::NoState {
        let now = look(place, storage)?;
        make_empty_files(place, &now, storage)?;
        let mut judged = judge::distrust(&place.layout, &now);
        judge_padding(place, &mut judged);
        let Judged { have, unchecked, .. } = judged;
        return Ok(Opened { have, unchecked, totals: Totals::default(), saved: Saved::Nowhere });
    }
    let files = StateFiles::take(place, storage)?;
    let opened = open_with(place, resume, files.as_ref(), storage);
    if opened.is_err()
        && let Some(files) = files
    {
        files.unlock(storage);
    }
    opened
}

/// With state in `files`, or without a place to write it.
fn open_with<S: Storage>(
    place: &Place,
    resume: ResumeMode,
    files: Option<&StateFiles<'_>>,
    storage: &mut S,
) -> Result<Opened, StorageError> {
    let now = look(place, storage)?;
    make_empty_files(place, &now, storage)?;
    let (written, moved) = read_written(place, files, storage)?;
    let mut judged = match resume {
        ResumeMode::Resume => judge::judge(&place.layout, &now, &written, place.boot_id),
        ResumeMode::Recheck | ResumeMode::NoState => judge::distrust(&place.layout, &now),
    };
    judge_padding(place, &mut judged);
    let totals = written.snapshot.as_ref().map_or_else(Totals::default, |snapshot| snapshot.totals);
    if resume == ResumeMode::Resume && files.is_some() && !moved && is_as_closed(place, &written, &judged) {
        return Ok(Opened { have: judged.have, unchecked: judged.unchecked, totals, saved: Saved::AsClosed });
    }
    if let Some(files) = files {
        let of_snapshot = written.snapshot.as_ref().map_or(0, |snapshot| snapshot.epoch);
        let of_journal = written.journal.as_ref().map_or(0, |journal| journal.header.epoch);
        let epoch = of_snapshot.max(of_journal).saturating_add(1);
        // A snapshot that is no longer to be believed is replaced, and one that lies elsewhere is brought here. What it claims
        // and is not there is fetched into files that look as old as it says, and after a power cut it alone is heard.
        let claims_more = |snapshot: &Snapshot| snapshot.have.iter().any(|piece| !judged.have.has(piece));
        let save =
            resume == ResumeMode::Recheck || moved || written.snapshot.as_ref().is_some_and(claims_more);
        begin(place, files, storage, judged, save.then_some(totals), epoch).map(|(have, unchecked)| Opened {
            have,
            unchecked,
            totals,
            saved: Saved::Begun,
        })
    } else {
        Ok(Opened { have: judged.have, unchecked: judged.unchecked, totals, saved: Saved::Nowhere })
    }
}

/// Whether all is there, and just so as when it was closed, by this run of the machine.
fn is_as_closed(place: &Place, written: &Written, judged: &Judged) -> bool {
    let (Some(journal), Some(snapshot)) = (&written.journal, &written.snapshot) else { return false };
    snapshot.closed
        && journal.header.closed
        && journal.header.boot_id == place.boot_id
        && judged.have.is_full()
        && judged.unchecked.count() == 0
        && judged.files == journal.files
}

/// Pieces of padding alone are there if the torrent says of them that they are zeros. Zeros of one length have one hash,
/// however many pieces they are, so that gigabytes of them are not left to a check.
fn judge_padding(place: &Place, judged: &mut Judged) {
    let mut digests = BTreeMap::new();
    for piece in place.layout.pieces().filter(|piece| place.layout.is_padding(*piece)) {
        let length = place.layout.piece_bytes(piece);
        let digest = digests.entry(length).or_insert_with(|| payload::digest_of_zeros(length));
        if payload::is_right(place, piece, digest) {
            judged.have.set(piece);
        } else {
            judged.have.clear(piece);
        }
    }
}

/// Begins a journal that knows all that is trusted, and before it, if wanted, a snapshot.
fn begin<S: Storage>(
    place: &Place,
    files: &StateFiles<'_>,
    storage: &mut S,
    judged: Judged,
    save: Option<Totals>,
    epoch: u64,
) -> Result<(Bitfield, Bitfield), StorageError> {
    let identity = Identity::new(place.info_hash, &place.layout);
    let header =
        Header { boot_id: place.boot_id, epoch: epoch.saturating_add(1), begun_ns: 0, closed: false };
    let Judged { have: good, unchecked, files: known } = judged;
    let mut journal = Journal { header, good, unchecked, files: known };
    if let Some(totals) = save {
        for (file, known) in (0..).zip(&mut journal.files) {
            if let Some(known) = known.as_mut().filter(|known| known.written) {
                storage.sync(place.at(FileIndex(file)))?;
                known.written = false;
            }
        }
        let snapshot = Snapshot {
            boot_id: place.boot_id,
            epoch,
            closed: false,
            totals,
            have: journal.good.clone(),
            unchecked: journal.unchecked.clone(),
            files: journal.files.iter().map(|known| known.map(|known| known.figures)).collect(),
        };
        files.replace(storage, Kind::Snapshot, &snapshot::encode(&identity, &snapshot))?;
    }
    files.replace_journal(storage, |begun_ns| {
        journal.header.begun_ns = begun_ns;
        journal::encode(&identity, &journal)
    })?;
    if files.is_in_root(place)
        && let Some(other) = StateFiles::in_state_root(place)
    {
        other.remove(storage)?;
    }
    Ok((journal.good, journal.unchecked))
}

/// The figures of all files; none for pad files, symlinks and what is not there.
fn look<S: Storage>(place: &Place, storage: &mut S) -> Result<Vec<Option<Stat>>, StorageError> {
    let look = |(file, entry): (u32, &FileEntry)| {
        if !entry.is_stored() {
            return Ok(None);
        }
        let stat = storage.stat(place.at(FileIndex(file)))?;
        match stat {
            Some(stat) if !stat.is_file => Err(place.error(FileIndex(file), StorageErrorKind::WrongKind)),
            Some(stat) if stat.length > entry.length => {
                Err(place.error(FileIndex(file), StorageErrorKind::TooLong))
            }
            stat => Ok(stat),
        }
    };
    (0..).zip(place.layout.files()).map(look).collect()
}

fn make_empty_files<S: Storage>(
    place: &Place,
    now: &[Option<Stat>],
    storage: &mut S,
) -> Result<(), StorageError> {
    for ((file, entry), stat) in (0..).zip(place.layout.files()).zip(now) {
        if stat.is_none() && entry.is_stored() && entry.length == 0 {
            match storage.write_at(place.at(FileIndex(file)), 0, &[]) {
                Err(error) if !cannot_write(error.kind) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// What earlier runs wrote down: in `files` or, when there is nothing, in the other place. Also whether it is there.
fn read_written<S: Storage>(
    place: &Place,
    files: Option<&StateFiles<'_>>,
    storage: &mut S,
) -> Result<(Written, bool), StorageError> {
    if let Some(files) = files
        && let Some(written) = read_in(place, files, storage, true)?
    {
        return Ok((written, false));
    }
    for other in [Some(StateFiles::in_root(place)), StateFiles::in_state_root(place)].into_iter().flatten() {
        match read_in(place, &other, storage, false) {
            Ok(Some(written)) => return Ok((written, true)),
            Ok(None) => {}
            // Another's state is none of ours. Whatever else fails may be over soon, and what was written down is there then.
            Err(error) if error.kind == StorageErrorKind::Denied => {}
            Err(error) => return Err(error),
        }
    }
    Ok((Written::default(), false))
}

/// Reads journal and snapshot; none when there is neither. What cannot be believed is set aside if it is `ours`.
fn read_in<S: Storage>(
    place: &Place,
    files: &StateFiles<'_>,
    storage: &mut S,
    ours: bool,
) -> Result<Option<Written>, StorageError> {
    let identity = Identity::new(place.info_hash, &place.layout);
    let journal = files.read(storage, Kind::Journal, JOURNAL_BYTES_MAX)?;
    let snapshot = files.read(storage, Kind::Snapshot, snapshot::bytes_max(&identity))?;
    if journal.is_none() && snapshot.is_none() {
        return Ok(None);
    }
    let mut written = Written::default();
    if let Some(Found { bytes, modified_ns }) = journal {
        written.journal_modified_ns = modified_ns;
        written.journal = journal::decode(&bytes, &identity).ok();
        if written.journal.is_none() && ours {
            files.set_aside(storage, Kind::Journal)?;
        }
    }
    if let Some(Found { bytes, .. }) = snapshot {
        written.snapshot = snapshot::decode(&bytes, &identity).ok();
        if written.snapshot.is_none() && ours {
            files.set_aside(storage, Kind::Snapshot)?;
        }
    }
    Ok(Some(written))
}
