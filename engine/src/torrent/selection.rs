//! Which pieces are wanted, and how much: what the user said of files, as pieces see it.
//!
//! A piece is as wanted as the most wanted file that has a byte in it, padding left aside. A piece of padding alone is
//! wanted when everything is. When nothing is wanted, everything wanted is there.

use super::Torrent;
use super::picker::Class;
use super::piece::State;
use super::swarm::extensions;
use crate::alert::TorrentState;
use crate::bitfield::Bitfield;
use crate::command::Priority;
use crate::context::Context;
use crate::ids::{ConnectionId, FileIndex, PieceIndex};
use crate::metainfo::Layout;
use crate::wire::{ExtendedHandshake, Message};

/// How much each piece is wanted, and what is missing of what is.
#[derive(Debug)]
pub(crate) struct Selection {
    of_piece: Vec<Priority>,
    wanted_bytes: u64,
    left_count: u32,
    left_bytes: u64,
}

impl Selection {
    /// Of each file in order its priority; files beyond the end are [`Priority::Normal`].
    pub(crate) fn new(layout: &Layout, of_file: &[Priority], have: &Bitfield) -> Self {
        let of_file = of_file.iter().copied().chain(std::iter::repeat(Priority::Normal));
        let mut of_piece = vec![None; layout.piece_count() as usize];
        let mut all = true;
        for ((file, entry), priority) in (0..).zip(layout.files()).zip(of_file) {
            if !entry.is_stored() || entry.length == 0 {
                continue;
            }
            all &= priority != Priority::Skip;
            let pieces = layout.pieces_of(FileIndex(file));
            for piece in &mut of_piece[pieces.start as usize..pieces.end as usize] {
                *piece = (*piece).max(Some(priority));
            }
        }
        let padding = if all { Priority::Normal } else { Priority::Skip };
        let of_piece = of_piece.into_iter().map(|priority| priority.unwrap_or(padding)).collect();
        let mut selection = Self { of_piece, wanted_bytes: 0, left_count: 0, left_bytes: 0 };
        for piece in layout.pieces().filter(|piece| selection.of_piece[piece.at()] != Priority::Skip) {
            let bytes = u64::from(layout.piece_bytes(piece));
            selection.wanted_bytes += bytes;
            if !have.has(piece) {
                selection.left_bytes += bytes;
                selection.left_count += 1;
            }
        }
        selection
    }

    /// Whether a piece is wanted, here or not.
    pub(crate) fn wants(&self, piece: PieceIndex) -> bool {
        self.of_piece[piece.at()] != Priority::Skip
    }

    /// Whether all that is wanted is here.
    pub(crate) fn is_complete(&self) -> bool {
        self.left_count == 0
    }

    /// Bytes of the pieces that are wanted.
    pub(crate) fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes
    }

    /// Bytes of wanted pieces that are missing.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.left_bytes
    }

    /// Wanted pieces that are missing.
    pub(crate) fn left_count(&self) -> u32 {
        self.left_count
    }

    /// A piece that was missing is here.
    pub(crate) fn on_have(&mut self, layout: &Layout, piece: PieceIndex) {
        if self.wants(piece) {
            self.left_count -= 1;
            self.left_bytes -= u64::from(layout.piece_bytes(piece));
        }
    }

    /// A piece that was here is missing.
    pub(crate) fn on_lost(&mut self, layout: &Layout, piece: PieceIndex) {
        if self.wants(piece) {
            self.left_count += 1;
            self.left_bytes += u64::from(layout.piece_bytes(piece));
        }
    }

    fn class(&self, piece: PieceIndex) -> Option<Class> {
        match self.of_piece[piece.at()] {
            Priority::Skip => None,
            Priority::Low => Some(Class::Low),
            Priority::Normal => Some(Class::Normal),
            Priority::High => Some(Class::High),
        }
    }
}

impl Torrent {
    /// The user says anew which files are wanted.
    pub(crate) fn set_priorities(&mut self, context: &mut Context<'_>, priorities: &[Priority]) {
        if self.choose_of_magnet(context, priorities) {
            return;
        }
        self.selection = Selection::new(&self.place.layout, priorities, &self.have);
        if !self.begun || self.state == TorrentState::Stopping {
            return;
        }
        let mut taken_back = Vec::new();
        for piece in self.place.layout.pieces() {
            match (self.pieces.state(piece), self.selection.wants(piece)) {
                (State::Missing, _) => {
                    self.picker.remove(piece);
                    self.offer(piece);
                }
                (State::Skipped, true) => {
                    self.pieces.want(&self.place.layout, piece);
                    self.offer(piece);
                }
                (State::Partial, false) => {
                    let asked = self.pieces.reset(&self.place.layout, piece);
                    taken_back.extend(asked.into_iter().map(|(block, other)| (other, piece, block)));
                    self.offer(piece);
                }
                (State::Skipped | State::Partial | State::Verifying | State::Have, _) => {}
            }
        }
        self.recount_interest();
        for (other, piece, block) in taken_back {
            self.take_back(context, other, piece, block);
        }
        if !self.selection.is_complete() {
            self.on_incomplete(context);
        } else if !self.told_complete {
            self.on_complete(context);
        }
        self.freed = true;
        self.settle(context);
    }

    /// A missing piece may be begun, or is not wanted.
    pub(super) fn offer(&mut self, piece: PieceIndex) {
        match self.selection.class(piece) {
            Some(_) if self.verify.is_suspect(piece) => self.picker.insert(piece, Class::Suspect),
            Some(class) => self.picker.insert(piece, class),
            None => self.pieces.skip(&self.place.layout, piece),
        }
    }

    /// How many pieces of a peer we want and lack.
    pub(super) fn lacked_count(&self, connection: ConnectionId) -> u32 {
        let Some(peer) = self.peers.get(&connection) else { return 0 };
        if peer.has.is_full() {
            return self.selection.left_count();
        }
        let lacked = |piece: &PieceIndex| self.selection.wants(*piece) && !self.have.has(*piece);
        peer.has.iter().filter(lacked).count() as u32
    }

    /// Something that is wanted is missing, again.
    pub(super) fn on_incomplete(&mut self, context: &mut Context<'_>) {
        let was_complete = std::mem::take(&mut self.told_complete) || self.state == TorrentState::Seeding;
        self.disk.look_again();
        if !was_complete || self.state == TorrentState::Stopping {
            return;
        }
        if self.announcer.is_stopped() {
            self.trackers_told = false;
            self.announcer.start_again(context.now);
        }
        // One whose disk fails, or that is checked, fetches when that is over.
        if matches!(self.state, TorrentState::Seeding | TorrentState::Finished) {
            self.enter(context, TorrentState::Downloading);
        }
        self.tell_upload_only(false);
        self.candidates.revive(context.now);
        self.announcer.need_peers(context.now);
    }

    /// Says that we fetch nothing more, or do again, to those who cannot know from what we have (BEP 21).
    pub(super) fn tell_upload_only(&mut self, upload_only: bool) {
        for (connection, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.is_up()) {
            let said =
                ExtendedHandshake { upload_only: Some(upload_only), ..extensions(&self.info, &self.pex) };
            if peer.reserved.extended() && peer.send(Message::ExtendedHandshake(Box::new(said))) {
                self.unsent.push(*connection);
            }
        }
    }

    fn recount_interest(&mut self) {
        let connections: Vec<_> = self.peers.keys().copied().collect();
        for connection in connections {
            let count = self.lacked_count(connection);
            let Some(peer) = self.peers.get_mut(&connection) else { continue };
            peer.wanted_count = count;
            if peer.show_interest() {
                self.unsent.push(connection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::StoragePath;
    use crate::metainfo::layout::ListedFile;

    /// Files as (letter of priority, bytes), `p` for padding; pieces of four bytes: the letter of each piece, capital
    /// if it is here.
    fn check(files: &[(char, u64)], have: &[u32], want: &str, left_bytes: u64) {
        let listed = files.iter().enumerate().map(|(n, (letter, length))| ListedFile {
            pad: *letter == 'p',
            ..ListedFile::plain(StoragePath::from_names([n.to_string().as_str()]), *length)
        });
        let layout = Layout::new(4, listed.collect()).unwrap();
        let of_file: Vec<_> = files
            .iter()
            .map(|(letter, _)| match letter {
                's' => Priority::Skip,
                'l' => Priority::Low,
                'h' => Priority::High,
                _ => Priority::Normal,
            })
            .collect();
        let mut here = Bitfield::new(layout.piece_count());
        have.iter().for_each(|piece| assert!(here.set(PieceIndex::new(*piece))));
        let mut selection = Selection::new(&layout, &of_file, &here);
        let letter = |piece| match selection.class(piece) {
            None => 's',
            Some(Class::Low) => 'l',
            Some(Class::Normal) => 'n',
            Some(_) => 'h',
        };
        let got: String = layout.pieces().map(letter).collect();
        assert_eq!((got.as_str(), selection.left_bytes()), (want, left_bytes), "{files:?}");
        for piece in layout.pieces().filter(|piece| !here.has(*piece)) {
            selection.on_have(&layout, piece);
        }
        assert!(selection.is_complete() && selection.left_bytes() == 0);
    }

    #[test]
    fn a_piece_is_as_wanted_as_the_most_wanted_of_its_files() {
        check(&[('s', 5), ('n', 5), ('s', 6)], &[], "snns", 8);
        check(&[('l', 4), ('h', 1), ('s', 7), ('n', 2)], &[1], "lhsn", 6);
        check(&[('s', 3), ('s', 0), ('s', 9)], &[], "sss", 0);
        check(&[('s', 8), ('n', 0)], &[], "ss", 0);
    }

    #[test]
    fn padding_is_wanted_with_everything_or_not_at_all() {
        check(&[('n', 3), ('p', 5), ('n', 4)], &[], "nnn", 12);
        check(&[('n', 3), ('p', 5), ('s', 4)], &[], "nss", 4);
        check(&[('s', 3), ('p', 1), ('h', 4)], &[], "sh", 4);
    }

    #[test]
    fn files_that_nothing_is_said_of_are_normal() {
        let files = ["a", "b"].map(|name| ListedFile::plain(StoragePath::from_names([name]), 4));
        let layout = Layout::new(4, files.into()).unwrap();
        let selection = Selection::new(&layout, &[Priority::Skip], &Bitfield::new(2));
        assert_eq!(layout.pieces().map(|piece| selection.wants(piece)).collect::<Vec<_>>(), [false, true]);
        let selection = Selection::new(&layout, &[Priority::Low; 9], &Bitfield::new(2));
        assert_eq!(selection.wanted_bytes(), 8);
    }
}
