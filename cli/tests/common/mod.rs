//! What the tests of the program have in common: a place of their own, and programs under way.

#![allow(dead_code, clippy::unwrap_used, reason = "a test may; each takes what it needs")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

/// A directory of a test's own, gone afterwards.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("taipei-cli-test-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        Self(place)
    }

    pub(crate) fn write(&self, path: &str, length: usize) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut word = length as u32 | 1;
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (word >> 24) as u8
            })
            .collect();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taipei-cli"));
        command
            .args(args.split_whitespace())
            .current_dir(&self.0)
            .env("HOME", &self.0)
            .env("TAIPEI_NO_DHT", "1")
            .env("TAIPEI_NO_LSD", "1")
            .env("TAIPEI_NO_UPNP", "1")
            .env_remove("XDG_STATE_HOME");
        command
    }

    pub(crate) fn run(&self, args: &str) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs it, checks its status, gives standard output and error.
    pub(crate) fn ends(&self, status: i32, args: &str) -> (String, String) {
        let done = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&done.stdout), text(&done.stderr));
        assert_eq!(done.status.code(), Some(status), "{args}\n{out}{error}");
        (out, error)
    }

    /// A directory `data/t` of some files, and its torrent.
    pub(crate) fn with_torrent(name: &str) -> Self {
        let place = Self::new(name);
        place.write("data/t/large.bin", 3_000_000);
        place.write("data/t/sub/small.bin", 1234);
        place.write("data/t/empty", 0);
        place.ends(0, "create data/t -o t.torrent --piece-size 32K");
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that runs until it is told, ended with the test.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn begin(place: &Place, args: &str) -> Self {
        Self::of(place.command(args))
    }

    /// With a node of the DHT, which begins with these.
    pub(crate) fn with_dht(place: &Place, args: &str) -> Self {
        let mut command = place.command(args);
        command.env("TAIPEI_NO_DHT", "0");
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// A seeder that has checked what it has, and its port.
    pub(crate) fn seeder(place: &Place, args: &str) -> (Self, String) {
        let mut seeder = Self::begin(
            place,
            &format!(
                "seed {args} --port 0 --bind 127.0.0.1 --json --no-dht --no-lsd --no-pex --no-upnp --no-utp --encryption off"
            ),
        );
        let port = seeder.until(|event| event["event"] == "listening")["port"].to_string();
        seeder.until(|event| event["state"] == "Seeding");
        (seeder, port)
    }

    /// A tracker, and its announce URL.
    pub(crate) fn tracker(place: &Place) -> (Self, String) {
        let mut tracker = Self::begin(place, "tracker --listen 127.0.0.1:0 --no-udp --json");
        let urls = tracker.until(|event| event["event"] == "listening");
        (tracker, urls["announce_urls"][0].as_str().unwrap().to_owned())
    }

    /// The next event of a kind.
    pub(crate) fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "it ended");
            let event: Value = serde_json::from_str(&line).unwrap();
            if is_it(&event) {
                return event;
            }
        }
    }

    pub(crate) fn interrupt(&mut self) -> Option<i32> {
        interrupt(&mut self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn interrupt(child: &mut Child) -> Option<i32> {
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    child.wait().unwrap().code()
}
