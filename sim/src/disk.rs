//! One host's storage, as it really behaves: what a process wrote survives the process, what was not synced may not
//! survive the machine.
//!
//! Payload that is where it belongs is recognised and not stored; only other bytes are. Every file has what is on it
//! now and what would be there after a power cut, with the writes between them; names have the same. Nothing here
//! knows simulated waiting: it counts what was done, and a world books the time.

mod damage;
mod extents;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};

use taipei_engine::disk::{At, Stat, Storage, StorageError, StorageErrorKind};
use taipei_engine::metainfo::StoragePath;
use taipei_engine::rng::Rng;

pub use self::damage::{Damage, Spoiled};
use self::extents::{Extents, Source};
use self::trouble::Troubles;
pub use self::trouble::{Span, Trouble};
use crate::content::Content;

/// Where a payload file lies: its name and what should be in it.
#[derive(Clone, Debug)]
pub struct Home {
    /// Root and path, joined by `/`.
    pub name: String,
    /// Which content, by its place in the list given to the disk.
    pub content: u32,
    /// Of the file's first byte in the content.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// What was done, for the world to book time for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Calls in all.
    pub calls: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Times that something had to reach the medium.
    pub syncs: u64,
    /// Calls that failed on purpose.
    pub failed: u64,
}

/// A host's storage.
#[derive(Debug)]
pub struct SimDisk {
    contents: Vec<Content>,
    homes: BTreeMap<String, Home>,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    /// What names mean now.
    names: BTreeMap<String, u64>,
    /// What they would mean after a power cut, if nothing of `unsynced_names` had reached the medium.
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    directories: BTreeSet<String>,
    locks: BTreeMap<String, u32>,
    process: u32,
    /// Of the world, nanoseconds; and by its clock on the wall, since 1970.
    now: u64,
    now_ns: i64,
    capacity: Option<u64>,
    /// Writes that did not fit.
    refused: u64,
    /// Files of somebody else's, and what is in them.
    foreign: Vec<(String, &'static [u8])>,
    troubles: Troubles,
    /// What this process left each file at when it wrote to it: which inode, how long.
    left: BTreeMap<String, (u64, u64)>,
    sync_lies: bool,
    renames_last: bool,
    /// Syncs, of files and of directories, that did not do what they said.
    broken_promises: u64,
    spoiled: Vec<Spoiled>,
    torn_bytes: u64,
    work: Work,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Version,
    durable: Version,
    unsynced: Vec<Change>,
    /// A sync said that it is safe, and it is not.
    promised: bool,
}

#[derive(Clone, Debug, Default)]
struct Version {
    extents: Extents,
    length: u64,
    modified_ns: i64,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, length: u64, source: Source, at_ns: i64 },
    SetLen { length: u64, at_ns: i64 },
}

#[derive(Clone, Debug)]
enum NameChange {
    Put { name: String, inode: u64 },
    Rename { from: String, to: String, inode: u64 },
    Remove { name: String, inode: u64 },
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Put { name, inode } => {
                names.insert(name, inode);
            }
            Self::Rename { from, to, inode } => {
                take_name(names, &from, inode);
                names.insert(to, inode);
            }
            Self::Remove { name, inode } => take_name(names, &name, inode),
        }
    }

    /// The name that it gives or takes.
    fn name(&self) -> &str {
        let (Self::Put { name, .. } | Self::Remove { name, .. } | Self::Rename { to: name, .. }) = self;
        name
    }

    /// Whether it changes what a name stands for.
    fn is_of(&self, name: &str) -> bool {
        self.name() == name || matches!(self, Self::Rename { from, .. } if from == name)
    }

    fn directory(&self) -> &str {
        directory_of(self.name())
    }
}

impl SimDisk {
    /// An empty disk that knows what payload should look like. `torn_bytes` is what a power cut tears writes into.
    pub fn new(contents: Vec<Content>, homes: Vec<Home>, torn_bytes: u64) -> Self {
        Self {
            contents,
            homes: homes.into_iter().map(|home| (home.name.clone(), home)).collect(),
            inodes: BTreeMap::new(),
            inode_next: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            directories: BTreeSet::new(),
            locks: BTreeMap::new(),
            process: 1,
            now: 0,
            now_ns: 0,
            capacity: None,
            refused: 0,
            foreign: Vec::new(),
            troubles: Troubles::default(),
            left: BTreeMap::new(),
            sync_lies: false,
            renames_last: true,
            broken_promises: 0,
            spoiled: Vec::new(),
            torn_bytes: torn_bytes.max(1),
            work: Work::default(),
        }
    }

    /// Puts every payload file there, whole and durable.
    pub fn fill(&mut self) {
        for home in self.homes.clone().into_values() {
            let mut version = Version { length: home.length, modified_ns: self.now_ns, ..Version::default() };
            version.extents.put(
                0,
                home.length,
                Source::Canonical { content: home.content, offset: home.offset },
            );
            let inode = self.inode_next;
            self.inode_next += 1;
            self.inodes.insert(inode, Inode { durable: version.clone(), now: version, ..Inode::default() });
            self.names.insert(home.name.clone(), inode);
            self.durable_names.insert(home.name, inode);
        }
    }

    /// Tells the time: the world's, and for modification times by the wall clock, nanoseconds since 1970.
    pub fn set_time(&mut self, now: u64, wall_ns: i64) {
        (self.now, self.now_ns) = (now, wall_ns);
    }

    /// From now on every sync returns at once and does nothing.
    pub fn lie_about_syncs(&mut self) {
        self.sync_lies = true;
    }

    /// From now on no sync makes a rename survive a power cut for certain.
    pub fn forget_renames(&mut self) {
        self.renames_last = false;
    }

    /// The most that fits; none for no limit.
    pub fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    /// From now on no more than this fits on top of what is there.
    pub fn fill_up(&mut self, space_bytes: u64) {
        self.refused = 0;
        self.capacity = Some(self.used_bytes() + space_bytes);
    }

    /// There is room again. Gives how many writes had not fitted.
    pub fn make_room(&mut self) -> u64 {
        self.capacity = None;
        self.refused
    }

    /// Something goes wrong from now on; `number` is for ending it.
    pub fn begin_trouble(&mut self, number: usize, trouble: Trouble) {
        self.troubles.begin(number, trouble);
    }

    /// It is over. Gives how often anybody met it.
    pub fn end_trouble(&mut self, number: usize) -> u64 {
        self.troubles.end(number)
    }

    /// Failing calls that began to fail since this was last asked, each with the time at which it is over.
    pub fn take_struck(&mut self) -> Vec<(usize, u64)> {
        self.troubles.take_struck()
    }

    /// How much longer a job takes than it should, nanoseconds.
    pub fn slowness(&mut self, rng: &mut Rng) -> u64 {
        self.troubles.on_job(rng)
    }

    /// How many syncs did not do what they said.
    pub fn broken_promises(&self) -> u64 {
        self.broken_promises
    }

    /// What was done since this was last asked, with `calls` counted from the beginning.
    pub fn take_work(&mut self) -> Work {
        let work = self.work;
        self.work = Work { calls: work.calls, ..Work::default() };
        work
    }

    /// The process ends and another may begin: what it wrote stays, its locks are free. Gives how many were.
    pub fn crash(&mut self) -> usize {
        self.process += 1;
        let freed = self.locks.len();
        self.locks.clear();
        self.left.clear();
        freed
    }

    /// The machine loses power: of what was not synced some is lost, some there, some torn, as `rng` decides. Gives
    /// how many changes were lost or torn.
    pub fn power_cut(&mut self, rng: &mut Rng) -> usize {
        self.crash();
        let mut lost = 0;
        let promised: Vec<Home> =
            self.homes.values().filter(|home| self.is_promised(home)).cloned().collect();
        // Of each directory names reach the medium in order: a beginning of them survives.
        let mut by_directory: BTreeMap<String, Vec<NameChange>> = BTreeMap::new();
        for change in std::mem::take(&mut self.unsynced_names) {
            by_directory.entry(change.directory().to_owned()).or_default().push(change);
        }
        for changes in by_directory.into_values() {
            let survive = rng.below(changes.len() as u64 + 1) as usize;
            lost += changes.len() - survive;
            for change in changes.into_iter().take(survive) {
                change.apply(&mut self.durable_names);
            }
        }
        for inode in self.inodes.values_mut() {
            for change in std::mem::take(&mut inode.unsynced) {
                lost += usize::from(!inode.durable.apply_torn(change, self.torn_bytes, rng));
            }
            inode.now = inode.durable.clone();
            inode.promised = false;
        }
        self.names = self.durable_names.clone();
        self.drop_unnamed();
        for home in promised {
            self.spoil(&home, 0, home.length, true);
        }
        lost
    }

    /// Whether something of a file was said to be safe, and is not.
    fn is_promised(&self, home: &Home) -> bool {
        self.names
            .get(&home.name)
            .and_then(|inode| self.inodes.get(inode))
            .is_some_and(|inode| inode.promised)
    }

    /// Bytes that are neither canonical nor absent, for budgets.
    pub fn own_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.now.extents.own_bytes()).sum()
    }

    /// Whether bytes `offset..offset + length` of a content are all on this disk, where they belong.
    pub fn holds(&self, content: u32, offset: u64, length: u64) -> bool {
        self.homes.values().filter(|home| home.content == content).all(|home| {
            let (from, to) = (offset.max(home.offset), (offset + length).min(home.offset + home.length));
            from >= to
                || self.names.get(&home.name).and_then(|inode| self.inodes.get(inode)).is_some_and(|inode| {
                    inode.now.holds(&self.contents, from - home.offset, to - from, home.content, from)
                })
        })
    }

    /// All of a payload file as it is now; none when it is missing.
    pub fn payload(&self, name: &str) -> Option<Payload> {
        let inode = self.names.get(name).and_then(|inode| self.inodes.get(inode))?;
        let home = self.homes.get(name)?;
        if inode.now.length == home.length
            && inode.now.holds(&self.contents, 0, home.length, home.content, home.offset)
        {
            return Some(Payload::Canonical);
        }
        let mut bytes = vec![0; inode.now.length as usize];
        inode.now.extents.read(0, &mut bytes, &self.contents);
        Some(Payload::Other(bytes))
    }

    /// Locks that are held.
    pub fn lock_count(&self) -> usize {
        self.locks.len()
    }

    /// Puts a file there that is somebody else's.
    pub fn put_foreign(&mut self, name: &str, bytes: &'static [u8]) {
        let mut version =
            Version { length: bytes.len() as u64, modified_ns: self.now_ns, ..Version::default() };
        version.extents.put(0, version.length, Source::Own(bytes.into()));
        let inode = self.inode_next;
        self.inode_next += 1;
        self.inodes.insert(inode, Inode { durable: version.clone(), now: version, ..Inode::default() });
        self.names.insert(name.to_owned(), inode);
        self.durable_names.insert(name.to_owned(), inode);
        self.foreign.push((name.to_owned(), bytes));
    }

    /// A file that is neither payload nor state of ours, or one of somebody else's that is not as it was.
    pub fn trespass(&self) -> Option<&str> {
        let is_foreign = |name: &str| self.foreign.iter().any(|(foreign, _)| foreign == name);
        let is_state = |name: &str| directory_of(name).ends_with("/.taipei");
        let stray = self
            .names
            .keys()
            .find(|name| !self.homes.contains_key(*name) && !is_state(name) && !is_foreign(name));
        let changed = self.foreign.iter().find(|(name, bytes)| {
            self.names.get(name).and_then(|inode| self.inodes.get(inode)).is_none_or(|inode| {
                let mut now = vec![0; bytes.len()];
                inode.now.extents.read(0, &mut now, &self.contents);
                inode.now.length != bytes.len() as u64 || now != *bytes
            })
        });
        stray.map(String::as_str).or(changed.map(|(name, _)| name.as_str()))
    }

    /// Names of all files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    fn call(&mut self, name: &str, writes: bool) -> Result<(), StorageError> {
        self.work.calls += 1;
        match self.troubles.on_call(self.now, writes) {
            Some(kind) => {
                self.work.failed += 1;
                Err(error(name, kind))
            }
            None => Ok(()),
        }
    }

    fn inode_or_new(&mut self, name: &str) -> Result<u64, StorageError> {
        if let Some(inode) = self.names.get(name) {
            return Ok(*inode);
        }
        if self.directories.contains(name) {
            return Err(error(name, StorageErrorKind::WrongKind));
        }
        let inode = self.inode_next;
        self.inode_next += 1;
        let version = Version { modified_ns: self.now_ns, ..Version::default() };
        self.inodes.insert(inode, Inode { now: version.clone(), durable: version, ..Inode::default() });
        self.names.insert(name.to_owned(), inode);
        self.unsynced_names.push(NameChange::Put { name: name.to_owned(), inode });
        self.note_directories(directory_of(name).to_owned());
        Ok(inode)
    }

    /// What this process left a file at, if it is the same file.
    fn left_length(&self, name: &str) -> Option<u64> {
        let (inode, left) = self.left.get(name)?;
        (self.names.get(name) == Some(inode)).then_some(*left)
    }

    fn note_directories(&mut self, mut directory: String) {
        while !directory.is_empty() && self.directories.insert(directory.clone()) {
            directory = directory_of(&directory).to_owned();
        }
    }

    fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.now.extents.bytes()).sum()
    }

    fn source_of(&self, name: &str, offset: u64, part: &[u8]) -> Source {
        let home = self.homes.get(name).filter(|home| offset + part.len() as u64 <= home.length);
        if let Some(home) = home
            && let Some(content) = self.contents.get(home.content as usize)
            && content.is_at(home.offset + offset, part)
        {
            return Source::Canonical { content: home.content, offset: home.offset + offset };
        }
        Source::Own(part.to_vec().into())
    }

    fn drop_unnamed(&mut self) {
        let named: BTreeSet<u64> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .copied()
            .chain(self.unsynced_names.iter().filter_map(|change| match change {
                NameChange::Put { inode, .. } | NameChange::Rename { inode, .. } => Some(*inode),
                NameChange::Remove { .. } => None,
            }))
            .collect();
        self.inodes.retain(|inode, _| named.contains(inode));
    }
}

/// What is in a payload file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// What should be.
    Canonical,
    /// Something else.
    Other(Vec<u8>),
}

impl Version {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, length, source, at_ns } => {
                self.extents.put(*offset, *length, source.clone());
                self.length = self.length.max(offset + length);
                self.modified_ns = *at_ns;
            }
            Change::SetLen { length, at_ns } => {
                self.extents.truncate(*length);
                self.length = *length;
                self.modified_ns = *at_ns;
            }
        }
    }

    /// Whether all of it survived.
    fn apply_torn(&mut self, change: Change, torn_bytes: u64, rng: &mut Rng) -> bool {
        let fate = rng.below(5);
        let Change::Write { offset, length, source, at_ns } = change else {
            // Lengths are metadata and do not tear.
            if fate != 0 {
                self.apply(&change);
            }
            return fate != 0;
        };
        let units = length.div_ceil(torn_bytes);
        // All, nothing, a beginning, any units by chance, or nothing but the length and the time.
        let cut = rng.below(units + 1);
        if fate == 4 {
            self.length = self.length.max(offset + length);
            self.modified_ns = at_ns;
        }
        let mut whole = true;
        for unit in 0..units {
            let keep = match fate {
                0 | 4 => false,
                1 => true,
                2 => unit < cut,
                _ => rng.below(2) == 0,
            };
            whole &= keep;
            if keep {
                let from = unit * torn_bytes;
                let bytes = torn_bytes.min(length - from);
                self.extents.put(offset + from, bytes, source.part(from, bytes));
                self.length = self.length.max(offset + from + bytes);
                self.modified_ns = at_ns;
            }
        }
        whole
    }

    fn holds(&self, contents: &[Content], at: u64, length: u64, content: u32, offset: u64) -> bool {
        at + length <= self.length && self.extents.equal(at, length, content, offset, contents)
    }
}

impl Storage for SimDisk {
    fn read_at(&mut self, at: At<'_>, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let name = name_of(at.root, at.path);
        self.call(&name, false)?;
        let inode = self.names.get(&name).ok_or_else(|| error(&name, StorageErrorKind::NotFound))?;
        let version = &self.inodes[inode].now;
        let there = version.length.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let there = self.troubles.on_read(there, self.work.calls);
        version.extents.read(offset, &mut buffer[..there], &self.contents);
        self.work.read_bytes += there as u64;
        Ok(there)
    }

    fn write_at(&mut self, at: At<'_>, offset: u64, parts: &[&[u8]]) -> Result<(), StorageError> {
        let name = name_of(at.root, at.path);
        self.call(&name, true)?;
        let length = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        if let Some(capacity) = self.capacity {
            let covered = self
                .names
                .get(&name)
                .map_or(0, |inode| self.inodes[inode].now.extents.bytes_within(offset, length));
            if self.used_bytes() + length - covered > capacity {
                self.refused += 1;
                return Err(error(&name, StorageErrorKind::Full));
            }
        }
        let inode = self.inode_or_new(&name)?;
        let left = self.left_length(&name).filter(|left| *left <= self.inodes[&inode].now.length);
        let mut at = offset;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let source = self.source_of(&name, at, part);
            let change = Change::Write { offset: at, length: part.len() as u64, source, at_ns: self.now_ns };
            self.inodes.get_mut(&inode).expect("a name has its inode").change(change);
            at += part.len() as u64;
        }
        self.work.written_bytes += length;
        self.left.insert(name, (inode, left.unwrap_or(0).max(offset + length)));
        Ok(())
    }

    fn reaches(&mut self, at: At<'_>, length: u64) -> Result<bool, StorageError> {
        let name = name_of(at.root, at.path);
        self.call(&name, false)?;
        let there = self.names.get(&name).map_or(0, |inode| self.inodes[inode].now.length);
        let is_other = self.left.get(&name).is_some_and(|(inode, _)| self.names.get(&name) != Some(inode));
        Ok(!is_other && there >= length.max(self.left_length(&name).unwrap_or(0)))
    }

    fn forget(&mut self, at: At<'_>) {
        self.left.remove(&name_of(at.root, at.path));
    }

    fn stat(&mut self, at: At<'_>) -> Result<Option<Stat>, StorageError> {
        let name = name_of(at.root, at.path);
        self.call(&name, false)?;
        if self.directories.contains(&name) {
            return Ok(Some(Stat {
                length: 0,
                modified_ns: self.now_ns,
                is_file: false,
                allocated_bytes: 0,
            }));
        }
        Ok(self.names.get(&name).map(|inode| {
            let version = &self.inodes[inode].now;
            Stat {
                length: version.length,
                modified_ns: version.modified_ns,
                is_file: true,
                allocated_bytes: version.extents.bytes(),
            }
        }))
    }

    fn set_len(&mut self, at: At<'_>, length: u64) -> Result<(), StorageError> {
        let name = name_of(at.root, at.path);
        self.call(&name, true)?;
        let (inode, at_ns) = (self.inode_or_new(&name)?, self.now_ns);
        self.left.insert(name, (inode, length));
        self.inodes.get_mut(&inode).expect("a name has its inode").change(Change::SetLen { length, at_ns });
        Ok(())
    }

    fn allocate(&mut self, at: At<'_>, _length: u64) -> Result<(), StorageError> {
        self.call(&name_of(at.root, at.path), true)
    }

    fn sync(&mut self, at: At<'_>) -> Result<(), StorageError> {
        let name = name_of(at.root, at.path);
        self.call(&name, false)?;
        let lies = self.troubles.on_sync() || self.sync_lies;
        let Some(inode) = self.names.get(&name).copied() else { return Ok(()) };
        let file = self.inodes.get_mut(&inode).expect("a name has its inode");
        file.promised = lies;
        if lies {
            self.broken_promises += 1;
            return Ok(());
        }
        self.work.syncs += 1;
        file.unsynced.clear();
        file.durable = file.now.clone();
        // The file systems that are in use make a new file's name durable with its first sync, and what became of that name
        // before; a rename they do not.
        let mut changes = std::mem::take(&mut self.unsynced_names);
        let made = changes.iter().position(|change| match change {
            NameChange::Put { inode: made, .. } => *made == inode,
            _ => false,
        });
        if let Some(made) = made {
            let later = changes.split_off(made + 1);
            let name = changes[made].name().to_owned();
            for change in changes.extract_if(.., |change| change.is_of(&name)) {
                change.apply(&mut self.durable_names);
            }
            changes.extend(later);
        }
        self.unsynced_names = changes;
        Ok(())
    }

    fn sync_dir(&mut self, at: At<'_>) -> Result<(), StorageError> {
        let name = name_of(at.root, at.path);
        self.call(&name, false)?;
        if self.troubles.on_sync() || self.sync_lies {
            self.broken_promises += 1;
            return Ok(());
        }
        self.work.syncs += 1;
        let mut later = Vec::new();
        for change in std::mem::take(&mut self.unsynced_names) {
            let is_forgotten = !self.renames_last && matches!(change, NameChange::Rename { .. });
            self.broken_promises += u64::from(is_forgotten);
            if change.directory() == directory_of(&name) && !is_forgotten {
                change.apply(&mut self.durable_names);
            } else {
                later.push(change);
            }
        }
        self.unsynced_names = later;
        self.drop_unnamed();
        Ok(())
    }

    fn create_dir(&mut self, at: At<'_>) -> Result<(), StorageError> {
        let name = name_of(at.root, at.path);
        self.call(&name, !self.directories.contains(&name))?;
        if self.names.contains_key(&name) {
            return Err(error(&name, StorageErrorKind::WrongKind));
        }
        self.note_directories(name);
        Ok(())
    }

    fn rename(&mut self, from: At<'_>, to: &StoragePath) -> Result<(), StorageError> {
        let (old, new) = (name_of(from.root, from.path), name_of(from.root, to));
        self.call(&old, true)?;
        let inode = self.names.remove(&old).ok_or_else(|| error(&old, StorageErrorKind::NotFound))?;
        self.left.remove(&old);
        self.left.remove(&new);
        self.names.insert(new.clone(), inode);
        self.unsynced_names.push(NameChange::Rename { from: old, to: new, inode });
        self.drop_unnamed();
        Ok(())
    }

    fn remove(&mut self, at: At<'_>) -> Result<(), StorageError> {
        let name = name_of(at.root, at.path);
        self.call(&name, self.names.contains_key(&name))?;
        self.left.remove(&name);
        if let Some(inode) = self.names.remove(&name) {
            self.unsynced_names.push(NameChange::Remove { name, inode });
            self.drop_unnamed();
        }
        Ok(())
    }

    fn free_bytes(&mut self, root: &str) -> Result<u64, StorageError> {
        self.call(root, false)?;
        Ok(self.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(self.used_bytes())))
    }

    fn lock(&mut self, at: At<'_>) -> Result<(), StorageError> {
        let name = name_of(at.root, at.path);
        self.call(&name, true)?;
        if let Some(holder) = self.locks.get(&name) {
            return Err(error(&name, StorageErrorKind::Locked(*holder)));
        }
        self.inode_or_new(&name)?;
        self.locks.insert(name, self.process);
        Ok(())
    }

    fn unlock(&mut self, at: At<'_>) {
        let name = name_of(at.root, at.path);
        if self.locks.remove(&name).is_some()
            && let Some(inode) = self.names.remove(&name)
        {
            self.unsynced_names.push(NameChange::Remove { name, inode });
            self.drop_unnamed();
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        self.now.apply(&change);
        self.unsynced.push(change);
    }
}

/// Takes a name from a file. A later one of the same name, made safe before this was, keeps it.
fn take_name(names: &mut BTreeMap<String, u64>, name: &str, inode: u64) {
    if names.get(name) == Some(&inode) {
        names.remove(name);
    }
}

fn name_of(root: &str, path: &StoragePath) -> String {
    format!("{root}/{path}")
}

fn directory_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn error(name: &str, kind: StorageErrorKind) -> StorageError {
    StorageError { path: name.to_owned(), kind }
}

#[cfg(test)]
mod tests;
