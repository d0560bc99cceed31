//! How the program ends when it is ended, and when nobody reads what it says.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, Running, interrupt};

mod common;

/// Where nobody reads.
fn nobody() -> Stdio {
    let (_, writer) = io::pipe().unwrap();
    writer.into()
}

fn ends(mut command: Command) -> Option<i32> {
    command.status().unwrap().code()
}

#[test]
fn nobody_need_read_what_is_said() {
    let place = Place::with_torrent("nobody-reads");
    let quiet = "download t.torrent -o out --port 0 --bind 127.0.0.1 --stop-timeout 1";
    for (status, args) in
        [(1, "info missing.torrent"), (2, "-seedRatio"), (3, quiet), (3, &format!("-vvv {quiet}"))]
    {
        let mut command = place.command(args);
        command.stdout(Stdio::null()).stderr(nobody());
        assert_eq!(ends(command), Some(status), "{args}");
    }
    for args in ["completions bash", "info t.torrent", "magnet t.torrent"] {
        let mut command = place.command(args);
        command.stdout(nobody()).stderr(Stdio::null());
        assert_eq!(ends(command), Some(0), "{args}");
    }
}

#[test]
fn a_tracker_serves_though_nobody_reads() {
    let place = Place::new("tracker-unread");
    let mut command = place.command("tracker --listen 127.0.0.1:0 --no-udp");
    let mut tracker = command.stdout(nobody()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(tracker.try_wait().unwrap(), None, "it goes on");
    assert_eq!(interrupt(&mut tracker), Some(0));
}

#[test]
fn whoever_asked_what_a_link_names_may_stop() {
    let place = Place::new("stop-asking");
    let link = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567";
    let other = "magnet:?xt=urn:btih:1123456789abcdef0123456789abcdef01234567";
    for args in [format!("info --fetch {link}"), format!("download --list --port 0 {link} {other}")] {
        let mut child = place
            .command(&format!("{args} --bind 127.0.0.1"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut error = BufReader::new(child.stderr.take().unwrap());
        let mut asking = String::new();
        error.read_line(&mut asking).unwrap();
        assert_eq!(interrupt(&mut child), Some(130), "{args}: {asking}");
        let mut rest = String::new();
        error.read_to_string(&mut rest).unwrap();
        assert_eq!(rest.matches("interrupted").count(), 1, "{args}: {rest}");
    }
}

#[test]
fn a_command_that_hangs_is_left_by_a_signal() {
    let place = Place::with_torrent("hangs");
    let (mut seeder, port) = Running::seeder(&place, "t.torrent --data data");
    let mut command = place
        .command(&format!("download t.torrent -o out --port 0 --bind 127.0.0.1 --peer 127.0.0.1:{port}"));
    command.args(["--on-complete", "sleep 20", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    for line in out {
        if line.contains("\"state\":\"Stopping\"") || line.contains("\"state\":\"Seeding\"") {
            break;
        }
    }
    // It leaves by itself, and waits for the command.
    std::thread::sleep(Duration::from_millis(1500));
    let began = Instant::now();
    assert_eq!(interrupt(&mut child), Some(130));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(seeder.interrupt(), Some(0));
}

#[test]
fn a_seeding_goal_is_seeded_for() {
    let place = Place::with_torrent("goal");
    let began = Instant::now();
    let (out, _) = place.ends(0, "download t.torrent -o data --port 0 --bind 127.0.0.1 --seed-time 2s");
    assert!(out.contains("complete already") && began.elapsed() >= Duration::from_secs(2), "{out}");
}
