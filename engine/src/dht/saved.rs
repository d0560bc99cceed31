//! Nodes kept from one run to the next: a list a family, bounded, and judged when it is read. They are only where to
//! begin: who does not answer gets no place.

use core::net::SocketAddr;

use crate::address::is_dialable;
use crate::limits::DHT_SAVED_NODES_MAX;
use crate::wire::compact::{self, COMPACT_V4_BYTES, COMPACT_V6_BYTES};

/// The file of both families.
pub fn encode(nodes: &[SocketAddr]) -> Vec<u8> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    nodes.iter().for_each(|node| compact::encode(*node, &mut v4, &mut v6));
    v4.truncate(DHT_SAVED_NODES_MAX * COMPACT_V4_BYTES);
    v6.truncate(DHT_SAVED_NODES_MAX * COMPACT_V6_BYTES);
    let mut file = MAGIC.to_vec();
    for list in [v4, v6] {
        file.extend((list.len() as u32).to_le_bytes());
        file.extend(list);
    }
    file.extend(crc32c::crc32c(&file).to_le_bytes());
    file
}

/// Nodes of such a file; none when it is damaged or of another kind.
pub fn parse(file: &[u8]) -> Vec<SocketAddr> {
    let Some((body, sum)) = file.split_last_chunk::<4>() else { return Vec::new() };
    if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
        return Vec::new();
    }
    let Some(mut rest) = body.strip_prefix(MAGIC) else { return Vec::new() };
    let mut lists = [&[][..]; 2];
    for list in &mut lists {
        let Some((length, after)) = rest.split_first_chunk::<4>() else { return Vec::new() };
        let Some((its, after)) = after.split_at_checked(u32::from_le_bytes(*length) as usize) else {
            return Vec::new();
        };
        (*list, rest) = (its, after);
    }
    let v4 = compact::parse_v4(lists[0], DHT_SAVED_NODES_MAX).peers;
    let v6 = compact::parse_v6(lists[1], DHT_SAVED_NODES_MAX).peers;
    v4.into_iter().chain(v6).filter(|node| is_dialable(*node)).collect()
}

/// What the file begins with; the last byte is the version.
const MAGIC: &[u8] = b"taipeiD\x01";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_back_and_damage_gives_none() {
        let nodes: Vec<SocketAddr> = ["203.0.113.1:6881", "[2001:db8::1]:6881", "0.0.0.0:1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let file = encode(&nodes);
        assert_eq!(parse(&file), nodes[..2]);
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(parse(&damaged).is_empty() && parse(&file[..at]).is_empty());
        }
        let many = vec![nodes[0]; 5000];
        assert_eq!(parse(&encode(&many)).len(), DHT_SAVED_NODES_MAX);
    }
}
