//! The table of what goes wrong in torrent clients, of the holes of the seed and of the vectors among the fixtures, and
//! what shows that all is well here: `reliability.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Deserialize;

use evidence::{Evidence, root};

mod evidence;

/// Groups of rows and how many each has: A to E are those of `reliability.md` 1.1, 1.2, 1.3 and 1.5; the holes are
/// those of `features.md` 1.4.
const GROUPS: &[(&str, usize)] = &[("A", 14), ("B", 15), ("C", 7), ("E", 13), ("hole-", 28)];

/// One row: what shows it, what has no test because it does not exist yet, or both.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// What it is about, in few words.
    about: String,
    /// `crate::module::test`, `stage NAME` of `tests/run`, or `scenario NAME`.
    #[serde(default)]
    shown_by: Vec<String>,
    /// What does not exist yet, and so has no test.
    later: Option<String>,
}

#[test]
fn every_row_is_shown_or_says_what_it_waits_for() {
    let problems =
        problems_of(&fs::read_to_string(root().join("tests/reliability.toml")).expect("the table"));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn what_is_wrong_in_the_table_is_noticed() {
    let table = |row: &str| {
        let mut text = String::new();
        for id in ids().iter().filter(|id| *id != "A7") {
            text += &format!("[{id}]\nabout = \"x\"\nlater = \"not built yet\"\n");
        }
        problems_of(&(text + row)).join("\n")
    };
    let here = "taipei_tests::reliability::what_is_wrong_in_the_table_is_noticed";
    assert_eq!(table(&format!("[A7]\nabout = \"x\"\nshown_by = [\"{here}\", \"stage kill9\"]")), "");
    for (row, words) in [
        ("", "A7: not in the table"),
        (
            "[A7]\nabout = \"x\"\nlater = \"soon enough\"\n[A99]\nabout = \"x\"\nlater = \"soon enough\"",
            "A99: no such row",
        ),
        ("[A7]\nabout = \"x\"", "A7: neither shown nor said why not"),
        ("[A7]\nabout = \"x\"\nlater = \" \"", "A7: neither shown nor said why not"),
        ("[A7]\nabout = \"x\"\nshown_by = [\"taipei_tests::reliability::problems_of\"]", "is no test"),
        (
            "[A7]\nabout = \"x\"\nshown_by = [\"taipei_tests::tidy::what_is_wrong_in_the_table_is_noticed\"]",
            "is no test",
        ),
        (
            "[A7]\nabout = \"x\"\nshown_by = [\"taipei_tests::what_is_wrong_in_the_table_is_noticed\"]",
            "is no test",
        ),
        (
            "[A7]\nabout = \"x\"\nshown_by = [\"taipei_net::tls::asks_what_the_environment_names\"]",
            "is no test",
        ),
        ("[vector-nothing-like-it]\nabout = \"x\"\nlater = \"soon enough\"", "no such row"),
        ("[A7]\nabout = \"x\"\nshown_by = [\"stage kill8\"]", "is no stage"),
        ("[A7]\nabout = \"x\"\nshown_by = [\"scenario nothing-like-it\"]", "is no scenario"),
        ("[A7]\nabuot = \"x\"", "unknown field"),
    ] {
        let told = table(row);
        assert!(told.contains(words), "{row}: {told:?} does not say {words:?}");
    }
}

/// All that is wrong in a table, a line each.
fn problems_of(table: &str) -> Vec<String> {
    let rows: BTreeMap<String, Row> = match toml::from_str(table) {
        Ok(rows) => rows,
        Err(error) => return vec![error.to_string()],
    };
    let (ids, evidence) = (ids(), Evidence::collect());
    let mut problems: Vec<String> =
        ids.iter().filter(|id| !rows.contains_key(*id)).map(|id| format!("{id}: not in the table")).collect();
    for (id, row) in &rows {
        if !ids.contains(id) {
            problems.push(format!("{id}: no such row"));
        }
        if row.about.is_empty() {
            problems.push(format!("{id}: says not what it is about"));
        }
        if row.shown_by.is_empty() && row.later.as_ref().is_none_or(|why| why.trim().is_empty()) {
            problems.push(format!("{id}: neither shown nor said why not"));
        }
        for name in &row.shown_by {
            if let Some(kind) = evidence.lacks(name) {
                problems.push(format!("{id}: {name} is no {kind}"));
            }
        }
    }
    problems
}

/// The names of all rows; a file of vectors is a row as well.
fn ids() -> BTreeSet<String> {
    let vectors = fs::read_dir(root().join("tests/fixtures/torrents/vectors")).expect("the vectors");
    let vectors = vectors.map(|file| {
        let name = file.expect("a readable folder").file_name();
        format!("vector-{}", name.to_string_lossy().trim_end_matches(".toml"))
    });
    GROUPS
        .iter()
        .flat_map(|(group, count)| (1..=*count).map(move |number| format!("{group}{number}")))
        .chain(vectors)
        .collect()
}
