//! Paths of a torrent: whatever comes in, nothing leaves the download directory. Components are cut at bytes of 255.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::metainfo::paths::{PathRules, StoragePath, storage_path};

fuzz_target!(|data: &[u8]| {
    for rules in [PathRules::Unix, PathRules::Windows] {
        let Ok(path) = storage_path(data.split(|byte| *byte == 255), rules) else { continue };
        assert!(!path.as_str().starts_with('/') && path.to_string() == path.as_str());
        assert_ne!(path.components().next(), StoragePath::state("journal").components().next());
        for name in path.components() {
            assert!(!name.is_empty() && name != "." && name != ".." && !name.contains('\0'));
            assert!(rules == PathRules::Unix || !name.contains(['\\', ':']));
        }
    }
});
