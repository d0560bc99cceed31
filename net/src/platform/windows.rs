//! Windows: plain `std`, with a look at each component for links before it is used.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Write as _};
use std::os::windows::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use taipei_engine::disk::{Stat, StorageErrorKind};
use taipei_engine::input::NetError;
use taipei_engine::metainfo::StoragePath;

use super::{Access, LockOutcome};

/// Here it would let two programs share a port.
pub(crate) const REUSE_ADDRESS: bool = false;

/// Whether names on disk follow the rules of Windows.
pub(crate) const WINDOWS_PATHS: bool = true;

/// Whether a socket can be bound to an interface by its name.
pub(crate) const BIND_BY_NAME: bool = false;

/// Not here.
pub(crate) fn bind_to_interface<S>(_socket: &S, _name: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Here a socket is bound to an address of the machine.
pub(crate) const BIND_TO_GROUP: bool = false;

/// Here no socket hears what it has not joined.
pub(crate) fn hear_joined_only(_: &socket2::Socket, _: bool) -> io::Result<()> {
    Ok(())
}

/// Opens a plain file below `root`; one that is to be written to is made when missing.
pub(crate) fn open(root: &str, path: &StoragePath, access: Access) -> io::Result<File> {
    let full = resolve(root, path)?;
    match access {
        Access::Read => File::open(full),
        Access::Write => {
            if let Some(parent) = full.parent() {
                std::fs::create_dir_all(parent)?;
            }
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(full)
        }
    }
}

/// Makes a file, or empties one that is there. Who reads it is for its directory to say.
///
/// # Errors
/// What the system said.
pub fn create_private(path: &Path) -> io::Result<File> {
    File::create(path)
}

/// Reads once.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(buffer, offset)
}

/// Is not to be had here.
pub(crate) fn read_at_once(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Writes once; maybe less than all.
pub(crate) fn write_vectored_at(file: &File, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    match parts.iter().find(|part| !part.is_empty()) {
        Some(part) => file.seek_write(part, offset),
        None => Ok(0),
    }
}

/// Does nothing: files are not sparse here unless asked for.
pub(crate) fn allocate(_file: &File, _length: u64) -> io::Result<()> {
    Ok(())
}

/// An open file keeps its name here.
pub(crate) fn is_unlinked(_file: &Metadata) -> bool {
    false
}

/// The figures of what is at a path, without following a link.
pub(crate) fn stat(root: &str, path: &StoragePath) -> io::Result<Stat> {
    let metadata = std::fs::symlink_metadata(resolve(root, path)?)?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Stat {
        length: metadata.len(),
        modified_ns: i64::try_from(modified.as_nanos()).unwrap_or(i64::MAX),
        is_file: metadata.is_file(),
        allocated_bytes: metadata.len(),
    })
}

/// Nothing does: false.
pub(crate) fn sync_together<'a>(
    _root: &str,
    _files: impl Iterator<Item = &'a StoragePath>,
) -> io::Result<bool> {
    Ok(false)
}

/// Names are durable without it.
pub(crate) fn sync_dir(_root: &str, _path: &StoragePath) -> io::Result<()> {
    Ok(())
}

/// Makes a directory and those above it.
pub(crate) fn create_dir(root: &str, path: &StoragePath) -> io::Result<()> {
    std::fs::create_dir_all(resolve(root, path)?)
}

/// Renames over what is there.
pub(crate) fn rename(root: &str, from: &StoragePath, to: &StoragePath) -> io::Result<()> {
    std::fs::rename(resolve(root, from)?, resolve(root, to)?)
}

/// Removes a file.
pub(crate) fn remove(root: &str, path: &StoragePath) -> io::Result<()> {
    std::fs::remove_file(resolve(root, path)?)
}

/// Not known without system calls of our own: as much as is asked for.
pub(crate) fn free_bytes(_root: &str) -> io::Result<u64> {
    Ok(u64::MAX)
}

/// Takes an exclusive lock on a file and writes our process number into it.
pub(crate) fn lock(root: &str, path: &StoragePath) -> io::Result<LockOutcome> {
    let mut file = open(root, path, Access::Write)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            write!(file, "{}", std::process::id())?;
            Ok(LockOutcome::Taken(file))
        }
        // A locked file cannot be read here.
        Err(TryLockError::WouldBlock) => Ok(LockOutcome::HeldBy(0)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Handles are bounded by memory.
pub(crate) fn open_files_max() -> u64 {
    u64::MAX
}

/// There is nothing to raise.
pub fn raise_open_files_max() {}

/// Nanoseconds of a clock that does not go back.
pub(crate) fn boot_clock_ns() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// There is none.
pub(crate) fn boot_id_text() -> Option<String> {
    None
}

/// There is none.
pub(crate) fn ipv4_routes() -> Option<String> {
    None
}

/// Whether the system ran out of handles or buffers.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(4 | 8 | 14 | 10024 | 10055))
}

/// Whether an address or its family is missing on this machine.
pub(crate) fn is_not_ours(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(10043 | 10047 | 10049))
}

/// What an error of a socket is called in the engine.
pub(crate) fn net_error(error: &io::Error) -> NetError {
    if is_exhausted(error) { NetError::Exhausted } else { taipei_engine::driver::net_error(error) }
}

/// What an error of a file is called in the engine.
pub(crate) fn storage_error(error: &io::Error) -> StorageErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => StorageErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageErrorKind::Full,
        io::ErrorKind::PermissionDenied => StorageErrorKind::Denied,
        io::ErrorKind::ReadOnlyFilesystem => StorageErrorKind::ReadOnly,
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists => {
            StorageErrorKind::WrongKind
        }
        _ if is_exhausted(error) => StorageErrorKind::Exhausted,
        _ => error.raw_os_error().map_or(StorageErrorKind::Io, StorageErrorKind::Other),
    }
}

/// The whole path, when no component below the root is a link.
fn resolve(root: &str, path: &StoragePath) -> io::Result<PathBuf> {
    let mut full = Path::new(root).to_path_buf();
    for name in path.components() {
        full.push(name);
        match std::fs::symlink_metadata(&full) {
            Ok(metadata) if metadata.is_symlink() => return Err(io::ErrorKind::NotADirectory.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(full)
}

/// Signals that ask a process to end: Ctrl-C. While this lives they do nothing else.
#[derive(Debug)]
pub struct EndSignals {
    interrupt: tokio::signal::windows::CtrlC,
}

impl EndSignals {
    /// Listens from now on. Needs a running tokio with I/O.
    ///
    /// # Errors
    /// What the system said.
    pub fn new() -> io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    /// Returns when one came. Cancel safe.
    pub async fn next(&mut self) {
        self.interrupt.recv().await;
    }
}
