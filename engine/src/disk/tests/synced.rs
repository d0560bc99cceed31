//! What a snapshot makes durable before it says so.

use super::*;

#[test]
fn a_piece_whose_record_failed_is_synced_all_the_same() {
    let mut desk = Desk::new(16, "a:32");
    desk.opened();
    desk.get(&[0]);
    desk.snapshot(&[0]);
    desk.write(1).unwrap();
    desk.snapshot(&[0, 1]);
    desk.storage.cut_power();
    desk.reboot();
    assert_eq!(desk.opened(), (vec![0, 1], NONE));
    assert_eq!(desk.check(&[0, 1]).unwrap(), [true, true]);
}

#[test]
fn only_what_was_written_is_synced() {
    let mut desk = Desk::new(16, "a:16 b:16 c:16");
    desk.opened();
    desk.get(&[0, 1, 2]);
    desk.snapshot(&[0, 1, 2]);
    let before = desk.storage.calls;
    desk.snapshot(&[0, 1, 2]);
    let idle = desk.storage.calls - before;
    desk.record(&[1], &[]).unwrap();
    let before = desk.storage.calls;
    desk.snapshot(&[0, 1, 2]);
    assert_eq!(desk.storage.calls - before, idle + 2, "one sync, one stat");
}

#[test]
fn what_is_synced_together_survives_a_power_cut_and_is_synced_by_one_call() {
    let whole = [0, 1, 2];
    let mut desk = Desk::new(16, "a:16 b:16 c:16");
    desk.opened();
    desk.get(&whole);
    let before = desk.storage.clone();
    desk.snapshot(&whole);
    let one_by_one = desk.storage.calls;
    desk.storage = before;
    desk.storage.syncs_together = true;
    desk.snapshot(&whole);
    assert_eq!(desk.storage.calls + 2, one_by_one, "one call in place of three");
    desk.storage.cut_power();
    desk.reboot();
    assert_eq!(desk.opened(), (whole.to_vec(), NONE));
    assert_eq!(desk.check(&whole).unwrap(), [true; 3]);
}

/// Fuzz-small, seed 52632: a file that was removed while we were away is fetched anew, and looks as old as the snapshot says.
#[test]
fn what_a_snapshot_claims_and_is_gone_is_claimed_no_more_before_it_is_fetched() {
    let mut desk = Desk::new(16, "a:16 b:16");
    desk.opened();
    desk.get(&[0, 1]);
    desk.close(&[0, 1]);
    desk.storage.sync_all();
    desk.storage.files.remove("/downloads/t/b");
    desk.later(3);
    assert_eq!(desk.opened(), (vec![0], NONE));
    desk.get(&[1]);
    let name = "/downloads/t/b".to_owned();
    let torn = File { bytes: vec![0; 16], ..desk.storage.files[&name].clone() };
    desk.storage.cut_power();
    // Its name and its time reached the disk, its bytes did not.
    desk.storage.files.insert(name, torn);
    desk.reboot();
    let (have, unchecked) = desk.opened();
    assert_eq!((have, unchecked), (vec![0], vec![1]));
}
