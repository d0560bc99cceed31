//! Where a torrent's state lies, and how its files are replaced.
//!
//! `.taipei/` below the download directory, named by the info-hash; where that cannot be written, `.taipei/` below
//! the state directory, named by the info-hash and the download directory. Which of the two is found out anew by
//! each job: the journal is in the state directory, or state is with the payload.

use data_encoding::HEXLOWER;
use sha1::{Digest as _, Sha1};

use super::{At, Place, Stat, Storage, StorageError, StorageErrorKind};
use crate::metainfo::{STATE_DIRECTORY, StoragePath};

/// The state files of one torrent in one directory.
#[derive(Debug)]
pub(super) struct StateFiles<'a> {
    root: &'a str,
    stem: String,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Journal,
    Snapshot,
    /// A torrent file with nothing beside the info dictionary, of a magnet.
    Metadata,
}

/// What was read.
pub(super) struct Found {
    /// All of it; nothing when it is longer than it may be.
    pub(super) bytes: Vec<u8>,
    /// When it was last written, nanoseconds since 1970.
    pub(super) modified_ns: i64,
}

impl<'a> StateFiles<'a> {
    /// With the payload.
    pub(super) fn in_root(place: &'a Place) -> Self {
        Self { root: &place.root, stem: place.info_hash.to_string() }
    }

    /// In the state directory, if there is one.
    pub(super) fn in_state_root(place: &'a Place) -> Option<Self> {
        let of_root = Sha1::digest(place.root.as_bytes());
        let stem = format!("{}-{}", place.info_hash, HEXLOWER.encode(&of_root[..8]));
        (!place.state_root.is_empty()).then(|| Self { root: &place.state_root, stem })
    }

    /// Takes the lock where state can be written: with the payload, else in the state directory. None: nowhere.
    pub(super) fn take<S: Storage>(place: &'a Place, storage: &mut S) -> Result<Option<Self>, StorageError> {
        for files in [Some(Self::in_root(place)), Self::in_state_root(place)].into_iter().flatten() {
            match files.lock(storage) {
                Ok(()) => return Ok(Some(files)),
                Err(error) if cannot_write(error.kind) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Where the state is of a torrent that is open.
    pub(super) fn find<S: Storage>(place: &'a Place, storage: &mut S) -> Result<Self, StorageError> {
        if let Some(files) = Self::in_state_root(place)
            && files.stat(storage, Kind::Journal)?.is_some()
        {
            return Ok(files);
        }
        Ok(Self::in_root(place))
    }

    /// Whether it is beside the payload.
    pub(super) fn is_in_root(&self, place: &Place) -> bool {
        self.stem == place.info_hash.to_string()
    }

    fn lock<S: Storage>(&self, storage: &mut S) -> Result<(), StorageError> {
        let directory = StoragePath::from_names([STATE_DIRECTORY]);
        storage.create_dir(At { root: self.root, path: &directory })?;
        storage.lock(At { root: self.root, path: &self.path("lock") })
    }

    /// Lets the lock go, if we have it.
    pub(super) fn unlock<S: Storage>(&self, storage: &mut S) {
        storage.unlock(At { root: self.root, path: &self.path("lock") });
    }

    pub(super) fn stat<S: Storage>(&self, storage: &mut S, kind: Kind) -> Result<Option<Stat>, StorageError> {
        storage.stat(At { root: self.root, path: &self.path(kind.name()) })
    }

    /// Reads a file whole; none when there is none.
    pub(super) fn read<S: Storage>(
        &self,
        storage: &mut S,
        kind: Kind,
        bytes_max: usize,
    ) -> Result<Option<Found>, StorageError> {
        let Some(stat) = self.stat(storage, kind)? else { return Ok(None) };
        let length = usize::try_from(stat.length).ok().filter(|length| *length <= bytes_max).unwrap_or(0);
        let mut bytes = vec![0; length];
        let read = storage.read_at(At { root: self.root, path: &self.path(kind.name()) }, 0, &mut bytes)?;
        if read < length {
            let path = format!("{}/{}", self.root, self.path(kind.name()));
            return Err(StorageError { path, kind: StorageErrorKind::ShortRead });
        }
        Ok(Some(Found { bytes, modified_ns: stat.modified_ns }))
    }

    /// Writes into a file at an offset.
    pub(super) fn write<S: Storage>(
        &self,
        storage: &mut S,
        kind: Kind,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        storage.write_at(At { root: self.root, path: &self.path(kind.name()) }, offset, &[bytes])
    }

    /// Replaces the journal. `encode` is told the time at which the new one was begun, by the clock of its file
    /// system. It survives the end of the process, not a power cut.
    pub(super) fn replace_journal<S: Storage>(
        &self,
        storage: &mut S,
        encode: impl FnOnce(i64) -> Vec<u8>,
    ) -> Result<(), StorageError> {
        let (new, path) = (self.path("journal.new"), self.path(Kind::Journal.name()));
        let at = At { root: self.root, path: &new };
        storage.remove(at)?;
        storage.write_at(at, 0, &[&[0]])?;
        let begun_ns = storage.stat(at)?.map_or(i64::MAX, |stat| stat.modified_ns);
        storage.write_at(at, 0, &[&encode(begun_ns)])?;
        storage.rename(at, &path)
    }

    /// Replaces the snapshot or the metadata such that after a power cut there is the old one or the new one.
    pub(super) fn replace<S: Storage>(
        &self,
        storage: &mut S,
        kind: Kind,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        let (new, path) = (self.path(&format!("{}.new", kind.name())), self.path(kind.name()));
        let at = At { root: self.root, path: &new };
        storage.remove(at)?;
        storage.write_at(at, 0, &[bytes])?;
        storage.sync(at)?;
        storage.rename(at, &path)?;
        storage.sync_dir(At { root: self.root, path: &path })
    }

    /// Keeps a file that cannot be believed for whoever wants to look at it.
    pub(super) fn set_aside<S: Storage>(&self, storage: &mut S, kind: Kind) -> Result<(), StorageError> {
        let broken = self.path(&format!("{}.broken", kind.name()));
        storage.rename(At { root: self.root, path: &self.path(kind.name()) }, &broken)
    }

    /// Removes journal and snapshot.
    pub(super) fn remove<S: Storage>(&self, storage: &mut S) -> Result<(), StorageError> {
        for kind in [Kind::Journal, Kind::Snapshot] {
            storage.remove(At { root: self.root, path: &self.path(kind.name()) })?;
        }
        Ok(())
    }

    fn path(&self, suffix: &str) -> StoragePath {
        StoragePath::state(&format!("{}.{suffix}", self.stem))
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Snapshot => "snapshot",
            Self::Metadata => "torrent",
        }
    }
}

/// Whether a directory is not for us to write in: not an error that passes.
pub(super) fn cannot_write(kind: StorageErrorKind) -> bool {
    matches!(kind, StorageErrorKind::Denied | StorageErrorKind::ReadOnly)
}
