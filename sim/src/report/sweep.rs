//! The page of a sweep: what failed, which rules that was, and how long runs took over what their links allow.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::page::{CommandLine, Text, figures, legend, page, section, time, times};
use super::plot::{HEIGHT, Scale, WIDTH, dots, labels_below, line, place, svg};
use crate::oracle::RULES;
use crate::scenario::MARKS;
use crate::sweep::{Head, SeedLine, Source, Summary};
use crate::trace::mix;

/// The page of a sweep. `shown` is how the command line names its source.
pub fn sweep_page(source: &Source, head: &Head, lines: &[SeedLine], shown: &str) -> String {
    let mut lines: Vec<&SeedLine> = lines.iter().collect();
    lines.sort_unstable_by_key(|line| line.run);
    let summary = Summary::new(source, head, lines.iter().copied());
    let sweep = Sweep { head, summary: &summary, lines: &lines, shown };
    let parts = [
        sweep.head(),
        sweep.failures(),
        sweep.grid(),
        sweep.over_bound(),
        sweep.slowest(),
        sweep.marks(),
        sweep.families(),
    ];
    page(&format!("Sweep of {}: {} runs", head.source, summary.runs), &parts.concat())
}

struct Sweep<'a> {
    head: &'a Head,
    summary: &'a Summary,
    lines: &'a [&'a SeedLine],
    shown: &'a str,
}

impl Sweep<'_> {
    fn head(&self) -> String {
        let Self { head, summary, .. } = self;
        let mut text = format!(
            "<p class=\"kicker\">taipei-sim, a sweep of simulated BitTorrent swarms in the world of {}</p>\n\
             <h1>{} <small>{} seeds from {}</small></h1>\n",
            head.world.name(),
            Text(&head.source),
            head.seeds,
            head.base_seed
        );
        let failed = summary.failures.len();
        let _ = match (failed, summary.exit_status()) {
            (0, 0) => writeln!(
                text,
                "<p class=\"verdict pass\">All {} runs passed</p>\n<p>Each seed is another swarm, or another course of \
                 the same one. No rule was broken in any of them.</p>",
                summary.runs
            ),
            (0, _) => writeln!(
                text,
                "<p class=\"verdict fail\">No run failed, but the sweep proved too little</p>\n<p>{} of {} runs were made; \
                 what no seed reached is listed below.</p>",
                summary.runs, summary.wanted
            ),
            _ => writeln!(
                text,
                "<p class=\"verdict fail\">{failed} of {} runs failed</p>\n<p>Each failure can be run again by its line, \
                 and made smaller with <code>shrink</code> in place of <code>replay</code>.</p>",
                summary.runs
            ),
        };
        let _ = writeln!(
            text,
            "<p class=\"says\">This line repeats the sweep:</p>\n<pre>{}</pre>",
            CommandLine(&format!(
                "taipei-sim sweep {} --seeds {} --base-seed {} --world {}  # build {}",
                self.shown,
                head.seeds,
                head.base_seed,
                head.world.name(),
                head.build
            ))
        );
        let verdicts = summary.verdicts.iter().map(|(verdict, count)| format!("{count} {verdict}"));
        text + &figures(&[
            ("runs", format!("{} of {}", summary.runs, summary.wanted)),
            ("verdicts", verdicts.collect::<Vec<_>>().join(", ")),
            ("hosts", summary.hosts.to_string()),
            ("events", summary.events.to_string()),
            ("simulated", time(summary.simulated_ns)),
            ("run again, and differed", format!("{}, {}", summary.rechecked, summary.not_deterministic)),
        ])
    }

    fn failed(&self) -> impl Iterator<Item = &&SeedLine> {
        self.lines.iter().filter(|line| line.replay_line(self.shown, self.head.world).is_some())
    }

    fn failures(&self) -> String {
        let count = self.failed().count();
        if count == 0 {
            return String::new();
        }
        let replays = self.failed().filter_map(|line| line.replay_line(self.shown, self.head.world));
        let list: String = replays
            .take(FAILURES_SHOWN)
            .map(|replay| format!("<pre>{}</pre>\n", CommandLine(&replay)))
            .collect();
        let rest = count.saturating_sub(FAILURES_SHOWN);
        let more = if rest > 0 {
            format!("<p class=\"note\">And {rest} more, which the sweep's file has.</p>\n")
        } else {
            String::new()
        };
        section(
            "What failed",
            "Which rule, when and where, and the line that runs it again.",
            &(list + &more),
        )
    }

    /// Seeds across, rules down.
    fn grid(&self) -> String {
        let runs = self.lines.len() as u64;
        let columns = runs.clamp(1, COLUMNS_MAX);
        let column = |number: usize| number as u64 * columns / runs.max(1);
        let cell = |class: &str, at: u64| {
            let from = at * WIDTH / columns;
            let width = ((at + 1) * WIDTH / columns - from).max(WIDTH / 300);
            format!("<rect class=\"a {class}\" x=\"{from}\" width=\"{width}\" height=\"{HEIGHT}\"/>")
        };
        let cells = |class: &str, is_there: &dyn Fn(&SeedLine) -> bool| {
            let mut at: Vec<u64> =
                (0..self.lines.len()).filter(|number| is_there(self.lines[*number])).map(column).collect();
            at.dedup();
            at.into_iter().map(|at| cell(class, at)).collect::<String>()
        };
        let base = format!("<rect class=\"a faint\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>");
        let mut rows = String::from("<div class=\"rows\">");
        let mut row = |id: &str, sentence: &str, inside: String, is_bad: bool| {
            let class = if is_bad { "fail-name" } else { "quiet" };
            let _ = writeln!(
                rows,
                "<span class=\"{class}\" title=\"{}\">{}</span>{}",
                Text(sentence),
                Text(id),
                svg(sentence, HEIGHT, &inside)
            );
        };
        let known = |id: &str| RULES.iter().any(|rule| rule.id == id);
        for rule in RULES {
            let broken = cells("bad", &|line| {
                line.violation.as_ref().is_some_and(|violation| violation.oracle == rule.id)
            });
            let is_bad = !broken.is_empty();
            row(rule.id, rule.rule, base.clone() + &broken, is_bad);
        }
        let other =
            cells("bad", &|line| line.violation.as_ref().is_some_and(|violation| !known(&violation.oracle)));
        let is_bad = !other.is_empty();
        row("budget", "the run ends within its budget", base.clone() + &other, is_bad);
        let again = cells("pale", &|line| line.rechecked) + &cells("bad", &|line| line.other_trace.is_some());
        row("again", "a second run in another process has the same trace", base.clone() + &again, false);
        let first = self.lines.first().map_or(0, |line| line.run.seed);
        let marks: Vec<usize> = (0..=4).map(|part| part * self.lines.len().saturating_sub(1) / 4).collect();
        let mut ticks: Vec<(u64, String)> = marks
            .into_iter()
            .filter_map(|number| Some((number as u64, format!("seed {}", self.lines.get(number)?.run.seed))))
            .collect();
        ticks.dedup();
        if ticks.is_empty() {
            ticks.push((0, format!("seed {first}")));
        }
        let scale = Scale { most: runs.saturating_sub(1).max(1), ticks, unit: "" };
        let _ = writeln!(rows, "<span></span>{}</div>", labels_below(&scale));
        let entries = [("faint", "held"), ("bad", "broken"), ("pale", "run a second time")];
        section(
            "Seeds and rules",
            "Every run, from left to right, was held to every rule. Good: nothing stands out. Point at a rule for its \
             sentence.",
            &(legend(&entries) + &rows),
        )
    }

    /// Completion over the bound, in thousandths, of runs that have both.
    fn ratio(line: &SeedLine) -> Option<u64> {
        let (completed, bound) = (line.completed_ns?, line.bound_ns?);
        u64::try_from(u128::from(completed) * 1000 / u128::from(bound.max(1))).ok()
    }

    /// For each family of faults, how long its runs took.
    fn over_bound(&self) -> String {
        let mut rows: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
        let mut all = Vec::new();
        for line in self.lines {
            let Some(ratio) = Self::ratio(line) else { continue };
            let point = (ratio, line.run.seed);
            all.push(point);
            line.families.iter().for_each(|family| rows.entry(family).or_default().push(point));
        }
        let Some(most) = all.iter().map(|(ratio, _)| *ratio).max() else { return String::new() };
        let end = log2(most).max(1000).div_ceil(1000) * 1000;
        let x = |ratio: u64| place(log2(ratio), end, WIDTH);
        let mut list = String::from("<div class=\"rows tall\">");
        let grid: String = (0..=end / 1000)
            .map(|power| format!("M{} 0v{HEIGHT}", place(power * 1000, end, WIDTH)))
            .collect();
        let mut row = |name: &str, mut points: Vec<(u64, u64)>| {
            points.sort_unstable();
            let median = points[points.len() / 2].0;
            let step = points.len().div_ceil(DOTS_MAX);
            let shown = points.iter().step_by(step);
            let height = |seed: u64| HEIGHT / 5 + mix(seed) % (HEIGHT * 3 / 5);
            let inside = format!("<path class=\"grid\" d=\"{grid}\"/>")
                + &dots("thin", shown.map(|(ratio, seed)| (x(*ratio), height(*seed))))
                + &line("slow", &[(x(median), 0), (x(median), HEIGHT)]);
            let title = format!("{name}: {} runs, median {}", points.len(), times(median, 1000));
            let _ = writeln!(
                list,
                "<span title=\"{}\">{} <span class=\"quiet\">{}×</span></span>{}",
                Text(&title),
                Text(name),
                times(median, 1000),
                svg(&title, HEIGHT, &inside)
            );
        };
        row("all runs", all);
        rows.into_iter().for_each(|(family, points)| row(family, points));
        let step = (end / 1000).div_ceil(6) as usize;
        let ticks = (0..=end / 1000)
            .step_by(step)
            .map(|power| (power * 1000, format!("{}×", 1u64 << power.min(40))))
            .collect();
        let _ = writeln!(list, "<span></span>{}</div>", labels_below(&Scale { most: end, ticks, unit: "" }));
        let entries = [("dot blue", "a run in which the family was there"), ("line orange", "the median")];
        section(
            "How long it took, over what the links allow, by family of faults",
            "When the last host was complete, as a multiple of the least time that link rates allow. Good: close to 1. \
             Faults add what they last, and of a small payload finding each other is the greater part.",
            &(legend(&entries) + &list),
        )
    }

    fn slowest(&self) -> String {
        let mut runs: Vec<(u64, &SeedLine)> =
            self.lines.iter().filter_map(|line| Some((Self::ratio(line)?, *line))).collect();
        runs.sort_unstable_by_key(|(ratio, line)| (std::cmp::Reverse(*ratio), line.run));
        if runs.is_empty() {
            return String::new();
        }
        let mut table = String::from(
            "<table><thead><tr><th class=\"num\">over the bound</th><th class=\"num\">complete</th><th class=\"num \
             more\">hosts</th><th>families of faults</th><th>runs it again</th></tr></thead>\n",
        );
        for (ratio, line) in runs.into_iter().take(SLOWEST_SHOWN) {
            let cell = if line.run.cell == 1 { String::new() } else { format!(" --cell {}", line.run.cell) };
            let replay = format!(
                "taipei-sim replay {} --seed {}{cell} --world {}",
                self.shown,
                line.run.seed,
                self.head.world.name()
            );
            let _ = writeln!(
                table,
                "<tr><td class=\"num\">{}×</td><td class=\"num\">{}</td><td class=\"num more\">{}</td><td>{}</td>\
                 <td><code>{}</code></td></tr>",
                times(ratio, 1000),
                time(line.completed_ns.unwrap_or(0)),
                line.hosts,
                Text(&line.families.join(", ")),
                CommandLine(&replay)
            );
        }
        table.push_str("</table>\n");
        section(
            "The slowest runs",
            "Nothing is wrong with these by itself; they are where to look for what could go faster.",
            &table.replacen("<table>", "<table class=\"wide\">", 1),
        )
    }

    fn marks(&self) -> String {
        let runs = u64::from(self.summary.runs).max(1);
        let mut list = String::new();
        let missing: Vec<_> =
            MARKS.iter().filter(|mark| !self.summary.marks.contains_key(mark.name)).collect();
        if !missing.is_empty() {
            list.push_str("<h3>Never reached</h3>\n<ul class=\"marks\">");
            for mark in missing {
                let is_hole = self.summary.holes.iter().any(|hole| hole.ends_with(mark.name));
                let class = if is_hole { "missed" } else { "" };
                let _ = write!(list, "<li class=\"{class}\">{}</li>", Text(mark.meaning));
            }
            list.push_str("</ul>\n<h3>Reached, by share of runs</h3>\n");
        }
        let mut rows: Vec<(&String, u64)> =
            self.summary.marks.iter().map(|(mark, count)| (mark, u64::from(*count))).collect();
        rows.sort_unstable_by_key(|(mark, count)| (std::cmp::Reverse(*count), *mark));
        list.push_str("<div class=\"rows marks-by-share\">");
        for (name, count) in rows {
            let meaning =
                MARKS.iter().find(|mark| mark.name == name).map_or(name.as_str(), |mark| mark.meaning);
            let bar = format!(
                "<rect class=\"a faint\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/><rect class=\"a\" width=\"{}\" \
                 height=\"{HEIGHT}\"/>",
                place(count, runs, WIDTH).max(30)
            );
            let _ = writeln!(
                list,
                "<span>{} <span class=\"quiet\">{count}</span></span>{}",
                Text(meaning),
                svg(&format!("{count} of {runs} runs"), HEIGHT, &bar)
            );
        }
        list.push_str("</div>\n");
        section(
            "What was reached",
            "Things that a sweep has to meet, or it proves nothing about them. Good: nothing is missing that faults were \
             drawn for.",
            &list,
        )
    }

    fn families(&self) -> String {
        if self.summary.families.is_empty() {
            return String::new();
        }
        let mut table = String::from(
            "<table><thead><tr><th>family</th><th class=\"num\">drawn in</th><th class=\"num\">struck in</th><th \
             class=\"num\">effects</th></tr></thead>\n",
        );
        for (name, family) in &self.summary.families {
            let class = if family.struck == 0 { "broken" } else { "" };
            let _ = writeln!(
                table,
                "<tr class=\"{class}\"><td>{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td \
                 class=\"num\">{}</td></tr>",
                Text(name),
                family.there,
                family.struck,
                family.effects
            );
        }
        table.push_str("</table>\n");
        section(
            "Families of faults",
            "In how many runs each was there, in how many it did something, and how much in all.",
            &table,
        )
    }
}

/// The binary logarithm of thousandths, in thousandths; whole numbers alone, so that it is the same everywhere.
fn log2(thousandths: u64) -> u64 {
    let value = u128::from(thousandths.max(1000));
    // Scaled so that one is 2^32.
    let mut value = (value << 32) / 1000;
    let mut whole = 0;
    while value >= 2 << 32 {
        value >>= 1;
        whole += 1;
    }
    let mut parts = 0;
    for bit in (0..20).rev() {
        value = (value * value) >> 32;
        if value >= 2 << 32 {
            value >>= 1;
            parts |= 1u64 << bit;
        }
    }
    whole * 1000 + ((parts * 1000) >> 20)
}

const FAILURES_SHOWN: usize = 40;
const COLUMNS_MAX: u64 = 400;
const DOTS_MAX: usize = 500;
const SLOWEST_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_everybody() {
        for thousandths in [1000u64, 1001, 1500, 2000, 3000, 64_000, 123_456] {
            let want = (thousandths as f64 / 1000.0).log2() * 1000.0;
            assert!((log2(thousandths) as f64 - want).abs() < 1.1, "{thousandths}");
        }
    }
}
