//! Torrent files: whatever is accepted has a sound layout and stays below the download directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::InfoHash;
use taipei_engine::disk::Identity;
use taipei_engine::limits::MAGNET_BYTES_MAX;
use taipei_engine::metainfo::{Magnet, Metainfo, PathRules};

fuzz_target!(|data: &[u8]| {
    for rules in [PathRules::Unix, PathRules::Windows] {
        let metainfo = match Metainfo::parse(data, rules) {
            Ok(metainfo) => metainfo,
            Err(error) => {
                assert!(!error.class().is_empty());
                continue;
            }
        };
        let link = Magnet::from(&metainfo).to_string();
        if link.len() <= MAGNET_BYTES_MAX {
            assert_eq!(Magnet::parse(&link).map(|magnet| magnet.info_hashes), Ok(metainfo.info_hashes));
        }
        let layout = &metainfo.layout;
        assert!(layout.stored_bytes() <= layout.total_bytes());
        let identity = Identity::new(InfoHash([7; 20]), layout);
        assert_eq!(
            (identity.piece_count, identity.file_count as usize),
            (layout.piece_count(), layout.files().len())
        );
        for piece in layout.pieces().take(100) {
            let bytes = layout.piece_bytes(piece);
            let runs = layout.runs(piece, 0, bytes);
            assert_eq!(runs.map(|run| run.length).sum::<u64>(), u64::from(bytes));
            assert!(layout.files_of(piece).all(|file| layout.pieces_of(file).contains(&piece.get())));
        }
        assert!(
            layout.pieces().take(1000).map(|piece| u64::from(layout.piece_bytes(piece))).sum::<u64>()
                <= layout.total_bytes()
        );
        for file in layout.files() {
            assert!(
                file.path
                    .components()
                    .all(|name| !name.is_empty() && name != "." && name != ".." && !name.contains('\0'))
            );
        }
    }
});
