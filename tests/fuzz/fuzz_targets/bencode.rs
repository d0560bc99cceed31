//! Bencode from outside: whatever is accepted survives a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::bencode;

fuzz_target!(|data: &[u8]| {
    let _ = bencode::parse_prefix(data);
    let _ = bencode::raw_entry(data, b"info");
    if let Ok(value) = bencode::parse(data) {
        let bytes = bencode::encode(&value);
        assert_eq!(bencode::parse(&bytes), Ok(value));
    }
});
