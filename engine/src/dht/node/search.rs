//! A search: one look-up with a goal. What its answers bring is judged and kept here; when the look-up is over, the nodes
//! nearest to the point are told what the goal has to tell (BEP 5 announces, BEP 44 puts).

use core::net::SocketAddr;
use std::collections::BTreeSet;

use super::lookup::Lookup;
use crate::address::is_acceptable;
use crate::dht::item::Item;
use crate::dht::{Announce, Goal, Report};
use crate::ids::InfoHash;
use crate::wire::krpc::{Ask, Contact, Response};

#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) goal: Goal,
    pub(crate) lookup: Lookup,
    /// Answers that are waited for from those who were told, once the look-up is over.
    telling: Option<u32>,
    told: u32,
    refused: Option<i64>,
    peers: BTreeSet<SocketAddr>,
    info_hashes: BTreeSet<InfoHash>,
    item: Option<Item>,
}

/// What an answer brought that no answer before it did.
#[derive(Debug)]
pub(crate) enum Found {
    Peers(Vec<SocketAddr>),
    InfoHashes(Vec<InfoHash>),
}

impl Search {
    pub(crate) fn new(goal: Goal, lookup: Lookup) -> Self {
        Self {
            goal,
            lookup,
            telling: None,
            told: 0,
            refused: None,
            peers: BTreeSet::new(),
            info_hashes: BTreeSet::new(),
            item: None,
        }
    }

    /// What an answer from here brings beside nodes.
    pub(crate) fn on_response(&mut self, from: SocketAddr, response: Response) -> Option<Found> {
        match &self.goal {
            Goal::Nodes { .. } => None,
            Goal::Peers { .. } => {
                let room = PEERS_MAX.saturating_sub(self.peers.len());
                let new = response.peers.into_iter().filter(|peer| is_acceptable(*peer, from.ip()));
                let new: Vec<_> = new.take(room).filter(|peer| self.peers.insert(*peer)).collect();
                (!new.is_empty()).then_some(Found::Peers(new))
            }
            Goal::InfoHashes { .. } => {
                let room = INFO_HASHES_MAX.saturating_sub(self.info_hashes.len());
                let new = response.samples.unwrap_or_default().info_hashes.into_iter().take(room);
                let new: Vec<_> = new.filter(|hash| self.info_hashes.insert(*hash)).collect();
                (!new.is_empty()).then_some(Found::InfoHashes(new))
            }
            Goal::Item { name } | Goal::Put { name, .. } => {
                let is_newer =
                    |item: &Item| self.item.as_ref().is_none_or(|known| item.sequence() > known.sequence());
                // A number is compared before a signature is checked: many nodes have the same.
                let new = response.item.filter(|item| is_newer(item) && name.is_of(item));
                self.item = new.or(self.item.take());
                None
            }
        }
    }

    /// Whether nothing better can be found, though others could be asked.
    pub(crate) fn is_found(&self) -> bool {
        let is_fixed = self.item.as_ref().is_some_and(|item| item.signed.is_none());
        is_fixed && matches!(self.goal, Goal::Item { .. })
    }

    /// Whether the look-up is over and others are told.
    pub(crate) fn is_telling(&self) -> bool {
        self.telling.is_some()
    }

    /// Who is told what, now that the look-up is over.
    pub(crate) fn tell(&mut self) -> Vec<(Contact, Ask)> {
        let nearest = self.lookup.nearest().into_iter();
        let tell = |(contact, token): (Contact, Option<Vec<u8>>)| Some((contact, self.word(token?)?));
        let asks: Vec<_> = nearest.filter_map(tell).collect();
        self.telling = Some(asks.len() as u32);
        asks
    }

    /// Somebody who was told has answered; or has not, and may have said why.
    pub(crate) fn on_told(&mut self, result: Result<(), Option<i64>>) {
        self.telling = self.telling.map(|left| left.saturating_sub(1));
        match result {
            Ok(()) => self.told += 1,
            Err(code) => self.refused = code.or(self.refused),
        }
    }

    /// Whether all is done.
    pub(crate) fn is_over(&self) -> bool {
        self.telling == Some(0)
    }

    pub(crate) fn report(self) -> Report {
        Report {
            asked: self.lookup.asked(),
            hops: self.lookup.hops(),
            told: self.told,
            refused: self.refused,
            peers: self.peers.len() as u32,
            info_hashes: self.info_hashes.len() as u32,
            item: self.item,
            nearest: self.lookup.nearest().into_iter().map(|(contact, _)| contact).collect(),
        }
    }

    fn word(&self, token: Vec<u8>) -> Option<Ask> {
        match &self.goal {
            Goal::Peers { info_hash, announce: Some(Announce { port, implied_port, seed }) } => {
                let (info_hash, port, implied_port, seed) = (*info_hash, *port, *implied_port, *seed);
                Some(Ask::AnnouncePeer { info_hash, port, implied_port, seed, token })
            }
            Goal::Put { item, cas, .. } => Some(Ask::Put { item: item.clone(), cas: *cas, token }),
            _ => None,
        }
    }
}

/// Peers taken from one search.
const PEERS_MAX: usize = 1000;
/// Info-hashes taken from one search: 200 nodes that give 20 each.
const INFO_HASHES_MAX: usize = 4000;
