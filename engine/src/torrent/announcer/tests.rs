//! An announcer against scripted trackers, in its own time. Each answer takes 100 ms.

mod udp;

use super::*;
use crate::limits::REDIRECTS_MAX;
use crate::output::HttpGet;
use crate::wire::gzip::InflateError;
use crate::wire::tracker_http::AnswerError;

type Answer = Option<Result<HttpResponse, NetError>>;
type Script = Box<dyn FnMut(Instant, &HttpGet) -> Answer>;
type UdpAnswered = Option<Result<UdpAnswer, NetError>>;
type UdpScript = Box<dyn FnMut(Instant, SocketAddr, &AnnounceRequest) -> UdpAnswered>;

enum Reply {
    Http(Result<HttpResponse, NetError>),
    Udp(Result<UdpAnswer, NetError>),
}

struct World {
    announcer: Announcer,
    now: Instant,
    script: Script,
    udp_script: UdpScript,
    figures: Figures,
    /// What came back and has not been handed over: when, to which token.
    answers: Vec<(Instant, Token, Reply)>,
    /// Calls that went out, look-ups apart.
    tokens: Vec<Token>,
    url_data: Vec<Vec<u8>>,
    external: Vec<IpAddr>,
    /// Requests as `SECOND HOST EVENT`, cancels, ends.
    log: Vec<String>,
    peers: Vec<SocketAddr>,
    reports: Vec<Report>,
    gets: Vec<(Instant, HttpGet)>,
}

impl World {
    fn new(tiers: &[&[&str]], script: impl FnMut(Instant, &HttpGet) -> Answer + 'static) -> Self {
        let tiers: Vec<Vec<String>> =
            tiers.iter().map(|tier| tier.iter().map(|url| (*url).into()).collect()).collect();
        Self {
            announcer: Announcer::new(&tiers, Planted::default(), Rng::stream(3, "announcer", 0)),
            now: Instant::START,
            script: Box::new(script),
            udp_script: Box::new(|_, _, _| None),
            tokens: Vec::new(),
            url_data: Vec::new(),
            external: Vec::new(),
            figures: Figures {
                info_hash: InfoHash([1; 20]),
                peer_id: PeerId([2; 20]),
                key: 3,
                port: 6881,
                uploaded: 0,
                downloaded: 0,
                left: 100,
                numwant: 50,
            },
            answers: Vec::new(),
            log: Vec::new(),
            peers: Vec::new(),
            reports: Vec::new(),
            gets: Vec::new(),
        }
    }

    fn started(tiers: &[&[&str]], script: impl FnMut(Instant, &HttpGet) -> Answer + 'static) -> Self {
        let mut world = Self::new(tiers, script);
        world.announcer.start(Instant::START);
        world.drain();
        world
    }

    fn drain(&mut self) {
        while let Some(action) = self.announcer.poll_action(self.now, &self.figures, true) {
            let second = self.now.0 / 1_000_000_000;
            let at = self.now + Duration::from_millis(100);
            match action {
                // `v6.` names have a dead IPv6 address first, `both.` ones a live one second; names with `local` lead to
                // a local network.
                Action::Call { token, call: Call::Resolve(host) } => {
                    let addresses = match host.as_str() {
                        "nowhere" => Err(NetError::NotFound),
                        "empty" => Ok(vec![]),
                        host if host.starts_with("v6.") => Ok(vec!["2001:db8::1".parse().unwrap(), PUBLIC]),
                        host if host.starts_with("both.") => Ok(vec![PUBLIC, PUBLIC_V6]),
                        "localhost" => Ok(vec!["127.0.0.1".parse().unwrap()]),
                        host if host.contains("local") => Ok(vec!["192.168.1.1".parse().unwrap()]),
                        _ => Ok(vec![PUBLIC]),
                    };
                    self.announcer.handle_resolved(self.now, token, addresses);
                }
                Action::Call { token, call: Call::Get(get) } => {
                    let event = get.path.split_once("event=").map_or("-", |(_, event)| event);
                    let family = if get.target.ip() == PUBLIC_V6 { "6" } else { "" };
                    self.log.push(format!("{second} {}{family} {event}", get.host));
                    if let Some(answer) = (self.script)(self.now, &get) {
                        self.answers.push((at, token, Reply::Http(answer)));
                    }
                    self.gets.push((self.now, *get));
                    self.tokens.push(token);
                }
                Action::Call { token, call: Call::Udp(target, ask) } => {
                    let UdpAsk::Announce { announce, url_data } = ask else { panic!("no scrape: {ask:?}") };
                    let event = announce.event.map_or("-", AnnounceEvent::as_str);
                    self.log.push(format!("{second} {target} {event}"));
                    if let Some(answer) = (self.udp_script)(self.now, target, &announce) {
                        self.answers.push((at, token, Reply::Udp(answer)));
                    }
                    self.tokens.push(token);
                    self.url_data.push(url_data);
                }
                Action::Cancel { .. } => self.log.push(format!("{} cancel", self.now.0 / 1_000_000_000)),
                Action::Peers { peers, .. } => self.peers.extend(peers),
                Action::ExternalIp(ip) => self.external.push(ip),
                Action::Report(report) => self.reports.push(*report),
                Action::Stopped => self.log.push("stopped".into()),
            }
        }
    }

    /// Lets time pass. Nothing may be polled more often than it has something to do.
    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        for _ in 0..100_000 {
            let answer = self.answers.iter().map(|(at, ..)| *at).min();
            let next = answer.into_iter().chain(self.announcer.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            match self.answers.iter().position(|(at, ..)| *at <= self.now) {
                Some(at) => {
                    let (_, token, answer) = self.answers.remove(at);
                    match answer {
                        Reply::Http(answer) => self.announcer.handle_http(self.now, token, answer),
                        Reply::Udp(answer) => self.announcer.handle_udp(self.now, token, answer),
                    }
                }
                None => self.announcer.handle_timeout(self.now),
            }
            self.drain();
        }
        panic!("it spins: {:?}", self.log.iter().rev().take(5).collect::<Vec<_>>());
    }

    fn completed(&mut self) {
        self.figures.left = 0;
        self.announcer.completed(self.now);
        self.drain();
    }

    fn stop(&mut self) {
        self.announcer.stop(self.now);
        self.drain();
    }

    fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|line| line.contains(what)).count()
    }

    fn last_error(&self) -> Option<TrackerError> {
        self.reports.last().and_then(|report| report.result.clone().err())
    }
}

const PUBLIC: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(9, 9, 9, 9));
const PUBLIC_V6: IpAddr = IpAddr::V6(core::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9));

fn body(status: u16, body: impl Into<Bytes>) -> Answer {
    Some(Ok(HttpResponse { status, location: None, body: body.into(), gzip: false }))
}

fn good(_: Instant, _: &HttpGet) -> Answer {
    body(200, &b"d8:intervali600e12:min intervali60e5:peers6:\x08\x08\x08\x08\x1a\xe2e"[..])
}

/// Knows of nobody but us.
fn barren(_: Instant, _: &HttpGet) -> Answer {
    body(200, &b"d8:intervali600e12:min intervali60e5:peers6:\x08\x08\x08\x08\x1a\xe1e"[..])
}

fn redirect(to: &str) -> Answer {
    Some(Ok(HttpResponse { status: 302, location: Some(to.into()), body: Bytes::new(), gzip: false }))
}

fn udp_answer(interval: u32, peers: &[&str]) -> UdpAnswered {
    let peers = peers.iter().map(|peer| peer.parse().unwrap()).collect();
    Some(Ok(UdpAnswer::Announced { transaction: 0, interval, leechers: 1, seeders: 2, peers }))
}

#[test]
fn first_announce_is_started_then_the_interval_is_kept() {
    let mut world = World::started(&[&["http://a/announce?pk=1"]], good);
    world.run(1300);
    assert_eq!(world.log, ["0 a started", "600 a -", "1200 a -"]);
    assert_eq!(world.peers.first(), Some(&"8.8.8.8:6882".parse().unwrap()));
    let get = &world.gets[0].1;
    assert!(get.path.starts_with("/announce?pk=1&info_hash=%01%01"), "{}", get.path);
    assert_eq!((get.target.to_string(), get.tls, get.authority.as_str()), ("9.9.9.9:80".into(), false, "a"));
}

#[test]
fn https_and_ports_and_literal_addresses_are_kept() {
    let mut world = World::started(&[&["https://[2001:db8::9]:8443/x"]], good);
    world.run(1);
    let get = &world.gets[0].1;
    assert_eq!(get.target, "[2001:db8::9]:8443".parse().unwrap());
    assert_eq!(
        (get.tls, get.host.as_str(), get.authority.as_str()),
        (true, "2001:db8::9", "[2001:db8::9]:8443")
    );
}

#[test]
fn a_tracker_whose_url_has_no_path_is_asked_at_its_root() {
    for (url, begin) in [("http://a:8080", "/?info_hash=%01"), ("http://a:8080?pk=1", "/?pk=1&info_hash=%01")]
    {
        let mut world = World::started(&[&[url]], |_, _| body(200, &b"d5:peers6:aaaaaae"[..]));
        world.run(1);
        let get = &world.gets[0].1;
        assert!(get.path.starts_with(begin), "{}", get.path);
        assert_eq!((get.target.port(), get.authority.as_str()), (8080, "a:8080"));
        assert_eq!((world.last_error(), world.peers.len()), (None, 1));
    }
}

#[test]
fn life_cycle_is_told_once_each() {
    let mut world = World::started(&[&["http://a/announce"]], good);
    world.run(100);
    world.completed();
    world.completed();
    world.run(2000);
    world.stop();
    world.stop();
    world.run(2000);
    world.announcer.give_up();
    world.drain();
    assert_eq!((world.count("started"), world.count("completed"), world.count("a stopped")), (1, 1, 1));
    assert_eq!(world.log.last().unwrap(), "stopped");
    assert_eq!(world.count("stopped"), 2, "the end is said once");
    assert_eq!(world.announcer.poll_timeout(), None);
    assert!(world.gets.last().unwrap().1.path.contains("&numwant=0&"));
}

#[test]
fn completion_at_once_and_stop_at_once_are_told_in_order() {
    let mut world = World::started(&[&["http://a/announce"]], good);
    world.completed();
    world.stop();
    world.run(10);
    assert_eq!(world.log, ["0 a started", "0 a completed", "0 a stopped", "stopped"]);
}

#[test]
fn stop_says_nothing_to_those_that_never_took_started() {
    let mut world = World::started(&[&["http://a/announce"]], |_, _| Some(Err(NetError::Refused)));
    world.run(100);
    world.completed();
    world.stop();
    assert_eq!(world.log.last().unwrap(), "stopped");
    assert_eq!((world.count("completed"), world.count("a stopped")), (0, 0));
}

#[test]
fn a_stop_before_the_start_and_without_trackers_ends() {
    for mut world in [World::new(&[&["http://a/announce"]], good), World::started(&[], good)] {
        world.stop();
        assert_eq!(world.log, ["stopped"]);
    }
}

#[test]
fn stop_waits_for_a_start_that_is_under_way() {
    let mut world = World::started(&[&["http://a/announce"]], good);
    world.stop();
    world.run(10);
    assert_eq!(world.log, ["0 a started", "0 a stopped", "stopped"]);
}

#[test]
fn stop_gives_up_a_tracker_that_hangs() {
    let mut world = World::started(&[&["http://a/announce"]], |now, get| {
        if get.path.contains("stopped") { None } else { good(now, get) }
    });
    world.run(10);
    world.stop();
    world.run(60);
    assert_eq!(world.log, ["0 a started", "10 a stopped", "40 cancel", "stopped"]);
}

#[test]
fn giving_up_cancels_what_is_under_way() {
    let mut world = World::started(&[&["http://a/announce"]], |_, _| None);
    world.run(3);
    world.stop();
    world.announcer.give_up();
    world.drain();
    assert_eq!(world.log, ["0 a started", "3 cancel", "stopped"]);
}

#[test]
fn the_next_tier_is_asked_only_when_all_of_this_one_failed() {
    let mut world =
        World::started(&[&["http://a/announce", "http://b/announce"], &["http://c/announce"]], |now, get| {
            if get.host == "c" { good(now, get) } else { Some(Err(NetError::Refused)) }
        });
    world.run(1);
    assert_eq!(world.log.len(), 3);
    assert_eq!(world.log[2], "0 c started");
    world.run(700);
    // At the next announce the first tier comes first again.
    assert!(world.log[3].ends_with("started") && !world.log[3].contains('c'), "{:?}", world.log);
}

#[test]
fn the_one_that_answers_moves_to_the_front_of_its_tier() {
    let urls: Vec<String> = (0..8).map(|n| format!("http://t{n}/announce")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let mut world =
        World::started(&[&urls], |now, get| if get.host == "t5" { good(now, get) } else { body(500, "no") });
    world.run(2000);
    let regular: Vec<_> = world.log.iter().filter(|line| line.ends_with('-')).collect();
    assert_eq!(regular, ["600 t5 -", "1200 t5 -", "1800 t5 -"].iter().collect::<Vec<_>>());
    let orders: std::collections::BTreeSet<_> = (0..20)
        .map(|seed| {
            let tier = urls.iter().map(|url| (*url).to_owned()).collect();
            let announcer = Announcer::new(&[tier], Planted::default(), Rng::stream(seed, "announcer", 0));
            announcer.trackers.into_iter().map(|tracker| tracker.text).collect::<Vec<_>>()
        })
        .collect();
    assert!(orders.len() > 15, "tiers are shuffled");
}

#[test]
fn a_tracker_that_comes_back_is_told_once() {
    let down = |now: Instant| now < Instant::START + Duration::from_secs(100);
    let mut world = World::started(&[&["http://a/announce"]], move |now, get| {
        if down(now) { Some(Err(NetError::Unreachable)) } else { good(now, get) }
    });
    world.run(50);
    world.completed();
    world.run(500);
    let told: Vec<_> =
        world.log.iter().rev().take(2).rev().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(told, ["a started", "a completed"]);
}

#[test]
fn completed_goes_to_a_tracker_that_knows_us_and_is_retried() {
    let mut world = World::started(&[&["http://a/announce"], &["http://b/announce"]], |now, get| {
        let seconds = now.0 / 1_000_000_000;
        // The first is down until 60, the second refuses `completed` until 300.
        let up =
            if get.host == "a" { seconds > 60 } else { !get.path.contains("completed") || seconds > 300 };
        if up { good(now, get) } else { body(503, "") }
    });
    world.run(50);
    world.completed();
    world.run(10);
    assert_eq!(world.log.iter().find(|line| line.contains("completed")).unwrap(), "50 b completed");
    world.run(600);
    // As the first came back before the second would take it, it was told `started`, then `completed`.
    let ok: Vec<_> =
        world.reports.iter().filter(|one| one.result.is_ok()).filter(|one| one.event.is_some()).collect();
    let ok: Vec<_> = ok.iter().map(|one| (one.url.as_str(), one.event.unwrap().as_str())).collect();
    assert_eq!(
        ok,
        [
            ("http://b/announce", "started"),
            ("http://a/announce", "started"),
            ("http://a/announce", "completed")
        ]
    );
    world.stop();
    world.run(40);
    assert_eq!(world.count("stopped"), 3, "{:?}", world.log);
}

/// A file is removed before a tracker took `completed` (fuzz-small, seed 2977).
#[test]
fn completed_is_not_said_while_something_is_missing_again() {
    for is_whole_again in [true, false] {
        let mut world = World::started(&[&["http://a/announce"]], |now, get| {
            let down = (50..100).contains(&(now.0 / 1_000_000_000));
            if down { body(503, "") } else { good(now, get) }
        });
        world.run(55);
        world.completed();
        world.run(1);
        assert_eq!(world.count("completed"), 1, "it is said once in vain");
        world.figures.left = 100;
        world.run(500);
        assert_eq!(world.count("completed"), 1, "{:?}", world.log);
        if is_whole_again {
            world.completed();
            world.run(10);
        }
        world.stop();
        world.run(10);
        assert_eq!(world.count("completed"), 1 + usize::from(is_whole_again), "{:?}", world.log);
        assert_eq!(world.log.last().map(String::as_str), Some("stopped"));
    }
}

#[test]
fn need_peers_keeps_the_minimum_interval() {
    let mut world = World::started(&[&["http://a/announce"], &["http://b/announce"]], good);
    world.run(10);
    for _ in 0..300 {
        world.announcer.need_peers(world.now);
        world.drain();
        world.run(1);
    }
    let at: Vec<u64> = world.gets.iter().map(|(at, _)| at.0 / 1_000_000_000).collect();
    assert_eq!(at, [0, 60, 120, 180, 240, 300]);
    assert_eq!(world.count(" b "), 0);
}

// Found by fuzz-small, seed 242: a seed that could not reach the first tier, a leecher that could.
#[test]
fn who_seeks_asks_the_next_tier_too_when_the_first_knows_nobody() {
    let half = |now, get: &HttpGet| if get.host == "a" { barren(now, get) } else { good(now, get) };
    let tiers: &[&[&str]] = &[&["http://a/announce"], &["http://b/announce"], &["http://c/announce"]];
    let mut world = World::started(tiers, half);
    world.run(1000);
    assert_eq!(world.log, ["0 a started", "0 b started", "600 a -", "600 b -"]);
    world.completed();
    world.run(1500);
    assert_eq!(world.count(" b "), 2, "who has everything seeks nobody: {:?}", world.log);
    assert_eq!(world.count(" c "), 0);
}

// Found by fuzz-small, seeds 118 and 410: the second tier knew only peers that have nothing, the first had been out of
// reach once.
#[test]
fn whom_nobody_feeds_asks_those_again_that_could_not_be_reached() {
    let late = |now: Instant, get: &HttpGet| match get.host.as_str() {
        "a" if now.0 < 20_000_000_000 => Some(Err(NetError::Unreachable)),
        _ => good(now, get),
    };
    for hungry in [false, true] {
        let mut world = World::started(&[&["http://a/announce"], &["http://b/announce"]], late);
        world.announcer.set_seeking(world.now, hungry);
        world.run(if hungry { 59 } else { 500 });
        let expected: &[&str] = &["0 a started", "0 b started", "30 a started"];
        assert_eq!(world.log, if hungry { expected } else { &expected[..2] });
    }
}

#[test]
fn whom_the_peers_of_the_first_tier_do_not_feed_asks_the_next() {
    let tiers: &[&[&str]] = &[&["http://a/announce", "http://b/announce"], &["http://c/announce"]];
    let mut world = World::started(tiers, good);
    world.announcer.set_seeking(world.now, true);
    for _ in 0..10 {
        world.run(20);
        world.announcer.on_fed(world.now);
    }
    assert_eq!(world.log.len(), 1, "who is fed is patient: {:?}", world.log);
    world.run(80);
    let [_, second, third] = world.log.as_slice() else { panic!("each of the others once: {:?}", world.log) };
    assert!(second.starts_with("230 ") && third.starts_with("260 c"), "{:?}", world.log);
    world.announcer.set_seeking(world.now, false);
    world.run(1200);
    assert_eq!(world.count(" c "), 1, "who seeks nothing asks one: {:?}", world.log);
}

// Found by fuzz-small with boxes, seed 307: nobody could dial it, and the tracker knew only peers that give nothing.
#[test]
fn whom_nobody_feeds_asks_again_when_it_may_and_less_often_each_time() {
    let mut world = World::started(&[&["http://a/announce"]], good);
    world.announcer.set_seeking(world.now, true);
    world.run(2500);
    assert_eq!(world.log, ["0 a started", "60 a -", "180 a -", "420 a -", "900 a -", "1500 a -", "2100 a -"]);
    world.announcer.on_fed(world.now);
    world.run(340);
    assert_eq!(world.log[7..], ["2700 a -", "2760 a -"], "who was fed begins with the minimum");
}

#[test]
fn whom_nobody_feeds_asks_first_whom_it_has_not_asked_and_spares_who_refuses() {
    let takes = |get: &HttpGet| get.host == "a" || get.path.contains("started");
    let no = move |now, get: &HttpGet| if takes(get) { good(now, get) } else { body(503, "") };
    let mut world = World::started(&[&["http://a/announce"], &["http://b/announce"]], no);
    world.announcer.set_seeking(world.now, true);
    world.run(400);
    assert_eq!(world.log, ["0 a started", "30 b started", "60 a -", "90 b -", "180 a -"]);
}

#[test]
fn who_is_alone_asks_again_soon() {
    let mut world = World::started(&[&["http://a/announce"]], barren);
    world.run(250);
    assert_eq!(world.log, ["0 a started", "120 a -", "240 a -"]);
    world.completed();
    world.run(1300);
    assert_eq!(world.count(" -"), 4, "and as the tracker says when nothing is missing: {:?}", world.log);
}

#[test]
fn who_is_alone_everywhere_asks_everywhere_again_soon() {
    let mut world = World::started(&[&["http://a/announce"], &["http://b/announce"]], barren);
    world.run(250);
    assert_eq!(world.log, ["0 a started", "0 b started", "120 a -", "120 b -", "240 a -", "240 b -"]);
}

// Found by fuzz-small, seed 80869: who knew nobody put off, again and again, the one that had refused and knew a seed.
#[test]
fn one_that_failed_is_asked_again_while_the_others_know_nobody() {
    let tiers: [&[&str]; 3] = [&["http://a/announce"], &["http://b/announce"], &["http://c/announce"]];
    let mut world = World::started(&tiers, |now, get| match get.host.as_str() {
        "a" if now == Instant::START => body(200, &b"d14:failure reason2:noe"[..]),
        "a" => good(now, get),
        _ => barren(now, get),
    });
    world.run(20);
    assert_eq!((world.log.len(), &world.log[3][2..]), (4, "a started"), "{:?}", world.log);
}

// Found by fuzz-small, seed 525 with boxes: a tracker that wants to be asked once in 136 years, or in less than no time.
#[test]
fn an_interval_beyond_reason_keeps_nobody_alone_for_hours() {
    for seconds in ["86400", "-1"] {
        let answer = move |_: Instant, _: &HttpGet| body(200, format!("d8:intervali{seconds}e5:peers0:e"));
        let mut world = World::started(&[&["http://a/announce"]], answer);
        world.run(700);
        assert_eq!(world.log, ["0 a started", "300 a -", "600 a -"], "{seconds}");
    }
    let mut world = World::new(&[&["udp://a:6969/announce"]], good);
    world.udp_script = Box::new(|_, _, _| udp_answer(u32::MAX, &[]));
    world.announcer.start(Instant::START);
    world.drain();
    world.run(400);
    assert_eq!(world.log, ["0 9.9.9.9:6969 started", "300 9.9.9.9:6969 -"]);
}

#[test]
fn an_outage_is_over_within_the_back_off() {
    let mut world = World::started(&[&["http://a/announce"]], |now, get| {
        let seconds = now.0 / 1_000_000_000;
        if (1000..4600).contains(&seconds) { Some(Err(NetError::Unreachable)) } else { good(now, get) }
    });
    world.run(20_000);
    let failed = world.reports.iter().filter(|report| report.result.is_err()).count();
    assert!((5..15).contains(&failed), "{failed} tries");
    let back = world.gets.iter().map(|(at, _)| at.0 / 1_000_000_000).find(|at| *at >= 4600).unwrap();
    assert!(back <= 4600 + ANNOUNCE_RETRY_MAX.as_secs() * 3 / 2, "{back}");
    assert_eq!(world.count("started"), 1);
}

#[test]
fn when_the_network_is_back_trackers_are_asked_within_a_minute_and_a_half_and_not_more_often() {
    let mut world = World::started(&[&["http://a/announce"]], |now, get| {
        let seconds = now.0 / 1_000_000_000;
        if (1000..9000).contains(&seconds) { Some(Err(NetError::Unreachable)) } else { good(now, get) }
    });
    world.run(9_000);
    assert!(world.announcer.is_unreached());
    let before = world.gets.len();
    for _ in 0..90 {
        world.announcer.on_reachable(world.now);
        world.drain();
        world.run(1);
    }
    assert_eq!(world.gets.len(), before + 1, "{:?}", world.log);
    assert!(!world.announcer.is_unreached());

    let mut world = World::started(&[&["http://a/announce"]], |_, _| Some(Err(NetError::Unreachable)));
    world.run(9_000);
    let before = world.gets.len();
    for _ in 0..600 {
        world.announcer.on_reachable(world.now);
        world.drain();
        world.run(1);
    }
    assert!((6..=11).contains(&(world.gets.len() - before)), "{:?}", world.log);
}

#[test]
fn one_that_answers_again_lets_others_be_asked_soon_and_one_that_refuses_is_left_alone() {
    for refuses in [false, true] {
        let mut world = World::started(&[&["http://b/announce"], &["http://a/announce"]], move |now, get| {
            let seconds = now.0 / 1_000_000_000;
            match get.host.as_str() {
                "b" if refuses => body(200, &b"d14:failure reason2:noe"[..]),
                _ if (1000..9000).contains(&seconds) => Some(Err(NetError::Unreachable)),
                _ => good(now, get),
            }
        });
        world.run(9_000);
        let retry_at = |world: &World, name: &str| {
            world.announcer.trackers.iter().find(|one| one.text.contains(name)).unwrap().retry_at
        };
        let answered = |world: &World| world.reports.iter().filter(|report| report.result.is_ok()).count();
        let (before, mut b_before) = (answered(&world), Instant::START);
        while answered(&world) == before {
            b_before = retry_at(&world, "b/");
            world.run(1);
        }
        if refuses {
            assert_eq!(retry_at(&world, "b/"), b_before);
        } else {
            let last = retry_at(&world, "a/").max(retry_at(&world, "b/"));
            assert!(last <= world.now + Duration::from_secs(91), "{last:?} {:?}", world.log);
        }
    }
}

#[test]
fn retries_grow_and_stay_within_the_cap() {
    let mut world = World::started(&[&["http://a/announce"]], |_, _| Some(Err(NetError::Refused)));
    world.run(86_400);
    let at: Vec<u64> = world.gets.iter().map(|(at, _)| at.0).collect();
    let gaps: Vec<u64> = at.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
    assert!((5_000..7_700).contains(&gaps[0]), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= 900_200) && *gaps.last().unwrap() >= 600_000);
}

#[test]
fn junk_answers_are_failures_and_are_named() {
    let deep = b"l".repeat(100_000);
    let check = |status, text: &[u8], want: TrackerError| {
        let text = Bytes::copy_from_slice(text);
        let mut world = World::started(&[&["http://a/announce"]], move |_, _| body(status, text.clone()));
        world.run(1);
        assert_eq!(world.last_error(), Some(want));
    };
    check(200, b"<html>", TrackerError::Answer(AnswerError::NotBencode));
    check(200, b"", TrackerError::Answer(AnswerError::NotBencode));
    check(200, &deep, TrackerError::Answer(AnswerError::NotBencode));
    check(200, b"de", TrackerError::Answer(AnswerError::Empty));
    check(500, b"oops", TrackerError::Status(500));
    check(500, b"d8:intervali60ee", TrackerError::Status(500));
    check(302, b"", TrackerError::Status(302));
    check(403, b"d14:failure reason4:\x1b[2Je", TrackerError::Refused("\x1b[2J".into()));
}

#[test]
fn absurd_intervals_are_clamped() {
    for (interval, seconds) in
        [("-1", 1800), ("0", 30), ("5", 30), ("2147483648", 86_400), ("9223372036854775807", 86_400)]
    {
        let mut world = World::started(&[&["http://a/announce"]], move |_, _| {
            // With peers: who is alone asks again sooner.
            body(200, format!("d8:intervali{interval}e5:peers12:abcdefghijkle"))
        });
        world.run(seconds + 10);
        assert_eq!(world.gets.len(), 2, "{interval}");
        assert_eq!(world.gets[1].0.since(world.gets[0].0).as_secs(), seconds, "{interval}");
    }
}

#[test]
fn a_refusal_says_when_to_come_again() {
    for (retry, seconds) in [("i7e", 420), ("5:never", 86_400), ("i-1e", 30)] {
        let text = format!("d14:failure reason2:no8:retry in{retry}e");
        let mut world = World::started(&[&["http://a/announce"]], move |_, _| body(200, text.clone()));
        world.run(86_410);
        assert_eq!(world.gets[1].0.since(world.gets[0].0).as_secs(), seconds, "{retry}");
    }
}

#[test]
fn redirects_are_followed_to_a_limit() {
    let mut world =
        World::started(&[&["http://a/announce"]], |_, get| redirect(&format!("http://{}a/x", get.host)));
    world.run(1);
    assert_eq!(world.gets.len(), 1 + REDIRECTS_MAX as usize);
    assert_eq!(world.last_error(), Some(TrackerError::TooManyRedirects));
    for bad in [
        "ftp://a/",
        "file:///etc/passwd",
        "udp://a:1/announce",
        "magnet:?xt=urn:btih:00",
        "javascript:alert(1)",
        "data:,x",
        "http://",
        &"x".repeat(9000),
    ] {
        let bad = bad.to_owned();
        let mut world = World::started(&[&["http://a/announce"]], move |_, _| redirect(&bad));
        world.run(1);
        assert_eq!(world.last_error(), Some(TrackerError::RedirectTarget));
    }
}

#[test]
fn a_redirect_target_gets_the_announce_unless_it_has_it() {
    let mut world = World::started(&[&["http://a/announce"]], |now, get| match get.host.as_str() {
        "a" => redirect("//b/ann?pk=7"),
        "b" => redirect("https://c/ann?info_hash=zz"),
        _ => good(now, get),
    });
    world.run(1);
    assert!(world.gets[1].1.path.starts_with("/ann?pk=7&info_hash=%01"));
    let last = &world.gets[2].1;
    assert_eq!((last.path.as_str(), last.tls, last.target.port()), ("/ann?info_hash=zz", true, 443));
    assert!(world.reports.iter().all(|report| report.url == "http://a/announce" && report.result == Ok(1)));
}

#[test]
fn no_redirect_leads_from_the_public_into_a_local_network() {
    for local in [
        "http://127.0.0.1/announce",
        "http://localhost/announce",
        "http://local.b/x",
        "http://[::1]/announce",
        "http://[::ffff:10.0.0.1]/x",
    ] {
        let to = local.to_owned();
        let mut world = World::started(&[&["http://a/announce"]], move |_, _| redirect(&to));
        world.run(1);
        assert_eq!(world.last_error(), Some(TrackerError::RedirectToLocal), "{local}");
        assert_eq!(world.gets.len(), 1);
    }
    // Through a second public host as well; and a local one may lead outwards.
    let mut world = World::started(&[&["http://local.a/announce"]], |_, get| match get.host.as_str() {
        "local.a" => redirect("http://b/x"),
        _ => redirect("http://local.a/x"),
    });
    world.run(1);
    assert_eq!((world.gets.len(), world.last_error()), (2, Some(TrackerError::RedirectToLocal)));
}

#[test]
fn on_this_machine_and_in_its_networks_only_announce_paths_are_asked() {
    // By address and by name: it is the address that counts (`localhost` and `local.a` lead where they say).
    for host in
        ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "192.168.1.1", "[fe80::1]", "local.a"]
    {
        for path in ["api/delete", "?x=/announce", "x/announce", "Announce", "%61nnounce"] {
            let mut world = World::started(&[&[&format!("http://{host}:8080/{path}")]], good);
            world.run(1);
            assert_eq!((world.gets.len(), world.last_error()), (0, Some(TrackerError::LocalPath)), "{host}");
        }
        let mut world = World::started(&[&[&format!("http://{host}:8080/announce/key")]], good);
        world.run(1);
        assert_eq!(world.last_error(), None, "{host}");
    }
    // After a redirect as well, from a tracker that is as local.
    let mut world = World::started(&[&["http://127.0.0.1/announce"]], |_, _| redirect("/api/delete"));
    world.run(1);
    assert_eq!((world.gets.len(), world.last_error()), (1, Some(TrackerError::LocalPath)));
}

/// A name whose addresses are a public and a local one gives neither away: each is judged when it is connected to, and
/// what is asked for anew is judged anew.
#[test]
fn a_name_that_comes_to_mean_a_local_address_is_judged_by_that_address() {
    let (mut exchange, _) = Exchange::new(Endpoint::announce("http://rebinding.example/x").unwrap());
    let local: IpAddr = "192.168.1.1".parse().unwrap();
    assert_eq!(exchange.handle_resolved(Ok(vec![PUBLIC, local])), Step::Ask);
    assert_eq!(exchange.target(), Some(SocketAddr::new(PUBLIC, 80)));
    assert_eq!(exchange.handle_timeout(), Step::Failed(TrackerError::LocalPath));
    let (mut exchange, _) = Exchange::new(Endpoint::announce("http://rebinding.example/x").unwrap());
    assert_eq!(exchange.handle_resolved(Ok(vec![local])), Step::Failed(TrackerError::LocalPath));
}

#[test]
fn trackers_that_cannot_be_used_are_reported_once() {
    let urls = ["ws://a:1", "nonsense", "http://a/?info_hash=x", "wss://b/", "http://c/announce"];
    let tiers: Vec<&[&str]> = urls.chunks(1).collect();
    let mut world = World::started(&tiers, good);
    world.run(5000);
    let errors: Vec<_> = world.reports.iter().filter_map(|report| report.result.clone().err()).collect();
    let unsupported = |scheme: &str| TrackerError::Unsupported(scheme.into());
    assert_eq!(
        errors,
        [unsupported("ws"), TrackerError::BadUrl, TrackerError::Imitation, unsupported("wss")]
    );
    assert!(world.count(" c ") > 5);
}

#[test]
fn every_address_is_tried_before_the_tracker_has_failed() {
    let mut world = World::started(&[&["http://v6.a/announce"]], |now, get| {
        if get.target.is_ipv6() { None } else { good(now, get) }
    });
    world.run(40);
    assert_eq!(world.log, ["0 v6.a started", "30 cancel", "30 v6.a started"]);
    assert_eq!(world.reports.len(), 1);
    assert_eq!(world.last_error(), None);
    for (host, error) in [("nowhere", NetError::NotFound), ("empty", NetError::NotFound)] {
        let mut world = World::started(&[&[&format!("http://{host}/announce")]], good);
        world.run(1);
        assert_eq!(world.last_error(), Some(error.into()));
    }
}

#[test]
fn late_answers_change_nothing() {
    let mut world = World::started(&[&["http://a/announce"]], |_, _| None);
    world.run(31);
    let token = world.tokens[0];
    world.announcer.handle_http(world.now, token, good(world.now, &world.gets[0].1).unwrap());
    world.announcer.handle_resolved(world.now, token, Ok(vec![PUBLIC]));
    world.drain();
    assert!(world.peers.is_empty());
    assert_eq!(world.last_error(), Some(NetError::TimedOut.into()));
}

#[test]
fn peers_that_nobody_can_be_at_are_dropped() {
    let list =
        b"\x08\x08\x08\x08\x00\x00\x00\x00\x00\x00\x1a\xe1\xe0\x00\x00\x01\x1a\xe1\xff\xff\xff\xff\x1a\xe1\
                 \x7f\x00\x00\x01\x1a\xe1\x0a\x00\x00\x01\x1a\xe1\x08\x08\x08\x08\x1a\xe1";
    let check = |url: &str, want: &[&str]| {
        let text = [&b"d8:intervali60e5:peers42:"[..], list, b"e"].concat();
        let mut world = World::started(&[&[url]], move |_, _| body(200, text.clone()));
        world.run(1);
        let peers: Vec<String> = world.peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, want, "{url}");
    };
    check("http://a/announce", &["8.8.8.8:6881"]);
    check("http://local.a/announce", &["10.0.0.1:6881", "8.8.8.8:6881"]);
    check("http://127.0.0.1/announce", &["127.0.0.1:6881", "10.0.0.1:6881", "8.8.8.8:6881"]);
}

#[test]
fn a_tracker_id_goes_back_and_warnings_are_passed_on() {
    let mut world = World::started(&[&["http://a/announce"]], |_, _| {
        body(200, &b"d8:intervali60e5:peers0:10:tracker id2:x\xff15:warning message5:relaxe"[..])
    });
    world.run(70);
    assert!(world.gets[1].1.path.contains("&trackerid=x%FF"));
    assert_eq!(world.reports[0].warning.as_deref(), Some("relax"));
}

#[test]
fn same_seed_same_announces() {
    let run = || {
        let mut world = World::started(&[&["http://a/announce", "http://b/announce"]], |_, _| body(500, ""));
        world.run(10_000);
        world.log
    };
    assert_eq!(run(), run());
}

#[test]
fn both_families_of_a_name_are_told() {
    let mut world = World::started(&[&["http://both.a/announce"]], |_, get| {
        let v6 = get.target.is_ipv6();
        let body6 =
            b"d8:intervali600e5:peers0:6:peers618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x1a\xe1e";
        if v6 { body(200, &body6[..]) } else { good(Instant::START, get) }
    });
    world.run(700);
    world.completed();
    world.run(10);
    world.stop();
    world.run(10);
    assert_eq!(
        world.log,
        [
            "0 both.a started",
            "0 both.a6 started",
            "600 both.a -",
            "600 both.a6 -",
            "700 both.a completed",
            "700 both.a6 -",
            "710 both.a stopped",
            "710 both.a6 stopped",
            "stopped"
        ]
    );
    assert!(world.peers.contains(&"[2001:db8::7]:6881".parse().unwrap()));
    assert_eq!(world.reports.len(), 4, "echoes are not reported");
}

#[test]
fn a_dead_family_costs_nothing() {
    let mut world = World::started(&[&["http://both.a/announce"]], |now, get| {
        if get.target.is_ipv6() { None } else { good(now, get) }
    });
    world.run(620);
    world.stop();
    world.run(10);
    assert_eq!(
        world.log,
        [
            "0 both.a started",
            "0 both.a6 started",
            "30 cancel",
            "600 both.a -",
            "600 both.a6 started",
            "620 both.a stopped",
        ],
        // The echo that hangs may have been taken; it is waited for until the time to stop is up.
    );
    world.announcer.give_up();
    world.drain();
    assert_eq!(world.log.last().unwrap(), "stopped");
}

#[test]
fn what_comes_with_gzip_is_unpacked_to_the_cap() {
    use std::io::Write as _;
    let pack = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        Bytes::from(encoder.finish().unwrap())
    };
    let check = |body: Bytes| {
        let mut world = World::started(&[&["http://a/announce"]], move |_, _| {
            Some(Ok(HttpResponse { status: 200, location: None, body: body.clone(), gzip: true }))
        });
        world.run(1);
        world.reports[0].result.clone()
    };
    assert_eq!(check(pack(b"d8:intervali600e5:peers6:\x08\x08\x08\x08\x1a\xe1e")), Ok(1));
    assert_eq!(check(pack(&vec![b'0'; 2 << 20])), Err(InflateError::TooLarge.into()));
    assert_eq!(check(Bytes::from_static(b"de")), Err(InflateError::Damaged.into()));
    let bomb = include_bytes!("../../../../tests/fixtures/torrents/misc/zeroes.gz");
    assert_eq!(check(Bytes::from_static(bomb)), Err(AnswerError::NotBencode.into()));
}

#[test]
fn our_address_is_learnt_from_trackers_of_its_scope() {
    let check = |url: &str, ip: &[u8]| {
        let text =
            [&b"d11:external ip"[..], format!("{}:", ip.len()).as_bytes(), ip, b"8:intervali60ee"].concat();
        let mut world = World::started(&[&[url]], move |_, _| body(200, text.clone()));
        world.run(1);
        world.external.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(check("http://a/announce", &[1, 2, 3, 4]), ["1.2.3.4"]);
    assert_eq!(check("http://a/announce", &PUBLIC_V6_OCTETS), ["2001:db8::9"]);
    assert!(check("http://a/announce", &[10, 0, 0, 1]).is_empty());
    assert!(check("http://a/announce", &[0, 0, 0, 0]).is_empty());
    assert!(check("http://a/announce", &[1, 2, 3]).is_empty());
    assert_eq!(check("http://local.a/announce", &[10, 0, 0, 1]), ["10.0.0.1"]);
}

const PUBLIC_V6_OCTETS: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

#[test]
fn renewal_forgets_back_offs_and_keeps_the_minimum_interval() {
    let mut world = World::started(&[&["http://a/announce"]], |now, get| {
        if now.0 < 2_000_000_000_000 { Some(Err(NetError::Unreachable)) } else { good(now, get) }
    });
    world.run(2000);
    assert_eq!(world.count("a started"), world.log.len());
    world.announcer.renew(world.now);
    world.drain();
    assert_eq!(world.log.last().unwrap(), "2000 a started");
    world.run(10);
    world.announcer.renew(world.now);
    world.drain();
    world.run(200);
    // It has slept for ten minutes within the interval of the second tracker below; here 60 s are the least.
    assert_eq!(world.log.iter().rev().take(2).rev().collect::<Vec<_>>(), ["2000 a started", "2060 a -"]);
    assert_eq!(world.announcer.trackers[0].failures, 0);
}

#[test]
fn renewal_begins_anew_what_hangs_and_leaves_alone_who_asked_for_it() {
    let mut world = World::started(&[&["http://a/announce"]], |_, _| None);
    world.run(3);
    world.announcer.renew(world.now);
    world.drain();
    assert_eq!(world.log, ["0 a started", "3 cancel", "3 a started"]);
    let never = b"d14:failure reason2:no8:retry in5:nevere";
    let mut world = World::started(&[&["http://a/announce"]], |_, _| body(200, &never[..]));
    world.run(3);
    world.announcer.renew(world.now);
    world.drain();
    world.run(1000);
    assert_eq!(world.log, ["0 a started"]);
}

#[test]
fn requests_wait_in_line_and_their_time_begins_when_they_go_out() {
    let mut world = World::new(&[&["http://9.9.9.9/announce"], &["udp://9.9.9.9:1"]], good);
    world.announcer.start(Instant::START);
    assert_eq!(world.announcer.poll_action(world.now, &world.figures, false), None);
    assert!(world.announcer.is_in_line());
    assert_eq!(world.announcer.poll_timeout(), None);
    world.now = Instant(1_000_000_000_000);
    world.announcer.handle_timeout(world.now);
    world.drain();
    assert_eq!(world.log, ["1000 9.9.9.9 started"]);
    assert!(!world.announcer.is_in_line());
    assert_eq!(world.announcer.poll_timeout(), Some(world.now + Duration::from_secs(30)));
}
