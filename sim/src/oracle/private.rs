//! Private torrents (BEP 27): neither the DHT nor the local network ever hears of them, and peers do not hear of each other.

use taipei_engine::wire::krpc::{Ask, Body, Packet};
use taipei_engine::wire::{Handshake, LsdAnnounce, Message, MetadataMessage};
use taipei_engine::{InfoHash, Output};

use super::host::ProcessWatch;
use crate::plan::Materials;

/// What an output says by the DHT, to the local network or by peer exchange: the mark of it, and an error where that is of
/// a private torrent.
pub(super) fn check(
    process: &ProcessWatch,
    materials: &Materials,
    output: &Output,
) -> Result<Option<&'static str>, String> {
    let is_private = |torrent: usize| materials.scenario.torrents[torrent].private;
    match output {
        Output::SendDatagram { payload, .. } if payload.starts_with(b"d") => {
            let Ok(Packet { body: Body::Query(query), .. }) = Packet::parse(payload) else { return Ok(None) };
            let about = match query.ask {
                Ask::GetPeers { info_hash, .. } | Ask::AnnouncePeer { info_hash, .. } => info_hash,
                Ask::FindNode { target }
                | Ask::Get { target, .. }
                | Ask::SampleInfohashes { target }
                | Ask::Other { target: Some(target) } => InfoHash(target.0),
                _ => return Ok(None),
            };
            match materials.by_info_hash(about) {
                Some(torrent) if is_private(torrent) => {
                    Err("the DHT is asked about a private torrent".to_owned())
                }
                about => Ok(about.map(|_| "dht_asked")),
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
            Ok(Some("lsd_announce"))
        }
        Output::Send { connection, messages } => {
            let is_about_private = || {
                let named = messages.iter().find_map(|message| match message {
                    Message::Handshake(handshake) => materials.by_info_hash(handshake.info_hash),
                    _ => None,
                });
                named.or_else(|| process.connections.get(*connection)?.torrent()).is_some_and(is_private)
            };
            let mut mark = None;
            for message in messages {
                let (shows_node, offers, tells) = match message {
                    Message::Handshake(Handshake { reserved, .. }) => (reserved.dht(), false, false),
                    Message::Port(_) => (true, false, false),
                    Message::ExtendedHandshake(ours) => {
                        (false, ours.m.iter().any(|(name, id)| name == "ut_pex" && *id != 0), false)
                    }
                    // Beside metadata we have nothing to say but peers.
                    Message::Extended { payload, .. } => {
                        (false, false, MetadataMessage::decode(payload).is_none())
                    }
                    _ => continue,
                };
                if shows_node && is_about_private() {
                    return Err("a peer of a private torrent is told of a DHT node".to_owned());
                }
                if (offers || tells) && is_about_private() {
                    return Err("a peer of a private torrent is told of others".to_owned());
                }
                mark = mark.or(tells.then_some("pex_told"));
            }
            Ok(mark)
        }
        _ => Ok(None),
    }
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
