//! Bugs that other clients had, to be planted in this engine: what its simulations are worth is whether they find them.
//!
//! Each is a place where this engine does the right thing, made wrong in the way that it once was elsewhere; who met it
//! and where is told by `taipei-sim museum`. Only builds with the feature `canaries` can have one, and an engine has one at
//! most. It never changes an engine that has none.

/// A bug of another client, as this engine would have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OldBug {
    /// A block that was asked of one peer is asked of nobody else, however slow that peer is.
    NoEndgame,
    /// A piece whose hash was wrong is not picked again.
    BadPieceForgotten,
    /// The short block at the end of a piece whose length is no multiple of 16 KiB is not asked for.
    TailForgotten,
    /// Who disconnects keeps what was asked of it.
    DeadPeerKeepsPieces,
    /// A piece that is here is picked again as well.
    HaveAndQueued,
    /// Who finds all slots taken is not unchoked when its turn has come.
    NoTurn,
    /// A write that the disk refused is not tried again, and its piece counts as under way.
    RefusedWriteForgotten,
    /// What a peer rejected is asked of it again at once.
    AskedAgainAtOnce,
    /// A disk that was full is not tried again.
    FullForEver,
    /// What was written before the machine went down is believed after it.
    BelievedAfterPowerCut,
    /// A tracker that failed five times is asked again in 68 years.
    TrackersGivenUp,
    /// Every announce says `started`.
    StartedAgain,
    /// The DHT looks for its first nodes once.
    BootstrapOnce,
    /// Metadata is asked of the first peer that has it, also when that peer is gone.
    MetadataOfOne,
    /// Who does not answer keeps what it was asked for.
    SilenceKeepsPieces,
    /// Who sent wrong data is not banned.
    LiarForgiven,
    /// When a piece was wrong, everybody who has it is banned.
    AllBlamed,
}

/// Which old bug an engine has: none, in a build without the feature `canaries`, and then it takes no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    #[cfg(feature = "canaries")]
    bug: Option<OldBug>,
}

impl Planted {
    /// An engine with this bug.
    #[cfg(feature = "canaries")]
    pub fn new(bug: OldBug) -> Self {
        Self { bug: Some(bug) }
    }

    /// Whether it is this one.
    #[cfg(feature = "canaries")]
    pub(crate) fn is(self, bug: OldBug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether it is this one: it is not.
    #[cfg(not(feature = "canaries"))]
    pub(crate) const fn is(self, _: OldBug) -> bool {
        false
    }
}
