//! Torrent files: whatever is accepted has a sound layout and stays below the download directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::metainfo::{Metainfo, PathRules};

fuzz_target!(|data: &[u8]| {
    for rules in [PathRules::Unix, PathRules::Windows] {
        let Ok(metainfo) = Metainfo::parse(data, rules) else { continue };
        let layout = &metainfo.layout;
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
