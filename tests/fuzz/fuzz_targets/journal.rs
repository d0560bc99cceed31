//! Resume journals: what is accepted, written again, reads the same. Checksums are made right, or nothing would be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::disk::Identity;
use taipei_engine::disk::journal::{self, Header, Journal};
use taipei_engine::{Bitfield, InfoHash};

const IDENTITY: Identity = Identity { info_hash: InfoHash([7; 20]), piece_count: 19, file_count: 3 };
/// Magic, version, info-hash, counts.
const IDENTITY_BYTES: usize = 40;
/// All of the header between these and its checksum.
const HEADER_BYTES: usize = 40;
/// A record before its checksum.
const RECORD_BYTES: usize = 24;

fuzz_target!(|data: &[u8]| {
    let _ = journal::decode(data, &IDENTITY);
    let Some((header, records)) = data.split_at_checked(HEADER_BYTES) else { return };
    let none = Bitfield::new(IDENTITY.piece_count);
    let empty = Journal {
        header: Header { boot_id: [0; 16], epoch: 0, begun_ns: 0, closed: false },
        good: none.clone(),
        unchecked: none,
        files: vec![None; 3],
    };
    let mut sealed = journal::encode(&IDENTITY, &empty);
    sealed.truncate(IDENTITY_BYTES);
    let identity = crc32c::crc32c(&sealed);
    sealed.extend_from_slice(header);
    sealed.extend_from_slice(&crc32c::crc32c(&sealed).to_le_bytes());
    for record in records.chunks(RECORD_BYTES) {
        // One that says so is damaged.
        let damage = u32::from(record.get(1) == Some(&0xff));
        sealed.extend_from_slice(record);
        sealed.extend_from_slice(&(crc32c::crc32c_append(identity, record) ^ damage).to_le_bytes());
    }
    if let Ok(found) = journal::decode(&sealed, &IDENTITY) {
        assert_eq!(journal::decode(&journal::encode(&IDENTITY, &found), &IDENTITY), Ok(found));
    }
});
