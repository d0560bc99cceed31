//! Announces and scrapes as a tracker reads them, and answers as we read them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::wire::tracker_http::{self, AnnounceAnswer, AnnounceRequest};

fuzz_target!(|data: &[u8]| {
    let _ = AnnounceAnswer::parse(data);
    if let Ok(query) = std::str::from_utf8(data) {
        let _ = AnnounceRequest::parse(query);
        let _ = tracker_http::parse_scrape_query(query);
    }
});
