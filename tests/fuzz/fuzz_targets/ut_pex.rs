//! Peer exchange: whatever is read, written again, reads the same, and no list is longer than it may be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::limits::PEX_PEERS_READ_MAX;
use taipei_engine::wire::ut_pex::PexMessage;

fuzz_target!(|data: &[u8]| {
    let Some(message) = PexMessage::decode(data) else { return };
    assert!(message.added.len() <= 2 * PEX_PEERS_READ_MAX && message.dropped.len() <= 2 * PEX_PEERS_READ_MAX);
    assert_eq!(PexMessage::decode(&message.encode()), Some(message));
});
