//! The table of what goes wrong in torrent clients, of the holes of the seed and of the vectors among the fixtures, and
//! what shows that all is well here: `reliability.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Groups of rows and how many each has: A to E are those of `reliability.md` 1.1, 1.2, 1.3 and 1.5; the holes are
/// those of `features.md` 1.4.
const GROUPS: &[(&str, usize)] = &[("A", 14), ("B", 15), ("C", 7), ("E", 13), ("hole-", 28)];

/// Where the tests of each crate are.
const CRATES: &[(&str, &str)] = &[
    ("taipei_engine", "engine"),
    ("taipei_net", "net"),
    ("taipei_sim", "sim"),
    ("taipei_cli", "cli"),
    ("taipei_tests", "tests"),
];

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
    let (ids, stages, tests) = (ids(), stages(), tests());
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
            let (is_there, kind) = if let Some(stage) = name.strip_prefix("stage ") {
                (stages.contains(stage), "stage")
            } else if let Some(scenario) = name.strip_prefix("scenario ") {
                (root().join(format!("scenarios/{scenario}.toml")).is_file(), "scenario")
            } else {
                (tests.iter().any(|test| test.is_called(name)), "test")
            };
            if !is_there {
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

/// The stages of `tests/run`.
fn stages() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("tests/run")).expect("tests/run");
    let list =
        text.split("\nSTAGES=(\n").nth(1).and_then(|rest| rest.split("\n)").next()).expect("its stages");
    list.lines()
        .filter_map(|line| Some(line.trim().strip_prefix('"')?.split('|').next()?.to_owned()))
        .collect()
}

/// A function marked as a test, and the names on the way to its file.
struct Test {
    crate_name: &'static str,
    file: Vec<String>,
    name: String,
}

impl Test {
    /// Whether `path` (`crate::module::name`) means this one: every module on the way, in order. A module of tests may
    /// have its file beside the module, named for both (`piece_tests.rs`); `tests` itself is left out of both.
    fn is_called(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split("::").collect();
        let [first, modules @ .., last] = parts.as_slice() else { return false };
        let modules: Vec<&str> = modules.iter().copied().filter(|module| *module != "tests").collect();
        let file: Vec<&str> = self.file.iter().map(String::as_str).filter(|part| *part != "tests").collect();
        let is = |part: &str, module: &str| part == module || part.strip_suffix("_tests") == Some(module);
        *first == self.crate_name
            && *last == self.name
            && modules.len() == file.len()
            && file.iter().zip(&modules).all(|(part, module)| is(part, module))
    }
}

/// Every test of every crate.
fn tests() -> Vec<Test> {
    let mut found = Vec::new();
    for (crate_name, folder) in CRATES {
        for part in ["src", "tests"] {
            let base = root().join(folder).join(part);
            for path in sources_below(&base) {
                let inside = path.strip_prefix(&base).expect("below its base").with_extension("");
                let file: Vec<String> = inside
                    .iter()
                    .map(|part| part.to_string_lossy().into_owned())
                    .filter(|part| !["mod", "lib", "main"].contains(&part.as_str()))
                    .collect();
                let text = fs::read_to_string(&path).expect("a readable source");
                found.extend(test_names(&text).map(|name| Test { crate_name, file: file.clone(), name }));
            }
        }
    }
    found
}

/// The functions that follow a test attribute, other attributes and comments between. One that is ignored shows nothing.
fn test_names(text: &str) -> impl Iterator<Item = String> {
    let mut is_marked = false;
    text.lines().map(str::trim).filter_map(move |line| {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_marked = true;
        } else if line.starts_with("#[ignore") {
            is_marked = false;
        } else if is_marked && !line.is_empty() && !line.starts_with('#') && !line.starts_with("//") {
            is_marked = false;
            let name = line.split("fn ").nth(1)?.split(['(', '<']).next()?;
            return Some(name.to_owned());
        }
        None
    })
}

/// The Rust files below a folder, none when there is no such folder.
fn sources_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            found.extend(sources_below(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
