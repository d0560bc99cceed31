//! Resume snapshots: what is accepted, written again, reads the same. Checksums are made right, or nothing would be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::InfoHash;
use taipei_engine::disk::{Identity, snapshot};

const IDENTITY: Identity = Identity { info_hash: InfoHash([7; 20]), piece_count: 19, file_count: 3 };

fuzz_target!(|data: &[u8]| {
    let _ = snapshot::decode(data, &IDENTITY);
    let sealed = [data, &crc32c::crc32c(data).to_le_bytes()].concat();
    if let Ok(found) = snapshot::decode(&sealed, &IDENTITY) {
        assert_eq!(snapshot::decode(&snapshot::encode(&IDENTITY, &found), &IDENTITY), Ok(found));
    }
});
