//! The page of one run: what came of it, its pictures, and what every rule says.

use std::fmt::Write as _;

use super::page::{CommandLine, Text, bytes, figures, page, section, time, times};
use super::plot::{HEIGHT, WIDTH, place, svg};
use super::swarm::{Picture, party_name};
use crate::observer::{Near, Unit};
use crate::oracle::{RULES, rule};
use crate::plan::{Materials, Plan};
use crate::run::{Outcome, Verdict};
use crate::scenario::{FaultKind, MARKS};

/// The page of a run that was observed; none of one that was not. `shown` is how the command line names its source.
pub fn run_page(materials: &Materials, outcome: &Outcome, shown: &str) -> Option<String> {
    let observer = outcome.observed.as_deref()?;
    let plan = Plan::new(&materials.scenario, outcome.seed);
    let picture = Picture { materials, plan: &plan, outcome, observer };
    let mut body = head(&picture, shown);
    let last = if outcome.violation.is_some() { last_events(&picture) } else { String::new() };
    let parts = [
        picture.completion(),
        picture.lanes(),
        last,
        picture.availability(),
        picture.rates(),
        picture.flows(),
        picture.hops(),
        rules(&picture),
        faults(&picture),
        marks(&picture),
    ];
    body.extend(parts);
    Some(page(&format!("{}, seed {}: {}", outcome.scenario, outcome.seed, word(outcome.verdict)), &body))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "passed",
        Verdict::Failed => "failed",
        Verdict::Vacuous => "proved nothing",
        Verdict::BudgetExceeded => "did not end within its budget",
    }
}

fn head(picture: &Picture<'_>, shown: &str) -> String {
    let Picture { materials, plan, outcome, observer } = picture;
    let mut head = format!(
        "<p class=\"kicker\">taipei-sim, a simulated BitTorrent swarm in the world of {}</p>\n\
         <h1>{} <small>seed {}</small></h1>\n",
        outcome.world.name(),
        Text(&outcome.scenario),
        outcome.seed
    );
    match &outcome.violation {
        None => {
            let _ = writeln!(
                head,
                "<p class=\"verdict pass\">Passed</p>\n<p>Everything that was expected came, and none of {} rules was \
                 broken.</p>",
                RULES.len()
            );
        }
        Some(violation) => {
            let on = if violation.host.is_empty() { "the whole swarm" } else { &violation.host };
            let sentence = rule(violation.oracle).map_or("it ends within its budget", |rule| rule.rule);
            let mut said = word(outcome.verdict).to_owned();
            said[..1].make_ascii_uppercase();
            let _ = writeln!(
                head,
                "<p class=\"verdict fail\">{said}: rule {} at {}</p>\n<p><b>{}</b>: {}. The rule is: {}.</p>",
                Text(violation.oracle),
                time(violation.at_ns),
                Text(on),
                Text(&violation.message),
                Text(sentence)
            );
        }
    }
    let _ = writeln!(
        head,
        "<p class=\"says\">This line runs it again, to the nanosecond:</p>\n<pre>{}</pre>",
        CommandLine(&outcome.replay_line(shown))
    );
    let puppets = plan.hosts.iter().filter(|host| host.puppet.is_some()).count();
    let hosts = plan.hosts.len() - puppets;
    let people =
        if puppets == 0 { format!("{hosts}") } else { format!("{hosts} and {puppets} that break rules") };
    let struck = observer.faults.iter().flatten().count();
    let mut entries = vec![
        ("hosts", people),
        ("payload", bytes(materials.total_bytes())),
        ("simulated", time(outcome.ended_at_ns)),
    ];
    if let Some((last, _)) = picture.last_complete() {
        entries.push(("last complete", time(last)));
        if let Some(bound) = picture.bound() {
            entries.push(("over the bound", format!("{}×", times(last, bound))));
        }
    }
    entries.push(("faults struck", format!("{struck} of {}", plan.faults.len())));
    entries.push(("events", outcome.events.to_string()));
    head + &figures(&entries)
}

/// What happened last, before a rule was broken.
fn last_events(picture: &Picture<'_>) -> String {
    let blamed = picture.blamed();
    let mut log = String::from("<div class=\"log\">");
    for moment in &picture.observer.last {
        let host = moment.host.map_or("", |host| &picture.plan.hosts[host].name);
        let class = if moment.host.is_some() && moment.host == blamed { "hit" } else { "" };
        let at = moment.at / 1_000;
        let _ = writeln!(
            log,
            "<span>{}.{:06} s</span><b class=\"{class}\">{}</b><p>{}</p>",
            at / 1_000_000,
            at % 1_000_000,
            Text(host),
            Text(&moment.text)
        );
    }
    log.push_str("</div>\n");
    section(
        "The last events before the failure",
        "What each host heard, said and asked for, the newest at the bottom. The host that is blamed is marked.",
        &log,
    )
}

/// Every rule, the broken one first, then those that came near to what they allow.
fn rules(picture: &Picture<'_>) -> String {
    let broken = picture.outcome.violation.as_ref().map(|violation| violation.oracle);
    let mut rows: Vec<_> = picture.observer.nearest.iter().filter(|(_, near)| near.most > 0).collect();
    rows.sort_by_key(|((id, what), near)| {
        (broken != Some(*id), std::cmp::Reverse(thousandths(near)), *id, *what)
    });
    let mut table = String::from(
        "<table class=\"wide\"><thead><tr><th>rule</th><th class=\"more\">what it demands</th><th>what came nearest to its \
         limit</th><th class=\"num\">most seen</th><th class=\"num\">allowed</th><th></th></tr></thead>\n",
    );
    let mut before = None;
    for ((id, what), near) in &rows {
        let (used, most) = (amount(near.used, near.unit), amount(near.most, near.unit));
        let share = thousandths(near);
        let is_broken = broken == Some(*id) && share >= 1000;
        let colour = if is_broken { "bad" } else { "" };
        // Said once where one rule has several limits in a row.
        let sentence =
            if before.replace(*id) == Some(*id) { "" } else { rule(id).map_or("", |rule| rule.rule) };
        let bar = format!(
            "<rect class=\"a hair\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/><rect class=\"a {colour}\" width=\"{}\" \
             height=\"{HEIGHT}\"/>",
            place(share, 1000, WIDTH)
        );
        let title = format!("{} of {}", used, most);
        let _ = writeln!(
            table,
            "<tr class=\"{}\"><td class=\"key\">{id}</td><td class=\"more\">{}</td><td>{}</td><td class=\"num\">{used}</td>\
             <td class=\"num\">{most}</td><td class=\"bar\">{}</td></tr>",
            if broken == Some(*id) { "broken" } else { "" },
            Text(sentence),
            Text(what),
            svg(&title, HEIGHT, &bar)
        );
    }
    table.push_str("</table>\n<h3>Held; a distance to a limit has no meaning here</h3>\n<ul class=\"held\">");
    if let Some(id) = broken.filter(|id| rows.iter().all(|((other, _), _)| other != id)) {
        let sentence = rule(id).map_or("the run ends within its budget", |rule| rule.rule);
        let row = format!("<p class=\"verdict fail\">{} was broken: {}</p>\n", Text(id), Text(sentence));
        table.insert_str(0, &row);
    }
    for rule in RULES.iter().filter(|rule| broken != Some(rule.id)) {
        if rows.iter().all(|((id, _), _)| *id != rule.id) {
            let _ = write!(table, "<li><b>{}</b>{}</li>", rule.id, Text(rule.rule));
        }
    }
    table.push_str("</ul>\n");
    section(
        "Rules, and how near the run came to breaking them",
        "Every run is held to all of these at every step. A short bar is a wide margin; a full one is a broken rule.",
        &table,
    )
}

fn thousandths(near: &Near) -> u64 {
    u64::try_from(u128::from(near.used) * 1000 / u128::from(near.most.max(1))).unwrap_or(u64::MAX)
}

fn amount(amount: u64, unit: Unit) -> String {
    match unit {
        Unit::Time => time(amount),
        Unit::Bytes => bytes(amount),
        Unit::Count => amount.to_string(),
    }
}

/// Every fault of the plan, and what it did.
fn faults(picture: &Picture<'_>) -> String {
    let Picture { plan, outcome, observer, .. } = picture;
    if plan.faults.is_empty() {
        return String::new();
    }
    let mut table = String::from(
        "<table class=\"wide\"><thead><tr><th>#</th><th>fault</th><th>whom</th><th class=\"num\">from</th><th class=\"num more\">until</th>\
         <th class=\"num\">effects</th><th>what they count</th></tr></thead>\n",
    );
    for (number, fault) in plan.faults.iter().enumerate().take(FAULTS_SHOWN) {
        let kind = fault.action.kind();
        let effects = outcome.summary.fault_effects.get(number).copied().unwrap_or(0);
        let span = observer.faults[number];
        let until = match span {
            Some((_, Some(until))) => time(until),
            // Who dies is back when its next process begins.
            Some((began, None)) if kind != FaultKind::Leave => {
                time((began + fault.lasts).min(outcome.ended_at_ns))
            }
            Some(_) => "for good".to_owned(),
            None => "never struck".to_owned(),
        };
        let _ = writeln!(
            table,
            "<tr><td class=\"key\">{}</td><td>{}</td><td>{}</td><td class=\"num\">{}</td><td class=\"num more\">{until}</td>\
             <td class=\"num\">{effects}</td><td>{}</td></tr>",
            number + 1,
            kind.name(),
            Text(&party_name(picture, &fault.action)),
            span.map_or_else(|| "-".to_owned(), |(began, _)| time(began)),
            counts(kind)
        );
    }
    table.push_str("</table>\n");
    if plan.faults.len() > FAULTS_SHOWN {
        let _ = writeln!(
            table,
            "<p class=\"note\">The first {FAULTS_SHOWN} of {} are shown.</p>",
            plan.faults.len()
        );
    }
    section(
        "Faults, and what each did",
        "A fault that nobody noticed proves nothing: every one should have struck and have had effects.",
        &table,
    )
}

/// What the effects of a kind of fault count.
fn counts(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Crash => "process and connections that ended, writes under way",
        FaultKind::PowerCut => "process and connections that ended, writes lost",
        FaultKind::Leave => "connections closed",
        FaultKind::Restart => "process and connections that ended",
        FaultKind::DiskFull | FaultKind::DiskReadOnly => "calls refused",
        FaultKind::TrackerOutage => "requests without an answer",
        FaultKind::Silence => "segments held back",
        FaultKind::Suspend => "things put off",
        FaultKind::ClockJump => "jobs that saw a wrong date",
        FaultKind::Partition | FaultKind::OneWayCut | FaultKind::BlackHole => "packets swallowed",
        FaultKind::Reset => "connections reset",
        FaultKind::LossBurst => "packets lost",
        FaultKind::SlowLink => "segments slowed down",
        FaultKind::DnsOutage => "look-ups that failed",
        FaultKind::NatReboot => "mappings forgotten",
        FaultKind::DiskCall => "calls failed",
        FaultKind::DiskSlow => "jobs slowed down",
        FaultKind::ShortRead => "reads cut short",
        FaultKind::SyncLies => "syncs not done",
        FaultKind::BitRot | FaultKind::FileTruncated | FaultKind::FileRemoved | FaultKind::FileReplaced => {
            "bytes or pieces spoiled"
        }
    }
}

/// What was reached, and what should have been.
fn marks(picture: &Picture<'_>) -> String {
    let expects = &picture.materials.scenario.expects;
    let is_wanted = |name: &str| expects.iter().any(|expect| expect.mark.iter().any(|mark| mark == name));
    let reached = &picture.outcome.summary.marks;
    let mut list = String::from("<ul class=\"marks\">");
    for mark in MARKS {
        let (is_reached, is_wanted) = (reached.contains(&mark.name), is_wanted(mark.name));
        if is_reached || is_wanted {
            let class = match (is_reached, is_wanted) {
                (true, false) => "",
                (true, true) => "wanted",
                (false, _) => "missed",
            };
            let _ = write!(list, "<li class=\"{class}\">{}</li>", Text(mark.meaning));
        }
    }
    list.push_str("</ul>\n");
    let says = format!(
        "Things that happened in this run, {} of {} that can. Those that the scenario demands have a dark frame.",
        reached.len(),
        MARKS.len()
    );
    section("Marks", &says, &list)
}

const FAULTS_SHOWN: usize = 60;
