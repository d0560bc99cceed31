//! `--record`: whatever becomes of the recording, the download ends well, and the user is told once.

use std::fs;

use taipei_engine::record::{Ending, replay};

use common::{Place, Running};

mod common;

fn downloads(place: &Place, port: &str, flags: &str) -> (String, String) {
    let _ = fs::remove_dir_all(place.0.join("out"));
    place.ends(
        0,
        &format!("download t.torrent -o out --port 0 --bind 127.0.0.1 --peer 127.0.0.1:{port} --stop-timeout 30 {flags}"),
    )
}

#[test]
fn a_download_and_its_seeder_are_recorded_and_repeat() {
    let place = Place::with_torrent("record");
    let (mut seeder, port) = Running::seeder(&place, "t.torrent --data data --record seed.rec");
    let (_, error) = downloads(&place, &port, "--record down.rec");
    assert_eq!(error, "");
    assert_eq!(seeder.interrupt(), Some(0));
    for name in ["down.rec", "seed.rec"] {
        let recording = fs::read(place.0.join(name)).unwrap();
        assert!(recording.len() < 30_000, "payload must not be in it: {} bytes", recording.len());
        let done = replay(&recording[..], &mut ()).unwrap();
        assert!(done.inputs > 20 && done.ending == Ending::Finished, "{name}: {done:?}");
    }
}

#[test]
fn a_recording_that_is_too_large_stops_and_the_download_goes_on() {
    let place = Place::with_torrent("record-max");
    let (_seeder, port) = Running::seeder(&place, "t.torrent --data data");
    let (_, error) = downloads(&place, &port, "--record down.rec --record-max 1K");
    assert!(
        error.starts_with("warning: the recording down.rec stops here, the transfer goes on: "),
        "{error}"
    );
    assert!(error.ends_with("it would be larger than 1.0 KiB, see --record-max\n"), "{error}");
    let recording = fs::read(place.0.join("down.rec")).unwrap();
    assert!(recording.len() <= 1024);
    assert_eq!(replay(&recording[..], &mut ()).unwrap().ending, Ending::Full);
    let (out, error) = downloads(&place, &port, "--record down.rec --record-max 1K --json");
    assert!(out.contains("\"event\":\"recording-stopped\"") && error.is_empty(), "{out}{error}");
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "there is no disk that is always full")]
fn a_disk_that_is_full_ends_the_recording_alone() {
    let place = Place::with_torrent("record-full");
    let (_seeder, port) = Running::seeder(&place, "t.torrent --data data");
    let (out, error) = downloads(&place, &port, "--record /dev/full");
    assert!(out.contains("complete"), "{out}");
    assert_eq!(error.matches("warning: ").count(), 1, "{error}");
    assert!(error.contains("/dev/full stops here, the transfer goes on: "), "{error}");
    // A place that cannot be written to at all is an error of the command line.
    place.ends(1, "download t.torrent --record nowhere/down.rec");
}
