//! What the embedder asks the DHT, beside what torrents need: each question has one answer, also where there is no DHT.

use core::net::SocketAddr;

use super::Engine;
use super::trackerless::Purpose;
use crate::alert::Alert;
use crate::dht::item::{Item, ItemName};
use crate::dht::{Announce, Goal, Report};
use crate::ids::InfoHash;
use crate::node_id::NodeId;
use crate::output::Output;

#[derive(Clone, Debug)]
pub(super) enum Question {
    Ping(SocketAddr),
    Peers(InfoHash, Option<u16>),
    Get(ItemName),
    Put(Box<Item>, Option<i64>),
    Sample(NodeId),
}

impl Question {
    /// What is searched for; an error is the address of the one node that is asked.
    fn goal(&self) -> Result<Goal, SocketAddr> {
        match self {
            Self::Ping(address) => Err(*address),
            Self::Peers(info_hash, port) => {
                let announce = port.map(|port| Announce { port, implied_port: false, seed: false });
                Ok(Goal::Peers { info_hash: *info_hash, announce })
            }
            Self::Get(name) => Ok(Goal::Item { name: name.clone() }),
            Self::Put(item, cas) => Ok(Goal::Put { name: ItemName::of(item), item: item.clone(), cas: *cas }),
            Self::Sample(target) => Ok(Goal::InfoHashes { target: *target }),
        }
    }

    fn answer(self, report: Report) -> Alert {
        let Report { asked, hops, told, refused, peers, info_hashes, item, nearest } = report;
        let item = item.map(Box::new);
        match self {
            Self::Ping(address) => {
                Alert::DhtPinged { address, node: nearest.first().map(|contact| contact.id) }
            }
            Self::Peers(info_hash, _) => {
                Alert::DhtLookedUp { info_hash, asked, hops, announced: told, peers }
            }
            Self::Get(name) => Alert::DhtGot { name, item, asked },
            Self::Put(ours, _) => {
                let newer = item.filter(|item| item.sequence() > ours.sequence());
                Alert::DhtStored { name: ItemName::of(&ours), nodes: told, refused, newer, asked }
            }
            Self::Sample(target) => Alert::DhtSampled { target, asked, info_hashes },
        }
    }
}

impl Engine {
    /// The embedder asks.
    pub(super) fn ask_dht(&mut self, question: Question) {
        let Some(dht) = self.trackerless.dht.as_mut().filter(|_| !self.stopping) else {
            return self.answer_embedder(question, Report::default());
        };
        let search = match question.goal() {
            Ok(goal) => dht.search(self.now, goal),
            Err(address) => dht.ping(self.now, address),
        };
        self.trackerless.searches.insert(search, Purpose::Asked(question));
    }

    pub(super) fn answer_embedder(&mut self, question: Question, report: Report) {
        self.outputs.push_back(Output::Alert(question.answer(report)));
    }
}
