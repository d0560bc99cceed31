//! What no file may say, though its syntax is right.

use super::error::Wrong;
use super::{
    Actor, ActorKind, Behaviour, Expect, Family, Fault, FaultKind, Group, NatBox, Scenario, Torrent, World,
};
use crate::units::MILLISECOND;

impl Scenario {
    /// Whether it contradicts itself.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        self.check_names()?;
        self.check_head()?;
        self.net.check(self.in_turmoil()).map_err(|(key, message)| Wrong::at("net", key, message))?;
        for (number, group) in self.groups.iter().enumerate() {
            self.check_group(group)
                .map_err(|(key, message)| Wrong::in_entry("group", number, key, message))?;
        }
        for (number, actor) in self.actors.iter().enumerate() {
            self.check_actor(actor)
                .map_err(|(key, message)| Wrong::in_entry("actor", number, key, message))?;
        }
        for (number, nat) in self.nats.iter().enumerate() {
            self.check_nat(nat).map_err(|(key, message)| Wrong::in_entry("nat", number, key, message))?;
        }
        for (number, torrent) in self.torrents.iter().enumerate() {
            self.check_torrent(torrent)
                .map_err(|(key, message)| Wrong::in_entry("torrent", number, key, message))?;
        }
        for (number, fault) in self.faults.iter().enumerate() {
            self.check_fault(fault)
                .map_err(|(key, message)| Wrong::in_entry("fault", number, key, message))?;
        }
        for (number, expect) in self.expects.iter().enumerate() {
            self.check_expect(expect)
                .map_err(|(key, message)| Wrong::in_entry("expect", number, key, message))?;
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), Wrong> {
        let torrents = self.torrents.iter().map(|torrent| ("torrent", torrent.name.as_str()));
        let groups = self.groups.iter().map(|group| ("group", group.name.as_str()));
        let actors = self.actors.iter().map(|actor| ("actor", actor.name.as_str()));
        let nats = self.nats.iter().map(|nat| ("nat", nat.name.as_str()));
        let mut parties: Vec<&str> = Vec::new();
        let (mut list, mut number) = ("", 0);
        for (kind, name) in torrents.chain(groups).chain(actors).chain(nats) {
            number = if list == kind { number + 1 } else { 0 };
            list = kind;
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if name.is_empty() || !name.bytes().all(fits) {
                return Err(Wrong::in_entry(kind, number, "name", "wants letters, digits, `-` and `_`"));
            }
            if kind != "torrent" {
                if parties.contains(&name) {
                    let message = format!("two parties are called `{name}`");
                    return Err(Wrong::in_entry(kind, number, "name", message));
                }
                parties.push(name);
            }
        }
        Ok(())
    }

    fn check_head(&self) -> Result<(), Wrong> {
        if self.torrents.is_empty() {
            return Err(Wrong::at("torrent", "", "wants at least one"));
        }
        let hosts: u64 = self.groups.iter().map(|group| group.numbers().count() as u64).sum();
        let peers: u64 = self.actors.iter().map(|actor| actor.peers().count() as u64).sum();
        if hosts == 0 || hosts + peers > HOSTS_MAX {
            return Err(Wrong::at("group", "", format!("wants between 1 and {HOSTS_MAX} hosts in all")));
        }
        if self.scenario.worlds.is_empty() {
            return Err(Wrong::at("scenario", "worlds", "wants \"events\", \"turmoil\" or both"));
        }
        let tick = self.scenario.tick.0;
        if tick == 0 || !tick.is_multiple_of(MILLISECOND) {
            return Err(Wrong::at("scenario", "tick", "wants whole milliseconds"));
        }
        Ok(())
    }

    fn in_turmoil(&self) -> bool {
        self.scenario.worlds.contains(&World::Turmoil)
    }

    fn check_group(&self, group: &Group) -> Result<(), At> {
        if let Some(key) = group.config.wrong_key() {
            return Err((key, "wants at least 1".to_owned()));
        }
        group.access.check()?;
        self.check_interfaces(&group.interfaces)?;
        if self.in_turmoil() && group.access.0.iter().any(|access| access.queue_down.is_some()) {
            return Err(("access", "`queue_down`: only in the event world".to_owned()));
        }
        if group.config.lsd == Some(true) && group.behind.is_none() {
            return Err(("config.lsd", "wants `behind`: who shares a box shares a network".to_owned()));
        }
        let Some(behind) = &group.behind else { return Ok(()) };
        if !self.nats.iter().any(|nat| nat.name == *behind) {
            return Err(("behind", format!("no such `nat`: `{behind}`")));
        }
        if !group.interfaces.contains(&Family::V4) {
            return Err(("behind", "wants \"v4\" among `interfaces`: nothing else is translated".to_owned()));
        }
        if group.lies.is_some() {
            return Err(("lies", "nobody can tell who lies behind a shared address".to_owned()));
        }
        Ok(())
    }

    fn check_actor(&self, actor: &Actor) -> Result<(), At> {
        actor.check()?;
        self.check_interfaces(&actor.interfaces)?;
        let is_deaf = actor.peers().any(|(_, behaviour)| behaviour == Behaviour::Deaf);
        if is_deaf && self.in_turmoil() {
            // Its streams hold far more than a kernel would.
            return Err(("behaviour", "`deaf`: only in the event world".to_owned()));
        }
        let storms = actor.peers().any(|(_, behaviour)| matches!(behaviour, Behaviour::LsdStorm(_)));
        if storms && actor.behind.is_none() {
            return Err((
                "behaviour",
                "`lsd storm`: wants `behind`: who shares a box shares a network".to_owned(),
            ));
        }
        if let Some(behind) =
            actor.behind.as_ref().filter(|behind| !self.nats.iter().any(|nat| nat.name == **behind))
        {
            return Err(("behind", format!("no such `nat`: `{behind}`")));
        }
        if actor.stale_addresses > STALE_MAX {
            return Err(("stale_addresses", format!("wants {STALE_MAX} at most")));
        }
        Ok(())
    }

    fn check_interfaces(&self, interfaces: &[Family]) -> Result<(), At> {
        if interfaces.is_empty() || interfaces.len() > 2 || interfaces.first() == interfaces.get(1) {
            return Err(("interfaces", "wants \"v4\", \"v6\" or both".to_owned()));
        }
        if self.in_turmoil() && interfaces != [Family::V4] {
            return Err(("interfaces", "only in the event world".to_owned()));
        }
        Ok(())
    }

    fn check_nat(&self, nat: &NatBox) -> Result<(), At> {
        if self.in_turmoil() {
            return Err(("name", "only in the event world".to_owned()));
        }
        let is_behind = |host: &str| {
            self.host_group(host).is_some_and(|(group, _)| group.behind.as_deref() == Some(nat.name.as_str()))
        };
        match &nat.forward {
            Some(host) if !is_behind(host) => Err(("forward", format!("no such host behind it: `{host}`"))),
            _ => Ok(()),
        }
    }

    fn check_torrent(&self, torrent: &Torrent) -> Result<(), At> {
        if torrent.size.0 == 0 || torrent.size.0 > TORRENT_BYTES_MAX {
            return Err(("size", "wants between 1 B and 4 GiB".to_owned()));
        }
        if torrent.files == 0 || u64::from(torrent.files) > torrent.size.0 {
            return Err(("files", format!("wants between 1 and {}, one for each byte", torrent.size.0)));
        }
        if let Some(name) = torrent.tiers.iter().flatten().find(|name| !self.is_tracker(name)) {
            return Err(("tiers", format!("no tracker `{name}`")));
        }
        crate::plan::create_plan(torrent, Vec::new())
            .map(|_| ())
            .map_err(|error| ("piece", error.to_string()))
    }

    fn check_fault(&self, fault: &Fault) -> Result<(), At> {
        fault.check()?;
        if fault.kind.only_in_events() && self.in_turmoil() {
            return Err(("kind", format!("{}: only in the event world", fault.kind.name())));
        }
        let is_host = |name: &str| self.is_group(name) || self.host_group(name).is_some();
        for (key, side) in [("from_group", &fault.from_group), ("to_group", &fault.to_group)] {
            if let Some(name) = side.as_deref().filter(|name| !is_host(name) && !self.is_tracker(name)) {
                return Err((key, format!("no such group, host or tracker: `{name}`")));
            }
        }
        if let Some(file) = fault.file.as_ref().filter(|file| !self.has_file(file)) {
            return Err(("file", format!("no torrent has a file `{file}`")));
        }
        let there = match fault.kind {
            FaultKind::TrackerOutage => self.is_tracker(&fault.pick),
            FaultKind::NatReboot => self.nats.iter().any(|nat| nat.name == fault.pick),
            FaultKind::Partition | FaultKind::OneWayCut => true,
            _ => is_host(&fault.pick),
        };
        if there {
            Ok(())
        } else {
            Err(("pick", format!("no such group, host or tracker: `{}`", fault.pick)))
        }
    }

    fn check_expect(&self, expect: &Expect) -> Result<(), At> {
        if let Some(name) = expect.complete.as_deref().filter(|name| !self.is_group(name)) {
            return Err(("complete", format!("no such group: `{name}`")));
        }
        if expect.within_bound.is_some_and(|bound| !(1.0..=1000.0).contains(&bound)) {
            return Err(("within_bound", "wants between 1 and 1000".to_owned()));
        }
        for (key, has) in
            [("within_bound", expect.within_bound.is_some()), ("wasted", expect.wasted.is_some())]
        {
            if has && expect.complete.is_none() {
                return Err((key, "wants `complete` beside it".to_owned()));
            }
        }
        for (key, has) in [("within", expect.within.is_some()), ("by", expect.by.is_some())] {
            if has && expect.complete.is_none() && expect.announces.is_none() {
                return Err((key, "wants `complete` or `announces` beside it".to_owned()));
            }
        }
        if let Some(announces) = &expect.announces {
            if !self.is_group(&announces.of) {
                return Err(("announces", format!("`of`: no such group: `{}`", announces.of)));
            }
            if !self.is_tracker(&announces.to) {
                return Err(("announces", format!("`to`: no such tracker: `{}`", announces.to)));
            }
        }
        if let Some(turn) = expect.turn.as_ref().filter(|turn| !self.is_group(&turn.by)) {
            return Err(("turn", format!("`by`: no such group: `{}`", turn.by)));
        }
        let lies = self.groups.iter().any(|group| group.lies.is_some());
        let poisons = |actor: &Actor| actor.peers().any(|(_, behaviour)| behaviour.poisons());
        if expect.banned.is_some() && !lies && !self.actors.iter().any(poisons) {
            return Err(("banned", "wants a group that lies, or peers that poison".to_owned()));
        }
        if let Some(share) = &expect.upload_share
            && !self.actors.iter().any(|actor| actor.kind == ActorKind::Peer && actor.name == share.to)
        {
            return Err(("upload_share", format!("`to`: no such peers: `{}`", share.to)));
        }
        for (key, marks) in [("mark", &expect.mark), ("never", &expect.never)] {
            let there = || super::MARKS.iter().map(|mark| mark.name);
            if let Some(mark) = marks.iter().find(|mark| !there().any(|name| name == mark.as_str())) {
                return Err((
                    key,
                    format!("no `{mark}` (there are {})", there().collect::<Vec<_>>().join(" ")),
                ));
            }
        }
        Ok(())
    }

    fn has_file(&self, file: &str) -> bool {
        self.torrents.iter().any(|torrent| match file.strip_prefix(&torrent.name) {
            Some("") => torrent.files == 1,
            Some(rest) => {
                (1..=torrent.files).any(|number| torrent.files > 1 && rest == format!("/file-{number}.bin"))
            }
            None => false,
        })
    }

    fn is_group(&self, name: &str) -> bool {
        self.groups.iter().any(|group| group.name == name)
    }

    fn is_tracker(&self, name: &str) -> bool {
        self.actors.iter().any(|actor| actor.kind == ActorKind::Tracker && actor.name == name)
    }
}

/// A key of an entry, and what is wrong there.
pub(super) type At = (&'static str, String);

/// More hosts than this would be a mistake in the file.
const HOSTS_MAX: u64 = 10_000;
/// More are not tried by a client that has any sense.
const STALE_MAX: u8 = 8;
/// Content is kept once in memory, as one slice.
const TORRENT_BYTES_MAX: u64 = 4 << 30;
