//! Marks: what must have happened for a run, or a sweep, to have proved something about it.

/// Something that runs can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// As scenarios and reports call it.
    pub name: &'static str,
    /// What has happened.
    pub meaning: &'static str,
    /// No profile draws what leads to it: scenarios that do ask for it.
    pub is_rare: bool,
}

const fn is(name: &'static str, meaning: &'static str) -> Mark {
    Mark { name, meaning, is_rare: false }
}

const fn is_rarely(name: &'static str, meaning: &'static str) -> Mark {
    Mark { name, meaning, is_rare: true }
}

/// All of them.
pub const MARKS: &[Mark] = &[
    is("piece_hash_ok", "pieces were hashed and right"),
    is("piece_hash_bad", "a piece was hashed and wrong"),
    is("hashed_together", "several pieces were hashed by one job"),
    is("read_back", "a piece was hashed from disk, because parts of it had left the memory"),
    is("written_early", "a part of a piece was written before the piece was whole"),
    is("as_closed", "a torrent was opened as it had been closed, without a write"),
    is("resumed", "a later process of a host had pieces at once"),
    is("rechecked", "pieces that earlier processes left had to be hashed"),
    is("checked_again", "pieces that were had were hashed again, as their file was in doubt"),
    is("snapshot", "what is had was saved and synced"),
    is("damage_noticed", "what another program did to files was noticed before it did any harm"),
    is("disk_error", "the disk refused a job"),
    is("disk_full_waited", "a torrent waited for a full disk and went on"),
    is("choked", "a peer choked us"),
    is("optimistic_unchoke", "a round of the choker served somebody while others wait"),
    is("fast_block", "a block came from a peer that chokes us, as it had allowed (BEP 6)"),
    is("request_rejected", "a request of ours was rejected (BEP 6)"),
    is("snubbed", "a block was asked of another peer, as the first did not send it in time"),
    is("endgame", "a block came that was asked of several, and was taken back at the others"),
    is("duplicate_block", "a block came that we no longer waited for"),
    is("parole", "a piece that had failed came from one peer alone and was right"),
    is("banned", "a peer was banned"),
    is("keep_alive", "a connection was kept alive without anything to say"),
    is("dial_failed", "a dial failed"),
    is("connection_lost", "the network cut a connection"),
    is("reconnected", "a process was connected to a host once more"),
    is("tracker_failed", "a tracker did not answer, or refused"),
    is("tier_changed", "a tracker of another tier was asked than before"),
    is("udp_announce", "a tracker was told over UDP"),
    is_rarely("dht_asked", "the DHT was asked about a torrent, or told of it"),
    is("pex_told", "a peer was told of others (BEP 11)"),
    is_rarely("lsd_announce", "the local network was told of a torrent"),
    is_rarely("lsd_heard", "a host on the local network was heard that is in a torrent"),
];
