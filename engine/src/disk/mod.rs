//! Work on disk, as values: what a job is, what comes of it, and the storage it runs on.
//!
//! A [`Job`] is asked for by the engine and done by [`execute`], a plain function that a thread pool, turmoil and
//! the event world all call, so the storage and resume code under test is the real one. Nothing here waits, and
//! nothing here knows a peer.

mod allocate;
mod execute;
mod hash;
mod identity;
pub mod journal;
mod judge;
mod metadata;
mod open;
mod payload;
mod save;
pub mod snapshot;
mod state_files;

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(crate) use self::allocate::files_to_allocate;
pub use self::execute::execute;
pub use self::hash::{Sha1Many, sha1_each};
pub use self::identity::{Figures, Identity, StateError};
pub(crate) use self::metadata::torrent_file;
use crate::bitfield::Bitfield;
use crate::block::BlockData;
use crate::ids::{FileIndex, InfoHash, PieceIndex};
use crate::metainfo::{Layout, StoragePath};

/// Where one torrent lies on disk and what it should look like. Shared by all its jobs.
#[derive(Debug)]
pub struct Place {
    /// For naming the state files.
    pub info_hash: InfoHash,
    /// The download directory.
    pub root: String,
    /// Where state goes when `root` cannot be written. Empty: nowhere.
    pub state_root: String,
    /// Files and pieces.
    pub layout: Layout,
    /// SHA-1 of each piece, 20 bytes a piece, in order.
    pub piece_hashes: Vec<[u8; 20]>,
    /// Changes when unsynced writes may have been lost.
    pub boot_id: [u8; 16],
}

/// Two places are the same decision when they are of the same torrent in the same directory.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.info_hash == other.info_hash && self.root == other.root
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.info_hash.hash(state);
        self.root.hash(state);
    }
}

/// Something to do on disk for one torrent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Job {
    /// Of which torrent, where.
    #[serde(skip)]
    pub place: Arc<Place>,
    /// What.
    pub work: Work,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Work {
    /// Lock the torrent, read what earlier runs left, look at the files, begin a journal.
    Open {
        /// What to believe of earlier runs.
        resume: crate::command::ResumeMode,
    },
    /// Look for the metadata that an earlier run fetched.
    LoadMetadata,
    /// Keep metadata that was fetched.
    SaveMetadata {
        /// The raw info dictionary; its hash is right.
        info: Bytes,
    },
    /// Hash what is on disk.
    Check {
        /// Which pieces.
        pieces: Vec<PieceIndex>,
    },
    /// Make files, with room for all of them, so that a full disk is known before anything is fetched.
    Allocate {
        /// Which; they are stored ones.
        files: Vec<FileIndex>,
    },
    /// Write a part of a piece. Blocks lie one after the other.
    Write {
        /// Which piece.
        piece: PieceIndex,
        /// From offset to blocks.
        runs: Vec<Run>,
        /// Its files and how long each is known to be. To one that is missing or shorter nothing is written, for what was in
        /// it would be zeros.
        reaches: Vec<(FileIndex, u64)>,
        /// Those of them that were found so before: how long the storage left them counts no more.
        forget: Vec<FileIndex>,
        /// Whether the digests of the blocks are wanted, because they will be read back.
        digests: bool,
    },
    /// Hash whole pieces, side by side.
    Hash {
        /// Which, and where their bytes are.
        pieces: Vec<HashPiece>,
    },
    /// Read blocks to send.
    Read {
        /// Which.
        blocks: Vec<ReadBlock>,
    },
    /// Append to the journal what was found good, and that files were written to.
    Record {
        /// Pieces whose hash was right and whose write returned.
        good: Vec<PieceIndex>,
        /// Pieces of which a part was written: their files changed, by us; and pieces that were found gone.
        touched: Vec<PieceIndex>,
        /// Pieces that may be gone: a later run hashes them.
        doubted: Vec<PieceIndex>,
    },
    /// Sync the payload, write a snapshot, begin a new journal.
    Snapshot {
        /// All pieces on disk.
        have: Bitfield,
        /// Pieces that may be on disk and wait for their check: a later run goes on with them. May be of no piece
        /// at all ([`Bitfield::default`]) when there are none.
        unchecked: Bitfield,
        /// Payload received and sent, ever.
        totals: Totals,
        /// Whether the torrent is closed with it: the lock is let go.
        close: bool,
    },
    /// Let the lock go without saving anything.
    Close,
    /// Look whether all files are there, as long as they should be: what needs no hash to be seen.
    Look,
}

/// Blocks that lie one after the other in a piece.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Run {
    /// Offset of the first in the piece.
    pub begin: u32,
    /// In order.
    pub blocks: Vec<BlockData>,
}

impl Run {
    /// How many bytes its blocks have together.
    pub fn bytes(&self) -> u32 {
        self.blocks.iter().map(BlockData::len).sum()
    }
}

/// A piece to hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HashPiece {
    /// Which.
    pub piece: PieceIndex,
    /// All of it in order; none when it is to be read back from disk.
    pub blocks: Vec<BlockData>,
    /// Whether the digests of its blocks are wanted even when it is good.
    pub digests: bool,
}

/// What came of hashing one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PieceHash {
    /// Whether the hash is right.
    pub good: bool,
    /// Of each block in order, when the piece is not good or they were asked for; none when its bytes are not there.
    pub digests: Vec<BlockDigest>,
}

/// The first eight bytes of the SHA-1 of a block: enough to tell a wrong block from the right one, since who lies
/// would have to find one with the digest of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockDigest(pub u64);

/// A block to read for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReadBlock {
    /// Which piece; it is one we have.
    pub piece: PieceIndex,
    /// Offset in the piece.
    pub begin: u32,
    /// Bytes; the block lies within the piece.
    pub length: u32,
}

/// Payload counted over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Totals {
    /// Received, bytes.
    pub downloaded: u64,
    /// Sent, bytes.
    pub uploaded: u64,
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JobResult {
    /// Of `Open`.
    Opened(Result<Opened, StorageError>),
    /// Of `LoadMetadata`: the raw info dictionary, if there is one whose hash is right.
    MetadataLoaded(Option<Bytes>),
    /// Of `SaveMetadata`.
    MetadataSaved(Result<(), StorageError>),
    /// Of `Check`: for each piece asked for, in order, whether it is good. A file that is missing or short is not an
    /// error: its pieces are not good.
    Checked(Result<Vec<bool>, StorageError>),
    /// Of `Allocate`.
    Allocated(Result<(), StorageError>),
    /// Of `Write`.
    Written(Result<Written, StorageError>),
    /// Of `Hash`: of each piece, in order. Reading back may fail.
    Hashed(Result<Vec<PieceHash>, StorageError>),
    /// Of `Read`: the blocks, in order.
    Read(Result<Vec<BlockData>, StorageError>),
    /// Of `Record`.
    Recorded(Result<(), StorageError>),
    /// Of `Snapshot`.
    Saved(Result<(), StorageError>),
    /// Of `Close`.
    Closed,
    /// Of `Look`: the files that are missing or too short.
    Looked(Result<Vec<FileIndex>, StorageError>),
}

/// What came of writing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Written {
    /// Files that are missing, or shorter than they were: their part was not written.
    pub gone: Vec<FileIndex>,
    /// Of each block in order, as it came, if they were asked for; none when the bytes are not there.
    pub digests: Vec<BlockDigest>,
}

/// What earlier runs left.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Opened {
    /// Pieces that can be trusted without hashing.
    pub have: Bitfield,
    /// Pieces that may be there and must be hashed.
    pub unchecked: Bitfield,
    /// Payload counted by earlier runs.
    pub totals: Totals,
    /// Where its state is written down.
    pub saved: Saved,
}

/// What there is of a torrent's state on disk once it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Saved {
    /// Nothing, as there is nowhere to write it.
    Nowhere,
    /// A journal, begun now.
    Begun,
    /// What an earlier run wrote when it closed the torrent, of which all is there and nothing has changed since. It says
    /// that nobody writes to payload, so a snapshot comes before whoever does.
    AsClosed,
}

/// A file's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its length in bytes.
    pub length: u64,
    /// When it was last written, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Whether it is a plain file.
    pub is_file: bool,
    /// What it takes on disk, in bytes; less than its length where it has holes.
    pub allocated_bytes: u64,
}

/// A place in a storage: a path below a root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At<'a> {
    /// The root directory, as the embedder gave it.
    pub root: &'a str,
    /// Below it.
    pub path: &'a StoragePath,
}

/// Files by path below a root: synchronous, positioned, without a cursor. Opening is the storage's own affair
/// (`net` keeps a pool of handles). A path is never followed through a symbolic link below the root.
pub trait Storage {
    /// Reads until `buffer` is full or the file ends; gives the bytes read. A missing file is `NotFound`.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn read_at(&mut self, at: At<'_>, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError>;

    /// Memory to read into, of at least this length, whatever is in it.
    fn lend(&mut self, length: usize) -> Vec<u8> {
        vec![0; length]
    }

    /// What was read into lent memory, to be shared. A storage may lend it again after the last share is gone.
    fn share(&mut self, buffer: Vec<u8>) -> Bytes {
        Bytes::from(buffer)
    }

    /// Writes all of `parts` from `offset`. The file and its directories are made when missing; a gap is sparse.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn write_at(&mut self, at: At<'_>, offset: u64, parts: &[&[u8]]) -> Result<(), StorageError>;

    /// Whether a file is there as far as it is known to be: for `length` bytes at least. A storage that remembers how long
    /// it left the file says no when somebody removed it, or cut it, since.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn reaches(&mut self, at: At<'_>, length: u64) -> Result<bool, StorageError> {
        Ok(length == 0 || self.stat(at)?.is_some_and(|stat| stat.length >= length))
    }

    /// What is remembered of a file counts no more: somebody cut or removed it, and that is known.
    fn forget(&mut self, _at: At<'_>) {}

    /// The figures of a file; none when there is nothing.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn stat(&mut self, at: At<'_>) -> Result<Option<Stat>, StorageError>;

    /// Makes a file of this length, or cuts or extends it.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn set_len(&mut self, at: At<'_>, length: u64) -> Result<(), StorageError>;

    /// Makes room for this many bytes on disk; the file is made when missing and its length stays, so that no zeros
    /// are taken for data. May do no more than that where the system cannot.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn allocate(&mut self, at: At<'_>, length: u64) -> Result<(), StorageError>;

    /// Returns when all that was written to the file would survive a power cut. Missing files are fine.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn sync(&mut self, at: At<'_>) -> Result<(), StorageError>;

    /// The same for files of one root, all at once, where a call does that for less than one for each; whether it did. It may
    /// sync more than these.
    ///
    /// # Errors
    /// What the system said, with a path.
    fn sync_together(&mut self, _files: &[At<'_>]) -> Result<bool, StorageError> {
        Ok(false)
    }

    /// The same for the names in a directory (the one that holds `at`).
    ///
    /// # Errors
    /// What the system said, with the path.
    fn sync_dir(&mut self, at: At<'_>) -> Result<(), StorageError>;

    /// Makes a directory and those above it, below the root and the root itself. Present is fine.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn create_dir(&mut self, at: At<'_>) -> Result<(), StorageError>;

    /// Renames a file within one root, over what is there.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn rename(&mut self, from: At<'_>, to: &StoragePath) -> Result<(), StorageError>;

    /// Removes a file. Missing is fine.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn remove(&mut self, at: At<'_>) -> Result<(), StorageError>;

    /// Bytes that can still be written below a root.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn free_bytes(&mut self, root: &str) -> Result<u64, StorageError>;

    /// Takes an exclusive lock on a file, made when missing, until `unlock` or the end of the process. Held by
    /// another process it fails with [`StorageErrorKind::Locked`] and that process's number, which the holder writes
    /// into the file. What a dead process left never blocks.
    ///
    /// # Errors
    /// What the system said, with the path.
    fn lock(&mut self, at: At<'_>) -> Result<(), StorageError>;

    /// Lets a lock go. Its file may stay, for the next who locks it: to make thousands of them takes seconds.
    fn unlock(&mut self, at: At<'_>);
}

/// The disk said no.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[error("{path}: {kind}")]
pub struct StorageError {
    /// The file, with its root.
    pub path: String,
    /// What is wrong.
    pub kind: StorageErrorKind,
}

/// What is wrong, the same set in every world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// There is no such file.
    #[error("no such file or directory")]
    NotFound,
    /// The disk, or a quota, is full.
    #[error("disk full: free some space, the download goes on by itself")]
    Full,
    /// No permission.
    #[error("permission denied")]
    Denied,
    /// A read-only file system.
    #[error("read-only file system")]
    ReadOnly,
    /// Out of file descriptors.
    #[error("too many open files: allow more of them (`ulimit -n`), or run fewer torrents")]
    Exhausted,
    /// A directory, link or device where a file should be, or the other way round.
    #[error("exists, but is not a plain file (or not a directory): move it away")]
    WrongKind,
    /// Longer than the torrent says; nothing is cut by us.
    #[error("is longer than the torrent says: move it away, or choose another directory")]
    TooLong,
    /// Held by another process.
    #[error("in use by another process (pid {0}): stop it first")]
    Locked(u32),
    /// The file ended where data should be.
    #[error("ended early: it was changed by another program")]
    ShortRead,
    /// The hardware failed.
    #[error("input/output error")]
    Io,
    /// What was read is not what was written.
    #[error("gives back other data than was written: the disk, or the memory, may be failing")]
    Spoilt,
    /// Anything else, by the system's number.
    #[error("system error {0}")]
    Other(i32),
}
