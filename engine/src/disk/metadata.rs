//! The metadata of a magnet, kept beside the resume state: a torrent file of the info dictionary alone.

use bytes::Bytes;
use sha1::{Digest as _, Sha1};

use super::state_files::{Kind, StateFiles};
use super::{Place, Storage, StorageError};
use crate::bencode;
use crate::limits::TORRENT_FILE_BYTES_MAX;

/// What an earlier run kept, in either place; none where there is nothing, where it cannot be read, or where its hash is
/// wrong: peers have it again.
pub(super) fn load<S: Storage>(place: &Place, storage: &mut S) -> Option<Bytes> {
    let files = [Some(StateFiles::in_root(place)), StateFiles::in_state_root(place)];
    files.into_iter().flatten().find_map(|files| {
        let found = files.read(storage, Kind::Metadata, TORRENT_FILE_BYTES_MAX).ok()??;
        let info = bencode::raw_entry(&found.bytes, b"info").ok()??;
        let hash: [u8; 20] = Sha1::digest(info).into();
        (hash == place.info_hash.0).then(|| Bytes::copy_from_slice(info))
    })
}

/// Keeps it where the state of an open torrent is.
pub(super) fn save<S: Storage>(place: &Place, info: &[u8], storage: &mut S) -> Result<(), StorageError> {
    let files = StateFiles::find(place, storage)?;
    files.replace(storage, Kind::Metadata, &torrent_file(info))
}

/// A torrent file with nothing beside this info dictionary.
pub(crate) fn torrent_file(info: &[u8]) -> Bytes {
    [b"d4:info", info, b"e"].concat().into()
}
