//! Limits against random readers and writers, and the memory budget.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

const TORRENT: TorrentId = TorrentId(0);

fn connection(n: u64) -> ConnectionId {
    ConnectionId::dialled(n)
}

fn limits(download: Option<u64>, upload: Option<u64>) -> RateLimits {
    RateLimits { download, upload }
}

/// A driver that spends grants: one count a connection, of what it may still read and write.
struct Spender {
    bandwidth: Bandwidth,
    outputs: VecDeque<Output>,
    may: BTreeMap<ConnectionId, [i64; 2]>,
    now: Instant,
    /// When how much went each way.
    moved: [Vec<(Instant, u64)>; 2],
    by_connection: BTreeMap<ConnectionId, u64>,
}

impl Spender {
    fn new(all: RateLimits) -> Self {
        Self {
            bandwidth: Bandwidth::new(1 << 20, all),
            outputs: VecDeque::new(),
            may: BTreeMap::new(),
            now: Instant(1),
            moved: [Vec::new(), Vec::new()],
            by_connection: BTreeMap::new(),
        }
    }

    fn settle(&mut self) {
        self.bandwidth.settle(self.now, &mut self.outputs);
        for output in self.outputs.drain(..) {
            let (connection, read, write) = match output {
                Output::Grant { connection, read_bytes, write_bytes } => {
                    (connection, read_bytes as i64, write_bytes as i64)
                }
                Output::Revoke { connection, read_bytes, write_bytes } => {
                    (connection, -(read_bytes as i64), -(write_bytes as i64))
                }
                other => panic!("not expected here: {other:?}"),
            };
            let may = self.may.entry(connection).or_default();
            may[0] = may[0].saturating_add(read);
            may[1] = may[1].saturating_add(write);
        }
    }

    /// A connection reads (0) or writes (1) at most `bytes`, within its grant.
    fn spend(&mut self, connection: ConnectionId, way: usize, bytes: u64) {
        let Some(may) = self.may.get_mut(&connection) else { return };
        let bytes = bytes.min(may[way].max(0) as u64);
        if bytes == 0 {
            return;
        }
        may[way] -= bytes as i64;
        self.moved[way].push((self.now, bytes));
        *self.by_connection.entry(connection).or_default() += bytes;
        match way {
            0 => self.bandwidth.on_read(connection, bytes),
            _ => self.bandwidth.on_written(connection, bytes),
        }
        self.settle();
    }

    /// The most that moved within any window of this length.
    fn most(&self, way: usize, window: Duration) -> u64 {
        let moved = &self.moved[way];
        let (mut first, mut within, mut most) = (0, 0, 0);
        for (at, bytes) in moved {
            within += bytes;
            while moved[first].0 + window <= *at {
                within -= moved[first].1;
                first += 1;
            }
            most = most.max(within);
        }
        most
    }
}

fn burst(per_second: u64, connections: u64) -> u64 {
    per_second / 4 + (connections + 2) * quantum(per_second) as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_five_seconds_keep_the_limit_and_one_burst(
        seed: u64, down in 10u32..26, up in 10u32..26, torrent in proptest::option::of(10u32..26), count in 1u64..40,
    ) {
        let (down, up) = (1u64 << down, 1u64 << up);
        let mut spender = Spender::new(limits(Some(down), Some(up)));
        let torrent = torrent.map(|power| 1u64 << power);
        spender.bandwidth.limit(spender.now, Some(TORRENT), limits(torrent, None), &mut VecDeque::new());
        (0..count).for_each(|n| spender.bandwidth.open(connection(n), Some(TORRENT)));
        spender.settle();
        let mut rng = Rng::stream(seed, "spender", 0);
        for _ in 0..3000 {
            // Silence now and then, so that grants and buckets fill up.
            let pause = if rng.below(50) == 0 { 3_000_000_000 } else { 12_000_000 };
            spender.now = Instant(spender.now.0 + rng.below(pause));
            spender.settle();
            for _ in 0..rng.below(4) {
                let way = rng.below(2) as usize;
                spender.spend(connection(rng.below(count)), way, 1 + rng.below(1 << 20));
            }
        }
        let window = Duration::from_secs(5);
        let down = torrent.map_or(down, |torrent| torrent.min(down));
        prop_assert!(spender.most(0, window) <= down * 5 + burst(down, count));
        prop_assert!(spender.most(1, window) <= up * 5 + burst(up, count));
    }
}

/// All want to write all the time; deadlines alone wake the buckets. Gives what each wrote in `seconds`.
fn greedy(spender: &mut Spender, count: u64, seconds: u64) -> Vec<u64> {
    spender.by_connection.clear();
    let end = spender.now + Duration::from_secs(seconds);
    loop {
        // Until all are in the queue.
        let moved = |spender: &Spender| spender.moved[1].len();
        loop {
            let before = moved(spender);
            (0..count).for_each(|n| spender.spend(connection(n), 1, u64::MAX));
            if moved(spender) == before {
                break;
            }
        }
        let Some(at) = spender.bandwidth.deadline().filter(|at| *at < end) else { break };
        assert!(at > spender.now, "a deadline lies ahead");
        spender.now = at;
        spender.settle();
    }
    spender.now = end;
    (0..count).map(|n| spender.by_connection.get(&connection(n)).copied().unwrap_or(0)).collect()
}

#[test]
fn a_limit_is_used_up_and_shared_evenly() {
    for rate in [1 << 10, 100 << 10, 1 << 20, 100 << 20] {
        let mut spender = Spender::new(limits(None, Some(rate)));
        (0..10).for_each(|n| spender.bandwidth.open(connection(n), Some(TORRENT)));
        spender.settle();
        let shares = greedy(&mut spender, 10, 60);
        let total: u64 = shares.iter().sum();
        assert!(total >= rate * 59 && total <= rate * 60 + burst(rate, 10), "{rate}: {total}");
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(most - least <= 2 * quantum(rate) as u64, "{rate}: {shares:?}");
    }
}

#[test]
fn a_slow_torrent_takes_nothing_from_another() {
    let mut spender = Spender::new(limits(None, Some(1 << 20)));
    spender.bandwidth.limit(spender.now, Some(TORRENT), limits(None, Some(10 << 10)), &mut VecDeque::new());
    (0..5).for_each(|n| spender.bandwidth.open(connection(n), Some(TORRENT)));
    spender.bandwidth.open(connection(5), Some(TorrentId(1)));
    spender.settle();
    let shares = greedy(&mut spender, 6, 20);
    let slow: u64 = shares[..5].iter().sum();
    assert!((190 << 10..=215 << 10).contains(&slow), "{shares:?}");
    assert!(shares[5] > 19 << 20, "{shares:?}");
}

#[test]
fn a_limit_set_late_takes_standing_grants_back_and_one_lifted_gives_them_again() {
    let mut spender = Spender::new(RateLimits::default());
    spender.bandwidth.open(connection(0), Some(TORRENT));
    spender.settle();
    assert_eq!(spender.may[&connection(0)], [READ_WINDOW_BYTES as i64, STANDING]);
    assert_eq!(spender.bandwidth.deadline(), None, "no limit, no timer");
    spender.spend(connection(0), 1, 1 << 30);
    spender.bandwidth.limit(
        spender.now,
        Some(TORRENT),
        limits(Some(64 << 10), Some(64 << 10)),
        &mut spender.outputs,
    );
    spender.settle();
    assert_eq!(spender.may[&connection(0)], [1024, 1024]);
    let shares = greedy(&mut spender, 1, 10);
    assert!((630 << 10..=(640 << 10) + burst(64 << 10, 1)).contains(&shares[0]), "{shares:?}");
    spender.bandwidth.limit(spender.now, Some(TORRENT), RateLimits::default(), &mut spender.outputs);
    spender.settle();
    assert_eq!(spender.may[&connection(0)], [READ_WINDOW_BYTES as i64, STANDING]);
}

#[test]
fn what_was_spent_beyond_a_new_limit_is_owed() {
    let mut spender = Spender::new(RateLimits::default());
    spender.bandwidth.open(connection(0), Some(TORRENT));
    spender.settle();
    spender.bandwidth.limit(spender.now, None, limits(Some(64 << 10), None), &mut spender.outputs);
    // On its way to us when the grant was taken back.
    spender.bandwidth.on_read(connection(0), 640 << 10);
    spender.may.insert(connection(0), [READ_WINDOW_BYTES as i64 - (640 << 10), STANDING]);
    spender.settle();
    assert_eq!(spender.may[&connection(0)][0], 1024, "paid for, on credit");
    spender.spend(connection(0), 0, 1024);
    let wait = spender.bandwidth.deadline().unwrap().since(spender.now).as_secs();
    assert!((9..=10).contains(&wait), "{wait}");
}

#[test]
fn connections_that_come_and_go_waste_nothing() {
    let mut spender = Spender::new(limits(None, Some(64 << 10)));
    spender.bandwidth.open(connection(0), Some(TORRENT));
    for n in 1..1000 {
        spender.bandwidth.open(connection(n), Some(TORRENT));
        spender.settle();
        spender.bandwidth.close(connection(n));
        spender.may.remove(&connection(n));
    }
    assert!(spender.bandwidth.write.all.as_ref().unwrap().level > 10_000 * NANO);
}

#[test]
fn reading_stops_over_budget_and_goes_on_below() {
    let mut bandwidth = Bandwidth::new(100, RateLimits::default());
    let mut outputs = VecDeque::new();
    let connection = connection(1);
    bandwidth.open(connection, None);
    bandwidth.settle(Instant(1), &mut outputs);
    outputs.clear();
    bandwidth.on_read(connection, 150);
    bandwidth.on_buffered(0, 150);
    bandwidth.settle(Instant(1), &mut outputs);
    assert_eq!((outputs.len(), bandwidth.excess()), (0, 50));
    bandwidth.on_buffered(150, 90);
    bandwidth.settle(Instant(1), &mut outputs);
    assert_eq!(outputs, [Output::Grant { connection, read_bytes: 150, write_bytes: 0 }]);
}

#[test]
fn dials_are_paced() {
    let mut dials = Dials::new(10);
    let mut now = Instant(5_000_000_000);
    let mut dialled = Vec::new();
    while dialled.len() < 100 {
        match dials.take(now, TORRENT) {
            Ok(()) => dialled.push(now),
            Err(later) => {
                assert!(later > now && later <= now + Duration::from_secs(1));
                now = later;
            }
        }
        now.0 += 7_000_000 * (dialled.len() as u64 % 3);
    }
    for (at, first) in dialled.iter().enumerate() {
        let within = dialled[at..].iter().filter(|other| other.since(*first) < Duration::from_secs(1));
        assert!(within.count() <= 10);
    }
    assert!(dialled[99].since(dialled[0]) < Duration::from_secs(10), "and as many as may be");
}

/// However often one asks.
#[test]
fn torrents_take_turns_at_dialling() {
    let mut dials = Dials::new(2);
    let mut dialled = [0; 3];
    for now in (0..60_000).map(|at| Instant(at * 1_000_000)) {
        for torrent in 0..3 {
            // The second comes when it was told to, the third only at first.
            let asks = [true, now.0.is_multiple_of(1_000_000_000), now.0 < 10_000_000_000][torrent];
            dialled[torrent] += u32::from(asks && dials.take(now, TorrentId(torrent as u32)).is_ok());
        }
    }
    let all: u32 = dialled.iter().sum();
    assert!(all >= 115, "{dialled:?}: little is left unused");
    assert!(dialled[1] >= 45 && dialled[0] >= 45 && dialled[2] >= 5, "{dialled:?}");
}

#[test]
fn many_connections_have_small_windows() {
    let few = READ_WINDOW_BYTES;
    for (connections, window) in [(1, few), (16, few), (64, few / 4), (300, READ_WINDOW_BYTES_MIN)] {
        let mut spender = Spender::new(RateLimits::default());
        (0..connections).for_each(|n| spender.bandwidth.open(connection(n), Some(TORRENT)));
        spender.settle();
        let all =
            |spender: &Spender| (0..connections).all(|n| spender.may[&connection(n)][0] == window as i64);
        assert!(all(&spender));
        (0..connections).for_each(|n| spender.spend(connection(n), 0, 1000));
        spender.settle();
        assert!(all(&spender), "given again at once");
    }
}
