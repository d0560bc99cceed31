//! Wrong input of every kind: each is refused with its status, and in words that say what to do next.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use common::Place;

mod common;

#[test]
fn each_is_refused_in_words() {
    let place = Place::with_torrent("wrong-input");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    fs::write(place.0.join("empty.torrent"), "").unwrap();
    fs::write(place.0.join("text.torrent"), "hello").unwrap();
    fs::write(place.0.join("file"), "x").unwrap();
    fs::create_dir(place.0.join("folder")).unwrap();
    let port = taken.port();
    for (status, args, words) in [
        (1, "info missing.torrent", "missing.torrent: there is no such file"),
        (1, "info folder", "folder: this is a directory, not a file"),
        (1, "info empty.torrent", "empty.torrent: the file is empty"),
        (1, "info text.torrent", "text.torrent: not a torrent file"),
        (1, "info ftp://x/y", "neither a file here nor an http or https address"),
        (1, "info magnet:?xt=urn:btih:00", "the info-hash in the magnet link is broken: copy the whole link"),
        (1, "magnet magnet:?dn=x", "the magnet link has no info-hash"),
        (1, "magnet missing.torrent", "missing.torrent: there is no such file"),
        (
            1,
            "verify 0123456789abcdef0123456789abcdef01234567 data",
            "this takes a torrent file, or its address",
        ),
        (1, "download t.torrent -o file", "file: this is a file, not a directory: choose another"),
        (1, "download t.torrent -o file/below", "file: this is a file, not a directory: choose another"),
        (
            1,
            &format!("download t.torrent --bind 127.0.0.1 --port {port}"),
            "is in use: choose another with --port",
        ),
        (1, "download t.torrent --bind 203.0.113.7", "203.0.113.7 is not an address of this machine"),
        (1, "download t.torrent --select 9", "t: --select 9: it has 3 files; --list shows them"),
        (2, "download t.torrent --select 0", "for example 1,3-5"),
        (2, "download t.torrent --peer 127.0.0.1", "give an IP address and a port"),
        (2, "download t.torrent --tracker x", "it should begin with http://"),
        (2, "download t.torrent --max-download fast", "such as 500K"),
        (2, "download t.torrent --progress fancy", "auto, bar, plain, json, none"),
        (1, "seed t.torrent --data folder", "give the directory with --data"),
        (1, "create missing", "missing: there is no such file"),
        (1, "create folder", "folder: there are no files in it"),
        (1, "create data/t -o nowhere/x.torrent", "nowhere: there is no such directory: make it first"),
        (1, "create data/t -o file/x.torrent", "file: this is a file, not a directory"),
        (1, "create data/t -o t.torrent", "t.torrent is there already: give --force"),
        (2, "create data/t -t x", "it should begin with http://"),
        (1, "create data/t -w x", "is no web seed URL"),
        (2, "create data/t -s 3", "give a power of two from 16K to 256M"),
        (1, "scrape t.torrent", "t: it has no trackers that could be asked"),
        (2, "scrape udp://127.0.0.1:1/announce", "give the info-hashes"),
        (2, "scrape udp://127.0.0.1:1/announce 00", "give 40 hexadecimal digits"),
        (2, "tracker --listen x", "give an IP address and a port"),
        (1, &format!("tracker --listen {taken}"), "choose another with --listen"),
        (1, "tracker --allow missing", "missing: there is no such file"),
        (2, "completions fsh", "a similar value exists: 'fish'"),
        (2, "donwload t.torrent", "a similar subcommand exists: 'download'"),
    ] {
        let (out, error) = place.ends(status, args);
        assert!(error.contains(words), "{args}: {error}");
        assert!(out.is_empty(), "{args}: {out}");
        assert!(!error.contains('\u{1b}'), "{args}: no terminal reads this: {error}");
    }
    assert_eq!(fs::read(place.0.join("file")).unwrap(), b"x");
}

#[test]
fn programs_get_every_refusal_as_an_object() {
    let place = Place::with_torrent("wrong-json");
    for (args, class) in [
        ("info missing.torrent", "not-found"),
        ("download missing.torrent", "not-found"),
        ("download t.torrent --select 9", "selection"),
        ("download t.torrent --bind 203.0.113.7", "network"),
        ("seed t.torrent --data nowhere", "not-whole"),
        ("create missing", "not-found"),
        ("verify missing.torrent data", "not-found"),
        ("scrape t.torrent", "usage"),
        ("tracker --allow missing", "not-found"),
    ] {
        let (out, error) = place.ends(1, &format!("{args} --json"));
        let refusal: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((refusal["error_class"].as_str(), error.as_str()), (Some(class), ""), "{args}");
        assert!(refusal["error"].as_str().is_some_and(|words| !words.is_empty()), "{args}");
    }
}

#[test]
fn what_the_environment_says_is_refused_as_well() {
    let place = Place::new("wrong-environment");
    let link = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567";
    for (name, value, args) in [
        ("TAIPEI_PORT", "abc", "demo --size 1M".to_owned()),
        ("TAIPEI_MAX_PEERS", "-1", format!("info --fetch {link}")),
        ("TAIPEI_ENCRYPTION", "require", format!("info --fetch {link}")),
    ] {
        let done = place.command(&args).env(name, value).env("TMPDIR", &place.0).output().unwrap();
        let error = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{name}: {error}");
        assert!(error.contains(value), "{name}: {error}");
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0, "nothing is left");
    }
}

#[test]
fn a_torrent_goes_into_the_directory_that_is_named() {
    let place = Place::with_torrent("into");
    fs::create_dir(place.0.join("folder")).unwrap();
    let (out, _) = place.ends(0, "create data/t -o folder");
    assert!(out.starts_with("folder/t.torrent  "), "{out}");
    place.ends(1, "create data/t -o folder");
}
