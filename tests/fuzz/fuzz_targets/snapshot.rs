//! Resume snapshots: what is accepted, written again, reads the same. Checksums are made right, or nothing would be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::disk::snapshot::{self, Snapshot};
use taipei_engine::disk::{Identity, Totals};
use taipei_engine::{Bitfield, InfoHash};

const IDENTITY: Identity = Identity { info_hash: InfoHash([7; 20]), piece_count: 19, file_count: 3 };

/// Magic, version, info-hash, counts.
const IDENTITY_BYTES: usize = 40;

fuzz_target!(|data: &[u8]| {
    let _ = snapshot::decode(data, &IDENTITY);
    let none = Bitfield::new(IDENTITY.piece_count);
    let empty = Snapshot {
        boot_id: [0; 16],
        epoch: 0,
        closed: false,
        totals: Totals::default(),
        have: none.clone(),
        unchecked: none,
        files: vec![None; 3],
    };
    let mut sealed = snapshot::encode(&IDENTITY, &empty);
    sealed.truncate(IDENTITY_BYTES);
    sealed.extend_from_slice(data);
    sealed.extend_from_slice(&crc32c::crc32c(&sealed).to_le_bytes());
    if let Ok(found) = snapshot::decode(&sealed, &IDENTITY) {
        assert_eq!(snapshot::decode(&snapshot::encode(&IDENTITY, &found), &IDENTITY), Ok(found));
    }
});
