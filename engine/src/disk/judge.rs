//! Which pieces can be trusted without hashing, which must be hashed, which are not there.
//!
//! A pure decision over what earlier runs wrote down and what the files look like now:
//!
//! - *Same boot id, right journal*: the journal tells all. A piece it calls good is trusted where its files have the
//!   length and the times of our last write to them, give or take [`RECORD_SLACK_NS`] (writes after the last record);
//!   after a clean close nothing is given. Pieces that it does not name are missing, so a killed process costs no
//!   check; but the pieces of a file that somebody else changed or made are all to be hashed.
//! - *Another boot id, or no right journal*: unsynced writes may be lost. Pieces of the snapshot are trusted where
//!   their files have the length and about the times that were last written down, give or take [`BOOT_SLACK_NS`];
//!   all else that may be on disk is to be hashed. When the torrent was closed and its files did not change since by
//!   a nanosecond, what the snapshot does not name is missing.
//! - *Neither*: all that may be on disk is to be hashed.
//!
//! It never trusts a piece beyond the end of a file, and never calls missing what nothing is known of. Pieces of padding
//! alone need no disk and are judged by whoever asks.

use super::Stat;
use super::identity::Figures;
use super::journal::{Journal, Known};
use super::snapshot::Snapshot;
use crate::bitfield::Bitfield;
use crate::ids::{FileIndex, PieceIndex};
use crate::metainfo::Layout;

/// What earlier runs wrote down, as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) journal: Option<Journal>,
    /// When the journal was last appended to.
    pub(super) journal_modified_ns: i64,
    pub(super) snapshot: Option<Snapshot>,
}

/// What was decided.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) have: Bitfield,
    pub(super) unchecked: Bitfield,
    /// For the next journal: the figures as they are now.
    pub(super) files: Vec<Option<Known>>,
}

/// What is thought of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Not there, or without a byte.
    Absent,
    /// All in it is ours and was written down: pieces that are not named are missing.
    Known,
    /// Pieces that are named are there; of others nothing is known.
    Named,
    /// Somebody else was here, or nothing is known of it.
    Changed,
}

/// Decides by journal and snapshot.
pub(super) fn judge(layout: &Layout, now: &[Option<Stat>], written: &Written, boot_id: [u8; 16]) -> Judged {
    let journal = written.journal.as_ref().filter(|journal| journal.header.boot_id == boot_id);
    match (journal, &written.snapshot) {
        (Some(journal), Some(snapshot))
            if snapshot.boot_id == boot_id && snapshot.epoch >= journal.header.epoch =>
        {
            // The process ended between the snapshot and the journal that was to follow it.
            let known = |figures: &Option<Figures>| figures.map(|figures| Known { figures, written: false });
            let known: Vec<_> = snapshot.files.iter().map(known).collect();
            let trust = by_journal(layout, now, journal, &known, written.journal_modified_ns);
            decide(layout, now, &snapshot.have, &snapshot.unchecked, &trust, &known)
        }
        (Some(journal), _) => {
            let trust = by_journal(layout, now, journal, &journal.files, written.journal_modified_ns);
            decide(layout, now, &journal.good, &journal.unchecked, &trust, &journal.files)
        }
        (None, Some(snapshot)) => {
            let trust = by_snapshot(layout, now, snapshot, written.journal.as_ref());
            decide(layout, now, &snapshot.have, &snapshot.unchecked, &trust, &[])
        }
        (None, None) => distrust(layout, now),
    }
}

/// Decides that all that may be on disk is to be hashed.
pub(super) fn distrust(layout: &Layout, now: &[Option<Stat>]) -> Judged {
    let none = Bitfield::new(layout.piece_count());
    let trust = vec![Trust::Changed; now.len()];
    decide(layout, now, &none, &none, &trust, &[])
}

fn by_journal(
    layout: &Layout,
    now: &[Option<Stat>],
    journal: &Journal,
    known: &[Option<Known>],
    journal_modified_ns: i64,
) -> Vec<Trust> {
    let slack_ns = if journal.header.closed { 0 } else { RECORD_SLACK_NS };
    let trust = |file: usize, stat: &Stat| {
        let (length, from_ns, to_ns) = match known.get(file).copied().flatten() {
            Some(known) => (known.figures.length, known.figures.modified_ns, known.figures.modified_ns),
            // It was not there when the journal was begun, and was written to after the last record.
            None if !journal.header.closed => (0, journal.header.begun_ns, journal_modified_ns),
            None => return Trust::Changed,
        };
        let from_ns = from_ns.saturating_sub(CLOCK_GRAIN_NS);
        let fits =
            stat.length >= length && (from_ns..=to_ns.saturating_add(slack_ns)).contains(&stat.modified_ns);
        if fits { Trust::Known } else { Trust::Changed }
    };
    trust_each(layout, now, trust)
}

fn by_snapshot(
    layout: &Layout,
    now: &[Option<Stat>],
    snapshot: &Snapshot,
    journal: Option<&Journal>,
) -> Vec<Trust> {
    let trust = |file: usize, stat: &Stat| {
        let Some(figures) = snapshot.files.get(file).copied().flatten() else { return Trust::Changed };
        let recorded = journal.and_then(|journal| journal.files.get(file).copied().flatten());
        let last_ns = recorded
            .map_or(figures.modified_ns, |known| known.figures.modified_ns)
            .max(figures.modified_ns)
            .saturating_add(BOOT_SLACK_NS);
        let first_ns = figures.modified_ns.saturating_sub(BOOT_SLACK_NS);
        let unchanged = (stat.length, stat.modified_ns) == (figures.length, figures.modified_ns);
        if snapshot.closed && unchanged {
            Trust::Known
        } else if stat.length >= figures.length && (first_ns..=last_ns).contains(&stat.modified_ns) {
            Trust::Named
        } else {
            Trust::Changed
        }
    };
    trust_each(layout, now, trust)
}

fn trust_each(layout: &Layout, now: &[Option<Stat>], trust: impl Fn(usize, &Stat) -> Trust) -> Vec<Trust> {
    assert_eq!(now.len(), layout.files().len(), "every file was looked at");
    now.iter()
        .enumerate()
        .map(|(file, stat)| match stat {
            Some(stat) if stat.length > 0 => trust(file, stat),
            _ => Trust::Absent,
        })
        .collect()
}

/// Puts every piece where it belongs.
fn decide(
    layout: &Layout,
    now: &[Option<Stat>],
    named: &Bitfield,
    pending: &Bitfield,
    trust: &[Trust],
    known: &[Option<Known>],
) -> Judged {
    let (mut have, mut unchecked) =
        (Bitfield::new(layout.piece_count()), Bitfield::new(layout.piece_count()));
    for piece in layout.pieces() {
        let look = Look::at(layout, now, trust, piece);
        if named.has(piece) && look.all_there && look.all_trusted {
            have.set(piece);
        } else if look.some_there && (named.has(piece) || pending.has(piece) || !look.all_known) {
            unchecked.set(piece);
        }
    }
    let files = (0..).zip(now).map(|(file, stat)| {
        let stat = stat.filter(|stat| stat.length > 0)?;
        let figures = Figures { length: stat.length, modified_ns: stat.modified_ns };
        let before: Option<Known> = known.get(file as usize).copied().flatten();
        let written = match before {
            Some(before) => before.written || before.figures != figures,
            None => !known.is_empty(),
        };
        Some(Known { figures, written })
    });
    let files = files.collect();
    assert!(have.iter().all(|piece| !unchecked.has(piece)), "what is trusted is not hashed");
    Judged { have, unchecked, files }
}

/// A piece, by its files.
struct Look {
    /// A byte of it may be on disk.
    some_there: bool,
    /// The files reach to its end.
    all_there: bool,
    /// No file was changed by somebody else.
    all_trusted: bool,
    /// If it were there, it would have been named.
    all_known: bool,
}

impl Look {
    fn at(layout: &Layout, now: &[Option<Stat>], trust: &[Trust], piece: PieceIndex) -> Self {
        let mut look = Self { some_there: false, all_there: true, all_trusted: true, all_known: true };
        for run in layout.runs(piece, 0, layout.piece_bytes(piece)).filter(|run| !run.pad) {
            let FileIndex(file) = run.file;
            let length = now.get(file as usize).copied().flatten().map_or(0, |stat| stat.length);
            let trust = trust.get(file as usize).copied().unwrap_or(Trust::Changed);
            look.some_there |= length > run.offset;
            look.all_there &= length >= run.offset + run.length;
            look.all_trusted &= matches!(trust, Trust::Known | Trust::Named);
            look.all_known &= matches!(trust, Trust::Known | Trust::Absent);
        }
        look
    }
}

/// From our last record of a file to the last write before the process was killed: records wait for a snapshot that
/// is being synced.
const RECORD_SLACK_NS: i64 = 10_000_000_000;
/// The same when the machine stopped: figures reach the disk up to half a minute late and in any order.
const BOOT_SLACK_NS: i64 = 60_000_000_000;
/// File times may be cut to this when a file system is mounted again (FAT).
const CLOCK_GRAIN_NS: i64 = 2_000_000_000;
