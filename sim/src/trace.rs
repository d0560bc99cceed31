//! What happened, as compact events: hashed as they come, the last of them always kept, all of them on demand.
//!
//! A file is `taipeitr`, a version byte, then the table of host names (count, then each as length and bytes), then the
//! events, each `dt ns, host, kind, field count, fields`, all numbers varints. Host 0 is the world itself.

use std::fmt;
use std::hash::{Hash, Hasher};

/// What an event is about. The class is in the name: W wire, E engine, D disk, F fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// W: a stream is asked for: stream, host.
    Connect = 1,
    /// W: a stream is open at this end: stream.
    Open = 2,
    /// W: bytes left: stream, bytes.
    Segment = 3,
    /// W: bytes were read: stream, bytes.
    Read = 4,
    /// W: a segment was lost and comes later: stream, bytes.
    Lost = 5,
    /// W: an end is closed: stream, why.
    Close = 6,
    /// W: an HTTP request arrived at an actor: actor, digest.
    Request = 7,
    /// W: an actor's answer: status, bytes.
    Answer = 8,
    /// E: an input: which, digest.
    Input = 16,
    /// E: an output: which, digest.
    Output = 17,
    /// E: a piece is finished: torrent, piece.
    Piece = 18,
    /// E: everything is there: torrent.
    Complete = 19,
    /// D: a job begins: job, cost in ns.
    Job = 32,
    /// D: a call failed on purpose: call.
    Failed = 33,
    /// F: a process begins: incarnation.
    Start = 48,
    /// F: a process ends: how, effects.
    Stop = 49,
    /// F: a fault that leaves the process alone begins or is over: which, effects, whether over.
    Fault = 50,
    /// The run's end: verdict.
    End = 64,
}

impl Kind {
    const ALL: [Self; 18] = [
        Self::Connect,
        Self::Open,
        Self::Segment,
        Self::Read,
        Self::Lost,
        Self::Close,
        Self::Request,
        Self::Answer,
        Self::Input,
        Self::Output,
        Self::Piece,
        Self::Complete,
        Self::Job,
        Self::Failed,
        Self::Start,
        Self::Stop,
        Self::Fault,
        Self::End,
    ];

    fn from_byte(byte: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u64 == byte)
    }
}

/// One event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the world began.
    pub at: u64,
    /// Where; 0 is the world itself.
    pub host: u32,
    /// What.
    pub kind: Kind,
    /// Its figures, by kind.
    pub fields: [u64; 3],
}

/// Recorder of a run.
#[derive(Debug)]
pub struct Trace {
    lanes: Fold,
    /// Once it is full, each event takes the place of the oldest.
    ring: Vec<Event>,
    count: u64,
    by_kind: [u64; 65],
    last_at: u64,
    file: Option<Vec<u8>>,
    stopped: bool,
}

impl Trace {
    /// Without events. `hosts` is what hosts are called from 1 on; `keep` keeps all events for [`Self::into_file`].
    pub fn new(hosts: &[String], keep: bool) -> Self {
        let file = keep.then(|| {
            let mut file = MAGIC.to_vec();
            varint(hosts.len() as u64, &mut file);
            for host in hosts {
                varint(host.len() as u64, &mut file);
                file.extend_from_slice(host.as_bytes());
            }
            file
        });
        Self {
            lanes: Fold::default(),
            ring: Vec::with_capacity(RING_EVENTS),
            count: 0,
            by_kind: [0; 65],
            last_at: 0,
            file,
            stopped: false,
        }
    }

    /// Something happened.
    pub fn event(&mut self, at: u64, host: u32, kind: Kind, fields: [u64; 3]) {
        if self.stopped {
            return;
        }
        self.lanes.pair(at, (u64::from(host) << 8) | kind as u64);
        self.lanes.pair(fields[0], fields[1]);
        self.lanes.pair(fields[2], 0);
        let event = Event { at, host, kind, fields };
        let place = self.count as usize % RING_EVENTS;
        match self.ring.get_mut(place) {
            Some(oldest) => *oldest = event,
            None => self.ring.push(event),
        }
        self.count += 1;
        self.by_kind[kind as usize] += 1;
        if let Some(file) = &mut self.file {
            // Hosts on turmoil take turns within a tick; in a file time does not run backwards.
            varint(at.saturating_sub(self.last_at), file);
            varint(u64::from(host), file);
            varint(kind as u64, file);
            let used = fields.iter().rposition(|field| *field != 0).map_or(0, |last| last + 1);
            varint(used as u64, file);
            fields.iter().take(used).for_each(|field| varint(*field, file));
        }
        self.last_at = self.last_at.max(at);
    }

    /// From here on nothing is recorded.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Events so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Events so far of a kind.
    pub fn count_of(&self, kind: Kind) -> u64 {
        self.by_kind[kind as usize]
    }

    /// The hash of all events so far: both lanes, 32 hexadecimal digits.
    pub fn hash(&self) -> String {
        self.lanes.hex()
    }

    /// The last events, oldest first.
    pub fn tail(&self, count: usize) -> impl Iterator<Item = &Event> {
        let (newer, older) = self.ring.split_at(self.count as usize % RING_EVENTS);
        older.iter().chain(newer).skip(self.ring.len().saturating_sub(count))
    }

    /// The file, when it was kept.
    pub fn into_file(self) -> Option<Vec<u8>> {
        self.file
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.fields;
        let (seconds, rest) = (self.at / 1_000_000_000, self.at % 1_000_000_000);
        write!(f, "{seconds:>4}.{rest:09} s  host {:<3} {:<8?} ", self.host, self.kind)?;
        match self.kind {
            // The second is a digest.
            Kind::Input | Kind::Output | Kind::Request => write!(f, "{a} {b:016x}"),
            _ => write!(f, "{a} {b} {c}"),
        }
    }
}

/// A trace file, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceFile {
    /// Names of hosts, from 1 on.
    pub hosts: Vec<String>,
    /// What happened.
    pub events: Vec<Event>,
}

impl TraceFile {
    /// Reads a trace file; none when it is not one, or is cut off.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut hosts = Vec::new();
        for _ in 0..take_varint(&mut rest)? {
            let length = usize::try_from(take_varint(&mut rest)?).ok()?;
            hosts.push(String::from_utf8(rest.split_off(..length)?.to_vec()).ok()?);
        }
        let (mut events, mut at) = (Vec::new(), 0u64);
        while !rest.is_empty() {
            at = at.checked_add(take_varint(&mut rest)?)?;
            let host = u32::try_from(take_varint(&mut rest)?).ok()?;
            let kind = Kind::from_byte(take_varint(&mut rest)?)?;
            let mut fields = [0; 3];
            for index in 0..usize::try_from(take_varint(&mut rest)?).ok()? {
                *fields.get_mut(index)? = take_varint(&mut rest)?;
            }
            events.push(Event { at, host, kind, fields });
        }
        Some(Self { hosts, events })
    }

    /// The number of the first event that differs; none when the files tell the same.
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        let longer = self.events.len().max(other.events.len());
        (0..longer).find(|index| self.events.get(*index) != other.events.get(*index))
    }
}

/// A running hash of two independent lanes of 64 bits, the same on every machine.
#[derive(Clone, Copy, Debug)]
struct Fold {
    a: u64,
    b: u64,
}

impl Default for Fold {
    fn default() -> Self {
        Self { a: LANE_A, b: LANE_B }
    }
}

impl Fold {
    /// Takes in twice 64 bits.
    fn pair(&mut self, first: u64, second: u64) {
        self.a = fold(self.a ^ first, 0x9e37_79b9_7f4a_7c15 ^ second);
        self.b = fold(self.b.rotate_left(23) ^ second, 0xd6e8_feb8_6659_fd93 ^ first).wrapping_add(first);
    }

    /// Both lanes, 32 hexadecimal digits.
    fn hex(&self) -> String {
        format!("{:016x}{:016x}", mix(self.a), mix(self.b))
    }
}

/// One lane, for the digest of a value: what is compared within a run.
#[derive(Clone, Copy, Debug)]
struct Digest(u64);

impl Digest {
    fn word(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word, 0x9e37_79b9_7f4a_7c15).wrapping_add(word);
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        mix(self.0)
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last));
        }
        self.word(bytes.len() as u64);
    }

    // One word each, and the same on machines of either width and byte order.
    fn write_u8(&mut self, value: u8) {
        self.word(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.word(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.word(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.word(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.word(value as u64);
    }
}

/// The digest of a value, the same on every machine.
pub fn digest<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut digest = Digest(LANE_A);
    value.hash(&mut digest);
    digest.finish()
}

/// Spreads the bits of a number over all of it.
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const LANE_A: u64 = 0x243f_6a88_85a3_08d3;
const LANE_B: u64 = 0x1319_8a2e_0370_7344;
const MAGIC: &[u8] = b"taipeitr\x01";
/// Kept in memory of every run, so that failures explain themselves; few, as they take the room of the engines' own in the
/// processor's cache.
const RING_EVENTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(last: u64) -> Trace {
        let mut trace = Trace::new(&["seed-1".to_owned()], true);
        trace.event(5, 1, Kind::Start, [1, 0, 0]);
        trace.event(1_000_000, 1, Kind::Segment, [0, 16_384, 0]);
        trace.event(1_000_000, 0, Kind::End, [u64::MAX, 0, last]);
        trace
    }

    #[test]
    fn one_bit_changes_the_hash() {
        assert_eq!(record(1).hash(), record(1).hash());
        assert_ne!(record(1).hash(), record(2).hash());
        assert_eq!(record(1).hash().len(), 32);
    }

    #[test]
    fn a_file_reads_back_as_what_happened() {
        let trace = record(7);
        let want: Vec<Event> = trace.tail(10).copied().collect();
        let file = TraceFile::parse(&trace.into_file().expect("kept")).expect("reads back");
        assert_eq!((file.hosts.as_slice(), &file.events), (["seed-1".to_owned()].as_slice(), &want));
        let other = TraceFile::parse(&record(8).into_file().expect("kept")).expect("reads back");
        assert_eq!(file.first_difference(&other), Some(2));
        assert_eq!(file.first_difference(&file), None);
        assert!(TraceFile::parse(b"something else").is_none());
    }

    #[test]
    fn the_last_events_are_kept_in_order_however_many_there_were() {
        let mut trace = Trace::new(&[], false);
        for at in 0..2 * RING_EVENTS as u64 + 3 {
            trace.event(at, 0, Kind::Job, [at, 0, 0]);
            let last: Vec<u64> = trace.tail(5).map(|event| event.at).collect();
            assert_eq!(last, (at.saturating_sub(4)..=at).collect::<Vec<u64>>());
        }
        assert_eq!(trace.tail(usize::MAX).count(), RING_EVENTS);
    }

    #[test]
    fn every_kind_has_its_byte() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_byte(kind as u64), Some(kind));
        }
    }
}
