//! What is known of a torrent under way, and how that is said: its state in words, its figures, and the line of it that
//! fits a terminal of so many columns.

use std::collections::BTreeMap;
use std::time::Duration;

use console::{measure_text_width, truncate_str};
use serde_json::{Value, json};
use taipei_engine::{TorrentState, TorrentStats};

use crate::output::{bytes, count, duration, escape};

/// What is known of a torrent under way.
pub(crate) struct View {
    /// Its name, escaped.
    pub(crate) name: String,
    /// The newest figures.
    pub(crate) stats: Option<TorrentStats>,
    /// Its state now.
    pub(crate) state: TorrentState,
    /// What keeps it from going on.
    pub(crate) problem: Option<String>,
    /// Whether it needs no line any more.
    pub(crate) is_done: bool,
    /// Whether it is out.
    pub(crate) has_failed: bool,
    /// From the beginning until all that is wanted was there.
    pub(crate) whole_after: Option<Duration>,
    /// Trackers in all.
    trackers: usize,
    /// Those that were asked, and whether they answered.
    asked: BTreeMap<String, bool>,
    /// Nodes of the DHT that are known; none: it is not used.
    pub(crate) dht_nodes: Option<u32>,
    /// Whether something came since it was last shown.
    pub(crate) is_new: bool,
}

/// How much a torrent is worth a line where there are not enough of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Working,
    Seeding,
    Queued,
    Over,
}

impl View {
    /// Of a torrent with so many trackers, before anything is known.
    pub(crate) fn new(name: &str, trackers: usize) -> Self {
        Self {
            name: escape(name).into_owned(),
            stats: None,
            state: TorrentState::Opening,
            problem: None,
            is_done: false,
            has_failed: false,
            whole_after: None,
            trackers,
            asked: BTreeMap::new(),
            dht_nodes: None,
            is_new: true,
        }
    }

    /// A tracker answered, or did not.
    pub(crate) fn on_tracker(&mut self, url: &str, answered: bool) {
        self.asked.insert(url.to_owned(), answered);
    }

    pub(crate) fn rank(&self) -> Rank {
        match self.state {
            _ if self.is_done => Rank::Over,
            TorrentState::Finished | TorrentState::Stopping => Rank::Over,
            TorrentState::Queued => Rank::Queued,
            TorrentState::Seeding => Rank::Seeding,
            _ => Rank::Working,
        }
    }

    /// Whether there is something to see: it works, or bytes move.
    pub(crate) fn is_busy(&self) -> bool {
        let moves = |stats: &TorrentStats| stats.download_rate > 0 || stats.upload_rate > 0;
        !self.has_failed && (self.rank() == Rank::Working || self.stats.as_ref().is_some_and(moves))
    }

    /// What it is doing, in words.
    pub(crate) fn words(&self) -> String {
        match self.state {
            _ if self.has_failed => "failed".to_owned(),
            TorrentState::Seeding if self.is_done => "complete".to_owned(),
            TorrentState::Queued => "queued".to_owned(),
            TorrentState::Finished => format!("seeding goal reached{}", self.ratio()),
            TorrentState::FetchingMetadata => self.fetching_metadata(),
            TorrentState::Opening => "opening".to_owned(),
            TorrentState::Checking => "checking what is there".to_owned(),
            TorrentState::Downloading => self.downloading(),
            TorrentState::Seeding => format!("seeding{}", self.ratio()),
            TorrentState::DiskError => self.problem.clone().unwrap_or_else(|| "waiting for disk".to_owned()),
            TorrentState::Stopping => "stopping".to_owned(),
            _ => "working".to_owned(),
        }
    }

    fn downloading(&self) -> String {
        match &self.stats {
            Some(stats) if stats.peers == 0 => self.looking_for_peers(stats.candidates),
            Some(stats) if stats.endgame => "last pieces".to_owned(),
            Some(stats) if stats.download_rate == 0 => "waiting for peers to send".to_owned(),
            _ => "downloading".to_owned(),
        }
    }

    fn fetching_metadata(&self) -> String {
        let Some(stats) = &self.stats else { return "looking for peers".to_owned() };
        match stats.metadata {
            _ if stats.peers == 0 => self.looking_for_peers(stats.candidates),
            Some(metadata) if metadata.peers > 0 => format!(
                "fetching metadata: {} of {} from {}",
                bytes(metadata.bytes_have.into()),
                bytes(metadata.bytes_total.into()),
                count(metadata.peers.into(), "peer")
            ),
            _ => format!("waiting for metadata: {}, none has it", count(stats.peers.into(), "peer")),
        }
    }

    fn looking_for_peers(&self, known: u32) -> String {
        let failed = self.asked.values().filter(|answered| !**answered).count();
        let trackers = |number: usize| count(number as u64, "tracker");
        let what = match (known, self.asked.len()) {
            (1.., _) => format!("{known} known, none connected"),
            (0, _) if self.trackers == 0 => "no tracker to ask".to_owned(),
            (0, 0) => format!("asking {}", trackers(self.trackers)),
            (0, asked) if failed == asked => format!("{failed} of {} failed", trackers(self.trackers)),
            (0, asked) => format!("{} asked, 0 peers", trackers(asked)),
        };
        match self.dht_nodes.map(|nodes| count(nodes.into(), "DHT node")) {
            Some(nodes) if known == 0 && self.trackers == 0 => format!("looking for peers: {nodes}, 0 peers"),
            Some(nodes) if known == 0 => format!("looking for peers: {what}, {nodes}"),
            _ => format!("looking for peers: {what}"),
        }
    }

    /// `, ratio 0.42`: of what was wanted, as much was sent, over all runs.
    fn ratio(&self) -> String {
        let Some(stats) = self.stats.as_ref().filter(|stats| stats.bytes_wanted > 0) else {
            return String::new();
        };
        let hundredths = u128::from(stats.totals.uploaded) * 100 / u128::from(stats.bytes_wanted);
        format!(", ratio {}.{:02}", hundredths / 100, hundredths % 100)
    }

    /// Bytes done and in all, of the check while there is one.
    pub(crate) fn done(&self) -> (u64, u64) {
        match &self.stats {
            Some(stats) if self.state == TorrentState::Checking => (stats.bytes_checked, stats.bytes_total),
            Some(stats) => (stats.bytes_wanted.saturating_sub(stats.bytes_left), stats.bytes_wanted),
            None => (0, 0),
        }
    }

    /// The time left at the present rate.
    fn eta(&self) -> Option<Duration> {
        let stats = self.stats.as_ref().filter(|stats| stats.download_rate > 0)?;
        let left = stats.bytes_left;
        (self.state == TorrentState::Downloading)
            .then(|| Duration::from_secs(left.div_ceil(stats.download_rate)))
    }

    /// Whether its figures say what it is doing better than words do.
    fn is_moving(&self) -> bool {
        self.state == TorrentState::Downloading
            && !self.has_failed
            && self.stats.as_ref().is_some_and(|stats| stats.peers > 0 && stats.download_rate > 0)
    }

    /// What stands right of the bar. Figures keep their places; words take the places of all after the percentage.
    fn right(&self, columns: &Columns) -> String {
        let (done, total) = self.done();
        let percent = percent(done, total);
        match self.stats.as_ref().filter(|_| self.is_moving()) {
            None if self.state == TorrentState::FetchingMetadata => format!("{:>7}  {}", "", self.words()),
            None => format!("{percent:>7}  {}", self.words_and_rate()),
            Some(stats) => {
                let mut text = format!("{percent:>7}  {:>11}", format!("{}/s", bytes(stats.download_rate)));
                if columns.eta {
                    let eta = self.eta().map(|eta| format!("ETA {}", duration(eta))).unwrap_or_default();
                    text += &format!("  {eta:<11}");
                }
                if columns.peers {
                    text += &format!("  {:>9}", count(stats.peers.into(), "peer"));
                }
                if columns.pieces {
                    text += &format!("  {}/{} pieces", stats.pieces_have, stats.pieces_total);
                }
                text
            }
        }
    }

    fn words_and_rate(&self) -> String {
        let words = self.words();
        match self.stats.as_ref().filter(|_| self.rank() == Rank::Seeding) {
            Some(stats) => {
                format!("{words}, up {}/s, {}", bytes(stats.upload_rate), count(stats.peers.into(), "peer"))
            }
            None => words,
        }
    }

    /// What it is on a line of these columns. Words that have no room otherwise take that of the bar, then of the name.
    pub(crate) fn line(&self, columns: &Columns) -> Line {
        let right = self.right(columns);
        let wanted = measure_text_width(&right);
        let room = columns.width.saturating_sub(1 + GAP);
        let has_bar = columns.bar > 0 && wanted <= columns.right;
        let (name, right_max) = if has_bar {
            (columns.name, columns.right)
        } else {
            let name = room.saturating_sub(wanted).clamp(columns.name.min(NAME_MIN), columns.name);
            (name, room.saturating_sub(name))
        };
        let cut = truncate_str(&self.name, name, "…");
        let pad = " ".repeat(name.saturating_sub(measure_text_width(&cut)));
        Line {
            name: format!("{cut}{pad}"),
            bar: if has_bar { columns.bar } else { 0 },
            right: truncate_str(&right, right_max, "…").into_owned(),
        }
    }

    /// What makes up a line without a bar.
    pub(crate) fn figures(&self) -> String {
        let (done, total) = self.done();
        if self.state == TorrentState::FetchingMetadata {
            return self.words();
        }
        let mut parts = vec![percent(done, total)];
        if let Some(stats) = self.stats.as_ref().filter(|_| !self.is_done && !self.has_failed) {
            match self.state {
                TorrentState::Downloading => parts.push(format!("{}/s", bytes(stats.download_rate))),
                TorrentState::Seeding => parts.push(format!("up {}/s", bytes(stats.upload_rate))),
                _ => {}
            }
            parts.extend(self.eta().map(|eta| format!("ETA {}", duration(eta))));
            if matches!(self.state, TorrentState::Downloading | TorrentState::Seeding) {
                parts.push(count(stats.peers.into(), "peer"));
            }
            parts.push(format!("{}/{} pieces", stats.pieces_have, stats.pieces_total));
        }
        parts.push(self.words());
        parts.join(", ")
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let mut object = json!({
            "event": "progress", "name": self.name, "state": self.state, "problem": self.problem, "words": self.words(),
        });
        if let (Some(stats), Value::Object(object)) = (&self.stats, &mut object) {
            let figures = json!({
                "info_hash": stats.info_hash.to_string(), "pieces_have": stats.pieces_have, "pieces_total": stats.pieces_total,
                "bytes_have": stats.bytes_have, "bytes_wanted": stats.bytes_wanted, "bytes_left": stats.bytes_left, "bytes_total": stats.bytes_total, "bytes_checked": stats.bytes_checked,
                "downloaded_bytes": stats.downloaded_bytes, "uploaded_bytes": stats.uploaded_bytes,
                "wasted_bytes": stats.wasted_bytes, "download_rate": stats.download_rate, "upload_rate": stats.upload_rate,
                "peers": stats.peers, "seeds": stats.seeds, "candidates": stats.candidates, "endgame": stats.endgame,
                "eta_seconds": self.eta().map(|eta| eta.as_secs()),
            });
            if let Value::Object(figures) = figures {
                object.extend(figures);
            }
            if let Some(metadata) = stats.metadata {
                object.insert("metadata_bytes_have".to_owned(), metadata.bytes_have.into());
                object.insert("metadata_bytes_total".to_owned(), metadata.bytes_total.into());
                object.insert("metadata_peers".to_owned(), metadata.peers.into());
            }
        }
        object
    }
}

/// All torrents on one line: how many do what, and how fast they are together.
pub(crate) fn summary(views: &[View]) -> String {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for kind in views.iter().map(kind) {
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, number)) => *number += 1,
            None => kinds.push((kind, 1)),
        }
    }
    kinds.sort_unstable();
    let kinds: Vec<String> = kinds.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
    let sum = |rate: fn(&TorrentStats) -> u64| -> u64 {
        views.iter().filter(|view| !view.is_done).filter_map(|view| view.stats.as_ref()).map(rate).sum()
    };
    let (down, up) = (sum(|stats| stats.download_rate), sum(|stats| stats.upload_rate));
    let torrents = count(views.len() as u64, "torrent");
    format!("{torrents}: down {}/s, up {}/s; {}", bytes(down), bytes(up), kinds.join(", "))
}

/// What it is doing, in a word.
fn kind(view: &View) -> &'static str {
    match view.state {
        _ if view.has_failed => "failed",
        TorrentState::Seeding if view.is_done => "complete",
        TorrentState::Queued => "queued",
        TorrentState::FetchingMetadata => "fetching metadata",
        TorrentState::Opening | TorrentState::Checking => "checking",
        TorrentState::Downloading => "downloading",
        TorrentState::Seeding => "seeding",
        TorrentState::Finished => "finished",
        TorrentState::DiskError => "waiting for disk",
        _ => "stopping",
    }
}

/// A torrent on a line, with [`GAP`] columns between its parts.
pub(crate) struct Line {
    pub(crate) name: String,
    /// Columns; 0: there is none.
    pub(crate) bar: usize,
    pub(crate) right: String,
}

/// How the columns of a terminal are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    /// In all. The last stays free: with it, a terminal would go to the next line.
    width: usize,
    /// For the name.
    name: usize,
    /// For the bar; 0: there is none.
    bar: usize,
    /// For all that stands right of the bar.
    right: usize,
    eta: bool,
    peers: bool,
    pieces: bool,
}

impl Columns {
    /// For a terminal this wide, and names of at most so many columns. What matters least goes first: pieces, peers, the
    /// bar, the time left.
    pub(crate) fn new(width: usize, name: usize) -> Self {
        let name = name.min(NAME_MAX).min(width / 3);
        let room = width.saturating_sub(name + 1);
        let fits =
            |figures: usize| room.checked_sub(GAP + figures + GAP + BAR_MIN).map(|more| more + BAR_MIN);
        let (bar, eta, peers, pieces) = if let Some(bar) = fits(RATE + ETA + PEERS + PIECES) {
            (bar.min(BAR_MAX), true, true, true)
        } else if let Some(bar) = fits(RATE + ETA + PEERS) {
            (bar.min(BAR_MAX), true, true, false)
        } else if let Some(bar) = fits(RATE + ETA) {
            (bar.min(BAR_MAX), true, false, false)
        } else {
            let room = room.saturating_sub(GAP);
            (0, room >= RATE + ETA, room >= RATE + ETA + PEERS, false)
        };
        let right = room.saturating_sub(if bar > 0 { GAP + bar + GAP } else { GAP });
        Self { width, name, bar, right, eta, peers, pieces }
    }
}

/// `43.0 %`; never 100.0 % before the end.
pub(crate) fn percent(done: u64, total: u64) -> String {
    if total == 0 {
        return "0.0 %".to_owned();
    }
    let tenths = u128::from(done) * 1000 / u128::from(total);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// Of a name beside its bar.
pub(crate) const NAME_MAX: usize = 28;
/// Of a name beside words that need the room.
const NAME_MIN: usize = 12;
const BAR_MIN: usize = 10;
const BAR_MAX: usize = 40;
/// Between name, bar and the rest.
const GAP: usize = 2;
/// Percentage and speed.
const RATE: usize = 7 + 2 + 11;
/// What each of these adds.
const ETA: usize = 2 + 11;
const PEERS: usize = 2 + 9;
const PIECES: usize = 2 + 18;

#[cfg(test)]
pub(crate) mod tests {
    use taipei_engine::disk::Totals;
    use taipei_engine::{InfoHash, MetadataStats, TorrentId};

    use super::*;

    pub(crate) fn stats() -> TorrentStats {
        TorrentStats {
            torrent: TorrentId(0),
            info_hash: InfoHash([7; 20]),
            state: TorrentState::Downloading,
            pieces_have: 310,
            pieces_total: 720,
            bytes_have: 310 << 18,
            bytes_total: 720 << 18,
            bytes_wanted: 720 << 18,
            bytes_left: 410 << 18,
            bytes_checked: 100 << 18,
            downloaded_bytes: 310 << 18,
            uploaded_bytes: 0,
            totals: Totals { downloaded: 310 << 18, uploaded: 303 << 18 },
            wasted_bytes: 0,
            download_rate: 12 << 20,
            upload_rate: 3 << 20,
            peers: 4,
            seeds: 1,
            candidates: 9,
            metadata: None,
            endgame: false,
        }
    }

    /// Every state that people meet.
    fn views() -> Vec<View> {
        use TorrentState::{
            Checking, DiskError, Downloading, FetchingMetadata, Finished, Queued, Seeding, Stopping,
        };
        let view = |state, change: &dyn Fn(&mut View, &mut TorrentStats)| {
            let (mut view, mut now) = (View::new("a\u{1b}b", 3), stats());
            view.state = state;
            change(&mut view, &mut now);
            view.stats = Some(now);
            view
        };
        let alone = |stats: &mut TorrentStats| {
            (stats.peers, stats.candidates, stats.download_rate, stats.upload_rate) = (0, 0, 0, 0);
        };
        let whole =
            |stats: &mut TorrentStats| (stats.bytes_left, stats.pieces_have) = (0, stats.pieces_total);
        vec![
            View::new("a name that is much too long for any of the bars", 0),
            view(Queued, &|_, stats| alone(stats)),
            view(FetchingMetadata, &|_, stats| (stats.peers, stats.candidates) = (0, 0)),
            view(FetchingMetadata, &|_, stats| stats.download_rate = 0),
            view(FetchingMetadata, &|_, stats| {
                stats.metadata = Some(MetadataStats { bytes_have: 1 << 15, bytes_total: 50_000, peers: 2 });
            }),
            view(Checking, &|_, _| {}),
            view(Downloading, &|_, _| {}),
            view(Downloading, &|_, stats| stats.endgame = true),
            view(Downloading, &|_, stats| stats.download_rate = 0),
            view(Downloading, &|_, stats| (stats.peers, stats.download_rate) = (0, 0)),
            view(Downloading, &|_, stats| alone(stats)),
            view(Downloading, &|view, stats| {
                alone(stats);
                view.trackers = 0;
            }),
            view(Downloading, &|view, stats| {
                alone(stats);
                (view.trackers, view.dht_nodes) = (0, Some(31));
            }),
            view(Downloading, &|view, stats| {
                alone(stats);
                view.dht_nodes = Some(1);
            }),
            view(Downloading, &|view, stats| {
                alone(stats);
                ["a", "b", "c"].iter().for_each(|url| view.on_tracker(url, *url == "c"));
            }),
            view(Downloading, &|view, stats| {
                alone(stats);
                ["a", "b"].iter().for_each(|url| view.on_tracker(url, false));
            }),
            view(Downloading, &|_, stats| stats.bytes_left = 1),
            view(Seeding, &|_, stats| whole(stats)),
            view(Seeding, &|view, stats| {
                whole(stats);
                view.is_done = true;
            }),
            view(Finished, &|_, stats| whole(stats)),
            view(DiskError, &|view, _| {
                view.problem = Some("waiting for disk: 12.0 MiB more needed on /mnt/films".to_owned());
            }),
            view(Stopping, &|_, _| {}),
            view(Downloading, &|view, _| (view.has_failed, view.is_done) = (true, true)),
        ]
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_what() {
        let lines: Vec<String> = views().iter().map(View::figures).collect();
        insta::assert_snapshot!(lines.join("\n"));
        assert_eq!(views()[1].name, "a\\u{1b}b");
    }

    #[test]
    fn lines_fit_terminals_of_any_width() {
        let views = views();
        let mut shown = String::new();
        for width in [20, 40, 60, 80, 100, 140] {
            let columns = Columns::new(width, 40);
            shown += &format!("{width}\n");
            for view in &views {
                let Line { name, bar, right } = view.line(&columns);
                let bar = if bar > 0 { format!("  {}", "━".repeat(bar)) } else { String::new() };
                shown += format!("{name}{bar}  {right}").trim_end();
                shown += "\n";
            }
        }
        insta::assert_snapshot!(shown);
        for width in 10..300 {
            for name in [1, 10, 40] {
                let columns = Columns::new(width, name);
                for view in &views {
                    let Line { name, bar, right } = view.line(&columns);
                    let bar = if bar > 0 { GAP + bar } else { 0 };
                    let line = measure_text_width(&name) + bar + GAP + measure_text_width(&right);
                    assert!(line < width, "{width} {columns:?} {name}|{right}");
                }
            }
        }
    }

    #[test]
    fn wide_characters_count_twice() {
        let line = View::new(&"電".repeat(30), 0).line(&Columns::new(80, 60));
        assert_eq!(measure_text_width(&line.name), 26);
    }

    #[test]
    fn all_torrents_fit_on_one_line() {
        insta::assert_snapshot!(summary(&views()));
    }
}
