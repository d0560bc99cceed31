//! Magnet links (BEP 9, 52, 53): which torrent, and where to ask for it.

use core::fmt;
use core::net::SocketAddr;
use std::collections::BTreeSet;

use data_encoding::{BASE32, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};

use super::Metainfo;
use super::torrent_file::{has_plain_host, tracker_url, web_seed_url};
use crate::ids::{InfoHash, InfoHashV2, InfoHashes};
use crate::limits::{
    MAGNET_BYTES_MAX, MAGNET_FILE_INDEX_MAX, MAGNET_FILES_MAX, MAGNET_PEERS_MAX, TRACKER_URL_BYTES_MAX,
    TRACKERS_MAX, WEB_SEEDS_MAX,
};

/// What a magnet link says. Nothing in it is verified but the form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Magnet {
    /// At least one of them.
    pub info_hashes: InfoHashes,
    /// What whoever made the link calls it, for display only.
    pub name: Option<String>,
    /// Announce URLs in the link's order, each once.
    pub trackers: Vec<String>,
    /// BEP 19.
    pub web_seeds: Vec<String>,
    /// Peers to ask (`x.pe`). Names of hosts are passed over.
    pub peers: Vec<SocketAddr>,
    /// Indices of the files that are wanted (BEP 53), ascending; none given means all.
    pub select_only: Vec<u32>,
}

/// Why a link is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MagnetError {
    /// Longer than [`MAGNET_BYTES_MAX`].
    #[error("not a magnet link: {0} bytes, at most {MAGNET_BYTES_MAX} are read")]
    TooLong(usize),
    /// It does not begin with `magnet:?`.
    #[error("not a magnet link: it does not begin with \"magnet:?\"")]
    NotAMagnet,
    /// No `xt` names a BitTorrent info-hash.
    #[error("the magnet link has no info-hash (\"xt=urn:btih:...\" or \"xt=urn:btmh:...\")")]
    NoInfoHash,
    /// It names the torrent by its version 2 info-hash alone.
    #[error(
        "the link has only a v2 info-hash (urn:btmh:), which is not supported yet: use a link with urn:btih:, or the torrent \
         file if it is a hybrid"
    )]
    V2Only,
    /// An info-hash is cut short, or not hexadecimal or base32.
    #[error("the info-hash in the magnet link is broken: copy the whole link")]
    InfoHash,
}

impl MagnetError {
    /// A short name for the kind of error, for machines. It stays the same from release to release.
    pub fn class(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "too-large",
            Self::NotAMagnet => "not-a-magnet",
            Self::NoInfoHash => "no-info-hash",
            Self::V2Only => "v2-only",
            Self::InfoHash => "bad-info-hash",
        }
    }
}

impl Magnet {
    /// Reads a link. A parameter that is malformed or unknown is passed over.
    ///
    /// # Errors
    /// When there is no info-hash, or a broken one.
    pub fn parse(link: &str) -> Result<Self, MagnetError> {
        let link = link.trim();
        if link.len() > MAGNET_BYTES_MAX {
            return Err(MagnetError::TooLong(link.len()));
        }
        let query = link
            .split_at_checked("magnet:?".len())
            .filter(|(start, _)| start.eq_ignore_ascii_case("magnet:?"))
            .map(|(_, query)| query)
            .ok_or(MagnetError::NotAMagnet)?;
        let mut magnet = Self {
            info_hashes: InfoHashes { v1: None, v2: None },
            name: None,
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            peers: Vec::new(),
            select_only: Vec::new(),
        };
        let mut trackers = BTreeSet::new();
        let mut selected = BTreeSet::new();
        let mut selected_left = MAGNET_FILES_MAX;
        for parameter in query.split('&') {
            let Some((key, value)) = parameter.split_once('=') else { continue };
            let key = decode(key).to_ascii_lowercase();
            let value = if key == "dn" { decode(&value.replace('+', " ")) } else { decode(value) };
            // Several of a kind may be numbered: `tr.1`.
            let numbered = |(kind, number): &(&str, &str)| {
                *kind != "x" && number.bytes().all(|byte| byte.is_ascii_digit())
            };
            let kind = key.split_once('.').filter(numbered).map_or(key.as_str(), |(kind, _)| kind);
            match kind {
                "xt" => info_hash(&value, &mut magnet.info_hashes)?,
                "dn" if !value.trim().is_empty() => {
                    magnet.name.get_or_insert(value);
                }
                "tr" => {
                    let url = tracker_url(&value)
                        .filter(|url| url.len() <= TRACKER_URL_BYTES_MAX && has_plain_host(url));
                    if let Some(url) = url
                        && magnet.trackers.len() < TRACKERS_MAX
                        && trackers.insert(url.to_owned())
                    {
                        magnet.trackers.push(url.to_owned());
                    }
                }
                "ws" if magnet.web_seeds.len() < WEB_SEEDS_MAX => {
                    let url = web_seed_url(&value).filter(|url| has_plain_host(url));
                    magnet.web_seeds.extend(url.map(str::to_owned));
                }
                "x.pe" if magnet.peers.len() < MAGNET_PEERS_MAX => {
                    magnet.peers.extend(value.parse().ok().filter(|peer: &SocketAddr| peer.port() != 0));
                }
                "so" => select(&value, &mut selected, &mut selected_left),
                _ => {}
            }
        }
        magnet.select_only = selected.into_iter().collect();
        match magnet.info_hashes {
            InfoHashes { v1: None, v2: None } => Err(MagnetError::NoInfoHash),
            _ => Ok(magnet),
        }
    }
}

/// The link of a torrent: what is in its file beside the info dictionary, as far as a link can say it.
impl From<&Metainfo> for Magnet {
    fn from(metainfo: &Metainfo) -> Self {
        let mut trackers: Vec<String> = Vec::new();
        for url in metainfo.tracker_tiers.iter().flatten() {
            if !trackers.contains(url) {
                trackers.push(url.clone());
            }
        }
        Self {
            info_hashes: metainfo.info_hashes,
            name: Some(metainfo.name.clone()),
            trackers,
            web_seeds: metainfo.web_seeds.clone(),
            peers: Vec::new(),
            select_only: Vec::new(),
        }
    }
}

/// As a link that says the same.
impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "magnet:?";
        let mut put = |key: &str, value: &str| {
            let before = std::mem::replace(&mut separator, "&");
            write!(f, "{before}{key}={value}")
        };
        if let Some(v1) = self.info_hashes.v1 {
            put("xt", &format!("urn:btih:{v1}"))?;
        }
        if let Some(v2) = self.info_hashes.v2 {
            put("xt", &format!("urn:btmh:1220{v2}"))?;
        }
        if let Some(name) = &self.name {
            put("dn", &encode(name))?;
        }
        self.trackers.iter().try_for_each(|url| put("tr", &encode(url)))?;
        self.web_seeds.iter().try_for_each(|url| put("ws", &encode(url)))?;
        // The one character of an address that would be taken for an escape: before the scope of a link-local one.
        self.peers.iter().try_for_each(|peer| put("x.pe", &peer.to_string().replace('%', "%25")))?;
        if !self.select_only.is_empty() {
            put("so", &ranges(&self.select_only))?;
        }
        Ok(())
    }
}

/// `0,2,4-6` of ascending numbers.
fn ranges(numbers: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut().filter(|(_, last)| last.checked_add(1) == Some(*number)) {
            Some((_, last)) => *last = *number,
            None => ranges.push((*number, *number)),
        }
    }
    let shown = ranges.iter().map(
        |(first, last)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        },
    );
    shown.collect::<Vec<_>>().join(",")
}

/// Percent-encoded. A space is `%20`: a plus means itself to those who decode as we do.
fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// Percent-encoding taken away. A plus stays one: it may be part of a passkey.
fn decode(text: &str) -> String {
    let text = format!("={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(text.as_bytes())
        .next()
        .map_or_else(String::new, |(_, value)| value.into_owned())
}

/// Other names than BitTorrent's are passed over. Of several of one version the first counts.
fn info_hash(urn: &str, hashes: &mut InfoHashes) -> Result<(), MagnetError> {
    let lower = urn.to_ascii_lowercase();
    if let Some(hash) = lower.strip_prefix("urn:btih:") {
        let bytes = match hash.len() {
            40 => HEXLOWER_PERMISSIVE.decode(hash.as_bytes()),
            32 => BASE32.decode(hash.to_ascii_uppercase().as_bytes()),
            _ => return Err(MagnetError::InfoHash),
        };
        let hash = bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or(MagnetError::InfoHash)?;
        hashes.v1.get_or_insert(InfoHash(hash));
    } else if let Some(hash) = lower.strip_prefix("urn:btmh:") {
        // A multihash: 0x12 is SHA-256, 0x20 its length.
        let hash = hash.strip_prefix("1220").ok_or(MagnetError::InfoHash)?;
        let bytes = HEXLOWER_PERMISSIVE.decode(hash.as_bytes());
        let hash = bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or(MagnetError::InfoHash)?;
        hashes.v2.get_or_insert(InfoHashV2(hash));
    }
    Ok(())
}

/// `0,2,4-6`. Ranges the wrong way round or beyond every torrent are passed over.
fn select(list: &str, selected: &mut BTreeSet<u32>, left: &mut usize) {
    for item in list.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (Ok(first), Ok(last)) = (first.trim().parse::<u32>(), last.trim().parse::<u32>()) else {
            continue;
        };
        if last > MAGNET_FILE_INDEX_MAX {
            continue;
        }
        for index in (first..=last).take(*left) {
            selected.insert(index);
            *left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "xt=urn:btih:722fe65b2aa26d14f35b4ad627d20236e481d924";

    #[test]
    fn a_magnet_asks_for_no_more_than_its_caps() {
        let many = format!("magnet:?{HASH}&so=0-1000000{}", ",0-1000000".repeat(1000));
        assert_eq!(Magnet::parse(&many).unwrap().select_only.len(), MAGNET_FILES_MAX);
        let long = format!("magnet:?{HASH}&dn={}", "x".repeat(MAGNET_BYTES_MAX));
        assert!(matches!(Magnet::parse(&long), Err(MagnetError::TooLong(_))));
        let peers = "&x.pe=192.0.2.1:1".repeat(MAGNET_PEERS_MAX + 1);
        assert_eq!(Magnet::parse(&format!("magnet:?{HASH}{peers}")).unwrap().peers.len(), MAGNET_PEERS_MAX);
    }

    #[test]
    fn urls_of_other_schemes_and_malformed_peers_are_passed_over() {
        let link =
            format!("magnet:?{HASH}&tr=javascript:x&tr=http://t/?k=a%2Bb&ws=file:///x&x.pe=h:1&so=x,1");
        let magnet = Magnet::parse(&link).unwrap();
        assert_eq!((magnet.trackers, magnet.web_seeds), (vec!["http://t/?k=a+b".to_owned()], vec![]));
        assert_eq!((magnet.peers, magnet.select_only), (vec![], vec![1]));
    }

    // Found by the fuzz target.
    #[test]
    fn the_scope_of_a_peer_is_written_so_that_it_is_read() {
        let magnet = Magnet::parse(&format!("magnet:?{HASH}&x.pe=[fe80::1%2525]:80")).unwrap();
        assert_eq!(magnet.peers, ["[fe80::1%25]:80".parse().unwrap()]);
        assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));
    }

    #[test]
    fn a_malformed_parameter_is_passed_over_and_a_malformed_hash_refused() {
        for odd in [
            "so=100000000",
            "so=0-4294967296",
            "so=9-1",
            "so=",
            "x.pe=1.2.3.4:99999",
            "x.pe=",
            "tr=",
            "tr=wss://a",
            "tr=http://xn--a/",
            "ws=udp://a",
            "dn",
            "&&",
            "=",
            "%",
            "xl=-1",
            "xt=urn:sha1:x",
        ] {
            let magnet = Magnet::parse(&format!("magnet:?{odd}&{HASH}")).unwrap();
            let empty = magnet.trackers.is_empty()
                && magnet.web_seeds.is_empty()
                && magnet.peers.is_empty()
                && magnet.select_only.is_empty();
            assert!(empty && magnet.info_hashes.v1.is_some(), "{odd}");
        }
        for hash in [
            "urn:btih:",
            "urn:btih:722fe65b2aa26d14f35b4ad627d20236e481d92",
            "urn:btih:zz2fe65b2aa26d14f35b4ad627d20236e481d924",
            "urn:btih:\u{e4}22fe65b2aa26d14f35b4ad627d20236e481d92",
            "urn:btmh:1120",
            "urn:btmh:1220ff",
        ] {
            assert_eq!(
                Magnet::parse(&format!("magnet:?xt={hash}&{HASH}")),
                Err(MagnetError::InfoHash),
                "{hash}"
            );
        }
    }

    #[test]
    fn a_link_that_is_written_says_what_the_torrent_says() {
        let torrent = b"d8:announce21:http://t/a?k=x+y%20&z4:infod6:lengthi0e4:name5:a + b12:piece lengthi16384e6:pieces0:ee";
        let metainfo = Metainfo::parse(torrent, crate::metainfo::PathRules::Unix).unwrap();
        let link = Magnet::from(&metainfo).to_string();
        let read = Magnet::parse(&link).unwrap();
        assert_eq!((read.name.as_deref(), read.info_hashes), (Some("a + b"), metainfo.info_hashes));
        assert_eq!(read.trackers, metainfo.tracker_tiers.concat());
    }

    proptest! {
        #[test]
        fn links_do_not_panic(link in "magnet:\\?(xt|dn|tr|so|ws|x.pe|[a-z.]{1,4})(=|&|%[0-9a-f]{0,2}|[ -~é]){0,60}") {
            let _ = Magnet::parse(&link);
        }

        #[test]
        fn what_is_written_is_read_again(
            name in "[ -~éあ]{0,12}",
            paths in proptest::collection::vec("[a-z+%&= ]{0,9}", 0..4),
            peers in proptest::collection::vec((any::<std::net::IpAddr>(), 1u16..), 0..3),
            select_only in proptest::collection::btree_set(0u32..40, 0..20),
        ) {
            let url = |path: &String| format!("http://t/{}", path.trim());
            let mut magnet = Magnet::parse(&format!("magnet:?{HASH}")).unwrap();
            magnet.name = Some(name).filter(|name| !name.trim().is_empty());
            magnet.trackers = paths.iter().map(url).collect::<BTreeSet<_>>().into_iter().collect();
            magnet.web_seeds = magnet.trackers.clone();
            magnet.peers = peers.into_iter().map(SocketAddr::from).collect();
            magnet.select_only = select_only.into_iter().collect();
            prop_assert_eq!(Magnet::parse(&magnet.to_string()).unwrap(), magnet);
        }
    }
}
