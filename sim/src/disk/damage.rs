//! What is done to files behind the engine's back: bytes that rot, files cut, removed, replaced.
//!
//! The disk keeps a list of what was spoiled, so that the oracles know what an engine cannot.

use taipei_engine::rng::Rng;

use super::extents::Source;
use super::{Change, Home, Inode, NameChange, SimDisk, Version};

/// What is done to a disk. A file is named below the download directory; none: one that is there is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One byte of each of so many pieces turns around. File times do not tell.
    Rot {
        /// How many; of those that are right.
        pieces: u32,
    },
    /// A file is cut.
    Truncated {
        /// Which.
        file: Option<String>,
        /// What is left of it, bytes; drawn when none.
        to: Option<u64>,
    },
    /// A file is removed.
    Removed {
        /// Which.
        file: Option<String>,
    },
    /// Another file takes its place, as long as it and full of zeros.
    Replaced {
        /// Which.
        file: Option<String>,
    },
}

/// Payload that is not what it was, through no fault of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoiled {
    /// Of which content.
    pub content: u32,
    /// The first byte.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// Whether it reads without an error.
    pub silent: bool,
}

impl SimDisk {
    /// Does it; `piece_bytes` are those of each content's pieces. Gives how much that was: pieces, or one for a file.
    pub fn damage(&mut self, damage: &Damage, piece_bytes: &[u64], rng: &mut Rng) -> u64 {
        match damage {
            Damage::Rot { pieces } => self.rot_pieces(*pieces, piece_bytes, rng),
            Damage::Truncated { file, to } => self.truncate(file.as_deref(), *to, rng),
            Damage::Removed { file } => self.remove_file(file.as_deref(), rng),
            Damage::Replaced { file } => self.replace_file(file.as_deref(), rng),
        }
    }

    /// What was spoiled since this was last asked.
    pub fn take_spoiled(&mut self) -> Vec<Spoiled> {
        std::mem::take(&mut self.spoiled)
    }

    /// Overwrites a byte of payload behind the engine's back, as bit rot would. False when it was not there.
    pub fn rot(&mut self, content: u32, offset: u64) -> bool {
        let Some(home) = self.homes.values().find(|home| {
            home.content == content && (home.offset..home.offset + home.length).contains(&offset)
        }) else {
            return false;
        };
        let at = offset - home.offset;
        let Some(inode) = self.names.get(&home.name).and_then(|inode| self.inodes.get_mut(inode)) else {
            return false;
        };
        if at >= inode.now.length {
            return false;
        }
        let mut byte = [0];
        inode.now.extents.read(at, &mut byte, &self.contents);
        for version in [&mut inode.now, &mut inode.durable] {
            version.extents.put(at, 1, Source::Own(vec![byte[0] ^ 0x80].into()));
        }
        true
    }

    fn rot_pieces(&mut self, count: u32, piece_bytes: &[u64], rng: &mut Rng) -> u64 {
        let mut right = Vec::new();
        for ((content, all), bytes) in (0u32..).zip(&self.contents).zip(piece_bytes) {
            for from in (0..all.len()).step_by((*bytes).max(1) as usize) {
                let to = (from + bytes).min(all.len());
                if self.holds(content, from, to - from) {
                    right.push(Spoiled { content, from, to, silent: true });
                }
            }
        }
        let mut rotten = 0;
        for _ in 0..count.min(right.len() as u32) {
            let piece = right.swap_remove(rng.below(right.len() as u64) as usize);
            if self.rot(piece.content, piece.from + rng.below(piece.to - piece.from)) {
                self.spoiled.push(piece);
                rotten += 1;
            }
        }
        rotten
    }

    fn truncate(&mut self, file: Option<&str>, to: Option<u64>, rng: &mut Rng) -> u64 {
        let Some((home, number)) = self.victim(file, rng) else { return 0 };
        let at_ns = self.now_ns;
        let Some(inode) = self.inodes.get_mut(&number) else { return 0 };
        let was = inode.now.length;
        let length = to.unwrap_or_else(|| rng.below(was));
        if length >= was {
            return 0;
        }
        inode.change(Change::SetLen { length, at_ns });
        self.spoil(&home, length, was, false);
        1
    }

    fn remove_file(&mut self, file: Option<&str>, rng: &mut Rng) -> u64 {
        let Some((home, inode)) = self.victim(file, rng) else { return 0 };
        self.names.remove(&home.name);
        self.unsynced_names.push(NameChange::Remove { name: home.name.clone(), inode });
        self.drop_unnamed();
        self.spoil(&home, 0, home.length, false);
        1
    }

    fn replace_file(&mut self, file: Option<&str>, rng: &mut Rng) -> u64 {
        let Some((home, number)) = self.victim(file, rng) else { return 0 };
        let length = self.inodes.get(&number).map_or(0, |inode| inode.now.length);
        let version = Version { length, modified_ns: self.now_ns, ..Version::default() };
        let inode = self.inode_next;
        self.inode_next += 1;
        self.inodes.insert(inode, Inode { durable: version.clone(), now: version, ..Inode::default() });
        self.names.insert(home.name.clone(), inode);
        self.unsynced_names.push(NameChange::Put { name: home.name.clone(), inode });
        self.drop_unnamed();
        self.spoil(&home, 0, home.length, true);
        1
    }

    /// The file that is meant, if it is there and has a byte, and its inode.
    fn victim(&self, file: Option<&str>, rng: &mut Rng) -> Option<(Home, u64)> {
        let there: Vec<(&Home, u64)> = self
            .homes
            .values()
            .filter(|home| file.is_none_or(|file| home.name.ends_with(&format!("/{file}"))))
            .filter_map(|home| Some((home, *self.names.get(&home.name)?)))
            .filter(|(_, inode)| self.inodes.get(inode).is_some_and(|inode| inode.now.length > 0))
            .collect();
        let at = rng.below(there.len().max(1) as u64) as usize;
        there.get(at).map(|(home, inode)| ((*home).clone(), *inode))
    }

    /// Bytes `from..to` of a file are not what they were.
    pub(super) fn spoil(&mut self, home: &Home, from: u64, to: u64, silent: bool) {
        let Home { content, offset, .. } = *home;
        self.spoiled.push(Spoiled { content, from: offset + from, to: offset + to, silent });
    }
}
