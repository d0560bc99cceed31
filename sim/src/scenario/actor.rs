//! Parties that are not our engine, and what they are told to do.

use serde::{Deserialize, Serialize};

use super::hosts::{Family, is_v4_only, v4_only};
use super::is_default;
use crate::units::Time;

/// `[[actor]]`: a party that is not our engine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// What it is.
    pub kind: ActorKind,
    /// Its name; also in DNS, as `NAME.sim`.
    pub name: String,
    /// How it is asked.
    #[serde(default)]
    pub proto: Proto,
    /// Which addresses it has.
    #[serde(default = "v4_only", skip_serializing_if = "is_v4_only")]
    pub interfaces: Vec<Family>,
    /// Addresses of its name where nobody is, which DNS names first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stale_addresses: u8,
    /// What it does, one entry a request; the last one is repeated. Empty: it does its work.
    #[serde(default)]
    pub script: Vec<Answer>,
}

/// What an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActorKind {
    /// A tracker.
    Tracker,
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

/// What a scripted tracker does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Answer {
    /// `ok`, `ok interval=1800 min=900`: a proper answer, with these seconds where given.
    Ok {
        /// Seconds between announces.
        interval: Option<u32>,
        /// Seconds below which nobody may announce.
        min: Option<u32>,
    },
    /// `500`: that status and no body.
    Status(u16),
    /// `hang 40 s`: a proper answer, that much later.
    Hang(u64),
}

impl TryFrom<String> for Answer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        match words.next() {
            Some("ok") => {
                let (mut interval, mut min) = (None, None);
                for word in words {
                    let slot = match word.split_once('=') {
                        Some(("interval", value)) => (&mut interval, value),
                        Some(("min", value)) => (&mut min, value),
                        _ => return Err(format!("`{text}`: `{word}` is neither `interval=` nor `min=`")),
                    };
                    *slot.0 = Some(slot.1.parse().map_err(|_| format!("`{text}`: wants seconds"))?);
                }
                Ok(Self::Ok { interval, min })
            }
            Some("hang") => {
                let time = text.trim_start().strip_prefix("hang").unwrap_or_default().to_owned();
                Time::try_from(time).map(|time| Self::Hang(time.0)).map_err(|error| error.to_string())
            }
            Some(status) if status.len() == 3 && words.next().is_none() => match status.parse() {
                Ok(status @ 100..=599) => Ok(Self::Status(status)),
                _ => Err(format!("`{text}`: no such status")),
            },
            _ => Err(format!("`{text}`: wants `ok`, a status, or `hang` and a time")),
        }
    }
}

impl From<Answer> for String {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Ok { interval, min } => {
                let word = |name, value: Option<u32>| {
                    value.map(|value| format!(" {name}={value}")).unwrap_or_default()
                };
                format!("ok{}{}", word("interval", interval), word("min", min))
            }
            Answer::Status(status) => status.to_string(),
            Answer::Hang(time) => format!("hang {}", Time(time).exact()),
        }
    }
}
