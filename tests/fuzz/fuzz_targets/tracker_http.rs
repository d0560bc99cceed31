//! Announces and scrapes as a tracker reads them, and answers as we read them: what is read, written again, reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::InfoHash;
use taipei_engine::wire::tracker_http::{
    self, AnnounceAnswer, AnnounceRequest, Announced, PeersForm, ScrapeAnswer, TrackerPeer,
};

fuzz_target!(|data: &[u8]| {
    answers(data);
    if let Ok(query) = std::str::from_utf8(data) {
        requests(query);
    }
});

fn answers(body: &[u8]) {
    match AnnounceAnswer::parse(body) {
        Ok(AnnounceAnswer::Taken(taken)) => {
            // Lists of dictionaries say all; compact ones leave the ids out, and the families apart.
            let sound =
                AnnounceAnswer::Taken(Box::new(Announced { peers_malformed: false, ..*taken.clone() }));
            assert_eq!(AnnounceAnswer::parse(&sound.encode(PeersForm::Dictionaries)), Ok(sound.clone()));
            let bare = |(v4, v6): (Vec<TrackerPeer>, Vec<TrackerPeer>)| {
                v4.into_iter().chain(v6).map(|peer| peer.address).collect::<Vec<_>>()
            };
            let want = bare(taken.peers.iter().partition(|peer| peer.address.is_ipv4()));
            let Ok(AnnounceAnswer::Taken(again)) = AnnounceAnswer::parse(&sound.encode(PeersForm::Compact))
            else {
                panic!("it was taken");
            };
            assert_eq!(bare((again.peers, Vec::new())), want);
        }
        Ok(refused) => assert_eq!(AnnounceAnswer::parse(&refused.encode(PeersForm::Compact)), Ok(refused)),
        Err(_) => {}
    }
    let wanted = [InfoHash([b'A'; 20]), InfoHash([b'B'; 20])];
    if let Ok(ScrapeAnswer::Taken(entries)) = ScrapeAnswer::parse(body, &wanted) {
        let again = ScrapeAnswer::parse(&tracker_http::encode_scrape(&entries), &wanted);
        assert_eq!(again, Ok(ScrapeAnswer::Taken(entries)));
    }
}

fn requests(query: &str) {
    if let Ok(request) = AnnounceRequest::parse(query) {
        let again = request.path_and_query("/announce", Some("pass=1"));
        let (_, again) = again.split_once('?').unwrap_or_default();
        assert_eq!(AnnounceRequest::parse(again), Ok(request));
        assert!(tracker_http::imitates_announce(query) && tracker_http::names_torrent(query));
    }
    if let Ok(hashes) = tracker_http::parse_scrape_query(query) {
        let again = tracker_http::scrape_path_and_query("/scrape", Some("key=1"), &hashes);
        let (_, again) = again.split_once('?').unwrap_or_default();
        assert_eq!(tracker_http::parse_scrape_query(again), Ok(hashes));
    }
}
