//! Local service discovery: whatever is read, written again, reads the same, and fits a datagram.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::limits::{LSD_DATAGRAM_BYTES_MAX, LSD_HASHES_MAX};
use taipei_engine::wire::lsd::{GROUP_V6, LsdAnnounce};

fuzz_target!(|data: &[u8]| {
    let Some(announce) = LsdAnnounce::parse(data) else { return };
    assert!(announce.port != 0 && (1..=LSD_HASHES_MAX).contains(&announce.info_hashes.len()));
    let text = announce.encode(GROUP_V6);
    if text.len() <= LSD_DATAGRAM_BYTES_MAX {
        assert_eq!(LsdAnnounce::parse(&text), Some(announce));
    }
});
