//! The program itself: what it prints, what it leaves, how it ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A directory that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("taipei-sim-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is in the way of nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taipei-sim")).args(arguments).output().expect("it runs")
}

/// Status, standard output, standard error.
fn said(arguments: &[&str]) -> (i32, String, String) {
    let output = sim(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn json(arguments: &[&str]) -> (i32, Value) {
    let (status, out, error) = said(arguments);
    let last = out.lines().last().unwrap_or_default();
    (status, serde_json::from_str(last).unwrap_or_else(|_| panic!("{arguments:?}: {out}{error}")))
}

/// A swarm that is late whatever its seed is, for one of the three faults in it: the seeder is away for too long.
const LATE: &str = r#"
    [scenario]
    id = "late"
    duration = "100 s"
    [[torrent]]
    name = "a"
    size = "700 KiB"
    piece = "32 KiB"
    files = 5
    [[torrent]]
    name = "b"
    size = "100 KiB"
    piece = "32 KiB"
    [[group]]
    name = "seed"
    count = 1
    has = "all"
    access = { up = "1 Mbit/s" }
    [[group]]
    name = "leech"
    count = 6
    [net]
    latency = "5 ms .. 30 ms"
    loss = "1/100"
    [[fault]]
    at = "500 ms .. 900 ms"
    kind = "crash"
    pick = "leech"
    back_after = "1 s"
    [[fault]]
    at = "400 ms"
    kind = "crash"
    pick = "seed"
    back_after = "98 s"
    [[fault]]
    at = "2 s"
    kind = "silence"
    pick = "leech"
    for = "3 s"
    [[expect]]
    complete = "leech"
"#;

#[test]
fn a_failing_run_shrinks_to_what_it_needs_and_replays_from_its_file() {
    let folder = Folder::new("shrink");
    let file = folder.write("late.toml", LATE);
    let out = folder.path("made/for/it");
    let (status, text, error) = said(&["shrink", &file, "--seed", "3", "--out", &out]);
    assert_eq!(status, 1, "{text}{error}");
    let size: Vec<u32> = text.split(' ').filter_map(|word| word.parse().ok()).take(3).collect();
    assert!(size[0] <= 4 && size[1..] == [1, 1], "{text}");
    let smaller = folder.path("made/for/it/late-l1-3.toml");
    let made = std::fs::read_to_string(&smaller).expect("it was written");
    assert!(
        made.contains("[found]") && made.contains("oracle = \"L1\"") && made.contains("only = ["),
        "{made}"
    );
    // It is a scenario like any other, with a seed of its own; and the line to copy says what it says.
    let (status, outcome) = json(&["replay", &smaller, "--json"]);
    assert_eq!((status, outcome["oracle"].as_str(), outcome["seed"].as_u64()), (1, Some("L1"), Some(3)));
    let line = text.lines().last().unwrap_or_default();
    assert!(line.contains(outcome["trace"].as_str().expect("a trace")), "{line}");
}

#[test]
fn shards_come_to_what_the_whole_comes_to() {
    let folder = Folder::new("shards");
    let sweep = |more: &[&str]| {
        let arguments = ["sweep", "--profile", "fuzz-small", "--seeds", "6", "--base-seed", "0x40", "--json"];
        json(&[&arguments, more].concat())
    };
    let (whole, first, second) = (folder.path("whole"), folder.path("first"), folder.path("second"));
    let (status, all) = sweep(&["--out", &whole]);
    assert_eq!(all["runs"].as_u64(), Some(6), "{all}");
    sweep(&["--shard", "1/2", "--out", &first]);
    sweep(&["--shard", "2/2", "--jobs", "1", "--out", &second]);
    assert_eq!(json(&["merge", &second, &first, "--json"]), (status, all));
    assert_ne!(said(&["merge", &second]).0, 0, "half of it is missing");
    assert_eq!(said(&["merge", &first, &first]).0, 2);
    let both = folder
        .write("both", &[&first, &second].map(|file| std::fs::read_to_string(file).expect("there")).concat());
    assert_eq!(said(&["diff", &whole, &both]).0, 2, "a second head is no line");
    assert_eq!(said(&["diff", &whole, &whole]).0, 0);
    assert_eq!(said(&["diff", &whole, &first]).0, 1);
}

#[test]
fn a_sweep_says_how_to_repeat_what_failed_and_names_its_rule() {
    let folder = Folder::new("sweep");
    let file = folder.write("late.toml", LATE);
    let (status, text, error) = said(&["sweep", &file, "--seeds", "3", "--twice"]);
    assert_eq!(status, 1, "{text}{error}");
    assert!(
        text.contains("3 of 3 runs from seed 1: 3 failed") && text.contains("L1 broke 3 times"),
        "{text}"
    );
    assert!(text.contains("3 run again, 0 of them differ"), "{text}");
    let lines: Vec<&str> = error.lines().filter(|line| line.starts_with("taipei-sim replay ")).collect();
    assert_eq!(lines.len(), 3, "{error}");
    assert!(
        lines[0].contains("late.toml --seed ") && lines[0].contains("--world events  # L1 at "),
        "{error}"
    );
}

#[test]
fn every_cell_of_a_matrix_runs_and_is_counted() {
    let folder = Folder::new("matrix");
    folder.write("base.toml", &LATE.replace("\"late\"", "\"base\"").replace("98 s", "1 s"));
    let matrix = |cells: u32| {
        format!(
            "[scenario]\nid = \"cells\"\nextends = \"base\"\n[matrix]\n\"torrent.1.piece\" = [\"16 KiB\", \"64 KiB\"]\n\"net.loss\" = [\"1/50\", \"1/5000\"]\ncells = {cells}\n"
        )
    };
    let file = folder.write("cells.toml", &matrix(4));
    let (status, text, error) = said(&["run", &file]);
    assert_eq!(status, 0, "{text}{error}");
    assert!(text.contains("4 cells ran"), "{text}");
    let (status, sum) = json(&["sweep", &file, "--seeds", "2", "--json"]);
    assert_eq!((status, sum["runs"].as_u64()), (0, Some(8)), "{sum}");
    assert_eq!(said(&["replay", &file]).0, 2, "which cell?");
    assert_eq!(said(&["replay", &file, "--cell", "4"]).0, 0);
    assert_eq!(said(&["replay", &file, "--cell", "5"]).0, 2);
    let wrong = folder.write("cells.toml", &matrix(5));
    let (status, _, error) = said(&["run", &wrong]);
    assert_eq!(status, 2);
    assert!(error.contains("cells.toml:7:1: `matrix.cells`: wants 4"), "{error}");
}

#[test]
fn a_wrong_file_is_told_with_its_line_and_is_wrong_use() {
    let folder = Folder::new("wrong");
    let file = folder.write("late.toml", &LATE.replace("kind = \"silence\"", "kind = \"silnce\""));
    let (status, _, error) = said(&["run", &file]);
    let line = LATE.lines().position(|line| line.contains("silence")).expect("there") + 1;
    assert_eq!(status, 2);
    assert!(
        error.contains(&format!("late.toml:{line}:12: `fault.3.kind`: unknown variant `silnce`")),
        "{error}"
    );
    for arguments in [
        vec!["run", "nowhere.toml"],
        vec!["sweep", "--profile", "nobody"],
        vec!["sweep", "--profile", "fuzz-small", "--shard", "3/2"],
        vec!["sweep", "--profile", "fuzz-small", "--seeds", "0"],
        vec!["merge", "nowhere"],
        vec!["diff", "nowhere", "nowhere"],
        vec!["replay", "nowhere"],
    ] {
        assert_eq!(said(&arguments).0, 2, "{arguments:?}");
    }
}

#[test]
fn what_a_seed_comes_to_is_a_file_that_does_the_same() {
    let folder = Folder::new("scenario");
    let (status, text, error) = said(&["scenario", "--profile", "fuzz-small", "--seed", "5"]);
    assert_eq!(status, 0, "{error}");
    let file = folder.write("fuzz-small-5.toml", &text);
    let (_, from_profile) = json(&["run", "--profile", "fuzz-small", "--seed", "5", "--json"]);
    let (_, from_file) = json(&["run", &file, "--seed", "5", "--json"]);
    assert_eq!(from_profile["trace"], from_file["trace"]);
    assert!(Path::new(&file).exists());
}

#[test]
fn a_trace_is_lines_of_json_for_whoever_wants_to_look() {
    let folder = Folder::new("trace");
    let file = folder.write("late.toml", &LATE.replace("98 s", "1 s"));
    let trace = folder.path("trace");
    assert_eq!(said(&["run", &file, "--trace", &trace]).0, 0);
    let (status, text, _) = said(&["trace", &trace]);
    assert_eq!(status, 0);
    let first: Value = serde_json::from_str(text.lines().next().expect("events")).expect("JSON");
    assert_eq!((first["at_ns"].as_u64(), first["kind"].as_str()), (Some(0), Some("start")), "{first}");
    assert_eq!(said(&["trace", &file]).0, 2);
}

#[test]
fn a_sweep_goes_on_where_it_was_cut_off() {
    let folder = Folder::new("resume");
    let (whole, part) = (folder.path("whole.jsonl"), folder.path("part.jsonl"));
    let sweep = |more: &[&str]| said(&[&["sweep", "--profile", "fuzz-small"], more].concat());
    assert_eq!(sweep(&["--minutes", "5", "--seeds", "4", "--jobs", "1", "--out", &whole]).0, 0);
    let text = std::fs::read_to_string(&whole).expect("written");
    // In the middle of its third seed.
    let cut = text.match_indices('\n').nth(2).expect("three lines").0 + 100;
    folder.write("part.jsonl", &text[..cut]);
    let (status, out, _) = sweep(&["--seeds", "4", "--jobs", "1", "--out", &part, "--resume"]);
    assert!(status == 0 && out.contains("4 of 4 runs from seed 1: 4 pass"), "{status} {out}");
    let traces = |path: &str| {
        let text = std::fs::read_to_string(path).expect("written");
        let line = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["trace"].clone();
        text.lines().skip(1).map(line).collect::<Vec<_>>()
    };
    assert_eq!(traces(&part), traces(&whole));
    assert!(std::fs::read_to_string(&part).expect("written").starts_with(&text[..cut]));
    let (status, _, error) = sweep(&["--seeds", "5", "--out", &part, "--resume"]);
    assert!(status == 2 && error.contains("not of the same sweep"), "{status} {error}");
    assert_eq!(sweep(&["--resume"]).0, 2, "there is nothing to go on with");
}
