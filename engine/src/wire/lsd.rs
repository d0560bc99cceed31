//! Announces of local service discovery (BEP 14): who on the local network is in which swarms.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::ids::InfoHash;
use crate::limits::{LSD_COOKIE_BYTES_MAX, LSD_DATAGRAM_BYTES_MAX, LSD_HASHES_MAX};

/// Where announces go over IPv4.
pub const GROUP_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 192, 152, 143)), PORT);
/// Where announces go over IPv6.
pub const GROUP_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f)), PORT);

/// Somebody is in these swarms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LsdAnnounce {
    /// Where its peers reach it; the address is that of the datagram.
    pub port: u16,
    /// One at least, each once.
    pub info_hashes: Vec<InfoHash>,
    /// What the sender knows its own announces by; empty where there is none.
    pub cookie: Vec<u8>,
}

/// Whether a datagram begins as announces do.
pub fn is_announce(payload: &[u8]) -> bool {
    payload.starts_with(METHOD)
}

impl LsdAnnounce {
    /// As it is sent to a group. Of the info-hashes no more than [`LSD_HASHES_MAX`], which always fit.
    pub fn encode(&self, group: SocketAddr) -> Vec<u8> {
        let mut text =
            format!("BT-SEARCH * HTTP/1.1\r\nHost: {group}\r\nPort: {}\r\n", self.port).into_bytes();
        for info_hash in self.info_hashes.iter().take(LSD_HASHES_MAX) {
            text.extend(format!("Infohash: {info_hash}\r\n").bytes());
        }
        if !self.cookie.is_empty() {
            text.extend(b"cookie: ");
            text.extend(&self.cookie);
            text.extend(b"\r\n");
        }
        text.extend(b"\r\n\r\n");
        text
    }

    /// From a datagram. None when it is longer than one may be, is no announce, names no port or more than one, or no
    /// info-hash. Headers have any case and order; unknown ones are left out, as are values that are no info-hash, and
    /// whatever follows the headers. No more than [`LSD_HASHES_MAX`] are read.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        if payload.len() > LSD_DATAGRAM_BYTES_MAX || !is_announce(payload) {
            return None;
        }
        let mut lines = payload.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        if !lines.next()?.strip_prefix(METHOD)?.starts_with(b" * HTTP/1.") {
            return None;
        }
        let (mut port, mut read) = (None, Self { port: 0, info_hashes: Vec::new(), cookie: Vec::new() });
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"port") {
                if port.replace(number(value)?).is_some() {
                    return None;
                }
            } else if name.eq_ignore_ascii_case(b"infohash") {
                let room = read.info_hashes.len() < LSD_HASHES_MAX;
                if let Some(hash) = info_hash(value).filter(|hash| room && !read.info_hashes.contains(hash)) {
                    read.info_hashes.push(hash);
                }
            } else if name.eq_ignore_ascii_case(b"cookie") && value.len() <= LSD_COOKIE_BYTES_MAX {
                read.cookie = value.to_vec();
            }
        }
        read.port = port.filter(|port| *port != 0)?;
        (!read.info_hashes.is_empty()).then_some(read)
    }
}

fn number(value: &[u8]) -> Option<u16> {
    // `parse` takes a sign, and that is none.
    let digits = value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

fn info_hash(value: &[u8]) -> Option<InfoHash> {
    let bytes = HEXLOWER_PERMISSIVE.decode(value).ok()?;
    bytes.try_into().ok().map(InfoHash)
}

/// The first word; the rest of the first line says where and which version of HTTP this looks like.
const METHOD: &[u8] = b"BT-SEARCH";
const PORT: u16 = 6771;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn announce(count: u8) -> LsdAnnounce {
        let info_hashes = (0..count).map(|n| InfoHash([n; 20])).collect();
        LsdAnnounce { port: 6881, info_hashes, cookie: b"1a2b3c4d".to_vec() }
    }

    #[test]
    fn it_looks_as_the_bep_has_it() {
        let text = announce(2).encode(GROUP_V6);
        let want = "BT-SEARCH * HTTP/1.1\r\nHost: [ff15::efc0:988f]:6771\r\nPort: 6881\r\n\
                    Infohash: 0000000000000000000000000000000000000000\r\n\
                    Infohash: 0101010101010101010101010101010101010101\r\ncookie: 1a2b3c4d\r\n\r\n\r\n";
        assert_eq!(String::from_utf8(text).unwrap(), want);
        let text = announce(1).encode(GROUP_V4);
        assert!(text.starts_with(b"BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\n"));
    }

    #[test]
    fn as_many_as_may_be_named_fit_and_no_more_are_read() {
        let many = LsdAnnounce { port: u16::MAX, ..announce(200) };
        let text = many.encode(GROUP_V6);
        assert!(
            text.len() <= LSD_DATAGRAM_BYTES_MAX && text.len() + 53 > LSD_DATAGRAM_BYTES_MAX,
            "{}",
            text.len()
        );
        let read = LsdAnnounce::parse(&text).unwrap();
        assert_eq!(read.info_hashes, many.info_hashes[..LSD_HASHES_MAX]);
        let short = "BT-SEARCH * HTTP/1.1\nport:1\n".to_owned()
            + &(0..26).map(|n| format!("infohash:{n:040}\n")).collect::<String>();
        assert!(short.len() <= LSD_DATAGRAM_BYTES_MAX);
        assert_eq!(LsdAnnounce::parse(short.as_bytes()).unwrap().info_hashes.len(), LSD_HASHES_MAX);
    }

    #[test]
    fn what_others_write_is_read() {
        let hash = "0123456789ABCDEF0123456789abcdef01234567";
        let read = |text: &str| LsdAnnounce::parse(text.as_bytes());
        let text = format!(
            "BT-SEARCH * HTTP/1.1\r\nX-New: 1\r\nINFOHASH:{hash}\r\ninfohash: junk\r\nno colon\r\nport:  51413 \r\n\r\nPort: 9\r\n"
        );
        let plain = read(&text).unwrap();
        assert_eq!((plain.port, plain.info_hashes.len(), plain.cookie.len()), (51413, 1, 0));
        assert_eq!(plain.info_hashes[0].to_string(), hash.to_lowercase());
        let twice = text.replace("junk", hash);
        assert_eq!(read(&twice), Some(plain), "each once");
        for wrong in [
            text.replace("BT-SEARCH", "BT-SEARCHES"),
            text.replace("HTTP/1.1", "HTTP/2"),
            text.replace("51413", "0"),
            text.replace("51413", "65536"),
            text.replace("51413", "+6881"),
            text.replace("51413", "6881\r\nPort: 6882"),
            text.replace(hash, &hash[1..]),
            text.replace("\r\nport", "\r\n\r\nport"),
            format!("{text}{}", " ".repeat(LSD_DATAGRAM_BYTES_MAX)),
            String::new(),
            "BT-SEARCH".to_owned(),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            port in 1..=u16::MAX,
            hashes in proptest::collection::btree_set(any::<[u8; 20]>(), 1..=LSD_HASHES_MAX),
            cookie in "[!-~]{0,8}",
            ipv6 in any::<bool>(),
        ) {
            let info_hashes = hashes.into_iter().map(InfoHash).collect();
            let announce = LsdAnnounce { port, info_hashes, cookie: cookie.into_bytes() };
            let text = announce.encode(if ipv6 { GROUP_V6 } else { GROUP_V4 });
            prop_assert!(text.len() <= LSD_DATAGRAM_BYTES_MAX);
            prop_assert_eq!(LsdAnnounce::parse(&text), Some(announce));
        }

        #[test]
        fn no_bytes_are_a_panic(
            lines in proptest::collection::vec("(Port|infohash|cookie|)[: ]?.{0,60}", 0..20),
            junk in proptest::collection::vec(any::<u8>(), 0..1600),
        ) {
            let _ = LsdAnnounce::parse(&junk);
            let mut text = b"BT-SEARCH * HTTP/1.1\r\n".to_vec();
            text.extend(lines.join("\r\n").into_bytes());
            text.extend(junk);
            if let Some(read) = LsdAnnounce::parse(&text) {
                prop_assert!(read.port != 0 && (1..=LSD_HASHES_MAX).contains(&read.info_hashes.len()));
            }
        }
    }
}
