//! Magnet links: whatever is accepted names a torrent, nothing in it goes beyond its cap, and the link that is made of it
//! says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taipei_engine::limits::{
    MAGNET_BYTES_MAX, MAGNET_FILES_MAX, MAGNET_PEERS_MAX, TRACKERS_MAX, WEB_SEEDS_MAX,
};
use taipei_engine::metainfo::Magnet;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    // The second has what most inputs lack, so that all of them reach the parameters.
    let with_hash = format!("magnet:?xt=urn:btih:722fe65b2aa26d14f35b4ad627d20236e481d924&{text}");
    for link in [text.as_ref(), with_hash.as_str()] {
        let magnet = match Magnet::parse(link) {
            Ok(magnet) => magnet,
            Err(error) => {
                assert!(!error.class().is_empty());
                continue;
            }
        };
        assert!(magnet.info_hashes.v1.is_some() || magnet.info_hashes.v2.is_some());
        assert!(magnet.trackers.len() <= TRACKERS_MAX && magnet.web_seeds.len() <= WEB_SEEDS_MAX);
        assert!(magnet.trackers.iter().all(|url| !url.to_ascii_lowercase().starts_with("file:")));
        assert!(magnet.peers.len() <= MAGNET_PEERS_MAX && magnet.peers.iter().all(|peer| peer.port() != 0));
        assert!(magnet.select_only.len() <= MAGNET_FILES_MAX && magnet.select_only.is_sorted());
        // Escapes make it longer.
        let again = magnet.to_string();
        if again.len() <= MAGNET_BYTES_MAX {
            assert_eq!(Magnet::parse(&again), Ok(magnet), "{again}");
        }
    }
});
