//! What goes into engines: blocks, answers, results of jobs.

use std::collections::BTreeSet;

use taipei_engine::Input;
use taipei_engine::disk::{JobResult, StorageErrorKind};
use taipei_engine::wire::Message;
use taipei_engine::wire::tracker_udp::UdpAnswer;

use super::host::{HostWatch, Pending};
use super::wire::ConnectionWatch;
use super::{Broken, Watch};
use crate::disk::SimDisk;
use crate::scenario::FaultKind;

impl Watch {
    pub(super) fn input(
        &mut self,
        now: u64,
        host: usize,
        input: &Input,
        disk: &SimDisk,
    ) -> Result<(), Broken> {
        let materials = self.materials.clone();
        let HostWatch { process: Some(process), received_bytes, announces, announced_at, liars, .. } =
            &mut self.hosts[host]
        else {
            return Ok(());
        };
        if let Input::Accepted { connection, remote } = input {
            process.remotes.insert(*connection, remote.ip());
        }
        match input {
            Input::Accepted { connection, .. } | Input::Connected { connection, .. } => {
                self.connections_opened += 1;
                process.connections.insert(*connection, ConnectionWatch::new());
            }
            Input::Closed { connection, .. } => {
                process.connections.remove(connection);
                process.remotes.remove(connection);
            }
            Input::Received { connection, messages, .. } => {
                let Some(watch) = process.connections.get_mut(connection) else { return Ok(()) };
                for message in messages {
                    watch.on_received(message, &materials);
                    match message {
                        Message::Piece { piece, begin, data } => {
                            self.blocks += 1;
                            *received_bytes += u64::from(data.len());
                            let from = process.remotes.get(connection);
                            let from = from.and_then(|remote| self.plan.host_at(*remote));
                            if let (Some(torrent), Some(from)) = (watch.torrent(), from)
                                && !materials.torrents[torrent].is_right(*piece, *begin, data)
                            {
                                if self.plan.hosts[from].lies.is_none() {
                                    return Err(("S3", "a block was changed on its way".to_owned()));
                                }
                                liars.on_lie(torrent, *piece, from);
                            }
                        }
                        Message::Choke => {
                            self.marks.insert("choked");
                        }
                        _ => {}
                    }
                }
            }
            Input::HttpDone { request, result } => {
                let Some((torrent, tracker, announce)) = process.http.remove(request) else { return Ok(()) };
                let watch = process.announces.entry((torrent, tracker.clone())).or_default();
                let taken = watch.on_answered(now, &announce, result.as_ref().ok());
                process.tiers.entry(torrent).or_default().on_answered(&tracker, taken);
                if taken {
                    self.announces += 1;
                    announced_at.insert(tracker.clone(), now);
                    if !announce.event().is_empty() {
                        *announces.entry(tracker).or_default().entry(announce.event()).or_default() += 1;
                    }
                }
            }
            Input::Datagram { remote, payload } => {
                let answer = UdpAnswer::parse(payload, remote.is_ipv6());
                let Some(UdpAnswer::Announced { transaction, interval, .. }) = answer else { return Ok(()) };
                let Some((at, torrent, tracker, announce)) = process.udp.remove(&(*remote, transaction))
                else {
                    return Ok(());
                };
                // Later it is none any more to who asked.
                if now < at + UDP_PATIENCE {
                    let watch = process.announces.entry((torrent, tracker.clone())).or_default();
                    watch.on_taken(now, &announce, u64::from(interval));
                    process.tiers.entry(torrent).or_default().on_answered(&tracker, true);
                    self.announces += 1;
                    if !announce.event().is_empty() {
                        *announces.entry(tracker).or_default().entry(announce.event()).or_default() += 1;
                    }
                }
            }
            Input::JobDone { job, result } => {
                if let Some((torrent, pending, asked_at)) = process.jobs.remove(job) {
                    if error_of(result) == Some(StorageErrorKind::Full) {
                        process.full.insert(torrent, self.steps);
                    } else if matches!(result, JobResult::Written(Ok(_)))
                        && process.full.get(&torrent).is_some_and(|told_at| *told_at <= asked_at)
                    {
                        process.full.remove(&torrent);
                    }
                    return self.job_done(host, torrent, pending, result, disk);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn job_done(
        &mut self,
        host: usize,
        torrent: usize,
        pending: Pending,
        result: &JobResult,
        disk: &SimDisk,
    ) -> Result<(), Broken> {
        let material = &self.materials.torrents[torrent];
        let watch = &mut self.hosts[host];
        match (pending, result) {
            (Pending::Open, JobResult::Opened(Ok(opened))) => {
                let claimed: BTreeSet<u32> = opened.have.iter().map(|piece| piece.get()).collect();
                if opened.unchecked.count() > 0 {
                    self.marks.insert("rechecked");
                }
                if !claimed.is_empty() && watch.incarnation > 1 {
                    self.marks.insert("resumed");
                }
                let bad: Vec<u32> = claimed
                    .iter()
                    .copied()
                    .filter(|piece| {
                        let (offset, length) = material.piece(*piece);
                        !disk.holds(torrent as u32, offset, length)
                    })
                    .collect();
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
                Ok(())
            }
            (Pending::Check(pieces), JobResult::Checked(Ok(good))) => {
                let have = watch.have.entry(torrent).or_default();
                for (piece, good) in pieces.into_iter().zip(good) {
                    let (offset, length) = material.piece(piece);
                    let right = disk.holds(torrent as u32, offset, length);
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
                Ok(())
            }
            (Pending::Record(pieces), JobResult::Recorded(Ok(()))) => {
                watch.recorded.entry(torrent).or_default().extend(pieces);
                Ok(())
            }
            (Pending::Snapshot(have), JobResult::Saved(Ok(()))) => {
                self.marks.insert("snapshot");
                watch.recorded.insert(torrent, have.clone());
                watch.saved.insert(torrent, have);
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

/// What went wrong with a job, if anything did.
fn error_of(result: &JobResult) -> Option<StorageErrorKind> {
    match result {
        JobResult::Opened(Err(error))
        | JobResult::Checked(Err(error))
        | JobResult::Written(Err(error))
        | JobResult::Hashed(Err(error))
        | JobResult::Read(Err(error))
        | JobResult::Recorded(Err(error))
        | JobResult::Saved(Err(error)) => Some(error.kind),
        _ => None,
    }
}

/// How long a question over UDP is open.
const UDP_PATIENCE: u64 = 45_000_000_000;
