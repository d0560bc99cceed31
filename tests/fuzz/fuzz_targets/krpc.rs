//! Packets of the DHT: any bytes are read, and what was read comes back as it went.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::wire::krpc::Packet;

fuzz_target!(|data: &[u8]| {
    if let Ok(packet) = Packet::parse(data) {
        assert_eq!(Packet::parse(&packet.encode()), Ok(packet));
    }
});
