//! Private torrents (BEP 27): neither the DHT nor the local network ever hears of them.

use taipei_engine::wire::krpc::{Ask, Body, Packet};
use taipei_engine::wire::{Handshake, LsdAnnounce, Message};
use taipei_engine::{InfoHash, Output};

use super::host::ProcessWatch;
use crate::plan::Materials;

/// Whether an output says nothing of a private torrent that the DHT or the local network is for.
pub(super) fn check(process: &ProcessWatch, materials: &Materials, output: &Output) -> Result<(), String> {
    let is_private = |torrent: usize| materials.scenario.torrents[torrent].private;
    match output {
        Output::SendDatagram { payload, .. } if payload.starts_with(b"d") => {
            let Ok(Packet { body: Body::Query(query), .. }) = Packet::parse(payload) else { return Ok(()) };
            let about = match query.ask {
                Ask::GetPeers { info_hash, .. } | Ask::AnnouncePeer { info_hash, .. } => info_hash,
                Ask::FindNode { target } => InfoHash(target.0),
                _ => return Ok(()),
            };
            if materials.by_info_hash(about).is_some_and(is_private) {
                return Err("the DHT is asked about a private torrent".to_owned());
            }
        }
        Output::SendDatagram { remote, payload } if remote.ip().is_multicast() => {
            let Some(announce) = LsdAnnounce::parse(payload) else {
                return Err("what the local network is told is no announce".to_owned());
            };
            let mut told = announce.info_hashes.iter().filter_map(|about| materials.by_info_hash(*about));
            if told.any(is_private) {
                return Err("the local network is told of a private torrent".to_owned());
            }
        }
        Output::Send { connection, messages } => {
            let torrent = || process.connections.get(*connection)?.torrent();
            for message in messages {
                let shows = match message {
                    Message::Handshake(Handshake { reserved, info_hash, .. }) => {
                        reserved.dht() && materials.by_info_hash(*info_hash).is_some_and(is_private)
                    }
                    Message::Port(_) => torrent().is_some_and(is_private),
                    _ => false,
                };
                if shows {
                    return Err("a peer of a private torrent is told of a DHT node".to_owned());
                }
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use taipei_engine::wire::lsd::GROUP_V4;

    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn the_local_network_may_be_told_of_public_torrents_alone() {
        let torrents = "[[torrent]]\nname = \"a\"\nsize = \"1 MiB\"\nprivate = true\n[[torrent]]\nname = \"b\"\nsize = \"1 MiB\"\n";
        let head = "[scenario]\nid = \"private\"\nduration = \"1 s\"\n";
        let text = format!("{head}{torrents}[[group]]\nname = \"host\"\ncount = 1\n");
        let materials = Materials::new(Scenario::parse(&text, "private.toml").expect("parses"));
        let told = |torrents: &[usize]| {
            let info_hashes = torrents.iter().map(|torrent| materials.torrents[*torrent].info_hash).collect();
            let announce = LsdAnnounce { port: 1, info_hashes, cookie: Vec::new() };
            let output = Output::SendDatagram { remote: GROUP_V4, payload: announce.encode(GROUP_V4).into() };
            check(&ProcessWatch::default(), &materials, &output)
        };
        assert!(told(&[1]).is_ok());
        assert!(told(&[0]).is_err() && told(&[1, 0]).is_err() && told(&[]).is_err());
    }
}
