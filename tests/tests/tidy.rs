//! The rules of the house that a machine can read: names, words, sizes, and that nothing lies around unused.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "cli",
    "engine",
    "net",
    "scenarios",
    "sim",
    "tests",
];

/// Words that pure engine code never says, beside what `engine/clippy.toml` denies by path. `engine/src/driver/` may.
const BANNED_IN_PURE_CODE: &[(&str, &str)] = &[
    ("async fn", "machines take in and give out; only the driver waits"),
    (".await", "machines take in and give out; only the driver waits"),
    ("tokio", "the engine has no runtime without its driver"),
    ("hyper", "HTTP is performed by the driver"),
    ("std::time::Instant", "time is given: crate::Instant"),
    ("SystemTime", "wall time is given with the start values"),
    ("HashMap", "iteration order must be decided by a seed: BTreeMap"),
    ("HashSet", "iteration order must be decided by a seed: BTreeSet"),
    ("RandomState", "iteration order must be decided by a seed"),
    ("std::thread", "work goes out as jobs"),
    ("std::sync::mpsc", "a machine has one owner and no channel"),
    ("Mutex", "a machine has one owner and no lock"),
    ("RwLock", "a machine has one owner and no lock"),
    ("Condvar", "a machine has one owner and no lock"),
    ("Atomic", "a machine has one owner"),
    ("OnceLock", "no statics"),
    ("LazyLock", "no statics"),
    ("static mut", "no statics"),
    ("thread_local!", "no statics"),
    ("std::net", "addresses are core::net, sockets are the driver's"),
    ("std::fs", "disk is the Storage door"),
    ("std::env", "configuration is given"),
    ("std::process", "a machine does not end the process"),
    ("thread_rng", "randomness is a stream of the seed: crate::rng"),
    ("rand::random", "randomness is a stream of the seed: crate::rng"),
    ("OsRng", "randomness is a stream of the seed: crate::rng"),
    ("getrandom", "randomness is a stream of the seed: crate::rng"),
    ("println!", "the engine does not print: tracing"),
    ("dbg!", "the engine does not print: tracing"),
    ("unsafe", "no unsafe in the engine"),
    ("f32", "rates are integers with carried remainders"),
    ("f64", "rates are integers with carried remainders"),
];

/// Nobody says these, in any crate.
const BANNED_EVERYWHERE: &[(&str, &str)] = &[
    ("todo!(", "leave no stub behind"),
    ("unimplemented!(", "leave no stub behind"),
    ("dbg!(", "use tracing"),
];

/// Decoders outside `wire/` that read what others wrote.
const DECODERS_ELSEWHERE: &[&str] =
    &["Metainfo::parse", "storage_path", "disk::journal", "disk::snapshot", "bencode::parse"];

/// Modules of `wire/` that decode nothing by themselves, and the decoder that makes their values.
const DECODED_BY: &[(&str, &str)] = &[("message", "stream")];

const LINES_MAX: usize = 1000;
/// A longer file says these words in its first lines, and goes on with the reason.
const LONG_FILE_NOTE: &str = "over 1,000 lines because";

#[test]
fn top_level_is_what_the_design_says() {
    let mut found: BTreeSet<String> =
        names_in(&root()).into_iter().filter(|name| !name.starts_with('.')).collect();
    found.remove("target");
    assert_eq!(found, TOP_LEVEL.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn pure_engine_code_says_no_banned_word() {
    let mut wrong = Vec::new();
    for file in
        files_below("engine/src", "rs").into_iter().filter(|file| !file.starts_with("engine/src/driver"))
    {
        for (number, line) in code_lines(&file) {
            for (word, why) in BANNED_IN_PURE_CODE.iter().filter(|(word, _)| says(&line, word)) {
                wrong.push(format!("{}:{number}: `{word}`: {why}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_code_says_what_nobody_may_say() {
    let mut wrong = Vec::new();
    for file in crate_sources() {
        for (number, line) in code_lines(&file) {
            for (word, why) in BANNED_EVERYWHERE.iter().filter(|(word, _)| says(&line, word)) {
                wrong.push(format!("{}:{number}: `{word}`: {why}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_platform_asks_for_the_system() {
    let mut wrong = Vec::new();
    for file in crate_sources().into_iter().filter(|file| !file.starts_with("net/src/platform")) {
        let name = file.display().to_string();
        for (number, line) in code_lines(&file) {
            let asks = line.contains("cfg")
                && ["unix", "windows", "target_os", "target_family"].iter().any(|word| says(&line, word));
            if asks {
                wrong.push(format!("{name}:{number}: {}", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "cfg of the system belongs in net/src/platform:\n{}", wrong.join("\n"));
}

#[test]
fn long_files_say_why() {
    let mut wrong = Vec::new();
    for file in text_files() {
        let text = read(&file);
        let lines = text.lines().count();
        if lines > LINES_MAX && !text.lines().take(20).any(|line| line.contains(LONG_FILE_NOTE)) {
            wrong.push(format!(
                "{}: {lines} lines, and no note with the words `{LONG_FILE_NOTE}`",
                file.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_scenario_runs() {
    let runner = read(Path::new("tests/scenarios.py"));
    for folder in ["\"scenarios\"", "\"museum\""] {
        let takes = format!(r#"{folder}).glob("*.toml")"#);
        assert!(runner.contains(&takes), "tests/scenarios.py no longer takes every file of {folder}");
    }
    assert!(
        read(Path::new("tests/run")).contains("tests/scenarios.py"),
        "tests/run no longer runs the scenarios"
    );
    let swarms = read(Path::new("sim/src/swarms.rs"));
    for file in files_below("scenarios/swarms", "") {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        assert!(swarms.contains(&format!("\"{name}\"")), "`taipei-sim swarms` leaves {name} out");
    }
    let all = files_below("scenarios", "");
    assert!(!all.is_empty(), "there is no scenario");
    for file in all {
        let name = file.display();
        if file == Path::new("scenarios/README.md") {
            continue;
        }
        // Scenarios, failures that were found, what sweeps draw from, and what sweeps came to.
        let folder = file.parent().and_then(Path::to_str).unwrap_or_default();
        let (part, extension) = match folder {
            "scenarios" | "scenarios/corpus" | "scenarios/museum" | "scenarios/swarms" => {
                ("scenario", "toml")
            }
            "scenarios/profiles" => ("profile", "toml"),
            "scenarios/records" => continue,
            _ => panic!("{name} lies where nothing runs it"),
        };
        assert!(file.extension().is_some_and(|its| its == extension), "{name} is no {part}");
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let table: toml::Table = read(&file).parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        let head = table.get(part).and_then(toml::Value::as_table);
        let head = head.unwrap_or_else(|| panic!("{name}: no [{part}]"));
        let id = head.get("id").and_then(toml::Value::as_str);
        assert_eq!(id, Some(stem.as_str()), "{name}: id and file name differ");
        let is_found = table.contains_key("found");
        assert_eq!(is_found, folder == "scenarios/corpus", "{name}: what was found is in the corpus");
    }
}

#[test]
fn readme_names_every_folder_of_the_house() {
    let readme = read(Path::new("README.md"));
    let mut missing = Vec::new();
    for name in ["engine", "net", "sim", "cli", "tests", "scenarios"] {
        if !readme.contains(&format!("{name}/")) {
            missing.push(name.to_owned());
        }
        let source = root().join(name).join("src");
        let folders = if source.is_dir() { names_in(&source) } else { Vec::new() };
        for folder in folders.into_iter().filter(|folder| source.join(folder).is_dir()) {
            // A module that is one file and what its tests need has no line of its own.
            let is_code = |file: &String| file.ends_with(".rs") && file != "tests.rs";
            if names_in(&source.join(&folder)).iter().any(is_code) && !readme.contains(&format!("{folder}/"))
            {
                missing.push(format!("{name}/src/{folder}"));
            }
        }
    }
    assert!(missing.is_empty(), "the map in README.md lacks {missing:?}");
}

#[test]
fn each_decoder_has_a_fuzz_target() {
    let targets: Vec<String> =
        files_below("tests/fuzz/fuzz_targets", "rs").iter().map(|file| read(file)).collect();
    let manifest = read(Path::new("tests/fuzz/Cargo.toml"));
    for file in files_below("tests/fuzz/fuzz_targets", "rs") {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        assert!(manifest.contains(&format!("\"{stem}\"")), "tests/fuzz/Cargo.toml does not build {stem}");
    }
    let mut missing = Vec::new();
    for file in files_below("engine/src/wire", "rs") {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let decoder = DECODED_BY
            .iter()
            .find(|(module, _)| *module == stem)
            .map_or(stem.as_str(), |(_, decoder)| decoder);
        if !["mod", "tests"].contains(&decoder)
            && !targets.iter().any(|text| says(text, &format!("wire::{decoder}")))
        {
            missing.push(format!("wire::{stem}"));
        }
    }
    for decoder in DECODERS_ELSEWHERE {
        if !targets.iter().any(|text| says(text, decoder)) {
            missing.push((*decoder).to_owned());
        }
    }
    assert!(missing.is_empty(), "no target in tests/fuzz/fuzz_targets names {missing:?}");
}

#[test]
fn committed_files_name_no_machine() {
    let mut wrong = Vec::new();
    // Put together here, so that this file does not find itself.
    let signs =
        [["/ho", "me/"].concat(), ["/ro", "ot/"].concat(), ["/tm", "p/wt"].concat(), ["/wo", "rk/"].concat()];
    for file in text_files() {
        for (number, line) in read(&file).lines().enumerate() {
            if let Some(sign) = signs.iter().find(|sign| line.contains(sign.as_str())) {
                wrong.push(format!("{}:{}: {sign}", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "paths of somebody's machine:\n{}", wrong.join("\n"));
}

/// The checks are worth what their reading of Rust is worth.
#[test]
fn words_are_found_in_code_alone() {
    let text = "//! HashMap\nlet a = \"HashMap\"; // HashMap\nlet b = HashMap::new();\nlet MyHashMap = 1;\n/// HashMap\n\
                let c = '\"'; HashMap;\n#[cfg(test)]\nmod tests {\n HashMap\n}\n";
    let found: Vec<usize> =
        strip(text).into_iter().filter(|(_, line)| says(line, "HashMap")).map(|(number, _)| number).collect();
    assert_eq!(found, [3, 6]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(relative: &Path) -> String {
    fs::read_to_string(root().join(relative))
        .unwrap_or_else(|error| panic!("{}: {error}", relative.display()))
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Files below a folder, relative to the root, sorted; all of them when `extension` is empty.
fn files_below(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in names_in(&root().join(folder)) {
        let path = format!("{folder}/{name}");
        if name == "target" || name.starts_with('.') || name == "__pycache__" {
            continue;
        }
        if root().join(&path).is_dir() {
            files.extend(files_below(&path, extension));
        } else if extension.is_empty() || Path::new(&name).extension().is_some_and(|found| found == extension)
        {
            files.push(PathBuf::from(path));
        }
    }
    files
}

/// The Rust of every crate but the tests.
fn crate_sources() -> Vec<PathBuf> {
    ["engine", "net", "sim", "cli"]
        .iter()
        .flat_map(|name| files_below(&format!("{name}/src"), "rs"))
        .collect()
}

/// Everything we wrote as text, fixtures and lock files apart.
fn text_files() -> Vec<PathBuf> {
    let is_ours = |file: &PathBuf| {
        let is_fixture =
            file.components().any(|part| part.as_os_str() == "fixtures" || part.as_os_str() == "corpus");
        let extension = file.extension().unwrap_or_default().to_string_lossy().into_owned();
        !is_fixture
            && (["rs", "py", "toml", "md", "sh"].contains(&extension.as_str()) || file.ends_with("tests/run"))
    };
    let folders = TOP_LEVEL.iter().filter(|name| root().join(name).is_dir());
    let mut files: Vec<PathBuf> = folders.flat_map(|name| files_below(name, "")).filter(is_ours).collect();
    files.extend(["README.md", "Cargo.toml", ".ci/run", ".deny.toml"].map(PathBuf::from));
    files
}

/// The lines of a file that are code, without comments, strings and the tests at its bottom.
fn code_lines(file: &Path) -> Vec<(usize, String)> {
    let name = file.display().to_string();
    if name.ends_with("/tests.rs") || name.contains("/tests/") { Vec::new() } else { strip(&read(file)) }
}

fn strip(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut rest = text.lines().enumerate().peekable();
    while let Some((number, line)) = rest.next() {
        // Tests lie at the bottom of a file.
        if line == "#[cfg(test)]"
            && rest.peek().is_some_and(|(_, next)| next.starts_with("mod ") && next.ends_with('{'))
        {
            break;
        }
        lines.push((number + 1, strip_line(line)));
    }
    lines
}

/// A line without its comment and without what lies between quotation marks. Strings over several lines are not seen.
fn strip_line(line: &str) -> String {
    let mut out = String::new();
    let mut characters = line.chars().peekable();
    let mut in_string = false;
    while let Some(character) = characters.next() {
        match (character, in_string) {
            ('\\', true) => drop(characters.next()),
            ('"', _) => in_string = !in_string,
            (_, true) => {}
            ('\'', false) if characters.peek() == Some(&'"') => drop((characters.next(), characters.next())),
            ('/', false) if characters.peek() == Some(&'/') => break,
            _ => out.push(character),
        }
    }
    out
}

/// Whether `word` stands in `line`, not as a part of a longer one.
fn says(line: &str, word: &str) -> bool {
    let is_part =
        |character: Option<char>| character.is_some_and(|found| found.is_alphanumeric() || found == '_');
    line.match_indices(word).any(|(at, _)| {
        let starts_in_word = word.starts_with(|first: char| first.is_alphanumeric())
            && is_part(line[..at].chars().next_back());
        let ends_in_word = word.ends_with(|last: char| last.is_alphanumeric())
            && is_part(line[at + word.len()..].chars().next());
        !starts_in_word && (!ends_in_word || word == "Atomic")
    })
}
