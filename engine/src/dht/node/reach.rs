//! Whether others can ask us (BEP 43): a node that nobody can reach is better in nobody's table.
//!
//! It is *open* at first. When the network is large and for half an hour no question came from a place that we had not sent
//! to before, as a router that forwards nothing would have it, it is *closed*; for two hours, as then others must learn of us
//! anew before it can be seen that they do reach us. One such question opens it at once.
//!
//! It never closes in a small network, where all know each other.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;
use std::time::Duration;

use crate::address::Scope;
use crate::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Whom we sent to, and when last; the latest last.
    sent: VecDeque<(IpAddr, Instant)>,
    /// Since when a question is missed; none: it is not.
    missed_since: Option<Instant>,
    closed_until: Option<Instant>,
}

impl Reach {
    /// Nobody can ask us.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed_until.is_some()
    }

    /// We sent something, and a router may let in what comes back.
    pub(crate) fn on_sent(&mut self, now: Instant, to: SocketAddr) {
        if let Some(at) = self.sent.iter().position(|(ip, _)| *ip == to.ip()) {
            self.sent.remove(at);
        }
        while let Some((_, at)) = self.sent.front()
            && (self.sent.len() == SENT_MAX || now.since(*at) >= LET_IN)
        {
            self.sent.pop_front();
        }
        self.sent.push_back((to.ip(), now));
    }

    /// Somebody asks.
    pub(crate) fn on_question(&mut self, now: Instant, from: SocketAddr) {
        let may_be_let_in = self.sent.iter().any(|(ip, at)| *ip == from.ip() && now.since(*at) < LET_IN);
        if !may_be_let_in || Scope::of(from.ip()) != Scope::Public {
            self.missed_since = None;
            self.closed_until = None;
        }
    }

    /// Judges anew, knowing how many nodes owe us nothing.
    pub(crate) fn judge(&mut self, now: Instant, nodes: usize) {
        if self.closed_until.is_some_and(|until| until <= now) {
            (self.closed_until, self.missed_since) = (None, None);
        }
        if nodes < NODES_MIN {
            (self.closed_until, self.missed_since) = (None, None);
            return;
        }
        let since = *self.missed_since.get_or_insert(now);
        if self.closed_until.is_none() && now.since(since) >= MISSED_TIME {
            self.closed_until = Some(now + CLOSED_TIME);
        }
    }

    /// The network is another one.
    pub(crate) fn renew(&mut self) {
        *self = Self::default();
    }
}

/// How long after a packet of ours a router may let in what comes from there; most forget sooner.
const LET_IN: Duration = Duration::from_secs(10 * 60);
/// Addresses remembered; of more, the oldest count as never sent to.
const SENT_MAX: usize = 128;
/// Nodes of a network so large that somebody would have asked.
const NODES_MIN: usize = 32;
/// Without any question, nobody can ask.
const MISSED_TIME: Duration = Duration::from_secs(30 * 60);
/// Until it is tried again.
const CLOSED_TIME: Duration = Duration::from_secs(2 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> SocketAddr {
        (IpAddr::from([203, 0, 113, n]), 6881).into()
    }

    fn at(minutes: u64) -> Instant {
        Instant::START + Duration::from_secs(60 * minutes)
    }

    /// Closed after so many minutes, when asked by these every five.
    fn is_closed(minutes: u64, nodes: usize, asks: fn(&mut Reach, Instant)) -> bool {
        let mut reach = Reach::default();
        for minute in (0..=minutes).step_by(5) {
            asks(&mut reach, at(minute));
            reach.judge(at(minute), nodes);
        }
        reach.is_closed()
    }

    #[test]
    fn who_is_asked_by_nobody_but_those_it_asked_is_closed() {
        let nobody = |_: &mut Reach, _| {};
        let those_it_asked = |reach: &mut Reach, now| {
            reach.on_sent(now, address(1));
            reach.on_question(now, address(1));
        };
        let a_stranger = |reach: &mut Reach, now| {
            reach.on_sent(now, address(1));
            reach.on_question(now, address(2));
        };
        assert!(is_closed(30, 32, nobody) && is_closed(30, 32, those_it_asked));
        assert!(!is_closed(25, 32, nobody) && !is_closed(600, 32, a_stranger));
        assert!(!is_closed(600, 31, nobody), "all know each other");
        let a_neighbour = |reach: &mut Reach, now| {
            let neighbour = "192.168.1.7:6881".parse().unwrap();
            reach.on_sent(now, neighbour);
            reach.on_question(now, neighbour);
        };
        assert!(!is_closed(600, 32, a_neighbour));
    }

    #[test]
    fn it_opens_when_it_is_asked_and_is_tried_again_by_and_by() {
        let mut reach = Reach::default();
        let mut changes = Vec::new();
        for minute in 0..400 {
            reach.judge(at(minute), 100);
            if changes.last().is_none_or(|(_, was)| *was != reach.is_closed()) {
                changes.push((minute, reach.is_closed()));
            }
        }
        assert_eq!(changes, [(0, false), (30, true), (150, false), (180, true), (300, false), (330, true)]);
        reach.on_question(at(400), address(1));
        assert!(!reach.is_closed());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut reach = Reach::default();
        for n in 0..10_000u32 {
            reach.on_sent(at(1), (IpAddr::from(n.to_be_bytes()), 1).into());
        }
        assert_eq!(reach.sent.len(), SENT_MAX);
        reach.on_sent(at(60), address(1));
        assert_eq!(reach.sent.len(), 1);
    }
}
