//! Parties that are not our engine, and what they are told to do.

use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::behaviour::Behaviour;
use super::check::At;
use super::hosts::{Access, Family, Has, is_v4_only, v4_only};
use super::is_default;

/// `[[actor]]`: a party that is not our engine. Which keys it has depends on its kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// What it is.
    pub kind: ActorKind,
    /// Its name. Trackers are in DNS as `NAME.sim`, peers are called `NAME-1`, `NAME-2` and so on.
    pub name: String,
    /// How a tracker is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// Which addresses a tracker has.
    #[serde(default = "v4_only", skip_serializing_if = "is_v4_only")]
    pub interfaces: Vec<Family>,
    /// Addresses of a tracker's name where nobody is, which DNS names first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stale_addresses: u8,
    /// What a tracker does, one entry a request; the last one is repeated. Empty: it does its work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub script: Vec<Answer>,
    /// How many peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Of these only those with these numbers; all, when left out. What making a failing run smaller leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<u32>>,
    /// What the peers do: given out in turn, one each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behaviour: Vec<Behaviour>,
    /// What the peers claim to have, where their behaviour does not say; as it fits that when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has: Option<Has>,
    /// The box that the peers are behind, on one network with others there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
    /// The peers' access link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
}

impl Actor {
    /// Its peers by number, each with what it does.
    pub fn peers(&self) -> impl Iterator<Item = (u32, Behaviour)> {
        let count = self.count.filter(|_| self.kind == ActorKind::Peer).unwrap_or(0);
        (1..=count)
            .zip(self.behaviour.iter().copied().cycle())
            .filter(|(number, _)| self.only.as_ref().is_none_or(|only| only.contains(number)))
    }

    /// Whether it has the keys of its kind and no others.
    pub(super) fn check(&self) -> Result<(), At> {
        let (kind, wants, takes): (_, &[&str], &[&str]) = match self.kind {
            ActorKind::Tracker => ("tracker", &[], &["proto", "script", "interfaces", "stale_addresses"]),
            ActorKind::Peer => {
                ("peer", &["count", "behaviour"], &["count", "only", "behaviour", "has", "behind", "access"])
            }
        };
        for (key, has) in [
            ("proto", self.proto.is_some()),
            ("script", !self.script.is_empty()),
            ("interfaces", !is_v4_only(&self.interfaces)),
            ("stale_addresses", self.stale_addresses > 0),
            ("count", self.count.is_some()),
            ("only", self.only.is_some()),
            ("behaviour", !self.behaviour.is_empty()),
            ("has", self.has.is_some()),
            ("behind", self.behind.is_some()),
            ("access", self.access.is_some()),
        ] {
            if has && !takes.contains(&key) {
                return Err((key, format!("a {kind} takes no `{key}`")));
            }
            if !has && wants.contains(&key) {
                return Err(("kind", format!("a {kind} wants `{key}`")));
            }
        }
        let proto = self.proto.unwrap_or_default();
        match self.script.iter().find(|answer| !answer.goes_over(proto)) {
            Some(answer) => Err(("script", format!("`{}` cannot be said over {}", answer, proto.name()))),
            None => Ok(()),
        }
    }
}

/// What an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActorKind {
    /// A tracker.
    Tracker,
    /// Peers that break rules.
    Peer,
}

/// How a tracker is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proto {
    /// BEP 3.
    #[default]
    Http,
    /// BEP 15. A status in its script is silence there.
    Udp,
}

impl Proto {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Udp => "udp",
        }
    }
}
