//! What a scripted tracker says to one request, as scenario files write it.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::actor::Proto;
use crate::units::Time;

/// What a scripted tracker does with one request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Answer {
    /// `ok`, `ok interval=1800 min=900`: a proper answer, with these seconds where given, absurd ones too.
    Ok {
        /// Seconds between announces.
        interval: Option<i64>,
        /// Seconds below which nobody may announce.
        min: Option<i64>,
    },
    /// `500`: that status and no body. Over UDP it is silence.
    Status(u16),
    /// `302 http://t2.sim:6969/announce`, `302 /announce`: a redirect.
    Redirect(u16, String),
    /// `hang 40 s`: a proper answer, that much later.
    Hang(u64),
    /// `drop 3`: so many requests are never answered.
    Drop(u32),
    /// `error 'not registered'`: a failure in the tracker's own words.
    Error(String),
    /// `warn 'passkey expires'`: a proper answer with a warning.
    Warn(String),
    /// `crowd 5000`: a proper answer with so many peers beside, where nobody is.
    Crowd(u32),
    /// One of those without a number.
    Plain(Plain),
}

/// What a tracker can say that has no number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Random bytes.
    Garbage,
    /// The first half of a proper answer.
    Truncated,
    /// A dictionary in which nothing is of the type that it should be.
    WrongTypes,
    /// Lists in lists in lists.
    DeepNesting,
    /// A proper answer to another question.
    WrongTransaction,
    /// A proper answer from another port.
    FromElsewhere,
    /// A proper answer and peers that cannot be: ourselves, port 0, multicast, loopback, somebody's local network.
    FalsePeers,
    /// A body above every cap.
    Huge,
    /// Headers, half of the body, and the end of the connection.
    CloseEarly,
    /// A proper answer, compressed.
    Gzip,
    /// A body that inflates to above every cap.
    GzipBomb,
}

/// As they are written.
const WORDS: &[(&str, Plain)] = &[
    ("garbage", Plain::Garbage),
    ("truncated", Plain::Truncated),
    ("wrong types", Plain::WrongTypes),
    ("deep nesting", Plain::DeepNesting),
    ("wrong transaction", Plain::WrongTransaction),
    ("from elsewhere", Plain::FromElsewhere),
    ("false peers", Plain::FalsePeers),
    ("huge", Plain::Huge),
    ("close early", Plain::CloseEarly),
    ("gzip", Plain::Gzip),
    ("gzip bomb", Plain::GzipBomb),
];

impl Answer {
    /// Whether it can be said over a protocol.
    pub(super) fn goes_over(&self, proto: Proto) -> bool {
        let http_only = matches!(
            self,
            Self::Redirect(..)
                | Self::Warn(_)
                | Self::Plain(
                    Plain::WrongTypes
                        | Plain::DeepNesting
                        | Plain::Huge
                        | Plain::CloseEarly
                        | Plain::Gzip
                        | Plain::GzipBomb
                )
        );
        let udp_only = matches!(self, Self::Plain(Plain::WrongTransaction | Plain::FromElsewhere));
        match proto {
            Proto::Http => !udp_only,
            Proto::Udp => !http_only,
        }
    }
}

impl TryFrom<String> for Answer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some((_, plain)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(Self::Plain(*plain));
        }
        let (first, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let number = |most: u32| {
            let number = rest.parse().ok().filter(|number| (1..=most).contains(number));
            number.ok_or_else(|| format!("`{text}`: wants between 1 and {most}"))
        };
        let quoted = || {
            let inner = rest.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            inner.map(str::to_owned).ok_or_else(|| format!("`{text}`: wants a text in single quotes"))
        };
        match first {
            "ok" => ok(&text, rest),
            "hang" => Time::try_from(rest.to_owned())
                .map(|time| Self::Hang(time.0))
                .map_err(|error| error.to_string()),
            "drop" => number(DROPS_MAX).map(Self::Drop),
            "crowd" => number(CROWD_MAX).map(Self::Crowd),
            "error" => quoted().map(Self::Error),
            "warn" => quoted().map(Self::Warn),
            status if status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()) => {
                match (status.parse(), rest) {
                    (Ok(status @ 300..=399), location) if !location.is_empty() => {
                        Ok(Self::Redirect(status, location.to_owned()))
                    }
                    (Ok(status @ 100..=599), "") => Ok(Self::Status(status)),
                    _ => Err(format!("`{text}`: no such status, or a redirect to nowhere")),
                }
            }
            _ => {
                let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
                Err(format!(
                    "no answer `{text}` (there are ok, 500, 302 URL, hang 40 s, drop 3, error 'text', warn 'text', \
                     crowd 5000, {})",
                    words.join(", ")
                ))
            }
        }
    }
}

fn ok(text: &str, rest: &str) -> Result<Answer, String> {
    let (mut interval, mut min) = (None, None);
    for word in rest.split_whitespace() {
        let (slot, value) = match word.split_once('=') {
            Some(("interval", value)) => (&mut interval, value),
            Some(("min", value)) => (&mut min, value),
            _ => return Err(format!("`{text}`: `{word}` is neither `interval=` nor `min=`")),
        };
        *slot = Some(value.parse().map_err(|_| format!("`{text}`: wants seconds"))?);
    }
    Ok(Answer::Ok { interval, min })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok { interval, min } => {
                f.write_str("ok")?;
                interval.iter().try_for_each(|seconds| write!(f, " interval={seconds}"))?;
                min.iter().try_for_each(|seconds| write!(f, " min={seconds}"))
            }
            Self::Status(status) => write!(f, "{status}"),
            Self::Redirect(status, location) => write!(f, "{status} {location}"),
            Self::Hang(time) => write!(f, "hang {}", Time(*time).exact()),
            Self::Drop(count) => write!(f, "drop {count}"),
            Self::Error(text) => write!(f, "error '{text}'"),
            Self::Warn(text) => write!(f, "warn '{text}'"),
            Self::Crowd(count) => write!(f, "crowd {count}"),
            Self::Plain(plain) => {
                let word = WORDS.iter().find(|(_, known)| known == plain);
                f.write_str(word.expect("all of them are in the list").0)
            }
        }
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

const DROPS_MAX: u32 = 1000;
const CROWD_MAX: u32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracker_scripts_are_words_and_are_written_as_they_were_read() {
        let words = WORDS.iter().map(|(word, _)| *word);
        for text in words.chain([
            "ok",
            "ok interval=1800 min=900",
            "ok interval=-1",
            "500",
            "302 http://t2.sim:6969/announce",
            "hang 40 s",
            "drop 3",
            "error 'not registered'",
            "warn 'it's late'",
            "crowd 5000",
        ]) {
            let answer = Answer::try_from(text.to_owned()).expect(text);
            assert_eq!(answer.to_string(), text);
        }
        assert_eq!(Answer::try_from("hang 40 s".to_owned()), Ok(Answer::Hang(40_000_000_000)));
        for text in [
            "",
            "drop 0",
            "drop x",
            "hang 40",
            "ok limit=3",
            "999",
            "500 500",
            "error no quotes",
            "crowd 0",
            "silence",
        ] {
            assert!(Answer::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_said_over_a_protocol_is_known() {
        for (text, http, udp) in [
            ("ok", true, true),
            ("error 'x'", true, true),
            ("gzip bomb", true, false),
            ("302 /announce", true, false),
            ("wrong transaction", false, true),
            ("from elsewhere", false, true),
        ] {
            let answer = Answer::try_from(text.to_owned()).expect(text);
            assert_eq!((answer.goes_over(Proto::Http), answer.goes_over(Proto::Udp)), (http, udp), "{text}");
        }
    }
}
