//! Bodies of HTTP answers that are compressed with gzip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::wire::gzip::inflate;

fuzz_target!(|body: &[u8]| {
    const BYTES_MAX: usize = 1 << 16;
    if let Ok(out) = inflate(body, BYTES_MAX) {
        assert!(out.len() <= BYTES_MAX);
    }
});
