//! What is seen of a real session while its recording is repeated: figures over time, peers, trackers, what happened.

use std::collections::{BTreeMap, VecDeque};

use taipei_engine::disk::{JobResult, Work};
use taipei_engine::metainfo::{Magnet, Metainfo, PathRules};
use taipei_engine::record::{Head, Witness};
use taipei_engine::wire::{Handshake, Message};
use taipei_engine::{
    Alert, Command, ConnectionId, InfoHash, Input, Instant, JobId, Output, PeerId, TorrentId, TorrentSource,
    TorrentState,
};

use super::words::{Names, url_shown};
use crate::observer::Moment;

/// A session, seen. It is as large however long the session was: what is kept of each kind is capped.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The version of the engine that was recorded.
    pub version: String,
    /// When the last input came, nanoseconds.
    pub ended_at: u64,
    /// What the torrents are called, by their handle: of as many as are known.
    pub torrents: BTreeMap<u32, String>,
    /// Bytes of all torrents, as far as it is known what they are.
    pub total_bytes: u64,
    /// Bytes that were verified; what is lost again is taken off.
    pub have: Bins,
    /// Bytes read from peers.
    pub down: Bins,
    /// Bytes written to peers.
    pub up: Bins,
    /// Connections opened less those closed.
    pub open: Bins,
    /// By number.
    pub peers: Vec<PeerSeen>,
    /// By number.
    pub trackers: Vec<TrackerSeen>,
    /// What people should know first, capped.
    pub happened: Vec<Moment>,
    /// What of that is left out after it.
    pub left_out: u64,
    /// What people should know of what came then, oldest first, capped.
    pub happened_last: VecDeque<Moment>,
    /// The last that happened at all, oldest first.
    pub last: VecDeque<Moment>,
    pub(super) names: Names,
    sizes: BTreeMap<TorrentId, Size>,
    by_hash: BTreeMap<InfoHash, TorrentId>,
    /// Those that find out what is here already.
    checks: BTreeMap<JobId, InfoHash>,
    connections: BTreeMap<ConnectionId, Open>,
    now: u64,
}

/// One peer: an address, or somebody who connected to us.
#[derive(Clone, Debug, Default)]
pub struct PeerSeen {
    /// Whether it connected to us.
    pub is_incoming: bool,
    /// Whether over IPv6.
    pub is_ipv6: bool,
    /// The program that it says it is, in the letters of its peer id (BEP 20).
    pub client: Option<String>,
    /// Its connections: from when to when.
    pub spans: Vec<(u64, u64)>,
    /// Dials that did not reach it.
    pub failed: u64,
    /// Payload that it gave.
    pub given: Bins,
    /// Payload that it was given.
    pub taken: Bins,
    /// How long it let us ask.
    pub unchoked_us_ns: u64,
    /// How long we let it ask.
    pub unchoked_it_ns: u64,
    /// When it was banned.
    pub banned_at: Option<u64>,
}

/// One tracker.
#[derive(Clone, Debug, Default)]
pub struct TrackerSeen {
    /// How it is reached, and the name of its host.
    pub shown: String,
    /// Its answers.
    pub answers: Bins,
    /// When it failed.
    pub failures: Bins,
    /// The most peers that it named at once.
    pub named_most: u32,
}

/// A sum over time, in at most [`BINS_MAX`] spans that grow as time does.
#[derive(Clone, Debug)]
pub struct Bins {
    width: u64,
    bins: Vec<i64>,
}

impl Default for Bins {
    fn default() -> Self {
        Self { width: WIDTH_LEAST, bins: Vec::new() }
    }
}

impl Bins {
    /// Adds to the span that `at` is in.
    pub fn add(&mut self, at: u64, amount: i64) {
        while at / self.width >= BINS_MAX {
            self.bins = self
                .bins
                .chunks(2)
                .map(|pair| pair.iter().fold(0, |a, b| i64::saturating_add(a, *b)))
                .collect();
            self.width = self.width.saturating_mul(2);
        }
        let bin = (at / self.width) as usize;
        if self.bins.len() <= bin {
            self.bins.resize(bin + 1, 0);
        }
        self.bins[bin] = self.bins[bin].saturating_add(amount);
    }

    /// Nanoseconds of a span.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// The sum of each span, from the first on.
    pub fn sums(&self) -> &[i64] {
        &self.bins
    }

    /// The sum of all.
    pub fn total(&self) -> i64 {
        self.bins.iter().fold(0, |a, b| a.saturating_add(*b))
    }
}

/// What is known of a torrent's size.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    total: u64,
    piece: u64,
    have: u64,
}

/// A connection under way, or a dial.
#[derive(Clone, Copy, Debug)]
struct Open {
    peer: usize,
    /// None: it is being dialled.
    since: Option<u64>,
    unchoked_us: Option<u64>,
    unchoked_it: Option<u64>,
}

impl Witness for Seen {
    fn begins(&mut self, head: &Head) {
        self.version = head
            .version
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || ".-+".contains(*c))
            .take(40)
            .collect();
    }

    fn input(&mut self, now: Instant, input: &Input) {
        // A recording may say anything; what is drawn is added to and multiplied.
        self.now = now.0.min(TIME_MAX);
        self.ended_at = self.ended_at.max(self.now);
        match input {
            Input::Accepted { connection, remote } => {
                let peer = self.peer(*remote);
                self.peers[peer].is_incoming = true;
                self.names.connect(*connection, peer);
                self.opened(*connection, peer, Some(self.now));
            }
            Input::Connected { connection, .. } => {
                if let Some(peer) = self.names.at_end(*connection) {
                    self.opened(*connection, peer, Some(self.now));
                }
            }
            Input::Closed { connection, .. } => self.closed(*connection),
            Input::Received { connection, read_bytes, messages } => {
                self.down.add(self.now, i64::from(*read_bytes));
                messages.iter().for_each(|message| self.heard(*connection, message));
            }
            Input::Sent { written_bytes, .. } => self.up.add(self.now, i64::from(*written_bytes)),
            Input::Command(Command::AddTorrent(add)) => match &add.source {
                TorrentSource::TorrentFile(file) => self.learn(add.torrent, file),
                TorrentSource::Magnet(link) => {
                    let name = Magnet::parse(link).ok().and_then(|magnet| magnet.name);
                    self.call(add.torrent, &name.unwrap_or_else(|| "a magnet link".to_owned()));
                }
            },
            Input::JobDone { job, result } => self.checked(*job, result),
            _ => {}
        }
        if !is_routine_in(input) {
            self.moment(self.names.input(input));
        }
        if let Input::JobDone { result, .. } = input
            && has_failed(result)
        {
            self.happens(self.names.input(input));
        }
        if let Input::Closed { connection, .. } = input {
            self.names.disconnect(*connection);
        }
    }

    fn output(&mut self, _: Instant, output: &Output) {
        match output {
            Output::Connect { connection, remote } => {
                let peer = self.peer(*remote);
                self.names.connect(*connection, peer);
                self.opened(*connection, peer, None);
            }
            Output::Close { connection } => self.closed(*connection),
            Output::Send { connection, messages } => {
                messages.iter().for_each(|message| self.told(*connection, message));
            }
            Output::Alert(alert) => self.alerted(alert),
            Output::Job { job, work } if matches!(work.work, Work::Open { .. } | Work::Check { .. }) => {
                self.checks.insert(*job, work.place.info_hash);
            }
            _ => {}
        }
        if !is_routine_out(output) {
            self.moment(self.names.output(output));
        }
        if let Output::Close { connection } = output {
            self.names.disconnect(*connection);
        }
    }
}

impl Seen {
    /// Nothing follows.
    pub(super) fn end(&mut self) {
        self.now = self.ended_at;
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.settle(connection);
        }
    }

    fn peer(&mut self, address: core::net::SocketAddr) -> usize {
        let peer = self.names.peer(address);
        if peer == self.peers.len() {
            self.peers.push(PeerSeen { is_ipv6: address.is_ipv6(), ..PeerSeen::default() });
        }
        peer
    }

    fn opened(&mut self, connection: ConnectionId, peer: usize, since: Option<u64>) {
        self.connections.insert(connection, Open { peer, since, unchoked_us: None, unchoked_it: None });
        if since.is_some() {
            self.open.add(self.now, 1);
        }
    }

    fn closed(&mut self, connection: ConnectionId) {
        if self.settle(connection) {
            self.open.add(self.now, -1);
        }
    }

    /// Adds up what a connection came to; whether it ever was one.
    fn settle(&mut self, connection: ConnectionId) -> bool {
        let Some(open) = self.connections.remove(&connection) else { return false };
        let (now, peer) = (self.now, &mut self.peers[open.peer]);
        let lasted = |since: Option<u64>| since.map_or(0, |since| now.saturating_sub(since));
        peer.unchoked_us_ns = peer.unchoked_us_ns.saturating_add(lasted(open.unchoked_us));
        peer.unchoked_it_ns = peer.unchoked_it_ns.saturating_add(lasted(open.unchoked_it));
        match open.since {
            None => peer.failed += 1,
            Some(since) if peer.spans.len() < SPANS_MAX => peer.spans.push((since, now)),
            // The last one stands for all that follow.
            Some(_) => peer.spans.last_mut().into_iter().for_each(|(_, end)| *end = now),
        }
        open.since.is_some()
    }

    fn heard(&mut self, connection: ConnectionId, message: &Message) {
        let now = self.now;
        let Some(open) = self.connections.get_mut(&connection) else { return };
        let peer = &mut self.peers[open.peer];
        match message {
            Message::Handshake(Handshake { peer_id, .. }) => peer.client = client(peer_id),
            Message::Unchoke => _ = open.unchoked_us.get_or_insert(now),
            Message::Choke => {
                let since = open.unchoked_us.take();
                peer.unchoked_us_ns =
                    peer.unchoked_us_ns.saturating_add(since.map_or(0, |since| now.saturating_sub(since)));
            }
            Message::Piece { data, .. } => peer.given.add(now, i64::from(data.len())),
            _ => {}
        }
    }

    fn told(&mut self, connection: ConnectionId, message: &Message) {
        let now = self.now;
        let Some(open) = self.connections.get_mut(&connection) else { return };
        let peer = &mut self.peers[open.peer];
        match message {
            Message::Unchoke => _ = open.unchoked_it.get_or_insert(now),
            Message::Choke => {
                let since = open.unchoked_it.take();
                peer.unchoked_it_ns =
                    peer.unchoked_it_ns.saturating_add(since.map_or(0, |since| now.saturating_sub(since)));
            }
            Message::Piece { data, .. } => peer.taken.add(now, i64::from(data.len())),
            _ => {}
        }
    }

    /// What a torrent is, is known.
    fn learn(&mut self, torrent: TorrentId, file: &[u8]) {
        let Ok(metainfo) = Metainfo::parse(file, PathRules::Unix) else { return };
        let layout = &metainfo.layout;
        let size = Size { total: layout.total_bytes(), piece: u64::from(layout.piece_length()), have: 0 };
        // One that was removed may come back.
        let before = self.sizes.insert(torrent, size).unwrap_or_default();
        self.total_bytes = self.total_bytes.saturating_sub(before.total).saturating_add(size.total);
        self.have.add(self.now, -i64::try_from(before.have).unwrap_or(i64::MAX));
        if let Some(hash) = metainfo.info_hashes.v1 {
            self.by_hash.insert(hash, torrent);
        }
        self.call(torrent, &metainfo.name);
    }

    fn call(&mut self, torrent: TorrentId, name: &str) {
        self.torrents.insert(torrent.0, name.chars().take(NAME_CHARS_MAX).collect());
    }

    /// What was here already is known; figures that come later say it to the byte.
    fn checked(&mut self, job: JobId, result: &JobResult) {
        let torrent = self.checks.remove(&job).and_then(|hash| self.by_hash.get(&hash).copied());
        let Some(torrent) = torrent else { return };
        match result {
            JobResult::Opened(Ok(opened)) => {
                self.has(torrent, |size| size.piece.saturating_mul(opened.have.count().into()));
            }
            JobResult::Checked(Ok(good)) => {
                let good = good.iter().filter(|good| **good).count() as u64;
                self.has(torrent, |size| size.have.saturating_add(size.piece.saturating_mul(good)));
            }
            _ => {}
        }
    }

    /// So much of a torrent is here now.
    fn has(&mut self, torrent: TorrentId, have: impl FnOnce(Size) -> u64) {
        let Some(size) = self.sizes.get_mut(&torrent) else { return };
        let have = have(*size).min(size.total);
        let more = have as i64 - size.have as i64;
        size.have = have;
        if more != 0 {
            self.have.add(self.now, more);
        }
    }

    fn alerted(&mut self, alert: &Alert) {
        match alert {
            Alert::MetadataReceived { torrent, torrent_file } => self.learn(*torrent, torrent_file),
            Alert::PieceFinished { torrent, .. } => {
                self.has(*torrent, |size| size.have.saturating_add(size.piece))
            }
            // It knows exactly: of pieces that were here before, and of the last one, which is shorter.
            Alert::Stats(stats) => self.has(stats.torrent, |_| stats.bytes_have),
            Alert::StateChanged { torrent, state: TorrentState::Seeding } => {
                self.has(*torrent, |size| size.total)
            }
            Alert::PeerBanned { address, .. } => {
                let peer = self.peer(*address);
                self.peers[peer].banned_at.get_or_insert(self.now);
            }
            Alert::Tracker { url, result, .. } => {
                let number = self.names.tracker(url);
                if number == self.trackers.len() {
                    self.trackers.push(TrackerSeen { shown: url_shown(url), ..TrackerSeen::default() });
                }
                let tracker = &mut self.trackers[number];
                match result {
                    Ok(peers) => {
                        tracker.answers.add(self.now, 1);
                        tracker.named_most = tracker.named_most.max(*peers);
                    }
                    Err(_) => tracker.failures.add(self.now, 1),
                }
            }
            _ => {}
        }
        if is_told(alert) {
            self.happens(self.names.output(&Output::Alert(alert.clone())));
        }
    }

    fn happens(&mut self, text: String) {
        let moment = Moment { at: self.now, host: None, text };
        if self.happened.len() < HAPPENED_FIRST_MAX {
            self.happened.push(moment);
            return;
        }
        if self.happened_last.len() == HAPPENED_LAST_MAX {
            self.happened_last.pop_front();
            self.left_out += 1;
        }
        self.happened_last.push_back(moment);
    }

    fn moment(&mut self, text: String) {
        if self.last.len() == MOMENTS_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(Moment { at: self.now, host: None, text });
    }
}

/// What people should know of.
fn is_told(alert: &Alert) -> bool {
    matches!(
        alert,
        Alert::AddFailed { .. }
            | Alert::StateChanged { .. }
            | Alert::MetadataReceived { .. }
            | Alert::PieceFailed { .. }
            | Alert::Completed { .. }
            | Alert::PeerBanned { .. }
            | Alert::DiskFailed { .. }
            | Alert::Removed { .. }
            | Alert::Stopped
    )
}

/// Asked for by whoever shows progress, or less than a message, and of no interest afterwards.
fn is_routine_in(input: &Input) -> bool {
    match input {
        Input::Timeout | Input::Sent { .. } => true,
        Input::Command(command) => matches!(command, Command::ReportStats { .. } | Command::ReportDht),
        Input::Received { messages, .. } => messages.is_empty(),
        _ => false,
    }
}

fn is_routine_out(output: &Output) -> bool {
    matches!(output, Output::Grant { .. } | Output::Alert(Alert::Stats(_) | Alert::Dht(_)))
}

fn has_failed(result: &JobResult) -> bool {
    match result {
        JobResult::Opened(result) => result.is_err(),
        JobResult::MetadataSaved(result)
        | JobResult::Allocated(result)
        | JobResult::Recorded(result)
        | JobResult::Saved(result) => result.is_err(),
        JobResult::Checked(result) => result.is_err(),
        JobResult::Written(result) => result.is_err(),
        JobResult::Hashed(result) => result.is_err(),
        JobResult::Read(result) => result.is_err(),
        JobResult::Looked(result) => result.is_err(),
        JobResult::MetadataLoaded(_) | JobResult::Closed => false,
    }
}

/// `-TR4050-` is "TR 4050". Whoever wrote the id chose it: no more than these six characters are taken.
fn client(id: &PeerId) -> Option<String> {
    let [b'-', a, b, version @ .., b'-'] = id.0.first_chunk::<8>()? else { return None };
    let is_fine =
        a.is_ascii_alphabetic() && b.is_ascii_alphanumeric() && version.iter().all(u8::is_ascii_alphanumeric);
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    is_fine.then(|| format!("{} {}", text(&[*a, *b]), text(version)))
}

/// Later than this is drawn as this: some decades.
const TIME_MAX: u64 = 1 << 60;
/// The spans of a short session are this long.
const WIDTH_LEAST: u64 = 20_000_000;
/// Spans that are told apart.
pub const BINS_MAX: u64 = 240;
/// Connections of one peer that are told apart.
const SPANS_MAX: usize = 100;
/// Of a torrent's name: as many as a file's name has bytes.
const NAME_CHARS_MAX: usize = 255;
const HAPPENED_FIRST_MAX: usize = 100;
const HAPPENED_LAST_MAX: usize = 200;
const MOMENTS_KEPT: usize = 40;

#[cfg(test)]
mod tests {
    use taipei_engine::Bitfield;
    use taipei_engine::disk::{Opened, Saved, Totals};

    use super::*;

    #[test]
    fn sums_stay_as_time_grows() {
        let mut bins = Bins::default();
        for second in 0..100_000u64 {
            bins.add(second * 1_000_000_000, 7);
        }
        assert_eq!(bins.total(), 700_000);
        assert!(bins.sums().len() as u64 <= BINS_MAX && bins.sums().len() as u64 > BINS_MAX / 2);
        let per_bin = (bins.width() / 1_000_000_000) as i64 * 7;
        assert!(bins.sums()[..100].iter().all(|sum| (sum - per_bin).abs() <= 7), "{bins:?}");
    }

    #[test]
    fn what_is_here_already_is_known_at_once_and_what_comes_last_is_kept() {
        let pieces = "x".repeat(60);
        let file = format!("d4:infod6:lengthi40000e4:name1:a12:piece lengthi16384e6:pieces60:{pieces}ee")
            .into_bytes();
        let hash = Metainfo::parse(&file, PathRules::Unix).expect("parses").info_hashes.v1.expect("its hash");
        let mut seen = Seen::default();
        seen.learn(TorrentId(0), &file);
        let have = Bitfield::full(1);
        let (unchecked, totals) = (Bitfield::new(3), Totals::default());
        let opened = JobResult::Opened(Ok(Opened { have, unchecked, totals, saved: Saved::Begun }));
        for (result, total) in [(opened, 16384), (JobResult::Checked(Ok(vec![true, true])), 40000)] {
            seen.checks.insert(JobId(1), hash);
            seen.checked(JobId(1), &result);
            assert_eq!(seen.have.total(), total);
        }
        // Removed, and added again.
        seen.learn(TorrentId(0), &file);
        assert_eq!((seen.have.total(), seen.total_bytes), (0, 40000));

        let most = HAPPENED_FIRST_MAX + HAPPENED_LAST_MAX;
        (0..most + 7).for_each(|number| seen.happens(number.to_string()));
        assert_eq!((seen.happened.len() + seen.happened_last.len(), seen.left_out), (most, 7));
        assert_eq!(seen.happened_last.back().map(|moment| moment.text.clone()), Some((most + 6).to_string()));
    }

    #[test]
    fn a_client_is_known_by_letters_alone() {
        let of = |id: &[u8; 20]| client(&PeerId(*id));
        assert_eq!(of(b"-TR4050-............").as_deref(), Some("TR 4050"));
        for other in [b"-1.2.3.-............", b"M7-9-2--............", b"-TR40<b-............"] {
            assert_eq!(of(other), None);
        }
    }
}
