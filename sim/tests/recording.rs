//! Pages of recordings: the same recording gives the same page, and nobody's address and no passkey is in it.

use core::net::SocketAddr;

use bytes::Bytes;
use taipei_engine::disk::JobResult;
use taipei_engine::input::{CloseReason, HttpResponse, NetError};
use taipei_engine::record::{Recording, Stop};
use taipei_engine::wire::{ExtendedHandshake, Handshake, Message, Reserved};
use taipei_engine::{
    AddTorrent, Command, Config, ConnectionId, Engine, InfoHash, Input, Instant, Output, PeerId, StartValues,
    TorrentId,
};
use taipei_sim::plan::Materials;
use taipei_sim::recording::{Failure, PeerSeen, Replay, Seen, replay};
use taipei_sim::report::{PAGE_BYTES_MAX, recording_page};
use taipei_sim::run::{RunOptions, run};
use taipei_sim::scenario::{Scenario, World};

const PASSKEY: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
const LINK: &str = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&dn=Drawn+%3Cb%3E&tr=https%3A%2F%2F\
                    tracker.example%2F0a1b2c3d4e5f60718293a4b5c6d7e8f9%2Fannounce%3Fpasskey%3Dalso-secret&tr=http%3A%2F%2F\
                    198.51.100.80%3A6969%2F0a1b2c3d4e5f60718293a4b5c6d7e8f9%2Fannounce";
/// What must be in no page: addresses, secrets, and what others wrote.
const SECRETS: &[&str] = &[
    PASSKEY,
    "also-secret",
    "203.0.113",
    "198.51.100",
    "192.0.2",
    "2001:db8",
    "51413",
    "alice",
    "<b>",
    "your ip",
];

/// An engine that is told what would give somebody away, and its recording.
struct Session<'a> {
    engine: Engine,
    recording: Recording<&'a mut Vec<u8>>,
    now: Instant,
    /// After the input that this is in, an output more is recorded: a replay differs there.
    spoil: fn(&Input) -> bool,
}

impl Session<'_> {
    fn step(&mut self, input: Input) -> Vec<Output> {
        let is_spoilt = (self.spoil)(&input);
        self.recording.on_input(self.now, &input);
        self.engine.handle_input(self.now, input);
        let outputs: Vec<Output> = std::iter::from_fn(|| self.engine.poll_output()).collect();
        outputs.iter().for_each(|output| self.recording.on_output(output));
        if is_spoilt {
            self.recording.on_output(&Output::Close { connection: ConnectionId::dialled(99) });
        }
        self.now = Instant(self.now.0 + 250_000_000);
        outputs
    }

    /// What the world would say to what the engine asks for.
    fn answer(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let input = match output {
                Output::Resolve { query, .. } => {
                    Input::Resolved { query, result: Ok(vec!["203.0.113.80".parse().expect("an address")]) }
                }
                Output::HttpGet(get) => {
                    let body =
                        format!("d14:failure reason{}:{PASSKEY} your ip 203.0.113.7e", PASSKEY.len() + 20);
                    let (status, body) = (200, Bytes::from(body));
                    let result = Ok(HttpResponse { status, location: None, body, gzip: false });
                    Input::HttpDone { request: get.request, result }
                }
                Output::Connect { connection, remote } if remote.is_ipv6() => {
                    Input::Closed { connection, reason: CloseReason::ConnectFailed(NetError::TimedOut) }
                }
                Output::Connect { connection, .. } => {
                    Input::Connected { connection, local: address("192.0.2.1:6881") }
                }
                Output::Job { job, .. } => Input::JobDone { job, result: JobResult::MetadataLoaded(None) },
                _ => continue,
            };
            let outputs = self.step(input);
            self.answer(outputs);
        }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn recorded(spoil: fn(&Input) -> bool) -> Vec<u8> {
    let start = StartValues { seed: 7, boot_id: [1; 16], wall_seconds: 1_800_000_000 };
    let config = Config::default();
    let mut bytes = Vec::new();
    let recording = Recording::new(&mut bytes, &config, &start, u64::MAX).expect("memory takes all");
    let mut session = Session { engine: Engine::new(config, start), recording, now: Instant::START, spoil };
    session.step(Input::Listening { port: 51413, families: (true, true) });
    let mut add = AddTorrent::magnet(TorrentId(0), LINK.to_owned(), "at-alices/films".to_owned());
    add.peers = vec![address("203.0.113.7:51413"), address("[2001:db8::7]:51413")];
    let outputs = session.step(Input::Command(Command::AddTorrent(Box::new(add))));
    session.answer(outputs);
    let connection = ConnectionId::accepted(0);
    session.step(Input::Accepted { connection, remote: address("198.51.100.9:4444") });
    let info_hash = InfoHash([
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01,
        0x23, 0x45, 0x67,
    ]);
    let handshake =
        Handshake { reserved: Reserved::OURS, info_hash, peer_id: PeerId(*b"-TR4050-203.0.113.7.") };
    let extended = ExtendedHandshake {
        v: Some(Bytes::from_static(b"alice <b> at 203.0.113.7")),
        yourip: Some(address("192.0.2.1:1").ip()),
        ..ExtendedHandshake::default()
    };
    let messages = vec![Message::Handshake(handshake), Message::ExtendedHandshake(Box::new(extended))];
    session.step(Input::Received { connection, read_bytes: 200, messages });
    session.step(Input::Datagram {
        remote: address("192.0.2.55:6881"),
        payload: Bytes::from_static(b"203.0.113.7"),
    });
    for _ in 0..50 {
        let outputs = session.step(Input::Timeout);
        session.answer(outputs);
    }
    session.step(Input::Closed { connection, reason: CloseReason::EndOfStream });
    assert!(matches!(session.recording.finish(), Stop::Finished));
    drop(session);
    bytes
}

#[test]
fn nobody_can_be_found_by_a_page() {
    let spoilt: [fn(&Input) -> bool; 4] = [
        |_| false,
        // The engine asks a tracker, with the passkey in its path.
        |input| matches!(input, Input::Resolved { .. }),
        |input| matches!(input, Input::Received { .. }),
        |input| matches!(input, Input::Command(_)),
    ];
    for (number, spoil) in spoilt.into_iter().enumerate() {
        let recording = recorded(spoil);
        let plain = |needle: &str| recording.windows(needle.len()).any(|bytes| bytes == needle.as_bytes());
        assert!(!plain(PASSKEY), "compressed: a search of the file says nothing about what is in it");
        let replay = replay(&recording[..]).expect("reads");
        assert_eq!(replay.outcome.is_ok(), number == 0, "{:?}", replay.outcome);
        let page = recording_page(&replay, "bug.rec");
        for secret in SECRETS {
            assert!(!page.contains(secret), "{secret} is in page {number}");
        }
        if let Err(Failure::Differs { words, .. }) = &replay.outcome {
            assert!(page.contains("What differs") && page.contains("Not repeated: input "));
            assert!(SECRETS.iter().all(|secret| !words.join("\n").contains(secret)), "{words:?}");
        } else {
            for shown in [
                "Drawn &lt;b&gt;",
                "https, tracker.example",
                "http, a host by its address",
                "TR 4050",
                "peer-3",
            ] {
                assert!(page.contains(shown), "{shown} is not in the page");
            }
        }
    }
}

#[test]
fn a_recording_of_a_simulated_download_is_drawn() {
    let text = r#"
        [scenario]
        id = "drawn"
        worlds = ["events"]
        duration = "1 h"
        [[torrent]]
        name = "a"
        size = "1 MiB"
        piece = "64 KiB"
        [[group]]
        name = "seed"
        count = 2
        has = "all"
        access = { up = "1 Mbit/s", queue = "200 ms" }
        [[group]]
        name = "leech"
        count = 2
        access = { up = "1 Mbit/s", queue = "200 ms" }
        [net]
        latency = "5 ms .. 30 ms"
        [[actor]]
        kind = "tracker"
        name = "tracker"
        [[expect]]
        complete = "leech"
    "#;
    let materials = Materials::new(Scenario::parse(text, "drawn.toml").expect("parses"));
    let options = RunOptions { record: Some("leech-1".to_owned()), ..RunOptions::default() };
    let recording = run(&materials, 3, World::Events, &options).recording.expect("recorded");
    let replayed = replay(&recording[..]).expect("reads");
    let seen = &replayed.seen;
    assert_eq!((seen.have.total(), seen.total_bytes), (1 << 20, 1 << 20));
    let given: i64 = seen.peers.iter().map(|peer| peer.given.total()).sum();
    assert!(given >= 1 << 20 && seen.down.total() > given, "{given}");
    assert!(seen.trackers[0].answers.total() >= 1 && seen.open.total() >= 0);
    let page = recording_page(&replayed, "down.rec");
    assert_eq!(page, recording_page(&replay(&recording[..]).expect("reads"), "down.rec"));
    assert!(page.len() < PAGE_BYTES_MAX / 4, "{}", page.len());
    for shown in ["Repeated to the byte", "How much it has", "Peers, over time", "torrent 0 is complete"] {
        assert!(page.contains(shown), "{shown} is not in the page");
    }
    // One that was cut is drawn as far as it goes, and says so.
    let cut = replay(&recording[..recording.len() * 3 / 4]).expect("reads");
    let page = recording_page(&cut, "down.rec");
    assert!(page.contains("but its end is missing") && page.contains("the file was cut"));
}

#[test]
fn figures_that_no_session_has_are_drawn_too() {
    let mut seen = Seen::default();
    seen.ended_at = 1_000_000_000;
    let mut peer = PeerSeen::default();
    for bins in [&mut seen.down, &mut seen.up, &mut seen.have, &mut peer.given, &mut peer.taken] {
        bins.add(0, i64::MAX);
        bins.add(500_000_000, i64::MAX);
    }
    seen.peers = vec![peer; 3];
    let outcome = Err(Failure::Broken { place: String::new(), message: String::new() });
    let page = recording_page(&Replay { seen, outcome }, "far.rec");
    assert!(page.contains("The engine gave up</p>") && page.len() < PAGE_BYTES_MAX);
}

#[test]
fn whatever_times_a_recording_has_it_is_drawn() {
    let start = StartValues { seed: 7, boot_id: [1; 16], wall_seconds: 0 };
    let mut bytes = Vec::new();
    let mut recording =
        Recording::new(&mut bytes, &Config::default(), &start, u64::MAX).expect("memory takes all");
    let mut engine = Engine::new(Config::default(), start);
    let late = (0..8).map(|number| (number, u64::MAX - 8 + number));
    for (number, at) in [(8, 1), (9, 1 << 62)].into_iter().chain(late) {
        let connection = ConnectionId::accepted(number);
        let input = Input::Accepted { connection, remote: address("198.51.100.9:4444") };
        recording.on_input(Instant(at), &input);
        engine.handle_input(Instant(at), input);
        while let Some(output) = engine.poll_output() {
            recording.on_output(&output);
        }
    }
    recording.finish();
    drop(recording);
    let page = recording_page(&replay(&bytes[..]).expect("reads"), "late.rec");
    assert!(page.contains("Repeated to the byte") && page.len() < PAGE_BYTES_MAX);
}
