//! Programs that find each other by the DHT alone, on this machine.

use std::fs;

use serde_json::Value;

use common::{Place, Running};

mod common;

const ALONE: &str = "--port 0 --bind 127.0.0.1 --json --no-lsd --no-pex --no-upnp";

#[test]
fn a_swarm_without_a_tracker_finds_itself_and_can_be_asked_about() {
    let place = Place::new("dht");
    place.write("router/other.bin", 5000);
    place.write("seed/data.bin", 300_000);
    // Nobody is at port 1: the router begins alone.
    let router = format!("seed router/other.bin --data router {ALONE} --dht-bootstrap 127.0.0.1:1");
    let mut router = Running::with_dht(&place, &router);
    let port = router.until(|event| event["event"] == "listening")["port"].to_string();
    let node = format!("127.0.0.1:{port}");

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
