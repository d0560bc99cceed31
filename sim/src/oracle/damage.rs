//! What the world itself spoiled on a host's disk, and whether its engine can know: what S1, S2, S3, S12, S19 and S20 demand
//! when the disk was made to lie.
//!
//! - A piece that was spoiled may be claimed (S1, S2, S12) until the engine was *told*: a check that was asked for after
//!   it, or an opening that does not claim it. From then on it is like any other piece: missing until fetched again.
//! - What is served is looked at byte by byte. Of a piece whose file was cut or removed nothing wrong may ever be sent,
//!   told or not, for reading it fails. Of one that rotted, was replaced, or was lost by a sync that lied, wrong bytes may
//!   be sent that were read before the engine was told: one block of a piece has no hash of its own. Whoever gets it must
//!   find it wrong (S1 there), and may ban its sender.
//! - A disk whose syncs lied, or made no rename last, owes nothing of what it said to have saved (S12): that a piece is gone
//!   may be lost with it, and then nobody was told.
//! - No torrent is complete (S1) with a file that was missing or short when its files were looked at last: to see that needs
//!   no hash.
//! - A block that was read in time may be sent afterwards (S2): its bytes decide.
//! - What was lost is fetched again, so there may be more left than before, and a seed may complete (S9).
//! - Nothing that was spoiled counts as lost (S12).
//! - A piece that was spoiled and fails blames nobody (S20): a lie in it may have been spoiled with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::disk::Spoiled;
use crate::plan::Material;

/// Of one host.
#[derive(Debug, Default)]
pub(super) struct DamageWatch {
    /// By torrent and piece: what the engine was not told of.
    untold: BTreeMap<(usize, u32), Spoil>,
    /// All that ever was spoiled.
    ever: BTreeSet<(usize, u32)>,
    /// Of that, what read wrong without an error.
    silent: BTreeSet<(usize, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Spoil {
    silent: bool,
    step: u64,
}

impl DamageWatch {
    /// Something was spoiled at this step. Gives the pieces.
    pub(super) fn on_spoiled(
        &mut self,
        spoiled: &Spoiled,
        torrent: &Material,
        step: u64,
    ) -> Vec<(usize, u32)> {
        let number = spoiled.content as usize;
        let first = (spoiled.from / torrent.piece_bytes) as u32;
        let pieces: Vec<_> = (first..torrent.piece_count())
            .take_while(|piece| torrent.piece(*piece).0 < spoiled.to)
            .map(|piece| (number, piece))
            .collect();
        for piece in &pieces {
            let silent = spoiled.silent || self.untold.get(piece).is_some_and(|spoil| spoil.silent);
            self.untold.insert(*piece, Spoil { silent, step });
            self.ever.insert(*piece);
            if spoiled.silent {
                self.silent.insert(*piece);
            }
        }
        pieces
    }

    /// The engine knows how it is with a piece. Whether that was news of something spoiled.
    pub(super) fn on_told(&mut self, torrent: usize, piece: u32) -> bool {
        self.untold.remove(&(torrent, piece)).is_some()
    }

    /// A run begins by what was saved before the engine was told of a piece, if it ever was spoiled.
    pub(super) fn on_forgotten(&mut self, torrent: usize, piece: u32, step: u64) {
        if self.is_spoiled(torrent, piece) {
            self.untold.insert((torrent, piece), Spoil { silent: true, step });
            self.silent.insert((torrent, piece));
        }
    }

    /// Whether a piece may be claimed that is not right on disk.
    pub(super) fn may_claim(&self, torrent: usize, piece: u32) -> bool {
        self.untold.contains_key(&(torrent, piece))
    }

    /// The same of a run that begins, and of the last look before a torrent is complete: what fails to read is seen.
    pub(super) fn may_believe(&self, torrent: usize, piece: u32) -> bool {
        self.untold.get(&(torrent, piece)).is_some_and(|spoil| spoil.silent)
    }

    /// Whether a block of a piece may be served that is wrong, or may have been.
    pub(super) fn may_serve(&self, torrent: usize, piece: u32) -> bool {
        self.silent.contains(&(torrent, piece))
    }

    /// Whether a piece ever was spoiled: a block of it that was read before may go out when it is known to be gone.
    pub(super) fn is_spoiled(&self, torrent: usize, piece: u32) -> bool {
        self.ever.contains(&(torrent, piece))
    }

    /// Whether anything of a torrent ever was.
    pub(super) fn has_spoiled(&self, torrent: usize) -> bool {
        self.ever.range((torrent, 0)..(torrent + 1, 0)).next().is_some()
    }

    /// Whether anything here ever read wrong.
    pub(super) fn is_rotten(&self) -> bool {
        !self.silent.is_empty()
    }

    /// Whether a piece was spoiled after a job of that step was asked for: it may have seen it before or after.
    pub(super) fn is_younger(&self, torrent: usize, piece: u32, step: u64) -> bool {
        self.untold.get(&(torrent, piece)).is_some_and(|spoil| spoil.step >= step)
    }

    /// The pieces of a torrent that the engine was not told of.
    pub(super) fn untold(&self, torrent: usize) -> Vec<u32> {
        self.untold.range((torrent, 0)..(torrent + 1, 0)).map(|((_, piece), _)| *piece).collect()
    }
}
