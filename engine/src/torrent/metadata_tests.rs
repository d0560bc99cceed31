use super::*;

/// Metadata of some blocks, peers by number, and what they were asked for.
struct Bench {
    fetch: MetadataFetch,
    right: Vec<u8>,
    now: Instant,
}

impl Bench {
    fn new(bytes: u32) -> Self {
        let right: Vec<u8> = (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let info_hash = InfoHash(Sha1::digest(&right).into());
        Self { fetch: MetadataFetch::new(info_hash), right, now: Instant::START }
    }

    fn peer(&mut self, n: u64) {
        let size = self.right.len() as i64;
        self.says(n, size);
    }

    fn says(&mut self, n: u64, size: i64) {
        self.fetch.on_size(self.now, peer(n), address(n), Some(size));
    }

    /// Everything that is asked now.
    fn asked(&mut self) -> Vec<(u64, u32)> {
        let now = self.now;
        let asked = std::iter::from_fn(|| self.fetch.poll_request(now));
        let number = |connection| (0..200).find(|n| peer(*n) == connection).unwrap();
        asked.map(|(connection, block)| (number(connection), block)).collect()
    }

    fn block(&self, block: u32) -> Vec<u8> {
        let begin = (block * BLOCK_BYTES) as usize;
        self.right[begin..self.right.len().min(begin + BLOCK_BYTES as usize)].to_vec()
    }

    fn tells(&mut self, n: u64, block: u32) -> Told {
        let data = self.block(block);
        self.fetch.on_data(self.now, peer(n), block, Some(self.right.len() as i64), &data)
    }

    fn lies(&mut self, n: u64, block: u32) -> Told {
        let data = vec![0xee; self.block(block).len()];
        self.fetch.on_data(self.now, peer(n), block, None, &data)
    }

    fn later(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.fetch.handle_timeout(self.now);
    }

    fn whole(&self) -> Told {
        Told::Whole(self.right.clone().into(), Vec::new())
    }
}

fn peer(n: u64) -> ConnectionId {
    ConnectionId::dialled(n)
}

fn address(n: u64) -> SocketAddr {
    SocketAddr::from(([1, 2, 3, n as u8], 6881))
}

const THREE_BLOCKS: u32 = 2 * BLOCK_BYTES + 100;

#[test]
fn several_peers_are_asked_at_once_for_different_blocks() {
    let mut bench = Bench::new(THREE_BLOCKS);
    (0..2).for_each(|n| bench.peer(n));
    assert_eq!(bench.asked(), [(0, 0), (1, 1), (0, 2)]);
    assert_eq!((bench.tells(0, 0), bench.tells(1, 1)), (Told::Filed, Told::Filed));
    assert_eq!(bench.asked(), [(1, 2)], "who is idle is asked for the last one as well");
    assert_eq!(bench.tells(1, 2), bench.whole());
}

#[test]
fn of_one_block_a_few_are_asked() {
    let mut bench = Bench::new(100);
    (0..9).for_each(|n| bench.peer(n));
    assert_eq!(bench.asked().len(), ASKERS_MAX);
    assert_eq!(bench.tells(2, 0), bench.whole());
}

#[test]
fn who_dies_half_way_is_replaced_and_what_it_sent_stays() {
    let mut bench = Bench::new(THREE_BLOCKS);
    bench.peer(0);
    assert_eq!(bench.asked(), [(0, 0), (0, 1)]);
    bench.tells(0, 0);
    bench.fetch.on_gone(peer(0));
    bench.peer(1);
    assert_eq!(bench.asked(), [(1, 1), (1, 2)]);
    bench.tells(1, 1);
    assert_eq!(bench.tells(1, 2), bench.whole());
}

#[test]
fn who_does_not_answer_or_refuses_is_asked_again_later() {
    let mut bench = Bench::new(100);
    bench.peer(0);
    assert_eq!(bench.asked(), [(0, 0)]);
    assert_eq!(bench.fetch.deadline(bench.now), Some(Instant::START + ANSWER_TIMEOUT));
    bench.later(10);
    assert_eq!(bench.asked(), []);
    assert_eq!(bench.tells(0, 0), Told::Unasked, "too late");
    bench.later(5);
    assert_eq!(bench.asked(), [(0, 0)]);
    bench.fetch.on_reject(bench.now, peer(0), 0);
    bench.later(29);
    assert_eq!(bench.asked(), [], "longer each time");
    bench.later(1);
    assert_eq!(bench.asked(), [(0, 0)]);
    assert_eq!(bench.tells(0, 0), bench.whole());
}

#[test]
fn a_size_is_believed_of_its_peer_alone() {
    let mut bench = Bench::new(THREE_BLOCKS);
    bench.says(0, i64::from(METADATA_BYTES_MAX));
    bench.says(1, 5);
    for nonsense in [-1, 0, i64::from(METADATA_BYTES_MAX) + 1, i64::MAX] {
        bench.says(2, nonsense);
    }
    bench.peer(3);
    let asked = bench.asked();
    assert!(asked.iter().all(|(peer, _)| *peer != 2) && asked.contains(&(1, 0)), "{asked:?}");
    assert_eq!(bench.fetch.on_data(bench.now, peer(1), 0, None, b"wrong"), Told::Wrong(Some(address(1))));
    assert_eq!(bench.fetch.buffered_bytes, 0, "nothing is sized by what is said");
    bench.tells(3, 0);
    bench.tells(3, 1);
    assert!(bench.asked().contains(&(3, 2)));
    assert_eq!(bench.tells(3, 2), bench.whole());
}

#[test]
fn the_liar_is_found_by_comparing_blocks_and_nobody_else_is_blamed() {
    let mut bench = Bench::new(THREE_BLOCKS);
    (0..3).for_each(|n| bench.peer(n));
    assert_eq!(bench.asked(), [(0, 0), (1, 1), (2, 2)]);
    bench.tells(0, 0);
    bench.lies(1, 1);
    assert_eq!(bench.tells(2, 2), Told::Wrong(None), "nobody knows who it was");
    // Each alone now.
    let asked = bench.asked();
    assert!((0..3).all(|n| asked.contains(&(n, 0)) && asked.contains(&(n, 1))), "{asked:?}");
    bench.tells(2, 0);
    bench.tells(2, 1);
    bench.lies(1, 0);
    assert_eq!(bench.asked().iter().filter(|(n, _)| *n == 2).count(), 1);
    assert_eq!(bench.tells(2, 2), Told::Whole(bench.right.clone().into(), vec![address(1)]));
}

#[test]
fn who_lies_alone_is_known_at_once() {
    let mut bench = Bench::new(THREE_BLOCKS);
    bench.peer(7);
    for _ in 0..2 {
        for (_, block) in bench.asked() {
            let told = bench.lies(7, block);
            assert_eq!(told, if block == 2 { Told::Wrong(Some(address(7))) } else { Told::Filed });
        }
    }
}

#[test]
fn what_contradicts_itself_is_nonsense() {
    let mut bench = Bench::new(THREE_BLOCKS);
    bench.peer(0);
    bench.asked();
    let now = bench.now;
    assert_eq!(bench.fetch.on_data(now, peer(0), 0, None, b"short"), Told::Nonsense);
    let data = bench.block(1);
    assert_eq!(bench.fetch.on_data(now, peer(0), 1, Some(7), &data), Told::Nonsense);
    assert_eq!(bench.fetch.on_data(now, peer(0), 9, None, b""), Told::Unasked);
    assert_eq!(bench.fetch.on_data(now, peer(9), 0, None, b""), Told::Unasked);
}

#[test]
fn what_liars_make_us_keep_is_bounded_and_the_largest_goes_first() {
    let mut bench = Bench::new(THREE_BLOCKS);
    bench.peer(0);
    let liars = 4;
    (1..=liars).for_each(|n| bench.says(n, i64::from(METADATA_BYTES_MAX) - n as i64));
    assert_eq!(bench.asked().len(), 2 * (1 + liars as usize));
    bench.tells(0, 0);
    bench.asked();
    let junk = vec![1; BLOCK_BYTES as usize];
    for round in 0..3 * u64::from(METADATA_BYTES_MAX / BLOCK_BYTES) {
        let n = 1 + round % liars;
        let asked = bench.fetch.tellers[&peer(n)].asked.keys().next().copied();
        if let Some(block) = asked {
            let size = bench.fetch.tellers[&peer(n)].size;
            bench.fetch.on_data(bench.now, peer(n), block, None, &junk[..block_bytes(size, block) as usize]);
        }
        bench.asked();
        assert!(bench.fetch.buffered_bytes <= METADATA_BUFFERED_MAX);
    }
    bench.tells(0, 1);
    assert_eq!(bench.tells(0, 2), bench.whole(), "the honest one's was never the largest");
}

#[test]
fn progress_is_that_of_the_fullest_set() {
    let mut bench = Bench::new(THREE_BLOCKS);
    assert_eq!(bench.fetch.progress(), MetadataProgress::default());
    bench.peer(0);
    bench.asked();
    bench.tells(0, 0);
    let (bytes_have, bytes_total) = (BLOCK_BYTES, THREE_BLOCKS);
    assert_eq!(bench.fetch.progress(), MetadataProgress { bytes_have, bytes_total, tellers: 1 });
}
