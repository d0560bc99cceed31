//! What torrents cost in memory: by piece, by file, and a thousand of them idle (`reliability.md` A11, E9, E13; goal G9).
//!
//! One test, so that nothing else runs in this process: it reads how much of it the system keeps in memory. Nothing that
//! is measured is dropped before the end; what reading a torrent file left behind in the heap counts as well. Seen in a debug
//! build: 37 bytes a piece, 588 a file with a path of 53 bytes, 21 KiB an idle torrent of 1,000 pieces and 10 files.

use std::fmt::Write as _;
use std::time::{Duration, Instant as Wall};

use taipei_engine::disk::{JobResult, Opened, Saved, Totals, Work};
use taipei_engine::{
    AddTorrent, Bitfield, Command, Config, Engine, Input, Instant, Output, StartValues, TorrentId,
};

/// Bytes of this process that are in memory; none where the system does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// A torrent of files of equal length; the number makes it another one.
fn torrent(number: u32, files: u64, file_bytes: u64, piece_length: u64) -> Vec<u8> {
    let pieces = (files * file_bytes).div_ceil(piece_length);
    let mut head = String::from("d4:infod5:filesl");
    for file in 0..files {
        let name = format!("a file of this torrent {file:06}.bin");
        let _ = write!(head, "d6:lengthi{file_bytes}e4:pathl9:directory{}:{name}ee", name.len());
    }
    let name = format!("torrent {number}");
    let _ =
        write!(head, "e4:name{}:{name}12:piece lengthi{piece_length}e6:pieces{}:", name.len(), pieces * 20);
    let mut torrent = head.into_bytes();
    torrent.resize(torrent.len() + pieces as usize * 20, 7);
    torrent.extend(b"ee");
    torrent
}

struct Session {
    engine: Engine,
    now: Instant,
    added: u32,
}

impl Session {
    fn new() -> Self {
        let start = StartValues { seed: 1, boot_id: [0; 16], wall_seconds: 0 };
        let mut config = Config::default();
        config.active_max = 1_000_000;
        Self { engine: Engine::new(config, start), now: Instant::START, added: 0 }
    }

    fn input(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            self.engine.handle_input(self.now, input);
            while let Some(output) = self.engine.poll_output() {
                let Output::Job { job, work } = output else { continue };
                let count = work.place.layout.piece_count();
                let result = match work.work {
                    Work::Open { .. } => JobResult::Opened(Ok(Opened {
                        have: Bitfield::new(count),
                        unchecked: Bitfield::new(count),
                        totals: Totals::default(),
                        saved: Saved::Begun,
                    })),
                    Work::Snapshot { .. } => JobResult::Saved(Ok(())),
                    Work::Allocate { .. } => JobResult::Allocated(Ok(())),
                    other => panic!("nothing else is done: {other:?}"),
                };
                inputs.push(Input::JobDone { job, result });
            }
        }
    }

    fn add(&mut self, torrent: Vec<u8>) {
        let add = AddTorrent::new(TorrentId(self.added), torrent.into(), "/out".into());
        self.input(Input::Command(Command::AddTorrent(Box::new(add))));
        assert!(
            self.engine.have(TorrentId(self.added)).is_some_and(|have| have.piece_count() > 0),
            "it is there"
        );
        self.added += 1;
    }

    /// Lets time pass; gives how often the engine was woken.
    fn pass(&mut self, time: Duration) -> u32 {
        let (end, mut woken) = (self.now + time, 0);
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
            woken += 1;
        }
        self.now = end;
        woken
    }
}

#[test]
fn a_piece_a_file_and_a_torrent_cost_so_much_and_no_more() {
    let Some(begin) = resident_bytes() else { return };
    let mut before = begin;
    let mut sessions = Vec::new();
    let mut cost = |what: &str, count: u64, most: u64, fill: &dyn Fn(&mut Session)| {
        let mut session = Session::new();
        fill(&mut session);
        sessions.push(session);
        let now = resident_bytes().unwrap_or(0);
        let each = now.saturating_sub(before) / count;
        println!("{what}: {each} bytes each, {} MiB for {count}", (now - before.min(now)) >> 20);
        assert!(each <= most, "{what}: {each} bytes each, at most {most} wanted");
        before = now;
    };
    cost("piece", 1_000_000, 128, &|session| session.add(torrent(0, 1, 1_000_000 << 14, 1 << 14)));
    cost("file", 200_000, 768, &|session| session.add(torrent(1, 200_000, 100, 1 << 14)));
    cost("idle torrent of 1,000 pieces and 10 files", 1000, 150 << 10, &|session| {
        let began = Wall::now();
        (0..1000).for_each(|number| session.add(torrent(2 + number, 10, 100 << 20, 1 << 20)));
        // A debug build on a loaded machine gets room.
        assert!(began.elapsed() < Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 3 }));
        session.pass(Duration::from_secs(60));
        assert_eq!(session.pass(Duration::from_secs(3600)), 0, "idle torrents cost no time");
    });
}
