//! What a client may tell a tracker, when, and which of several: S9.

use std::collections::{BTreeMap, BTreeSet};

use taipei_engine::input::HttpResponse;
use taipei_engine::limits::{ANNOUNCE_HUNGRY, ANNOUNCE_INTERVAL_MAX, BLOCK_BYTES, TRACKER_BODY_BYTES_MAX};
use taipei_engine::wire::gzip::inflate;
use taipei_engine::wire::tracker_http::{AnnounceAnswer, AnnounceEvent, AnnounceRequest};

use crate::plan::OTHER_FAMILY;

/// One process's dealings with one tracker about one torrent.
#[derive(Debug, Default)]
pub(super) struct AnnounceWatch {
    counts: BTreeMap<&'static str, u32>,
    /// Of what was asked, what may have been taken or not.
    unsure: BTreeSet<&'static str>,
    identity: Option<(String, String)>,
    uploaded: u64,
    downloaded: u64,
    left: Option<u64>,
    /// At its address of the other family it took `started`: that one is tried first, whether it can be reached or not.
    started_elsewhere: bool,
    /// Before this nobody may announce without an event.
    quiet_until: u64,
    over: bool,
}

/// One announce, as its query says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announce {
    /// 20 bytes.
    pub(super) info_hash: [u8; 20],
    event: &'static str,
    identity: (String, String),
    uploaded: u64,
    downloaded: u64,
    left: u64,
}

/// The events that are counted.
const EVENTS: [&str; 3] = ["started", "completed", "stopped"];

impl Announce {
    /// From the path of a request; none when it is no announce.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let query = path.strip_prefix("/announce?")?;
        let field = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
                .map(|(_, value)| value)
        };
        let number = |name: &str| field(name).and_then(|value| value.parse().ok());
        let event = match field("event") {
            None | Some("" | "empty") => "",
            Some(event) => EVENTS.into_iter().find(|known| *known == event)?,
        };
        Some(Self {
            info_hash: percent_decode(field("info_hash")?)?.try_into().ok()?,
            event,
            identity: (field("peer_id")?.to_owned(), field("key").unwrap_or_default().to_owned()),
            uploaded: number("uploaded")?,
            downloaded: number("downloaded")?,
            left: number("left")?,
        })
    }

    /// From a packet.
    pub(super) fn over_udp(request: &AnnounceRequest) -> Self {
        Self {
            info_hash: request.info_hash.0,
            event: request.event.map_or("", AnnounceEvent::as_str),
            identity: (format!("{:?}", request.peer_id), format!("{:?}", request.key)),
            uploaded: request.uploaded,
            downloaded: request.downloaded,
            left: request.left,
        }
    }

    /// What it says was received, and sent.
    pub(super) fn counters(&self) -> (u64, u64) {
        (self.downloaded, self.uploaded)
    }

    /// Its event; empty for none.
    pub(super) fn event(&self) -> &'static str {
        self.event
    }
}

impl AnnounceWatch {
    /// An announce leaves. `whole_from_start` is whether the process found everything when it began; `spoiled`, whether some
    /// of it was lost since to another program, so that it may be fetched once more.
    pub(super) fn on_asked(
        &mut self,
        now: u64,
        announce: &Announce,
        whole_from_start: bool,
        spoiled: bool,
    ) -> Result<(), String> {
        let count = |event| self.counts.get(event).copied().unwrap_or(0);
        if self.over {
            return Err("an announce after `stopped` was taken".to_owned());
        }
        let may_have_started = self.started_elsewhere || self.unsure.contains("started");
        match announce.event {
            "started" if count("started") > 0 => return Err("`started` again".to_owned()),
            "stopped" if count("started") == 0 && !may_have_started => {
                return Err("`stopped` before `started` was taken".to_owned());
            }
            "completed" if count("completed") > 0 => return Err("`completed` again".to_owned()),
            "completed" if whole_from_start && !spoiled => {
                return Err("`completed` without having downloaded".to_owned());
            }
            "completed" if announce.left != 0 => return Err("`completed` with something left".to_owned()),
            "" | "completed" if count("started") == 0 && !may_have_started => {
                return Err("no `started` at first".to_owned());
            }
            "" if now < self.quiet_until => return Err("an announce before its time".to_owned()),
            _ => {}
        }
        if self.identity.get_or_insert_with(|| announce.identity.clone()) != &announce.identity {
            return Err("another peer id or key".to_owned());
        }
        if announce.uploaded < self.uploaded || announce.downloaded < self.downloaded {
            return Err("counters that run backwards".to_owned());
        }
        (self.uploaded, self.downloaded) = (announce.uploaded, announce.downloaded);
        // A block is what a magnet is taken to lack while nobody knows.
        let grew = |left| announce.left > left && left != u64::from(BLOCK_BYTES);
        if self.left.is_some_and(grew) && !spoiled {
            return Err("more left than before".to_owned());
        }
        self.left = Some(announce.left);
        Ok(())
    }

    /// Its answer came. True when it was taken.
    pub(super) fn on_answered(
        &mut self,
        now: u64,
        announce: &Announce,
        response: Option<&HttpResponse>,
    ) -> bool {
        let Some(response) = response.filter(|response| response.status == 200) else { return false };
        let body = if response.gzip {
            let Ok(body) = inflate(&response.body, TRACKER_BODY_BYTES_MAX as usize) else { return false };
            body.into()
        } else {
            response.body.clone()
        };
        let Ok(AnnounceAnswer::Taken(announced)) = AnnounceAnswer::parse(&body) else { return false };
        // The lesser of the two is what binds: a client short of peers may ask after the minimum.
        let seconds = announced.min_interval.or(announced.interval);
        self.on_taken(now, announce, seconds.and_then(|seconds| seconds.try_into().ok()).unwrap_or(0));
        true
    }

    /// An answer came that may have come too late.
    pub(super) fn on_unsure(&mut self, announce: &Announce) {
        self.unsure.insert(announce.event);
    }

    /// It was taken, with the least seconds until the next.
    pub(super) fn on_taken(&mut self, now: u64, announce: &Announce, seconds: u64) {
        if !announce.event.is_empty() {
            *self.counts.entry(announce.event).or_default() += 1;
        }
        self.over = announce.event == "stopped";
        // No tracker may send us away for longer than that.
        let quiet = seconds.min(ANNOUNCE_INTERVAL_MAX.as_secs()) * 1_000_000_000;
        self.quiet_until = now + quiet;
    }
}

/// One process's choice among the trackers of one torrent (BEP 12).
#[derive(Debug, Default)]
pub(super) struct TierWatch {
    /// Trackers that did not take the last thing that they were told.
    failed: BTreeSet<String>,
    /// When a block that was asked for, or the answer of a tracker, came last.
    helped_at: u64,
    /// Trackers with which it began when nothing had come for a while.
    sought: BTreeSet<String>,
}

impl TierWatch {
    /// An announce leaves for a tracker: all of the tiers before must have failed, or nothing came of what they said for a
    /// while. Who is told only what it must be told as well (`completed`, `stopped`) was chosen before.
    pub(super) fn on_asked<'a>(
        &mut self,
        now: u64,
        tiers: impl Iterator<Item = impl Iterator<Item = &'a str>>,
        tracker: &str,
        event: &str,
    ) -> Result<(), String> {
        let tracker = base(tracker);
        // Until it is answered, it has not served: one that hangs is given up without an answer.
        self.failed.insert(tracker.to_owned());
        let sought = self.sought.remove(tracker) || self.is_hungry(now);
        if sought || matches!(event, "completed" | "stopped") {
            return Ok(());
        }
        for tier in tiers {
            let tier: Vec<&str> = tier.collect();
            if tier.contains(&tracker) {
                break;
            }
            if let Some(better) = tier.iter().find(|one| !self.failed.contains(**one)) {
                return Err(format!("an announce of a later tier, though {better} has not failed"));
            }
        }
        Ok(())
    }

    /// Nothing came for a while of what trackers said.
    fn is_hungry(&self, now: u64) -> bool {
        now >= self.helped_at + ANNOUNCE_HUNGRY.as_nanos() as u64
    }

    /// A block of the torrent came that was asked for.
    pub(super) fn on_fed(&mut self, now: u64) {
        self.helped_at = now;
    }

    /// Somebody wants to talk to a tracker, for this torrent or another: it has not served yet.
    pub(super) fn on_tried(&mut self, now: u64, tracker: &str) {
        self.failed.insert(base(tracker).to_owned());
        if self.is_hungry(now) {
            self.sought.insert(base(tracker).to_owned());
        }
    }

    /// Its answer came, and named so many peers. One that names nobody but ourselves does not serve who seeks.
    pub(super) fn on_answered(&mut self, now: u64, tracker: &str, taken: bool, peers: usize) {
        if taken {
            self.helped_at = now;
        }
        if taken && peers > 1 {
            self.failed.remove(base(tracker));
        }
    }
}

impl AnnounceWatch {
    /// Whether it took `started`.
    pub(super) fn has_started(&self) -> bool {
        self.counts.contains_key("started")
    }

    /// At its address of the other family it took `started`, or did not.
    pub(super) fn on_elsewhere(&mut self, started: bool) {
        self.started_elsewhere = started;
    }
}

/// The same tracker at its address of the other family.
pub(super) fn other_family(tracker: &str) -> String {
    tracker.strip_suffix(OTHER_FAMILY).map_or_else(|| format!("{tracker}{OTHER_FAMILY}"), str::to_owned)
}

/// The tracker, in whichever family it was told something.
fn base(tracker: &str) -> &str {
    tracker.strip_suffix(OTHER_FAMILY).unwrap_or(tracker)
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(event: &str, left: u64) -> Announce {
        let path = format!(
            "/announce?info_hash=%00%01abcdefghijklmnopqr&peer_id=p&key=k&uploaded=0&downloaded=5&left={left}&event={event}"
        );
        Announce::parse(&path).expect("an announce")
    }

    fn ok() -> HttpResponse {
        HttpResponse {
            status: 200,
            location: None,
            body: b"d8:intervali1800e12:min intervali900e5:peers0:e"[..].into(),
            gzip: false,
        }
    }

    #[test]
    fn the_life_cycle_in_order_is_fine() {
        let mut watch = AnnounceWatch::default();
        for (at, event, left) in [
            (0, "started", 9),
            (1, "completed", 0),
            (901_000_000_002, "", 0),
            (901_000_000_003, "stopped", 0),
        ] {
            let announce = announce(event, left);
            assert_eq!(watch.on_asked(at, &announce, false, false), Ok(()), "{event}");
            assert!(watch.on_answered(at, &announce, Some(&ok())));
        }
        assert_eq!(watch.counts.values().sum::<u32>(), 3);
        assert!(watch.on_asked(2_000_000_000_000, &announce("", 0), false, false).is_err());
    }

    #[test]
    fn a_later_tier_is_for_when_all_before_it_failed() {
        let tiers: [&[&str]; 3] = [&["a", "b"], &["c"], &["d"]];
        let mut watch = TierWatch::default();
        let mut now = 0;
        let mut ask = |tracker, event, taken| {
            let asked = watch.on_asked(now, tiers.iter().map(|tier| tier.iter().copied()), tracker, event);
            watch.on_answered(now, tracker, taken, 2);
            now += 1_000_000_000;
            asked.is_ok()
        };
        assert!(ask("a", "started", false));
        assert!(!ask("c", "started", false), "b was not asked");
        assert!(ask("b", "started", false));
        assert!(ask("c", "started", true));
        assert!(!ask("d", "", false), "c has not failed");
        assert!(ask("d", "stopped", false));
        assert!(ask("b", "started", true));
        assert!(!ask("c", "", true), "b is back");
    }

    #[test]
    fn a_later_tier_is_for_whom_the_first_did_not_help_for_a_while() {
        let tiers: [&[&str]; 2] = [&["a"], &["b"]];
        let second = 1_000_000_000;
        for (fed_at, asked_at, fine) in [(5, 34, false), (5, 35, true), (0, 30, true), (0, 29, false)] {
            let mut watch = TierWatch::default();
            watch.on_answered(0, "a", true, 2);
            watch.on_fed(fed_at * second);
            let tiers = tiers.iter().map(|tier| tier.iter().copied());
            assert_eq!(
                watch.on_asked(asked_at * second, tiers, "b", "started").is_ok(),
                fine,
                "{fed_at} {asked_at}"
            );
        }
    }

    #[test]
    fn what_breaks_the_rules_is_seen() {
        for (events, wrong) in [
            (&["started", "started"][..], "again"),
            (&["stopped"], "before `started`"),
            (&["started", "completed", "completed"], "again"),
            (&[""], "no `started`"),
            (&["started", ""], "before its time"),
        ] {
            let mut watch = AnnounceWatch::default();
            let mut last = Ok(());
            for event in events {
                let announce = announce(event, 0);
                last = watch.on_asked(1, &announce, false, false);
                watch.on_answered(1, &announce, Some(&ok()));
            }
            assert!(last.as_ref().is_err_and(|message| message.contains(wrong)), "{events:?} {last:?}");
        }
        let mut failed = AnnounceWatch::default();
        assert!(!failed.on_answered(0, &announce("started", 1), None));
        assert_eq!(failed.on_asked(1, &announce("started", 1), false, false), Ok(()));
    }
}
