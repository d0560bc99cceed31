//! What can be given as a torrent, and what is done where it is none.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use common::{Place, Running};

mod common;

/// A server that gives this answer to each of so many requests, and the addresses that asked.
fn server(answer: Vec<u8>, requests: usize) -> (String, JoinHandle<Vec<IpAddr>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.torrent", listener.local_addr().unwrap());
    let serve = move || {
        (0..requests)
            .map(|_| {
                let (mut stream, from) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                // Whoever has enough hangs up.
                let _ = stream.write_all(&answer);
                from.ip()
            })
            .collect()
    };
    (url, thread::spawn(serve))
}

fn ok(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

#[test]
fn content_is_seeded_by_a_torrent_made_on_the_way() {
    let place = Place::new("on-the-fly");
    place.write("films/one/a.bin", 200_000);
    place.write("films/two.bin", 100_000);
    fs::create_dir(place.0.join("torrents")).unwrap();
    let (_tracker, url) = Running::tracker(&place);
    let args =
        format!("films/one films/two.bin --tracker {url} --private --piece-size 32K --save-torrent torrents");
    let (mut seeder, _) = Running::seeder(&place, &args);
    let (info, _) = place.ends(0, "info --json torrents/one.torrent");
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!((&info["private"], &info["trackers"][0]), (&true.into(), &url.as_str().into()));
    assert_eq!((&info["piece_length"], &info["creation_date"]), (&32768.into(), &Value::Null));
    place.ends(
        0,
        "download torrents/one.torrent torrents/two.bin.torrent -o out --port 0 --bind 127.0.0.1 --stop-timeout 30",
    );
    place.ends(0, "verify torrents/one.torrent out");
    place.ends(0, "verify torrents/two.bin.torrent out");
    assert_eq!(seeder.interrupt(), Some(0));
    // Again: the same torrents, so nothing is in the way.
    let (mut seeder, _) = Running::seeder(&place, &args);
    assert_eq!(seeder.interrupt(), Some(0));
}

#[test]
fn what_is_made_is_said_and_what_cannot_be_is_refused() {
    let place = Place::with_torrent("made");
    let mut seeder = Running::begin(&place, "seed data/t --json --port 0 --bind 127.0.0.1");
    let created = seeder.until(|event| event["event"] == "created");
    assert_eq!(created["info_hash"].as_str().unwrap().len(), 40);
    drop(seeder);
    fs::write(place.0.join("broken.torrent"), "not a torrent").unwrap();
    fs::create_dir(place.0.join("empty")).unwrap();
    for (status, args, words) in [
        (2, "seed data/t --private", "give one with --tracker"),
        (2, "seed t.torrent --data data --save-torrent x", "--save-torrent is for making a torrent"),
        (2, "seed data/t data/t/large.bin --save-torrent x", "give a directory"),
        (1, "seed data/t --save-torrent broken.torrent", "does not replace another file"),
        (1, "seed broken.torrent", "broken.torrent: not a torrent"),
        (1, "seed empty", "there are no files in it"),
        (1, "seed nothing", "there is no such file"),
    ] {
        let (_, error) = place.ends(status, args);
        assert!(error.contains(words), "{args}: {error}");
    }
}

#[test]
fn a_seed_that_is_not_whole_does_not_end_the_others() {
    let place = Place::with_torrent("seeds");
    place.write("data/other.bin", 100_000);
    place.ends(0, "create data/other.bin -o other.torrent");
    let path = place.0.join("data/other.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[7] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (mut seeder, port) = Running::seeder(&place, "other.torrent t.torrent --data data --no-trackers");
    place.ends(
        0,
        &format!(
            "download t.torrent -o out --port 0 --bind 127.0.0.1 --peer 127.0.0.1:{port} --stop-timeout 30"
        ),
    );
    // Somebody who has the right bytes is not asked for them.
    place.write("right/other.bin", 100_000);
    let peer = format!("other.torrent --data right --no-trackers --peer 127.0.0.1:{port}");
    let (mut other, _) = Running::seeder(&place, &peer);
    assert_eq!((other.interrupt(), seeder.interrupt()), (Some(0), Some(1)), "one was not whole");
    assert_eq!(fs::read(&path).unwrap(), bytes, "what is not whole is not written to");
}

#[test]
fn files_are_chosen_by_expression() {
    let place = Place::with_torrent("expression");
    let (mut seeder, port) = Running::seeder(&place, "t.torrent --data data --no-trackers");
    let get = format!(
        "download t.torrent -o out --port 0 --bind 127.0.0.1 --peer 127.0.0.1:{port} --stop-timeout 30"
    );
    let (out, _) = place.ends(0, &format!("{get} --json --filename-re (?i)SUB/.*\\.bin$"));
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["outcome"], &last["pieces_have"]), (&"complete".into(), &1.into()));
    assert_eq!(fs::read(place.0.join("out/t/sub/small.bin")).unwrap().len(), 1234);
    let (out, _) = place.ends(0, "download t.torrent --list -r small --select 1");
    assert!(out.contains("small.bin") && out.contains("empty") && !out.contains("large"), "{out}");
    let (_, error) = place.ends(1, "download t.torrent --filename-re nothing");
    assert!(error.contains("it has no such file"), "{error}");
    place.ends(2, "download t.torrent --filename-re (");
    assert_eq!(seeder.interrupt(), Some(0));
}

#[test]
fn a_torrent_from_the_web_comes_by_the_address_bound_to() {
    let place = Place::with_torrent("web");
    let torrent = fs::read(place.0.join("t.torrent")).unwrap();
    let (url, asked) = server(ok(&torrent), 5);
    for command in [
        format!("info {url}"),
        format!("verify {url} data"),
        format!("download {url} -o data --port 0 --no-trackers"),
        format!("download {url} --list"),
        format!("scrape {url}"),
    ] {
        let status = if command.starts_with("scrape") { 1 } else { 0 };
        place.ends(status, &format!("{command} --bind 127.0.0.2"));
    }
    assert_eq!(asked.join().unwrap(), [IpAddr::from([127, 0, 0, 2]); 5]);
}

#[test]
fn what_the_web_answers_is_said_in_words() {
    let place = Place::new("web-errors");
    let huge = ok(&vec![b'x'; 40 << 20]);
    for (answer, words) in [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(), "404"),
        (ok(b"<html>no</html>"), "not a torrent"),
        (ok(b""), "not a torrent"),
        (huge, "answer too large"),
        (b"SSH-2.0-x\r\n".to_vec(), "not a valid HTTP answer"),
    ] {
        let (url, asked) = server(answer, 1);
        let (out, error) = place.ends(1, &format!("download {url}"));
        assert!(out.is_empty() && error.contains(words), "{error}");
        assert!(!error.contains("a.torrent"), "what may be secret in a URL: {error}");
        asked.join().unwrap();
    }
    let (_, error) = place.ends(1, "download http://127.0.0.1:1/x");
    assert!(error.contains("http://127.0.0.1:1/…: connection refused"), "{error}");
}

#[test]
fn a_tracker_is_left_out() {
    let place = Place::with_torrent("exclude");
    let (mut tracker, url) = Running::tracker(&place);
    place.ends(0, &format!("create data/t -o u.torrent -t {url} -t http://127.0.0.1:1/announce"));
    let common = "--port 0 --bind 127.0.0.1 --json --seed-time 1 --data data";
    let (out, _) = place.ends(0, &format!("seed u.torrent --exclude-tracker {url} {common}"));
    assert!(
        out.contains("http://127.0.0.1:1/") && !out.contains(url.strip_suffix("announce").unwrap()),
        "{out}"
    );
    let (_, error) = place.ends(0, &format!("seed u.torrent --exclude-tracker http://none/ {common}"));
    assert!(error.contains("none of the torrents has it"), "{error}");
    assert_eq!(tracker.until(|event| event["event"] == "torrent")["started"], 1, "only the second time");
}

#[test]
fn old_flags_are_understood() {
    let place = Place::with_torrent("old");
    let (out, error) = place.ends(0, "-fileDir data -port=0 -trackerlessMode -useDHT --no-lsd t.torrent");
    assert!(out.contains("t: complete already"), "{out}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("now: taipei-cli download --output data --port 0 --no-trackers"), "{error}");
    let (_, error) = place.ends(2, "-proxyAddress 127.0.0.1:9 t.torrent");
    assert!(error.contains("nothing goes around one"), "{error}");
    let (out, _) = place.ends(0, "-createTorrent data/t -createTracker 127.0.0.1:80");
    assert!(out.starts_with("d8:announce28:http://127.0.0.1:80/announce"));
}

#[test]
fn a_magnet_link_is_resolved_and_downloaded_and_known_the_next_time() {
    let place = Place::with_torrent("magnet-download");
    let (_tracker, url) = Running::tracker(&place);
    let (mut seeder, _) = Running::seeder(&place, &format!("t.torrent --data data --tracker {url}"));
    let (link, _) = place.ends(0, "magnet t.torrent");
    let link = format!("{}&tr={url}", link.trim());
    let (info, _) = place.ends(0, "info t.torrent --json");
    let (fetched, said) =
        place.ends(0, &format!("info {link} --fetch --bind 127.0.0.1 --json --stop-timeout 30"));
    let [info, fetched]: [Value; 2] = [info, fetched].map(|text| serde_json::from_str(&text).unwrap());
    assert_eq!((&fetched["files"], &fetched["name"]), (&info["files"], &info["name"]), "{said}");
    assert_eq!(fetched["trackers"][0], url.as_str());
    let args = "-o out --port 0 --bind 127.0.0.1 --stop-timeout 30";
    let (listed, _) = place.ends(0, &format!("download {link} --list {args}"));
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(!place.0.join("out").exists(), "nothing is written for that");
    place.ends(0, &format!("download {link} --select 1 {args}"));
    place.ends(4, "verify t.torrent out");
    place.ends(0, &format!("download {link} {args}"));
    place.ends(0, "verify t.torrent out");
    assert_eq!(seeder.interrupt(), Some(0));
    // Nobody is there any more, and nobody is needed.
    let (done, _) = place.ends(0, &format!("download {link} {args}"));
    assert!(done.contains("complete already"), "{done}");
    let hash = info["info_hash_v1"].as_str().unwrap();
    let (_, error) =
        place.ends(3, &format!("download {hash} -o new --port 0 --bind 127.0.0.1 --stop-timeout 1"));
    assert!(error.contains("no tracker to ask") && error.contains("tries again"), "{error}");
    let (_, error) = place.ends(3, &format!("info {hash} --fetch --bind 127.0.0.1 --stop-timeout 1"));
    assert!(error.contains("no peer has told what the torrent is"), "{error}");
    let (_, error) = place.ends(1, &format!("download magnet:?xt=urn:btmh:1220{} -o new", "ab".repeat(32)));
    assert!(error.contains("use a link with urn:btih:"), "{error}");
}
