//! The program itself: what it prints, how it ends.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use common::{Place, Running, interrupt};

mod common;

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torrents").join(name);
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_is_created_is_shown_and_verified() {
    let place = Place::with_torrent("create");
    let (json, _) = place.ends(0, "show --json t.torrent");
    let info: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&info["name"], &info["num_files"], &info["total_size"]),
        (&"t".into(), &3.into(), &3_001_234.into())
    );
    assert_eq!(info["files"][2]["path"], "t/sub/small.bin");
    for given in ["data", "data/t"] {
        let (out, _) = place.ends(0, &format!("verify t.torrent {given}"));
        assert!(out.contains("whole, 92 of 92 pieces good"), "{out}");
    }
    let (out, _) = place.ends(0, "create data/t/sub/small.bin -o -");
    assert!(out.starts_with("d10:created by"), "a torrent file on standard output");
    place.ends(1, "create data/t -o t.torrent");
    place.ends(0, "create data/t -o t.torrent --force --anonymize");
    place.ends(1, "create nothing");
    place.ends(2, "create data/t --piece-size 20000");
}

#[test]
fn data_that_are_not_whole_end_with_4() {
    let place = Place::with_torrent("verify");
    let path = place.0.join("data/t/large.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::remove_file(place.0.join("data/t/empty")).unwrap();
    let (out, _) = place.ends(4, "verify --json t.torrent data");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&found["whole"], &found["pieces_good"]), (&false.into(), &91.into()));
    let bad: Vec<_> =
        found["bad_files"].as_array().unwrap().iter().map(|bad| (&bad["path"], &bad["problem"])).collect();
    let expected =
        [("t/empty", "missing"), ("t/large.bin", "wrong content")].map(|(a, b)| (a.into(), b.into()));
    assert_eq!(bad, expected.iter().map(|(a, b)| (a, b)).collect::<Vec<(&Value, &Value)>>());
    let (out, _) = place.ends(4, "verify --progress json t.torrent data");
    assert!(out.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{out}");
    let (out, _) = place.ends(4, "verify t.torrent nowhere");
    assert!(out.contains("t/large.bin: missing"), "{out}");
}

#[test]
fn a_refusal_says_which_field_is_wrong() {
    let place = Place::new("refusal");
    let (out, error) = place.ends(1, &format!("info --json {}", fixture("libtorrent/no_name.torrent")));
    let refusal: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&refusal["error_class"], error.as_str()), (&"bad-name".into(), ""));
    let (out, error) = place.ends(1, &format!("download {}", fixture("libtorrent/v2_only.torrent")));
    assert!(out.is_empty() && error.contains("v2 only"), "{error}");
    place.ends(1, "info missing.torrent");
}

#[test]
fn wrong_use_ends_with_2() {
    let place = Place::with_torrent("usage");
    for args in [
        "",
        "download",
        "frobnicate",
        "download t.torrent --port 99999",
        "download t.torrent --encryption require",
        "seed t.torrent --data data --encryption require",
    ] {
        let done = place.run(args);
        assert_eq!(done.status.code(), Some(2), "{args}");
        assert!(!done.stderr.is_empty(), "{args}");
    }
    let (out, _) = place.ends(0, "--version");
    assert!(out.starts_with("taipei-cli "), "{out}");
}

#[test]
fn without_progress_it_gives_up_with_3() {
    let place = Place::with_torrent("give-up");
    let (_, error) = place.ends(3, "download t.torrent -o out --port 0 --bind 127.0.0.1 --stop-timeout 1");
    assert!(
        error.contains("gave up after 1 s without progress (looking for peers: no tracker to ask)"),
        "{error}"
    );
}

#[test]
fn seeding_what_is_not_there_is_refused() {
    let place = Place::with_torrent("seed-nothing");
    let (_, error) = place.ends(1, "seed t.torrent --data elsewhere --port 0 --bind 127.0.0.1");
    assert!(error.contains("missing") && error.contains("--data"), "{error}");
    assert!(!place.0.join("elsewhere").exists());
    let path = place.0.join("data/t/large.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[5] ^= 1;
    fs::write(&path, &bytes).unwrap();
    place.ends(1, "seed t.torrent --data data --port 0 --bind 127.0.0.1");
    assert_eq!(fs::read(&path).unwrap(), bytes, "it is not written to");
}

#[test]
fn what_one_seeds_another_downloads() {
    let place = Place::with_torrent("swarm");
    let (mut seeder, port) = Running::seeder(&place, "t.torrent --data data");
    let (out, _) = place.ends(
        0,
        &format!("download t.torrent -o out --port 0 --bind 127.0.0.1 --peer 127.0.0.1:{port} --json --stop-timeout 30"),
    );
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["outcome"]), (&"finished".into(), &"complete".into()));
    place.ends(0, "verify t.torrent out");
    let again = "download t.torrent -o out --port 0 --bind 127.0.0.1";
    let (out, _) = place.ends(0, again);
    assert!(out.contains("complete already"), "{out}");
    assert_eq!(seeder.interrupt(), Some(0), "that is how seeding ends");
}

#[test]
fn an_interrupted_download_stops_cleanly_with_130() {
    let place = Place::with_torrent("interrupt");
    let mut child = place
        .command("download t.torrent -o out --port 0 --bind 127.0.0.1 --json")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(out.any(|line| line.contains("\"state\":\"Downloading\"")), "it begins");
    assert_eq!(interrupt(&mut child), Some(130));
    let last: Value = serde_json::from_str(&out.last().unwrap()).unwrap();
    assert_eq!(last["outcome"], "interrupted");
}

#[test]
fn the_demo_verifies_and_leaves_nothing() {
    let place = Place::new("demo");
    let done = place.command("demo --size 2M --speed 0 --json").env("TMPDIR", &place.0).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let out = String::from_utf8(done.stdout).unwrap();
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["verified"]), (&"demo".into(), &true.into()));
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0, "everything is removed");
}

#[test]
fn one_broken_torrent_does_not_end_the_others() {
    let place = Place::with_torrent("broken-one");
    fs::write(place.0.join("broken.torrent"), "d4:infoi1ee").unwrap();
    let (out, error) = place.ends(
        1,
        "download broken.torrent t.torrent t.torrent nothing.torrent -o data --no-trackers --port 0 --bind 127.0.0.1",
    );
    assert!(out.contains("t: complete already"), "{out}{error}");
    assert!(error.contains("error: broken.torrent") && error.contains("error: nothing.torrent"), "{error}");
    assert!(error.contains("t.torrent: the same torrent was given before"), "{error}");
}

#[test]
fn flags_come_from_the_environment_and_files_have_numbers() {
    let place = Place::with_torrent("environment");
    let mut command = place.command("download t.torrent");
    let done = command.env("TAIPEI_LIST", "1").env("TAIPEI_JSON", "yes").output().unwrap();
    let out = String::from_utf8(done.stdout).unwrap();
    let numbers: Vec<u64> = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2, 3], "{out}");
    let (_, error) = place.ends(1, "download t.torrent --select 4");
    assert!(error.contains("it has 3 files"), "{error}");
}

#[test]
fn a_torrent_has_all_that_was_asked_for() {
    let place = Place::with_torrent("tiers");
    let mut create = place.command(
        "create data/t -o u.torrent -t http://a/announce,udp://b:1 -t https://c/announce -w http://w/x --private \
         --source S --piece-size 64K --name other --comment",
    );
    assert!(create.arg("two words").status().unwrap().success());
    let (json, _) = place.ends(0, "info --json u.torrent");
    let info: Value = serde_json::from_str(&json).unwrap();
    let tiers = serde_json::json!([["http://a/announce", "udp://b:1"], ["https://c/announce"]]);
    assert_eq!(info["tracker_tiers"], tiers);
    // Of several files it is a directory (BEP 19).
    assert_eq!(info["web_seeds"], serde_json::json!(["http://w/x/"]));
    assert_eq!(
        (&info["private"], &info["source"], &info["piece_length"]),
        (&true.into(), &"S".into(), &65536.into())
    );
    assert_eq!((&info["comment"], &info["name"]), (&"two words".into(), &"other".into()));
}

#[test]
fn a_scrape_says_how_many_there_are() {
    let place = Place::with_torrent("scrape");
    let (mut tracker, url) = Running::tracker(&place);
    place.ends(0, &format!("create data/t -o u.torrent -t {url}"));
    let (mut seeder, _) = Running::seeder(&place, "u.torrent --data data");
    let hash = tracker.until(|event| event["complete"] == 1)["info_hash"].as_str().unwrap().to_owned();
    for asked in ["u.torrent".to_owned(), format!("{url} {hash}")] {
        let (out, _) = place.ends(0, &format!("scrape {asked}"));
        assert!(out.contains(&format!("{hash}  seeds 1  leechers 0")), "{out}");
    }
    let (out, _) = place.ends(0, "scrape u.torrent --json");
    let counts: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&counts["seeds"], &counts["info_hash"]), (&1.into(), &hash.as_str().into()));
    assert_eq!(seeder.interrupt(), Some(0));
}

#[test]
fn every_shell_can_complete() {
    let place = Place::new("completions");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (script, _) = place.ends(0, &format!("completions {shell}"));
        assert!(script.contains("taipei-cli") && script.contains("filename-re"), "{shell}");
        assert!(!script.contains("fileDir"), "{shell}: old flags are not offered");
    }
}

#[test]
fn progress_is_shown_as_asked_and_bounded() {
    let place = Place::new("progress");
    let mut torrents = String::new();
    for number in 0..25 {
        place.write(&format!("data/{number}.bin"), 20_000 + number);
        place.ends(0, &format!("create data/{number}.bin -o {number}.torrent"));
        torrents += &format!("{number}.torrent ");
    }
    let get = |more: &str| {
        let flags = format!("-o data --port 0 --bind 127.0.0.1 --no-resume {more}");
        place.ends(0, &format!("download {torrents} {flags}")).0
    };
    let (plain, none) = (get("--progress plain"), get("--progress none"));
    assert!(plain.lines().any(|line| line.starts_with("25 torrents: down ")), "{plain}");
    assert_eq!(
        get("").lines().last(),
        get("--progress bar").lines().last(),
        "plain where there is no terminal"
    );
    assert_eq!(none.lines().filter(|line| line.contains("complete already")).count(), 25, "{none}");
    assert_eq!(none.lines().count(), 25, "the results alone");
    assert_eq!(get("--json --quiet").lines().count(), 25);
    for json in ["--json", "--progress json", "--json --quiet", "--json --progress plain"].map(get) {
        assert!(json.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{json}");
        assert_eq!(json.matches("\"event\":\"finished\"").count(), 25);
    }
}

#[test]
fn a_command_is_run_when_a_torrent_is_complete() {
    let place = Place::with_torrent("on-complete");
    let (mut seeder, port) = Running::seeder(&place, "t.torrent --data data --no-trackers");
    let get = |output: &str, command: &str| {
        let args = format!(
            "download t.torrent -o {output} --port 0 --bind 127.0.0.1 --peer 127.0.0.1:{port} --stop-timeout 30 --on-complete"
        );
        let done = place.command(&args).arg(command).output().unwrap();
        assert_eq!(done.status.code(), Some(0));
        String::from_utf8(done.stderr).unwrap()
    };
    let error = get("one", "sh -c 'echo \"$TORRENT_NAME|$TORRENT_DIR|$TORRENT_INFOHASH\" > hook.out'");
    assert_eq!(error, "");
    let told = fs::read_to_string(place.0.join("hook.out")).unwrap();
    let (name_and_place, hash) = told.trim().rsplit_once('|').unwrap();
    assert_eq!((name_and_place, hash.len()), ("t|one", 40));
    assert_eq!(get("two", "./nothing"), "warning: --on-complete ./nothing: there is no such file\n");
    assert!(get("three", "sh -c 'exit 3'").contains("--on-complete sh: exit status: 3"));
    assert_eq!(seeder.interrupt(), Some(0));
}

#[test]
fn a_torrent_becomes_a_link_and_a_link_says_what_it_is() {
    let place = Place::with_torrent("magnet");
    let (info, _) = place.ends(0, "info t.torrent --json");
    let info: Value = serde_json::from_str(&info).unwrap();
    let (link, _) = place.ends(0, "magnet t.torrent");
    let link = link.trim();
    assert!(link.starts_with("magnet:?xt=urn:btih:") && link.contains("&dn=t"), "{link}");
    for command in ["info", "magnet"] {
        let (read, _) = place.ends(0, &format!("{command} {link}&so=0,2&x.pe=192.0.2.1:1 --json"));
        let read: Value = serde_json::from_str(&read).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let own = ["peers", "select_only"].map(str::to_owned);
        assert_eq!(keys(&read), &keys(&info) | &own.into(), "the keys of a torrent, and its own");
        assert_eq!((&read["info_hash_v1"], &read["name"]), (&info["info_hash_v1"], &info["name"]));
        assert_eq!((&read["select_only"], &read["peers"][0]), (&json!([0, 2]), &json!("192.0.2.1:1")));
    }
    let hash = info["info_hash_v1"].as_str().unwrap();
    let (words, _) = place.ends(0, &format!("info {hash}"));
    assert!(words.contains(hash) && words.contains("the link does not say"), "{words}");
}
