//! Datagrams, one by one.

use core::net::SocketAddr;

use bytes::Bytes;

use super::{Event, World};
use crate::plan::PEER_PORT;
use crate::trace::Kind;

impl World {
    /// A datagram leaves, unless the queue of the link is full or it is lost.
    pub(super) fn send_datagram(&mut self, host: usize, to: SocketAddr, payload: Bytes) {
        let (now, from) = (self.now, self.plan.hosts[host].address);
        let this = &mut self.hosts[host];
        let lost = self.plan.loss.is_some_and(|(part, of)| this.loss_rng.below(of) < part);
        if lost || this.uplink.clock.backlog(now) > this.uplink.queue {
            return;
        }
        let departure = this.uplink.clock.book(now, payload.len() as u64);
        let at = departure + self.latency(from, to.ip());
        self.at(at, Event::Packet { from: SocketAddr::new(from, PEER_PORT), to, payload });
    }

    pub(super) fn on_packet(&mut self, from: SocketAddr, to: SocketAddr, payload: Bytes) {
        if let Some(number) = self.plan.trackers.iter().position(|tracker| tracker.address == to) {
            let host = self.plan.host_at(from.ip()).map_or(0, |host| host as u32 + 1);
            let asked = [number as u64, payload.len() as u64, 1];
            self.watch.trace.event(self.now, host, Kind::Request, asked);
            let Some((after, answer)) = self.trackers[number].answer_datagram(self.now, from, &payload)
            else {
                return;
            };
            self.watch.trace.event(self.now, host, Kind::Answer, [0, answer.len() as u64, 1]);
            let at = self.now + after + self.latency(to.ip(), from.ip());
            self.at(at, Event::Packet { from: to, to: from, payload: answer });
        } else if let Some(host) = self.plan.host_at(to.ip()).filter(|_| to.port() == PEER_PORT) {
            let (now, this) = (self.now, &mut self.hosts[host]);
            if this.powered && this.process.is_some() {
                let (at, incarnation) = (this.downlink.book(now, payload.len() as u64), this.incarnation);
                self.at(at, Event::Datagram { host, incarnation, from, payload });
            }
        }
    }
}
