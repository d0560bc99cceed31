//! Who sent wrong data: found by comparing blocks, so that no innocent is ever banned.
//!
//! When a piece fails, who sent it alone has lied. Of a piece of several senders, the digest and the sender of each
//! block are remembered and the piece is *suspect*: it is fetched from one peer alone, so that the next failure has one
//! culprit. When it passes, those whose block differed from the right one have lied, and nobody else.
//!
//! How often one address can spoil a piece unseen is bounded by how many it may share at once: [`Shares`].

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};

use crate::address::Scope;
use crate::disk::BlockDigest;
use crate::ids::{BlockIndex, PieceIndex};
use crate::limits::EVIDENCE_BLOCKS_MAX;

/// Whom a ban is about: a host, or on local networks, where many share one address, a host and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source(u128, Option<u16>);

impl Source {
    pub(crate) fn of(address: SocketAddr) -> Self {
        let local = Scope::of(address.ip()) != Scope::Public;
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self(ip.to_bits(), local.then_some(address.port()))
    }
}

/// Who sent each block of a piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Senders {
    addresses: Vec<SocketAddr>,
    /// Of each block, the place in `addresses`.
    of_block: Vec<u16>,
}

impl Senders {
    pub(crate) fn new(block_count: u32) -> Self {
        Self { addresses: Vec::new(), of_block: vec![NOBODY; block_count as usize] }
    }

    /// A block came from this address.
    pub(crate) fn add(&mut self, block: BlockIndex, address: SocketAddr) {
        let known = self.addresses.iter().position(|known| *known == address);
        let at = known.unwrap_or_else(|| {
            self.addresses.push(address);
            self.addresses.len() - 1
        });
        if let Some(of_block) = self.of_block.get_mut(block.0 as usize) {
            *of_block = u16::try_from(at).unwrap_or(NOBODY);
        }
    }

    /// Whether nothing came yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Whoever sent a block.
    pub(crate) fn sources(&self) -> BTreeSet<Source> {
        self.addresses.iter().copied().map(Source::of).collect()
    }

    /// Whether these digests of all blocks are those of what they sent.
    pub(crate) fn sent(&self, stored: &BTreeMap<BlockIndex, BlockDigest>, digests: &[BlockDigest]) -> bool {
        digests.len() == self.of_block.len()
            && (0..).zip(digests).all(|(block, digest)| stored.get(&BlockIndex(block)) == Some(digest))
    }

    /// Who alone sent it all, if it was one.
    fn sole(&self) -> Option<SocketAddr> {
        self.addresses.first().copied().filter(|_| self.sources().len() == 1)
    }

    fn of(&self, block: usize) -> Option<SocketAddr> {
        self.addresses.get(usize::from(*self.of_block.get(block)?)).copied()
    }
}

/// Pieces that failed and did not pass since.
#[derive(Debug, Default)]
pub(crate) struct SmartBan {
    /// What is remembered of their failure, where several had sent them.
    suspects: BTreeMap<PieceIndex, Option<Evidence>>,
    blocks: usize,
    /// In those that several had sent.
    shares: Shares,
}

#[derive(Debug)]
struct Evidence {
    senders: Senders,
    digests: Vec<BlockDigest>,
}

impl SmartBan {
    /// Whether there are no suspect pieces.
    pub(crate) fn is_empty(&self) -> bool {
        self.suspects.is_empty()
    }

    /// Whether `piece` must come from one peer alone.
    pub(crate) fn is_suspect(&self, piece: PieceIndex) -> bool {
        self.suspects.contains_key(&piece)
    }

    /// Whether the digests of its blocks are wanted should it pass.
    pub(crate) fn wants_digests(&self, piece: PieceIndex) -> bool {
        matches!(self.suspects.get(&piece), Some(Some(_)))
    }

    /// A piece failed. Gives who is known to have lied.
    pub(crate) fn on_failed(
        &mut self,
        piece: PieceIndex,
        senders: Senders,
        digests: Vec<BlockDigest>,
    ) -> Option<SocketAddr> {
        let sole = senders.sole();
        let known = self.suspects.entry(piece).or_default();
        // The first failure is kept: what comes after it has one sender. What does not fit is forgotten, and the
        // piece is suspect all the same.
        if sole.is_none() && known.is_none() && self.blocks + digests.len() <= EVIDENCE_BLOCKS_MAX {
            self.blocks += digests.len();
            self.shares.add(&senders.sources());
            *known = Some(Evidence { senders, digests });
        }
        sole
    }

    /// A piece passed, and its blocks have these digests. Gives who lied when it failed before.
    pub(crate) fn on_passed(&mut self, piece: PieceIndex, right: &[BlockDigest]) -> Vec<SocketAddr> {
        let Some(Some(evidence)) = self.suspects.remove(&piece) else { return Vec::new() };
        self.blocks -= evidence.digests.len();
        self.shares.remove(&evidence.senders.sources());
        let mut liars: BTreeMap<Source, SocketAddr> = BTreeMap::new();
        for (block, (was, right)) in evidence.digests.iter().zip(right).enumerate() {
            if was != right
                && let Some(address) = evidence.senders.of(block)
            {
                liars.entry(Source::of(address)).or_insert(address);
            }
        }
        liars.into_values().collect()
    }

    /// In the suspect pieces that several had sent.
    pub(crate) fn shares(&self) -> &Shares {
        &self.shares
    }
}

/// How many pieces each address has a share in beside others, until they are found good: at most [`SHARED_MAX`]. One
/// more that it spoils is its alone, so three bad pieces are the most that anybody gets us to take.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares(BTreeMap<Source, usize>);

impl Shares {
    /// A piece of which these have a share.
    pub(crate) fn add(&mut self, sharers: &BTreeSet<Source>) {
        if sharers.len() > 1 {
            sharers.iter().for_each(|sharer| *self.0.entry(*sharer).or_default() += 1);
        }
    }

    /// `source` has a share in a piece as well, of which now these have one.
    pub(crate) fn join(&mut self, sharers: &BTreeSet<Source>, source: Source) {
        match sharers.len() {
            0 | 1 => {}
            2 => self.add(sharers),
            _ => *self.0.entry(source).or_default() += 1,
        }
    }

    /// A piece of which these had a share is judged, or thrown away.
    pub(crate) fn remove(&mut self, sharers: &BTreeSet<Source>) {
        for sharer in sharers.iter().filter(|_| sharers.len() > 1) {
            let count = self.0.get_mut(sharer).expect("it was counted");
            *count -= 1;
            if *count == 0 {
                self.0.remove(sharer);
            }
        }
    }

    /// Whether `source` may have a share in a piece of which `sharers` have one already, by all that is `counted`.
    pub(crate) fn permit<const N: usize>(
        counted: [&Self; N],
        sharers: &BTreeSet<Source>,
        source: Source,
    ) -> bool {
        let may = |sharer: &Source| {
            let counts = counted.iter().filter_map(|shares| shares.0.get(sharer));
            counts.sum::<usize>() < SHARED_MAX
        };
        sharers.is_empty()
            || sharers.contains(&source)
            || (may(&source) && (sharers.len() > 1 || sharers.iter().all(may)))
    }
}

const SHARED_MAX: usize = 2;
const NOBODY: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> SocketAddr {
        ([8, 8, 8, n], 1000 + u16::from(n)).into()
    }

    /// `who` sent each block, `what` was in it: as letters.
    fn sent(who: &str, what: &str) -> (Senders, Vec<BlockDigest>) {
        let mut senders = Senders::new(who.len() as u32);
        (0..).zip(who.bytes()).for_each(|(block, who)| senders.add(BlockIndex(block), address(who)));
        (senders, digests(what))
    }

    fn digests(what: &str) -> Vec<BlockDigest> {
        what.bytes().map(|what| BlockDigest(what.into())).collect()
    }

    /// A piece fails as told, passes with `right`: who is found to have lied.
    fn check(who: &str, what: &str, right: &str) -> String {
        let mut ban = SmartBan::default();
        let piece = PieceIndex::new(3);
        let (senders, wrong) = sent(who, what);
        assert_eq!(ban.on_failed(piece, senders, wrong), None);
        assert!(ban.is_suspect(piece) && ban.wants_digests(piece));
        let liars = ban.on_passed(piece, &digests(right));
        assert!(!ban.is_suspect(piece) && ban.blocks == 0);
        liars
            .iter()
            .map(|liar| char::from(liar.ip().to_string().rsplit('.').next().unwrap().parse::<u8>().unwrap()))
            .collect()
    }

    #[test]
    fn exactly_those_whose_block_differed_have_lied() {
        assert_eq!(check("aabbc", "12x45", "12345"), "b");
        assert_eq!(check("abcab", "x2y4z", "12345"), "abc");
        assert_eq!(check("abc", "1x3", "123"), "b");
        assert_eq!(check("ab", "12", "12"), "", "the disk was wrong, and nobody lied");
        assert_eq!(check("ab", "12", ""), "");
    }

    #[test]
    fn one_sender_alone_is_known_at_once_and_earlier_evidence_is_kept() {
        let mut ban = SmartBan::default();
        let piece = PieceIndex::new(0);
        let (senders, wrong) = sent("ab", "1x");
        assert_eq!(ban.on_failed(piece, senders, wrong), None);
        let (senders, wrong) = sent("cc", "y2");
        assert_eq!(ban.on_failed(piece, senders, wrong), Some(address(b'c')));
        assert_eq!(ban.on_passed(piece, &digests("12")), [address(b'b')]);
        let (senders, wrong) = sent("cc", "y2");
        assert_eq!(ban.on_failed(piece, senders, wrong), Some(address(b'c')));
        assert!(ban.is_suspect(piece) && !ban.wants_digests(piece));
    }

    #[test]
    fn a_public_host_is_one_sender_whatever_its_port() {
        let mut senders = Senders::new(2);
        senders.add(BlockIndex(0), ([8, 8, 8, 8], 1).into());
        senders.add(BlockIndex(1), ([8, 8, 8, 8], 2).into());
        assert!(senders.sole().is_some());
        let mut senders = Senders::new(2);
        senders.add(BlockIndex(0), ([127, 0, 0, 1], 1).into());
        senders.add(BlockIndex(1), ([127, 0, 0, 1], 2).into());
        assert_eq!(senders.sole(), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ban = SmartBan::default();
        let large = "a".to_owned() + &"b".repeat(EVIDENCE_BLOCKS_MAX / 2);
        for n in 0..4 {
            let (senders, wrong) = sent(&large, &large);
            ban.on_failed(PieceIndex::new(n), senders, wrong);
            assert!(ban.blocks <= EVIDENCE_BLOCKS_MAX && ban.is_suspect(PieceIndex::new(n)));
        }
    }

    #[test]
    fn a_third_piece_is_not_shared() {
        let source = |n| Source::of(address(n));
        let set = |all: &[u8]| all.iter().copied().map(source).collect::<BTreeSet<_>>();
        let mut shares = Shares::default();
        let permit = |shares: &Shares, sharers: &[u8], who| {
            let suspects = Shares::default();
            Shares::permit([shares, &suspects], &set(sharers), source(who))
        };
        shares.add(&set(&[1, 2]));
        shares.add(&set(&[9]));
        assert!(permit(&shares, &[1], 3));
        shares.add(&set(&[1, 3]));
        assert!(!permit(&shares, &[1], 4), "of whom two are shared");
        assert!(!permit(&shares, &[4], 1));
        assert!(permit(&shares, &[1, 2], 4), "that one is counted already");
        assert!(permit(&shares, &[1], 1) && permit(&shares, &[], 1));
        assert!(permit(&shares, &[9], 4));
        let mut suspects = Shares::default();
        suspects.add(&set(&[2, 4]));
        assert!(permit(&shares, &[2], 3) && !Shares::permit([&shares, &suspects], &set(&[2]), source(3)));
        shares.remove(&set(&[1, 2]));
        assert!(permit(&shares, &[1], 4));
        shares.remove(&set(&[1, 3]));
        shares.remove(&set(&[9]));
        assert_eq!(shares, Shares::default());
    }

    #[test]
    fn who_joins_is_counted_as_if_all_had_come_together() {
        let source = |n| Source::of(address(n));
        let (mut joined, mut sharers) = (Shares::default(), BTreeSet::new());
        for n in [1, 2, 3, 2, 1, 4] {
            if sharers.insert(source(n)) {
                joined.join(&sharers, source(n));
            }
            let mut together = Shares::default();
            together.add(&sharers);
            assert_eq!(joined, together, "{n}");
        }
    }
}
