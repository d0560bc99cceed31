//! Which pieces somebody has.

use taipei_engine::limits::BLOCK_BYTES;
use taipei_engine::metainfo::{Layout, ListedFile, StoragePath};
use taipei_engine::rng::Rng;
use taipei_engine::{Bitfield, PieceIndex};

use super::PIECES;

/// All that the engine does with bitfields, of pieces drawn anew each time.
pub(super) fn walk(times: u64) -> String {
    let file = ListedFile::plain(StoragePath::from_names(["x"]), u64::from(PIECES) * u64::from(BLOCK_BYTES));
    let layout = Layout::new(BLOCK_BYTES, vec![file]).expect("a small torrent");
    let pieces: Vec<PieceIndex> = layout.pieces().collect();
    let mut rng = Rng::stream(1, "cost bitfield", 0);
    let (mut wire, mut ours) = (vec![0; PIECES.div_ceil(8) as usize], Bitfield::new(PIECES));
    let (mut walked, mut missing, mut changed) = (0u64, 0u64, 0u64);
    for _ in 0..times {
        rng.fill(&mut wire);
        let theirs = Bitfield::from_wire(&wire, PIECES).expect("the length fits, and no bit is spare");
        walked += theirs.iter().count() as u64;
        missing += theirs.iter_missing().count() as u64;
        for piece in &pieces {
            if theirs.has(*piece) {
                changed += u64::from(ours.set(*piece));
            }
        }
        assert_eq!(ours.count(), theirs.count(), "what was set is there");
        for piece in &pieces {
            changed += u64::from(ours.clear(*piece));
        }
        assert!(ours.is_empty(), "what was set is cleared");
    }
    assert_eq!((walked + missing, changed), (times * u64::from(PIECES), 2 * walked), "each piece once");
    format!("{walked} pieces there, {missing} missing, {changed} changes")
}
