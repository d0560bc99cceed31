//! The metadata extension's messages: whatever is read, written again, reads the same, and holds no more than came.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use taipei_engine::wire::ut_metadata::MetadataMessage;

fuzz_target!(|data: &[u8]| {
    let payload = Bytes::copy_from_slice(data);
    // The second has what most inputs lack, so that all of them reach the data.
    let with_head = Bytes::from([b"d8:msg_typei1e5:piecei7e10:total_sizei99ee", data].concat());
    for payload in [payload, with_head] {
        let Some(message) = MetadataMessage::decode(&payload) else { continue };
        if let MetadataMessage::Data { data, .. } = &message {
            assert!(data.len() < payload.len());
        }
        assert_eq!(MetadataMessage::decode(&message.encode()), Some(message));
    }
});
