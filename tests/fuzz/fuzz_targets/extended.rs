//! The extension handshake: whatever is read, written again, reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::wire::extended::ExtendedHandshake;

fuzz_target!(|data: &[u8]| {
    if let Some(handshake) = ExtendedHandshake::decode(data) {
        let again = ExtendedHandshake::decode(&handshake.encode());
        assert!(again.is_some());
        assert_eq!(
            again.and_then(|again| ExtendedHandshake::decode(&again.encode())),
            ExtendedHandshake::decode(&handshake.encode())
        );
    }
});
