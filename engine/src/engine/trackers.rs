//! Between trackers and those who ask them: answers to whoever waits for them, datagrams in and out.

use core::net::{IpAddr, SocketAddr};

use super::Engine;
use crate::alert::Alert;
use crate::context::{Asker, Context, Wake};
use crate::datagram::{Protocol, classify};
use crate::ids::{HttpId, InfoHash, ResolveId};
use crate::input::{HttpResponse, NetError};
use crate::output::Output;
use crate::scraper::Scraper;
use crate::udp_trackers::Outcome;

impl Engine {
    pub(super) fn handle_resolved(&mut self, query: ResolveId, result: Result<Vec<IpAddr>, NetError>) {
        match self.routes.lookups.remove(&query) {
            Some(Asker::Torrent(id)) => {
                self.with_torrent(id, |torrent, context| torrent.handle_resolved(context, query, result));
            }
            Some(Asker::Scraper) => {
                self.with_scraper(|scraper, context| scraper.handle_resolved(context, query, result));
            }
            Some(Asker::Dht) => self.handle_dht_resolved(query, result),
            None => {}
        }
        self.routes.call_next(&mut self.timers, self.now);
    }

    pub(super) fn handle_http(&mut self, request: HttpId, result: Result<HttpResponse, NetError>) {
        match self.routes.requests.remove(&request) {
            Some(Asker::Torrent(id)) => {
                self.with_torrent(id, |torrent, context| torrent.handle_http(context, request, result));
            }
            Some(Asker::Scraper) => {
                self.with_scraper(|scraper, context| scraper.handle_http(context, request, result));
            }
            // The DHT looks up names alone.
            Some(Asker::Dht) | None => {}
        }
        self.routes.call_next(&mut self.timers, self.now);
    }

    pub(super) fn handle_datagram(&mut self, remote: SocketAddr, payload: &[u8]) {
        match classify(payload) {
            Some(Protocol::Tracker) => {
                let outcomes = self.udp_trackers.handle_datagram(self.now, remote, payload);
                self.deliver(outcomes);
            }
            Some(Protocol::Dht) => self.handle_dht_datagram(remote, payload),
            Some(Protocol::Lsd) => self.handle_lsd_datagram(remote, payload),
            // Nobody here speaks it yet.
            Some(Protocol::Utp) | None => {}
        }
    }

    /// Time has come for UDP trackers.
    pub(super) fn handle_udp_timeout(&mut self) {
        let outcomes = self.udp_trackers.handle_timeout(self.now);
        self.deliver(outcomes);
    }

    pub(super) fn scrape(&mut self, tracker: String, info_hashes: Vec<InfoHash>) {
        if self.stopping {
            let result = Err("shutting down".to_owned());
            return self.outputs.push_back(Output::Alert(Alert::Scraped { tracker, result }));
        }
        self.with_scraper(|scraper, context| scraper.scrape(context, tracker, info_hashes));
    }

    pub(super) fn with_scraper(&mut self, act: impl FnOnce(&mut Scraper, &mut Context<'_>)) {
        let mut scraper = std::mem::take(&mut self.scraper);
        self.split(|_, context| act(&mut scraper, context));
        self.scraper = scraper;
    }

    /// Sends what UDP trackers are asked.
    pub(super) fn send_datagrams(&mut self) {
        while let Some((remote, payload)) = self.udp_trackers.poll_packet() {
            self.outputs.push_back(Output::SendDatagram { remote, payload });
        }
        self.timers.set(Wake::UdpTrackers, self.udp_trackers.poll_timeout());
    }

    fn deliver(&mut self, outcomes: Vec<Outcome>) {
        for (question, result) in outcomes {
            match self.routes.questions.remove(&question) {
                Some(Asker::Torrent(id)) => {
                    self.with_torrent(id, |torrent, context| torrent.handle_udp(context, question, result));
                }
                Some(Asker::Scraper) => {
                    self.with_scraper(|scraper, context| scraper.handle_udp(context, question, result));
                }
                Some(Asker::Dht) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
