//! Private torrents (BEP 27): the DHT never hears of them.

use taipei_engine::wire::krpc::{Ask, Body, Packet};
use taipei_engine::wire::{Handshake, Message};
use taipei_engine::{InfoHash, Output};

use super::host::ProcessWatch;
use crate::plan::Materials;

/// Whether an output says nothing of a private torrent that the DHT is for.
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
        Output::Send { connection, messages } => {
            let torrent = || process.connections.get(connection)?.torrent();
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
