//! Files below a download directory, through a shared pool of open handles.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use taipei_engine::disk::{At, Stat, Storage, StorageError, StorageErrorKind};
use tracing::debug;

use crate::buffers::Buffers;
use crate::platform::{self, Access, LockOutcome};

/// The real disk. Clones share one pool of open files and one set of locks, so each thread has its own clone.
///
/// Files are opened when first used, for reading only until something is written, and the one that was not used for the
/// longest time is closed when there are too many. Directories are walked by descriptor and no symbolic link below a
/// root is followed.
#[derive(Clone, Debug)]
pub struct FileStorage {
    shared: Arc<Shared>,
    /// False: reads of what is not in memory, or in a file that is not open, fail at once.
    may_wait: bool,
}

#[derive(Debug)]
struct Shared {
    pool: Mutex<Pool>,
    buffers: Buffers,
    /// By root and path. Closing the file lets the lock go.
    locks: Mutex<HashMap<(String, String), File>>,
}

impl Default for FileStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl FileStorage {
    /// Keeps 128 files open, or a quarter of what this process may, if that is less.
    pub fn new() -> Self {
        Self::with_open_files_max(pool_size(platform::open_files_max()))
    }

    /// Keeps this many files open, one at least.
    pub fn with_open_files_max(open_files_max: usize) -> Self {
        let pool = Pool { open_files_max: open_files_max.max(1), ..Pool::default() };
        Self {
            shared: Arc::new(Shared {
                pool: Mutex::new(pool),
                buffers: Buffers::default(),
                locks: Mutex::default(),
            }),
            may_wait: true,
        }
    }

    /// The same disk, for reads that must not wait for it: what the system does not hold in memory fails.
    pub(crate) fn without_waiting(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), may_wait: false }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.shared.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<(String, String), File>> {
        self.shared.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the pool, or opened.
    fn open(&self, at: At<'_>, access: Access) -> io::Result<Arc<File>> {
        if let Some(file) = self.pool().find(at, access) {
            return Ok(file);
        }
        let file = match platform::open(at.root, at.path, access) {
            Err(error) if platform::is_exhausted(&error) => {
                debug!("out of file descriptors: closing half of the pool");
                self.pool().halve();
                platform::open(at.root, at.path, access)?
            }
            outcome => outcome?,
        };
        let file = Arc::new(file);
        self.pool().keep(at, access, Arc::clone(&file));
        Ok(file)
    }

    /// Opened for writing, under its name even if somebody removed it, and whether somebody cut it since we wrote to it.
    fn open_to_write(&self, at: At<'_>) -> io::Result<(Arc<File>, bool)> {
        let file = self.open(at, Access::Write)?;
        let metadata = file.metadata()?;
        if platform::is_unlinked(&metadata) {
            self.pool().forget(at.root, at.path.as_str());
            return Ok((self.open(at, Access::Write)?, false));
        }
        let was_cut = self.pool().length_left(at).is_some_and(|left| metadata.len() < left);
        Ok((file, was_cut))
    }
}

impl Storage for FileStorage {
    fn lend(&mut self, length: usize) -> Vec<u8> {
        self.shared.buffers.lend(length)
    }

    fn share(&mut self, buffer: Vec<u8>) -> Bytes {
        self.shared.buffers.share(buffer)
    }

    fn read_at(&mut self, at: At<'_>, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        named(at, || {
            let file = if self.may_wait {
                self.open(at, Access::Read)?
            } else {
                self.pool().find(at, Access::Read).ok_or(io::ErrorKind::WouldBlock)?
            };
            let read = if self.may_wait { platform::read_at } else { platform::read_at_once };
            let mut done = 0;
            while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
                match read(&file, rest, offset.saturating_add(done as u64)) {
                    Ok(0) => break,
                    Ok(bytes) => done += bytes,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(done)
        })
    }

    fn write_at(&mut self, at: At<'_>, offset: u64, parts: &[&[u8]]) -> Result<(), StorageError> {
        named(at, || {
            let (file, was_cut) = self.open_to_write(at)?;
            let mut slices: Vec<IoSlice<'_>> =
                parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
            let mut slices = slices.as_mut_slice();
            let mut offset = offset;
            while !slices.is_empty() {
                match platform::write_vectored_at(&file, slices, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(bytes) => {
                        IoSlice::advance_slices(&mut slices, bytes);
                        offset = offset.saturating_add(bytes as u64);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.pool().leave_length(at, offset, was_cut);
            Ok(())
        })
    }

    fn reaches(&mut self, at: At<'_>, length: u64) -> Result<bool, StorageError> {
        named(at, || {
            let open = self.pool().find(at, Access::Read);
            if let Some(file) = open {
                let metadata = file.metadata()?;
                let left = self.pool().length_left(at).unwrap_or(0);
                return Ok(!platform::is_unlinked(&metadata) && metadata.len() >= length.max(left));
            }
            if length == 0 {
                return Ok(true);
            }
            match platform::stat(at.root, at.path) {
                Ok(stat) => Ok(stat.length >= length),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    fn forget(&mut self, at: At<'_>) {
        self.pool().forget(at.root, at.path.as_str());
    }

    fn stat(&mut self, at: At<'_>) -> Result<Option<Stat>, StorageError> {
        named(at, || match platform::stat(at.root, at.path) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn set_len(&mut self, at: At<'_>, length: u64) -> Result<(), StorageError> {
        named(at, || {
            self.open(at, Access::Write)?.set_len(length)?;
            self.pool().leave_length(at, length, true);
            Ok(())
        })
    }

    fn allocate(&mut self, at: At<'_>, length: u64) -> Result<(), StorageError> {
        named(at, || platform::allocate(&*self.open(at, Access::Write)?, length))
    }

    fn sync(&mut self, at: At<'_>) -> Result<(), StorageError> {
        named(at, || match self.open(at, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(file) => {
                if platform::is_unlinked(&file.metadata()?) {
                    self.pool().forget(at.root, at.path.as_str());
                }
                file.sync_all()
            }
        })
    }

    fn sync_together(&mut self, files: &[At<'_>]) -> Result<bool, StorageError> {
        let Some(first) = files.first().filter(|_| files.len() >= SYNC_TOGETHER_MIN) else {
            return Ok(false);
        };
        named(*first, || platform::sync_together(first.root, files.iter().map(|at| at.path)))
    }

    fn sync_dir(&mut self, at: At<'_>) -> Result<(), StorageError> {
        named(at, || match platform::sync_dir(at.root, at.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        })
    }

    fn create_dir(&mut self, at: At<'_>) -> Result<(), StorageError> {
        named(at, || platform::create_dir(at.root, at.path))
    }

    fn rename(
        &mut self,
        from: At<'_>,
        to: &taipei_engine::metainfo::StoragePath,
    ) -> Result<(), StorageError> {
        named(from, || {
            let mut pool = self.pool();
            pool.forget(from.root, from.path.as_str());
            pool.forget(from.root, to.as_str());
            // Under the lock of the pool, so that nobody opens the old name meanwhile.
            platform::rename(from.root, from.path, to)
        })
    }

    fn remove(&mut self, at: At<'_>) -> Result<(), StorageError> {
        named(at, || {
            let mut pool = self.pool();
            pool.forget(at.root, at.path.as_str());
            match platform::remove(at.root, at.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                outcome => outcome,
            }
        })
    }

    fn free_bytes(&mut self, root: &str) -> Result<u64, StorageError> {
        platform::free_bytes(root)
            .map_err(|error| StorageError { path: root.to_owned(), kind: platform::storage_error(&error) })
    }

    fn lock(&mut self, at: At<'_>) -> Result<(), StorageError> {
        let key = (at.root.to_owned(), at.path.as_str().to_owned());
        let mut locks = self.locks();
        let holder = match locks.entry(key) {
            Entry::Occupied(_) => std::process::id(),
            Entry::Vacant(free) => match named(at, || platform::lock(at.root, at.path))? {
                LockOutcome::Taken(file) => {
                    free.insert(file);
                    return Ok(());
                }
                LockOutcome::HeldBy(holder) => holder,
            },
        };
        Err(StorageError { path: full_path(at), kind: StorageErrorKind::Locked(holder) })
    }

    fn unlock(&mut self, at: At<'_>) {
        let file = self.locks().remove(&(at.root.to_owned(), at.path.as_str().to_owned()));
        // Not by closing it alone: a process that is just being started may have it open too.
        if let Some(Err(error)) = file.map(|file| file.unlock()) {
            debug!(%error, "cannot let a lock go");
        }
    }
}

/// Open files by root and path.
#[derive(Debug, Default)]
struct Pool {
    roots: HashMap<String, HashMap<String, Open>>,
    count: usize,
    open_files_max: usize,
    /// Counts uses.
    uses: u64,
}

#[derive(Debug)]
struct Open {
    file: Arc<File>,
    access: Access,
    last_use: u64,
    /// How long it was at least after our last write.
    length_left: u64,
}

impl Pool {
    /// The file, if it is open for this; one open for writing can be read as well.
    fn find(&mut self, at: At<'_>, access: Access) -> Option<Arc<File>> {
        let open = self.roots.get_mut(at.root)?.get_mut(at.path.as_str())?;
        if access == Access::Write && open.access == Access::Read {
            return None;
        }
        self.uses += 1;
        open.last_use = self.uses;
        Some(Arc::clone(&open.file))
    }

    fn keep(&mut self, at: At<'_>, access: Access, file: Arc<File>) {
        self.forget(at.root, at.path.as_str());
        while self.count >= self.open_files_max {
            self.close_oldest();
        }
        self.uses += 1;
        let open = Open { file, access, last_use: self.uses, length_left: 0 };
        self.roots.entry(at.root.to_owned()).or_default().insert(at.path.as_str().to_owned(), open);
        self.count += 1;
    }

    /// How long an open file was at least when we last wrote to it.
    fn length_left(&self, at: At<'_>) -> Option<u64> {
        Some(self.roots.get(at.root)?.get(at.path.as_str())?.length_left)
    }

    /// We wrote up to `end`; `was_cut`: what we knew before holds no longer.
    fn leave_length(&mut self, at: At<'_>, end: u64, was_cut: bool) {
        let open = self.roots.get_mut(at.root).and_then(|files| files.get_mut(at.path.as_str()));
        if let Some(open) = open {
            open.length_left = if was_cut { end } else { open.length_left.max(end) };
        }
    }

    fn forget(&mut self, root: &str, path: &str) {
        let Some(files) = self.roots.get_mut(root) else { return };
        if files.remove(path).is_some() {
            self.count -= 1;
        }
        if files.is_empty() {
            self.roots.remove(root);
        }
    }

    fn halve(&mut self) {
        for _ in 0..self.count.div_ceil(2) {
            self.close_oldest();
        }
    }

    fn close_oldest(&mut self) {
        let oldest = self
            .roots
            .iter()
            .flat_map(|(root, files)| files.iter().map(move |(path, open)| (open.last_use, root, path)))
            .min()
            .map(|(_, root, path)| (root.clone(), path.clone()));
        if let Some((root, path)) = oldest {
            self.forget(&root, &path);
        }
    }
}

/// Does it; an error gets the path.
fn named<T>(at: At<'_>, work: impl FnOnce() -> io::Result<T>) -> Result<T, StorageError> {
    work().map_err(|error| StorageError { path: full_path(at), kind: platform::storage_error(&error) })
}

fn full_path(at: At<'_>) -> String {
    format!("{}/{}", at.root.trim_end_matches('/'), at.path)
}

/// Files kept open where a process may have so many: sockets and state files need some as well.
fn pool_size(open_files_max: u64) -> usize {
    usize::try_from(open_files_max / 4).unwrap_or(usize::MAX).min(OPEN_FILES_MAX)
}

/// From so many files on all that a file system holds is synced at once: each file by itself waits for the disk.
const SYNC_TOGETHER_MIN: usize = 32;
/// Files kept open; enough for the pieces under way in most torrents, few beside the sockets.
const OPEN_FILES_MAX: usize = 128;

#[cfg(test)]
mod tests;
