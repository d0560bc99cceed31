//! Announces and scrapes as a tracker reads them, and answers as we read them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::InfoHash;
use taipei_engine::wire::tracker_http::{self, AnnounceAnswer, AnnounceRequest, ScrapeAnswer};

fuzz_target!(|data: &[u8]| {
    let _ = AnnounceAnswer::parse(data);
    let _ = ScrapeAnswer::parse(data, &[InfoHash([b'A'; 20])]);
    if let Ok(query) = std::str::from_utf8(data) {
        let _ = AnnounceRequest::parse(query);
        let _ = tracker_http::parse_scrape_query(query);
    }
});
