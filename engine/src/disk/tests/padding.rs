//! Pad files (BEP 47): zeros that are nowhere.

use super::*;

#[test]
fn padding_is_zeros_that_are_never_on_disk() {
    let mut desk = Desk::new(16, "a:10 -p:6 -q:16 b:20");
    assert_eq!(desk.opened(), (vec![1], NONE), "padding alone needs no disk");
    assert_eq!(desk.check(&[0, 1, 2]).unwrap(), [false, true, false]);
    desk.get(&[0, 2, 3]);
    assert_eq!(desk.check(&[0, 1, 2, 3]).unwrap(), [true; 4]);
    assert!(desk.names().iter().all(|name| !name.ends_with("/p") && !name.ends_with("/q")));
    desk.storage.kill();
    assert_eq!(desk.opened(), (vec![0, 1, 2, 3], NONE));
    let read = desk.run(Work::Read { blocks: vec![ReadBlock { piece: desk.piece(0), begin: 8, length: 8 }] });
    let JobResult::Read(Ok(blocks)) = read else { panic!("{read:?}") };
    assert_eq!(blocks[0].parts().concat(), desk.payload[8..16]);
}

/// The torrent says that its eighth piece is something else: it is not believed to be there, whatever an earlier run found.
#[test]
fn gibibytes_of_padding_are_had_at_once_if_the_torrent_says_that_they_are_zeros() {
    const PIECE: u32 = 1 << 20;
    let mut desk = Desk::new(PIECE, &format!("a:20480 -p:{}", PIECE - 20480));
    desk.change_place(|place| {
        let mut files = vec![ListedFile::plain(StoragePath::from_names(["t", "a"]), 20480)];
        let path = StoragePath::from_names(["t", "p"]);
        files.push(ListedFile { pad: true, ..ListedFile::plain(path, (4 << 30) - 20480) });
        place.layout = Layout::new(PIECE, files).unwrap();
        let zeros = payload::digest_of_zeros(PIECE);
        place.piece_hashes.resize(4096, zeros);
        place.piece_hashes[7] = [7; 20];
    });
    let padding = (1..4096).filter(|piece| *piece != 7).collect::<Vec<_>>();
    assert_eq!(desk.opened(), (padding.clone(), NONE));
    assert_eq!(desk.check(&[0, 1, 4095]).unwrap(), [false, true, true]);
    desk.get(&[0]);
    desk.record(&[7], &[]).unwrap();
    desk.storage.kill();
    assert_eq!(desk.opened(), ([vec![0], padding].concat(), NONE));
    assert!(desk.names().iter().all(|name| !name.ends_with("/p")));
    let right = desk.payload[..20480].to_vec();
    assert_eq!(desk.file("t/a").bytes, right);
}
