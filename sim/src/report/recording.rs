//! The page of a recording: one real session against peers whose links nobody knows, so there is no bound to hold it
//! against. It is made to be shown to others: nobody's address is in it, and no passkey.

use std::fmt::Write as _;

use super::page::{CommandLine, Text, bytes, figures, legend, page, section, time};
use super::plot::{self, HEIGHT, Scale, WIDTH, area, dots, labels_below, line, place, svg};
use crate::observer::Moment;
use crate::recording::{Bins, Ending, Failure, PeerSeen, Replay, Seen, peer_name, tracker_name};

/// The page of a recording that was replayed. `name` is what its file is called.
pub fn recording_page(replay: &Replay, name: &str) -> String {
    let picture = Picture { seen: &replay.seen, most: 1.max(replay.seen.ended_at) };
    let torrents: Vec<&str> = picture.seen.torrents.values().map(String::as_str).collect();
    let title = match torrents[..] {
        [] => "No torrent".to_owned(),
        [one] => one.to_owned(),
        [first, ..] => format!("{first} and {} more", torrents.len() - 1),
    };
    let (has_failed, verdict, says) = verdict(replay);
    let mut body = format!(
        "<p class=\"kicker\">taipei-sim, a recording of a real session, by version {}</p>\n<h1>{}</h1>\n\
         <p class=\"verdict {}\">{}</p>\n<p>{}</p>\n<p class=\"says\">This line repeats it:</p>\n<pre>{}</pre>",
        Text(&picture.seen.version),
        Text(&title),
        if has_failed { "fail" } else { "pass" },
        Text(&verdict),
        Text(&says),
        CommandLine(&format!("taipei-sim replay {name}")),
    );
    body.push_str(&picture.figures());
    let parts = [
        difference(replay),
        picture.completion(),
        picture.rates(),
        picture.connections(),
        picture.lanes(),
        picture.table(),
        picture.trackers(),
        picture.happened(),
        last_events(picture.seen),
    ];
    body.extend(parts);
    page(&format!("{title}: {verdict}"), &body)
}

/// Whether it is a failure, what came of it, and a sentence about that.
fn verdict(replay: &Replay) -> (bool, String, String) {
    let done = match &replay.outcome {
        Ok(done) => done,
        Err(Failure::Differs { same, among: 1, .. }) => {
            let says = format!(
                "The engine asks for something else than it did then, on account of input {same}. All before that is the \
                 same. Another version of the engine may do so without being wrong."
            );
            return (true, format!("Not repeated: input {same} at {}", time(replay.seen.ended_at)), says);
        }
        Err(Failure::Differs { same, among, .. }) => {
            let last = same + among - 1;
            let says = format!(
                "The engine asks for something else than it did then, somewhere in inputs {same} to {last}. All before \
                 them is the same. Another version of the engine may do so without being wrong."
            );
            return (true, format!("Not repeated: inputs {same} to {last}"), says);
        }
        Err(Failure::Broken { place, .. }) => {
            let says =
                "It met what cannot happen to it, which is a bug. The last events are below.".to_owned();
            let at = if place.is_empty() { String::new() } else { format!(" at {place}") };
            return (true, format!("The engine gave up{at}"), says);
        }
    };
    let same = format!("All {} outputs came again from {} inputs", done.outputs, done.inputs);
    match done.ending {
        Ending::Finished => {
            (false, "Repeated to the byte".to_owned(), format!("{same}, to the session's end."))
        }
        Ending::Full => {
            let says =
                format!("{same}. There the recording was as large as it might be, and the session went on.");
            (false, "Repeated to the byte, as far as it was recorded".to_owned(), says)
        }
        Ending::Damaged(damage) if damage.is_cut() => (
            false,
            "Repeated to the byte, but its end is missing".to_owned(),
            format!("{same}. Of the file: {damage}."),
        ),
        Ending::Damaged(damage) => (
            true,
            "Damaged: repeated as far as it is whole".to_owned(),
            format!("{same}. Of the file: {damage}."),
        ),
    }
}

/// All that the pictures are drawn from.
struct Picture<'a> {
    seen: &'a Seen,
    /// The right edge, nanoseconds.
    most: u64,
}

impl Picture<'_> {
    fn x(&self, at: u64) -> u64 {
        place(at, self.most, WIDTH)
    }

    fn figures(&self) -> String {
        let Self { seen, .. } = self;
        let sum = |of: fn(&PeerSeen) -> &Bins| {
            seen.peers.iter().fold(0, |sum: u64, peer| sum.saturating_add(count(of(peer).total())))
        };
        let met = seen.peers.iter().filter(|peer| !peer.spans.is_empty()).count();
        figures(&[
            ("recorded", time(seen.ended_at)),
            ("size", if seen.total_bytes > 0 { bytes(seen.total_bytes) } else { "not known".to_owned() }),
            ("payload received", bytes(sum(|peer| &peer.given))),
            ("payload sent", bytes(sum(|peer| &peer.taken))),
            ("peers connected", format!("{met} of {}", seen.peers.len())),
            ("trackers", seen.trackers.len().to_string()),
        ])
    }

    /// Sums from the start to the end of each span.
    fn so_far(&self, bins: &Bins, most: u64) -> Vec<(u64, u64)> {
        let mut sum = 0i64;
        let mut points = vec![(0, HEIGHT)];
        for (number, more) in (1u64..).zip(bins.sums()) {
            sum = sum.saturating_add(*more);
            points.push((self.x(number * bins.width()), HEIGHT - place(count(sum), most, HEIGHT)));
        }
        let last = points.last().map_or(HEIGHT, |(_, y)| *y);
        points.push((WIDTH, last));
        points
    }

    /// Bits per second in each span.
    fn rate(&self, bins: &Bins) -> Vec<(u64, u64)> {
        let rates = bins.sums().iter().map(|sum| {
            let bits = u128::from(count(*sum)) * 8_000_000_000 / u128::from(bins.width());
            u64::try_from(bits).map_or(RATE_MAX, |bits| bits.min(RATE_MAX))
        });
        let mut points: Vec<(u64, u64)> = (0u64..)
            .zip(rates)
            .map(|(number, bits)| ((number * bins.width() + bins.width() / 2).min(self.most), bits))
            .collect();
        // Nothing came after the last span.
        let end = bins.sums().len() as u64 * bins.width();
        if end < self.most {
            points.extend([(end, 0), (self.most, 0)]);
        }
        points
    }

    /// One where anything came, in the middle of its span.
    fn dots(&self, class: &str, bins: &Bins) -> String {
        let spans = (0u64..).zip(bins.sums()).filter(|(_, sum)| **sum > 0);
        dots(class, spans.map(|(span, _)| (self.x(span * bins.width() + bins.width() / 2), HEIGHT / 2)))
    }

    fn completion(&self) -> String {
        if self.seen.total_bytes == 0 {
            return String::new();
        }
        let have = self.so_far(&self.seen.have, self.seen.total_bytes);
        let inside = area("pale", &have, HEIGHT) + &line("bold", &have);
        let plot = plot::plot(
            220,
            "share of the payload over time",
            &Scale::time(self.most),
            &Scale::share(),
            &inside,
            "",
        );
        section(
            "How much it has",
            "Verified payload of all torrents over time. A level stretch is where nothing new came.",
            &plot,
        )
    }

    fn rates(&self) -> String {
        let x = Scale::time(self.most);
        let plot = |bins: &Bins, unit: &'static str, title: &str| {
            let points = self.rate(bins);
            let most = points.iter().map(|(_, bits)| *bits).max().unwrap_or(0);
            let scale = Scale::figures(most.max(1000), 1_000_000, unit);
            let points: Vec<(u64, u64)> = points
                .iter()
                .map(|(at, bits)| (self.x(*at), HEIGHT - place(*bits, scale.most, HEIGHT)))
                .collect();
            plot::plot(130, title, &x, &scale, &(area("pale", &points, HEIGHT) + &line("", &points)), "")
        };
        let down = plot(&self.seen.down, "Mbit/s received", "bytes received over time");
        let up = plot(&self.seen.up, "Mbit/s sent", "bytes sent over time");
        section("How fast bytes moved", "From and to all peers, messages included.", &(down + &up))
    }

    fn connections(&self) -> String {
        let bins = &self.seen.open;
        let highest = bins.sums().iter().scan(0i64, |open, more| {
            *open = open.saturating_add(*more);
            Some(count(*open))
        });
        let scale = Scale::figures(highest.max().unwrap_or(0), 1, "connections at the end of each span");
        let points = self.so_far(bins, scale.most);
        let inside = area("pale", &points, HEIGHT) + &line("", &points);
        let plot = plot::plot(110, "connections over time", &Scale::time(self.most), &scale, &inside, "");
        section("How many connections there were", "Those that came about, both ways.", &plot)
    }

    /// Peers that are drawn: those that moved most, then those that were connected longest.
    fn chosen(&self, most: usize) -> Vec<usize> {
        let weight = |peer: &PeerSeen| {
            let connected = peer.spans.iter().fold(0, |sum: u64, (from, to)| sum.saturating_add(to - from));
            (count(peer.given.total()) + count(peer.taken.total()), connected, peer.failed)
        };
        let mut chosen: Vec<usize> = (0..self.seen.peers.len()).collect();
        chosen.sort_by_key(|peer| (std::cmp::Reverse(weight(&self.seen.peers[*peer])), *peer));
        chosen.truncate(most);
        chosen
    }

    fn note(&self, drawn: usize) -> String {
        match self.seen.peers.len() {
            all if all > drawn => format!(
                "<p class=\"note\">{drawn} of {all} peers are shown: those with which most payload was exchanged, then \
                 those that were connected longest.</p>\n"
            ),
            _ => String::new(),
        }
    }

    fn lanes(&self) -> String {
        let chosen = self.chosen(LANES_MAX);
        if chosen.is_empty() {
            return String::new();
        }
        let mut lanes = String::from("<div class=\"lanes\">");
        for number in &chosen {
            let peer = &self.seen.peers[*number];
            let mut inside = String::new();
            for (from, to) in &peer.spans {
                let (from, to) = (self.x(*from), self.x(*to));
                let _ = write!(
                    inside,
                    "<rect class=\"a pale\" x=\"{from}\" width=\"{}\" height=\"{HEIGHT}\"/>",
                    to.saturating_sub(from).max(10)
                );
            }
            // Received above the middle, sent below it, each against the most that any span of this peer has.
            let highest = peer.given.sums().iter().chain(peer.taken.sums()).copied().max().map_or(1, count);
            for (bins, class, is_down) in [(&peer.given, "", false), (&peer.taken, "shade", true)] {
                let mut bars = String::new();
                for (span, sum) in (0u64..).zip(bins.sums()).filter(|(_, sum)| **sum > 0) {
                    let (from, to) = (self.x(span * bins.width()), self.x((span + 1) * bins.width()));
                    let high = place(count(*sum), highest, HEIGHT / 2).max(40);
                    let top = if is_down { HEIGHT / 2 } else { HEIGHT / 2 - high };
                    let wide = to.saturating_sub(from).max(1);
                    let _ = write!(bars, "M{from} {top}h{wide}v{high}h-{wide}z");
                }
                if !bars.is_empty() {
                    let _ = write!(inside, "<path class=\"a {class}\" d=\"{bars}\"/>");
                }
            }
            inside.push_str(&dots("ink", peer.banned_at.map(|at| (self.x(at), HEIGHT / 2))));
            let name = peer_name(*number);
            let _ = writeln!(
                lanes,
                "<div class=\"{}\" title=\"{1}\">{1}</div><div class=\"lane\">{2}</div>",
                if peer.banned_at.is_some() { "hit" } else { "" },
                Text(&name),
                svg(&name, HEIGHT, &inside)
            );
        }
        let _ = writeln!(lanes, "<div></div>{}</div>", labels_below(&Scale::time(self.most)));
        let mut entries = vec![
            ("pale", "connected"),
            ("blue", "payload received from it"),
            ("shade", "payload sent to it"),
        ];
        if chosen.iter().any(|peer| self.seen.peers[*peer].banned_at.is_some()) {
            entries.push(("dot ink", "banned"));
        }
        section(
            "Peers, over time",
            "One lane a peer, those with which most was exchanged first. The height of each lane is that peer's own most.",
            &(legend(&entries) + &lanes + &self.note(chosen.len())),
        )
    }

    fn table(&self) -> String {
        let chosen = self.chosen(ROWS_MAX);
        if chosen.is_empty() {
            return String::new();
        }
        let mut table = String::from(
            "<table class=\"wide\"><thead><tr><th>peer</th><th>program</th><th class=\"more\">how</th><th class=\"num\">\
             it gave</th><th class=\"num more\">it let us ask</th><th class=\"num\">it was given</th><th class=\"num more\">\
             we let it ask</th><th class=\"num\">connections</th></tr></thead>\n",
        );
        for number in &chosen {
            let peer = &self.seen.peers[*number];
            let failed = if peer.failed > 0 { format!(", {} failed", peer.failed) } else { String::new() };
            let _ = writeln!(
                table,
                "<tr class=\"{}\"><td class=\"key\">{}{}</td><td>{}</td><td class=\"more\">{}, {}</td><td class=\"num\">{}</td>\
                 <td class=\"num more\">{}</td><td class=\"num\">{}</td><td class=\"num more\">{}</td>\
                 <td class=\"num\">{}{failed}</td></tr>",
                if peer.banned_at.is_some() { "broken" } else { "" },
                peer_name(*number),
                if peer.banned_at.is_some() { ", banned" } else { "" },
                Text(peer.client.as_deref().unwrap_or("-")),
                if peer.is_incoming { "it dialled" } else { "we dialled" },
                if peer.is_ipv6 { "IPv6" } else { "IPv4" },
                bytes(count(peer.given.total())),
                time(peer.unchoked_us_ns),
                bytes(count(peer.taken.total())),
                time(peer.unchoked_it_ns),
                peer.spans.len(),
            );
        }
        table.push_str("</table>\n");
        section(
            "Who served us, and whom we served",
            "Payload, and how long each side unchoked the other, that is, let it ask. A program is named by the letters of \
             its peer id.",
            &(table + &self.note(chosen.len())),
        )
    }

    fn trackers(&self) -> String {
        let trackers = &self.seen.trackers;
        if trackers.is_empty() {
            return String::new();
        }
        let mut lanes = String::from("<div class=\"lanes\">");
        let mut table = String::from(
            "<table><thead><tr><th>tracker</th><th>where</th><th class=\"num\">answers</th><th class=\"num\">most peers \
             named</th><th class=\"num\">failures</th></tr></thead>\n",
        );
        for (number, tracker) in trackers.iter().enumerate().take(LANES_MAX) {
            let name = tracker_name(number);
            let inside = self.dots("", &tracker.answers) + &self.dots("orange", &tracker.failures);
            let _ =
                writeln!(lanes, "<div>{name}</div><div class=\"lane\">{}</div>", svg(&name, HEIGHT, &inside));
            let _ = writeln!(
                table,
                "<tr><td class=\"key\">{name}</td><td>{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td>\
                 <td class=\"num\">{}</td></tr>",
                Text(&tracker.shown),
                tracker.answers.total(),
                tracker.named_most,
                tracker.failures.total()
            );
        }
        let _ = writeln!(lanes, "<div></div>{}</div>", labels_below(&Scale::time(self.most)));
        table.push_str("</table>\n");
        if trackers.len() > LANES_MAX {
            let _ = writeln!(
                table,
                "<p class=\"note\">The first {LANES_MAX} of {} are shown.</p>",
                trackers.len()
            );
        }
        section(
            "Trackers",
            "What each answered, and when. Why one failed is left out, as a tracker may say there who we are.",
            &(legend(&[("dot blue", "it answered"), ("dot orange", "it failed")]) + &lanes + &table),
        )
    }

    fn happened(&self) -> String {
        if self.seen.happened.is_empty() {
            return String::new();
        }
        let mut log = log(self.seen.happened.iter());
        if self.seen.left_out > 0 {
            let _ = writeln!(log, "<p class=\"note\">Here {} are left out.</p>", self.seen.left_out);
        }
        if !self.seen.happened_last.is_empty() {
            log.push_str(&self::log(self.seen.happened_last.iter()));
        }
        section(
            "What happened",
            "States of torrents, errors of the disk, pieces that did not fit their hash, bans. The newest is at the bottom.",
            &log,
        )
    }
}

/// What differs, in words.
fn difference(replay: &Replay) -> String {
    let Err(Failure::Differs { among, words, .. }) = &replay.outcome else { return String::new() };
    let at = replay.seen.ended_at;
    let moments: Vec<Moment> =
        words.iter().map(|text| Moment { at, host: None, text: text.clone() }).collect();
    let says = match among {
        1 => {
            "The input, and what the engine asks for now on account of it. Then it asked for something else."
        }
        _ => {
            "The last of the inputs among which the difference is, and what the engine asks for now on account of it."
        }
    };
    section("What differs", says, &log(moments.iter()))
}

fn last_events(seen: &Seen) -> String {
    section(
        "The last events",
        "What the engine was told and asked for before the end, without what is routine. The newest is at the bottom.",
        &log(seen.last.iter()),
    )
}

fn log<'a>(moments: impl Iterator<Item = &'a Moment>) -> String {
    let mut log = String::from("<div class=\"log plain\">");
    for moment in moments {
        let at = moment.at / 1_000;
        let _ = writeln!(
            log,
            "<span>{}.{:06} s</span><p>{}</p>",
            at / 1_000_000,
            at % 1_000_000,
            Text(&moment.text)
        );
    }
    log.push_str("</div>\n");
    log
}

/// A sum that should not be less than nothing.
fn count(sum: i64) -> u64 {
    u64::try_from(sum).unwrap_or(0)
}

/// A rate that is higher is drawn as this, bits per second.
const RATE_MAX: u64 = 1 << 60;
const LANES_MAX: usize = 32;
const ROWS_MAX: usize = 60;
