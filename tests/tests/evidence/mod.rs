//! What shows that something holds, of all that is in the tree: tests by their paths, stages of `tests/run`, scenarios.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the tests of each crate are.
const CRATES: &[(&str, &str)] = &[
    ("taipei_engine", "engine"),
    ("taipei_net", "net"),
    ("taipei_sim", "sim"),
    ("taipei_cli", "cli"),
    ("taipei_tests", "tests"),
];

/// All that is there.
pub(crate) struct Evidence {
    stages: BTreeSet<String>,
    tests: Vec<Test>,
}

impl Evidence {
    pub(crate) fn collect() -> Self {
        Self { stages: stages(), tests: tests() }
    }

    /// What there is none of under a name, nothing when it is there: `crate::module::test`, `stage NAME` of `tests/run`, or
    /// `scenario NAME`.
    pub(crate) fn lacks(&self, name: &str) -> Option<&'static str> {
        let (is_there, kind) = if let Some(stage) = name.strip_prefix("stage ") {
            (self.stages.contains(stage), "stage")
        } else if let Some(scenario) = name.strip_prefix("scenario ") {
            (root().join(format!("scenarios/{scenario}.toml")).is_file(), "scenario")
        } else {
            (self.tests.iter().any(|test| test.is_called(name)), "test")
        };
        (!is_there).then_some(kind)
    }
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

/// The root of the clone.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
