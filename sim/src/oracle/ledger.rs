//! What one end of a stream was given to send, and what the other end read: S3.
//!
//! Of each message on its way there is a digest in the sender's queue; what is read must be the front of it. Bytes are
//! counted as engines are told of them: no end spends what it was not granted, and where the world says which ends belong
//! together at once, no end reads what was not written, nor hears of a stream's end before it read all of it.

use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

/// All ends of all streams, by number.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    ways: Vec<Way>,
    /// Ends that wait for their other end, by the dialler's address; where the world does not say it.
    waiting: BTreeMap<SocketAddr, usize>,
    /// Streams of which both ends are known.
    pub(super) paired: u64,
}

/// One end of a stream, for who watches it to keep.
#[derive(Debug)]
pub(super) struct End {
    /// Its number in the ledger.
    pub(super) number: usize,
    /// What is known of its other end, once that is anything: another it never gets.
    other: Option<(usize, bool)>,
    granted: (u64, u64),
    read_bytes: u64,
}

/// From one end to the other: what both look at, in one line of the cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Way {
    other: Other,
    /// Digests of messages that were given and not read over there.
    on_way: VecDeque<u64>,
    written_bytes: u64,
}

/// The other end of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Other {
    /// Nobody has said which it is.
    #[default]
    Unknown,
    /// This one. Whether its bytes are compared as well: what was written is told before it can be read.
    Known(usize, bool),
    /// It is gone, or no engine's.
    None,
}

impl End {
    /// An engine grants bytes.
    pub(super) fn on_granted(&mut self, read_bytes: u64, write_bytes: u64) {
        let granted = &mut self.granted;
        *granted = (granted.0.saturating_add(read_bytes), granted.1.saturating_add(write_bytes));
    }
}

impl Ledger {
    /// An end is open.
    pub(super) fn open(&mut self) -> End {
        self.ways.push(Way::default());
        End { number: self.ways.len() - 1, other: None, granted: (0, 0), read_bytes: 0 }
    }

    /// Two ends are of one stream.
    pub(super) fn pair(&mut self, a: usize, b: usize, exact: bool) {
        self.paired += 1;
        self.ways[a].other = Other::Known(b, exact);
        self.ways[b].other = Other::Known(a, exact);
    }

    /// The same, by the address of who dialled, when the second of them is told.
    pub(super) fn pair_by(&mut self, address: SocketAddr, end: usize) {
        match self.waiting.remove(&address) {
            Some(other) => self.pair(other, end, false),
            None => {
                self.waiting.insert(address, end);
            }
        }
    }

    /// The other end, while both are open.
    pub(super) fn other(&self, end: usize) -> Option<usize> {
        match self.ways[end].other {
            Other::Known(other, _) => Some(other),
            _ => None,
        }
    }

    /// This end reads no more.
    pub(super) fn close(&mut self, end: usize) {
        self.waiting.retain(|_, waits| *waits != end);
        if let Other::Known(other, _) = self.ways[end].other {
            self.ways[other].other = Other::None;
            self.ways[other].on_way = VecDeque::new();
        }
    }

    /// The other side ended the stream in order, and this end has read all there was.
    pub(super) fn on_end_of_stream(&self, end: &End) -> Result<(), String> {
        let Other::Known(other, true) = self.ways[end.number].other else { return Ok(()) };
        let (written, read) = (self.ways[other].written_bytes, end.read_bytes);
        if read == written {
            return Ok(());
        }
        Err(format!("{written} bytes were written and {read} read when the stream ended"))
    }

    /// An engine sends messages, of these digests.
    pub(super) fn on_given(&mut self, end: usize, digests: &[u64]) {
        let way = &mut self.ways[end];
        if way.other == Other::Unknown && way.on_way.len() > ON_WAY_UNKNOWN_MAX {
            way.other = Other::None;
            way.on_way = VecDeque::new();
        }
        if way.other != Other::None {
            way.on_way.extend(digests);
        }
    }

    /// An engine reads messages, of these digests.
    pub(super) fn on_read(&mut self, end: &mut End, bytes: u64, digests: &[u64]) -> Result<(), String> {
        end.read_bytes += bytes;
        let (read, granted) = (end.read_bytes, end.granted.0);
        if read > granted {
            return Err(format!("{read} bytes were read of {granted} that were granted"));
        }
        if end.other.is_none()
            && let Other::Known(other, exact) = self.ways[end.number].other
        {
            end.other = Some((other, exact));
        }
        let Some((other, exact)) = end.other else { return Ok(()) };
        let way = &mut self.ways[other];
        if exact && read > way.written_bytes {
            return Err(format!("{read} bytes were read of {} that were written", way.written_bytes));
        }
        for digest in digests {
            match way.on_way.pop_front() {
                Some(given) if given == *digest => {}
                Some(_) => return Err("a message is not the one that was sent".to_owned()),
                None => return Err("a message that was never sent".to_owned()),
            }
        }
        Ok(())
    }

    /// Bytes went out.
    pub(super) fn on_written(&mut self, end: &End, bytes: u64) -> Result<(), String> {
        let written = &mut self.ways[end.number].written_bytes;
        *written += bytes;
        if *written > end.granted.1 {
            return Err(format!("{written} bytes were written of {} that were granted", end.granted.1));
        }
        Ok(())
    }
}

/// What one engine counts of a torrent, as it was seen from outside.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    /// Of earlier runs: received, sent.
    pub(super) before: (u64, u64),
    /// Payload received. Of what came with a message that ended the connection nobody knows how much counts.
    pub(super) received: (u64, u64),
    /// Payload sent, and payload read to be sent.
    pub(super) sent: (u64, u64),
}

impl Counted {
    /// Whether the totals that are saved fit: those of now if it is `fresh`, or of a while ago.
    pub(super) fn check_totals(&self, downloaded: u64, uploaded: u64, fresh: bool) -> Result<(), String> {
        let fits = |value: u64, before: u64, (least, most): (u64, u64)| {
            let least = if fresh { least } else { 0 };
            (before + least..=before + most).contains(&value)
        };
        if fits(downloaded, self.before.0, self.received) && fits(uploaded, self.before.1, self.sent) {
            return Ok(());
        }
        Err(format!("counts {downloaded} bytes received and {uploaded} sent, but the network {self:?}"))
    }

    /// Whether what a tracker is told fits; it may be told what was so a while ago.
    pub(super) fn check_announced(&self, downloaded: u64, uploaded: u64) -> Result<(), String> {
        if downloaded <= self.received.1 && uploaded <= self.sent.1 {
            return Ok(());
        }
        Err(format!("announces {downloaded} bytes received and {uploaded} sent, but the network {self:?}"))
    }
}

/// Messages of an end whose other end is no engine's, before they are forgotten.
const ON_WAY_UNKNOWN_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Ledger, End, End) {
        let mut ledger = Ledger::default();
        let (mut a, mut b) = (ledger.open(), ledger.open());
        ledger.pair(a.number, b.number, true);
        for end in [&mut a, &mut b] {
            end.on_granted(100, 100);
        }
        (ledger, a, b)
    }

    #[test]
    fn what_is_read_is_what_was_sent() {
        let (mut ledger, a, mut b) = pair();
        ledger.on_given(a.number, &[1, 2, 3]);
        ledger.on_written(&a, 30).expect("granted");
        assert_eq!(ledger.on_read(&mut b, 20, &[1, 2]), Ok(()));
        assert!(ledger.on_end_of_stream(&b).is_err(), "ten bytes are lost");
        assert_eq!(ledger.on_read(&mut b, 10, &[3]), Ok(()));
        assert_eq!(ledger.on_end_of_stream(&b), Ok(()));
        assert!(ledger.on_read(&mut b, 0, &[4]).is_err(), "never sent");
    }

    #[test]
    fn another_order_or_more_bytes_are_seen() {
        let (mut ledger, a, mut b) = pair();
        ledger.on_given(a.number, &[1, 2]);
        ledger.on_written(&a, 20).expect("granted");
        assert!(ledger.on_read(&mut b, 20, &[2, 1]).is_err());
        let (mut ledger, _, mut b) = pair();
        assert!(ledger.on_read(&mut b, 1, &[]).is_err(), "never written");
    }

    #[test]
    fn nobody_spends_more_than_it_was_granted() {
        let (mut ledger, a, mut b) = pair();
        assert_eq!(ledger.on_written(&a, 100), Ok(()));
        assert_eq!(ledger.on_read(&mut b, 100, &[]), Ok(()));
        assert!(ledger.on_written(&a, 1).is_err());
        assert!(ledger.on_read(&mut b, 1, &[]).is_err());
    }

    #[test]
    fn ends_find_each_other_by_address() {
        let mut ledger = Ledger::default();
        let [a, b, c] = [(); 3].map(|()| ledger.open().number);
        let address = |port| SocketAddr::from(([9, 9, 9, 9], port));
        ledger.pair_by(address(1), a);
        ledger.pair_by(address(2), c);
        ledger.pair_by(address(1), b);
        assert_eq!((ledger.other(a), ledger.other(b), ledger.other(c)), (Some(b), Some(a), None));
        ledger.close(a);
        assert_eq!(ledger.other(b), None);
    }

    #[test]
    fn what_an_engine_counts_is_what_the_network_counts() {
        let counted = Counted { before: (100, 10), received: (5, 7), sent: (3, 3) };
        assert_eq!(counted.check_totals(105, 13, true), Ok(()));
        assert_eq!(counted.check_totals(107, 13, true), Ok(()));
        assert!(counted.check_totals(108, 13, true).is_err());
        assert!(counted.check_totals(105, 12, true).is_err());
        assert_eq!(counted.check_totals(100, 10, false), Ok(()));
        assert!(counted.check_totals(108, 10, false).is_err());
        assert_eq!(counted.check_announced(7, 0), Ok(()));
        assert!(counted.check_announced(8, 0).is_err());
    }
}
