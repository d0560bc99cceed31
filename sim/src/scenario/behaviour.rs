//! What a peer that is not our engine does, as scenario files call it.

use serde::{Deserialize, Serialize};

use crate::units::Share;

/// Which rules a puppet peer breaks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Behaviour {
    /// `poison 1/8`: of the blocks that it serves, so many are wrong, drawn anew for each.
    Poison {
        /// So many.
        part: u64,
        /// Of so many.
        of: u64,
    },
    /// Claims everything and serves nothing: it rejects, or does not answer.
    BitfieldLiar,
    /// Announces every piece, over and over.
    HaveFlood,
    /// Sends a byte now and then: of its handshake, of a message that never ends, of a block.
    SlowLoris,
    /// Serves everything but the last piece, which it claims as well.
    WithholdLastPiece,
    /// Any message with any field in any order, also before the handshake and with lengths that are wrong.
    IllegalMessages,
    /// Announces a message of gigabytes, and begins to send it.
    OversizeMessage,
    /// Sends each block twice.
    DuplicatePieces,
    /// Asks for thousands of blocks, some over and over, choked or not.
    RequestFlood,
    /// Downloads as others do, and has nothing for anybody.
    FreeRider,
    /// Chokes and unchokes several times a second, and forgets what was asked.
    ChokeFlapper,
    /// Fetches over and over what may be fetched while choked (BEP 6).
    AllowedFastDrainer,
    /// Connects and says nothing, not even a handshake, or nothing after it.
    Silent,
    /// Dozens of connections to each host at once.
    ConnectFlood,
    /// Says that it has all, then none, then half, and again.
    HaveAllThenNone,
    /// Serves, and sends blocks that nobody asked for.
    UnaskedPieces,
    /// Keeps alive, hundreds of times a second.
    KeepAliveFlood,
    /// Serves one block and hangs up.
    DisconnectAfterEachBlock,
    /// Asks for all it can and then reads nothing any more.
    Deaf,
    /// `pex spam 500`: names so many peers that do not exist, every second (BEP 11).
    PexSpam(u32),
    /// `lsd storm 500`: tells the local network so many things every second: of peers that do not exist, of swarms that are
    /// nobody's, and nonsense (BEP 14).
    LsdStorm(u32),
    /// Claims gigabytes of metadata, and sends pieces of it that nobody asked for (BEP 9).
    MetadataBomb,
    /// Says that it has the metadata, and gives wrong blocks of it, or of another size, or rejects, or does not answer.
    MetadataLiar,
    /// Gives one block of the metadata, and hangs up when it is asked for another.
    MetadataQuitter,
}

/// Those without a number, as they are written.
const WORDS: &[(&str, Behaviour)] = &[
    ("bitfield liar", Behaviour::BitfieldLiar),
    ("have flood", Behaviour::HaveFlood),
    ("slow-loris", Behaviour::SlowLoris),
    ("withhold last piece", Behaviour::WithholdLastPiece),
    ("illegal messages", Behaviour::IllegalMessages),
    ("oversize message", Behaviour::OversizeMessage),
    ("duplicate pieces", Behaviour::DuplicatePieces),
    ("request flood", Behaviour::RequestFlood),
    ("free rider", Behaviour::FreeRider),
    ("choke flapper", Behaviour::ChokeFlapper),
    ("allowed-fast drainer", Behaviour::AllowedFastDrainer),
    ("silent", Behaviour::Silent),
    ("connect flood", Behaviour::ConnectFlood),
    ("have-all then have-none", Behaviour::HaveAllThenNone),
    ("unasked pieces", Behaviour::UnaskedPieces),
    ("keep-alive flood", Behaviour::KeepAliveFlood),
    ("disconnect after each block", Behaviour::DisconnectAfterEachBlock),
    ("deaf", Behaviour::Deaf),
    ("metadata bomb", Behaviour::MetadataBomb),
    ("metadata liar", Behaviour::MetadataLiar),
    ("metadata quitter", Behaviour::MetadataQuitter),
];

impl Behaviour {
    /// All that are one word, as scenario files call them.
    pub(crate) fn words() -> impl Iterator<Item = &'static str> {
        WORDS.iter().map(|(word, _)| *word)
    }

    /// Whether it wants blocks rather than to serve them.
    pub fn downloads(self) -> bool {
        matches!(self, Self::RequestFlood | Self::FreeRider | Self::AllowedFastDrainer | Self::Deaf)
    }

    /// Whether it means to send wrong blocks for those that were asked for.
    pub fn poisons(self) -> bool {
        matches!(self, Self::Poison { .. })
    }
}

impl TryFrom<String> for Behaviour {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some((_, behaviour)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*behaviour);
        }
        if let Some(share) = text.strip_prefix("poison ") {
            let Share { part, of } = Share::try_from(share.to_owned()).map_err(|error| error.to_string())?;
            return Ok(Self::Poison { part, of });
        }
        if let Some(count) = text.strip_prefix("pex spam ") {
            let count = count.parse().ok().filter(|count| (1..=PEX_PEERS_MAX).contains(count));
            return count
                .map(Self::PexSpam)
                .ok_or_else(|| format!("`{text}`: wants between 1 and {PEX_PEERS_MAX} peers"));
        }
        if let Some(count) = text.strip_prefix("lsd storm ") {
            let count = count.parse().ok().filter(|count| (1..=LSD_STORM_MAX).contains(count));
            return count
                .map(Self::LsdStorm)
                .ok_or_else(|| format!("`{text}`: wants between 1 and {LSD_STORM_MAX} datagrams a second"));
        }
        let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        Err(format!(
            "no behaviour `{text}` (there are poison 1/8, pex spam 500, lsd storm 500, {})",
            words.join(", ")
        ))
    }
}

impl From<Behaviour> for String {
    fn from(behaviour: Behaviour) -> Self {
        match behaviour {
            Behaviour::Poison { part, of } => format!("poison {part}/{of}"),
            Behaviour::PexSpam(count) => format!("pex spam {count}"),
            Behaviour::LsdStorm(count) => format!("lsd storm {count}"),
            _ => {
                let word = WORDS.iter().find(|(_, known)| *known == behaviour);
                word.expect("every other one is in the list").0.to_owned()
            }
        }
    }
}

/// What fits a message with room to spare.
const PEX_PEERS_MAX: u32 = 10_000;
/// What a network takes that has better things to do.
const LSD_STORM_MAX: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviours_are_words_and_are_written_as_they_were_read() {
        let words = WORDS.iter().map(|(word, _)| *word);
        for text in words.chain(["poison 1/8", "pex spam 500", "lsd storm 500"]) {
            let behaviour = Behaviour::try_from(text.to_owned()).expect(text);
            assert_eq!(String::from(behaviour), text);
        }
        for text in [
            "",
            "poison",
            "poison 3/2",
            "poison x",
            "pex spam 0",
            "pex spam 20000",
            "lsd storm 0",
            "kindness",
        ] {
            assert!(Behaviour::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
