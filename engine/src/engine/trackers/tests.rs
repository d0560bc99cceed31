//! The engine and its trackers: many torrents at once, scrapes, datagrams.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::alert::SwarmCounts;
use crate::bitfield::Bitfield;
use crate::command::{AddTorrent, Command};
use crate::config::{Config, StartValues};
use crate::disk::{JobResult, Opened, Saved, Totals, Work};
use crate::ids::TorrentId;
use crate::input::Input;
use crate::limits::TRACKER_REQUESTS_MAX;
use crate::output::HttpGet;
use crate::rng::Rng;
use crate::time::Instant;
use crate::tracker_server::{TrackerConfig, TrackerServer};
use crate::wire::tracker_udp::{UdpAnswer, UdpRequest};

struct Bench {
    engine: Engine,
    now: Instant,
    alerts: Vec<Alert>,
    lookups: VecDeque<ResolveId>,
    gets: VecDeque<HttpGet>,
    packets: VecDeque<(SocketAddr, Bytes)>,
    dialled: Vec<SocketAddr>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self::deaf();
        bench.input(Input::Listening { port: 6881, families: (true, true) });
        bench
    }

    /// Nobody can connect to it.
    fn deaf() -> Self {
        let config = Config { active_max: u32::MAX, ..Config::default() };
        Self {
            engine: Engine::new(config, StartValues { seed: 7, boot_id: [0; 16], wall_seconds: 0 }),
            now: Instant(1),
            alerts: Vec::new(),
            lookups: VecDeque::new(),
            gets: VecDeque::new(),
            packets: VecDeque::new(),
            dialled: Vec::new(),
        }
    }

    fn add(&mut self, number: u32, tracker: &str) {
        let file = format!(
            "d4:infod6:lengthi{0}e4:name4:{1:04}12:piece lengthi16384e6:pieces20:{2}ee",
            16384,
            number,
            "h".repeat(20)
        );
        let mut add = AddTorrent::new(TorrentId(number), file.into(), "/out".into());
        add.extra_trackers = vec![tracker.to_owned()];
        self.input(Input::Command(Command::AddTorrent(Box::new(add))));
    }

    fn input(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.engine.handle_input(self.now, input);
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Alert(alert) => self.alerts.push(alert),
                    Output::Resolve { query, .. } => self.lookups.push_back(query),
                    Output::HttpGet(get) => self.gets.push_back(*get),
                    Output::HttpCancel { request } => self.gets.retain(|get| get.request != request),
                    Output::SendDatagram { remote, payload } => self.packets.push_back((remote, payload)),
                    Output::Connect { remote, .. } => self.dialled.push(remote),
                    Output::Job { job, work } => {
                        let result = match work.work {
                            Work::Open { .. } => JobResult::Opened(Ok(Opened {
                                have: Bitfield::new(1),
                                unchecked: Bitfield::new(1),
                                totals: Totals::default(),
                                saved: Saved::Nowhere,
                            })),
                            _ => JobResult::Saved(Ok(())),
                        };
                        inputs.push_back(Input::JobDone { job, result });
                    }
                    _ => {}
                }
            }
        }
        self.due();
    }

    /// What is due at once happens at once.
    fn due(&mut self) {
        while self.engine.poll_timeout().is_some_and(|at| at <= self.now) {
            self.input(Input::Timeout);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
        self.now = end;
    }

    fn answer(&mut self, body: &'static [u8]) {
        let request = self.gets.pop_front().unwrap().request;
        let response = HttpResponse { status: 200, location: None, body: body.into(), gzip: false };
        self.input(Input::HttpDone { request, result: Ok(response) });
    }

    fn under_way(&self) -> usize {
        self.lookups.len() + self.gets.len()
    }
}

#[test]
fn a_thousand_torrents_ask_fifty_at_a_time_and_all_have_their_turn() {
    let mut bench = Bench::new();
    for number in 0..1000 {
        bench.add(number, "http://tracker.example/announce");
        assert!(bench.under_way() <= TRACKER_REQUESTS_MAX);
    }
    assert_eq!(bench.under_way(), TRACKER_REQUESTS_MAX);
    let mut answered = 0;
    while bench.under_way() > 0 {
        if let Some(query) = bench.lookups.pop_front() {
            bench.input(Input::Resolved { query, result: Ok(vec!["9.9.9.9".parse().unwrap()]) });
        } else {
            bench.answer(b"d8:intervali1800e5:peers0:e");
            answered += 1;
        }
        assert!(bench.under_way() <= TRACKER_REQUESTS_MAX);
    }
    assert_eq!(answered, 1000);
}

#[test]
fn a_dead_tracker_does_not_hold_up_the_line_for_ever() {
    let mut bench = Bench::new();
    for number in 0..120 {
        bench.add(number, "http://9.9.9.9/announce");
    }
    assert_eq!(bench.under_way(), 50);
    bench.pass(Duration::from_secs(95));
    // Three rounds of 30 s each, and nobody was asked too early: each had all of its time.
    let failed = bench.alerts.iter().filter(
        |alert| matches!(alert, Alert::Tracker { result: Err(error), .. } if error.contains("timed out")),
    );
    assert!(failed.count() >= 120);
    // Who waits in line and is removed does not keep its place.
    for number in 0..120 {
        bench.input(Input::Command(Command::RemoveTorrent { torrent: TorrentId(number) }));
    }
    bench.pass(Duration::from_secs(10));
    let removed = bench.alerts.iter().filter(|alert| matches!(alert, Alert::Removed { .. })).count();
    assert_eq!((removed, bench.under_way(), bench.engine.poll_timeout()), (120, 0, None));
}

#[test]
fn our_own_address_is_not_dialled_once_a_tracker_said_it() {
    let mut bench = Bench::new();
    bench.add(0, "http://9.9.9.9/announce");
    bench.answer(b"d11:external ip4:\x01\x02\x03\x048:intervali60e5:peers12:\x01\x02\x03\x04\x1a\xe1\x01\x02\x03\x04\x1a\xe2e");
    assert_eq!(bench.dialled, ["1.2.3.4:6882".parse().unwrap()]);
    // It is remembered for the session: another torrent's tracker need not say it.
    bench.add(1, "http://9.9.9.9/announce");
    bench.answer(b"d8:intervali60e5:peers6:\x01\x02\x03\x04\x1a\xe1e");
    assert_eq!(bench.dialled.len(), 1);
}

#[test]
fn trackers_are_told_the_port_of_a_router_as_soon_as_they_want_to_hear_of_us() {
    let mut bench = Bench::new();
    let names = |bench: &Bench, port: &str| bench.gets.front().is_some_and(|get| get.path.contains(port));
    bench.add(0, "http://9.9.9.9/announce");
    assert!(names(&bench, "port=6881&"), "{:?}", bench.gets);
    bench.answer(
        b"d8:intervali3600e12:min intervali600e5:peers12:\x05\x02\x03\x04\x1a\xe1\x06\x02\x03\x04\x1a\xe2e",
    );
    let external_ip = Some("1.2.3.4".parse().unwrap());
    bench.input(Input::Command(Command::Mapped { port: Some(7000), external_ip }));
    bench.pass(Duration::from_secs(599));
    assert_eq!(bench.gets.len(), 0);
    bench.pass(Duration::from_secs(1));
    assert!(names(&bench, "port=7000&"), "{:?}", bench.gets);
    // There we are ourselves, and at our own port no more.
    let before = bench.dialled.len();
    bench.answer(b"d8:intervali3600e5:peers12:\x01\x02\x03\x04\x1b\x58\x01\x02\x03\x04\x1a\xe1e");
    assert_eq!(bench.dialled[before..], ["1.2.3.4:6881".parse().unwrap()]);
    // What a router says is no more believed than it can be right.
    for wrong in ["10.0.0.1", "0.0.0.0", "127.0.0.1", "224.0.0.1"] {
        let external_ip = Some(wrong.parse().unwrap());
        bench.input(Input::Command(Command::Mapped { port: Some(0), external_ip }));
    }
    bench.add(1, "http://9.9.9.9/announce");
    assert!(names(&bench, "port=6881&"), "a port of 0 is none: {:?}", bench.gets);
    let before = bench.dialled.len();
    bench.answer(b"d8:intervali3600e5:peers6:\x01\x02\x03\x04\x1a\xe1e");
    assert_eq!(bench.dialled.len(), before, "the address is still known");
}

#[test]
fn who_does_not_listen_asks_for_peers_and_names_no_port() {
    let mut bench = Bench::deaf();
    bench.add(0, "http://9.9.9.9/announce");
    assert!(bench.gets[0].path.contains("&port=0&"), "{:?}", bench.gets);
    bench.answer(b"d8:intervali1800e5:peers6:\x01\x02\x03\x04\x1a\xe1e");
    assert_eq!(bench.dialled, ["1.2.3.4:6881".parse().unwrap()]);
    bench.add(1, "udp://9.9.9.9:6969/announce");
    let mut server = TrackerServer::new(TrackerConfig::default(), Rng::stream(1, "tracker", 0));
    let seen = serve(&mut bench, &mut server);
    let port = |request: &UdpRequest| match request {
        UdpRequest::Announce { announce, .. } => Some(announce.port),
        _ => None,
    };
    assert_eq!(seen.iter().filter_map(port).collect::<Vec<_>>(), [0]);
}

#[test]
fn excluded_trackers_are_not_asked() {
    let mut bench = Bench::new();
    let file = format!(
        "d13:announce-listll9:http://a/el9:http://b/9:http://c/ee4:infod6:lengthi1e4:name1:t12:piece lengthi16384e6:pieces\
         20:{}ee",
        "h".repeat(20)
    );
    let mut add = AddTorrent::new(TorrentId(0), file.into(), "/out".into());
    add.exclude_trackers = ["http://a/", "http://b/"].map(str::to_owned).into();
    bench.input(Input::Command(Command::AddTorrent(Box::new(add))));
    let query = bench.lookups.pop_front().unwrap();
    bench.input(Input::Resolved { query, result: Ok(vec!["9.9.9.9".parse().unwrap()]) });
    assert_eq!(bench.gets.pop_front().map(|get| get.authority), Some("c".to_owned()));
    assert_eq!(bench.under_way(), 0, "at once, though its tier came second");
}

fn scrape(bench: &mut Bench, tracker: &str, count: u8) {
    let info_hashes = (0..count).map(|n| InfoHash([n; 20])).collect();
    bench.input(Input::Command(Command::Scrape { tracker: tracker.to_owned(), info_hashes }));
}

fn scraped(bench: &mut Bench) -> Result<Vec<SwarmCounts>, String> {
    let last = bench.alerts.pop();
    let Some(Alert::Scraped { result, .. }) = last else { panic!("{last:?}") };
    result
}

#[test]
fn a_scrape_over_http_asks_where_the_announce_url_says() {
    let mut bench = Bench::new();
    scrape(&mut bench, "http://9.9.9.9/x/announce?pk=1", 2);
    let get = &bench.gets[0];
    assert!(get.path.starts_with("/x/scrape?pk=1&info_hash=%00%00"), "{}", get.path);
    bench.answer(b"d5:filesd20:\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01d8:completei3e10:downloadedi4e10:incompletei5eeee");
    let counts = SwarmCounts { info_hash: InfoHash([1; 20]), seeds: 3, leechers: 5, completed: 4 };
    assert_eq!(scraped(&mut bench), Ok(vec![counts]));
    scrape(&mut bench, "http://9.9.9.9/announce", 1);
    bench.answer(b"d14:failure reason2:noe");
    assert_eq!(scraped(&mut bench), Err("no".into()));
    for (url, why) in
        [("http://9.9.9.9/a", "cannot be scraped"), ("ws://a", "not supported"), ("x", "not a usable")]
    {
        scrape(&mut bench, url, 1);
        assert!(scraped(&mut bench).unwrap_err().contains(why));
    }
    scrape(&mut bench, "http://9.9.9.9/announce", 1);
    bench.pass(Duration::from_secs(31));
    assert_eq!(scraped(&mut bench), Err("timed out".into()));
    scrape(&mut bench, "http://9.9.9.9/announce", 1);
    bench.input(Input::Command(Command::Shutdown));
    assert_eq!(
        (bench.alerts.pop(), scraped(&mut bench)),
        (Some(Alert::Stopped), Err("shutting down".into()))
    );
}

/// Lets a tracker of ours answer what was sent to it.
fn serve(bench: &mut Bench, server: &mut TrackerServer) -> Vec<UdpRequest> {
    let mut seen = Vec::new();
    while let Some((remote, payload)) = bench.packets.pop_front() {
        seen.extend(UdpRequest::parse(&payload));
        let from: SocketAddr = "1.2.3.4:6881".parse().unwrap();
        if let Some(payload) = server.handle_udp(bench.now, from, &payload) {
            bench.input(Input::Datagram { remote, payload: payload.into() });
        }
    }
    seen
}

#[test]
fn a_scrape_over_udp_goes_in_packets_of_74() {
    let mut bench = Bench::new();
    let mut server = TrackerServer::new(TrackerConfig::default(), Rng::stream(1, "tracker", 0));
    scrape(&mut bench, "udp://9.9.9.9:6969", 200);
    let sizes: Vec<usize> = serve(&mut bench, &mut server)
        .iter()
        .filter_map(|request| match request {
            UdpRequest::Scrape { info_hashes, .. } => Some(info_hashes.len()),
            _ => None,
        })
        .collect();
    assert_eq!(sizes, [74, 74, 52]);
    assert_eq!(scraped(&mut bench).unwrap().len(), 200);
}

#[test]
fn torrents_share_a_connection_id_and_find_each_other_over_udp() {
    let mut bench = Bench::new();
    let mut server = TrackerServer::new(TrackerConfig::default(), Rng::stream(1, "tracker", 0));
    for number in 0..20 {
        bench.add(number, "udp://9.9.9.9:6969/announce");
    }
    let seen = serve(&mut bench, &mut server);
    let connects = seen.iter().filter(|request| matches!(request, UdpRequest::Connect { .. })).count();
    assert_eq!((connects, seen.len()), (1, 21));
    let taken = bench.alerts.iter().filter(|alert| matches!(alert, Alert::Tracker { result: Ok(_), .. }));
    assert_eq!(taken.count(), 20);
}

#[test]
fn datagrams_of_nobody_change_nothing() {
    let mut bench = Bench::new();
    bench.add(0, "udp://9.9.9.9:6969");
    let (remote, connect) = bench.packets.pop_front().unwrap();
    let Some(UdpRequest::Connect { transaction }) = UdpRequest::parse(&connect) else { panic!() };
    let answer = UdpAnswer::Connected { transaction, connection_id: 1 }.encode(false);
    for (from, payload) in [
        ("9.9.9.8:6969", &answer[..]),
        ("9.9.9.9:6969", b"d1:y1:qe"),
        ("9.9.9.9:6969", &answer[..15]),
        ("9.9.9.9:6969", &[0x41; 40]),
        ("9.9.9.9:6969", b""),
    ] {
        let payload = Bytes::copy_from_slice(payload);
        bench.input(Input::Datagram { remote: from.parse().unwrap(), payload });
        assert!(bench.packets.is_empty());
    }
    bench.input(Input::Datagram { remote, payload: answer.into() });
    assert_eq!(bench.packets.len(), 1);
}
