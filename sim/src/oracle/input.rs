//! What goes into engines: blocks, answers, results of jobs.

use std::collections::BTreeSet;

use taipei_engine::disk::{JobResult, Saved, StorageErrorKind};
use taipei_engine::input::CloseReason;
use taipei_engine::limits::ANNOUNCE_MIN_INTERVAL;
use taipei_engine::wire::tracker_http::AnnounceAnswer;
use taipei_engine::wire::tracker_udp::UdpAnswer;
use taipei_engine::wire::{Message, Request, lsd};
use taipei_engine::{BlockData, Command, ConnectionId, Input};

use super::host::{AskedByUdp, HostWatch, Pending};
use super::wire::{ConnectionWatch, Wait};
use super::{Broken, Watch};
use crate::disk::SimDisk;
use crate::scenario::{Expect, FaultKind, Lost};

type WrongBlock<'a> = (usize, u32, u32, &'a BlockData, usize);

impl Watch {
    pub(super) fn input(
        &mut self,
        now: u64,
        host: usize,
        input: &Input,
        disk: &SimDisk,
    ) -> Result<(), Broken> {
        let is_wire = matches!(
            input,
            Input::Received { .. }
                | Input::Sent { .. }
                | Input::Accepted { .. }
                | Input::Connected { .. }
                | Input::Closed { .. }
        );
        if is_wire && !self.is_looking {
            return Ok(());
        }
        self.is_news |=
            matches!(input, Input::HttpDone { .. } | Input::Datagram { .. } | Input::JobDone { .. });
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        process.batch = None;
        process.batch_blocks.clear();
        let begins_anew = std::mem::take(&mut process.begins_anew);
        if begins_anew {
            // What is under way over UDP is given up without a word.
            process.udp.clear();
            // What begins now may wait for the same connection id.
            process.greeted.values_mut().for_each(|greeted| greeted.since = now);
        }
        // All that waited for its connection id has gone out.
        if let Some(tracker) = process.greeted_by.take() {
            process.greeted.remove(&tracker);
        }
        process.is_timeout = matches!(input, Input::Timeout);
        match input {
            Input::Timeout | Input::Resolved { .. } => self.minute.wakes += 1,
            Input::Sent { connection, written_bytes } => {
                let Some(watch) = process.connections.get_mut(*connection) else { return Ok(()) };
                watch.on_written(u64::from(*written_bytes));
                let written = self.ledger.on_written(&watch.end, u64::from(*written_bytes));
                written.map_err(|message| ("S3", message))?;
                let (config, count) = (&self.plan.hosts[host].config, process.connections.len());
                let moved = process.rates.on_moved(now, config, (0, u64::from(*written_bytes)), count);
                moved.map_err(|message| ("S7", message))?;
            }
            Input::Received { connection, read_bytes, messages } => {
                return self.on_received(now, host, (*connection, *read_bytes), messages);
            }
            Input::JobDone { job, result } => {
                self.minute.wakes += 1;
                if let Some((torrent, pending, asked_at)) = process.jobs.remove(job) {
                    if error_of(result) == Some(StorageErrorKind::Full) {
                        process.full.insert(torrent, self.steps);
                    } else if is_written(result)
                        && process.full.get(&torrent).is_some_and(|told_at| *told_at <= asked_at)
                    {
                        process.full.remove(&torrent);
                    }
                    return self.job_done(now, host, torrent, (pending, asked_at), result, disk);
                }
            }
            Input::Command(Command::Shutdown) => {
                process.stop_asked_at.get_or_insert(now);
            }
            Input::Accepted { .. } | Input::Connected { .. } | Input::Closed { .. } => {
                return self.on_connections(now, host, input);
            }
            Input::HttpDone { .. } | Input::Datagram { .. } => {
                return self.on_answered(now, host, input, begins_anew);
            }
            _ => {}
        }
        Ok(())
    }

    /// A peer says something.
    fn on_received(
        &mut self,
        now: u64,
        host: usize,
        (connection, read_bytes): (ConnectionId, u32),
        messages: &[Message],
    ) -> Result<(), Broken> {
        let materials = &*self.materials;
        let HostWatch { process: Some(process), received_bytes, fed_at, .. } = &mut self.hosts[host] else {
            return Ok(());
        };
        let count = process.connections.len();
        let Some(watch) = process.connections.get_mut(connection) else { return Ok(()) };
        watch.heard_at = now;
        if self.is_looking {
            let read = self.ledger.on_read(&mut watch.end, u64::from(read_bytes), &self.digests);
            read.map_err(|message| ("S3", message))?;
            let config = &self.plan.hosts[host].config;
            let moved = process.rates.on_moved(now, config, (u64::from(read_bytes), 0), count);
            moved.map_err(|message| ("S7", message))?;
        }
        let from = watch.host;
        let is_puppet = from.is_some_and(|from| self.plan.hosts[from].puppet.is_some());
        self.puppet_messages += if is_puppet { messages.len() as u64 } else { 0 };
        let mut payload = 0;
        let mut wrong = Vec::new();
        for message in messages {
            match message {
                Message::Piece { piece, begin, data } => {
                    self.blocks += 1;
                    *fed_at = now;
                    payload += u64::from(data.len());
                    *received_bytes += u64::from(data.len());
                    let request = Request { piece: *piece, begin: *begin, length: data.len() };
                    match watch.waits_for(now, &request) {
                        None => {
                            self.marks.insert("duplicate_block");
                        }
                        Some(wait) => {
                            if !watch.serves() {
                                self.marks.insert("fast_block");
                            }
                            if let Some(torrent) = watch.torrent().filter(|_| wait == Wait::Surely) {
                                process.tiers.entry(torrent).or_default().on_fed(now);
                            }
                        }
                    }
                    process.batch_blocks.push(request);
                    if let Some(torrent) = watch.torrent()
                        && let Some(senders) = process.failed.get_mut(&(torrent, *piece))
                    {
                        senders.insert(connection);
                    }
                    if let (Some(torrent), Some(from)) = (watch.torrent(), from)
                        && !materials.torrents[torrent].is_right(*piece, *begin, data)
                    {
                        wrong.push((torrent, *piece, *begin, data, from));
                    }
                }
                Message::Handshake(_) => {
                    process.is_changed = true;
                    if from.is_some_and(|from| !process.met.insert(from)) {
                        self.marks.insert("reconnected");
                    }
                }
                Message::Choke => {
                    self.marks.insert("choked");
                }
                Message::RejectRequest(request) if watch.waits_for(now, request).is_some() => {
                    self.marks.insert("request_rejected");
                }
                _ => {}
            }
            watch.on_received(now, message, materials);
        }
        if let Some(torrent) = watch.torrent() {
            let counted = process.counted.entry(torrent).or_default();
            counted.received = (counted.received.0 + payload, counted.received.1 + payload);
            process.batch = Some((connection, torrent, payload));
        }
        if let Some(from) = from.filter(|_| !self.cut_off.is_empty()) {
            self.on_heard(now, host, from);
        }
        self.on_wrong_blocks(host, wrong)
    }

    /// A connection begins, or ends.
    #[cold]
    fn on_connections(&mut self, now: u64, host: usize, input: &Input) -> Result<(), Broken> {
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        match input {
            Input::Accepted { connection, remote } => {
                self.connections_opened += 1;
                let (end, from) = (self.ledger.open(), self.plan.host_at(remote.ip()));
                if self.pairs_by_address {
                    self.ledger.pair_by(*remote, end.number);
                }
                let watch = ConnectionWatch::new(now, end, remote.ip(), from, true);
                process.connections.insert(*connection, watch);
                process.rates.on_changed(now);
                process.is_changed = true;
            }
            Input::Connected { connection, local } => {
                self.connections_opened += 1;
                let Some(remote) = process.dials.remove(connection) else { return Ok(()) };
                let (end, from) = (self.ledger.open(), self.plan.host_at(remote));
                if self.pairs_by_address {
                    self.ledger.pair_by(*local, end.number);
                }
                let watch = ConnectionWatch::new(now, end, remote, from, false);
                process.connections.insert(*connection, watch);
                process.rates.on_changed(now);
                process.is_changed = true;
            }
            Input::Closed { connection, reason } => {
                if process.dials.remove(connection).is_some() {
                    self.marks.insert("dial_failed");
                }
                let Some(watch) = process.connections.remove(*connection) else { return Ok(()) };
                process.rates.on_changed(now);
                let ended = match reason {
                    CloseReason::EndOfStream => self.ledger.on_end_of_stream(&watch.end),
                    CloseReason::Network(_) => {
                        self.marks.insert("connection_lost");
                        Ok(())
                    }
                    _ => Ok(()),
                };
                self.ledger.close(watch.end.number);
                ended.map_err(|message| ("S3", message))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Something came that is no peer's stream.
    #[cold]
    fn on_answered(&mut self, now: u64, host: usize, input: &Input, begins_anew: bool) -> Result<(), Broken> {
        let HostWatch { process: Some(process), announces, announced_at, was_heard, .. } =
            &mut self.hosts[host]
        else {
            return Ok(());
        };
        match input {
            Input::HttpDone { request, result } => {
                self.minute.wakes += 1;
                let Some((torrent, tracker, announce)) = process.http.remove(request) else { return Ok(()) };
                let location = result.as_ref().ok().and_then(|response| response.location.as_deref());
                if let Some(to) = location.and_then(|location| self.plan.tracker_of(location, &tracker)) {
                    process.redirects.push(((torrent, to, announce), tracker));
                    return Ok(());
                }
                let watch = process.announces.entry((torrent, tracker.clone())).or_default();
                let response = result.as_ref().ok().filter(|_| !begins_anew);
                let taken = watch.on_answered(now, &announce, response);
                let peers = result.as_ref().map_or(0, |answer| peers_in(&answer.body));
                process.tiers.entry(torrent).or_default().on_answered(now, &tracker, taken, peers);
                *was_heard |= taken;
                if taken {
                    self.announces += 1;
                    announced_at.insert(tracker.clone(), now);
                    if !announce.event().is_empty() {
                        *announces.entry(tracker).or_default().entry(announce.event()).or_default() += 1;
                    }
                }
            }
            Input::Datagram { remote, payload }
                if lsd::is_announce(payload)
                    && self.plan.host_at(remote.ip()).is_some_and(|from| from != host) =>
            {
                self.marks.insert("lsd_heard");
            }
            Input::Datagram { remote, payload } => {
                let answer = UdpAnswer::parse(payload, remote.is_ipv6());
                let (transaction, interval, peers) = match answer {
                    Some(UdpAnswer::Announced { transaction, interval, peers, .. }) => {
                        (transaction, interval, peers)
                    }
                    Some(UdpAnswer::Failed { transaction, .. }) => {
                        if let Some(asked) = process.udp.get_mut(&(*remote, transaction)) {
                            asked.is_refused = true;
                        }
                        return Ok(());
                    }
                    Some(UdpAnswer::Connected { transaction, .. }) => {
                        let greeted = process.greeted.get(remote);
                        if greeted.is_some_and(|greeted| greeted.transaction == transaction) {
                            process.greeted_by = Some(*remote);
                        }
                        return Ok(());
                    }
                    _ => return Ok(()),
                };
                let Some(asked) = process.udp.remove(&(*remote, transaction)) else { return Ok(()) };
                let AskedByUdp { at: asked_at, since, torrent, tracker, announce, is_refused } = asked;
                let watch = process.announces.entry((torrent, tracker.clone())).or_default();
                // Later it is none any more to who asked. Nobody knows when whose question began that waited for another's
                // connection id.
                if now >= asked_at + UDP_PATIENCE {
                    return Ok(());
                }
                *was_heard = true;
                if is_refused || now >= since + UDP_PATIENCE {
                    watch.on_unsure(&announce);
                } else {
                    watch.on_taken(now, &announce, u64::from(interval).min(ANNOUNCE_MIN_INTERVAL.as_secs()));
                    process.tiers.entry(torrent).or_default().on_answered(now, &tracker, true, peers.len());
                    self.announces += 1;
                    if !announce.event().is_empty() {
                        *announces.entry(tracker).or_default().entry(announce.event()).or_default() += 1;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Wrong blocks came: by torrent, piece, where they begin, and sender.
    fn on_wrong_blocks(&mut self, host: usize, blocks: Vec<WrongBlock<'_>>) -> Result<(), Broken> {
        for (torrent, piece, begin, data, from) in blocks {
            if !self.plan.hosts[from].is_honest() {
                self.hosts[host].liars.on_lie(torrent, piece, begin, data, from);
            } else if !self.hosts[from].damage.may_serve(torrent, piece) {
                return Err(("S3", "a block was changed on its way".to_owned()));
            }
        }
        Ok(())
    }

    /// How old a piece may be that is lost; none where nobody set a limit, and on a disk that breaks its word.
    fn loss_max(&self, disk: &SimDisk) -> Option<u64> {
        let lost = |expect: &Expect| match expect.resume.as_ref()?.lost? {
            Lost::Within(time) => Some(time.0),
            Lost::Unsynced => None,
        };
        let most = self.materials.scenario.expects.iter().filter_map(lost).min();
        most.filter(|_| disk.broken_promises() == 0)
    }

    fn job_done(
        &mut self,
        now: u64,
        host: usize,
        torrent: usize,
        (pending, asked_at): (Pending, u64),
        result: &JobResult,
        disk: &SimDisk,
    ) -> Result<(), Broken> {
        let loss_max = self.loss_max(disk);
        let material = &self.materials.torrents[torrent];
        let watch = &mut self.hosts[host];
        match (pending, result) {
            (Pending::Open, JobResult::Opened(Ok(opened))) => {
                let claimed: BTreeSet<u32> = opened.have.iter().map(|piece| piece.get()).collect();
                if opened.unchecked.count() > 0 {
                    self.marks.insert("rechecked");
                }
                if opened.saved == Saved::AsClosed {
                    self.marks.insert("as_closed");
                }
                if !claimed.is_empty() && watch.incarnation > 1 {
                    self.marks.insert("resumed");
                }
                let is_wrong = |piece: &u32| {
                    let (offset, length) = material.piece(*piece);
                    !disk.holds(torrent as u32, offset, length)
                };
                let mut bad: Vec<u32> = claimed.iter().copied().filter(is_wrong).collect();
                if disk.broken_promises() > 0 {
                    bad.iter().for_each(|piece| watch.damage.on_forgotten(torrent, *piece, self.steps));
                }
                // What was spoiled after the files were looked at, the engine cannot know.
                bad.retain(|piece| {
                    !watch.damage.may_believe(torrent, *piece)
                        && !watch.damage.is_younger(torrent, *piece, asked_at)
                });
                for piece in watch.damage.untold(torrent) {
                    if !claimed.contains(&piece) && watch.damage.on_told(torrent, piece) {
                        self.marks.insert("damage_noticed");
                    }
                }
                watch.claimed_but_bad += bad.len() as u32;
                let none = BTreeSet::new();
                let kept = match watch.last_end {
                    Some(FaultKind::PowerCut) => watch.saved.get(&torrent),
                    _ => watch.recorded.get(&torrent),
                }
                .unwrap_or(&none);
                let lost: Vec<u32> = kept
                    .iter()
                    .copied()
                    .filter(|piece| {
                        !claimed.contains(piece)
                            && !opened.unchecked.iter().any(|unchecked| unchecked.get() == *piece)
                    })
                    .collect();
                let totals = watch.totals.get(&torrent).copied().unwrap_or_default();
                if let Some(process) = &mut watch.process {
                    let counted = process.counted.entry(torrent).or_default();
                    counted.before = (opened.totals.downloaded, opened.totals.uploaded);
                }
                let forgets =
                    opened.totals.downloaded < totals.downloaded || opened.totals.uploaded < totals.uploaded;
                let unchecked = opened.unchecked.iter().map(|piece| piece.get()).collect();
                let age = watch.loss.on_opened(torrent, &claimed, unchecked, now);
                watch.have.insert(torrent, claimed);
                watch.note_if_whole(torrent, material.piece_count());
                if !bad.is_empty() {
                    return Err((
                        "S12",
                        format!("resume data claims pieces {bad:?}, which are not right on disk"),
                    ));
                }
                if !lost.is_empty() {
                    return Err(("S12", format!("resume data lost pieces {lost:?}, which were saved")));
                }
                if forgets && disk.broken_promises() == 0 {
                    return Err((
                        "S24",
                        format!("goes on at {:?}, though {totals:?} was saved", opened.totals),
                    ));
                }
                is_little_lost(age, loss_max)
            }
            (Pending::Check(pieces), JobResult::Checked(Ok(good))) => {
                let have = watch.have.entry(torrent).or_default();
                let mut age = 0;
                for (piece, good) in pieces.into_iter().zip(good) {
                    let (offset, length) = material.piece(piece);
                    let right = disk.holds(torrent as u32, offset, length);
                    age = age.max(watch.loss.on_checked(torrent, piece, *good, now));
                    if !*good {
                        have.remove(&piece);
                    }
                    if watch.damage.is_younger(torrent, piece, asked_at) {
                        continue;
                    }
                    if watch.damage.on_told(torrent, piece) {
                        self.marks.insert("damage_noticed");
                    }
                    if *good != right {
                        return Err((
                            "S1",
                            format!("piece {piece} was found {good} by a check, but is {right}"),
                        ));
                    }
                    if *good {
                        have.insert(piece);
                    }
                }
                watch.note_if_whole(torrent, material.piece_count());
                is_little_lost(age, loss_max)
            }
            (Pending::Look, JobResult::Looked(Ok(_))) => {
                if let Some(process) = &mut watch.process {
                    process.looked_at.insert(torrent, asked_at);
                }
                Ok(())
            }
            (Pending::Record(mut pieces), JobResult::Recorded(Ok(()))) => {
                pieces.retain(|piece| !watch.damage.may_claim(torrent, *piece));
                watch.recorded.entry(torrent).or_default().extend(pieces);
                Ok(())
            }
            (Pending::Snapshot(mut have, totals, broken), JobResult::Saved(Ok(()))) => {
                watch.totals.insert(torrent, totals);
                self.marks.insert("snapshot");
                have.retain(|piece| !watch.damage.may_claim(torrent, *piece));
                watch.recorded.insert(torrent, have.clone());
                if disk.broken_promises() == broken {
                    watch.saved.insert(torrent, have);
                }
                Ok(())
            }
            (_, JobResult::Read(Ok(blocks))) => {
                if let Some(process) = &mut watch.process {
                    let bytes: u64 = blocks.iter().map(|block| u64::from(block.len())).sum();
                    process.counted.entry(torrent).or_default().sent.1 += bytes;
                }
                Ok(())
            }
            (_, JobResult::Hashed(Ok(hashes))) => {
                let bad = hashes.iter().any(|hash| !hash.good);
                self.marks.insert(if bad { "piece_hash_bad" } else { "piece_hash_ok" });
                Ok(())
            }
            (_, result) if error_of(result).is_some() => {
                self.marks.insert("disk_error");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Whether what was lost is no older than it may be.
fn is_little_lost(age: u64, most: Option<u64>) -> Result<(), Broken> {
    match most {
        Some(most) if age > most => {
            Err(("S12", format!("a piece is lost that was verified {age} ns before, {most} allowed")))
        }
        _ => Ok(()),
    }
}

/// What went wrong with a job, if anything did.
fn error_of(result: &JobResult) -> Option<StorageErrorKind> {
    match result {
        JobResult::Opened(Err(error))
        | JobResult::Checked(Err(error))
        | JobResult::Written(Err(error))
        | JobResult::Hashed(Err(error))
        | JobResult::Read(Err(error))
        | JobResult::MetadataSaved(Err(error))
        | JobResult::Recorded(Err(error))
        | JobResult::Saved(Err(error))
        | JobResult::Allocated(Err(error))
        | JobResult::Looked(Err(error)) => Some(error.kind),
        _ => None,
    }
}

/// Whether the disk took something.
fn is_written(result: &JobResult) -> bool {
    matches!(
        result,
        JobResult::Written(Ok(_))
            | JobResult::Opened(Ok(_))
            | JobResult::Allocated(Ok(()))
            | JobResult::MetadataSaved(Ok(()))
            | JobResult::Recorded(Ok(()))
            | JobResult::Saved(Ok(()))
    )
}

/// How long a question over UDP is open.
pub(super) const UDP_PATIENCE: u64 = 45_000_000_000;

/// How many peers an announce's answer names.
fn peers_in(body: &[u8]) -> usize {
    match AnnounceAnswer::parse(body) {
        Ok(AnnounceAnswer::Taken(announced)) => announced.peers.len(),
        _ => 0,
    }
}
