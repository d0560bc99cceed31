//! Recordings: any bytes are judged, as they are and as parts whose checksums are right, or nothing would come through.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::record::{Recording, check};
use taipei_engine::{Config, StartValues};

/// DEFLATE keeps no more in a block that is not compressed.
const PLAIN_BYTES_MAX: usize = 0xffff;

fuzz_target!(|data: &[u8]| {
    let _ = check(data);
    let start = StartValues { seed: 7, boot_id: [0; 16], wall_seconds: 0 };
    let mut sealed = Vec::new();
    drop(Recording::new(&mut sealed, &Config::default(), &start, u64::MAX).expect("memory takes all"));
    let head = sealed.len() as u64;
    let mut rest = data;
    // A part is its kind, how long it is, and what is in it.
    while let Some(([kind, length @ ..], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (plain, after) = after.split_at(length.min(PLAIN_BYTES_MAX));
        rest = after;
        let length = plain.len() as u16;
        let mut deflated = vec![1];
        deflated.extend_from_slice(&length.to_le_bytes());
        deflated.extend_from_slice(&(!length).to_le_bytes());
        deflated.extend_from_slice(plain);
        let mut part = vec![*kind];
        part.extend_from_slice(&(deflated.len() as u32).to_le_bytes());
        part.extend_from_slice(&crc32c::crc32c(&deflated).to_le_bytes());
        part.extend_from_slice(&crc32c::crc32c(&part).to_le_bytes());
        sealed.extend_from_slice(&part);
        sealed.extend_from_slice(&deflated);
    }
    let (inputs, ending) = check(&sealed[..]).expect("its head is whole");
    // Cut where it is not whole any more, it has the same inputs or fewer.
    let cut = sealed.len() - data.len().min(sealed.len() - head as usize) / 2;
    let (fewer, _) = check(&sealed[..cut]).expect("its head is whole");
    assert!(fewer <= inputs, "{ending:?}");
});
