//! The catalogue of libtorrent's simulated cases, and what shows each of them here: the tables of `scenarios/README.md`.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use evidence::{Evidence, root};

mod evidence;

/// The files of libtorrent's `simulation/` as of August 2026, and how many cases each has.
const FILES: &[(&str, usize)] = &[
    ("test_allow_multiple_connections_per_pid", 2),
    ("test_auto_manage", 14),
    ("test_checking", 6),
    ("test_dht", 4),
    ("test_dht_bootstrap", 2),
    ("test_dht_rate_limit", 2),
    ("test_dht_storage", 3),
    ("test_error_handling", 1),
    ("test_fast_extensions", 4),
    ("test_file_pool", 2),
    ("test_http_connection", 11),
    ("test_ip_filter", 4),
    ("test_metadata_extension", 11),
    ("test_optimistic_unchoke", 1),
    ("test_outgoing_interfaces", 4),
    ("test_pause", 8),
    ("test_pe_crypto", 11),
    ("test_peer_connection", 21),
    ("test_save_resume", 1),
    ("test_session", 6),
    ("test_socks5", 5),
    ("test_super_seeding", 3),
    ("test_swarm", 38),
    ("test_thread_pool", 4),
    ("test_timeout", 6),
    ("test_torrent_status", 13),
    ("test_tracker", 63),
    ("test_transfer", 36),
    ("test_transfer_full_invalid_files", 1),
    ("test_transfer_no_files", 1),
    ("test_transfer_partial_valid_files", 1),
    ("test_utp", 5),
    ("test_v2", 4),
    ("test_web_seed", 18),
];

/// The first line of each table.
const HEAD: &str = "| libtorrent | here | missing |";
/// How the last cell of a row begins that wants a test and nothing else.
const OPEN: &str = "open: no test yet";

#[test]
fn every_case_is_shown_or_says_what_is_missing() {
    assert_eq!((FILES.len(), FILES.iter().map(|(_, count)| count).sum()), (34, 316));
    let text = fs::read_to_string(root().join("scenarios/README.md")).expect("the catalogue");
    let problems = problems_of(&text, FILES, &Evidence::collect());
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn what_is_wrong_in_a_catalogue_is_noticed() {
    let (files, evidence) = ([("test_a", 2), ("test_b", 1)], Evidence::collect());
    let told = |figures: &str, rows: &str| {
        let text = format!("# x\n\n{figures}\n\n{HEAD}\n|---|---|---|\n{rows}\n\nmore\n");
        problems_of(&text, &files, &evidence).join("\n")
    };
    let here = "`taipei_tests::catalogue::what_is_wrong_in_a_catalogue_is_noticed`";
    let others = "| `test_a`: `one` |  | uTP |\n| `test_b`: `one` |  | open: no test yet: of that |\n";
    let right = format!("{others}| `test_a`: `two` | {here}, `transfer-one-seed.toml`, `stage interop` |  |");
    let figures = "3 cases in 3 rows: 1 shown, 0 in part, 1 where what it is about is missing, 1 open.";
    assert_eq!(told(figures, &right), "");
    let partly =
        "| `test_a`: `one`, `two`; `test_b`: `one` | `transfer-one-seed.toml` | open: no test yet: of that |";
    let all_open = "3 cases in 1 rows: 0 shown, 0 in part, 0 where what it is about is missing, 3 open.";
    assert_eq!(told(all_open, partly), "");
    assert!(told("3 cases", &right).contains(&format!("these figures are not said: {figures}")));
    for (row, words) in [
        ("", "test_a: 1 cases, and there are 2"),
        ("| `test_a`: `two` |  |  |", "test_a: two: neither shown nor said what is missing"),
        ("| `test_a`: `two`, `two` |  | uTP |", "test_a: two: named twice"),
        ("| `test_a`: `two`, `one` |  | uTP |", "test_a: one: named twice"),
        ("| `test_a`: `two`, `three` |  | uTP |", "test_a: 3 cases, and there are 2"),
        ("| `test_a`: `two`; `test_c`: `one` |  | uTP |", "test_c: no such file"),
        ("| `test_a`: two |  | uTP |", "line 9: `two` is no name of a case in backticks"),
        ("| `test_a` |  | uTP |", "line 9: wants `file`: `case`, `case`; `file`: `case`"),
        ("| `test_a`: `two` |  |", "line 9: wants three cells"),
        ("| `test_a`: `two` | `no-such-thing.toml` |  |", "test_a: two: no-such-thing.toml is no scenario"),
        ("| `test_a`: `two` | `README.md` |  |", "is no test"),
        ("| `test_a`: `two` | `stage kill8` |  |", "test_a: two: stage kill8 is no stage"),
        ("| `test_a`: `two` | `taipei_tests::catalogue::problems_of` |  |", "is no test"),
        ("| `test_a`: `two` | transfer-one-seed.toml |  |", "wants names in backticks"),
        ("| `test_a`: `two` |  | open: later |", "wants `open: no test yet`"),
    ] {
        let told = told(figures, &format!("{others}{row}"));
        assert!(told.contains(words), "{row}: {told:?} does not say {words:?}");
    }
}

/// All that is wrong in a catalogue of these files, a line each.
fn problems_of(text: &str, files: &[(&str, usize)], evidence: &Evidence) -> Vec<String> {
    let (mut problems, mut named, mut figures) = (Vec::new(), BTreeSet::new(), Figures::default());
    for (number, line) in rows(text) {
        let row = match Row::read(line) {
            Ok(row) => row,
            Err(why) => {
                problems.push(format!("line {number}: {why}"));
                continue;
            }
        };
        let first = row.cases.first().map(|(file, case)| format!("{file}: {case}")).unwrap_or_default();
        if row.here.is_empty() && row.missing.is_empty() {
            problems.push(format!("{first}: neither shown nor said what is missing"));
        }
        if row.missing.starts_with("open") && !row.is_open() {
            problems.push(format!("{first}: wants `{OPEN}`"));
        }
        for name in &row.here {
            let scenario = name.strip_suffix(".toml").map(|scenario| format!("scenario {scenario}"));
            if let Some(kind) = evidence.lacks(scenario.as_deref().unwrap_or(name)) {
                problems.push(format!("{first}: {name} is no {kind}"));
            }
        }
        figures.count(&row);
        for case in row.cases {
            if !named.insert(case) {
                problems.push(format!("{}: {}: named twice", case.0, case.1));
            }
        }
    }
    for (file, count) in files {
        let found = named.iter().filter(|(of, _)| of == file).count();
        if found != *count {
            problems.push(format!("{file}: {found} cases, and there are {count}"));
        }
    }
    let is_known = |file: &str| files.iter().any(|(known, _)| *known == file);
    let unknown: BTreeSet<_> = named.iter().map(|(file, _)| *file).filter(|file| !is_known(file)).collect();
    problems.extend(unknown.iter().map(|file| format!("{file}: no such file")));
    if !text.contains(&figures.to_string()) {
        problems.push(format!("these figures are not said: {figures}"));
    }
    problems
}

/// The rows of every table, with the numbers of their lines. A table goes from its head to the next line that is none of it.
fn rows(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_table = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_row = is_table && line.starts_with('|') && !line.starts_with("|---");
        is_table = *line == HEAD || (is_table && line.starts_with('|'));
        is_row
    })
}

/// A row: cases that are about one thing, what shows it, and what there is not.
struct Row<'a> {
    /// Each with its file.
    cases: Vec<(&'a str, &'a str)>,
    here: Vec<&'a str>,
    missing: &'a str,
}

impl<'a> Row<'a> {
    fn read(line: &'a str) -> Result<Self, String> {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [names, here, missing] = cells[..] else { return Err("wants three cells".to_owned()) };
        let mut cases = Vec::new();
        for part in names.split(';') {
            let wrong = || "wants `file`: `case`, `case`; `file`: `case`".to_owned();
            let (file, list) = part.split_once(':').ok_or_else(wrong)?;
            let file = quoted(file).ok_or_else(wrong)?;
            for case in list.split(',') {
                let name = quoted(case).filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
                let wrong = || format!("`{}` is no name of a case in backticks", case.trim());
                cases.push((file, name.ok_or_else(wrong)?));
            }
        }
        let names = here.split(',').filter(|name| !name.trim().is_empty()).map(quoted);
        let here = names.collect::<Option<Vec<_>>>().ok_or("wants names in backticks in its second cell")?;
        Ok(Self { cases, here, missing })
    }

    fn is_open(&self) -> bool {
        self.missing.starts_with(OPEN)
    }
}

/// What stands between backticks.
fn quoted(text: &str) -> Option<&str> {
    text.trim().strip_prefix('`')?.strip_suffix('`').filter(|inner| !inner.is_empty())
}

/// How many cases are how far.
#[derive(Default)]
struct Figures {
    rows: usize,
    shown: usize,
    partly: usize,
    missing: usize,
    open: usize,
}

impl Figures {
    fn count(&mut self, row: &Row<'_>) {
        let of = match (row.is_open(), row.here.is_empty(), row.missing.is_empty()) {
            (true, ..) => &mut self.open,
            (_, false, true) => &mut self.shown,
            (_, false, false) => &mut self.partly,
            (_, true, _) => &mut self.missing,
        };
        *of += row.cases.len();
        self.rows += 1;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, shown, partly, missing, open } = self;
        let cases = shown + partly + missing + open;
        write!(
            f,
            "{cases} cases in {rows} rows: {shown} shown, {partly} in part, {missing} where what it is about is missing, \
             {open} open."
        )
    }
}
