//! Announce and scrape over UDP (BEP 15) with options (BEP 41): requests and answers, both ways, for the client and for
//! the tracker.
//!
//! Packets may be longer than they need to be: what follows is left alone. Numbers come out as they were sent; lists and
//! texts are capped here. Whether a packet answers what was asked is for whoever asked to judge.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::compact::{self, COMPACT_V4_BYTES, COMPACT_V6_BYTES};
use super::tracker_http::{AnnounceEvent, AnnounceRequest, ScrapeEntry};
use crate::ids::{InfoHash, PeerId};
use crate::limits::{
    SCRAPE_UDP_HASHES_MAX, TRACKER_PEERS_MAX, TRACKER_TEXT_BYTES_MAX, TRACKER_URL_BYTES_MAX,
};

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpRequest {
    /// For a connection id, which proves that the client is where it says.
    Connect {
        /// Comes back with the answer.
        transaction: u32,
    },
    /// To take an announce.
    Announce {
        /// From the answer to `Connect`.
        connection_id: u64,
        /// Comes back with the answer.
        transaction: u32,
        /// What is announced. `compact`, `no_peer_id` and `tracker_id` do not exist over UDP.
        announce: Box<AnnounceRequest>,
        /// Path and query of the tracker's URL, a passkey for example (BEP 41).
        url_data: Vec<u8>,
    },
    /// For the counts of some swarms.
    Scrape {
        /// From the answer to `Connect`.
        connection_id: u64,
        /// Comes back with the answer.
        transaction: u32,
        /// Which; at most 74.
        info_hashes: Vec<InfoHash>,
    },
}

/// What a tracker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpAnswer {
    /// To `Connect`.
    Connected {
        /// As in the request.
        transaction: u32,
        /// Good for a minute.
        connection_id: u64,
    },
    /// To `Announce`.
    Announced {
        /// As in the request.
        transaction: u32,
        /// Seconds until the next announce.
        interval: u32,
        /// Peers that do not have everything.
        leechers: u32,
        /// Peers that have.
        seeders: u32,
        /// Of the family of the packet.
        peers: Vec<SocketAddr>,
    },
    /// To `Scrape`: in the order asked for.
    Scraped {
        /// As in the request.
        transaction: u32,
        /// One for each info-hash.
        entries: Vec<ScrapeEntry>,
    },
    /// To anything.
    Failed {
        /// As in the request.
        transaction: u32,
        /// In the tracker's words, cut to a cap, not escaped.
        message: String,
    },
}

impl UdpRequest {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ANNOUNCE_BYTES);
        match self {
            Self::Connect { transaction } => {
                out.extend(PROTOCOL_ID.to_be_bytes());
                out.extend(head(CONNECT, *transaction));
            }
            Self::Announce { connection_id, transaction, announce, url_data } => {
                out.extend(connection_id.to_be_bytes());
                out.extend(head(ANNOUNCE, *transaction));
                out.extend(announce.info_hash.0);
                out.extend(announce.peer_id.0);
                for figure in [announce.downloaded, announce.left, announce.uploaded] {
                    out.extend(figure.to_be_bytes());
                }
                let event: u32 = match announce.event {
                    None => 0,
                    Some(AnnounceEvent::Completed) => 1,
                    Some(AnnounceEvent::Started) => 2,
                    Some(AnnounceEvent::Stopped) => 3,
                };
                out.extend(event.to_be_bytes());
                let ip = match announce.ip {
                    Some(IpAddr::V4(ip)) => ip,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                out.extend(ip.octets());
                out.extend(announce.key.unwrap_or(0).to_be_bytes());
                out.extend(announce.numwant.unwrap_or(u32::MAX).to_be_bytes());
                out.extend(announce.port.to_be_bytes());
                for part in url_data.chunks(OPTION_BYTES_MAX) {
                    out.extend([URL_DATA, part.len() as u8]);
                    out.extend(part);
                }
            }
            Self::Scrape { connection_id, transaction, info_hashes } => {
                out.extend(connection_id.to_be_bytes());
                out.extend(head(SCRAPE, *transaction));
                out.extend(info_hashes.iter().take(SCRAPE_UDP_HASHES_MAX).flat_map(|hash| hash.0));
            }
        }
        out
    }

    /// Reads a packet; none when it is no request.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let mut rest = Reader(packet);
        let connection_id = rest.u64()?;
        let action = rest.u32()?;
        let transaction = rest.u32()?;
        match action {
            CONNECT if connection_id == PROTOCOL_ID => Some(Self::Connect { transaction }),
            ANNOUNCE => {
                let announce = rest.announce()?;
                let url_data = url_data(rest.0);
                Some(Self::Announce { connection_id, transaction, announce: Box::new(announce), url_data })
            }
            SCRAPE => {
                let (hashes, _) = rest.0.as_chunks::<20>();
                let info_hashes = hashes.iter().take(SCRAPE_UDP_HASHES_MAX).map(|hash| InfoHash(*hash));
                Some(Self::Scrape { connection_id, transaction, info_hashes: info_hashes.collect() })
            }
            _ => None,
        }
    }
}

impl UdpAnswer {
    /// The packet. Peers of another family than `ipv6` says are left out.
    pub fn encode(&self, ipv6: bool) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Connected { transaction, connection_id } => {
                out.extend(head(CONNECT, *transaction));
                out.extend(connection_id.to_be_bytes());
            }
            Self::Announced { transaction, interval, leechers, seeders, peers } => {
                out.extend(head(ANNOUNCE, *transaction));
                for figure in [interval, leechers, seeders] {
                    out.extend(figure.to_be_bytes());
                }
                let (mut v4, mut v6) = (Vec::new(), Vec::new());
                peers.iter().for_each(|peer| compact::encode(*peer, &mut v4, &mut v6));
                out.extend(if ipv6 { v6 } else { v4 });
            }
            Self::Scraped { transaction, entries } => {
                out.extend(head(SCRAPE, *transaction));
                let figure = |count: u64| u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes();
                for entry in entries {
                    out.extend([entry.complete, entry.downloaded, entry.incomplete].map(figure).concat());
                }
            }
            Self::Failed { transaction, message } => {
                out.extend(head(FAILED, *transaction));
                out.extend(message.bytes());
            }
        }
        out
    }

    /// Reads a packet that came over IPv6, or IPv4; none when it is no answer.
    pub fn parse(packet: &[u8], ipv6: bool) -> Option<Self> {
        let mut rest = Reader(packet);
        let action = rest.u32()?;
        let transaction = rest.u32()?;
        match action {
            CONNECT => Some(Self::Connected { transaction, connection_id: rest.u64()? }),
            ANNOUNCE => {
                let (interval, leechers, seeders) = (rest.u32()?, rest.u32()?, rest.u32()?);
                let list = rest.0;
                let peers = if ipv6 {
                    compact::parse_v6(list, TRACKER_PEERS_MAX)
                } else {
                    compact::parse_v4(list, TRACKER_PEERS_MAX)
                };
                Some(Self::Announced { transaction, interval, leechers, seeders, peers: peers.peers })
            }
            SCRAPE => {
                let mut entries = Vec::new();
                while entries.len() < SCRAPE_UDP_HASHES_MAX
                    && let (Some(complete), Some(downloaded), Some(incomplete)) =
                        (rest.u32(), rest.u32(), rest.u32())
                {
                    let [complete, downloaded, incomplete] =
                        [complete, downloaded, incomplete].map(u64::from);
                    entries.push(ScrapeEntry { complete, downloaded, incomplete });
                }
                Some(Self::Scraped { transaction, entries })
            }
            FAILED => {
                let text = rest.0.get(..TRACKER_TEXT_BYTES_MAX).unwrap_or(rest.0);
                let text = String::from_utf8_lossy(text);
                let text = text.get(..text.floor_char_boundary(TRACKER_TEXT_BYTES_MAX)).unwrap_or_default();
                let message = text.trim_end_matches('\0').to_owned();
                Some(Self::Failed { transaction, message })
            }
            _ => None,
        }
    }

    /// Of which request.
    pub fn transaction(&self) -> u32 {
        match self {
            Self::Connected { transaction, .. }
            | Self::Announced { transaction, .. }
            | Self::Scraped { transaction, .. }
            | Self::Failed { transaction, .. } => *transaction,
        }
    }
}

/// How many peers fit an answer that stays below the smallest packet every network carries.
pub fn peers_in_answer(ipv6: bool) -> usize {
    (ANSWER_BYTES_MAX - 20) / if ipv6 { COMPACT_V6_BYTES } else { COMPACT_V4_BYTES }
}

fn head(action: u32, transaction: u32) -> [u8; 8] {
    (u64::from(action) << 32 | u64::from(transaction)).to_be_bytes()
}

/// The parts of the URL that the options after an announce carry, one after the other (BEP 41).
fn url_data(mut options: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let [kind, after @ ..] = options {
        match *kind {
            END_OF_OPTIONS => break,
            NOP => options = after,
            kind => {
                let [length, after @ ..] = after else { break };
                let Some((value, after)) = after.split_at_checked(usize::from(*length)) else { break };
                if kind == URL_DATA && data.len() + value.len() <= TRACKER_URL_BYTES_MAX {
                    data.extend_from_slice(value);
                }
                options = after;
            }
        }
    }
    data
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (value, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*value)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn announce(&mut self) -> Option<AnnounceRequest> {
        let (info_hash, peer_id) = (InfoHash(self.take()?), PeerId(self.take()?));
        let (downloaded, left, uploaded) = (self.u64()?, self.u64()?, self.u64()?);
        let event = match self.u32()? {
            1 => Some(AnnounceEvent::Completed),
            2 => Some(AnnounceEvent::Started),
            3 => Some(AnnounceEvent::Stopped),
            _ => None,
        };
        let ip = Some(Ipv4Addr::from(self.take::<4>()?)).filter(|ip| !ip.is_unspecified());
        let (key, numwant) = (self.u32()?, self.u32()?);
        let port = u16::from_be_bytes(self.take()?);
        Some(AnnounceRequest {
            info_hash,
            peer_id,
            port,
            uploaded,
            downloaded,
            left,
            event,
            // -1, and any other negative number: as many as the tracker likes.
            numwant: (numwant <= i32::MAX as u32).then_some(numwant),
            key: Some(key),
            compact: None,
            no_peer_id: false,
            tracker_id: None,
            ip: ip.map(IpAddr::V4),
        })
    }
}

/// The magic number of BEP 15.
const PROTOCOL_ID: u64 = 0x417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const FAILED: u32 = 3;
/// An announce without options.
const ANNOUNCE_BYTES: usize = 98;
/// Option types (BEP 41).
const END_OF_OPTIONS: u8 = 0;
const NOP: u8 = 1;
const URL_DATA: u8 = 2;
/// An option's length is one byte.
const OPTION_BYTES_MAX: usize = 255;
/// IPv6 carries 1,280 bytes everywhere; 48 of them are headers.
const ANSWER_BYTES_MAX: usize = 1232;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn announce() -> AnnounceRequest {
        AnnounceRequest {
            info_hash: InfoHash([1; 20]),
            peer_id: PeerId([2; 20]),
            port: 6881,
            uploaded: 3,
            downloaded: 4,
            left: 5,
            event: Some(AnnounceEvent::Started),
            numwant: Some(50),
            key: Some(0xabcd),
            compact: None,
            no_peer_id: false,
            tracker_id: None,
            ip: None,
        }
    }

    fn request(url_data: &[u8]) -> UdpRequest {
        UdpRequest::Announce {
            connection_id: 7,
            transaction: 9,
            announce: Box::new(announce()),
            url_data: url_data.to_vec(),
        }
    }

    #[test]
    fn packets_are_laid_out_as_the_bep_says() {
        let connect = UdpRequest::Connect { transaction: 0x0102_0304 }.encode();
        assert_eq!(connect, [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 1, 2, 3, 4]);
        let packet = request(b"").encode();
        assert_eq!(packet.len(), 98);
        assert_eq!(
            (&packet[8..16], &packet[16..56]),
            (&[0, 0, 0, 1, 0, 0, 0, 9][..], &[[1; 20], [2; 20]].concat()[..])
        );
        assert_eq!([packet[63], packet[71], packet[79], packet[83]], [4, 5, 3, 2]);
        assert_eq!((&packet[90..92], packet[95], &packet[96..]), (&[0xab, 0xcd][..], 50, &[0x1a, 0xe1][..]));
        let scrape =
            UdpRequest::Scrape { connection_id: 7, transaction: 9, info_hashes: vec![InfoHash([5; 20]); 90] };
        assert_eq!(scrape.encode().len(), 16 + 74 * 20);
    }

    #[test]
    fn the_url_goes_in_options_of_255_bytes() {
        for length in [0, 1, 255, 256, 700] {
            let url = vec![b'u'; length];
            let packet = request(&url).encode();
            assert_eq!(packet.len(), 98 + length + 2 * length.div_ceil(255));
            assert_eq!(UdpRequest::parse(&packet), Some(request(&url)));
        }
        let options = [&[
            NOP,
            9,
            2,
            b'x',
            b'x',
            URL_DATA,
            1,
            b'/',
            NOP,
            URL_DATA,
            1,
            b'a',
            END_OF_OPTIONS,
            URL_DATA,
            1,
            b'z',
        ][..]];
        assert_eq!(url_data(&options.concat()), b"/a");
        assert_eq!(url_data(&[URL_DATA, 5, b'/']), b"");
    }

    #[test]
    fn peers_are_of_the_family_of_the_packet() {
        let v4: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        let answer = |peers: &[SocketAddr]| UdpAnswer::Announced {
            transaction: 1,
            interval: 1800,
            leechers: 2,
            seeders: 3,
            peers: peers.to_vec(),
        };
        assert_eq!(UdpAnswer::parse(&answer(&[v4, v6]).encode(false), false), Some(answer(&[v4])));
        assert_eq!(UdpAnswer::parse(&answer(&[v4, v6]).encode(true), true), Some(answer(&[v6])));
        assert_eq!((peers_in_answer(false), peers_in_answer(true)), (202, 67));
    }

    #[test]
    fn what_is_short_or_of_another_kind_is_no_packet() {
        let whole = request(b"").encode();
        assert!((0..98).all(|length| UdpRequest::parse(&whole[..length]).is_none()));
        let mut connect = UdpRequest::Connect { transaction: 1 }.encode();
        connect[7] ^= 1;
        assert_eq!(UdpRequest::parse(&connect), None);
        assert_eq!(UdpAnswer::parse(&[0, 0, 0, 4, 0, 0, 0, 0], false), None);
        let error = UdpAnswer::parse(&[&head(FAILED, 5)[..], &[b'x'; 9000]].concat(), false);
        assert!(
            matches!(error, Some(UdpAnswer::Failed { message, .. }) if message.len() == TRACKER_TEXT_BYTES_MAX)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300), ipv6: bool) {
            if let Some(request) = UdpRequest::parse(&bytes) {
                prop_assert_eq!(UdpRequest::parse(&request.encode()), Some(request));
            }
            if let Some(answer) = UdpAnswer::parse(&bytes, ipv6) {
                prop_assert_eq!(UdpAnswer::parse(&answer.encode(ipv6), ipv6), Some(answer));
            }
        }
    }
}
