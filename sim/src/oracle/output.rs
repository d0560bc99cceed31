//! What comes out of engines: messages, dials, jobs, announces, alerts.

use taipei_engine::disk::Work;
use taipei_engine::wire::Message;
use taipei_engine::wire::tracker_udp::UdpRequest;
use taipei_engine::{Alert, InfoHash, Output, TorrentId};

use super::announce::Announce;
use super::host::{HostWatch, Pending};
use super::wire::Claim;
use super::{Broken, Watch};
use crate::disk::SimDisk;
use crate::plan::{Materials, Plan};
use crate::trace::Kind;

impl Watch {
    pub(super) fn output(
        &mut self,
        now: u64,
        host: usize,
        output: &Output,
        disk: &SimDisk,
    ) -> Result<(), Broken> {
        let materials = self.materials.clone();
        let HostWatch { process: Some(process), liars, .. } = &mut self.hosts[host] else { return Ok(()) };
        if process.stopped {
            return Err(("S15", "an output after it had stopped".to_owned()));
        }
        match output {
            Output::Send { connection, messages } => {
                let Some(watch) = process.connections.get_mut(connection) else { return Ok(()) };
                let is_full = watch.torrent().is_some_and(|torrent| process.full.contains_key(&torrent));
                let liar = process.remotes.get(connection).and_then(|remote| self.plan.liar_at(*remote));
                let mut claims = Vec::new();
                for message in messages {
                    if let (Some(liar), Some(torrent), Message::Request(request)) =
                        (liar, watch.torrent(), message)
                    {
                        liars.on_asked(now, torrent, request.piece, liar);
                    }
                    if is_full && matches!(message, Message::Request(_)) {
                        return Err(("S4", "a request while the disk is full".to_owned()));
                    }
                    claims.push(watch.on_sent(message, &materials)?);
                }
                for claim in claims {
                    check_claim(claim, &materials, disk)?;
                }
            }
            Output::Connect { connection, remote } => {
                process.remotes.insert(*connection, remote.ip());
                if process.banned.contains(&remote.ip()) {
                    return Err(("S8", format!("dials {remote}, which it banned")));
                }
            }
            Output::Close { connection } => {
                process.connections.remove(connection);
                process.remotes.remove(connection);
            }
            Output::Job { job, work } => {
                let Some(torrent) = materials.by_info_hash(work.place.info_hash) else { return Ok(()) };
                let numbers = |pieces: &[taipei_engine::PieceIndex]| {
                    pieces.iter().map(|piece| piece.get()).collect::<Vec<u32>>()
                };
                let pending = match &work.work {
                    Work::Open { .. } => Pending::Open,
                    Work::Check { pieces } => {
                        if process.fetched.contains(&torrent) {
                            self.marks.insert("checked_again");
                        }
                        Pending::Check(numbers(pieces))
                    }
                    Work::Record { good, .. } => Pending::Record(numbers(good)),
                    Work::Snapshot { have, .. } => {
                        Pending::Snapshot(have.iter().map(|piece| piece.get()).collect())
                    }
                    _ => Pending::Other,
                };
                process.jobs.insert(*job, (torrent, pending, self.steps));
            }
            Output::HttpGet(get) => {
                let Some(announce) = Announce::parse(&get.path) else { return Ok(()) };
                let Some(torrent) = materials.by_info_hash(InfoHash(announce.info_hash)) else {
                    return Err(("S9", "an announce of an unknown torrent".to_owned()));
                };
                let tracker = self.plan.tracker_name(get.target);
                let whole = process.whole_from_start.contains(&torrent);
                let watch = process.announces.entry((torrent, tracker.clone())).or_default();
                let asked = watch.on_asked(now, &announce, whole).and_then(|()| {
                    let names = tiers_of(&materials, &self.plan, torrent);
                    process.tiers.entry(torrent).or_default().on_asked(names, &tracker, announce.event())
                });
                process.http.insert(get.request, (torrent, tracker.clone(), announce));
                asked.map_err(|message| ("S9", format!("{message} (tracker {tracker})")))?;
            }
            Output::SendDatagram { remote, payload } => {
                let (transaction, announce) = match UdpRequest::parse(payload) {
                    Some(UdpRequest::Announce { transaction, announce, .. }) => (transaction, announce),
                    Some(UdpRequest::Connect { .. }) => {
                        // Until it is answered, nobody can be told anything there.
                        let tracker = self.plan.tracker_name(*remote);
                        for torrent in 0..materials.torrents.len() {
                            process.tiers.entry(torrent).or_default().on_tried(&tracker);
                        }
                        return Ok(());
                    }
                    _ => return Ok(()),
                };
                let announce = Announce::over_udp(&announce);
                let Some(torrent) = materials.by_info_hash(InfoHash(announce.info_hash)) else {
                    return Err(("S9", "an announce of an unknown torrent".to_owned()));
                };
                // A copy says nothing new.
                if process.udp.contains_key(&(*remote, transaction)) {
                    return Ok(());
                }
                let tracker = self.plan.tracker_name(*remote);
                let whole = process.whole_from_start.contains(&torrent);
                let watch = process.announces.entry((torrent, tracker.clone())).or_default();
                let asked = watch.on_asked(now, &announce, whole).and_then(|()| {
                    let names = tiers_of(&materials, &self.plan, torrent);
                    process.tiers.entry(torrent).or_default().on_asked(names, &tracker, announce.event())
                });
                process.udp.insert((*remote, transaction), (now, torrent, tracker.clone(), announce));
                asked.map_err(|message| ("S9", format!("{message} (tracker {tracker})")))?;
            }
            Output::HttpCancel { request } => {
                process.http.remove(request);
            }
            Output::Alert(alert) => return self.alert(now, host, alert, disk),
            _ => {}
        }
        Ok(())
    }

    fn alert(&mut self, now: u64, host: usize, alert: &Alert, disk: &SimDisk) -> Result<(), Broken> {
        let watch = &mut self.hosts[host];
        match alert {
            Alert::PieceFinished { torrent, piece } => {
                let (number, piece) = (number_of(*torrent), piece.get());
                self.trace.event(now, host as u32 + 1, Kind::Piece, [number as u64, u64::from(piece), 0]);
                let (offset, length) = self.materials.torrents[number].piece(piece);
                watch.have.entry(number).or_default().insert(piece);
                watch.liars.on_good(number, piece);
                self.copies_changed = true;
                if let Some(process) = &mut watch.process {
                    process.fetched.insert(number);
                }
                if !disk.holds(number as u32, offset, length) {
                    return Err(("S1", format!("piece {piece} is finished, but is not right on disk")));
                }
            }
            Alert::PieceFailed { torrent, piece } => {
                self.marks.insert("piece_hash_bad");
                let spoiled = watch.liars.on_bad(now, number_of(*torrent), piece.get());
                let expects = &self.materials.scenario.expects;
                let most = expects.iter().filter_map(|expect| Some(expect.banned?.bad_pieces)).min();
                for (liar, count) in spoiled {
                    if most.is_some_and(|most| count > most) {
                        let name = &self.plan.hosts[liar].name;
                        return Err(("S20", format!("{name} spoiled {count} pieces and is not banned")));
                    }
                }
            }
            Alert::Completed { torrent } => {
                let number = number_of(*torrent);
                self.trace.event(now, host as u32 + 1, Kind::Complete, [number as u64, 0, 0]);
                watch.completed_at.insert(number, now);
                if !disk.holds(number as u32, 0, self.materials.torrents[number].content.len()) {
                    return Err(("S1", "completed, but its files are not right".to_owned()));
                }
            }
            Alert::PeerBanned { address, .. } => {
                let banned = self.plan.host_at(address.ip()).map(|host| &self.plan.hosts[host]);
                watch.banned.insert(banned.map_or_else(|| address.to_string(), |plan| plan.name.clone()));
                if let Some(process) = &mut watch.process {
                    process.banned.insert(address.ip());
                }
                if banned.is_none_or(|plan| plan.lies.is_none()) {
                    return Err(("S19", format!("bans {address}, which never lied")));
                }
            }
            Alert::AddFailed { error, .. } => {
                return Err(("S14", format!("a torrent could not be added: {error}")));
            }
            Alert::DiskFailed { .. } => {
                self.marks.insert("disk_error");
            }
            Alert::Stopped => {
                if let Some(process) = &mut watch.process {
                    process.stopped = true;
                    let left = process.connections.len();
                    if left > 0 {
                        return Err(("S15", format!("stopped with {left} connections open")));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn check_claim(claim: Claim, materials: &Materials, disk: &SimDisk) -> Result<(), Broken> {
    let holds = |torrent: usize, piece: u32| {
        let (offset, length) = materials.torrents[torrent].piece(piece);
        disk.holds(torrent as u32, offset, length)
    };
    let bad = match claim {
        Claim::None => None,
        Claim::All(torrent) => (!disk.holds(torrent as u32, 0, materials.torrents[torrent].content.len()))
            .then_some("everything".to_owned()),
        Claim::Piece(torrent, piece) => (!holds(torrent, piece)).then(|| format!("piece {piece}")),
        Claim::Bits(torrent, pieces) => {
            pieces.into_iter().find(|piece| !holds(torrent, *piece)).map(|piece| format!("piece {piece}"))
        }
    };
    match bad {
        Some(what) => Err(("S2", format!("announced or served {what}, which is not right on disk"))),
        None => Ok(()),
    }
}

/// Torrents are added under their number.
fn number_of(torrent: TorrentId) -> usize {
    torrent.0 as usize
}

/// The trackers of a torrent by name, tier by tier.
fn tiers_of<'a>(
    materials: &'a Materials,
    plan: &'a Plan,
    torrent: usize,
) -> impl Iterator<Item = impl Iterator<Item = &'a str>> {
    let tiers = materials.torrents[torrent].tiers.iter();
    tiers.map(|tier| tier.iter().map(|one| plan.trackers[*one].name.as_str()))
}
