//! A box that translates addresses: which port a host behind it has outside, and what comes in through that.
//!
//! In the words of RFC 4787 and RFC 5382: a mapping joins an inner endpoint to a port outside; by the mapping rule it is
//! the same for all destinations, or one for each address, or one for each address and port. The filter decides who may
//! send to that port. A mapping lives as long as something goes out through it now and then (RFC 4787 REQ-6: what comes
//! in does not keep it); for a stream both directions do. What comes to a port without a mapping, or from somebody whom
//! the filter does not let in, is dropped in silence. A port is kept where it is free outside (port preservation),
//! otherwise the next one is taken. There is one address outside.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

use crate::scenario::{NatBox, Rule};

/// What is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Segments of streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A box and what it remembers.
#[derive(Debug)]
pub struct Nat {
    settings: NatBox,
    outside: IpAddr,
    /// By protocol, inner endpoint, and of the destination what the mapping rule looks at.
    mappings: BTreeMap<(Protocol, SocketAddr, Destination), Mapping>,
    /// The mapping of each port that is taken.
    ports: BTreeMap<(Protocol, u16), (SocketAddr, Destination)>,
    /// A port that is somebody's for good: he asked for it.
    forwarded: Option<(u16, SocketAddr)>,
    next_port: u16,
}

/// A destination as far as a rule looks at it.
type Destination = (Option<IpAddr>, Option<u16>);

#[derive(Debug)]
struct Mapping {
    port: u16,
    /// When it is forgotten if nothing passes.
    until: u64,
    /// To whom something went out.
    contacted: BTreeMap<SocketAddr, ()>,
}

impl Nat {
    /// A box that has let nothing through yet. `forwarded` is a port outside and whose it is inside.
    pub fn new(settings: NatBox, outside: IpAddr, forwarded: Option<(u16, SocketAddr)>) -> Self {
        Self {
            settings,
            outside,
            mappings: BTreeMap::new(),
            ports: BTreeMap::new(),
            forwarded,
            next_port: FIRST_PORT,
        }
    }

    /// Whether this is its address.
    pub fn is_outside(&self, address: IpAddr) -> bool {
        self.outside == address
    }

    /// Something goes out: where it seems to come from.
    pub fn handle_out(
        &mut self,
        now: u64,
        protocol: Protocol,
        inner: SocketAddr,
        to: SocketAddr,
    ) -> SocketAddr {
        if let Some((port, host)) = self.forwarded
            && host == inner
        {
            return SocketAddr::new(self.outside, port);
        }
        let key = (protocol, inner, seen_by(self.settings.mapping, to));
        if self.mappings.get(&key).is_some_and(|mapping| mapping.until <= now) {
            self.forget(key);
        }
        if !self.mappings.contains_key(&key) {
            let port = self.free_port(now, protocol, inner.port());
            self.ports.insert((protocol, port), (key.1, key.2));
            self.mappings.insert(key, Mapping { port, until: 0, contacted: BTreeMap::new() });
        }
        let until = now + self.idle(protocol);
        let mapping = self.mappings.get_mut(&key).expect("made above");
        mapping.until = until;
        if mapping.contacted.len() == CONTACTS_MAX {
            mapping.contacted.pop_first();
        }
        mapping.contacted.insert(to, ());
        SocketAddr::new(self.outside, mapping.port)
    }

    /// A later segment of a stream goes out: whether the box still knows the stream.
    pub fn handle_more(&mut self, now: u64, inner: SocketAddr, to: SocketAddr) -> bool {
        let until = now + self.idle(Protocol::Tcp);
        let key = (Protocol::Tcp, inner, seen_by(self.settings.mapping, to));
        let is_forwarded = self.forwarded.is_some_and(|(_, host)| host == inner);
        let known = self.mappings.get_mut(&key).filter(|mapping| mapping.until > now);
        known.map(|mapping| mapping.until = until).is_some() || is_forwarded
    }

    /// Something comes in to a port: to whom it goes inside; none where it is dropped.
    pub fn handle_in(
        &mut self,
        now: u64,
        protocol: Protocol,
        from: SocketAddr,
        port: u16,
    ) -> Option<SocketAddr> {
        if let Some((forwarded, host)) = self.forwarded
            && forwarded == port
        {
            return Some(host);
        }
        let (inner, destination) = *self.ports.get(&(protocol, port))?;
        let key = (protocol, inner, destination);
        let until = now + self.idle(protocol);
        let filtering = self.settings.filtering;
        let mapping = self.mappings.get_mut(&key).filter(|mapping| mapping.until > now)?;
        let known = seen_by(filtering, from);
        let lets_in = mapping.contacted.keys().any(|contacted| seen_by(filtering, *contacted) == known);
        if !lets_in {
            return None;
        }
        if protocol == Protocol::Tcp {
            mapping.until = until;
        }
        Some(inner)
    }

    /// Whether those behind it reach each other by its address.
    pub fn hairpins(&self) -> bool {
        self.settings.hairpin
    }

    /// It begins anew. Gives how many mappings it forgot; a forwarded port stays.
    pub fn reboot(&mut self) -> u64 {
        let count = self.mappings.len() as u64;
        self.mappings.clear();
        self.ports.clear();
        // What a box hands out after a start has nothing to do with before.
        self.next_port = self.next_port.wrapping_add(REBOOT_STEP).max(FIRST_PORT);
        count
    }

    fn forget(&mut self, key: (Protocol, SocketAddr, Destination)) {
        if let Some(mapping) = self.mappings.remove(&key) {
            self.ports.remove(&(key.0, mapping.port));
        }
    }

    fn idle(&self, protocol: Protocol) -> u64 {
        match protocol {
            Protocol::Tcp => self.settings.tcp_idle.0,
            Protocol::Udp => self.settings.udp_idle.0,
        }
    }

    /// The port that was asked for, if nobody has it, or the next.
    fn free_port(&mut self, now: u64, protocol: Protocol, wanted: u16) -> u16 {
        let forwarded = self.forwarded.map(|(port, _)| port);
        let mut port = wanted;
        // Fewer connections than ports: some port is free.
        while !self.is_free(now, protocol, port) || forwarded == Some(port) {
            port = self.next_port;
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        }
        port
    }

    fn is_free(&mut self, now: u64, protocol: Protocol, port: u16) -> bool {
        let Some((inner, destination)) = self.ports.get(&(protocol, port)).copied() else { return true };
        let key = (protocol, inner, destination);
        let old = self.mappings.get(&key).is_none_or(|mapping| mapping.until <= now);
        if old {
            self.forget(key);
        }
        old
    }
}

fn seen_by(rule: Rule, destination: SocketAddr) -> Destination {
    match rule {
        Rule::Endpoint => (None, None),
        Rule::Address => (Some(destination.ip()), None),
        Rule::AddressAndPort => (Some(destination.ip()), Some(destination.port())),
    }
}

const FIRST_PORT: u16 = 1024;
const REBOOT_STEP: u16 = 7919;
/// Destinations remembered of one mapping.
const CONTACTS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{SECOND, Time};

    fn socket(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn nat(mapping: Rule, filtering: Rule) -> Nat {
        let settings = NatBox {
            name: "box".to_owned(),
            mapping,
            filtering,
            udp_idle: Time(30 * SECOND),
            tcp_idle: Time(300 * SECOND),
            hairpin: false,
            forward: None,
        };
        Nat::new(settings, socket("95.0.1.1:0").ip(), None)
    }

    const RULES: [Rule; 3] = [Rule::Endpoint, Rule::Address, Rule::AddressAndPort];

    /// RFC 4787, 4.1: X1:x1 sends to Y1:y1, then to Y2:y2; is it the same port outside?
    #[test]
    fn mappings_are_those_of_rfc_4787() {
        // The same address and port, the same address, another address.
        let destinations = ["8.8.8.8:53", "8.8.8.8:54", "9.9.9.9:53"];
        for (rule, same) in
            RULES.into_iter().zip([[true, true, true], [true, true, false], [true, false, false]])
        {
            let mut nat = nat(rule, Rule::Endpoint);
            let inner = socket("10.0.0.2:6881");
            let first = nat.handle_out(0, Protocol::Udp, inner, socket(destinations[0]));
            assert_eq!(first, socket("95.0.1.1:6881"), "a free port is kept");
            for (destination, same) in destinations.into_iter().zip(same) {
                let port = nat.handle_out(1, Protocol::Udp, inner, socket(destination));
                assert_eq!(port == first, same, "{rule:?} {destination}");
            }
            let other = nat.handle_out(1, Protocol::Udp, socket("10.0.0.3:6881"), socket(destinations[0]));
            assert!(other != first && other.ip() == first.ip(), "a port is taken once");
            assert_eq!(nat.handle_out(1, Protocol::Tcp, inner, socket(destinations[0])), first);
        }
    }

    /// RFC 4787, 5: who may send to the port of a host that has sent to 8.8.8.8:53?
    #[test]
    fn filters_are_those_of_rfc_4787() {
        let senders = ["8.8.8.8:53", "8.8.8.8:54", "9.9.9.9:53"];
        for mapping in RULES {
            for (rule, lets_in) in
                RULES.into_iter().zip([[true, true, true], [true, true, false], [true, false, false]])
            {
                let mut nat = nat(mapping, rule);
                let inner = socket("10.0.0.2:6881");
                let outside = nat.handle_out(0, Protocol::Udp, inner, socket(senders[0]));
                for (sender, lets_in) in senders.into_iter().zip(lets_in) {
                    let to = nat.handle_in(1, Protocol::Udp, socket(sender), outside.port());
                    assert_eq!(to, lets_in.then_some(inner), "{mapping:?} {rule:?} {sender}");
                }
                assert_eq!(nat.handle_in(1, Protocol::Tcp, socket(senders[0]), outside.port()), None);
                assert_eq!(nat.handle_in(1, Protocol::Udp, socket(senders[0]), 7), None);
            }
        }
    }

    #[test]
    fn only_what_goes_out_keeps_the_mapping_of_datagrams() {
        let mut nat = nat(Rule::Endpoint, Rule::Endpoint);
        let (inner, server) = (socket("10.0.0.2:6881"), socket("8.8.8.8:53"));
        let port = nat.handle_out(0, Protocol::Udp, inner, server).port();
        nat.handle_out(20 * SECOND, Protocol::Udp, inner, server);
        assert_eq!(nat.handle_in(49 * SECOND, Protocol::Udp, server, port), Some(inner));
        assert_eq!(nat.handle_in(50 * SECOND, Protocol::Udp, server, port), None);
    }

    #[test]
    fn a_stream_keeps_its_mapping_both_ways() {
        let mut nat = nat(Rule::Endpoint, Rule::AddressAndPort);
        let (inner, server) = (socket("10.0.0.2:40000"), socket("8.8.8.8:6881"));
        let port = nat.handle_out(0, Protocol::Tcp, inner, server).port();
        assert_eq!(nat.handle_in(299 * SECOND, Protocol::Tcp, server, port), Some(inner));
        assert_eq!(nat.handle_in(598 * SECOND, Protocol::Tcp, server, port), Some(inner));
        assert!(nat.handle_more(700 * SECOND, inner, server));
        assert_eq!(nat.handle_in(1000 * SECOND, Protocol::Tcp, server, port), None);
        assert!(!nat.handle_more(1000 * SECOND, inner, server));
    }

    #[test]
    fn a_reboot_forgets_everybody_and_an_old_port_is_given_again() {
        let mut nat = nat(Rule::Endpoint, Rule::Endpoint);
        let (one, two, server) = (socket("10.0.0.2:5"), socket("10.0.0.3:5"), socket("8.8.8.8:53"));
        assert_eq!(nat.handle_out(0, Protocol::Udp, one, server).port(), 5);
        let second = nat.handle_out(0, Protocol::Udp, two, server).port();
        assert_eq!(nat.reboot(), 2);
        assert_eq!(nat.handle_in(1, Protocol::Udp, server, second), None);
        assert_eq!(nat.handle_out(1, Protocol::Udp, two, server).port(), 5);
        assert_eq!(nat.handle_out(40 * SECOND, Protocol::Udp, one, server).port(), 5, "that one is old");
    }

    #[test]
    fn a_forwarded_port_is_open_to_all_and_nobody_elses() {
        let host = socket("10.0.0.2:6881");
        let mut nat = nat(Rule::AddressAndPort, Rule::AddressAndPort);
        nat.forwarded = Some((6881, host));
        assert_eq!(nat.handle_in(0, Protocol::Tcp, socket("1.2.3.4:5"), 6881), Some(host));
        let other = nat.handle_out(0, Protocol::Udp, socket("10.0.0.3:6881"), socket("8.8.8.8:53"));
        assert_ne!(other.port(), 6881);
        assert_eq!(nat.handle_out(0, Protocol::Udp, host, socket("8.8.8.8:53")).port(), 6881);
    }
}
