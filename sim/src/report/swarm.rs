//! The pictures of a run: who had how much when, what struck whom, and who gave what to whom.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::page::{Text, bytes, legend, section, time};
use super::plot::{self, HEIGHT, Scale, WIDTH, area, dots, labels_below, line, percent, place, svg};
use crate::observer::{HostEvent, Observer, Sample};
use crate::plan::{Action, Materials, Plan};
use crate::run::Outcome;
use crate::scenario::FaultKind;

/// All that the pictures of a run are drawn from.
pub(super) struct Picture<'a> {
    pub(super) materials: &'a Materials,
    pub(super) plan: &'a Plan,
    pub(super) outcome: &'a Outcome,
    pub(super) observer: &'a Observer,
}

impl Picture<'_> {
    fn end(&self) -> u64 {
        self.observer.ended_at.max(1)
    }

    fn x(&self, at: u64) -> u64 {
        place(at, self.end(), WIDTH)
    }

    /// The host that a broken rule blames.
    pub(super) fn blamed(&self) -> Option<usize> {
        let violation = self.outcome.violation.as_ref()?;
        self.plan.hosts.iter().position(|host| host.name == violation.host)
    }

    /// When the last was complete of all that had to be, and which that was; none when some were not.
    pub(super) fn last_complete(&self) -> Option<(u64, usize)> {
        let ends = self.plan.fetching().map(|host| Some((self.observer.hosts[host].completed_at?, host)));
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The least time in which all can be complete, by the rates of links.
    pub(super) fn bound(&self) -> Option<u64> {
        self.plan.fluid_bound_of_all(self.materials.total_bytes())
    }

    /// Hosts that are drawn one by one: all, or those that say most.
    fn drawn(&self, hosts: &[usize], most: usize) -> Vec<usize> {
        if hosts.len() <= most {
            return hosts.to_vec();
        }
        let struck = self.plan.faults.iter().filter_map(|fault| fault.action.host());
        let mut by_end: Vec<usize> = hosts.to_vec();
        by_end.sort_by_key(|host| {
            std::cmp::Reverse(self.observer.hosts[*host].completed_at.unwrap_or(u64::MAX))
        });
        let seeds = hosts.iter().copied().filter(|host| self.plan.hosts[*host].has_all).take(most / 8);
        let slow = by_end.iter().copied().take(most / 4);
        let spread = (0..most).map(|number| by_end[number * by_end.len() / most]);
        let mut chosen = BTreeSet::new();
        for host in self.blamed().into_iter().chain(seeds).chain(slow).chain(struck).chain(spread) {
            if chosen.len() < most && hosts.contains(&host) {
                chosen.insert(host);
            }
        }
        chosen.into_iter().collect()
    }

    /// A note where not all are drawn.
    fn note(&self, drawn: usize, all: usize) -> String {
        if drawn == all {
            return String::new();
        }
        format!(
            "<p class=\"note\">{drawn} of {all} hosts are drawn: whoever is blamed or was struck, the slowest, and some \
             of the others.</p>\n"
        )
    }

    /// When the rule broke, as a line over a plot.
    fn failure(&self) -> (String, String) {
        let Some(violation) = &self.outcome.violation else { return (String::new(), String::new()) };
        let at = violation.at_ns;
        let side = if place(at, self.end(), 100) > 50 { "left" } else { "" };
        let tag = format!(
            "<span class=\"tag bad {side}\" style=\"left:{};top:0\">{} broke</span>",
            percent(at, self.end()),
            Text(violation.oracle)
        );
        (line("bad dash", &[(self.x(at), 0), (self.x(at), HEIGHT)]), tag)
    }

    fn curve(&self, value: impl Fn(&Sample) -> u64, most: u64) -> Vec<(u64, u64)> {
        let samples = self.observer.times().zip(&self.observer.samples);
        samples.map(|(at, sample)| (self.x(at), HEIGHT - place(value(sample), most, HEIGHT))).collect()
    }

    /// How much of the payload each host has.
    pub(super) fn completion(&self) -> String {
        let all: Vec<usize> = self.plan.fetching().collect();
        let drawn = self.drawn(&all, CURVES_MAX);
        let total = self.materials.total_bytes();
        let curve = |host: usize| self.curve(|sample| sample.hosts[host].have_bytes, total);
        let last = self.last_complete().map(|(_, host)| host);
        let blamed = self.blamed().filter(|host| all.contains(host));
        let slowest = last.or(blamed).or_else(|| {
            let have =
                |host: &usize| self.observer.samples.last().map(|sample| sample.hosts[*host].have_bytes);
            all.iter().copied().min_by_key(|host| (have(host), *host))
        });
        let (mut inside, mut tags) = self.failure();
        let class = if drawn.len() > 8 { "thin" } else { "" };
        for host in drawn.iter().filter(|host| Some(**host) != slowest) {
            inside.push_str(&line(class, &curve(*host)));
        }
        if let Some(host) = slowest {
            inside.push_str(&line("slow", &curve(host)));
        }
        let mut entries = Vec::new();
        let slow_words;
        if all.len() > 1 {
            entries.push(("line blue", "each host that began with nothing"));
        }
        if let Some(host) = slowest {
            let name = &self.plan.hosts[host].name;
            slow_words = match last {
                Some(_) => format!("{name}, the last to be complete"),
                None if blamed.is_some() => format!("{name}, which is blamed"),
                None => format!("{name}, which has least at the end"),
            };
            entries.push(("line orange", slow_words.as_str()));
        }
        if let Some(bound) = self.bound() {
            let bound_line =
                [(0, HEIGHT), (self.x(bound), HEIGHT - place(self.end().min(bound), bound, HEIGHT))];
            inside.push_str(&line("ink dash", &bound_line));
            entries.push(("dash ink", "as fast as the links allow: nobody can have all of it sooner"));
            if bound < self.end() {
                let side = if place(bound, self.end(), 100) > 50 { "left" } else { "" };
                let _ = write!(
                    tags,
                    "<span class=\"tag {side}\" style=\"left:{};bottom:0\">bound {}</span>",
                    percent(bound, self.end()),
                    time(bound)
                );
                inside.push_str(&line("quiet dash", &[(self.x(bound), 0), (self.x(bound), HEIGHT)]));
            }
        }
        let plot = plot::plot(
            260,
            "share of the payload by host over time",
            &Scale::time(self.end()),
            &Scale::share(),
            &inside,
            &tags,
        );
        section(
            "How much each host has",
            "Verified payload over time. Good: all lines rise together, close to the dashed one, and reach the top.",
            &(legend(&entries) + &plot + &self.note(drawn.len(), all.len())),
        )
    }

    /// A lane for each host, with what struck it.
    pub(super) fn lanes(&self) -> String {
        let all: Vec<usize> = (0..self.plan.hosts.len()).collect();
        let drawn = self.drawn(&all, LANES_MAX);
        let mut lanes = String::from("<div class=\"lanes\">");
        for host in &drawn {
            self.lane(*host, &mut lanes);
        }
        let mut others: Vec<(String, Vec<usize>)> = Vec::new();
        for (number, fault) in self.plan.faults.iter().enumerate() {
            if fault.action.host().is_none() {
                let name = party_name(self, &fault.action);
                match others.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, faults)) => faults.push(number),
                    None => others.push((name, vec![number])),
                }
            }
        }
        for (name, faults) in others.iter().take(LANES_MAX) {
            let (mut inside, mut tags) = (String::new(), String::new());
            self.shade(faults, &mut inside, &mut tags);
            inside.push_str(&self.failure().0);
            let _ = writeln!(
                lanes,
                "<div title=\"{0}\">{0}</div><div class=\"lane\">{1}{tags}</div>",
                Text(name),
                svg(name, HEIGHT, &inside)
            );
        }
        let _ = writeln!(lanes, "<div></div>{}</div>", labels_below(&Scale::time(self.end())));
        let mut entries = vec![
            ("pale", "a process runs"),
            ("blue", "height: the share that it has"),
            ("shade", "a fault, by its number below"),
        ];
        let has = |wanted: HostEvent| {
            let events = drawn.iter().flat_map(|host| &self.observer.hosts[*host].events);
            events.into_iter().any(|(_, event)| *event == wanted)
        };
        if has(HostEvent::PieceFailed) {
            entries.push(("dot orange", "a piece did not fit its hash"));
        }
        if has(HostEvent::Banned) {
            entries.push(("dot ink", "it banned a peer"));
        }
        section(
            "What happened to whom",
            "One lane a host. Good: after a fault a lane goes on where it was, and fills to the top.",
            &(legend(&entries) + &lanes + &self.note(drawn.len(), all.len())),
        )
    }

    fn lane(&self, host: usize, lanes: &mut String) {
        let (plan, seen) = (&self.plan.hosts[host], &self.observer.hosts[host]);
        let (mut inside, mut tags) = (String::new(), String::new());
        let spans: Vec<(u64, u64)> = if plan.puppet.is_some() {
            vec![(0, self.end())]
        } else {
            seen.processes.iter().map(|(from, to)| (*from, to.unwrap_or(self.end()))).collect()
        };
        for (from, to) in spans {
            let (from, to) = (self.x(from), self.x(to));
            let class = if plan.puppet.is_some() { "hair" } else { "pale" };
            let _ = write!(
                inside,
                "<rect class=\"a {class}\" x=\"{from}\" width=\"{}\" height=\"{HEIGHT}\"/>",
                to.saturating_sub(from).max(1)
            );
        }
        let total = self.materials.total_bytes();
        inside.push_str(&area("", &self.curve(|sample| sample.hosts[host].have_bytes, total), HEIGHT));
        let faults: Vec<usize> = (0..self.plan.faults.len())
            .filter(|number| self.plan.faults[*number].action.host() == Some(host))
            .collect();
        self.shade(&faults, &mut inside, &mut tags);
        let events = |wanted: HostEvent| {
            let events = seen.events.iter().filter(move |(_, event)| *event == wanted);
            events.map(|(at, _)| (self.x(*at), HEIGHT / 2)).collect::<Vec<_>>()
        };
        inside.push_str(&dots("orange", events(HostEvent::PieceFailed)));
        inside.push_str(&dots("ink", events(HostEvent::Banned)));
        inside.push_str(&self.failure().0);
        let hit = if self.blamed() == Some(host) { "hit" } else { "" };
        let _ = writeln!(
            lanes,
            "<div class=\"{hit}\" title=\"{0}\">{0}</div><div class=\"lane\">{1}{tags}</div>",
            Text(&plan.name),
            svg(&plan.name, HEIGHT, &inside)
        );
    }

    /// Shades the times of faults, each with its number.
    fn shade(&self, faults: &[usize], inside: &mut String, tags: &mut String) {
        for number in faults {
            let Some((began, over)) = self.observer.faults[*number] else { continue };
            let fault = &self.plan.faults[*number];
            let until = match (over, fault.action.kind()) {
                (Some(until), _) => until,
                (None, FaultKind::Leave) => began,
                // Who dies is away until its next process begins.
                (None, _) => (began + fault.lasts).min(self.end()),
            };
            let (from, to) = (self.x(began), self.x(until));
            if to > from {
                let _ = write!(
                    inside,
                    "<rect class=\"a shade\" x=\"{from}\" width=\"{}\" height=\"{HEIGHT}\"/>",
                    to - from
                );
                inside.push_str(&line("orange bold", &[(from, 0), (to, 0)]));
            }
            inside.push_str(&line("orange", &[(from, 0), (from, HEIGHT)]));
            let side = if place(began, self.end(), 100) > 90 { "left" } else { "" };
            let _ = write!(
                tags,
                "<b class=\"{side}\" style=\"left:{}\" title=\"{}\">{}</b>",
                percent(began, self.end()),
                fault.action.kind().name(),
                number + 1
            );
        }
    }

    /// How many copies of the rarest piece there are.
    pub(super) fn availability(&self) -> String {
        let samples = &self.observer.samples;
        let most = samples.iter().map(|sample| sample.copies_thousandths).max().unwrap_or(0).max(1000);
        let scale = Scale::figures(most, 1000, "copies of a piece among hosts that run");
        let rarest = self.steps(|sample| u64::from(sample.copies_least) * 1000, scale.most);
        let mean = self.curve(|sample| sample.copies_thousandths, scale.most);
        let (failure, tags) = self.failure();
        let mut inside = area("pale", &mean, HEIGHT) + &area("", &rarest, HEIGHT);
        let mut gaps = String::new();
        let times: Vec<u64> = self.observer.times().collect();
        for (sample, span) in samples.iter().zip(times.windows(2)) {
            let (from, to) = (self.x(span[0]), self.x(span[1]));
            // Before anybody has begun nothing is missing.
            if sample.copies_least == 0 && span[0] > 0 && to > from {
                let _ = write!(gaps, "M{from} {}H{to}", HEIGHT - 10);
            }
        }
        let has_gaps = !gaps.is_empty();
        if has_gaps {
            let _ = write!(inside, "<path class=\"l bad bold\" d=\"{gaps}\"/>");
        }
        inside.push_str(&failure);
        let mut entries = vec![("blue", "of the rarest piece"), ("pale", "of pieces on average")];
        if has_gaps {
            entries.push(("line bad", "some piece is nowhere"));
        }
        let plot =
            plot::plot(150, "copies of pieces over time", &Scale::time(self.end()), &scale, &inside, &tags);
        section(
            "How many copies there are",
            "Good: the rarest piece follows the average closely. Where the dark area touches the ground, some piece is \
             nowhere and nobody can finish.",
            &(legend(&entries) + &plot),
        )
    }

    /// A curve that changes at once.
    fn steps(&self, value: impl Fn(&Sample) -> u64, most: u64) -> Vec<(u64, u64)> {
        let mut points: Vec<(u64, u64)> = Vec::new();
        for (x, y) in self.curve(value, most) {
            if let Some((_, before)) = points.last().copied().filter(|(_, before)| *before != y) {
                points.push((x, before));
            }
            points.push((x, y));
        }
        points
    }

    /// Bits per second, over as many spans of time as can be told apart.
    fn rate(&self, value: impl Fn(&Sample) -> u64) -> Vec<(u64, u64)> {
        let times: Vec<u64> = self.observer.times().collect();
        let step = self.observer.samples.len().div_ceil(RATE_POINTS).max(1);
        let mut points = Vec::new();
        let mut before: Option<(u64, u64)> = None;
        let numbers = (0..times.len()).step_by(step).chain(times.len().checked_sub(1));
        for number in numbers {
            let now = (times[number], value(&self.observer.samples[number]));
            if let Some((at, sum)) = before {
                if now.0 == at {
                    continue;
                }
                let bits = u128::from(now.1.saturating_sub(sum)) * 8_000_000_000 / u128::from(now.0 - at);
                points.push((at + (now.0 - at) / 2, bits as u64));
            }
            before = Some(now);
        }
        points
    }

    /// How fast bytes moved.
    pub(super) fn rates(&self) -> String {
        let hosts = &self.plan.hosts;
        let sum = |sample: &Sample, is_seed: bool| {
            let own = sample.hosts.iter().zip(hosts).filter(|(_, host)| host.has_all == is_seed);
            own.map(|(sample, _)| sample.written_bytes).sum::<u64>()
        };
        let (seeds, peers) = (self.rate(|sample| sum(sample, true)), self.rate(|sample| sum(sample, false)));
        let both: Vec<(u64, u64)> = seeds.iter().zip(&peers).map(|((at, a), (_, b))| (*at, a + b)).collect();
        let all: Vec<usize> = self.plan.fetching().collect();
        let drawn = self.drawn(&all, CURVES_MAX);
        let down: Vec<Vec<(u64, u64)>> =
            drawn.iter().map(|host| self.rate(|sample| sample.hosts[*host].read_bytes)).collect();
        let highest = |points: &[(u64, u64)]| points.iter().map(|(_, bits)| *bits).max().unwrap_or(0);
        let (failure, tags) = self.failure();
        let x = Scale::time(self.end());
        let scale = Scale::figures(highest(&both).max(1000), 1_000_000, "Mbit/s given, by all together");
        let to = |points: &[(u64, u64)], scale: &Scale| -> Vec<(u64, u64)> {
            let map = |(at, bits): &(u64, u64)| (self.x(*at), HEIGHT - place(*bits, scale.most, HEIGHT));
            points.iter().map(map).collect()
        };
        let up = area("pale", &to(&both, &scale), HEIGHT) + &area("", &to(&seeds, &scale), HEIGHT) + &failure;
        let up = plot::plot(130, "bytes given over time", &x, &scale, &up, &tags);
        let taken = down.iter().map(|points| highest(points)).max().unwrap_or(0).max(1000);
        let scale = Scale::figures(taken, 1_000_000, "Mbit/s taken, by each");
        let class = if drawn.len() > 8 { "thin" } else { "" };
        let lines: String = down.iter().map(|points| line(class, &to(points, &scale))).collect();
        let down = plot::plot(130, "bytes taken over time", &x, &scale, &(lines + &failure), "");
        let entries = [
            ("blue", "given by those who had everything at the start"),
            ("pale", "given by everybody else"),
            ("line blue", "taken by one host"),
        ];
        section(
            "How fast bytes move",
            "Above, what is given; below, what each host takes, messages included. Good: soon most is given by those who \
             came for it.",
            &(legend(&entries) + &up + &down + &self.note(drawn.len(), all.len())),
        )
    }

    /// Who let whom ask, and gave how much.
    pub(super) fn flows(&self) -> String {
        let all: Vec<usize> = (0..self.plan.hosts.len()).collect();
        let drawn = self.drawn(&all, MATRIX_MAX);
        let (left, top, cell) = (130, 20, 24);
        let (width, height) = (left + cell * drawn.len(), top + cell * drawn.len() + 4);
        let flows = || self.observer.flows.iter().filter(|((from, to), _)| from != to);
        let most = flows().map(|(_, flow)| flow.bytes).max().unwrap_or(0).max(1);
        let mut inside = String::new();
        for (row, host) in drawn.iter().enumerate() {
            let (name, y) = (&self.plan.hosts[*host].name, top + cell * row);
            let _ = write!(
                inside,
                "<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><text x=\"{}\" y=\"13\" \
                 text-anchor=\"middle\">{}</text><rect class=\"a faint\" x=\"{left}\" y=\"{}\" width=\"{}\" \
                 height=\"{}\"/>",
                left - 8,
                y + cell / 2 + 4,
                Text(&format!("{} {}", shortened(name), row + 1)),
                left + cell * row + cell / 2,
                row + 1,
                y + 1,
                width - left,
                cell - 2,
            );
        }
        for ((from, to), flow) in flows() {
            let at = |host: &usize| drawn.binary_search(host).ok();
            let (Some(row), Some(column)) = (at(from), at(to)) else { continue };
            let (x, y) = (left + cell * column, top + cell * row);
            let inner = cell as u64 - 4;
            let high = place(flow.unchoked_ns, self.end(), inner);
            let title = format!(
                "{} to {}: {}, unchoked for {}",
                self.plan.hosts[*from].name,
                self.plan.hosts[*to].name,
                bytes(flow.bytes),
                time(flow.unchoked_ns)
            );
            // The area of the square is what was given.
            let side = (u128::from(flow.bytes) * u128::from(inner * inner) / u128::from(most)).isqrt() as u64;
            let side = if flow.bytes > 0 { side.max(2) } else { 0 };
            let _ = write!(
                inside,
                "<g><title>{}</title><rect class=\"a pale\" x=\"{}\" y=\"{}\" width=\"{inner}\" height=\"{high}\"/><rect \
                 class=\"a\" x=\"{}\" y=\"{}\" width=\"{side}\" height=\"{side}\"/></g>",
                Text(&title),
                x + 2,
                y as u64 + 2 + inner - high,
                x as u64 + (cell as u64 - side) / 2,
                y as u64 + (cell as u64 - side) / 2,
            );
        }
        let drawing = format!(
            "<div class=\"scroll\"><svg class=\"matrix\" style=\"width:{width}px\" viewBox=\"0 0 {width} {height}\" \
             height=\"{height}\" role=\"img\" aria-label=\"who gave how much to whom\">{inside}</svg></div>\n"
        );
        let entries = [
            (
                "pale",
                "height: the share of the run for which the row unchoked the column, that is, let it ask",
            ),
            ("blue", "area: payload that the row gave to the column"),
        ];
        section(
            "Who served whom",
            "A row gives, a column receives. Good: no empty column among those who came for the payload, and squares well \
             away from the seeds' rows.",
            &(legend(&entries) + &drawing + &self.note(drawn.len(), all.len())),
        )
    }

    /// How many steps look-ups in the DHT took.
    pub(super) fn hops(&self) -> String {
        let hops = &self.observer.hops;
        if hops.is_empty() {
            return String::new();
        }
        let most = hops.iter().map(|hop| hop.asked).max().unwrap_or(0);
        let mut rows = String::from("<div class=\"hops\">");
        for (number, hop) in hops.iter().enumerate() {
            let bar = |class: &str, count: u64| {
                format!(
                    "<rect class=\"a {class}\" width=\"{}\" height=\"{HEIGHT}\"/>",
                    place(count, most, WIDTH)
                )
            };
            let inside = bar("hair", hop.asked) + &bar("pale", hop.answered) + &bar("", hop.found);
            let words = format!("{} asked, {} answered, {} knew peers", hop.asked, hop.answered, hop.found);
            let _ = writeln!(
                rows,
                "<span>step {}</span>{}<span>{words}</span>",
                number + 1,
                svg(&words, HEIGHT, &inside)
            );
        }
        rows.push_str("</div>\n");
        let entries =
            [("faint", "nodes asked for peers"), ("pale", "that answered"), ("blue", "that named peers")];
        section(
            "How the DHT was searched",
            "Each step asks nodes that the step before named, nearer to the torrent's hash. Good: peers are named within \
             a few steps.",
            &(legend(&entries) + &rows),
        )
    }
}

/// Whom a fault is about.
pub(super) fn party_name(picture: &Picture<'_>, action: &Action) -> String {
    let plan = picture.plan;
    match action {
        Action::TrackerOutage { tracker, .. } => plan.trackers[*tracker].name.clone(),
        Action::NatReboot { nat } => picture.materials.scenario.nats[*nat].name.clone(),
        other => match other.host() {
            Some(host) => plan.hosts[host].name.clone(),
            None => "the network".to_owned(),
        },
    }
}

/// A name that fits beside a matrix.
fn shortened(name: &str) -> String {
    if name.chars().count() <= 14 { name.to_owned() } else { name.chars().take(13).chain(['…']).collect() }
}

const CURVES_MAX: usize = 60;
const LANES_MAX: usize = 32;
const MATRIX_MAX: usize = 24;
/// Rates are means over as many spans.
const RATE_POINTS: usize = 110;
