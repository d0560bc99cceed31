//! The resume snapshot, as bytes: all pieces on disk at a moment when all of them were synced.
//!
//! All numbers little-endian, one checksum over everything before it:
//!
//! ```text
//! magic 8, version 4, info-hash 20, pieces 4, files 4, boot id 16, epoch 8, flags 4, downloaded 8, uploaded 8,
//! have and unchecked as bitfields (BEP 3), count 4 of (file 4, length 8, modified 8), crc32c 4
//! ```

use super::Totals;
use super::identity::{Figures, IDENTITY_BYTES, Identity, Reader, StateError};
use crate::bitfield::Bitfield;

/// What a snapshot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the run of the machine; see [`super::Place::boot_id`].
    pub boot_id: [u8; 16],
    /// Of the journal that it was made of.
    pub epoch: u64,
    /// The torrent was closed with it.
    pub closed: bool,
    /// Payload counted until then.
    pub totals: Totals,
    /// Pieces that survive a power cut.
    pub have: Bitfield,
    /// Pieces that may be on disk, to be hashed.
    pub unchecked: Bitfield,
    /// By file; none for a file that did not exist.
    pub files: Vec<Option<Figures>>,
}

/// A whole snapshot.
pub fn encode(identity: &Identity, snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = identity.encode(MAGIC, VERSION);
    bytes.extend(snapshot.boot_id);
    bytes.extend(snapshot.epoch.to_le_bytes());
    bytes.extend(u32::from(snapshot.closed).to_le_bytes());
    bytes.extend(snapshot.totals.downloaded.to_le_bytes());
    bytes.extend(snapshot.totals.uploaded.to_le_bytes());
    bytes.extend(snapshot.have.as_bytes());
    bytes.extend(snapshot.unchecked.as_bytes());
    let files =
        (0u32..).zip(&snapshot.files).filter_map(|(file, figures)| figures.map(|figures| (file, figures)));
    bytes.extend((files.clone().count() as u32).to_le_bytes());
    for (file, figures) in files {
        bytes.extend(file.to_le_bytes());
        bytes.extend(figures.length.to_le_bytes());
        bytes.extend(figures.modified_ns.to_le_bytes());
    }
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Reads a snapshot of this torrent.
///
/// # Errors
/// Says why nothing of it is to be believed.
pub fn decode(bytes: &[u8], identity: &Identity) -> Result<Snapshot, StateError> {
    let mut reader = Reader(bytes);
    identity.expect(&mut reader, MAGIC, VERSION)?;
    let (checked, crc) = bytes.split_last_chunk::<4>().ok_or(StateError::Length)?;
    if *crc != crc32c::crc32c(checked).to_le_bytes() {
        return Err(StateError::Checksum);
    }
    let (boot_id, epoch, flags) = (reader.array()?, reader.u64()?, reader.u32()?);
    let totals = Totals { downloaded: reader.u64()?, uploaded: reader.u64()? };
    let bitfield_bytes = identity.piece_count.div_ceil(8) as usize;
    let mut bitfield = || {
        Bitfield::from_wire(reader.take(bitfield_bytes)?, identity.piece_count)
            .map_err(|_| StateError::Nonsense)
    };
    let (have, unchecked) = (bitfield()?, bitfield()?);
    let mut files = vec![None; identity.file_count as usize];
    let count = reader.u32()?;
    if count > identity.file_count {
        return Err(StateError::Nonsense);
    }
    for _ in 0..count {
        let file = files.get_mut(reader.u32()? as usize).ok_or(StateError::Nonsense)?;
        *file = Some(Figures { length: reader.u64()?, modified_ns: reader.i64()? });
    }
    if reader.0.len() != crc.len() {
        return Err(StateError::Length);
    }
    Ok(Snapshot { boot_id, epoch, closed: flags & 1 != 0, totals, have, unchecked, files })
}

/// The longest snapshot of this torrent.
pub(super) fn bytes_max(identity: &Identity) -> usize {
    let bitfields = 2 * identity.piece_count.div_ceil(8) as usize;
    IDENTITY_BYTES + 16 + 8 + 4 + 8 + 8 + bitfields + 4 + 20 * identity.file_count as usize + 4
}

const MAGIC: [u8; 8] = *b"taipei-s";
const VERSION: u32 = 1;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{InfoHash, PieceIndex};

    pub(in super::super) fn identity(piece_count: u32, file_count: u32) -> Identity {
        Identity { info_hash: InfoHash([7; 20]), piece_count, file_count }
    }

    pub(in super::super) fn figures() -> impl Strategy<Value = Figures> {
        (any::<u64>(), any::<i64>()).prop_map(|(length, modified_ns)| Figures { length, modified_ns })
    }

    pub(in super::super) fn bitfield(pieces: u32) -> impl Strategy<Value = Bitfield> {
        proptest::collection::vec(any::<bool>(), pieces as usize).prop_map(move |bits| {
            let mut bitfield = Bitfield::new(pieces);
            for (piece, _) in (0..).zip(bits).filter(|(_, bit)| *bit) {
                bitfield.set(PieceIndex::new(piece));
            }
            bitfield
        })
    }

    fn snapshot() -> impl Strategy<Value = (Identity, Snapshot)> {
        (0u32..40, 0u32..5).prop_flat_map(|(pieces, files)| {
            let known = proptest::collection::vec(proptest::option::of(figures()), files as usize);
            let numbers = (any::<[u8; 16]>(), any::<u64>(), any::<bool>(), any::<u64>(), any::<u64>());
            (numbers, bitfield(pieces), bitfield(pieces), known).prop_map(
                move |((boot_id, epoch, closed, downloaded, uploaded), have, unchecked, known)| {
                    let totals = Totals { downloaded, uploaded };
                    let snapshot = Snapshot { boot_id, epoch, closed, totals, have, unchecked, files: known };
                    (identity(pieces, files), snapshot)
                },
            )
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read((identity, snapshot) in snapshot()) {
            let bytes = encode(&identity, &snapshot);
            prop_assert!(bytes.len() <= bytes_max(&identity));
            prop_assert_eq!(decode(&bytes, &identity), Ok(snapshot));
        }

        #[test]
        fn any_changed_byte_is_noticed((identity, snapshot) in snapshot(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = encode(&identity, &snapshot);
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(decode(&bytes, &identity).is_err());
        }

        #[test]
        fn any_cut_is_noticed((identity, snapshot) in snapshot(), at in any::<prop::sample::Index>()) {
            let bytes = encode(&identity, &snapshot);
            prop_assert!(decode(&bytes[..at.index(bytes.len())], &identity).is_err());
        }

        #[test]
        fn junk_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400), pieces in 0u32..40) {
            prop_assert!(decode(&bytes, &identity(pieces, 3)).is_err());
        }
    }

    #[test]
    fn later_versions_and_other_torrents_are_told_apart() {
        let ours = identity(9, 0);
        let snapshot = Snapshot {
            boot_id: [0; 16],
            epoch: 1,
            closed: true,
            totals: Totals::default(),
            have: Bitfield::full(9),
            unchecked: Bitfield::new(9),
            files: vec![],
        };
        let mut bytes = encode(&ours, &snapshot);
        assert_eq!(decode(&bytes, &identity(10, 0)), Err(StateError::OtherTorrent));
        let other = Identity { info_hash: InfoHash([8; 20]), ..ours };
        assert_eq!(decode(&bytes, &other), Err(StateError::OtherTorrent));
        bytes[8] = 2;
        assert_eq!(decode(&bytes, &ours), Err(StateError::Version(2)));
    }

    /// Byte by byte as the first release wrote it: whatever comes later must read it too.
    #[test]
    fn the_first_version_is_read_for_ever() {
        let mut bytes = b"taipei-s\x01\0\0\0".to_vec();
        bytes.extend([7; 20]);
        bytes.extend(b"\x09\0\0\0\x02\0\0\0");
        bytes.extend([1; 16]);
        bytes.extend(b"\x03\0\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0");
        bytes.extend([0b1010_0000, 0b1000_0000, 0b0100_0000, 0]);
        bytes.extend(b"\x01\0\0\0\x01\0\0\0\x64\0\0\0\0\0\0\0\xff\0\0\0\0\0\0\0");
        bytes.extend([0x64, 0xa2, 0xd0, 0x31]);
        let found = decode(&bytes, &identity(9, 2)).unwrap();
        let pieces = |field: &Bitfield| field.iter().map(PieceIndex::get).collect::<Vec<_>>();
        assert_eq!((pieces(&found.have), pieces(&found.unchecked)), (vec![0, 2, 8], vec![1]));
        assert_eq!((found.boot_id, found.epoch, found.closed), ([1; 16], 3, true));
        assert_eq!(found.totals, Totals { downloaded: 5, uploaded: 7 });
        assert_eq!(found.files, [None, Some(Figures { length: 100, modified_ns: 255 })]);
    }
}
