use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::command::{AddTorrent, Command};
use crate::engine::Engine;
use crate::ids::{ConnectionId, TorrentId};
use crate::input::Input;
use crate::limits::MESSAGES_READ_MAX;
use crate::output::Output;
use crate::time::Instant;
use crate::wire::Message;

/// What was written, also after the recording is gone.
#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A session of a magnet link that nobody serves: so many inputs, so far apart.
struct Session {
    engine: Engine,
    recording: Recording<Sink>,
    sink: Sink,
    now: Instant,
}

impl Session {
    fn new(bytes_max: u64) -> Self {
        let (config, start) =
            (Config::default(), StartValues { seed: 7, boot_id: [1; 16], wall_seconds: 1_800_000_000 });
        let sink = Sink::default();
        let recording = Recording::new(sink.clone(), &config, &start, bytes_max).unwrap();
        let mut session = Self { engine: Engine::new(config, start), recording, sink, now: Instant::START };
        session.step(Input::Listening { port: 6881, families: (true, true) });
        let link = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&tr=udp://tracker.example:80";
        let add = AddTorrent::magnet(TorrentId(0), link.to_owned(), "out".to_owned());
        session.step(Input::Command(Command::AddTorrent(Box::new(add))));
        session
    }

    fn step(&mut self, input: Input) {
        self.recording.on_input(self.now, &input);
        self.engine.handle_input(self.now, input);
        while let Some(output) = self.engine.poll_output() {
            self.recording.on_output(&output);
        }
        self.now = self.now + Duration::from_millis(100);
    }

    fn steps(&mut self, count: u32) {
        for _ in 0..count {
            self.step(Input::Command(Command::ReportStats { torrent: TorrentId(0) }));
            self.step(Input::Timeout);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.sink.0.borrow().clone()
    }
}

fn recorded() -> Vec<u8> {
    let mut session = Session::new(u64::MAX);
    session.steps(100);
    assert!(matches!(session.recording.finish(), Stop::Finished));
    session.bytes()
}

#[test]
fn what_was_recorded_is_repeated() {
    let bytes = recorded();
    let done = replay(&bytes[..], &mut ()).unwrap();
    assert_eq!((done.inputs, done.ending), (202, Ending::Finished));
    assert!(done.outputs > 100 && done.end == Instant(20_100_000_000), "{done:?}");
    assert_eq!(check(&bytes[..]).unwrap(), (202, Ending::Finished));
    // Ten parts of two seconds, and less than ten bytes an input.
    assert!(bytes.len() < 2000, "{}", bytes.len());
}

#[test]
fn one_that_was_cut_is_repeated_as_far_as_it_goes() {
    let bytes = recorded();
    let mut before = 0;
    for length in 0..bytes.len() {
        match replay(&bytes[..length], &mut ()) {
            Ok(Replayed { inputs, ending: Ending::Damaged(damage), .. }) => {
                assert!(damage.is_cut() && inputs >= before, "{length}: {damage}");
                assert!(damage.to_string().contains(&format!("ends at byte {length} ")), "{damage}");
                before = inputs;
            }
            Err(ReplayError::Read(ReadError::Foreign)) => assert!(length < MAGIC.len()),
            Err(ReplayError::Read(ReadError::Head(damage))) => assert!(damage.is_cut() && before == 0),
            other => panic!("{length}: {other:?}"),
        }
    }
    assert_eq!(before, 202, "only the end itself was missing");
}

#[test]
fn every_flipped_bit_is_noticed_and_what_is_before_it_is_repeated() {
    let mut bytes = recorded();
    let mut before = 0;
    for at in 0..bytes.len() {
        bytes[at] ^= 1 << (at % 8);
        match replay(&bytes[..], &mut ()) {
            Ok(Replayed { inputs, ending: Ending::Damaged(damage), .. }) => {
                assert!(!damage.is_cut() && inputs >= before, "{at}: {damage}");
                before = inputs;
            }
            Err(ReplayError::Read(_)) => assert_eq!(before, 0, "{at}"),
            other => panic!("{at}: {other:?}"),
        }
        bytes[at] ^= 1 << (at % 8);
    }
    assert_eq!(before, 202, "the last part is the end itself");
}

#[test]
fn a_foreign_file_is_told_from_another_version() {
    let mut bytes = recorded();
    let error = |bytes: &[u8]| replay(bytes, &mut ()).unwrap_err().to_string();
    assert_eq!(error(b"d8:announce"), "not a taipei recording");
    assert_eq!(error(b""), "not a taipei recording");
    bytes[MAGIC.len() - 1] = 5;
    assert!(
        is_recording(&bytes)
            && error(&bytes).starts_with("a taipei recording of format 5; this program reads")
    );
}

#[test]
fn a_recording_stops_at_its_limit_and_says_so() {
    let whole = recorded().len() as u64;
    for bytes_max in [whole / 2, whole * 3 / 4, whole - 1] {
        let mut session = Session::new(bytes_max);
        session.steps(100);
        assert!(matches!(session.recording.finish(), Stop::Full));
        let bytes = session.bytes();
        assert!(bytes.len() as u64 <= bytes_max && bytes.len() as u64 > bytes_max / 2, "{}", bytes.len());
        let done = replay(&bytes[..], &mut ()).unwrap();
        assert_eq!(done.ending, Ending::Full);
        assert!((1..202).contains(&done.inputs), "{done:?}");
    }
}

#[test]
fn who_is_killed_loses_seconds_and_who_gives_up_nothing() {
    let mut session = Session::new(u64::MAX);
    session.steps(100);
    let killed = replay(&session.bytes()[..], &mut ()).unwrap();
    assert!(killed.end + PART_TIME_MAX + Duration::from_millis(200) >= session.now, "{killed:?}");
    let sink = session.sink.clone();
    drop(session);
    let done = replay(&sink.0.borrow()[..], &mut ()).unwrap();
    assert_eq!(done.inputs, 202);
    assert!(matches!(done.ending, Ending::Damaged(Damage::NoEnd { .. })), "{done:?}");
}

#[test]
fn a_difference_is_named_by_its_input() {
    let mut session = Session::new(u64::MAX);
    session.steps(30);
    session.recording.on_output(&Output::HttpCancel { request: crate::ids::HttpId(9) });
    session.steps(30);
    session.recording.finish();
    let Err(ReplayError::Differs(difference)) = replay(&session.bytes()[..], &mut ()) else {
        panic!("it differs")
    };
    assert_eq!((difference.same, difference.among, &difference.input), (61, 1, &Input::Timeout));
}

#[test]
fn a_failing_sink_ends_the_recording_and_nothing_else() {
    struct Small(usize);
    impl io::Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let start = StartValues { seed: 7, boot_id: [1; 16], wall_seconds: 0 };
    let mut recording = Recording::new(Small(400), &Config::default(), &start, u64::MAX).unwrap();
    for second in 0..100 {
        recording.on_input(Instant(second * 1_000_000_000), &Input::Timeout);
    }
    assert!(matches!(recording.stop(), Some(Stop::Failed(_))));
    assert!(matches!(recording.finish(), Stop::Failed(_)));
}

#[test]
fn nothing_is_inflated_beyond_what_a_part_may_have() {
    let start = StartValues { seed: 7, boot_id: [1; 16], wall_seconds: 0 };
    let sink = Sink::default();
    let mut recording = Recording::new(sink.clone(), &Config::default(), &start, u64::MAX).unwrap();
    let bomb =
        Input::Datagram { remote: "127.0.0.1:1".parse().unwrap(), payload: vec![0; PART_BYTES_MAX].into() };
    recording.on_input(Instant::START, &bomb);
    recording.finish();
    let bytes = sink.0.take();
    assert!(bytes.len() < PART_BYTES_MAX / 100);
    let (inputs, ending) = check(&bytes[..]).unwrap();
    assert!(matches!((inputs, ending), (0, Ending::Damaged(Damage::Nonsense { .. }))), "{ending:?}");
}

#[test]
fn no_read_has_more_messages_than_a_driver_can_read_at_once() {
    for (count, is_fine) in [(MESSAGES_READ_MAX, true), (MESSAGES_READ_MAX + 1, false)] {
        let mut session = Session::new(u64::MAX);
        let messages = vec![Message::KeepAlive; count];
        session.step(Input::Received { connection: ConnectionId::accepted(0), read_bytes: 1, messages });
        session.recording.finish();
        let (inputs, ending) = check(&session.bytes()[..]).unwrap();
        assert_eq!((inputs, ending == Ending::Finished), (if is_fine { 3 } else { 2 }, is_fine));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged(tail in proptest::collection::vec(any::<u8>(), 0..300), keep in 0..2000usize) {
        let mut bytes = recorded();
        bytes.truncate(keep);
        bytes.extend(tail);
        let _ = check(&bytes[..]);
    }
}
