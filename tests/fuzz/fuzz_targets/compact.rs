//! Compact peer lists: whole entries survive a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::wire::compact;

fuzz_target!(|data: &[u8]| {
    for read in [compact::parse_v4, compact::parse_v6] {
        let found = read(data, usize::MAX);
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for peer in &found.peers {
            compact::encode(*peer, &mut v4, &mut v6);
        }
        assert_eq!([v4, v6].concat(), data[..data.len() - found.spare_bytes]);
        assert!(read(data, 3).peers.len() <= 3);
    }
});
