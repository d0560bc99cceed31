//! Questions against scripted trackers.

use super::*;
use crate::ids::PeerId;

struct World {
    trackers: UdpTrackers,
    now: Instant,
    outcomes: Vec<Outcome>,
}

impl World {
    fn new() -> Self {
        Self {
            trackers: UdpTrackers::new(Rng::stream(5, "udp trackers", 0)),
            now: Instant::START,
            outcomes: Vec::new(),
        }
    }

    fn ask(&mut self, ask: UdpAsk) -> UdpAskId {
        self.trackers.ask(self.now, tracker(), ask)
    }

    /// What was sent since the last time.
    fn sent(&mut self) -> Vec<UdpRequest> {
        std::iter::from_fn(|| self.trackers.poll_packet())
            .map(|(remote, packet)| {
                assert_eq!(remote, tracker());
                UdpRequest::parse(&packet).unwrap()
            })
            .collect()
    }

    fn answer(&mut self, answer: &UdpAnswer) {
        self.answer_from(tracker(), answer);
    }

    fn answer_from(&mut self, from: SocketAddr, answer: &UdpAnswer) {
        let outcomes = self.trackers.handle_datagram(self.now, from, &answer.encode(from.is_ipv6()));
        self.outcomes.extend(outcomes);
    }

    /// Answers a connect that was just sent alone, and gives the transactions of what follows.
    fn connect(&mut self, connection_id: u64) -> Vec<u32> {
        let sent = self.sent();
        let [UdpRequest::Connect { transaction }] = sent[..] else { panic!("{sent:?}") };
        self.answer(&UdpAnswer::Connected { transaction, connection_id });
        self.sent().iter().map(|request| asked_with(request, connection_id)).collect()
    }

    /// Lets time pass; gives when something was sent, and what.
    fn run(&mut self, seconds: u64) -> Vec<(u64, &'static str)> {
        let end = self.now + Duration::from_secs(seconds);
        let mut log = Vec::new();
        while let Some(next) = self.trackers.poll_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            let failed = self.trackers.handle_timeout(self.now);
            self.outcomes.extend(failed);
            for request in self.sent() {
                let name = match request {
                    UdpRequest::Connect { .. } => "connect",
                    UdpRequest::Announce { .. } => "announce",
                    UdpRequest::Scrape { .. } => "scrape",
                };
                log.push((self.now.0 / 1_000_000_000, name));
            }
        }
        self.now = end;
        log
    }

    /// Nothing is kept of what is over, connection ids apart.
    fn assert_idle(&self) {
        let UdpTrackers { asked, expected, deadlines, packets, .. } = &self.trackers;
        assert!(asked.is_empty() && expected.is_empty() && deadlines.is_empty() && packets.is_empty());
    }
}

fn tracker() -> SocketAddr {
    "203.0.113.1:6969".parse().unwrap()
}

fn announce() -> UdpAsk {
    let announce = AnnounceRequest {
        info_hash: InfoHash([1; 20]),
        peer_id: PeerId([2; 20]),
        port: 6881,
        uploaded: 0,
        downloaded: 0,
        left: 1,
        event: None,
        numwant: Some(50),
        key: Some(1),
        compact: None,
        no_peer_id: false,
        tracker_id: None,
        ip: None,
    };
    UdpAsk::Announce { announce: Box::new(announce), url_data: b"/x".to_vec() }
}

fn scrape() -> UdpAsk {
    UdpAsk::Scrape { info_hashes: vec![InfoHash([1; 20])] }
}

fn asked_with(request: &UdpRequest, want: u64) -> u32 {
    match request {
        UdpRequest::Announce { connection_id, transaction, .. }
        | UdpRequest::Scrape { connection_id, transaction, .. } => {
            assert_eq!(*connection_id, want);
            *transaction
        }
        UdpRequest::Connect { .. } => panic!("a connect"),
    }
}

fn announced(transaction: u32) -> UdpAnswer {
    UdpAnswer::Announced { transaction, interval: 60, leechers: 0, seeders: 0, peers: Vec::new() }
}

#[test]
fn a_question_connects_first() {
    let mut world = World::new();
    let id = world.ask(announce());
    let transactions = world.connect(77);
    world.answer(&announced(transactions[0]));
    assert_eq!(world.outcomes, [(id, Ok(announced(transactions[0])))]);
    world.assert_idle();
}

#[test]
fn a_connection_id_serves_everybody_for_a_minute() {
    let mut world = World::new();
    // Two that wait for the same connect.
    world.ask(announce());
    world.ask(scrape());
    let transactions = world.connect(77);
    assert_eq!(transactions.len(), 2);
    assert_ne!(transactions[0], transactions[1]);
    world.answer(&announced(transactions[0]));
    world.answer(&UdpAnswer::Scraped { transaction: transactions[1], entries: Vec::new() });
    world.run(59);
    world.ask(announce());
    let sent = world.sent();
    world.answer(&announced(asked_with(&sent[0], 77)));
    assert_eq!(world.outcomes.len(), 3);
    world.run(1);
    world.ask(announce());
    assert_eq!(world.connect(78).len(), 1);
}

#[test]
fn a_silent_tracker_has_failed_after_45_seconds() {
    let mut world = World::new();
    let id = world.ask(announce());
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.run(1000), [(15, "connect")]);
    assert_eq!(world.outcomes, [(id, Err(NetError::TimedOut))]);
    world.assert_idle();
    assert!(world.trackers.connections.is_empty());
    // One that connects and then says nothing is asked once more: packets are lost.
    let mut world = World::new();
    world.ask(announce());
    let first = world.connect(77);
    assert_eq!(world.run(15), [(15, "announce")]);
    // Its answer to the first copy still counts.
    world.answer(&announced(first[0]));
    assert_eq!(world.outcomes.len(), 1);
    world.assert_idle();
}

#[test]
fn who_connects_late_has_all_its_time_to_answer() {
    let mut world = World::new();
    world.ask(announce());
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.run(44), [(15, "connect")]);
    let Some(Connection::Asked { transaction, .. }) = world.trackers.connections.get(&tracker()).copied()
    else {
        panic!("it is asked")
    };
    world.answer(&UdpAnswer::Connected { transaction, connection_id: 5 });
    let sent = world.sent();
    let [ref request @ UdpRequest::Announce { .. }] = sent[..] else { panic!("{sent:?}") };
    let transaction = asked_with(request, 5);
    assert_eq!(world.run(44), [(59, "announce")]);
    world.answer(&announced(transaction));
    assert_eq!(world.outcomes.len(), 1);
    world.assert_idle();
}

#[test]
fn a_tracker_that_was_restarted_after_it_connected_is_connected_to_anew() {
    let mut world = World::new();
    world.ask(announce());
    let first = world.connect(77);
    assert_eq!(world.run(15), [(15, "announce")]);
    world.answer(&UdpAnswer::Failed { transaction: first[0], message: "who are you?".to_owned() });
    assert_eq!(world.outcomes, []);
    let again = world.connect(78);
    world.answer(&announced(again[0]));
    assert_eq!(world.outcomes.len(), 1);
    world.assert_idle();
}

#[test]
fn who_joins_late_sends_no_connect_of_its_own() {
    let mut world = World::new();
    world.ask(announce());
    world.run(10);
    world.ask(announce());
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.run(1000), [(15, "connect")]);
    assert_eq!(world.outcomes.len(), 2);
    world.assert_idle();
}

#[test]
fn answers_from_elsewhere_or_to_something_else_are_ignored() {
    let mut world = World::new();
    world.ask(announce());
    let sent = world.sent();
    let [UdpRequest::Connect { transaction }] = sent[..] else { panic!("{sent:?}") };
    let connected = UdpAnswer::Connected { transaction, connection_id: 5 };
    for from in ["203.0.113.2:6969", "203.0.113.1:6968", "[2001:db8::1]:6969"] {
        world.answer_from(from.parse().unwrap(), &connected);
    }
    world.answer(&UdpAnswer::Connected { transaction: transaction.wrapping_add(1), connection_id: 5 });
    world.answer(&announced(transaction));
    assert!(world.sent().is_empty());
    world.answer(&connected);
    let transaction = asked_with(&world.sent()[0], 5);
    world.answer_from("203.0.113.2:6969".parse().unwrap(), &announced(transaction));
    world.answer(&announced(transaction.wrapping_add(1)));
    world.answer(&UdpAnswer::Connected { transaction, connection_id: 6 });
    world.answer(&UdpAnswer::Scraped { transaction, entries: Vec::new() });
    assert!(world.trackers.handle_datagram(world.now, tracker(), &[0; 7]).is_empty());
    assert!(world.outcomes.is_empty() && world.sent().is_empty());
    world.answer(&announced(transaction));
    assert_eq!(world.outcomes.len(), 1);
    // And a second time, late.
    world.answer(&announced(transaction));
    assert_eq!(world.outcomes.len(), 1);
    // The same address in its other form is the same.
    world.ask(announce());
    let transaction = asked_with(&world.sent()[0], 5);
    let packet = announced(transaction).encode(false);
    let mapped: SocketAddr = "[::ffff:203.0.113.1]:6969".parse().unwrap();
    assert_eq!(world.trackers.handle_datagram(world.now, mapped, &packet).len(), 1);
}

#[test]
fn an_error_is_an_answer_but_an_old_connection_id_is_replaced_first() {
    let failed = |transaction| UdpAnswer::Failed { transaction, message: "no".into() };
    let mut world = World::new();
    let id = world.ask(announce());
    let transaction = world.connect(77)[0];
    world.answer(&failed(transaction));
    assert_eq!(world.outcomes, [(id, Ok(failed(transaction)))]);
    // The same id again, and the tracker does not know it any more.
    let id = world.ask(announce());
    let transaction = asked_with(&world.sent()[0], 77);
    world.answer(&failed(transaction));
    assert_eq!(world.outcomes.len(), 1);
    let transaction = world.connect(78)[0];
    world.answer(&announced(transaction));
    assert_eq!(world.outcomes[1], (id, Ok(announced(transaction))));
    world.assert_idle();
}

#[test]
fn a_refused_connect_fails_all_that_wait_for_it() {
    let mut world = World::new();
    let ids = [world.ask(announce()), world.ask(scrape())];
    let sent = world.sent();
    let [UdpRequest::Connect { transaction }] = sent[..] else { panic!("{sent:?}") };
    let failed = UdpAnswer::Failed { transaction, message: "full".into() };
    world.answer(&failed);
    assert_eq!(world.outcomes, ids.map(|id| (id, Ok(failed.clone()))));
    world.assert_idle();
}

#[test]
fn what_is_cancelled_leaves_nothing() {
    let mut world = World::new();
    let (first, second) = (world.ask(announce()), world.ask(announce()));
    world.trackers.cancel(first);
    let transactions = world.connect(7);
    assert_eq!(transactions.len(), 1);
    world.trackers.cancel(second);
    world.answer(&announced(transactions[0]));
    assert!(world.outcomes.is_empty());
    world.assert_idle();
    let third = world.trackers.ask(world.now + UDP_CONNECTION_TIME, tracker(), announce());
    world.sent();
    world.trackers.cancel(third);
    world.assert_idle();
    assert!(world.trackers.connections.is_empty());
}

#[test]
fn renewal_asks_for_new_connection_ids() {
    let mut world = World::new();
    world.ask(announce());
    let transaction = world.connect(7)[0];
    world.answer(&announced(transaction));
    world.trackers.renew();
    world.ask(announce());
    assert_eq!(world.connect(8).len(), 1);
}

#[test]
fn ipv6_answers_have_peers_of_18_bytes() {
    let remote: SocketAddr = "[2001:db8::5]:6969".parse().unwrap();
    let mut trackers = UdpTrackers::new(Rng::stream(5, "udp trackers", 0));
    trackers.ask(Instant::START, remote, announce());
    let connect = UdpRequest::parse(&trackers.poll_packet().unwrap().1).unwrap();
    let UdpRequest::Connect { transaction } = connect else { panic!("{connect:?}") };
    let connected = UdpAnswer::Connected { transaction, connection_id: 5 };
    trackers.handle_datagram(Instant::START, remote, &connected.encode(true));
    let transaction = asked_with(&UdpRequest::parse(&trackers.poll_packet().unwrap().1).unwrap(), 5);
    let peers = vec!["[2001:db8::7]:6881".parse().unwrap()];
    let answer = UdpAnswer::Announced { transaction, interval: 60, leechers: 0, seeders: 1, peers };
    // As a system may give it, with a scope.
    let from = SocketAddr::V6(core::net::SocketAddrV6::new("2001:db8::5".parse().unwrap(), 6969, 1, 2));
    let outcomes = trackers.handle_datagram(Instant::START, from, &answer.encode(true));
    assert_eq!(outcomes[0].1, Ok(answer));
}

#[test]
fn connection_ids_are_bounded() {
    let mut world = World::new();
    for n in 0..UDP_CONNECTIONS_MAX as u32 * 2 {
        let remote = SocketAddr::new(core::net::Ipv4Addr::from(0x0101_0000 + n).into(), 1);
        let id = world.trackers.ask(world.now, remote, scrape());
        let (_, packet) = world.trackers.poll_packet().unwrap();
        let Some(UdpRequest::Connect { transaction }) = UdpRequest::parse(&packet) else { panic!() };
        world.answer_from(remote, &UdpAnswer::Connected { transaction, connection_id: 1 });
        world.trackers.cancel(id);
        while world.trackers.poll_packet().is_some() {}
    }
    assert!(world.trackers.connections.len() <= UDP_CONNECTIONS_MAX);
}
