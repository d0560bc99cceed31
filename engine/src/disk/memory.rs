//! Files in memory, for tests: with a clock, power cuts, errors at a chosen call, directories nobody may write in.

use std::collections::{BTreeMap, BTreeSet};

use super::{At, Stat, Storage, StorageError, StorageErrorKind};
use crate::metainfo::StoragePath;

#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryStorage {
    /// By root and path.
    pub(crate) files: BTreeMap<String, File>,
    /// As they would be after a power cut.
    pub(crate) durable: BTreeMap<String, File>,
    pub(crate) directories: BTreeSet<String>,
    /// Roots that cannot be written below, and what is said then.
    pub(crate) read_only: BTreeMap<String, StorageErrorKind>,
    /// Locks by path, and who holds them.
    pub(crate) locks: BTreeMap<String, u32>,
    pub(crate) now_ns: i64,
    pub(crate) calls: u64,
    /// The call that fails, and how.
    pub(crate) fail_at: Option<(u64, StorageErrorKind)>,
    /// All calls from this one on fail.
    pub(crate) fail_from: Option<(u64, StorageErrorKind)>,
    /// What still fits; none for no limit. Only told, not kept.
    pub(crate) free_bytes: Option<u64>,
    /// How many reads, from now on, end halfway.
    pub(crate) short_reads: u32,
    /// Whether one call syncs many files.
    pub(crate) syncs_together: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) modified_ns: i64,
}

impl MemoryStorage {
    /// What another program does.
    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) {
        let file = File { bytes: bytes.to_vec(), modified_ns: self.now_ns };
        self.files.insert(name.to_owned(), file);
    }

    /// Nothing of ours runs any longer; all that was written is there.
    pub(crate) fn kill(&mut self) {
        self.locks.clear();
    }

    /// What was not synced is gone.
    pub(crate) fn cut_power(&mut self) {
        self.kill();
        self.files = self.durable.clone();
    }

    pub(crate) fn sync_all(&mut self) {
        self.durable = self.files.clone();
    }

    fn call(&mut self, at: At<'_>, writes: bool) -> Result<String, StorageError> {
        let name = format!("{}/{}", at.root, at.path);
        self.calls += 1;
        self.now_ns += 1000;
        let one = self.fail_at.filter(|(call, _)| *call == self.calls);
        let failed = one.or(self.fail_from.filter(|(call, _)| *call <= self.calls)).map(|(_, kind)| kind);
        let refused = self.read_only.get(at.root).copied().filter(|_| writes);
        match failed.or(refused) {
            Some(kind) => Err(StorageError { path: name, kind }),
            None => Ok(name),
        }
    }

    fn file(&mut self, name: String) -> &mut File {
        let now_ns = self.now_ns;
        let file = self.files.entry(name).or_default();
        file.modified_ns = now_ns;
        file
    }
}

impl Storage for MemoryStorage {
    fn read_at(&mut self, at: At<'_>, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let name = self.call(at, false)?;
        let missing = StorageError { path: name.clone(), kind: StorageErrorKind::NotFound };
        let bytes = &self.files.get(&name).ok_or(missing)?.bytes;
        let there = bytes.get(offset as usize..).unwrap_or(&[]);
        let mut count = there.len().min(buffer.len());
        if self.short_reads > 0 {
            self.short_reads -= 1;
            count /= 2;
        }
        buffer[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn write_at(&mut self, at: At<'_>, offset: u64, parts: &[&[u8]]) -> Result<(), StorageError> {
        let name = self.call(at, true)?;
        let file = self.file(name);
        let (offset, bytes) = (offset as usize, parts.concat());
        if !bytes.is_empty() {
            file.bytes.resize(file.bytes.len().max(offset + bytes.len()), 0);
            file.bytes[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn stat(&mut self, at: At<'_>) -> Result<Option<Stat>, StorageError> {
        let name = self.call(at, false)?;
        if self.directories.contains(&name) {
            return Ok(Some(Stat { length: 0, modified_ns: 0, is_file: false, allocated_bytes: 0 }));
        }
        let stat = |file: &File| Stat {
            length: file.bytes.len() as u64,
            modified_ns: file.modified_ns,
            is_file: true,
            allocated_bytes: file.bytes.len() as u64,
        };
        Ok(self.files.get(&name).map(stat))
    }

    fn set_len(&mut self, at: At<'_>, length: u64) -> Result<(), StorageError> {
        let name = self.call(at, true)?;
        self.file(name).bytes.resize(length as usize, 0);
        Ok(())
    }

    fn allocate(&mut self, at: At<'_>, _length: u64) -> Result<(), StorageError> {
        let name = self.call(at, true)?;
        self.file(name);
        Ok(())
    }

    fn sync(&mut self, at: At<'_>) -> Result<(), StorageError> {
        let name = self.call(at, false)?;
        if let Some(file) = self.files.get(&name) {
            self.durable.insert(name, file.clone());
        }
        Ok(())
    }

    fn sync_together(&mut self, files: &[At<'_>]) -> Result<bool, StorageError> {
        let Some(first) = files.first().filter(|_| self.syncs_together) else { return Ok(false) };
        self.call(*first, false)?;
        for at in files {
            let name = format!("{}/{}", at.root, at.path);
            if let Some(file) = self.files.get(&name) {
                self.durable.insert(name, file.clone());
            }
        }
        Ok(true)
    }

    /// Makes the names of a directory durable: of a renamed file, what was synced under its old name.
    fn sync_dir(&mut self, at: At<'_>) -> Result<(), StorageError> {
        let name = self.call(at, false)?;
        let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned() + "/";
        let synced: Vec<File> = self.durable.values().cloned().collect();
        self.durable.retain(|name, _| !name.starts_with(&directory) || self.files.contains_key(name));
        for (name, file) in self.files.iter().filter(|(name, _)| name.starts_with(&directory)) {
            if synced.contains(file) {
                self.durable.insert(name.clone(), file.clone());
            }
        }
        Ok(())
    }

    fn create_dir(&mut self, at: At<'_>) -> Result<(), StorageError> {
        let name = format!("{}/{}", at.root, at.path);
        let present = self.directories.contains(&name);
        self.call(at, !present)?;
        self.directories.insert(name);
        Ok(())
    }

    fn rename(&mut self, from: At<'_>, to: &StoragePath) -> Result<(), StorageError> {
        let name = self.call(from, true)?;
        let missing = StorageError { path: name.clone(), kind: StorageErrorKind::NotFound };
        let file = self.files.remove(&name).ok_or(missing)?;
        self.files.insert(format!("{}/{to}", from.root), file);
        Ok(())
    }

    fn remove(&mut self, at: At<'_>) -> Result<(), StorageError> {
        let name = format!("{}/{}", at.root, at.path);
        let present = self.files.contains_key(&name);
        self.call(at, present)?;
        self.files.remove(&name);
        Ok(())
    }

    fn free_bytes(&mut self, _root: &str) -> Result<u64, StorageError> {
        Ok(self.free_bytes.unwrap_or(u64::MAX))
    }

    fn lock(&mut self, at: At<'_>) -> Result<(), StorageError> {
        let name = self.call(at, true)?;
        if let Some(holder) = self.locks.get(&name) {
            return Err(StorageError { kind: StorageErrorKind::Locked(*holder), path: name });
        }
        self.locks.insert(name, OURS);
        Ok(())
    }

    fn unlock(&mut self, at: At<'_>) {
        self.locks.remove(&format!("{}/{}", at.root, at.path));
    }
}

/// Our own process number.
pub(crate) const OURS: u32 = 1;
