//! Packets of UDP trackers, as a tracker and as a client reads them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::wire::tracker_udp::{UdpAnswer, UdpRequest};

fuzz_target!(|data: &[u8]| {
    if let Some(request) = UdpRequest::parse(data) {
        assert_eq!(UdpRequest::parse(&request.encode()), Some(request));
    }
    for ipv6 in [false, true] {
        if let Some(answer) = UdpAnswer::parse(data, ipv6) {
            assert_eq!(data.get(4..8), Some(&answer.transaction().to_be_bytes()[..]));
            assert_eq!(UdpAnswer::parse(&answer.encode(ipv6), ipv6), Some(answer));
        }
    }
});
