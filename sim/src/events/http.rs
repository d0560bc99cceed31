//! Requests over HTTP, answered by actors without a stream between: what a stream would make of loss and cuts is reckoned.

use core::net::{IpAddr, SocketAddr};

use taipei_engine::HttpId;
use taipei_engine::input::{HttpResponse, NetError};
use taipei_engine::limits::HTTP_RECEIVE_TIMEOUT;
use taipei_engine::output::HttpGet;

use super::{Event, World};
use crate::network::nat::Protocol;
use crate::trace::{Kind, digest};
use crate::tracker;

/// An answer on its way back.
pub(super) struct Reply {
    pub(super) tracker: usize,
    pub(super) tracker_at: SocketAddr,
    pub(super) asked_from: SocketAddr,
    pub(super) host: usize,
    pub(super) incarnation: u32,
    pub(super) request: HttpId,
    pub(super) result: Result<HttpResponse, NetError>,
}

impl World {
    /// SYN, SYN-ACK, and the request with the third packet; again where one of them is lost.
    pub(super) fn dial_http(&mut self, host: usize, incarnation: u32, get: Box<HttpGet>, tries: u32) {
        let is_wanted = self.is_process(host, incarnation)
            && self.hosts[host].process.as_ref().is_some_and(|own| own.requests.contains_key(&get.request));
        if !is_wanted {
            return;
        }
        let (now, request) = (self.now, get.request);
        let Some(own) = self.plan.hosts[host].address_towards(get.target.ip()) else {
            let result = Err(NetError::Unreachable);
            self.at(now + super::LOOPBACK_TIME, Event::Answer { host, incarnation, request, result });
            return;
        };
        if tries > TRIES_MAX {
            let result = Err(NetError::TimedOut);
            self.at(now, Event::Answer { host, incarnation, request, result });
            return;
        }
        // Where nobody is, nobody answers.
        let there = self.plan.party_at(get.target.ip());
        if there.is_none_or(|there| self.is_lost(host, there) || self.is_lost(there, host)) {
            let at = now + (SYN_TIME << tries);
            self.at(at, Event::HttpDial { host, incarnation, get, tries: tries + 1 });
            return;
        }
        let from = self.http_source(host, own, get.target);
        let latency = self.latency(own, get.target.ip());
        let late = there.map_or(0, |there| self.lateness(host, there, latency));
        self.at(now + 3 * latency + late, Event::Request { host, incarnation, from, get });
    }

    /// Where a request comes from, as the other side sees it.
    fn http_source(&mut self, host: usize, own: IpAddr, to: SocketAddr) -> SocketAddr {
        let inner = SocketAddr::new(own, HTTP_PORT);
        match self.plan.hosts[host].nat.filter(|_| own.is_ipv4()) {
            Some(nat) => self.nats[nat].handle_out(self.now, Protocol::Tcp, inner, to),
            None => inner,
        }
    }

    /// How much later a packet comes for having been lost.
    fn lateness(&mut self, from: usize, to: usize, latency: u64) -> u64 {
        let mut late = self.senders[from].jitter(&self.plan.net);
        for tries in 0..TRIES_MAX {
            if !self.is_lost(from, to) {
                break;
            }
            late += (2 * latency + RETRANSMISSION_TIME) << tries;
        }
        late
    }

    pub(super) fn request(&mut self, host: usize, incarnation: u32, from: SocketAddr, get: &HttpGet) {
        let (now, request) = (self.now, get.request);
        let number = self.plan.tracker_at(get.target);
        let Some(tracker) = number.filter(|number| !self.trackers[*number].refuses()) else {
            let latency = self.plan.hosts[host]
                .address_towards(get.target.ip())
                .map_or(0, |own| self.latency(own, get.target.ip()));
            let result = Err(NetError::Refused);
            self.at(now + latency, Event::Answer { host, incarnation, request, result });
            return;
        };
        let party = host as u32 + 1;
        self.watch.trace.event(now, party, Kind::Request, [tracker as u64, digest(&get.path), 0]);
        // As the driver has it: who says nothing for so long has failed.
        let silent = Event::Answer { host, incarnation, request, result: Err(NetError::TimedOut) };
        let silent_at = now + HTTP_RECEIVE_TIMEOUT.as_nanos() as u64;
        self.capture_request(host, incarnation, from, get);
        let Some(reply) = self.trackers[tracker].answer(now, from, &get.path) else {
            return self.at(silent_at, silent);
        };
        let trace = [u64::from(reply.status), reply.body.len() as u64, 0];
        self.watch.trace.event(now, party, Kind::Answer, trace);
        let (after, too_large) = (reply.after, reply.body.len() > get.body_bytes_max as usize);
        let result = if too_large {
            Err(NetError::TooLarge)
        } else if reply.cut {
            Err(NetError::Reset)
        } else {
            let tracker::Reply { status, location, body, gzip, .. } = reply;
            Ok(HttpResponse { status, location, body, gzip })
        };
        if now + after > silent_at {
            return self.at(silent_at, silent);
        }
        let answer = Box::new(Reply {
            tracker,
            tracker_at: get.target,
            asked_from: from,
            host,
            incarnation,
            request,
            result,
        });
        self.at(now + after, Event::Reply { answer, tries: 0 });
    }

    /// The answer leaves, and again while it is cut off.
    pub(super) fn on_reply(&mut self, answer: Box<Reply>, tries: u32) {
        let (now, host) = (self.now, answer.host);
        let party = self.plan.tracker_party(answer.tracker);
        let tracker = self.plan.trackers[answer.tracker].address.ip();
        let latency = self.latency(self.plan.hosts[host].address, tracker);
        self.capture_answer(&answer);
        if self.cuts.swallow(party, host) {
            if tries < TRIES_MAX {
                let at = now + ((2 * latency + RETRANSMISSION_TIME) << tries);
                self.at(at, Event::Reply { answer, tries: tries + 1 });
            }
            return;
        }
        let Reply { incarnation, request, result, .. } = *answer;
        let at = now + latency + self.lateness(party, host, latency);
        self.at(at, Event::Answer { host, incarnation, request, result });
    }
}

/// Where HTTP requests come from.
const HTTP_PORT: u16 = 32_000;
const SYN_TIME: u64 = 1_000_000_000;
const RETRANSMISSION_TIME: u64 = 200_000_000;
const TRIES_MAX: u32 = 6;
