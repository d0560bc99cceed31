//! The resume journal, as bytes: what became of pieces and files since the last snapshot, and a copy of what was
//! known then.
//!
//! A header, then records of 28 bytes, each with a checksum of its own; all numbers little-endian. Records are only
//! ever appended, and a later one overrides what an earlier one says. The end of a process can only cut off the end of
//! what was appended; a wrong record before a right one, or among those it was begun with, is damage, and then nothing
//! is believed.
//!
//! ```text
//! header  magic 8, version 4, info-hash 20, pieces 4, files 4, boot id 16, epoch 8, begun 8, flags 4, records 4, crc32c 4
//! record  kind 1, zero 3, index 4, then by kind, then crc32c 4 (over the identity and the record)
//!         good, missing, unchecked: a range of pieces: count 8, zero 8
//!         known, written: a file: length 8, modified 8
//! ```

use std::ops::Range;

use super::identity::{Figures, IDENTITY_BYTES, Identity, Reader, StateError};
use crate::bitfield::Bitfield;
use crate::ids::PieceIndex;

/// What a journal says, records applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// How it was begun.
    pub header: Header,
    /// Pieces whose hash was right and whose write returned.
    pub good: Bitfield,
    /// Pieces that may be on disk, to be hashed.
    pub unchecked: Bitfield,
    /// By file; none for a file that did not exist.
    pub files: Vec<Option<Known>>,
}

/// How a journal was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the run of the machine; see [`super::Place::boot_id`].
    pub boot_id: [u8; 16],
    /// Counts journals and snapshots of a torrent: the one with the higher number was begun later.
    pub epoch: u64,
    /// When, by the clock of its file system, nanoseconds since 1970.
    pub begun_ns: i64,
    /// Nobody of us writes to payload while this is the journal: it was begun when the torrent was closed.
    pub closed: bool,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// After our last write to it.
    pub figures: Figures,
    /// Written to by us since it was last synced.
    pub written: bool,
}

/// One thing to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Good(Range<u32>),
    Missing(Range<u32>),
    Unchecked(Range<u32>),
    File(u32, Known),
}

/// A whole journal.
pub fn encode(identity: &Identity, journal: &Journal) -> Vec<u8> {
    let mut bytes = identity.encode(MAGIC, VERSION);
    bytes.extend(journal.header.boot_id);
    bytes.extend(journal.header.epoch.to_le_bytes());
    bytes.extend(journal.header.begun_ns.to_le_bytes());
    bytes.extend(u32::from(journal.header.closed).to_le_bytes());
    let files =
        (0..).zip(&journal.files).filter_map(|(file, known)| known.map(|known| Record::File(file, known)));
    let good = ranges(journal.good.iter()).into_iter().map(Record::Good);
    let unchecked = ranges(journal.unchecked.iter()).into_iter().map(Record::Unchecked);
    let records = encode_records(identity, files.chain(good).chain(unchecked));
    bytes.extend(((records.len() / RECORD_BYTES) as u32).to_le_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes.extend(records);
    bytes
}

/// Records to append at [`append_offset`].
pub(super) fn encode_records(identity: &Identity, records: impl IntoIterator<Item = Record>) -> Vec<u8> {
    let seed = seed(identity);
    let mut bytes = Vec::new();
    for record in records {
        let (kind, index, first, second) = match record {
            Record::Good(pieces) => (GOOD, pieces.start, u64::from(pieces.end - pieces.start), 0),
            Record::Missing(pieces) => (MISSING, pieces.start, u64::from(pieces.end - pieces.start), 0),
            Record::Unchecked(pieces) => (UNCHECKED, pieces.start, u64::from(pieces.end - pieces.start), 0),
            Record::File(file, known) => {
                let kind = if known.written { WRITTEN } else { KNOWN };
                (kind, file, known.figures.length, known.figures.modified_ns)
            }
        };
        let start = bytes.len();
        bytes.extend(u32::from(kind).to_le_bytes());
        bytes.extend(index.to_le_bytes());
        bytes.extend(first.to_le_bytes());
        bytes.extend(second.to_le_bytes());
        bytes.extend(crc32c::crc32c_append(seed, &bytes[start..]).to_le_bytes());
    }
    bytes
}

/// Where the next record goes in a journal of this length: over what is left of one that was cut. None: the file
/// is no journal.
pub(super) fn append_offset(length: u64) -> Option<u64> {
    let records = length.checked_sub(HEADER_BYTES as u64)? / RECORD_BYTES as u64;
    Some(HEADER_BYTES as u64 + records * RECORD_BYTES as u64)
}

/// Reads a journal of this torrent. Records at the end that were cut, or have a wrong checksum, are left out.
///
/// # Errors
/// Says why nothing of it is to be believed.
pub fn decode(bytes: &[u8], identity: &Identity) -> Result<Journal, StateError> {
    let mut reader = Reader(bytes);
    identity.expect(&mut reader, MAGIC, VERSION)?;
    let (boot_id, epoch, begun_ns, flags) = (reader.array()?, reader.u64()?, reader.i64()?, reader.u32()?);
    let begun_with = reader.u32()? as usize;
    let checked = bytes.len() - reader.0.len();
    if reader.u32()? != crc32c::crc32c(&bytes[..checked]) {
        return Err(StateError::Checksum);
    }
    let mut journal = Journal {
        header: Header { boot_id, epoch, begun_ns, closed: flags & 1 != 0 },
        good: Bitfield::new(identity.piece_count),
        unchecked: Bitfield::new(identity.piece_count),
        files: vec![None; identity.file_count as usize],
    };
    let seed = seed(identity);
    let mut cut = false;
    let records = reader.0.chunks_exact(RECORD_BYTES);
    if records.len() < begun_with {
        return Err(StateError::Length);
    }
    for (number, record) in records.enumerate() {
        let (body, crc) = record.split_at(RECORD_BYTES - 4);
        if crc != crc32c::crc32c_append(seed, body).to_le_bytes() {
            cut = true;
            if number < begun_with {
                return Err(StateError::Checksum);
            }
        } else if cut {
            return Err(StateError::Checksum);
        } else {
            journal.apply(Reader(body))?;
        }
    }
    Ok(journal)
}

impl Journal {
    fn apply(&mut self, mut record: Reader<'_>) -> Result<(), StateError> {
        let (kind, index, first, second) = (record.u32()?, record.u32()?, record.u64()?, record.i64()?);
        if kind == u32::from(KNOWN) || kind == u32::from(WRITTEN) {
            let file = self.files.get_mut(index as usize).ok_or(StateError::Nonsense)?;
            let figures = Figures { length: first, modified_ns: second };
            *file = Some(Known { figures, written: kind == u32::from(WRITTEN) });
            return Ok(());
        }
        let end = u32::try_from(first).ok().and_then(|count| index.checked_add(count));
        let end = end.filter(|end| *end <= self.good.piece_count()).ok_or(StateError::Nonsense)?;
        let kind = u8::try_from(kind).map_err(|_| StateError::Nonsense)?;
        for piece in (index..end).map(PieceIndex::new) {
            match kind {
                GOOD => {
                    self.good.set(piece);
                    self.unchecked.clear(piece);
                }
                MISSING => {
                    self.good.clear(piece);
                    self.unchecked.clear(piece);
                }
                UNCHECKED => {
                    self.good.clear(piece);
                    self.unchecked.set(piece);
                }
                _ => return Err(StateError::Nonsense),
            }
        }
        Ok(())
    }
}

/// Pieces as ranges of pieces that follow each other.
pub(super) fn ranges(pieces: impl IntoIterator<Item = PieceIndex>) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for piece in pieces {
        match ranges.last_mut() {
            Some(last) if last.end == piece.get() => last.end += 1,
            _ => ranges.push(piece.get()..piece.get() + 1),
        }
    }
    ranges
}

/// Ties a record to its torrent.
fn seed(identity: &Identity) -> u32 {
    crc32c::crc32c(&identity.encode(MAGIC, VERSION))
}

/// The longest journal that is read: a torrent with the most pieces, every other one good, twice over.
pub(super) const JOURNAL_BYTES_MAX: usize = 128 << 20;

const MAGIC: [u8; 8] = *b"taipei-j";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = IDENTITY_BYTES + 16 + 8 + 8 + 4 + 4 + 4;
const RECORD_BYTES: usize = 28;
const GOOD: u8 = 1;
const MISSING: u8 = 2;
const UNCHECKED: u8 = 3;
const KNOWN: u8 = 4;
const WRITTEN: u8 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::snapshot::tests::{bitfield, figures, identity};
    use super::*;

    fn journal() -> impl Strategy<Value = (Identity, Journal)> {
        (0u32..40, 0u32..5).prop_flat_map(|(pieces, files)| {
            let known = (figures(), any::<bool>()).prop_map(|(figures, written)| Known { figures, written });
            let known = proptest::collection::vec(proptest::option::of(known), files as usize);
            let header = (any::<[u8; 16]>(), any::<u64>(), any::<i64>(), any::<bool>())
                .prop_map(|(boot_id, epoch, begun_ns, closed)| Header { boot_id, epoch, begun_ns, closed });
            (header, bitfield(pieces), bitfield(pieces), known).prop_map(
                move |(header, good, mut unchecked, files_known)| {
                    for piece in good.iter() {
                        unchecked.clear(piece);
                    }
                    (identity(pieces, files), Journal { header, good, unchecked, files: files_known })
                },
            )
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read((identity, journal) in journal()) {
            prop_assert_eq!(decode(&encode(&identity, &journal), &identity), Ok(journal));
        }

        #[test]
        fn a_cut_tail_is_left_out((identity, journal) in journal(), cut in 0usize..27) {
            let whole = encode(&identity, &journal);
            let mut longer = whole.clone();
            longer.extend(encode_records(&identity, [Record::Good(0..identity.piece_count)]));
            longer.truncate(whole.len() + cut);
            prop_assert_eq!(append_offset(longer.len() as u64), Some(whole.len() as u64));
            prop_assert_eq!(decode(&longer, &identity), Ok(journal));
        }

        #[test]
        fn damage_to_what_it_was_begun_with_is_noticed(
            (identity, journal) in journal(), at in any::<prop::sample::Index>(), bit in 0..8,
        ) {
            let mut bytes = encode(&identity, &journal);
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes[..at], &identity).is_err());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(decode(&bytes, &identity).is_err());
        }

        #[test]
        fn junk_is_an_error_or_a_journal(bytes in proptest::collection::vec(any::<u8>(), 0..400), pieces in 0u32..40) {
            let _ = decode(&bytes, &identity(pieces, 3));
        }
    }

    #[test]
    fn damage_before_a_right_record_spoils_all() {
        let identity = identity(8, 1);
        let header = Header { boot_id: [1; 16], epoch: 1, begun_ns: 0, closed: false };
        let empty =
            Journal { header, good: Bitfield::new(8), unchecked: Bitfield::new(8), files: vec![None] };
        let mut bytes = encode(&identity, &empty);
        let damaged = bytes.len() + 5;
        bytes.extend(encode_records(&identity, [Record::Good(0..2), Record::Missing(1..2)]));
        assert_eq!(decode(&bytes, &identity).map(|journal| journal.good.count()), Ok(1));
        bytes[damaged] ^= 1;
        assert_eq!(decode(&bytes, &identity), Err(StateError::Checksum));
    }

    #[test]
    fn records_beyond_the_torrent_are_nonsense() {
        let narrow = identity(8, 1);
        let header = Header { boot_id: [1; 16], epoch: 1, begun_ns: 0, closed: false };
        let empty =
            Journal { header, good: Bitfield::new(8), unchecked: Bitfield::new(8), files: vec![None] };
        let known = Known { figures: Figures { length: 1, modified_ns: 1 }, written: true };
        for record in [Record::Good(0..9), Record::Good(u32::MAX - 1..u32::MAX), Record::File(1, known)] {
            let mut bytes = encode(&narrow, &empty);
            bytes.extend(encode_records(&narrow, [record]));
            assert_eq!(decode(&bytes, &narrow), Err(StateError::Nonsense));
        }
    }

    /// Byte by byte as the first release wrote it: whatever comes later must read it too.
    #[test]
    fn the_first_version_is_read_for_ever() {
        let mut bytes = b"taipei-j\x01\0\0\0".to_vec();
        bytes.extend([7; 20]);
        bytes.extend(b"\x09\0\0\0\x02\0\0\0");
        bytes.extend([1; 16]);
        // Epoch, when it was begun, flags, records it was begun with.
        bytes.extend(b"\x03\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0");
        bytes.extend([0x17, 0x30, 0x8c, 0x4e]);
        // A file that was written to, pieces 2 to 4 good, 3 missing.
        for (record, checksum) in [
            (b"\x05\0\0\0\x01\0\0\0\x64\0\0\0\0\0\0\0\xff\0\0\0\0\0\0\0", [0x79, 0x54, 0xcb, 0x92]),
            (b"\x01\0\0\0\x02\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", [0x5b, 0xa4, 0xd5, 0x97]),
            (b"\x02\0\0\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", [0x88, 0x0f, 0x5e, 0x8a]),
        ] {
            bytes.extend(record);
            bytes.extend(checksum);
        }
        let found = decode(&bytes, &identity(9, 2)).unwrap();
        assert_eq!(found.good.iter().map(PieceIndex::get).collect::<Vec<_>>(), [2, 4]);
        assert_eq!((found.header.epoch, found.header.begun_ns, found.header.closed), (3, 10, false));
        let figures = Figures { length: 100, modified_ns: 255 };
        assert_eq!(found.files, [None, Some(Known { figures, written: true })]);
    }
}
