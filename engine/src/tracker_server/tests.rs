//! A tracker asked as clients ask, in its own time.

use super::*;

struct World {
    server: TrackerServer,
    now: Instant,
}

impl World {
    fn new(config: TrackerConfig) -> Self {
        Self { server: TrackerServer::new(config, Rng::stream(5, "tracker", 0)), now: Instant::START }
    }

    fn get(&mut self, from: &str, request: &str) -> Bytes {
        let (status, body) = self.server.handle_http(self.now, from.parse().unwrap(), request);
        assert_eq!(status, 200, "{request}");
        body
    }

    /// Announces from an address and port, with more arguments.
    fn announce(&mut self, from: &str, left: u64, more: &str) -> AnnounceAnswer {
        let address: SocketAddr = from.parse().unwrap();
        let id: String = format!("%{:02X}", address.port() % 256).repeat(20);
        let port = address.port();
        let query = format!("/announce?info_hash={HASH}&peer_id={id}&port={port}&left={left}{more}");
        AnnounceAnswer::parse(&self.get(from, &query)).unwrap()
    }

    fn taken(&mut self, from: &str, left: u64, more: &str) -> Announced {
        match self.announce(from, left, more) {
            AnnounceAnswer::Taken(announced) => *announced,
            AnnounceAnswer::Refused { reason, .. } => panic!("{reason}"),
        }
    }

    fn refusal(&mut self, from: &str, more: &str) -> String {
        match self.announce(from, 1, more) {
            AnnounceAnswer::Taken(_) => panic!("was taken"),
            AnnounceAnswer::Refused { reason, .. } => reason,
        }
    }

    fn peers(&mut self, from: &str, left: u64, more: &str) -> Vec<String> {
        let mut peers: Vec<String> =
            self.taken(from, left, more).peers.iter().map(|peer| peer.address.to_string()).collect();
        peers.sort();
        peers
    }

    fn stats(&self) -> SwarmStats {
        self.server.stats().get(&InfoHash([b'h'; 20])).copied().unwrap_or_default()
    }
}

const HASH: &str = "hhhhhhhhhhhhhhhhhhhh";

fn world() -> World {
    World::new(TrackerConfig::default())
}

#[test]
fn peers_meet_and_nobody_meets_itself() {
    let mut world = world();
    assert_eq!(world.peers("1.1.1.1:1", 9, "&event=started"), [""; 0]);
    assert_eq!(world.peers("2.2.2.2:2", 9, "&event=started"), ["1.1.1.1:1"]);
    assert_eq!(world.peers("1.1.1.1:1", 9, ""), ["2.2.2.2:2"]);
    // The same client over IPv6 is still itself.
    assert_eq!(world.peers("[2001:db8::1]:1", 9, ""), ["2.2.2.2:2"]);
}

#[test]
fn both_families_come_in_lists_of_their_own() {
    let mut world = world();
    world.taken("1.1.1.1:1", 9, "");
    world.taken("[2001:db8::2]:2", 9, "");
    let id = "i".repeat(20);
    let query = format!("/announce?info_hash={HASH}&peer_id={id}&port=7&left=1");
    let body = world.get("3.3.3.3:5", &query);
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("5:peers6:\x01\x01\x01\x01\x00\x01") && text.contains("6:peers618:"), "{text}");
    let body = world.get("3.3.3.3:5", &format!("{query}&compact=0"));
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("2:ip7:1.1.1.17:peer id20:") && text.contains("4:porti1e"), "{text}");
    assert!(text.contains("2:ip11:2001:db8::2") && !text.contains("peers6"), "{text}");
    let body = world.get("3.3.3.3:5", &format!("{query}&compact=0&no_peer_id=1"));
    assert!(!String::from_utf8_lossy(&body).contains("peer id"));
}

/// BEP 24; a mapped address is shown as what it is.
#[test]
fn everybody_is_told_its_own_address() {
    let mut world = world();
    for (from, shown) in
        [("1.1.1.1:1", "1.1.1.1"), ("[::ffff:1.1.1.2]:1", "1.1.1.2"), ("[2001:db8::2]:2", "2001:db8::2")]
    {
        assert_eq!(world.taken(from, 9, "").external_ip, Some(shown.parse().unwrap()));
    }
}

#[test]
fn a_seed_gets_no_seeds() {
    let mut world = world();
    world.taken("1.1.1.1:1", 0, "");
    world.taken("2.2.2.2:2", 5, "");
    assert_eq!(world.peers("3.3.3.3:3", 0, ""), ["2.2.2.2:2"]);
    assert_eq!(world.peers("4.4.4.4:4", 1, ""), ["1.1.1.1:1", "2.2.2.2:2", "3.3.3.3:3"]);
}

#[test]
fn events_are_counted_and_a_download_once() {
    let mut world = world();
    world.taken("1.1.1.1:1", 9, "&event=started");
    world.taken("1.1.1.1:1", 9, "&event=paused");
    world.taken("1.1.1.1:1", 0, "&event=completed");
    world.taken("1.1.1.1:1", 0, "&event=completed");
    world.taken("2.2.2.2:2", 0, "&event=started");
    let stats = world.stats();
    assert_eq!((stats.started, stats.regular, stats.completed, stats.stopped), (2, 1, 2, 0));
    assert_eq!((stats.complete, stats.incomplete, stats.downloaded), (2, 0, 1));
    assert!(world.peers("1.1.1.1:1", 0, "&event=stopped").is_empty());
    world.taken("9.9.9.9:9", 0, "&event=stopped");
    let stats = world.stats();
    assert_eq!((stats.complete, stats.stopped, stats.downloaded), (1, 2, 1));
}

#[test]
fn numwant_is_kept_within_the_cap_and_drawn_at_random() {
    let mut world = world();
    for n in 0..255 {
        world.taken(&format!("1.1.1.{n}:{}", 1000 + n), 9, "&numwant=0");
    }
    assert_eq!(world.peers("2.2.2.2:231", 9, "").len(), 50);
    assert_eq!(world.peers("2.2.2.2:231", 9, "&numwant=999999").len(), 200);
    assert_eq!(world.peers("2.2.2.2:231", 9, "&numwant=-1").len(), 50);
    assert_eq!(world.peers("2.2.2.2:231", 9, "&numwant=0").len(), 0);
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        let peers = world.peers("2.2.2.2:231", 9, "&numwant=40");
        assert_eq!(peers.iter().collect::<BTreeSet<_>>().len(), 40);
        seen.extend(peers);
    }
    assert_eq!(seen.len(), 255, "everybody is handed out sooner or later");
}

#[test]
fn silent_peers_are_forgotten() {
    let mut world = World::new(TrackerConfig::with_interval(Duration::from_secs(60)));
    world.taken("1.1.1.1:1", 9, "");
    world.now = Instant::START + Duration::from_secs(100);
    world.taken("2.2.2.2:2", 9, "");
    world.now = Instant::START + Duration::from_secs(151);
    assert_eq!(world.peers("3.3.3.3:3", 9, ""), ["2.2.2.2:2"]);
    world.now = Instant::START + Duration::from_secs(9999);
    world.get("3.3.3.3:3", "/scrape");
    let stats = world.stats();
    assert_eq!((stats.incomplete, stats.regular), (0, 3));
}

#[test]
fn an_address_in_a_request_is_believed_from_local_networks_only() {
    let mut world = world();
    world.taken("1.1.1.1:1", 9, "&ip=5.5.5.5");
    world.taken("127.0.0.1:2", 9, "&ip=6.6.6.6");
    world.taken("192.168.0.9:3", 9, "&ip=nonsense");
    assert_eq!(world.peers("2.2.2.2:4", 9, ""), ["1.1.1.1:1", "192.168.0.9:3", "6.6.6.6:2"]);
    assert!(world.refusal("127.0.0.1:5", "&ip=0.0.0.0").contains("nobody can connect"));
}

#[test]
fn only_served_torrents_are_served() {
    let allow = Some(BTreeSet::from([InfoHash([b'x'; 20])]));
    let mut world = World::new(TrackerConfig { allow, ..TrackerConfig::default() });
    assert!(world.refusal("1.1.1.1:1", "").contains("does not serve"));
    let scrape = world.get("1.1.1.1:1", "/scrape");
    assert_eq!(
        scrape,
        format!("d5:filesd20:{}d8:completei0e10:downloadedi0e10:incompletei0eeee", "x".repeat(20))
    );
    assert_eq!(world.server.stats().len(), 1);
}

#[test]
fn scrapes_answer_one_several_or_all() {
    let mut world = world();
    world.taken("1.1.1.1:1", 0, "");
    let id = "i".repeat(20);
    world.get("2.2.2.2:2", &format!("/announce?info_hash={}&peer_id={id}&port=1&left=1", "g".repeat(20)));
    let of = |hash: &str| format!("info_hash={}", hash.repeat(20));
    let check = |world: &mut World, query: &str, want: &[&str]| {
        let body = world.get("1.1.1.1:1", &format!("/scrape?{query}"));
        for hash in ["g", "h", "z"] {
            let there = String::from_utf8_lossy(&body).contains(&format!("20:{}", hash.repeat(20)));
            assert_eq!(there, want.contains(&hash), "{query} {hash}");
        }
    };
    check(&mut world, "", &["g", "h"]);
    check(&mut world, &of("h"), &["h"]);
    check(&mut world, &format!("{}&{}&{}", of("h"), of("g"), of("z")), &["g", "h"]);
    let body = world.get("1.1.1.1:1", "/scrape?info_hash=short");
    assert_eq!(body, "d14:failure reason22:info_hash is not valide");
}

#[test]
fn tables_are_capped_and_say_so() {
    let config = TrackerConfig {
        torrents_max: 1,
        peers_per_torrent_max: 3,
        peers_per_address_max: 2,
        ..TrackerConfig::with_interval(Duration::from_secs(60))
    };
    let mut world = World::new(config);
    world.taken("1.1.1.1:1", 9, "");
    world.taken("1.1.1.1:2", 9, "");
    assert!(world.refusal("1.1.1.1:3", "").contains("one address"));
    world.taken("2.2.2.2:4", 9, "");
    assert!(world.refusal("3.3.3.3:5", "").contains("no more peers"));
    world.taken("1.1.1.1:2", 9, "");
    let id = "i".repeat(20);
    let other = format!("/announce?info_hash={}&peer_id={id}&port=1&left=1", "o".repeat(20));
    let refused = |body: &[u8]| matches!(AnnounceAnswer::parse(body), Ok(AnnounceAnswer::Refused { .. }));
    assert!(refused(&world.get("9.9.9.9:9", &other)));
    world.now = Instant::START + Duration::from_secs(1000);
    assert!(!refused(&world.get("9.9.9.9:9", &other)));
}

#[test]
fn local_addresses_have_no_cap_of_their_own() {
    let mut world = world();
    for port in 1..=200 {
        world.taken(&format!("127.0.0.1:{port}"), 9, "");
    }
    assert_eq!(world.stats().incomplete, 200);
}

#[test]
fn bad_requests_are_refused_in_words() {
    let mut world = world();
    let check = |world: &mut World, query: &str, want: &str| {
        let body = world.get("1.1.1.1:1", &format!("/announce?{query}"));
        assert!(String::from_utf8_lossy(&body).contains(want), "{query}");
    };
    check(&mut world, "", "info_hash is missing");
    check(&mut world, "info_hash=%zz", "info_hash is not valid");
    check(&mut world, &format!("info_hash={HASH}"), "peer_id is missing");
    check(&mut world, &format!("info_hash={HASH}&peer_id={HASH}&port=70000"), "port is not valid");
    let from = "1.1.1.1:1".parse().unwrap();
    assert_eq!(world.server.handle_http(world.now, from, "/admin").0, 404);
    assert_eq!(
        world.server.handle_http(world.now, from, &format!("/announce?{}", "x".repeat(20_000))).0,
        414
    );
    assert!(world.server.stats().is_empty(), "nothing is kept for it");
}

#[test]
fn who_accepts_nobody_gets_peers_and_is_not_handed_out() {
    let mut world = world();
    world.taken("1.1.1.1:1", 9, "");
    assert_eq!(world.peers("2.2.2.2:0", 9, "&event=started"), ["1.1.1.1:1"]);
    assert_eq!(world.stats().incomplete, 1);
}

#[test]
fn same_seed_same_answers() {
    let run = || {
        let mut world = world();
        let mut all = Vec::new();
        for n in 0..100 {
            all.push(world.taken(&format!("1.1.1.{n}:{}", 1000 + n), n % 3, "&numwant=9"));
        }
        all
    };
    assert_eq!(run(), run());
}

#[test]
fn what_brings_no_peer_takes_no_room() {
    let hash =
        |n: u8| format!("/announce?info_hash={}&peer_id={HASH}&left=1", format!("%{n:02X}").repeat(20));
    let taken = |world: &mut World, request: &str| {
        matches!(AnnounceAnswer::parse(&world.get("8.8.8.8:1", request)).unwrap(), AnnounceAnswer::Taken(_))
    };
    let mut world = World::new(TrackerConfig { torrents_max: 3, ..TrackerConfig::default() });
    for n in 0..9 {
        assert!(taken(&mut world, &format!("{}&port=7&event=stopped", hash(n))));
        assert!(taken(&mut world, &format!("{}&port=0", hash(n))));
    }
    assert!((0..3).all(|n| taken(&mut world, &format!("{}&port=7&event=started", hash(n)))));
    assert!(!taken(&mut world, &format!("{}&port=7", hash(3))), "each has a peer");
    assert!(taken(&mut world, &format!("{}&port=7&event=stopped", hash(0))));
    assert!(taken(&mut world, &format!("{}&port=7", hash(3))), "one has none any more");

    let mut world = World::new(TrackerConfig { torrents_max: 3, peers_max: 1, ..TrackerConfig::default() });
    assert!(taken(&mut world, &format!("{}&port=7", hash(0))));
    assert!((1..9).all(|n| !taken(&mut world, &format!("{}&port=7", hash(n)))), "no peer more");
    assert!(taken(&mut world, &format!("{}&port=7&event=stopped", hash(0))));
    assert!(taken(&mut world, &format!("{}&port=7", hash(9))));
}
