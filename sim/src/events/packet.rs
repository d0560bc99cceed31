//! Datagrams, one by one.

use core::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::{Event, World};
use crate::network::nat::Protocol;
use crate::plan::PEER_PORT;
use crate::trace::Kind;

impl World {
    /// A datagram leaves, unless the queue of the link is full.
    pub(super) fn send_datagram(&mut self, host: usize, to: SocketAddr, payload: Bytes) {
        let now = self.now;
        let Some(own) = self.plan.hosts[host].address_towards(to.ip()) else { return };
        if to.ip().is_multicast() {
            self.capture_datagram(self.now, SocketAddr::new(own, PEER_PORT), to, &payload);
            return self.send_to_neighbours(host, own, &payload);
        }
        let inner = SocketAddr::new(own, PEER_PORT);
        let this = &mut self.hosts[host];
        if this.uplink.clock.backlog(now) > this.uplink.queue {
            self.drop_packet(host, payload.len());
            return;
        }
        this.slowed += u64::from(this.is_slow);
        let departure = this.uplink.clock.book(now, payload.len() as u64);
        let from = match self.plan.nat_towards(host, to.ip()) {
            Some(nat) => self.nats[nat].handle_out(now, Protocol::Udp, inner, to),
            None => inner,
        };
        self.carry_packet(host, departure, from, to, payload);
    }

    /// A datagram for all on the local network: those behind the same box, the sender as well. It leaves by no access
    /// link, so that it waits for none on the way out.
    pub(super) fn send_to_neighbours(&mut self, host: usize, own: IpAddr, payload: &Bytes) {
        let plan = self.plan.clone();
        let Some(nat) = plan.hosts[host].nat else { return };
        let from = SocketAddr::new(own, PEER_PORT);
        for (there, neighbour) in plan.hosts.iter().enumerate().filter(|(_, other)| other.nat == Some(nat)) {
            let Some(to) = neighbour.address_towards(own) else { continue };
            if there != host && self.cuts.swallow(host, there) {
                self.drop_packet(host, payload.len());
                continue;
            }
            let at = self.now + self.latency(own, to);
            self.at(at, Event::Packet { from, to: SocketAddr::new(to, PEER_PORT), payload: payload.clone() });
        }
    }

    /// What paths make of a datagram that leaves a party: nothing, or one copy or more.
    fn carry_packet(
        &mut self,
        party: usize,
        departure: u64,
        from: SocketAddr,
        to: SocketAddr,
        payload: Bytes,
    ) {
        self.capture_datagram(departure, from, to, &payload);
        let Some(inner) = self.let_in(from, to) else { return };
        let Some(there) = self.plan.party_at(inner.ip()) else { return };
        if self.cuts.swallow(party, there) {
            self.drop_packet(party, payload.len());
            return;
        }
        let latency = self.latency(self.party_address(party, inner), inner.ip());
        let mut copies = 0;
        for late in self.senders[party].copies(departure, &self.plan.net) {
            copies += 1;
            let at = departure + latency + late;
            self.at(at, Event::Packet { from, to: inner, payload: payload.clone() });
        }
        if copies == 0 {
            self.drop_packet(party, payload.len());
        }
    }

    /// Whom something to an address comes to: through the box there, if there is one and it lets it in.
    fn let_in(&mut self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let Some(nat) = self.plan.nat_at(to.ip()) else { return Some(to) };
        let nat = &mut self.nats[nat];
        if nat.is_outside(from.ip()) && !nat.hairpins() {
            return None;
        }
        nat.handle_in(self.now, Protocol::Udp, from, to.port())
    }

    /// A party's own address of the family of another.
    fn party_address(&self, party: usize, towards: SocketAddr) -> IpAddr {
        let own = self.plan.hosts.get(party).and_then(|host| host.address_towards(towards.ip()));
        let tracker = || self.plan.trackers[party - self.plan.hosts.len()].address.ip();
        own.unwrap_or_else(|| if party < self.plan.hosts.len() { towards.ip() } else { tracker() })
    }

    fn drop_packet(&mut self, party: usize, bytes: usize) {
        let number = if party < self.hosts.len() { party as u32 + 1 } else { 0 };
        self.watch.trace.event(self.now, number, Kind::Lost, [0, bytes as u64, 2]);
    }

    pub(super) fn on_packet(&mut self, from: SocketAddr, to: SocketAddr, payload: Bytes) {
        let now = self.now;
        if let Some(number) = self.plan.tracker_at(to) {
            let host = self.plan.host_at(from.ip()).map_or(0, |host| host as u32 + 1);
            let asked = [number as u64, payload.len() as u64, 1];
            self.watch.trace.event(now, host, Kind::Request, asked);
            let Some(answer) = self.trackers[number].answer_datagram(now, from, &payload) else { return };
            self.watch.trace.event(now, host, Kind::Answer, [0, answer.payload.len() as u64, 1]);
            let said_from = SocketAddr::new(to.ip(), to.port() + u16::from(answer.from_elsewhere));
            let party = self.plan.tracker_party(number);
            self.carry_packet(party, now + answer.after, said_from, from, answer.payload);
        } else if let Some(host) = self.plan.host_at(to.ip()).filter(|_| to.port() == PEER_PORT) {
            let this = &mut self.hosts[host];
            if this.downlink.backlog(now) > this.queue_down {
                self.drop_packet(host, payload.len());
            } else if this.powered && this.process.is_some() {
                let (at, incarnation) = (this.downlink.book(now, payload.len() as u64), this.incarnation);
                self.at(at, Event::Datagram { host, incarnation, from, payload });
            }
        }
    }
}
