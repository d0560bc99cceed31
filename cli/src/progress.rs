//! Progress for people and programs: bars on a terminal, lines elsewhere, JSON for programs.
//!
//! Bars go to standard error, so that standard output holds results alone. Lines and JSON go to standard output. However
//! many torrents there are, the display is bounded: the busiest have a line, and one line more is about all of them.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use console::{Term, measure_text_width, truncate_str};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::args::{DisplayArgs, Progress};
use crate::output::{Failure, bytes, escape, fail, print, print_json, tell};
use crate::view::{Columns, NAME_MAX, Rank, View, percent, summary};

/// How progress is shown, once it is known where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Bars,
    Plain,
    Json,
    Silent,
}

fn way(display: DisplayArgs, is_terminal: bool, log_on_terminal: bool) -> Way {
    match display.progress {
        _ if display.quiet => Way::Silent,
        Progress::Auto if display.json => Way::Json,
        // Log lines and bars on one terminal would tear each other apart.
        Progress::Auto if is_terminal && !log_on_terminal => Way::Bars,
        Progress::Bar if is_terminal => Way::Bars,
        Progress::Auto | Progress::Bar | Progress::Plain => Way::Plain,
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
        let way = match way(display, std::io::stderr().is_terminal(), false) {
            // The result is the one object that programs wait for.
            Way::Json if display.progress == Progress::Auto => Way::Silent,
            way => way,
        };
        let target =
            if way == Way::Bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target).with_style(style(hash_bar()));
        let name = escape(name).into_owned();
        bar.set_prefix(truncate_str(&name, NAME_MAX.min(columns() / 3), "…").into_owned());
        Self { way, bar, name, last_said: Mutex::new(Instant::now()) }
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
            _ => tell(format_args!(
                "{}: hashed {} of {}, {}",
                self.name,
                bytes(done),
                bytes(total),
                percent(done, total)
            )),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The live display of transfers.
pub(crate) struct TransferProgress {
    way: Way,
    /// Whether standard output is for programs; then what is for people goes to standard error.
    for_programs: bool,
    bars: MultiProgress,
    /// With the columns that its bar has now.
    lines: Vec<(ProgressBar, usize)>,
    /// Which torrent each line is about.
    shown: Vec<usize>,
    /// The line about all of them.
    summary: Option<ProgressBar>,
    torrents: usize,
    last_said: Option<Instant>,
    last_words: Vec<String>,
}

impl TransferProgress {
    /// Of so many torrents.
    pub(crate) fn new(torrents: usize, display: DisplayArgs, log_on_terminal: bool) -> Self {
        let way = way(display, std::io::stderr().is_terminal(), log_on_terminal);
        let target = if way == Way::Bars {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            way,
            for_programs: display.is_for_programs(),
            bars: MultiProgress::with_draw_target(target),
            lines: Vec::new(),
            shown: Vec::new(),
            summary: None,
            torrents,
            last_said: None,
            last_words: vec![String::new(); torrents],
        }
    }

    /// How often figures are wanted.
    pub(crate) fn interval(&self) -> Duration {
        if self.way == Way::Bars && self.are_few() { BAR_EVERY } else { JSON_EVERY }
    }

    /// Whether each torrent is shown.
    pub(crate) fn are_few(&self) -> bool {
        self.torrents <= LINES_MAX
    }

    /// Whether each event is an object.
    pub(crate) fn is_json(&self) -> bool {
        self.way == Way::Json
    }

    /// Whether the result is an object.
    pub(crate) fn is_for_programs(&self) -> bool {
        self.for_programs
    }

    /// Shows at once what changed of one torrent. Among very many bars that waits for the next look.
    pub(crate) fn show_one(&mut self, views: &[View], index: usize) {
        let (for_programs, is_one_of_few) = (self.for_programs, self.are_few());
        match self.way {
            Way::Silent => {}
            Way::Bars if is_one_of_few => self.draw(views),
            Way::Bars => {}
            Way::Plain => self.say_if_new(views, index, is_one_of_few, |view| {
                line(for_programs, format_args!("{}: {}", view.name, view.figures()));
            }),
            Way::Json => self.say_if_new(views, index, true, |view| print_json(&view.json())),
        }
    }

    /// Shows what is known now. `changed` is said at once, otherwise a line comes now and then.
    pub(crate) fn show(&mut self, views: &mut [View], changed: bool) {
        match self.way {
            Way::Silent => {}
            Way::Bars => self.draw(views),
            Way::Plain => {
                let for_programs = self.for_programs;
                let is_due = self.say_lines(views, changed, LINE_EVERY, self.are_few(), |view| {
                    line(for_programs, format_args!("{}: {}", view.name, view.figures()));
                });
                if is_due && !self.are_few() {
                    line(self.for_programs, summary(views));
                }
            }
            Way::Json => {
                // Of very many, only what changed is said again.
                let all = self.are_few();
                self.say_lines(views, changed, JSON_EVERY, all, |view| print_json(&view.json()));
            }
        }
    }

    fn draw(&mut self, views: &[View]) {
        let (rows, width) = Term::stderr().size();
        // A line is left to the prompt, and one to what is told meanwhile.
        let lines = LINES_MAX.min(usize::from(rows).saturating_sub(2)).max(1);
        let ranks: Vec<Rank> = views.iter().map(View::rank).collect();
        choose(
            &mut self.shown,
            &ranks,
            if views.len() > lines { lines.saturating_sub(1).max(1) } else { lines },
        );
        let name = views.iter().map(|view| measure_text_width(&view.name)).max().unwrap_or_default();
        let columns = Columns::new(width.into(), name);
        self.fit(views.len() > lines);
        for ((bar, bar_width), view) in
            self.lines.iter_mut().zip(self.shown.iter().map(|torrent| &views[*torrent]))
        {
            let (done, total) = view.done();
            let line = view.line(&columns);
            if *bar_width != line.bar {
                *bar_width = line.bar;
                bar.set_style(transfer_bar(line.bar));
            }
            bar.set_length(total.max(1));
            bar.set_position(if total == 0 && view.is_done && !view.has_failed { 1 } else { done });
            bar.set_prefix(line.name);
            bar.set_message(line.right);
            bar.tick();
        }
        if let Some(bar) = &self.summary {
            let all = summary(views);
            bar.set_message(truncate_str(&all, usize::from(width).saturating_sub(1), "…").into_owned());
            bar.tick();
        }
    }

    /// As many lines as torrents are shown.
    fn fit(&mut self, with_summary: bool) {
        if with_summary && self.summary.is_none() {
            self.summary = Some(self.bars.add(ProgressBar::new(1).with_style(style("{msg}"))));
        } else if !with_summary && let Some(bar) = self.summary.take() {
            self.bars.remove(&bar);
        }
        while self.lines.len() > self.shown.len()
            && let Some((bar, _)) = self.lines.pop()
        {
            self.bars.remove(&bar);
        }
        while self.lines.len() < self.shown.len() {
            let bar = ProgressBar::new(1).with_style(transfer_bar(0));
            self.lines.push((self.bars.insert(self.lines.len(), bar), 0));
        }
    }

    /// Says what changed, and all that is under way when that is due and `all` may be said. Whether it was due.
    fn say_lines(
        &mut self,
        views: &mut [View],
        changed: bool,
        every: Duration,
        all: bool,
        say: impl Fn(&View),
    ) -> bool {
        let now = Instant::now();
        let due = self.last_said.is_none_or(|last| now.duration_since(last) >= every);
        if !due && !changed {
            return false;
        }
        if due {
            self.last_said = Some(now);
        }
        let exactly = all || self.way == Way::Json;
        for index in 0..views.len() {
            let view = &mut views[index];
            let is_new = std::mem::take(&mut view.is_new);
            let is_said = due && !view.is_done && !view.has_failed;
            if is_said && (all || exactly && is_new && view.is_busy()) {
                say(view);
                self.last_words[index] = view.words();
            } else if all || is_new {
                self.say_if_new(views, index, exactly, &say);
            }
        }
        due
    }

    /// Says what a torrent does, if that is another thing than it said last; `exactly`: or if its figures are others.
    fn say_if_new(&mut self, views: &[View], index: usize, exactly: bool, say: impl Fn(&View)) {
        let (Some(view), Some(last_words)) = (views.get(index), self.last_words.get_mut(index)) else {
            return;
        };
        if view.has_failed {
            return;
        }
        let words = view.words();
        if if exactly { *last_words != words } else { word(last_words) != word(&words) } {
            say(view);
            *last_words = words;
        }
    }

    /// Something happened that people should know, beside the figures.
    pub(crate) fn note(&self, name: &str, text: &str, event: impl FnOnce() -> Value) {
        match self.way {
            Way::Silent => {}
            Way::Bars => {
                let _ = self.bars.println(format!("{name}: {text}"));
            }
            Way::Plain => line(self.for_programs, format_args!("{name}: {text}")),
            Way::Json => print_json(&event()),
        }
    }

    /// For people, on standard error, and not through the bars.
    pub(crate) fn tell(&self, text: &str) {
        self.bars.suspend(|| tell(text));
    }

    /// A torrent is out.
    pub(crate) fn fail(&self, failure: &Failure) {
        self.bars.suspend(|| fail(failure, self.for_programs));
    }

    /// Something about the session itself, which bars leave out.
    pub(crate) fn announce(&self, text: &str, event: impl FnOnce() -> Value) {
        match self.way {
            Way::Silent | Way::Bars => {}
            Way::Plain => line(self.for_programs, text),
            Way::Json => print_json(&event()),
        }
    }

    /// Takes the display away, and leaves what it showed last.
    pub(crate) fn finish(&self) {
        self.lines.iter().map(|(bar, _)| bar).chain(&self.summary).for_each(ProgressBar::abandon);
    }
}

/// Which torrents have a line: those that do most. One that has a line keeps it, and its place, while nobody without one
/// does more.
fn choose(shown: &mut Vec<usize>, ranks: &[Rank], lines: usize) {
    if ranks.len() <= lines {
        *shown = (0..ranks.len()).collect();
        return;
    }
    shown.truncate(lines);
    let mut others: Vec<usize> = (0..ranks.len()).filter(|torrent| !shown.contains(torrent)).collect();
    others.sort_by_key(|torrent| ranks[*torrent]);
    let mut others = others.into_iter();
    while shown.len() < lines
        && let Some(torrent) = others.next()
    {
        shown.push(torrent);
    }
    for torrent in others {
        let idlest = shown.iter_mut().max_by_key(|shown| ranks[**shown]);
        if let Some(idlest) = idlest.filter(|idlest| ranks[**idlest] > ranks[torrent]) {
            *idlest = torrent;
        }
    }
}

/// A line for people.
fn line(to_error: bool, text: impl fmt::Display) {
    if to_error {
        tell(text);
    } else {
        print(text);
    }
}

/// What a torrent does without how much of it.
fn word(words: &str) -> &str {
    words.split([':', ',']).next().unwrap_or(words)
}

/// Of the terminal.
fn columns() -> usize {
    Term::stderr().size().1.into()
}

/// A line whose bar has so many columns.
fn transfer_bar(width: usize) -> ProgressStyle {
    match width {
        0 => style("{prefix}  {msg}"),
        width => style(&format!("{{prefix}}  {{bar:{width}.cyan/dim}}  {{msg}}")),
    }
}

fn hash_bar() -> &'static str {
    if columns() < 80 { HASH_BAR_NARROW } else { HASH_BAR }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

const HASH_BAR: &str =
    "{prefix}  {wide_bar:.cyan/dim}  {percent:>3} %  {binary_bytes_per_sec}  ETA {eta}  hashing";
const HASH_BAR_NARROW: &str = "{prefix}  {percent:>3} %  hashing";
/// Torrents with a line of their own.
const LINES_MAX: usize = 20;
/// Between figures for a bar.
const BAR_EVERY: Duration = Duration::from_millis(200);
/// Between figures for programs, and of very many torrents.
const JSON_EVERY: Duration = Duration::from_secs(1);
/// Between lines where nothing but figures changes.
const LINE_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_lines_and_logs_keep_bars_away() {
        let args = |json, progress| DisplayArgs { json, progress, quiet: false };
        assert_eq!(way(args(true, Progress::Auto), true, false), Way::Json);
        assert_eq!(way(args(true, Progress::Plain), true, false), Way::Plain);
        assert_eq!(way(args(false, Progress::Auto), true, true), Way::Plain);
        assert_eq!(way(args(false, Progress::Auto), true, false), Way::Bars);
        assert_eq!(way(args(false, Progress::Auto), false, false), Way::Plain);
        assert_eq!(way(args(false, Progress::Bar), true, true), Way::Bars);
        assert_eq!(way(args(false, Progress::Bar), false, false), Way::Plain, "nobody would see them");
        assert_eq!(way(args(false, Progress::None), true, false), Way::Silent);
        assert_eq!(way(args(false, Progress::Json), true, false), Way::Json);
        assert_eq!(way(DisplayArgs { quiet: true, ..args(true, Progress::Bar) }, true, false), Way::Silent);
    }

    #[test]
    fn the_busiest_have_the_lines_and_keep_their_places() {
        use Rank::{Over, Queued, Seeding, Working};
        let check = |before: &[usize], ranks: &[Rank], lines: usize, want: &[usize]| {
            let mut shown = before.to_vec();
            choose(&mut shown, ranks, lines);
            assert_eq!(shown, want, "{before:?} {ranks:?}");
        };
        check(&[], &[Over, Working], 2, &[0, 1]);
        check(&[], &[Queued, Working, Seeding, Working], 2, &[1, 3]);
        check(&[1, 3], &[Working; 4], 2, &[1, 3]);
        check(&[1, 3], &[Working, Over, Working, Working], 2, &[0, 3]);
        check(&[1, 3], &[Over, Over, Queued, Over], 2, &[1, 2]);
        check(&[0, 1, 2], &[Working, Working, Working, Queued], 1, &[0]);
    }
}
