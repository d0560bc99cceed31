//! Progress for people and programs: bars on a terminal, lines elsewhere, JSON for programs.
//!
//! Bars go to standard error, so that standard output holds results alone. Lines and JSON go to standard output.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use taipei_engine::{TorrentState, TorrentStats};

use crate::args::{DisplayArgs, Progress};
use crate::output::{bytes, count, duration, escape, print, print_json};

/// How progress is shown, once it is known where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Bars,
    Plain,
    Json,
    Silent,
}

fn way(display: DisplayArgs, log_on_terminal: bool) -> Way {
    match display.progress {
        Progress::Auto if display.json => Way::Json,
        // Log lines and bars on one terminal would tear each other apart.
        Progress::Auto if std::io::stderr().is_terminal() && !log_on_terminal => Way::Bars,
        Progress::Auto | Progress::Plain => Way::Plain,
        Progress::Bar => Way::Bars,
        Progress::Json => Way::Json,
        Progress::None => Way::Silent,
    }
}

/// Progress of hashing files, told from several threads.
pub(crate) struct HashProgress {
    way: Way,
    bar: ProgressBar,
    name: String,
    last_said: Mutex<Instant>,
}

impl HashProgress {
    /// Begins with nothing hashed.
    pub(crate) fn new(name: &str, total_bytes: u64, display: DisplayArgs) -> Self {
        let way = match way(display, false) {
            // The result is the one object that programs wait for.
            Way::Json if display.progress == Progress::Auto => Way::Silent,
            way => way,
        };
        let target =
            if way == Way::Bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target).with_style(style(HASH_BAR));
        bar.set_prefix(short(name));
        Self { way, bar, name: escape(name).into_owned(), last_said: Mutex::new(Instant::now()) }
    }

    /// So many bytes more were hashed.
    pub(crate) fn add(&self, bytes_done: u64) {
        self.bar.inc(bytes_done);
        if matches!(self.way, Way::Bars | Way::Silent) {
            return;
        }
        // Whoever does not get the lock has nothing to say: another thread is saying it.
        let Ok(mut last) = self.last_said.try_lock() else { return };
        if last.elapsed() < if self.way == Way::Json { JSON_EVERY } else { LINE_EVERY } {
            return;
        }
        *last = Instant::now();
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or_default());
        match self.way {
            Way::Json => {
                print_json(
                    &json!({ "event": "hashing", "name": self.name, "bytes": done, "bytes_total": total }),
                );
            }
            _ => eprintln!(
                "{}: hashed {} of {}, {}",
                self.name,
                bytes(done),
                bytes(total),
                percent(done, total)
            ),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

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
}

impl View {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: escape(name).into_owned(),
            stats: None,
            state: TorrentState::Opening,
            problem: None,
            is_done: false,
        }
    }

    /// What it is doing, in words.
    pub(crate) fn words(&self) -> String {
        let stats = self.stats.as_ref();
        if self.is_done && self.state == TorrentState::Seeding {
            return "complete".to_owned();
        }
        match self.state {
            TorrentState::Queued => "queued".to_owned(),
            TorrentState::Finished => "finished".to_owned(),
            TorrentState::Opening => "opening".to_owned(),
            TorrentState::Checking => "checking what is there".to_owned(),
            TorrentState::Downloading if stats.is_some_and(|stats| stats.peers == 0) => {
                "looking for peers".to_owned()
            }
            TorrentState::Downloading if stats.is_some_and(|stats| stats.endgame) => "last pieces".to_owned(),
            TorrentState::Downloading if stats.is_some_and(|stats| stats.download_rate == 0) => {
                "waiting".to_owned()
            }
            TorrentState::Downloading => "downloading".to_owned(),
            TorrentState::Seeding => "seeding".to_owned(),
            TorrentState::DiskError => {
                format!("paused: {}", self.problem.as_deref().unwrap_or("the disk failed"))
            }
            TorrentState::Stopping => "stopping".to_owned(),
            _ => "working".to_owned(),
        }
    }

    /// Bytes done and in all, of the check while there is one.
    fn done(&self) -> (u64, u64) {
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

    /// What stands right of the bar: columns that keep their places.
    fn columns(&self) -> String {
        let (done, total) = self.done();
        let percent = percent(done, total);
        let Some(stats) = &self.stats else { return format!("{percent:>7}  {}", self.words()) };
        let rate = match self.state {
            TorrentState::Downloading => format!("{}/s", bytes(stats.download_rate)),
            TorrentState::Seeding if !self.is_done => format!("up {}/s", bytes(stats.upload_rate)),
            _ => String::new(),
        };
        let eta = self.eta().map(|eta| format!("ETA {}", duration(eta))).unwrap_or_default();
        let peers = count(stats.peers.into(), "peer");
        let pieces = format!("{}/{} pieces", stats.pieces_have, stats.pieces_total);
        format!("{percent:>7}  {rate:>11}  {eta:<8}  {peers:>8}  {pieces}  {}", self.words())
    }

    /// What makes up a line.
    fn figures(&self) -> String {
        let (done, total) = self.done();
        let mut parts = vec![percent(done, total)];
        if let Some(stats) = &self.stats {
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
}

/// The live display of transfers: one line a torrent.
pub(crate) struct TransferProgress {
    way: Way,
    bars: MultiProgress,
    lines: Vec<ProgressBar>,
    last_said: Option<Instant>,
    last_words: Vec<String>,
}

impl TransferProgress {
    /// Begins with as many lines as there are torrents.
    pub(crate) fn new(views: &[View], display: DisplayArgs, log_on_terminal: bool) -> Self {
        let way = way(display, log_on_terminal);
        let target = if way == Way::Bars {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bars = MultiProgress::with_draw_target(target);
        let line = |view: &View| {
            let bar = bars.add(ProgressBar::new(1).with_style(style(TRANSFER_BAR)));
            bar.set_prefix(short(&view.name));
            bar
        };
        let lines = if way == Way::Bars { views.iter().map(line).collect() } else { Vec::new() };
        Self { way, bars, lines, last_said: None, last_words: vec![String::new(); views.len()] }
    }

    /// How often figures are wanted.
    pub(crate) fn interval(&self) -> Duration {
        if self.way == Way::Bars { BAR_EVERY } else { JSON_EVERY }
    }

    /// Whether programs are reading.
    pub(crate) fn is_json(&self) -> bool {
        self.way == Way::Json
    }

    /// Shows what is known now. `changed` is said at once, otherwise a line comes now and then.
    pub(crate) fn show(&mut self, views: &[View], changed: bool) {
        match self.way {
            Way::Silent => {}
            Way::Bars => {
                for (bar, view) in self.lines.iter().zip(views) {
                    let (done, total) = view.done();
                    bar.set_length(total.max(1));
                    bar.set_position(if total == 0 && view.is_done { 1 } else { done });
                    bar.set_message(view.columns());
                    bar.tick();
                }
            }
            Way::Plain => self.lines_for(views, changed, LINE_EVERY, |view| {
                print(format_args!("{}: {}", view.name, view.figures()))
            }),
            Way::Json => self.lines_for(views, changed, JSON_EVERY, |view| print_json(&progress_json(view))),
        }
    }

    fn lines_for(&mut self, views: &[View], changed: bool, every: Duration, say: impl Fn(&View)) {
        let now = Instant::now();
        let due = self.last_said.is_none_or(|last| now.duration_since(last) >= every);
        if !due && !changed {
            return;
        }
        if due {
            self.last_said = Some(now);
        }
        for (view, last_words) in views.iter().zip(&mut self.last_words) {
            let words = view.words();
            if due && !view.is_done || *last_words != words {
                say(view);
                *last_words = words;
            }
        }
    }

    /// Something happened that people should know, beside the figures.
    pub(crate) fn note(&self, name: &str, text: &str, event: impl FnOnce() -> Value) {
        match self.way {
            Way::Silent => {}
            Way::Bars => {
                let _ = self.bars.println(format!("{name}: {text}"));
            }
            Way::Plain => print(format_args!("{name}: {text}")),
            Way::Json => print_json(&event()),
        }
    }

    /// Something about the session itself, which bars leave out.
    pub(crate) fn announce(&self, text: &str, event: impl FnOnce() -> Value) {
        match self.way {
            Way::Silent | Way::Bars => {}
            Way::Plain => print(text),
            Way::Json => print_json(&event()),
        }
    }

    /// Takes the display away, and leaves what it showed last.
    pub(crate) fn finish(&self) {
        for bar in &self.lines {
            bar.abandon();
        }
    }
}

fn progress_json(view: &View) -> Value {
    let mut object =
        json!({ "event": "progress", "name": view.name, "state": view.state, "problem": view.problem });
    if let (Some(stats), Value::Object(object)) = (&view.stats, &mut object) {
        let figures = json!({
            "info_hash": stats.info_hash.to_string(), "pieces_have": stats.pieces_have, "pieces_total": stats.pieces_total,
            "bytes_have": stats.bytes_have, "bytes_wanted": stats.bytes_wanted, "bytes_left": stats.bytes_left, "bytes_total": stats.bytes_total, "bytes_checked": stats.bytes_checked,
            "downloaded_bytes": stats.downloaded_bytes, "uploaded_bytes": stats.uploaded_bytes,
            "wasted_bytes": stats.wasted_bytes, "download_rate": stats.download_rate, "upload_rate": stats.upload_rate,
            "peers": stats.peers, "seeds": stats.seeds, "candidates": stats.candidates, "endgame": stats.endgame,
            "eta_seconds": view.eta().map(|eta| eta.as_secs()),
        });
        if let Value::Object(figures) = figures {
            object.extend(figures);
        }
    }
    object
}

fn percent(done: u64, total: u64) -> String {
    if total == 0 {
        return "0.0 %".to_owned();
    }
    // Never 100.0 % before the end.
    let tenths = u128::from(done) * 1000 / u128::from(total);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// A name that leaves room for the bar.
fn short(name: &str) -> String {
    let name = escape(name);
    if name.chars().count() <= NAME_CHARS {
        return name.into_owned();
    }
    let begin: String = name.chars().take(NAME_CHARS - 1).collect();
    begin + "…"
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

/// Of a torrent beside its bar.
const NAME_CHARS: usize = 28;
const HASH_BAR: &str =
    "{prefix}  {wide_bar:.cyan/dim}  {percent:>3} %  {binary_bytes_per_sec}  ETA {eta}  hashing";
const TRANSFER_BAR: &str = "{prefix}  {wide_bar:.cyan/dim}  {msg}";
/// Between figures for a bar.
const BAR_EVERY: Duration = Duration::from_millis(200);
/// Between figures for programs.
const JSON_EVERY: Duration = Duration::from_secs(1);
/// Between lines where nothing but figures changes.
const LINE_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use taipei_engine::{InfoHash, TorrentId};

    use super::*;

    fn stats() -> TorrentStats {
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
            totals: taipei_engine::disk::Totals::default(),
            wasted_bytes: 0,
            download_rate: 12 << 20,
            upload_rate: 3 << 20,
            peers: 4,
            seeds: 1,
            candidates: 9,
            endgame: false,
        }
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_what() {
        let mut view = View::new("a\u{1b}b");
        assert_eq!(view.figures(), "0.0 %, opening");
        view.stats = Some(stats());
        let mut line = |state, change: &dyn Fn(&mut TorrentStats)| {
            let mut now = stats();
            change(&mut now);
            (view.stats, view.state) = (Some(now), state);
            view.figures()
        };
        use TorrentState::{Checking, DiskError, Downloading, Seeding, Stopping};
        let lines = [
            line(Checking, &|_| {}),
            line(Downloading, &|_| {}),
            line(Downloading, &|stats| (stats.peers, stats.download_rate) = (0, 0)),
            line(Downloading, &|stats| (stats.peers, stats.download_rate) = (1, 0)),
            line(Downloading, &|stats| stats.endgame = true),
            line(Downloading, &|stats| stats.bytes_left = 1),
            line(Seeding, &|stats| (stats.bytes_left, stats.pieces_have) = (0, stats.pieces_total)),
            line(DiskError, &|_| {}),
            line(Stopping, &|_| {}),
        ];
        insta::assert_snapshot!(lines.join("\n"));
        assert_eq!(view.name, "a\\u{1b}b");
    }

    #[test]
    fn long_names_are_cut_for_the_bar() {
        assert_eq!(short("short"), "short");
        assert_eq!(short(&"ä".repeat(40)).chars().count(), NAME_CHARS);
    }

    #[test]
    fn programs_get_lines_and_logs_keep_bars_away() {
        let args = |json, progress| DisplayArgs { json, progress };
        assert_eq!(way(args(true, Progress::Auto), false), Way::Json);
        assert_eq!(way(args(true, Progress::Plain), false), Way::Plain);
        assert_eq!(way(args(false, Progress::Auto), true), Way::Plain);
        assert_eq!(way(args(false, Progress::Bar), true), Way::Bars);
        assert_eq!(way(args(false, Progress::None), false), Way::Silent);
    }
}
