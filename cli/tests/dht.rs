//! Programs that find each other by the DHT alone, on this machine.

use std::fs;

use serde_json::Value;

use common::{Place, Running};

mod common;

const ALONE: &str = "--port 0 --bind 127.0.0.1 --json --no-lsd --no-pex --no-upnp";

#[test]
fn a_swarm_without_a_tracker_finds_itself_and_can_be_asked_about() {
    let place = Place::new("dht");
    place.write("seed/data.bin", 300_000);
    let (_router, node) = router(&place);

    let pinged = place.run(&format!("dht ping {node} --bind 127.0.0.1 --json"));
    let said: Value = serde_json::from_slice(&pinged.stdout).unwrap();
    assert!(said["answered"] == true && said["id"].as_str().unwrap().len() == 40, "{said}");

    let seeder = format!("seed seed/data.bin --save-torrent a.torrent {ALONE} --dht-bootstrap {node}");
    let mut seeder = Running::with_dht(&place, &seeder);
    seeder.until(|event| event["state"] == "Seeding");
    let download = format!("download a.torrent --output got {ALONE} --dht-bootstrap {node}");
    let mut download = Running::with_dht(&place, &download);
    let end = download.until(|event| event["event"] == "finished");
    assert_eq!(end["status"], 0, "{end}");
    assert!(
        !place.0.join(".local/state/taipei/dht-nodes").exists(),
        "nodes of a network that was named are not kept"
    );
    assert_eq!(
        fs::read(place.0.join("got/data.bin")).unwrap(),
        fs::read(place.0.join("seed/data.bin")).unwrap()
    );

    let info_hash = end["info_hash"].as_str().unwrap();
    let ask = |what: &str| {
        let asked = place.run(&format!("dht {what} --dht-bootstrap {node} --bind 127.0.0.1 --json"));
        let lines = String::from_utf8(asked.stdout).unwrap();
        (
            asked.status.code(),
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>(),
        )
    };
    let (status, told) = ask(&format!("announce {info_hash} --peer-port 7000"));
    assert!(status == Some(0) && told.last().unwrap()["announced"].as_u64() > Some(0), "{told:?}");
    let (status, found) = ask(&format!("get-peers {info_hash}"));
    assert!(status == Some(0) && found.iter().any(|line| line["peer"] == "127.0.0.1:7000"), "{found:?}");
    let (status, figures) = ask("stats");
    assert!(status == Some(0) && figures[0]["nodes"].as_u64() > Some(0), "{figures:?}");
}

/// A node that begins alone, as nobody is at port 1; and where it is.
fn router(place: &Place) -> (Running, String) {
    place.write("router/other.bin", 5000);
    let router = format!("seed router/other.bin --data router {ALONE} --dht-bootstrap 127.0.0.1:1");
    let mut router = Running::with_dht(place, &router);
    let port = router.until(|event| event["event"] == "listening")["port"].to_string();
    (router, format!("127.0.0.1:{port}"))
}

#[test]
fn values_are_stored_and_found_and_only_their_writer_changes_them() {
    let place = Place::new("dht-items");
    let (_router, node) = router(&place);
    let ask = |status: i32, what: &str| -> Value {
        let (out, error) =
            place.ends(status, &format!("dht {what} --dht-bootstrap {node} --bind 127.0.0.1 --json"));
        serde_json::from_str(out.lines().last().unwrap_or_else(|| panic!("{what}: {error}"))).unwrap()
    };
    let stored = ask(0, "put hello");
    assert_eq!((&stored["stored"], &stored["seq"]), (&Value::from(1), &Value::Null), "{stored}");
    let target = stored["target"].as_str().unwrap().to_owned();
    let found = ask(0, &format!("get {target}"));
    assert_eq!((&found["value"], &found["bencoded"]), (&"hello".into(), &"353a68656c6c6f".into()), "{found}");
    let long = "x".repeat(996);
    let stored = ask(0, &format!("put {long}"));
    let found = ask(0, &format!("get {}", stored["target"].as_str().unwrap()));
    assert_eq!(found["value"], long.as_str(), "the longest there may be");

    fs::write(place.0.join("secret"), format!("{}\n", "0a".repeat(32))).unwrap();
    let first = ask(0, "put one --key secret --salt diary");
    assert_eq!((&first["seq"], &first["stored"]), (&1.into(), &1.into()), "{first}");
    let key = first["public_key"].as_str().unwrap().to_owned();
    let read = || ask(0, &format!("get {key} --salt diary"));
    assert_eq!(read()["value"], "one");
    assert_eq!(ask(0, "put two --key secret --salt diary")["seq"], 2, "one more than is stored");
    for (seq, cas, refused) in [("1", "", 302), ("2", "", 302), ("3", "--cas 1", 301)] {
        let said = ask(1, &format!("put three --key secret --salt diary --seq {seq} {cas}"));
        assert_eq!((&said["stored"], &said["refused"]), (&0.into(), &refused.into()), "{said}");
    }
    ask(0, "put i7e --bencoded --key secret --salt diary --seq 9 --cas 2");
    let last = read();
    assert_eq!((&last["seq"], &last["bencoded"]), (&9.into(), &"693765".into()), "{last}");
    assert_eq!(last["value"], Value::Null, "it is no text");

    assert_eq!(ask(1, &format!("get {key}"))["found"], false, "without its salt it is another");
    assert_eq!(ask(1, &format!("get {}", "0".repeat(40)))["found"], false);
}

#[test]
fn what_nobody_could_store_or_have_is_refused_before_anybody_is_asked() {
    let place = Place::new("dht-items-bad");
    let bad = |status: i32, what: &str, says: &str| {
        let (_, error) = place.ends(status, &format!("dht {what} --dht-bootstrap 127.0.0.1:1 --timeout 60"));
        assert!(error.contains(says), "{what}: {error}");
    };
    bad(2, &format!("put {}", "x".repeat(997)), "at most 1000");
    bad(2, "put i5 --bencoded", "not bencoded");
    bad(2, "put hello --salt s", "--key");
    bad(1, "put hello --key nowhere", "no such file");
    fs::write(place.0.join("secret"), "0a0b").unwrap();
    bad(1, "put hello --key secret", "64 hexadecimal digits");
    fs::write(place.0.join("secret"), "0a".repeat(32)).unwrap();
    bad(2, &format!("put hello --key secret --salt {}", "s".repeat(65)), "at most 64");
    bad(2, "get abc", "40 hexadecimal digits");
    bad(2, &format!("get {} --salt s", "0".repeat(40)), "--salt");
    bad(2, "sample --target 12", "40 hexadecimal digits");
    let (_, error) = place.ends(1, "dht get 0000000000000000000000000000000000000000 --dht-bootstrap 127.0.0.1:1 --bind 127.0.0.1 --timeout 2");
    assert!(error.contains("no node of the DHT answered"), "{error}");
}

#[test]
fn swarms_that_nodes_know_are_sampled() {
    let place = Place::new("dht-sample");
    let (_router, node) = router(&place);
    let info_hash = "1".repeat(40);
    let ask = |status: i32, what: &str| {
        place.ends(status, &format!("dht {what} --dht-bootstrap {node} --bind 127.0.0.1 --json")).0
    };
    ask(1, "sample");
    ask(0, &format!("announce {info_hash} --peer-port 7000"));
    let sampled = ask(0, &format!("sample --target {}", "2".repeat(40)));
    let lines: Vec<Value> = sampled.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["info_hash"], info_hash.as_str());
    assert_eq!((&lines[1]["info_hashes"], &lines[1]["target"]), (&1.into(), &"2".repeat(40).into()));
}

#[test]
fn a_node_that_is_not_there_is_said_to_be() {
    let place = Place::new("dht-nobody");
    let pinged = place.run("dht ping 127.0.0.1:1 --bind 127.0.0.1 --timeout 20");
    assert_eq!(pinged.status.code(), Some(1));
    assert!(String::from_utf8(pinged.stderr).unwrap().contains("no answer"));
    let stats = place.run("dht stats --dht-bootstrap 127.0.0.1:1 --bind 127.0.0.1 --timeout 2");
    assert_eq!(stats.status.code(), Some(1));
    assert_eq!(place.run("dht ping nowhere").status.code(), Some(2));
}
