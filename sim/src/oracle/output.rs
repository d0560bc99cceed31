//! What comes out of engines: messages, dials, jobs, announces, alerts.

use core::net::SocketAddr;
use std::collections::BTreeSet;

use taipei_engine::address::{Scope, is_acceptable};
use taipei_engine::disk::{StorageErrorKind, Work};
use taipei_engine::limits::{BLOCK_BYTES, JOBS_MAX};
use taipei_engine::wire::Message;
use taipei_engine::wire::tracker_udp::UdpRequest;
use taipei_engine::{Alert, ConnectionId, InfoHash, Output, TorrentId, TorrentState};

use super::announce::{Announce, AnnounceWatch, other_family};
use super::damage::DamageWatch;
use super::host::{AskedByUdp, Greeted, HostWatch, Pending, ProcessWatch};
use super::input::UDP_PATIENCE;
use super::wire::Claim;
use super::{Broken, Watch, limits, private};
use crate::disk::SimDisk;
use crate::plan::{Materials, Plan, ROOT};
use crate::trace::Kind;

impl Watch {
    pub(super) fn output(
        &mut self,
        now: u64,
        host: usize,
        output: &Output,
        disk: &SimDisk,
    ) -> Result<(), Broken> {
        let materials = &*self.materials;
        let HostWatch { process: Some(process), liars, damage, .. } = &mut self.hosts[host] else {
            return Ok(());
        };
        if process.stopped {
            return Err(("S15", "an output after it had stopped".to_owned()));
        }
        let is_wire = matches!(
            output,
            Output::Send { .. } | Output::Grant { .. } | Output::Connect { .. } | Output::Close { .. }
        );
        if is_wire && !self.is_looking {
            return Ok(());
        }
        let told = private::check(process, materials, output).map_err(|message| ("S10", message))?;
        if let Some(mark) = told {
            self.marks.insert(mark);
            self.without_trackers += u64::from(mark != "pex_told");
        }
        match output {
            Output::Send { connection, messages } => {
                let Some(watch) = process.connections.get_mut(*connection) else { return Ok(()) };
                self.ledger.on_given(watch.end.number, &self.digests);
                let lies = self.plan.hosts[host].lies.is_some();
                let is_full = watch.torrent().is_some_and(|torrent| process.full.contains_key(&torrent));
                let liar = watch.host.filter(|host| self.plan.hosts[*host].poisons());
                let mut payload = 0;
                for message in messages {
                    match message {
                        Message::Request(_) if is_full => {
                            return Err(("S4", "a request while the disk is full".to_owned()));
                        }
                        Message::Request(request) => {
                            if let Some((torrent, liar)) = watch.torrent().zip(liar) {
                                liars.on_asked(now, torrent, request.piece, liar);
                            }
                        }
                        Message::Piece { data, .. } => {
                            payload += u64::from(data.len());
                            *self.uploaded.entry(watch.host).or_default() += u64::from(data.len());
                        }
                        Message::Handshake(_) => process.is_changed = true,
                        Message::Unchoke => process.serves_more = true,
                        Message::KeepAlive => {
                            self.marks.insert("keep_alive");
                        }
                        Message::Cancel(request) if process.batch_blocks.contains(request) => {
                            self.marks.insert("endgame");
                        }
                        _ => {}
                    }
                    let claim = watch.on_sent(now, message, materials)?;
                    check_claim(claim, materials, disk, damage)?;
                }
                if let Some(torrent) = watch.torrent().filter(|_| !lies) {
                    check_served(torrent, messages, materials, damage)?;
                }
                if process.banned.contains(&SocketAddr::new(watch.remote, 0)) {
                    return Err(("S8", format!("answers {}, which it banned", watch.remote)));
                }
                limits::check_unsent(watch.unsent()).map_err(|message| ("S7", message))?;
                if let Some(torrent) = watch.torrent().filter(|_| payload > 0) {
                    let counted = process.counted.entry(torrent).or_default();
                    counted.sent.0 += payload;
                }
                self.mark_turns(now, host, *connection, messages);
            }
            Output::Grant { connection, read_bytes, write_bytes } => {
                if let Some(watch) = process.connections.get_mut(*connection) {
                    watch.end.on_granted(*read_bytes, *write_bytes);
                }
            }
            Output::Connect { connection, remote } => {
                process.dials.insert(*connection, remote.ip());
                process.is_changed = true;
                if process.banned.contains(&ban_of(*remote)) {
                    return Err(("S8", format!("dials {remote}, which it banned")));
                }
                if !is_acceptable(*remote, self.plan.hosts[host].address) {
                    return Err(("S8", format!("dials {remote}, where no peer of a public swarm can be")));
                }
                self.minute.on_dialled(self.steps, host, *remote);
                let dialled = process.rates.on_dial(now, &self.plan.hosts[host].config);
                dialled.map_err(|message| ("S7", message))?;
            }
            Output::Close { connection } => {
                process.dials.remove(connection);
                if let Some(watch) = process.connections.remove(*connection) {
                    process.rates.on_changed(now);
                    process.closed += 1;
                    self.ledger.close(watch.end.number);
                }
                // Of what came with the message that ended it, nobody knows how much counts.
                if let Some((from, torrent, payload)) = process.batch.filter(|batch| batch.0 == *connection) {
                    process.batch = Some((from, torrent, 0));
                    process.counted.entry(torrent).or_default().received.0 -= payload;
                }
            }
            Output::Job { job, work } => {
                let Some(torrent) = materials.by_info_hash(work.place.info_hash) else { return Ok(()) };
                if work.place.root != ROOT || !work.place.state_root.is_empty() {
                    return Err(("S13", format!("a job in {}", work.place.root)));
                }
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
                    Work::Look => Pending::Look,
                    Work::Record { good, .. } => Pending::Record(numbers(good)),
                    Work::Snapshot { have, totals, .. } => {
                        // A job that waited for one of others to end says what was so before.
                        let fresh = process.jobs.len() + 1 < JOBS_MAX;
                        let counted = process.counted.entry(torrent).or_default();
                        let checked = counted.check_totals(totals.downloaded, totals.uploaded, fresh);
                        checked.map_err(|message| ("S3", message))?;
                        let have = have.iter().map(|piece| piece.get()).collect();
                        Pending::Snapshot(have, *totals, disk.broken_promises())
                    }
                    Work::Write { piece, runs, .. } => {
                        for run in runs {
                            for (begin, data) in (run.begin..).step_by(BLOCK_BYTES as usize).zip(&run.blocks)
                            {
                                liars.on_write(torrent, piece.get(), begin, data);
                            }
                        }
                        let bytes =
                            runs.iter().flat_map(|run| &run.blocks).map(|block| u64::from(block.len()));
                        if bytes.sum::<u64>() < materials.torrents[torrent].piece(piece.get()).1 {
                            self.marks.insert("written_early");
                            self.squeezed += 1;
                        }
                        Pending::Other
                    }
                    Work::Hash { pieces } => {
                        if pieces.len() > 1 {
                            self.marks.insert("hashed_together");
                        }
                        if pieces.iter().any(|piece| piece.blocks.is_empty()) {
                            self.marks.insert("read_back");
                            self.squeezed += 1;
                        }
                        Pending::Other
                    }
                    _ => Pending::Other,
                };
                process.jobs.insert(*job, (torrent, pending, self.steps));
            }
            Output::Resolve { host: name, .. } => {
                // Until its address is known, nobody can be told anything there.
                let found = self.plan.trackers.iter().filter(|tracker| tracker.dns_name == *name);
                for tracker in found {
                    for torrent in 0..materials.torrents.len() {
                        process.tiers.entry(torrent).or_default().on_tried(now, &tracker.name);
                    }
                }
            }
            Output::HttpGet(get) => {
                let Some(announce) = Announce::parse(&get.path) else { return Ok(()) };
                let Some(torrent) = materials.by_info_hash(InfoHash(announce.info_hash)) else {
                    return Err(("S9", "an announce of an unknown torrent".to_owned()));
                };
                let tracker = self.plan.tracker_name(get.target);
                let redirected = (torrent, tracker.clone(), announce.clone());
                if let Some(at) = process.redirects.iter().position(|(to, _)| *to == redirected) {
                    // The same announce, where its answer said.
                    let (_, from) = process.redirects.remove(at);
                    process.http.insert(get.request, (torrent, from, announce));
                    return Ok(());
                }
                let spoiled = damage.has_spoiled(torrent);
                let asked =
                    asked(process, materials, &self.plan, (now, torrent, spoiled), &tracker, &announce);
                if let Ok(true) = asked {
                    self.marks.insert("tier_changed");
                }
                process.http.insert(get.request, (torrent, tracker.clone(), announce));
                asked?;
            }
            Output::SendDatagram { remote, payload } => {
                let (transaction, announce) = match UdpRequest::parse(payload) {
                    Some(UdpRequest::Announce { transaction, announce, .. }) => (transaction, announce),
                    Some(UdpRequest::Connect { transaction }) => {
                        // Until it is answered, nobody can be told anything there.
                        let greeted =
                            process.greeted.entry(*remote).or_insert(Greeted { transaction, since: now });
                        if greeted.transaction != transaction {
                            *greeted = Greeted { transaction, since: now };
                        }
                        let tracker = self.plan.tracker_name(*remote);
                        for torrent in 0..materials.torrents.len() {
                            process.tiers.entry(torrent).or_default().on_tried(now, &tracker);
                        }
                        return Ok(());
                    }
                    _ => return Ok(()),
                };
                let announce = Announce::over_udp(&announce);
                let Some(torrent) = materials.by_info_hash(InfoHash(announce.info_hash)) else {
                    return Err(("S9", "an announce of an unknown torrent".to_owned()));
                };
                // A copy says nothing new, but that whoever asked still waits, and may have slept.
                if let Some(asked) = process.udp.get_mut(&(*remote, transaction)) {
                    (asked.at, asked.is_refused) = (now, false);
                    return Ok(());
                }
                let tracker = self.plan.tracker_name(*remote);
                let spoiled = damage.has_spoiled(torrent);
                let asked =
                    asked(process, materials, &self.plan, (now, torrent, spoiled), &tracker, &announce);
                if let Ok(true) = asked {
                    self.marks.insert("tier_changed");
                }
                self.marks.insert("udp_announce");
                // Who came while another waited sent nothing then; older than that it would have been given up.
                let since = process.greeted.get(remote).map_or(now, |greeted| greeted.since);
                let since = since.max(now.saturating_sub(UDP_PATIENCE));
                let tracker = tracker.clone();
                let asked_by_udp =
                    AskedByUdp { at: now, since, torrent, tracker, announce, is_refused: false };
                process.udp.insert((*remote, transaction), asked_by_udp);
                asked?;
            }
            Output::HttpCancel { request } => {
                process.http.remove(request);
            }
            Output::Alert(alert) => return self.alert(now, host, alert, disk),
            _ => {}
        }
        Ok(())
    }

    /// Notes what the messages to a peer say about its turn, and about others'.
    fn mark_turns(&mut self, now: u64, host: usize, connection: ConnectionId, messages: &[Message]) {
        let Some(process) = self.hosts[host].process.as_ref().filter(|process| process.is_timeout) else {
            return;
        };
        let others = || {
            let all = process.connections.iter();
            all.filter(|(other, _)| *other != connection.number()).map(|(_, other)| other)
        };
        for message in messages {
            match message {
                Message::Unchoke if others().any(|other| other.waits_since().is_some()) => {
                    self.marks.insert("optimistic_unchoke");
                }
                Message::Request(request)
                    if others().any(|other| other.waits_for(now, request).is_some()) =>
                {
                    self.marks.insert("snubbed");
                }
                _ => {}
            }
        }
    }

    fn alert(&mut self, now: u64, host: usize, alert: &Alert, disk: &SimDisk) -> Result<(), Broken> {
        self.is_news = true;
        let watch = &mut self.hosts[host];
        match alert {
            Alert::MetadataReceived { torrent, torrent_file } => {
                self.metadata_received += 1;
                let right = &self.materials.torrents[number_of(*torrent)].info;
                if torrent_file.get(TORRENT_HEAD.len()..torrent_file.len() - 1) != Some(right) {
                    return Err(("S1", "metadata that is not the torrent's".to_owned()));
                }
            }
            Alert::PieceFinished { torrent, piece } => {
                let (number, piece) = (number_of(*torrent), piece.get());
                self.trace.event(now, host as u32 + 1, Kind::Piece, [number as u64, u64::from(piece), 0]);
                let (offset, length) = self.materials.torrents[number].piece(piece);
                watch.have.entry(number).or_default().insert(piece);
                watch.loss.on_good(number, piece, now);
                watch.liars.on_good(number, piece);
                self.copies_changed = true;
                if let Some(process) = &mut watch.process {
                    process.fetched.insert(number);
                    process.told_complete.remove(&number);
                    process.looked_at.remove(&number);
                    if process.failed.remove(&(number, piece)).is_some_and(|senders| senders.len() == 1) {
                        self.marks.insert("parole");
                    }
                }
                if disk.holds(number as u32, offset, length) {
                    watch.damage.on_told(number, piece);
                } else if self.is_looking && !watch.damage.may_claim(number, piece) {
                    return Err(("S1", format!("piece {piece} is finished, but is not right on disk")));
                }
            }
            Alert::PieceFailed { torrent, piece } => {
                self.marks.insert("piece_hash_bad");
                if let Some(process) = &mut watch.process {
                    process.failed.insert((number_of(*torrent), piece.get()), BTreeSet::new());
                }
                let spoiled = if watch.damage.is_spoiled(number_of(*torrent), piece.get()) {
                    watch.liars.on_unsure(number_of(*torrent), piece.get());
                    Vec::new()
                } else {
                    watch.liars.on_bad(now, number_of(*torrent), piece.get())
                };
                let expects = &self.materials.scenario.expects;
                let most = expects.iter().filter_map(|expect| Some(expect.banned?.bad_pieces)).min();
                for (liar, count) in spoiled {
                    let liar = &self.plan.hosts[liar];
                    // What it sent before that may be hashed after it.
                    let is_banned = watch.process.as_ref().is_some_and(|process| {
                        process.banned.iter().any(|banned| banned.ip() == liar.address)
                    });
                    if most.is_some_and(|most| count > most) && !is_banned {
                        let name = &liar.name;
                        return Err(("S20", format!("{name} spoiled {count} pieces and is not banned")));
                    }
                }
            }
            Alert::Completed { torrent } => {
                let number = number_of(*torrent);
                self.trace.event(now, host as u32 + 1, Kind::Complete, [number as u64, 0, 0]);
                watch.completed_at.insert(number, now);
                let count = watch.have.get(&number).map_or(0, BTreeSet::len);
                if (count as u32) < self.materials.torrents[number].piece_count() {
                    return Err(("S21", format!("complete, with {count} pieces")));
                }
                if watch.process.as_mut().is_some_and(|process| !process.told_complete.insert(number)) {
                    return Err(("S21", "complete, again".to_owned()));
                }
                let material = &self.materials.torrents[number];
                let looked_at = watch.process.as_ref().and_then(|process| process.looked_at.get(&number));
                let wrong = (0..material.piece_count()).find(|piece| {
                    let (offset, length) = material.piece(*piece);
                    let damage = &watch.damage;
                    let came_later = looked_at.is_some_and(|step| damage.is_younger(number, *piece, *step));
                    !disk.holds(number as u32, offset, length)
                        && !damage.may_believe(number, *piece)
                        && !came_later
                });
                if let Some(piece) = wrong.filter(|_| self.is_looking) {
                    return Err(("S1", format!("completed, but piece {piece} is not right")));
                }
            }
            Alert::PeerBanned { address, .. } => {
                let banned = self.plan.host_at(address.ip()).map(|host| &self.plan.hosts[host]);
                watch.banned.insert(banned.map_or_else(|| address.to_string(), |plan| plan.name.clone()));
                if let Some(process) = &mut watch.process {
                    process.banned.insert(ban_of(*address));
                }
                self.marks.insert("banned");
                let gives_bad =
                    |host: usize| !self.plan.hosts[host].is_honest() || self.hosts[host].damage.is_rotten();
                if !self.plan.hosts_at(address.ip()).any(gives_bad) {
                    return Err(("S19", format!("bans {address}, which never lied")));
                }
            }
            Alert::AddFailed { error, .. } => {
                return Err(("S14", format!("a torrent could not be added: {error}")));
            }
            Alert::DiskFailed { torrent, error, .. } => {
                self.marks.insert("disk_error");
                if let Some(process) = &mut watch.process {
                    process.waits_for_disk.insert(number_of(*torrent));
                    if error.kind == StorageErrorKind::Full {
                        process.full_told.insert(number_of(*torrent));
                    }
                }
            }
            Alert::StateChanged { torrent, state } if *state != TorrentState::DiskError => {
                if let Some(process) = &mut watch.process {
                    process.waits_for_disk.remove(&number_of(*torrent));
                    let goes_on = matches!(state, TorrentState::Downloading | TorrentState::Seeding);
                    if goes_on && process.full_told.remove(&number_of(*torrent)) {
                        self.marks.insert("disk_full_waited");
                    }
                }
            }
            Alert::Tracker { result: Err(_), .. } => {
                self.marks.insert("tracker_failed");
            }
            Alert::Stopped => {
                if let Some(process) = &mut watch.process {
                    process.stopped = true;
                    let left = [
                        ("connections", process.connections.len() + process.dials.len()),
                        ("jobs", process.jobs.len()),
                        ("requests", process.http.len()),
                        ("locks", disk.lock_count()),
                    ];
                    if let Some((what, count)) = left.into_iter().find(|(_, count)| *count > 0) {
                        return Err(("S15", format!("stopped with {count} {what} left")));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether an announce may leave, as its tracker, the others and the network know it. True when it is for another tier
/// than the one before.
fn asked(
    process: &mut ProcessWatch,
    materials: &Materials,
    plan: &Plan,
    (now, torrent, spoiled): (u64, usize, bool),
    tracker: &str,
    announce: &Announce,
) -> Result<bool, Broken> {
    let broken = |message: String| ("S9", format!("{message} (tracker {tracker})"));
    let whole = process.whole_from_start.contains(&torrent);
    let elsewhere = process.announces.get(&(torrent, other_family(tracker)));
    let started_elsewhere = elsewhere.is_some_and(AnnounceWatch::has_started);
    let watch = process.announces.entry((torrent, tracker.to_owned())).or_default();
    watch.on_elsewhere(started_elsewhere);
    watch.on_asked(now, announce, whole, spoiled).map_err(broken)?;
    let tiers = process.tiers.entry(torrent).or_default();
    tiers.on_asked(now, tiers_of(materials, plan, torrent), tracker, announce.event()).map_err(broken)?;
    let counted = process.counted.entry(torrent).or_default();
    let (downloaded, uploaded) = announce.counters();
    counted.check_announced(downloaded, uploaded).map_err(|message| ("S3", message))?;
    let tier = tiers_of(materials, plan, torrent).position(|mut tier| tier.any(|one| one == tracker));
    let before = tier.and_then(|tier| process.tier.insert(torrent, tier));
    Ok(before.is_some() && before != tier)
}

/// Blocks that are sent are what they should be: S2.
fn check_served(
    torrent: usize,
    messages: &[Message],
    materials: &Materials,
    damage: &DamageWatch,
) -> Result<(), Broken> {
    for message in messages {
        if let Message::Piece { piece, begin, data } = message
            && !damage.may_serve(torrent, *piece)
            && !materials.torrents[torrent].is_right(*piece, *begin, data)
        {
            return Err(("S2", format!("served a block of piece {piece} that is wrong")));
        }
    }
    Ok(())
}

fn check_claim(
    claim: Claim,
    materials: &Materials,
    disk: &SimDisk,
    damage: &DamageWatch,
) -> Result<(), Broken> {
    let holds = |torrent: usize, piece: u32| {
        let (offset, length) = materials.torrents[torrent].piece(piece);
        disk.holds(torrent as u32, offset, length) || damage.may_claim(torrent, piece)
    };
    let bad = match claim {
        Claim::None => None,
        Claim::All(torrent) => {
            let material = &materials.torrents[torrent];
            let all = disk.holds(torrent as u32, 0, material.content.len())
                || (0..material.piece_count()).all(|piece| holds(torrent, piece));
            (!all).then_some("everything".to_owned())
        }
        Claim::Piece(torrent, piece) => (!holds(torrent, piece)).then(|| format!("piece {piece}")),
        Claim::Block(torrent, piece) => {
            (!holds(torrent, piece) && !damage.is_spoiled(torrent, piece)).then(|| format!("piece {piece}"))
        }
        Claim::Bits(torrent, pieces) => {
            pieces.into_iter().find(|piece| !holds(torrent, *piece)).map(|piece| format!("piece {piece}"))
        }
    };
    match bad {
        Some(what) => Err(("S2", format!("announced or served {what}, which is not right on disk"))),
        None => Ok(()),
    }
}

/// What a ban of an address is of: on a local network, where many may share one address, of a port alone.
fn ban_of(address: SocketAddr) -> SocketAddr {
    let is_public = Scope::of(address.ip()) == Scope::Public;
    SocketAddr::new(address.ip().to_canonical(), if is_public { 0 } else { address.port() })
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

/// What a torrent file with nothing beside the info dictionary begins with; one byte ends it.
const TORRENT_HEAD: &[u8] = b"d4:info";
