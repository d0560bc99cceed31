//! A torrent that is whole, was closed, and is opened again: nothing is written while nothing changes.

use super::*;

const ALL: [u32; 5] = [0, 1, 2, 3, 4];

fn closed() -> Desk {
    let mut desk = Desk::new(16, "a:40 e:0 b:40");
    desk.opened();
    desk.get(&ALL);
    desk.close(&ALL);
    desk.later(1000);
    desk
}

#[test]
fn what_is_whole_and_was_closed_is_opened_without_a_write() {
    let mut desk = closed();
    for _ in 0..3 {
        let before = desk.storage.files.clone();
        let opened = desk.open(Resume).unwrap();
        assert_eq!((numbers(&opened.have), opened.unchecked.count()), (ALL.to_vec(), 0));
        assert_eq!((opened.totals.uploaded, opened.saved), (7, Saved::AsClosed));
        assert_eq!(desk.storage.files, before);
        assert_eq!(desk.run(Work::Close), JobResult::Closed);
        desk.later(1000);
    }
    // It can be written to after a snapshot, as any other.
    desk.open(Resume).unwrap();
    desk.snapshot(&[0, 1, 3, 4]);
    desk.get(&[2]);
    desk.storage.kill();
    assert_eq!(desk.opened(), (ALL.to_vec(), NONE));
}

#[test]
fn whatever_is_not_as_it_was_begins_a_journal() {
    let begun = |desk: &mut Desk| desk.open(Resume).unwrap().saved == Saved::Begun;
    let mut desk = closed();
    desk.reboot();
    assert!(begun(&mut desk), "after a reboot");

    let mut desk = closed();
    desk.file("t/a").modified_ns += 1;
    assert!(begun(&mut desk), "a file that somebody touched");

    let mut desk = closed();
    desk.storage.files.remove(&format!("{ROOT}/t/b"));
    assert!(begun(&mut desk), "a file that is gone");

    let mut desk = closed();
    let recheck = desk.open(Recheck).unwrap();
    assert_eq!(recheck.saved, Saved::Begun);

    let mut desk = Desk::new(16, "a:40 b:40");
    desk.opened();
    desk.get(&[1, 2]);
    desk.close(&[1, 2]);
    assert!(begun(&mut desk), "a part of it");

    let mut desk = closed();
    desk.opened();
    desk.snapshot(&ALL);
    desk.storage.kill();
    assert!(begun(&mut desk), "it was not closed");
}

/// The engine takes care that this does not come about; if it does, what it costs is a look.
#[test]
fn a_write_that_no_snapshot_announced_is_hashed_again() {
    let mut desk = closed();
    desk.opened();
    desk.write(2).unwrap();
    desk.storage.kill();
    assert_eq!(desk.opened(), (NONE, ALL.to_vec()), "piece 2 lies in both files");
}
