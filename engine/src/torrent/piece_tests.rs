use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::metainfo::StoragePath;
use crate::metainfo::layout::ListedFile;

fn layout(pieces: u32, blocks_a_piece: u32) -> Layout {
    let bytes = u64::from(pieces * blocks_a_piece * BLOCK_BYTES);
    let file = ListedFile::plain(StoragePath::state("x"), bytes - 5);
    Layout::new(blocks_a_piece * BLOCK_BYTES, vec![file]).unwrap()
}

fn peer(n: u64) -> ConnectionId {
    ConnectionId::dialled(n)
}

fn address(n: u64) -> SocketAddr {
    ([10, 0, 0, 1], n as u16).into()
}

fn piece(n: u32) -> PieceIndex {
    PieceIndex::new(n)
}

const AT: Instant = Instant(5);

fn data() -> BlockData {
    Bytes::from_static(&[1; 16]).into()
}

fn numbers(blocks: &[BlockIndex]) -> Vec<u32> {
    blocks.iter().map(|block| block.0).collect()
}

#[test]
fn a_piece_goes_from_missing_to_have_and_back_on_a_wrong_hash() {
    let layout = layout(2, 3);
    let mut pieces = Pieces::new(&layout, &Bitfield::new(2));
    for good in [false, true] {
        pieces.begin(&layout, piece(0), peer(1), false, AT);
        assert_eq!(numbers(&pieces.claim(piece(0), peer(1), 9, |_| false)), [0, 1, 2]);
        for block in 0..3 {
            let filed = pieces.file(piece(0), BlockIndex(block), data(), peer(1), address(1));
            assert_eq!(filed, Filed::New { others: vec![], complete: block == 2 });
        }
        let whole = pieces.take_whole(piece(0));
        assert_eq!(
            (whole.blocks.map(|blocks| blocks.len()), whole.runs.len(), whole.bytes),
            (Some(3), 1, 48)
        );
        assert_eq!((pieces.state(piece(0)), pieces.buffered_bytes()), (State::Verifying, 0));
        pieces.on_verified(&layout, piece(0), good);
    }
    assert_eq!((pieces.state(piece(0)), pieces.blocks_wanted()), (State::Have, 3));
}

#[test]
fn released_blocks_are_free_for_others() {
    let layout = layout(1, 4);
    let mut pieces = Pieces::new(&layout, &Bitfield::new(1));
    pieces.begin(&layout, piece(0), peer(1), false, AT);
    pieces.claim(piece(0), peer(1), 4, |_| false);
    assert!(pieces.all_requested() && pieces.open_for(peer(2), true).is_empty());
    assert!(pieces.release(piece(0), BlockIndex(2), peer(1)));
    assert!(!pieces.release(piece(0), BlockIndex(2), peer(1)), "once");
    assert_eq!(pieces.open_for(peer(2), false), [piece(0)], "nobody owns it now");
    assert_eq!(numbers(&pieces.claim(piece(0), peer(2), 9, |_| false)), [2]);
}

#[test]
fn others_join_a_piece_only_when_asked_to() {
    let layout = layout(1, 4);
    let mut pieces = Pieces::new(&layout, &Bitfield::new(1));
    pieces.begin(&layout, piece(0), peer(1), false, AT);
    pieces.claim(piece(0), peer(1), 1, |_| false);
    assert_eq!((pieces.open_for(peer(2), false), pieces.open_for(peer(1), false)), (vec![], vec![piece(0)]));
    assert_eq!(pieces.open_for(peer(2), true), [piece(0)]);
}

#[test]
fn a_suspect_piece_is_asked_of_its_owner_alone() {
    let layout = layout(1, 2);
    let mut pieces = Pieces::new(&layout, &Bitfield::new(1));
    pieces.begin(&layout, piece(0), peer(1), true, AT);
    pieces.claim(piece(0), peer(1), 1, |_| false);
    assert_eq!(pieces.open_for(peer(2), true), []);
    assert!(!pieces.claim_duplicate(piece(0), BlockIndex(0), peer(2), 4));
    pieces.file(piece(0), BlockIndex(0), data(), peer(1), address(1));
    assert_eq!(pieces.abandoned_exclusives(), []);
    pieces.disown(peer(1));
    assert_eq!(pieces.abandoned_exclusives(), [piece(0)]);
    assert_eq!(pieces.reset(&layout, piece(0)), []);
    assert_eq!(
        (pieces.state(piece(0)), pieces.blocks_wanted(), pieces.buffered_bytes()),
        (State::Missing, 2, 0)
    );
}

#[test]
fn a_late_block_of_another_is_no_part_of_a_suspect_piece() {
    let layout = layout(1, 2);
    let mut pieces = Pieces::new(&layout, &Bitfield::new(1));
    pieces.begin(&layout, piece(0), peer(1), true, AT);
    pieces.claim(piece(0), peer(1), 1, |_| false);
    assert_eq!(pieces.file(piece(0), BlockIndex(1), data(), peer(2), address(2)), Filed::Duplicate);
    pieces.release(piece(0), BlockIndex(0), peer(1));
    let new = |complete| Filed::New { others: vec![], complete };
    assert_eq!(pieces.file(piece(0), BlockIndex(1), data(), peer(2), address(2)), new(false));
    assert_eq!(pieces.file(piece(0), BlockIndex(0), data(), peer(1), address(1)), Filed::Duplicate);
    assert_eq!(pieces.file(piece(0), BlockIndex(0), data(), peer(2), address(2)), new(true));
    assert_eq!(pieces.take_whole(piece(0)).senders.sources().len(), 1);
}

/// One rejects a block of a piece that must be its alone, and keeps the others: what it sends of those would not count.
#[test]
fn a_suspect_piece_of_which_one_block_is_given_up_is_begun_anew() {
    let layout = layout(1, 3);
    let mut pieces = Pieces::new(&layout, &Bitfield::new(1));
    pieces.begin(&layout, piece(0), peer(1), true, AT);
    pieces.claim(piece(0), peer(1), 3, |_| false);
    pieces.release(piece(0), BlockIndex(1), peer(1));
    assert_eq!((pieces.open_for(peer(2), true), pieces.abandoned_exclusives()), (vec![], vec![piece(0)]));
    assert_eq!(pieces.file(piece(0), BlockIndex(0), data(), peer(2), address(2)), Filed::Duplicate);
    assert_eq!(pieces.reset(&layout, piece(0)), [(BlockIndex(0), peer(1)), (BlockIndex(2), peer(1))]);
    // Who gave up all of it leaves nothing behind.
    pieces.begin(&layout, piece(0), peer(1), true, AT);
    pieces.claim(piece(0), peer(1), 2, |_| false);
    (0..2).for_each(|block| assert!(pieces.release(piece(0), BlockIndex(block), peer(1))));
    assert_eq!((pieces.open_for(peer(2), true), pieces.abandoned_exclusives()), (vec![piece(0)], vec![]));
}

#[test]
fn a_piece_is_overdue_later_each_time_it_is_taken_over() {
    let layout = layout(1, 2);
    let mut pieces = Pieces::new(&layout, &Bitfield::new(1));
    for seconds in [10, 20, 40] {
        pieces.begin(&layout, piece(0), peer(1), true, AT);
        pieces.claim(piece(0), peer(1), 1, |_| false);
        let due = AT + Duration::from_secs(seconds);
        let overdue = |at, of| pieces.overdue(at, peer(of), Duration::ZERO, [piece(1), piece(0)].into_iter());
        assert_eq!(pieces.next_overdue(AT), Some(due));
        assert_eq!(overdue(due - Duration::from_nanos(1), 2), None);
        assert_eq!(overdue(due, 2), Some(piece(0)));
        assert_eq!(overdue(due, 1), None, "its own");
        assert_eq!(pieces.seize(&layout, piece(0)), [(BlockIndex(0), peer(1))]);
    }
}

#[test]
fn who_would_need_as_long_itself_takes_nothing_over() {
    let layout = layout(1, 2);
    let mut pieces = Pieces::new(&layout, &Bitfield::new(1));
    pieces.begin(&layout, piece(0), peer(1), true, AT);
    pieces.claim(piece(0), peer(1), 1, |_| false);
    let after = |seconds| AT + Duration::from_secs(seconds);
    let overdue =
        |at, needs| pieces.overdue(after(at), peer(2), Duration::from_secs(needs), [piece(0)].into_iter());
    assert_eq!((overdue(10, 3), overdue(10, 25), overdue(24, 25)), (Some(piece(0)), None, None));
    assert_eq!(overdue(25, 25), Some(piece(0)));
    // There is always a next look.
    let looks = [(0, 10), (10, 20), (15, 20), (20, 40), (50, 80)];
    looks.iter().for_each(|(now, next)| assert_eq!(pieces.next_overdue(after(*now)), Some(after(*next))));
}

#[test]
fn endgame_asks_a_second_peer_and_no_third() {
    let layout = layout(1, 2);
    let mut pieces = Pieces::new(&layout, &Bitfield::new(1));
    pieces.begin(&layout, piece(0), peer(1), false, AT);
    pieces.claim(piece(0), peer(1), 2, |_| false);
    let mut duplicate = |block, n| pieces.claim_duplicate(piece(0), BlockIndex(block), peer(n), 2);
    assert!(!duplicate(0, 1), "not of whom it was asked already");
    assert!(duplicate(0, 2));
    assert_eq!((duplicate(0, 3), duplicate(1, 3)), (false, true));
    let filed = pieces.file(piece(0), BlockIndex(0), data(), peer(2), address(2));
    assert_eq!(filed, Filed::New { others: vec![peer(1)], complete: false });
    assert_eq!(pieces.file(piece(0), BlockIndex(0), data(), peer(1), address(1)), Filed::Duplicate);
}

#[test]
fn a_piece_written_early_is_read_back() {
    let layout = layout(1, 4);
    let mut pieces = Pieces::new(&layout, &Bitfield::new(1));
    pieces.begin(&layout, piece(0), peer(1), false, AT);
    pieces.claim(piece(0), peer(1), 4, |_| false);
    for block in [0, 1, 3] {
        pieces.file(piece(0), BlockIndex(block), data(), peer(1), address(1));
    }
    assert_eq!(pieces.largest_buffered(), Some(piece(0)));
    let begins: Vec<_> =
        pieces.flush(piece(0)).iter().map(|run| (run.begin / BLOCK_BYTES, run.blocks.len())).collect();
    assert_eq!((begins, pieces.buffered_bytes()), (vec![(0, 2), (3, 1)], 0));
    pieces.file(piece(0), BlockIndex(2), data(), peer(1), address(1));
    let whole = pieces.take_whole(piece(0));
    assert_eq!((whole.blocks, whole.runs.len()), (None, 1));
}

proptest! {
    /// Whatever peers do, every block is free, asked for, or here, and the counts say so.
    #[test]
    fn counts_hold_through_any_order(steps in proptest::collection::vec((0u8..7, 0u64..4, 0u32..3, 0u32..4), 0..200)) {
        let layout = layout(3, 4);
        let mut pieces = Pieces::new(&layout, &Bitfield::new(3));
        for (step, n, index, block) in steps {
            let (at, block) = (piece(index), BlockIndex(block));
            match step {
                0 if pieces.state(at) == State::Missing => pieces.begin(&layout, at, peer(n), n == 3, AT),
                1 => { pieces.claim(at, peer(n), 2, |_| false); }
                2 => { pieces.release(at, block, peer(n)); }
                3 => {
                    if let Filed::New { complete: true, .. } = pieces.file(at, block, data(), peer(n), address(n)) {
                        pieces.take_whole(at);
                        pieces.on_verified(&layout, at, n % 2 == 0);
                    }
                }
                4 if n == 0 && pieces.state(at) == State::Missing => pieces.skip(&layout, at),
                4 if n == 1 && pieces.state(at) == State::Skipped => pieces.want(&layout, at),
                4 => { pieces.flush(at); }
                5 => { pieces.claim_duplicate(at, block, peer(n), 2); }
                6 if n == 0 => { pieces.reset(&layout, at); }
                _ => pieces.disown(peer(n)),
            }
            let mut wanted = 0;
            let mut buffered = 0;
            for at in layout.pieces() {
                match pieces.partials.get(&at) {
                    Some(partial) => {
                        prop_assert_eq!(pieces.state(at), State::Partial);
                        let count = |is: fn(&Block) -> bool| partial.blocks.iter().filter(|b| is(b)).count() as u32;
                        let free = count(|block| matches!(block, Block::Free));
                        let asked = count(|block| matches!(block, Block::Requested(..)));
                        let in_memory = count(|block| matches!(block, Block::Buffered(_)));
                        prop_assert_eq!((free, free + asked), (partial.free_count, partial.wanted_count));
                        prop_assert_eq!(pieces.open.contains(&(partial.owner, partial.number, at)), free > 0);
                        wanted += free + asked;
                        buffered += in_memory * 16;
                    }
                    None if pieces.state(at) == State::Missing => wanted += layout.block_count(at),
                    None => prop_assert!(matches!(pieces.state(at), State::Have | State::Skipped)),
                }
            }
            prop_assert_eq!((u64::from(wanted), u64::from(buffered)), (pieces.blocks_wanted(), pieces.buffered_bytes()));
            // What is kept in order is what a look at all of them says.
            let open = pieces.partials.values().filter(|partial| partial.free_count > 0).count();
            prop_assert_eq!(pieces.open.len(), open);
            let largest = pieces.partials.iter().filter(|(_, partial)| partial.buffered_bytes > 0);
            let most = largest.map(|(_, partial)| partial.buffered_bytes).max().unwrap_or(0);
            let found = pieces.largest_buffered().map_or(0, |piece| pieces.partials[&piece].buffered_bytes);
            prop_assert!(found <= most && found * 2 >= most);
            for (n, join) in (0..4).flat_map(|n| [(n, false), (n, true)]) {
                let rank = |partial: &Partial| match partial.owner {
                    Some(owner) if owner == peer(n) => Some(0),
                    None if !partial.is_abandoned() => Some(1),
                    Some(_) if join && !partial.exclusive => Some(2),
                    _ => None,
                };
                let open = pieces.partials.iter().filter(|(_, partial)| partial.free_count > 0);
                let ranked = open.filter_map(|(at, partial)| Some((rank(partial)?, partial.number, *at)));
                let ranked: BTreeSet<_> = ranked.collect();
                let want: Vec<_> = ranked.into_iter().map(|(.., at)| at).collect();
                prop_assert_eq!(pieces.open_for(peer(n), join), want);
            }
        }
    }
}
