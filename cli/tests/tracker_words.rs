//! What trackers say to the user is shown, and commands no terminal (`reliability.md` C1).

#![expect(clippy::unwrap_used, reason = "a test may")]

use common::Place;

mod common;

/// A tracker that gives everybody this answer; where it is.
fn tracker_that_says(body: &'static [u8]) -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
            let _ = stream.write_all(body);
        }
    });
    format!("http://{address}/announce")
}

#[test]
fn what_a_tracker_says_is_shown_and_commands_nothing() {
    let place = Place::new("tracker-words");
    place.write("a", 1000);
    let refusing = tracker_that_says(b"d14:failure reason13:\x1b[2J\xe2\x80\xae<b>no\ne");
    let warning = tracker_that_says(b"d8:intervali600e5:peers0:15:warning message9:\x1b]0;relaxe");
    place.ends(0, &format!("create a -o a.torrent -t {refusing} -t {warning}"));
    let args = "download a.torrent -o out --port 0 --bind 127.0.0.1 --stop-timeout 2";
    for (flag, refusal, word) in [
        ("", "\\u{1b}[2J\\u{202e}<b>no\\u{a}", "says: \\u{1b}]0;relax"),
        (" --json", "\\\\u{1b}[2J\\\\u{202e}<b>no\\\\u{a}", "\\\\u{1b}]0;relax"),
    ] {
        let (out, error) = place.ends(3, &format!("{args}{flag}"));
        let all = out + &error;
        assert!(all.contains(refusal) && all.contains(word), "{all}");
        assert!(!all.contains(['\u{1b}', '\u{202e}']), "{all:?}");
    }
}
